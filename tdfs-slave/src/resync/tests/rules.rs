//! Rules of DESIGN section 7 that random schedules meet too seldom, each by the shortest story that breaks it.

use super::world::World;
use crate::resync::Resync;
use tdfs_wire::op::{DataOp, NamespaceOp, Op};
use tdfs_wire::{Time, TreePath};

fn path(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

fn mtime(sec: i64) -> Time {
    Time { sec, nsec: 0 }
}

/// `a` and `b` hold 16 bytes each on both sides, but `a` other ones in the replica; the root is checked and
/// `a` is wanted, its hashes are on their way.
fn a_is_wanted() -> World {
    let mut world = World::new(1, Resync::whole());
    for (name, byte) in [("a", b'm'), ("b", b'b')] {
        let new = tdfs_wire::op::NewObject {
            path: path(name),
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: mtime(1),
            parent_mtime: mtime(2),
            access_acl_bytes: 0,
            default_acl_bytes: 0,
        };
        world.master.apply(&Op::Namespace(NamespaceOp::Create(new)), &[]).unwrap();
        let write = DataOp::Write { path: path(name), offset: 0, mtime: mtime(3) };
        world.master.apply(&Op::Data(write), &[byte; 16]).unwrap();
    }
    world.copy_to_replica();
    let other = Op::Data(DataOp::Write { path: path("a"), offset: 0, mtime: mtime(4) });
    world.replica.apply(&other, &[b'r'; 16]).unwrap();
    world.send_wants_now();
    world.answer_one();
    world.deliver_all();
    world.send_wants_now();
    assert_eq!(world.resync.progress().objects_wanted, 1);
    world
}

/// Rule 6: "copy whose source is unchecked or wanted ...: the target goes on the want list."
#[test]
fn copy_from_a_wanted_file_wants_the_target() {
    let mut world = a_is_wanted();
    let (from, to) = (path("a"), path("b"));
    let copy = DataOp::Copy { from, from_offset: 0, to, to_offset: 4, len: 8, mtime: mtime(5) };
    world.record(Op::Data(copy), &[]);
    world.deliver_all();
    world.finish();
    world.assert_equal();
}

/// Rule 8: the further name shares the inode, and what is wrong with it.
#[test]
fn copy_from_a_link_of_a_wanted_file_wants_the_target() {
    let mut world = a_is_wanted();
    let link = NamespaceOp::Link { from: path("a"), to: path("c"), parent_mtime: mtime(5) };
    world.record(Op::Namespace(link), &[]);
    let (from, to) = (path("c"), path("b"));
    let copy = DataOp::Copy { from, from_offset: 0, to, to_offset: 4, len: 8, mtime: mtime(6) };
    world.record(Op::Data(copy), &[]);
    world.deliver_all();
    world.finish();
    world.assert_equal();
}

/// An op that moves bytes while hashes are on their way makes "same" mean another place.
#[test]
fn shifted_file_is_compared_once_more() {
    let mut world = a_is_wanted();
    world.answer_one();
    world.deliver_all();
    world.send_wants_now();
    let (offset, len) = (2, 6);
    let shift = DataOp::Allocate { path: path("a"), mode: 0x08, offset, len, size: 10, mtime: mtime(5) };
    world.record(Op::Data(shift), &[]);
    world.deliver_all();
    world.finish();
    world.assert_equal();
}
