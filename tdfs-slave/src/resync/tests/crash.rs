//! The machine of a slave goes down: of what records did since the last sync anything may be lost, and the paths that
//! the log names since then are compared. Seeds as in `random`.

use super::model::Tree;
use super::random::{CHANGES, each_seed, equal};
use super::world::World;
use crate::resync::Resync;
use std::cell::Cell;
use tdfs_wire::trail::{TRAIL_BYTES_MAX, Trail};

/// Records are applied of which the disk has some, and of some it has the meta and not the content.
fn crash(world: &mut World) {
    let durable = world.replica.clone();
    let (mut trail, mut states) = (Trail::new(TRAIL_BYTES_MAX), vec![durable.clone()]);
    for _ in 0..=world.users.dice.below(12) {
        if let Some(op) = world.change_both() {
            trail.follow(&op);
            states.push(world.replica.clone());
        }
    }
    let names = world.users.dice.below(states.len());
    world.replica = states.swap_remove(names);
    lose_content(world, &durable);
    let mut resync = Resync::paths(Vec::new());
    resync.distrust_all();
    trail.paths().iter().for_each(|(path, extent)| resync.miss(path, *extent));
    world.begin(resync);
}

/// A file whose content had changed has its old one, or zeros, at its present size and mtime.
fn lose_content(world: &mut World, durable: &Tree) {
    let World { replica, users, .. } = world;
    for (ino, inode) in &mut replica.inodes {
        let old = durable.inodes.get(ino).map(|old| &old.data);
        if old != Some(&inode.data) && users.dice.chance(2) {
            let size = inode.data.len();
            inode.data = old.cloned().unwrap_or_default();
            inode.data.resize(size, 0);
        }
    }
}

/// DESIGN section 8: "After an OS crash of the slave ... everything since durable is in doubt: resync of the paths that
/// the log names in that range".
#[test]
fn what_a_crash_left_becomes_equal_under_load() {
    let (crashes, widened) = (Cell::new(0), Cell::new(0));
    each_seed(|seed| {
        let mut world = equal(seed);
        while world.changes < CHANGES {
            if world.is_over() && world.is_quiet() {
                world.assert_exact();
                widened.set(widened.get() + world.resync.progress().widened);
                crash(&mut world);
                crashes.set(crashes.get() + 1);
            }
            world.step(true);
        }
        world.finish();
        world.assert_equal();
        world.assert_untouched();
    });
    println!("{} of {} crashes made the whole tree be compared", widened.get(), crashes.get());
}
