//! Each op leaves exactly what its record says.

use super::*;

#[test]
fn a_created_object_has_owner_mode_and_times_of_the_record() {
    if skip_without_root() {
        return;
    }
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    tree.done(mkdir("d"), b"");
    tree.done(symlink("s", "nowhere"), b"");
    tree.done(mknod("n", Node::Block(0x802)), b"");
    let picture = tree.picture();
    for (name, mode) in [("/f", 0o644), ("/d", 0o755), ("/s", 0o777), ("/n", 0o640)] {
        let (meta, _, _) = &picture[&PathBuf::from(name)];
        assert_eq!((meta.mode, meta.uid, meta.gid, meta.mtime), (mode, 1234, 4321, t(1000)), "{name}");
    }
    assert_eq!(picture[&PathBuf::from("/")].0.mtime, t(2000));
}

#[test]
fn a_write_lands_where_it_was_and_costs_no_open_after_a_create() {
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    tree.done(mode("f", 0), b"");
    tree.done(write("f", 5), b"hello");
    assert_eq!(std::fs::read(tree.path("f")).unwrap(), b"\0\0\0\0\0hello");
    assert_eq!(tree.picture()[&PathBuf::from("/f")].0.mtime, t(6000));
}

#[test]
fn a_kept_file_is_forgotten_when_its_name_goes_or_moves() {
    let mut tree = Tree::new();
    tree.done(mkdir("d"), b"");
    tree.done(create("d/f"), b"");
    tree.done(rename("d", "e", RenameMode::NoReplace), b"");
    tree.done(mkdir("d"), b"");
    tree.done(create("d/f"), b"");
    tree.done(write("d/f", 0), b"new");
    tree.done(write("e/f", 0), b"moved");
    tree.done(rename("d", "e", RenameMode::Exchange), b"");
    tree.done(write("e/f", 0), b"NEW");
    tree.done(unlink("d/f"), b"");
    tree.done(create("d/f"), b"");
    tree.done(write("d/f", 0), b"third");
    assert_eq!(std::fs::read(tree.path("e/f")).unwrap(), b"NEW");
    assert_eq!(std::fs::read(tree.path("d/f")).unwrap(), b"third");
}

#[test]
fn a_replaced_file_takes_no_more_writes() {
    let mut tree = Tree::new();
    tree.done(create("a"), b"");
    tree.done(create("b"), b"");
    tree.done(write("b", 0), b"old");
    tree.done(rename("a", "b", RenameMode::Replace), b"");
    tree.done(write("b", 0), b"x");
    assert_eq!(std::fs::read(tree.path("b")).unwrap(), b"x");
}

#[test]
fn owner_leaves_the_mode_that_the_record_says() {
    if skip_without_root() {
        return;
    }
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    tree.done(mode("f", 0o6755), b"");
    tree.done(owner("f", 1, 2, 0o6755), b"");
    assert_eq!(tree.picture()[&PathBuf::from("/f")].0.mode, 0o6755);
}

#[test]
fn allocate_modes_have_the_outcome_of_the_record_on_any_file_system() {
    const COLLAPSE: u32 = 8;
    const ZERO: u32 = 0x10;
    const INSERT: u32 = 0x20;
    let mut tree = Tree::new();
    let block =
        vec![b'a'; 4096].into_iter().chain(vec![b'b'; 4096]).chain(vec![b'c'; 4096]).collect::<Vec<u8>>();
    for name in ["plain", "punch", "zero", "collapse", "insert", "keep"] {
        tree.done(create(name), b"");
        tree.done(write(name, 0), &block);
    }
    tree.done(allocate("plain", 0, 8192, 8192, 16384), b"");
    tree.done(allocate("punch", 3, 4096, 4096, 12288), b"");
    tree.done(allocate("zero", ZERO, 8192, 8192, 16384), b"");
    tree.done(allocate("collapse", COLLAPSE, 0, 4096, 8192), b"");
    tree.done(allocate("insert", INSERT, 4096, 4096, 16384), b"");
    tree.done(allocate("keep", 1, 0, 1 << 20, 12288), b"");
    let read = |name: &str| std::fs::read(tree.path(name)).unwrap();
    let zeros = vec![0; 4096];
    assert_eq!(read("plain"), [&block[..], &zeros].concat());
    assert_eq!(read("punch"), [&block[..4096], &zeros, &block[8192..]].concat());
    assert_eq!(read("zero"), [&block[..8192], &zeros, &zeros].concat());
    assert_eq!(read("collapse"), &block[4096..]);
    assert_eq!(read("insert"), [&block[..4096], &zeros, &block[4096..]].concat());
    assert_eq!(read("keep"), block);
}

#[test]
fn a_copy_of_more_than_the_source_has_is_a_divergence() {
    let mut tree = Tree::new();
    tree.done(create("a"), b"");
    tree.done(create("b"), b"");
    tree.done(write("a", 0), &[7; 10_000]);
    tree.done(copy(("a", 1), ("b", 2), 5000), b"");
    assert_eq!(std::fs::read(tree.path("b")).unwrap()[1..], [&[0][..], &[7; 5000]].concat());
    let failure = tree.apply(&copy(("a", 0), ("b", 0), 20_000), b"").unwrap_err();
    assert!(matches!(failure, Failure::Divergence(_)), "{failure}");
}

/// The other one is moved all the same, once, also where that was done before a kill.
#[test]
fn an_exchange_that_lacks_one_object_is_a_divergence() {
    for lacking in ["a", "d/b"] {
        let mut tree = Tree::new();
        tree.done(mkdir("d"), b"");
        tree.done(create("a"), b"");
        if lacking == "a" {
            tree.done(rename("a", "d/b", RenameMode::NoReplace), b"");
        }
        let op = rename("a", "d/b", RenameMode::Exchange);
        let foreseen = foresee(&mut tree.target, &op).unwrap();
        for pass in [Pass::First(foreseen), Pass::Redo(foreseen)] {
            let failure = tree.pass(&op, b"", pass).unwrap_err();
            assert!(matches!(failure, Failure::Divergence(_)), "{failure}");
            assert!(tree.path(lacking).exists(), "{lacking}, {pass:?}");
        }
        assert_eq!(tree.picture().len(), 3);
    }
}

/// copy_file_range(2) refuses it, so no master tells of it; done twice after a kill it would do harm.
#[test]
fn a_copy_over_its_own_source_is_a_divergence() {
    let mut tree = Tree::new();
    tree.done(create("a"), b"");
    tree.done(write("a", 0), &[7; 10_000]);
    for to in [0, 1, 4999] {
        let failure = tree.apply(&copy(("a", 0), ("a", to), 5000), b"").unwrap_err();
        assert!(matches!(failure, Failure::Divergence(_)), "{failure}");
    }
    tree.done(copy(("a", 0), ("a", 5000), 5000), b"");
}

#[test]
fn xattrs_and_acls_are_set_and_removed() {
    if skip_without_root() {
        return;
    }
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    for name in ["user.a", "trusted.b"] {
        tree.done(set("f", name), b"value");
    }
    tree.done(set("f", "system.posix_acl_access"), &acl());
    let picture = tree.picture();
    let meta = &picture[&PathBuf::from("/f")].0;
    assert_eq!(meta.xattrs.len(), 3 - usize::from(tree.lacks.has(Lack::Acl)), "{:?}", meta.xattrs);
    assert_eq!(meta.mode, 0o664);
    for name in ["user.a", "trusted.b", "system.posix_acl_access", "user.never"] {
        tree.done(remove("f", name), b"");
    }
    assert_eq!(tree.picture()[&PathBuf::from("/f")].0.xattrs, []);
}

#[test]
fn paths_longer_than_the_kernel_takes_are_reached() {
    let mut tree = Tree::new();
    let mut path = String::new();
    for depth in 0..60 {
        path = format!("{path}{}{}", if depth == 0 { "" } else { "/" }, "x".repeat(200));
        tree.done(mkdir(&path), b"");
    }
    let file = format!("{path}/f");
    tree.done(create(&file), b"");
    tree.target.drop_all();
    tree.done(write(&file, 0), b"deep");
    tree.target.drop_all();
    tree.done(unlink(&file), b"");
}

#[test]
fn what_the_replica_contradicts_is_a_divergence_not_a_stall() {
    let mut tree = Tree::new();
    tree.done(create("f"), b"");
    tree.done(mkdir("d"), b"");
    tree.done(create("d/x"), b"");
    let contradicting = [
        create("f"),
        mkdir("f"),
        create("gone/f"),
        create("f/below"),
        unlink("gone"),
        unlink("d"),
        rmdir("d"),
        rmdir("f"),
        link("d", "linked"),
        link("f", "d/x"),
        rename("gone", "to", RenameMode::Replace),
        rename("f", "d/x", RenameMode::NoReplace),
        rename("f", "d", RenameMode::Replace),
        rename("d", "d/below", RenameMode::NoReplace),
        write("d", 0),
        truncate("gone", 0),
        mode("gone", 0),
        set("gone", "user.a"),
    ];
    for op in contradicting {
        let failure = tree.apply(&op, b"").expect_err("contradicts");
        assert!(matches!(failure, Failure::Divergence(_)), "{op:?}: {failure}");
    }
    // Version, then tag, rights and id of owner, group and others.
    let owner_group_others = [1_u16, 4, 32].map(|tag| [&tag.to_le_bytes()[..], &[6, 0], &[255; 4]].concat());
    let acl = [&[2, 0, 0, 0][..], &owner_group_others.concat()].concat();
    tree.done(set("d", "system.posix_acl_default"), &acl);
    let failure =
        tree.apply(&set("f", "system.posix_acl_default"), &acl).expect_err("only directories have one");
    assert!(matches!(failure, Failure::Divergence(_)), "{failure}");
}

#[test]
fn a_failure_says_what_was_done_to_what() {
    let mut tree = Tree::new();
    let failure = tree.apply(&truncate("d/gone", 0), b"").unwrap_err();
    let said = failure.to_string();
    assert_eq!(
        said,
        "the replica contradicts the master: open /d/gone: ENOENT (No such file or directory (os error 2))"
    );
}
