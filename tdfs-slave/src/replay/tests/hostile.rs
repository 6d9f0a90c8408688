//! Nothing in the replica leads outside, and no FIFO or device is ever opened.

use super::*;
use std::os::unix::fs::MetadataExt;

/// A replica with symlinks that somebody planted where the master has directories and files.
fn planted() -> (Tree, Tree) {
    let (tree, outside) = (Tree::new(), Tree::new());
    std::fs::write(outside.path("f"), "outside").unwrap();
    std::fs::create_dir(outside.path("sub")).unwrap();
    std::os::unix::fs::symlink(outside.path(""), tree.path("dir")).unwrap();
    std::os::unix::fs::symlink(outside.path("f"), tree.path("file")).unwrap();
    std::os::unix::fs::symlink("..", tree.path("up")).unwrap();
    (tree, outside)
}

#[test]
fn a_symlink_leads_nowhere() {
    let (mut tree, outside) = planted();
    let before = std::fs::symlink_metadata(outside.path("")).unwrap();
    let ops = [
        create("dir/new"),
        mkdir("dir/new"),
        unlink("dir/f"),
        rmdir("dir/sub"),
        link("dir/f", "stolen"),
        rename("dir/f", "stolen", RenameMode::NoReplace),
        write("dir/f", 0),
        write("file", 0),
        truncate("file", 0),
        allocate("file", 0, 0, 10, 10),
        copy(("file", 0), ("file", 0), 1),
        mode("dir/f", 0o777),
        mode("up/x", 0),
        create("up/x"),
        mode("file", 0o777),
        mode("dir", 0o777),
        set("file", "user.a"),
    ];
    for op in ops {
        let done = tree.apply(&op, b"bulk");
        let symlink_itself = matches!(&op, Op::Attr(_)) && done.is_ok();
        assert!(symlink_itself || matches!(done, Err(Failure::Divergence(_))), "{op:?}: {done:?}");
    }
    assert_eq!(std::fs::read(outside.path("f")).unwrap(), b"outside");
    let after = std::fs::symlink_metadata(outside.path("")).unwrap();
    assert_eq!(before.permissions(), after.permissions());
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert!(!outside.path("new").exists());
}

#[test]
fn what_is_no_regular_file_is_never_opened() {
    if skip_without_root() {
        return;
    }
    let mut tree = Tree::new();
    tree.done(mknod("pipe", Node::Fifo), b"");
    tree.done(mknod("null", Node::Char(0x103)), b"");
    tree.done(create("f"), b"");
    for path in ["pipe", "null"] {
        // Opening the FIFO would block for ever; writing to the device would succeed.
        for op in
            [write(path, 0), truncate(path, 0), copy(("f", 0), (path, 0), 1), copy((path, 0), ("f", 0), 1)]
        {
            let done = tree.apply(&op, b"x");
            assert!(matches!(done, Err(Failure::Divergence(_))), "{op:?}: {done:?}");
        }
    }
}

#[test]
fn a_device_that_takes_the_name_of_a_kept_file_is_not_opened() {
    if skip_without_root() {
        return;
    }
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    tree.done(write("f", 0), b"x");
    tree.done(mknod("null", Node::Char(0x103)), b"");
    tree.done(rename("null", "f", RenameMode::Replace), b"");
    let done = tree.apply(&write("f", 0), b"x");
    assert!(matches!(done, Err(Failure::Divergence(_))), "{done:?}");
}

#[test]
fn a_bulk_that_is_shorter_than_its_record_says_harms_nothing() {
    let mut tree = Tree::new();
    let lying = NewObject { access_acl_bytes: u32::MAX, default_acl_bytes: u32::MAX, ..new("f", 0o644) };
    let done = tree.apply(&Op::Namespace(NamespaceOp::Create(lying)), b"short");
    assert!(matches!(done, Err(Failure::Divergence(_))), "{done:?}");
}

#[test]
fn what_belongs_to_somebody_else_is_left_alone() {
    if skip_without_root() {
        return;
    }
    let mut tree = Tree::new();
    for name in ["f", "source"] {
        tree.done(create(name), b"");
        tree.done(write(name, 0), b"content");
    }
    let before = tree.picture();
    let (stat, theirs) = (tree.path("f").symlink_metadata().unwrap(), Owner { uid: 1234, gid: 0 });
    let ours = Owner { uid: stat.uid(), gid: stat.gid() };
    let ops = [
        write("f", 0),
        truncate("f", 0),
        allocate("f", 0, 0, 10, 10),
        copy(("source", 0), ("f", 0), 1),
        mode("f", 0o4755),
        owner("f", 1234, 0, 0o644),
        times("f", 1),
        set("f", "user.a"),
        remove("f", "user.a"),
    ];
    for op in &ops {
        let owners = Owners { changed: Some(theirs), read: Some(ours) };
        let done = tree.owned(op, owners, b"x");
        assert!(matches!(done, Err(Failure::Divergence(_))), "{op:?}: {done:?}");
    }
    let owners = Owners { changed: Some(ours), read: Some(theirs) };
    let done = tree.owned(&ops[3], owners, b"");
    assert!(matches!(done, Err(Failure::Divergence(_))), "a file that it copies from: {done:?}");
    assert_eq!(tree.picture(), before);
    // Where owners are not carried, they tell nothing.
    tree.lacks.note(Lack::Owner, &Trouble { doing: "own", path: p("f"), errno: Errno::PERM });
    tree.owned(&ops[0], Owners { changed: Some(theirs), read: None }, b"x").unwrap();
}
