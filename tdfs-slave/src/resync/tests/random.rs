//! The exchange over two trees in memory: random ops on the master while records and answers are
//! delivered in order, at random instants. A seed that failed can be given again: TDFS_SEED=n (with
//! TDFS_TRACE=1 it is told step by step); TDFS_SEEDS=n runs so many.

use super::world::World;
use crate::resync::Resync;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tdfs_wire::TreePath;

const SEEDS: u64 = 400;
const STEPS: usize = 600;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn for_seeds(run: impl Fn(u64)) {
    let seeds = match number("TDFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TDFS_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        // With panic=abort in release builds the seed would not be told otherwise.
        if catch_unwind(AssertUnwindSafe(|| run(seed))).is_err() {
            panic!("failed with TDFS_SEED={seed}");
        }
    }
}

fn whole(seed: u64) -> World {
    let mut world = World::new(seed, Resync::whole());
    let prepared = world.dice.below(60);
    (0..prepared).for_each(|_| world.prepare_master());
    if !world.dice.chance(3) {
        world.copy_to_replica();
        let later = world.dice.below(20);
        (0..later).for_each(|_| world.prepare_master());
        let other = world.dice.below(30);
        (0..other).for_each(|_| world.change_replica());
    }
    world
}

/// DESIGN section 7: "It runs while the master keeps changing and records keep streaming."
#[test]
fn whole_tree_becomes_equal_under_load() {
    for_seeds(|seed| {
        let mut world = whole(seed);
        (0..STEPS).for_each(|_| world.step(true));
        world.finish();
        world.assert_equal();
        if world.divergences > 0 {
            world.tell();
        }
        assert_eq!(world.divergences, 0, "nobody wrote to the replica");
    });
}

/// DESIGN section 7: "Equal content is not sent again", and an equal replica is not changed by a check.
#[test]
fn equal_replica_is_only_checked() {
    for_seeds(|seed| {
        let mut world = World::new(seed, Resync::whole());
        let prepared = world.dice.below(80);
        (0..prepared).for_each(|_| world.prepare_master());
        world.copy_to_replica();
        world.finish();
        world.assert_equal();
        let progress = world.resync.progress();
        assert_eq!((progress.differences, progress.bytes_received, progress.widened), (0, 0, 0));
    });
}

/// DESIGN section 7, rule 5: what a record contradicts is wanted; what somebody wrote is healed.
#[test]
fn tampered_paths_are_healed_under_load() {
    for_seeds(|seed| {
        let mut world = World::new(seed, Resync::paths(Vec::new()));
        let prepared = world.dice.below(60);
        (0..prepared).for_each(|_| world.prepare_master());
        world.copy_to_replica();
        for _ in 0..6 {
            let paths = world.tamper();
            paths.into_iter().for_each(|path: TreePath| world.resync.want(path));
            (0..STEPS / 10).for_each(|_| world.step(true));
        }
        world.finish();
        world.assert_equal();
    });
}

/// P6: a replica that contradicts records is healed by resync of those paths, and counted.
#[test]
fn contradictions_are_counted_and_healed() {
    let mut healed = 0;
    for seed in 0..300 {
        let mut world = World::new(seed, Resync::paths(Vec::new()));
        (0..40).for_each(|_| world.prepare_master());
        world.copy_to_replica();
        let path = world.replica.paths().into_iter().next();
        let Some(path) = path else { continue };
        world.replica.remove_all(&path).expect("it is there");
        (0..STEPS).for_each(|_| world.step(true));
        world.finish();
        if world.divergences > 0 {
            healed += 1;
        }
    }
    assert!(healed > 50, "{healed} of 300 met what was removed");
}
