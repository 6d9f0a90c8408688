//! Words for the stories of `rules`: ops by short paths, each with an mtime of its own.

use std::sync::atomic::{AtomicI64, Ordering};
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, NewObject, Op, RenameMode};
use tdfs_wire::{Time, TreePath};

static CLOCK: AtomicI64 = AtomicI64::new(0);

fn now() -> Time {
    Time { sec: CLOCK.fetch_add(1, Ordering::Relaxed), nsec: 0 }
}

pub fn p(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

fn new(path: &str) -> NewObject {
    NewObject {
        path: p(path),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: now(),
        parent_mtime: now(),
        access_acl_bytes: 0,
        default_acl_bytes: 0,
    }
}

pub fn create(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Create(new(path)))
}

pub fn mkdir(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Mkdir(new(path)))
}

pub fn write(path: &str, offset: u64) -> Op {
    Op::Data(DataOp::Write { path: p(path), offset, mtime: now() })
}

pub fn copy(from: &str, to: &str, len: u64) -> Op {
    let (from, to, mtime) = (p(from), p(to), now());
    Op::Data(DataOp::Copy { from, from_offset: 0, to, to_offset: 0, len, mtime })
}

/// Takes a range out of a file of `before` bytes.
pub fn collapse(path: &str, offset: u64, len: u64, before: u64) -> Op {
    Op::Data(DataOp::Allocate { path: p(path), mode: 0x08, offset, len, size: before - len, mtime: now() })
}

pub fn chmod(path: &str, mode: u32) -> Op {
    Op::Attr(AttrOp::Mode { path: p(path), mode })
}

pub fn times(path: &str) -> Op {
    Op::Attr(AttrOp::Times { path: p(path), mtime: now() })
}

pub fn link(from: &str, to: &str) -> Op {
    Op::Namespace(NamespaceOp::Link { from: p(from), to: p(to), parent_mtime: now() })
}

pub fn unlink(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Unlink { path: p(path), parent_mtime: now(), links: 0 })
}

pub fn rmdir(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Rmdir { path: p(path), parent_mtime: now() })
}

fn moved(from: &str, to: &str, mode: RenameMode) -> Op {
    let (from, to) = (p(from), p(to));
    let from_parent_mtime = now();
    let to_parent_mtime = if from.parent() == to.parent() { from_parent_mtime } else { now() };
    Op::Namespace(NamespaceOp::Rename { from, to, mode, from_parent_mtime, to_parent_mtime, links: 0 })
}

pub fn rename(from: &str, to: &str) -> Op {
    moved(from, to, RenameMode::NoReplace)
}

pub fn rename_over(from: &str, to: &str) -> Op {
    moved(from, to, RenameMode::Replace)
}

pub fn exchange(a: &str, b: &str) -> Op {
    moved(a, b, RenameMode::Exchange)
}
