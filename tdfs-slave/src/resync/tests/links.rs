//! Hard links that records make while the names are compared.

use super::rules::{compared, ends_equal, recorded, twins};
use super::story::{chmod, collapse, exchange, link, p, rename, unlink, write};
use super::world::World;
use tdfs_wire::Op;
use tdfs_wire::trail::Extent;

/// As `twins`, with a file `z` that differs: its want keeps the exchange from its end.
fn unsettled(names: &[&str]) -> World {
    let mut world = twins(&[names, &["z"]].concat());
    world.replica.apply(&write("z", 0), &[b'r'; 16]).unwrap();
    world
}

/// A record that never comes, with its trail.
fn lost(world: &mut World, op: Op, bulk: &[u8], trail: &[(&str, Extent)]) {
    world.master.apply(&op, bulk).unwrap();
    for &(path, extent) in trail {
        world.resync.miss(&p(path), extent);
    }
}

/// All of a file of 16 bytes.
fn compared_wholly(world: &mut World, path: &str) {
    compared(world, path);
    compared(world, path);
}

/// Rule 8: what a name that is gone missed is not forgotten when the master's number of the object becomes known.
#[test]
fn what_a_linked_name_missed_is_compared_by_the_other() {
    let mut world = twins(&["a", "z"]);
    world.replica.apply(&write("z", 0), &[b'r'; 16]).unwrap();
    compared(&mut world, "");
    recorded(&mut world, link("a", "c"), &[]);
    // These records never come.
    for (op, path, extent) in [(write("c", 3), "c", Extent::All), (chmod("a", 0o604), "a", Extent::Itself)] {
        world.master.apply(&op, b"lost").unwrap();
        world.resync.miss(&p(path), extent);
    }
    recorded(&mut world, unlink("c"), &[]);
    compared(&mut world, "a");
    ends_equal(world);
}

/// Rule 8: a record that moves bytes, by a name that is not known to be of what is being compared, makes hashes stale.
#[test]
fn bytes_moved_by_another_name_make_the_file_be_compared_once_more() {
    let mut world = unsettled(&["a"]);
    world.record_both(write("a", 0), b"aaaabbbbccccdddd");
    world.record_both(link("a", "c"), &[]);
    compared(&mut world, "");
    lost(&mut world, write("c", 8), b"aaaa", &[("c", Extent::All)]);
    world.send_wants_now();
    // Where the replica has `cccc` now, the master has what was the replica's first block when it was hashed.
    recorded(&mut world, collapse("a", 0, 8, 16), &[]);
    world.answer_about(&p("c"));
    world.deliver_all();
    ends_equal(world);
}

/// Rule 8: the name that a record linked has the inode, too, which the other takes with it to another object.
#[test]
fn linked_name_is_compared_when_the_other_may_be_of_another_object() {
    let mut world = unsettled(&["b", "d"]);
    world.record_both(write("b", 0), &[b'b'; 16]);
    compared(&mut world, "");
    recorded(&mut world, link("d", "a"), &[]);
    let trail = [("", Extent::Itself), ("a", Extent::All), ("b", Extent::All)];
    lost(&mut world, exchange("a", "b"), &[], &trail);
    compared_wholly(&mut world, "a");
    recorded(&mut world, write("d", 0), b"d's");
    recorded(&mut world, unlink("d"), &[]);
    ends_equal(world);
}

/// Rule 8: what a name did to the inode is not hidden by its being gone when the answer comes.
#[test]
fn file_that_a_name_wrote_to_while_it_was_compared_is_compared_once_more() {
    let mut world = twins(&["u/", "u/x", "u/d"]);
    world.replica.apply(&unlink("u/d"), &[]).unwrap();
    world.replica.apply(&link("u/x", "u/d"), &[]).unwrap();
    compared(&mut world, "");
    recorded(&mut world, rename("u/x", "a"), &[]);
    world.send_wants_now();
    recorded(&mut world, write("u/d", 0), b"d's");
    recorded(&mut world, unlink("u/d"), &[]);
    world.answer_about(&p("a"));
    world.deliver_all();
    ends_equal(world);
}

/// Rule 8: the name that came along with one that got another inode still stands for the old one.
#[test]
fn name_that_came_along_is_compared_when_the_other_gets_another_inode() {
    let mut world = unsettled(&["a", "u/"]);
    compared(&mut world, "");
    lost(&mut world, link("a", "u/b"), &[], &[("u", Extent::Itself), ("u/b", Extent::All)]);
    compared(&mut world, "u");
    compared_wholly(&mut world, "u/b");
    recorded(&mut world, link("a", "c"), &[]);
    lost(&mut world, chmod("c", 0o604), &[], &[("c", Extent::Itself)]);
    // It is linked to `u/b`, and then compared.
    compared(&mut world, "c");
    compared_wholly(&mut world, "c");
    recorded(&mut world, write("a", 0), b"late");
    recorded(&mut world, unlink("a"), &[]);
    ends_equal(world);
}
