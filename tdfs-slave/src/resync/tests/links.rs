//! Hard links that records make while the names are compared.

use super::rules::{compared, ends_equal, recorded, twins};
use super::story::{chmod, link, p, unlink, write};
use tdfs_wire::trail::Extent;

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
