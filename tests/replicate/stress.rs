//! Many threads on few names: whatever order the operations fall in, the replica must show the same.

use harness::ops::{Names, Writers};

use crate::cluster;

/// The contract: "A stress test (8 threads, 8 names, 3 directories, 100,000 operations, 20 seeds) must leave an
/// equal replica every time".
#[test]
fn stress() {
    let (operations, seeds) = if harness::long_form() { (100_000, 20) } else { (5_000, 4) };
    let first = harness::rng::run_seed();
    for seed in first..first + seeds {
        println!("stress with TDFS_SEED={seed}");
        let cluster = cluster().network(1).compressed().start();
        let writers = Writers::start(cluster.mount(), &Names::few(8, 3), seed, 8, Some(operations / 8));
        let changed = writers.join();
        assert!(changed > operations / 10, "only {changed} operations did anything");
        cluster.wait_for(600);
        cluster.finish();
    }
}

/// The same on the disk's file system, which gives inode numbers again at once, to an embedded slave.
#[test]
fn stress_on_disk() {
    let operations = if harness::long_form() { 100_000 } else { 5_000 };
    let seed = harness::rng::run_seed();
    let cluster = cluster().on_disk().embedded().start();
    Writers::start(cluster.mount(), &Names::few(8, 3), seed, 8, Some(operations / 8)).join();
    cluster.wait_for(600);
    cluster.finish();
}
