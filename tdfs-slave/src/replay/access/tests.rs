//! A slave without root's rights gets in where its own modes shut it out, and leaves no trace of that.

use super::*;
use crate::replay::{Lack, Lacks, Pass, apply, foresee};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tdfs_wire::Time;
use tdfs_wire::op::{DataOp, NewObject, RenameMode};
use tdfs_wire::record::Owners;

fn p(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

const T: Time = Time { sec: 7, nsec: 8 };

/// Runs `test` on a thread without any capability: root's files are its own, and modes bind it.
fn as_ordinary_owner(test: impl FnOnce() + Send) {
    let drop_and_test = || {
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
            .unwrap();
        test();
    };
    std::thread::scope(|scope| scope.spawn(drop_and_test).join()).unwrap();
}

fn chmod(dir: &Path, name: &str, mode: u32) {
    std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(mode)).unwrap();
}

fn mode_of(dir: &Path, name: &str) -> u32 {
    std::fs::symlink_metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777
}

fn new(path: &str) -> NewObject {
    let euid = rustix::process::geteuid().as_raw();
    let (access_acl_bytes, default_acl_bytes) = (0, 0);
    let (mtime, parent_mtime) = (T, T);
    let gid = rustix::process::getegid().as_raw();
    NewObject {
        path: p(path),
        mode: 0o400,
        uid: euid,
        gid,
        mtime,
        parent_mtime,
        access_acl_bytes,
        default_acl_bytes,
    }
}

#[test]
fn shut_directories_and_files_are_opened_and_shut_again() {
    as_ordinary_owner(|| {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        std::fs::create_dir_all(dir.join("a/b")).unwrap();
        std::fs::create_dir(dir.join("c")).unwrap();
        std::fs::write(dir.join("a/b/f"), "old").unwrap();
        chmod(dir, "a/b/f", 0o000);
        chmod(dir, "a/b", 0o1000);
        chmod(dir, "a", 0o100);
        chmod(dir, "c", 0o040);
        let mut target = Target::open(dir).unwrap();
        let mut lacks = Lacks::default();
        let rename = |from: &str, to: &str, mode| {
            let (from_parent_mtime, to_parent_mtime) = (T, T);
            Op::Namespace(NamespaceOp::Rename {
                from: p(from),
                to: p(to),
                mode,
                from_parent_mtime,
                to_parent_mtime,
                links: 0,
            })
        };
        let ops = [
            Op::Data(DataOp::Write { path: p("a/b/f"), offset: 0, mtime: T }),
            Op::Attr(AttrOp::Mode { path: p("a/b/f"), mode: 0o004 }),
            Op::Namespace(NamespaceOp::Create(new("a/b/g"))),
            Op::Namespace(NamespaceOp::Link { from: p("a/b/g"), to: p("c/g"), parent_mtime: T }),
            rename("a/b", "c/b", RenameMode::NoReplace),
            Op::Namespace(NamespaceOp::Unlink { path: p("c/b/g"), parent_mtime: T, links: 0 }),
            Op::Attr(AttrOp::Mode { path: p("c/b"), mode: 0o200 }),
        ];
        for op in ops {
            let foreseen = foresee(&mut target, &op).unwrap();
            let done =
                apply(&mut target, &mut lacks, (&op, Owners::default(), b"new"), Pass::First(foreseen));
            done.unwrap_or_else(|e| panic!("{op:?}: {e}"));
        }
        assert_eq!((mode_of(dir, "a"), mode_of(dir, "c")), (0o100, 0o040));
        chmod(dir, "c", 0o700);
        assert_eq!(mode_of(dir, "c/b"), 0o200);
        assert_eq!(mode_of(dir, "c/g"), 0o400);
        chmod(dir, "c/b", 0o700);
        assert_eq!(mode_of(dir, "c/b/f"), 0o004);
        chmod(dir, "c/b/f", 0o600);
        assert_eq!(std::fs::read(dir.join("c/b/f")).unwrap(), b"new");
    });
}

/// What a resync does: it fills a directory that was shut, and gives it the mode that opens it.
#[test]
fn a_mode_that_was_given_meanwhile_is_not_taken_back() {
    as_ordinary_owner(|| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        chmod(dir.path(), "d", 0o500);
        let mut target = Target::open(dir.path()).unwrap();
        let fill = |target: &mut Target| {
            let fd = target.dir(&p("d")).map_err(at(Step::Names, "reach", &p("d")))?;
            let made = rustix::fs::mkdirat(&fd, "new", rustix::fs::Mode::RWXU);
            made.map_err(at(Step::Names, "make", &p("d/new")))?;
            object::set_mode(fd.as_fd(), 0o700).map_err(at(Step::Mode, "set mode", &p("d")))
        };
        with_access(&mut target, || vec![p("d")], fill).unwrap();
        assert_eq!(mode_of(dir.path(), "d"), 0o700);
    });
}

#[test]
fn what_rights_do_not_carry_is_left_out_and_counted() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root, to be root without its rights");
        return;
    }
    as_ordinary_owner(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut target = Target::open(dir.path()).unwrap();
        let mut lacks = Lacks::default();
        let foreign = NewObject { uid: 4711, mode: 0o4755, ..new("f") };
        let device = NamespaceOp::Mknod { new: new("null"), node: tdfs_wire::op::Node::Char(0x103) };
        for op in [NamespaceOp::Create(foreign), device] {
            apply(&mut target, &mut lacks, (&Op::Namespace(op), Owners::default(), b""), Pass::First([0, 0]))
                .unwrap();
        }
        // Without its owner a setuid file would give away the slave's own rights.
        assert_eq!(mode_of(dir.path(), "f"), 0o755);
        assert!(!dir.path().join("null").exists());
        for lack in [Lack::Owner, Lack::SetId, Lack::Device] {
            assert!(lacks.has(lack), "{lack:?}");
        }
        assert_eq!(lacks.words().len(), 3);
    });
}
