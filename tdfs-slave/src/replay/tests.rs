//! Tests of redoing records: each op's outcome, its redo from every state a kill can leave, and hostile trees.

mod hostile;
mod ops;
mod redo;

use super::*;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use tdfs_host::object::{self, read_at};
use tdfs_wire::object::Meta;
use tdfs_wire::op::{AttrOp, DataOp, NewObject, Node, RenameMode, XattrName, XattrOp};
use tdfs_wire::{Time, TreePath};

/// A replica in a temporary directory.
struct Tree {
    dir: tempfile::TempDir,
    target: Target,
    lacks: Lacks,
}

/// All that is compared of an object: meta, content, number of names.
type Picture = BTreeMap<PathBuf, (Meta, Vec<u8>, u32)>;

impl Tree {
    fn new() -> Tree {
        let dir = tempfile::tempdir().expect("make a temporary directory");
        let target = Target::open(dir.path()).expect("open it");
        let lacks = Lacks::probe(target.root());
        Tree { dir, target, lacks }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn apply(&mut self, op: &Op, bulk: &[u8]) -> Result<(), Failure> {
        let foreseen = foresee(&mut self.target, op)?;
        self.pass(op, bulk, Pass::First(foreseen))
    }

    fn pass(&mut self, op: &Op, bulk: &[u8], pass: Pass) -> Result<(), Failure> {
        apply(&mut self.target, &mut self.lacks, (op, Owners::default(), bulk), pass)
    }

    fn owned(&mut self, op: &Op, owners: Owners, bulk: &[u8]) -> Result<(), Failure> {
        let pass = Pass::First(foresee(&mut self.target, op)?);
        apply(&mut self.target, &mut self.lacks, (op, owners, bulk), pass)
    }

    #[track_caller]
    fn done(&mut self, op: impl Into<Op>, bulk: &[u8]) {
        let op = op.into();
        self.apply(&op, bulk).unwrap_or_else(|e| panic!("{op:?}: {e}"));
    }

    fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        self.draw(&TreePath::root(), &mut picture);
        picture
    }

    fn draw(&self, path: &TreePath, picture: &mut Picture) {
        // A fresh target: the picture must not depend on what is cached.
        let mut target = Target::open(self.dir.path()).unwrap();
        let fd = target.object(path).unwrap();
        let stat = object::stat(fd.as_fd()).unwrap();
        let meta = object::meta(fd.as_fd(), &stat).unwrap();
        let mut content = Vec::new();
        if object::file_type(&stat) == libc::S_IFREG {
            let file = target.file_to_read(path).unwrap();
            content = vec![0; usize::try_from(stat.stx_size).unwrap()];
            read_at(file.as_fd(), &mut content, 0).unwrap();
        }
        if object::file_type(&stat) == libc::S_IFDIR {
            for name in object::list_names(fd.as_fd()).unwrap() {
                self.draw(&path.join(&name).unwrap(), picture);
            }
        }
        picture.insert(PathBuf::from(path.to_string()), (meta, content, stat.stx_nlink));
    }
}

pub(crate) fn p(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

pub(crate) fn t(sec: i64) -> Time {
    Time { sec, nsec: 123_456_789 }
}

pub(crate) fn new(path: &str, mode: u32) -> NewObject {
    let (mtime, parent_mtime) = (t(1000), t(2000));
    let (access_acl_bytes, default_acl_bytes) = (0, 0);
    NewObject {
        path: p(path),
        mode,
        uid: 1234,
        gid: 4321,
        mtime,
        parent_mtime,
        access_acl_bytes,
        default_acl_bytes,
    }
}

pub(crate) fn create(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Create(new(path, 0o644)))
}

pub(crate) fn mkdir(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Mkdir(new(path, 0o755)))
}

pub(crate) fn mknod(path: &str, node: Node) -> Op {
    Op::Namespace(NamespaceOp::Mknod { new: new(path, 0o640), node })
}

pub(crate) fn symlink(path: &str, target: &str) -> Op {
    Op::Namespace(NamespaceOp::Symlink { new: new(path, 0o777), target: target.into() })
}

pub(crate) fn link(from: &str, to: &str) -> Op {
    Op::Namespace(NamespaceOp::Link { from: p(from), to: p(to), parent_mtime: t(3000) })
}

pub(crate) fn unlink(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Unlink { path: p(path), parent_mtime: t(3100), links: 0 })
}

pub(crate) fn rmdir(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Rmdir { path: p(path), parent_mtime: t(3200) })
}

pub(crate) fn rename(from: &str, to: &str, mode: RenameMode) -> Op {
    let (from_parent_mtime, to_parent_mtime) =
        (t(4000), t(if p(from).parent() == p(to).parent() { 4000 } else { 5000 }));
    Op::Namespace(NamespaceOp::Rename {
        from: p(from),
        to: p(to),
        mode,
        from_parent_mtime,
        to_parent_mtime,
        links: 0,
    })
}

pub(crate) fn write(path: &str, offset: u64) -> Op {
    Op::Data(DataOp::Write { path: p(path), offset, mtime: t(6000) })
}

pub(crate) fn truncate(path: &str, size: u64) -> Op {
    Op::Data(DataOp::Truncate { path: p(path), size, mtime: t(6100) })
}

pub(crate) fn allocate(path: &str, mode: u32, offset: u64, len: u64, size: u64) -> Op {
    Op::Data(DataOp::Allocate { path: p(path), mode, offset, len, size, mtime: t(6200) })
}

pub(crate) fn copy(from: (&str, u64), to: (&str, u64), len: u64) -> Op {
    let (from_offset, to_offset) = (from.1, to.1);
    Op::Data(DataOp::Copy { from: p(from.0), from_offset, to: p(to.0), to_offset, len, mtime: t(6300) })
}

pub(crate) fn mode(path: &str, mode: u32) -> Op {
    Op::Attr(AttrOp::Mode { path: p(path), mode })
}

pub(crate) fn owner(path: &str, uid: u32, gid: u32, mode: u32) -> Op {
    Op::Attr(AttrOp::Owner { path: p(path), uid, gid, mode })
}

pub(crate) fn times(path: &str, sec: i64) -> Op {
    Op::Attr(AttrOp::Times { path: p(path), mtime: t(sec) })
}

pub(crate) fn set(path: &str, name: &str) -> Op {
    let name = XattrName::new(name.as_bytes()).unwrap();
    let mode = name.is_acl().then_some(0o664);
    Op::Xattr(XattrOp::Set { path: p(path), name, mode })
}

pub(crate) fn remove(path: &str, name: &str) -> Op {
    Op::Xattr(XattrOp::Remove { path: p(path), name: XattrName::new(name.as_bytes()).unwrap(), mode: None })
}

/// user::rw- user:7:rw- group::r-- mask::rw- other::r-- in the kernel's form.
pub(crate) fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 6, 7), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Says that a test needs root; true if it can't run.
pub(crate) fn skip_without_root() -> bool {
    let user = !rustix::process::geteuid().is_root();
    if user {
        eprintln!("SKIPPED: needs root");
    }
    user
}

/// A story that has every kind of op, each with its bulk.
fn story() -> Vec<(Op, Vec<u8>)> {
    let with_acl = NewObject { access_acl_bytes: 44, mode: 0o664, ..new("d/acl", 0o664) };
    let plain = |op: Op| (op, Vec::new());
    vec![
        plain(mkdir("d")),
        plain(mkdir("e")),
        plain(create("d/f")),
        (write("d/f", 3), b"content".to_vec()),
        plain(truncate("d/f", 1 << 20)),
        plain(allocate("d/f", 0, 1 << 20, 4096, (1 << 20) + 4096)),
        plain(allocate("d/f", 3, 4096, 4096, (1 << 20) + 4096)),
        plain(copy(("d/f", 0), ("d/f", 8192), 4096)),
        plain(mode("d/f", 0o4755)),
        plain(owner("d/f", 77, 88, 0o755)),
        plain(times("d/f", -5)),
        (set("d/f", "user.a"), b"value".to_vec()),
        plain(remove("d/f", "user.a")),
        (set("d/f", "system.posix_acl_access"), acl()),
        (Op::Namespace(NamespaceOp::Create(with_acl)), acl()),
        plain(mknod("e/pipe", Node::Fifo)),
        plain(mknod("e/null", Node::Char(0x103))),
        plain(mknod("e/socket", Node::Socket)),
        plain(symlink("e/s", "../d/f")),
        plain(owner("e/s", 5, 6, 0o777)),
        plain(link("d/f", "e/g")),
        plain(rename("d/f", "e/h", RenameMode::NoReplace)),
        plain(create("d/i")),
        plain(rename("d/i", "e/h", RenameMode::Replace)),
        plain(mkdir("d/sub")),
        plain(rename("d/sub", "e/h", RenameMode::Exchange)),
        plain(unlink("e/g")),
        plain(rmdir("e/h")),
        plain(rename("d", "e/moved", RenameMode::NoReplace)),
        plain(create("e/moved/late")),
        plain(Op::Check { paths: vec![p("d")] }),
    ]
}
