//! Stories of a resync of single paths.

use super::story::{create, mkdir, p, rename, write};
use super::world::World;
use crate::resync::{Resync, WANTS_MAX};
use tdfs_wire::message::Difference;
use tdfs_wire::trail::Extent;

/// "Never a silent stall": objects whose directory is missing in the replica wait for the listings above them, and
/// never fill the window so that those are not asked.
#[test]
fn directories_that_are_missing_come_before_what_is_in_them() {
    let mut world = World::new(1, Resync::paths(Vec::new()));
    (world.pace.stall_one_in, world.pace.lose_one_in) = (usize::MAX, usize::MAX);
    world.pace.names_a_part = Some(usize::MAX);
    let files: Vec<String> = (0..2 * WANTS_MAX).map(|i| format!("a/b/f{i}")).collect();
    for dir in ["a", "a/b"] {
        world.record_both(mkdir(dir), &[]);
    }
    for file in &files {
        world.record_both(create(file), &[]);
        world.record_both(write(file, 0), &[b'm'; 16]);
    }
    world.replica.apply(&rename("a", "elsewhere"), &[]).unwrap();
    // The names in `a` are needed first, and so are asked last: the newest need comes first.
    world.resync.contradicted(&create("a/x"), None, None);
    files.iter().for_each(|file| world.resync.want_found(&p(file), Difference::Content));
    world.resync.miss(&p("a/b"), Extent::Itself);
    world.finish();
    world.assert_equal();
}
