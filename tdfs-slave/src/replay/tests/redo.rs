//! A record in doubt is redone harmlessly, whatever part of it was done before the kill.

use super::*;
use rustix::fs::{Mode, OFlags};

/// Wholly done, and not begun: the two ends. The redo of each op of the story leaves what the op left.
#[test]
fn redo_of_each_op_leaves_what_the_op_left() {
    if skip_without_root() {
        return;
    }
    let (mut once, mut twice, mut late) = (Tree::new(), Tree::new(), Tree::new());
    for (op, bulk) in story() {
        once.done(op.clone(), &bulk);
        let foreseen = foresee(&mut twice.target, &op).unwrap();
        twice.done(op.clone(), &bulk);
        // The process that redoes has no caches.
        twice.target.drop_all();
        let done = twice.pass(&op, &bulk, Pass::Redo(foreseen));
        done.unwrap_or_else(|e| panic!("redo of {op:?}: {e}"));
        let foreseen = foresee(&mut late.target, &op).unwrap();
        let done = late.pass(&op, &bulk, Pass::Redo(foreseen));
        done.unwrap_or_else(|e| panic!("first redo of {op:?}: {e}"));
        assert_eq!(once.picture(), twice.picture(), "done twice: {op:?}");
        assert_eq!(once.picture(), late.picture(), "done as a redo: {op:?}");
    }
}

/// New objects that were made, and nothing else.
#[test]
fn a_new_object_that_was_only_made_gets_the_rest() {
    if skip_without_root() {
        return;
    }
    let (mut whole, mut part) = (Tree::new(), Tree::new());
    let closed = Mode::from_raw_mode(0o600);
    std::fs::File::create(part.path("f")).unwrap();
    rustix::fs::mkdir(part.path("d"), Mode::from_raw_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("target", part.path("s")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, part.path("p"), rustix::fs::FileType::Fifo, closed, 0).unwrap();
    for op in [create("f"), mkdir("d"), symlink("s", "target"), mknod("p", Node::Fifo)] {
        whole.done(op.clone(), b"");
        part.pass(&op, b"", Pass::Redo([0, 0])).unwrap();
    }
    assert_eq!(whole.picture(), part.picture());
}

/// Names that were changed, with the parents' mtimes not yet set.
#[test]
fn a_change_of_names_that_lacks_its_mtimes_gets_them() {
    let (mut whole, mut part) = (Tree::new(), Tree::new());
    let before = [mkdir("d"), create("a"), create("b"), create("c"), mkdir("e")];
    for op in &before {
        whole.done(op.clone(), b"");
        part.done(op.clone(), b"");
    }
    let ops = [
        link("a", "d/a"),
        unlink("b"),
        rmdir("e"),
        rename("a", "c", RenameMode::Replace),
        rename("c", "d/a", RenameMode::Exchange),
        rename("c", "d/c", RenameMode::NoReplace),
    ];
    for op in ops {
        whole.done(op.clone(), b"");
        let foreseen = foresee(&mut part.target, &op).unwrap();
        if !matches!(op, Op::Namespace(NamespaceOp::Rename { mode: RenameMode::Exchange, .. })) {
            part.done(op.clone(), b"");
        } else {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                part.path("c"),
                rustix::fs::CWD,
                part.path("d/a"),
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
        for directory in [part.path(""), part.path("d")] {
            let directory = rustix::fs::open(directory, OFlags::PATH, Mode::empty()).unwrap();
            object::set_mtime(directory.as_fd(), t(1)).unwrap();
        }
        part.target.drop_all();
        part.pass(&op, b"", Pass::Redo(foreseen)).unwrap();
        // A directory that the op does not name keeps what the test set; only names and content count there.
        for op in [times("", 9), times("d", 9)] {
            whole.done(op.clone(), b"");
            part.done(op, b"");
        }
        assert_eq!(whole.picture(), part.picture(), "{op:?}");
    }
}

/// The redo believes only what the record in doubt can have done.
#[test]
fn a_redo_does_not_take_another_object_for_its_own() {
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    tree.done(write("f", 0), b"not empty");
    tree.done(mkdir("d"), b"");
    tree.done(create("d/x"), b"");
    tree.done(symlink("s", "a"), b"");
    let others = [
        create("f"),
        create("d"),
        mkdir("d"),
        mkdir("f"),
        symlink("s", "b"),
        mknod("f", Node::Fifo),
        link("f", "d/x"),
        rename("gone", "f", RenameMode::Replace),
        rename("gone", "f", RenameMode::NoReplace),
        rename("f", "s", RenameMode::Exchange),
    ];
    for op in others {
        let redone = tree.pass(&op, b"", Pass::Redo([u64::MAX, 0]));
        assert!(matches!(redone, Err(Failure::Divergence(_))), "{op:?}: {redone:?}");
    }
}

/// A range that was collapsed must not be collapsed twice.
#[test]
fn a_shift_is_never_done_twice() {
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    tree.done(write("f", 0), &[vec![1; 4096], vec![2; 4096], vec![3; 4096]].concat());
    let collapse = allocate("f", 8, 0, 4096, 8192);
    tree.done(collapse.clone(), b"");
    let redone = tree.pass(&collapse, b"", Pass::Redo([0, 0]));
    assert!(matches!(redone, Ok(()) | Err(Failure::Divergence(_))), "{redone:?}");
    assert_eq!(std::fs::read(tree.path("f")).unwrap(), [vec![2; 4096], vec![3; 4096]].concat());
}
