//! Each op of each family with what it needs, and how many system calls it takes on the slave.

use crate::replay::tests::{
    acl, allocate, copy, create, link, mkdir, mknod, mode, new, owner, p, remove, rename, rmdir, set,
    symlink, t, times, truncate, unlink, write,
};
use std::fs;
use std::os::unix::fs::symlink as symlink_at;
use std::path::Path;
use tdfs_wire::Op;
use tdfs_wire::op::{NamespaceOp, NewObject, Node, RenameMode};

type Bulked = (Op, Vec<u8>);
/// Name, steps, the record, what somebody did.
type Intrusion = (&'static str, u64, Op, fn(&Path));

/// Some records, of which one is begun again and again.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) before: Vec<Bulked>,
    /// What somebody does in the replica, before `op` comes.
    pub(super) intruder: Option<fn(&Path)>,
    pub(super) op: Bulked,
    pub(super) after: Vec<Bulked>,
    /// System calls of `op` that change something; one that is missing here has no `step`.
    pub(super) steps: u64,
    /// How the replica stands in the end, and how many divergences it has counted.
    pub(super) standing: &'static str,
    pub(super) on_disk: bool,
    pub(super) as_nobody: bool,
}

use RenameMode::{Exchange, NoReplace, Replace};

/// `a` and `b` are files with content, `d` a directory with the file `d/f`, `e` an empty one; `a` is also `l`.
fn tree() -> Vec<Bulked> {
    let plain = |op: Op| (op, Vec::new());
    vec![
        plain(mkdir("after")),
        plain(mkdir("d")),
        plain(mkdir("e")),
        plain(create("a")),
        (write("a", 0), [[1; 4096], [2; 4096], [3; 4096]].concat()),
        plain(create("b")),
        (write("b", 5000), vec![4; 9000]),
        plain(create("d/f")),
        (write("d/f", 0), b"content".to_vec()),
        plain(link("a", "l")),
        (set("a", "user.a"), b"before".to_vec()),
        plain(times("", 100)),
    ]
}

fn case(name: &'static str, steps: u64, op: Op, bulk: &[u8]) -> Case {
    let after = vec![
        (create("after/f"), Vec::new()),
        (write("after/f", 1), b"more".to_vec()),
        (mode("after/f", 0o640), Vec::new()),
    ];
    Case {
        name,
        before: tree(),
        intruder: None,
        op: (op, bulk.to_vec()),
        after,
        steps,
        standing: "equal 0",
        on_disk: false,
        as_nobody: false,
    }
}

/// For a slave of the user `user` (0: root).
pub(super) fn cases(user: u32) -> Vec<Case> {
    if user == 0 {
        return [namespace(), data(), attributes()].into_iter().flatten().collect();
    }
    let mut all: Vec<Case> = of_anybody().into_iter().chain(shut()).collect();
    for case in &mut all {
        case.as_nobody = true;
        let records = case.before.iter_mut().chain([&mut case.op]).chain(&mut case.after);
        records.for_each(|(op, _)| give(op, user));
    }
    all
}

/// Gives new objects to `user`.
fn give(op: &mut Op, user: u32) {
    if let Op::Namespace(
        NamespaceOp::Create(new)
        | NamespaceOp::Mkdir(new)
        | NamespaceOp::Symlink { new, .. }
        | NamespaceOp::Mknod { new, .. },
    ) = op
    {
        (new.uid, new.gid) = (user, user);
    }
}

fn with_acls(name: &'static str, steps: u64, make: fn(NewObject) -> NamespaceOp, default: bool) -> Case {
    let bytes = u32::try_from(acl().len()).unwrap();
    let default_acl_bytes = if default { bytes } else { 0 };
    let new = NewObject { access_acl_bytes: bytes, default_acl_bytes, ..new("n", 0o664) };
    let bulk = if default { [acl(), acl()].concat() } else { acl() };
    case(name, steps, Op::Namespace(make(new)), &bulk)
}

fn namespace() -> Vec<Case> {
    let node = |path: &str, node| Op::Namespace(NamespaceOp::Mknod { new: new(path, 0o640), node });
    let suid = Op::Namespace(NamespaceOp::Create(new("n", 0o6751)));
    let mut cases = vec![
        case("create", 6, create("d/n"), b""),
        case("create-setuid", 6, suid, b""),
        with_acls("create-acl", 7, NamespaceOp::Create, false),
        case("mkdir", 7, mkdir("d/n"), b""),
        with_acls("mkdir-acls", 11, NamespaceOp::Mkdir, true),
        case("fifo", 7, mknod("n", Node::Fifo), b""),
        case("socket", 7, mknod("n", Node::Socket), b""),
        case("char", 7, node("n", Node::Char(0x103)), b""),
        case("block", 7, node("n", Node::Block(0x802)), b""),
        case("symlink", 5, symlink("n", "d/f"), b""),
        case("link", 3, link("b", "d/n"), b""),
        case("unlink", 3, unlink("b"), b""),
        case("unlink-linked", 3, unlink("a"), b""),
        case("rmdir", 3, rmdir("e"), b""),
    ];
    let renames: [(&str, &str, &str, RenameMode); 9] = [
        ("rename", "b", "d/n", NoReplace),
        ("rename-replace", "b", "d/f", Replace),
        ("rename-replace-linked", "b", "a", Replace),
        ("rename-linked", "a", "d/n", Replace),
        ("rename-dir", "d", "e/n", NoReplace),
        ("rename-dir-replace", "d", "e", Replace),
        ("exchange", "a", "d/f", Exchange),
        ("exchange-dirs", "d", "e", Exchange),
        ("exchange-linked", "a", "l", Exchange),
    ];
    cases.extend(renames.map(|(name, from, to, mode)| case(name, 4, rename(from, to, mode), b"")));
    cases.push(case("exchange-file-dir", 4, rename("b", "d", Exchange), b""));
    cases
}

const COLLAPSE: u32 = 8;
const ZERO: u32 = 0x10;
const INSERT: u32 = 0x20;

fn data() -> Vec<Case> {
    let disk = |case: Case| Case { on_disk: true, ..case };
    vec![
        case("write", 3, write("b", 3), b"short"),
        case("write-long", 6, write("b", 100), &[5; 16000]),
        case("truncate", 3, truncate("a", 5000), b""),
        case("truncate-up", 3, truncate("a", 50000), b""),
        disk(case("allocate", 3, allocate("a", 0, 8192, 8192, 16384), b"")),
        disk(case("allocate-keep", 3, allocate("a", 1, 8192, 1 << 16, 12288), b"")),
        case("punch", 3, allocate("a", 3, 4096, 4096, 12288), b""),
        disk(case("zero", 3, allocate("a", ZERO, 8192, 8192, 16384), b"")),
        disk(case("collapse", 3, allocate("a", COLLAPSE, 0, 4096, 8192), b"")),
        disk(case("insert", 3, allocate("a", INSERT, 4096, 4096, 16384), b"")),
        case("copy", 5, copy(("a", 0), ("b", 100), 12000), b""),
        case("copy-within", 4, copy(("a", 0), ("a", 6000), 6000), b""),
    ]
}

fn attributes() -> Vec<Case> {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut capable = case("owner-capable", 4, owner("b", 9, 8, 0o755), b"");
    capable.before.push((set("b", "security.capability"), capability.to_vec()));
    capable.before.push((mode("b", 0o6755), Vec::new()));
    vec![
        case("mode", 3, mode("b", 0o4711), b""),
        case("mode-dir", 3, mode("d", 0o1777), b""),
        case("owner", 4, owner("b", 9, 8, 0o6755), b""),
        case("owner-dir", 4, owner("d", 9, 8, 0o755), b""),
        capable,
        case("times", 2, times("b", -7), b""),
        case("times-dir", 2, times("d", 7), b""),
        case("xattr", 3, set("a", "user.a"), b"after"),
        case("xattr-new", 3, set("d", "user.b"), &[6; 200]),
        case("xattr-trusted", 3, set("b", "trusted.b"), b"value"),
        case("xattr-capability", 3, set("b", "security.capability"), &capability),
        case("xattr-acl", 5, set("b", "system.posix_acl_access"), &acl()),
        case("xattr-remove", 2, remove("a", "user.a"), b""),
        Case { standing: "resyncing 0", ..case("check", 7, Op::Check { paths: vec![p("d")] }, b"") },
    ]
}

/// What needs no rights.
fn of_anybody() -> Vec<Case> {
    let closed = |path: &str, mode| NewObject { mtime: t(9), ..new(path, mode) };
    let made = |op: NamespaceOp| Op::Namespace(op);
    vec![
        case("nobody-create", 6, create("d/n"), b""),
        // Its final mode keeps its owner from opening it.
        case("nobody-create-shut", 6, made(NamespaceOp::Create(closed("n", 0o044))), b""),
        case("nobody-mkdir-shut", 7, made(NamespaceOp::Mkdir(closed("n", 0o055))), b""),
        case("nobody-rename", 4, rename("a", "d/f", Replace), b""),
        case("nobody-write", 3, write("b", 0), b"short"),
    ]
}

/// What modes shut its owner out of: `d` and its file, and `b`.
fn shut() -> Vec<Case> {
    let in_shut = |case: Case| {
        let mut case = case;
        let shutting = [mode("d/f", 0o040), mode("b", 0o004), mode("d", 0o040), mode("e", 0o100)];
        case.before.extend(shutting.map(|op| (op, Vec::new())));
        case
    };
    vec![
        in_shut(case("shut-write", 8, write("b", 0), b"short")),
        in_shut(case("shut-write-below", 11, write("d/f", 0), b"short")),
        in_shut(case("shut-copy", 12, copy(("d/f", 0), ("a", 0), 7), b"")),
        in_shut(case("shut-create", 17, create("d/n"), b"")),
        in_shut(case("shut-mkdir", 13, mkdir("e/n"), b"")),
        in_shut(case("shut-unlink", 14, unlink("d/f"), b"")),
        in_shut(case("shut-link", 16, link("b", "d/n"), b"")),
        in_shut(case("shut-mode", 8, mode("d/f", 0o400), b"")),
        in_shut(case("shut-times", 7, times("d/f", 4), b"")),
        in_shut(case("shut-xattr", 11, set("d/f", "user.a"), b"value")),
        in_shut(case("shut-rename", 33, rename("d/f", "e/n", NoReplace), b"")),
        in_shut(case("shut-rename-dir", 16, rename("d", "e/n", NoReplace), b"")),
        in_shut(case("shut-exchange", 4, rename("d", "e", Exchange), b"")),
    ]
}

/// What somebody did just so that a redo could take it for its own.
pub(super) fn intrusions() -> Vec<Case> {
    let all: [Intrusion; 17] = [
        ("intruder-create", 8, create("n"), |root| fs::write(root.join("n"), "").unwrap()),
        ("intruder-mkdir", 8, mkdir("n"), |root| fs::create_dir(root.join("n")).unwrap()),
        ("intruder-symlink", 8, symlink("n", "t"), |root| symlink_at("t", root.join("n")).unwrap()),
        ("intruder-fifo", 8, mknod("n", Node::Fifo), |root| {
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(rustix::fs::CWD, root.join("n"), kind, mode, 0).unwrap();
        }),
        ("intruder-link", 8, link("b", "n"), |root| fs::hard_link(root.join("b"), root.join("n")).unwrap()),
        ("intruder-unlink", 8, unlink("b"), |root| fs::rename(root.join("b"), root.join("stray")).unwrap()),
        ("intruder-replaced", 8, rmdir("e"), |root| {
            fs::remove_dir(root.join("e")).unwrap();
            fs::write(root.join("e"), "").unwrap();
        }),
        ("intruder-rmdir", 8, rmdir("e"), |root| fs::remove_dir(root.join("e")).unwrap()),
        ("intruder-rename", 8, rename("b", "n", Replace), |root| {
            fs::rename(root.join("b"), root.join("n")).unwrap();
        }),
        ("intruder-noreplace", 8, rename("b", "n", NoReplace), |root| fs::write(root.join("n"), "").unwrap()),
        ("intruder-same", 7, rename("b", "n", Replace), |root| {
            fs::hard_link(root.join("b"), root.join("n")).unwrap();
        }),
        ("intruder-exchange-from", 10, rename("b", "d", Exchange), |root| {
            fs::remove_file(root.join("b")).unwrap();
        }),
        ("intruder-exchange-to", 10, rename("b", "d", Exchange), |root| {
            fs::remove_dir_all(root.join("d")).unwrap();
        }),
        ("intruder-write", 7, write("b", 0), |root| fs::remove_file(root.join("b")).unwrap()),
        ("intruder-truncate", 7, truncate("b", 0), |root| {
            fs::remove_file(root.join("b")).unwrap();
            fs::create_dir(root.join("b")).unwrap();
        }),
        // Appended to, so that two collapses leave the size that one should have left.
        ("intruder-collapse", 7, allocate("a", COLLAPSE, 0, 4096, 8192), |root| {
            fs::write(root.join("a"), [7; 16384]).unwrap();
        }),
        ("intruder-copy", 8, copy(("a", 0), ("b", 0), 12288), |root| fs::write(root.join("a"), "x").unwrap()),
    ];
    all.map(|(name, steps, op, intruder)| Case {
        intruder: Some(intruder),
        standing: "resyncing 1",
        on_disk: name == "intruder-collapse",
        ..case(name, steps, op, b"")
    })
    .into_iter()
    .collect()
}
