//! The whole of it: both trees were changed while no daemon ran, and both are still being used.

use std::time::{Duration, Instant};

use harness::Cluster;
use harness::ops::Writers;

use crate::trees::{self, Distance};
use crate::{FOUND, cluster};

/// Files and bytes.
fn size() -> (usize, u64) {
    if harness::long_form() { (200_000, 5 << 30) } else { (20_000, 256 << 20) }
}

/// A pair that was equal; then both trees were changed, each for itself, and no daemon runs.
/// Also says how often it was resynced so far.
fn changed_on_either_side(size: (usize, u64), seed: u64) -> (Cluster, u64) {
    let mut cluster = cluster().network(1).expect_log(FOUND).expect_log("divergence").start();
    cluster.master.stop();
    trees::plant(&cluster.paths.backing, size, seed);
    cluster.start_master();
    cluster.wait_for(600);
    cluster.assert_equal();
    let resyncs = cluster.slave_status(0).resyncs;
    cluster.master.stop();
    cluster.slaves[0].process().stop();
    trees::mutate(&cluster.paths.backing, seed, "m");
    trees::mutate(&cluster.slaves[0].replica, seed, "r");
    (cluster, resyncs)
}

fn start_again(cluster: &mut Cluster) {
    cluster.start_slave(0);
    cluster.start_master();
}

/// What a change of a writer may add to the answers: an object is told once more, as where a directory of the part that
/// was compared is moved out of it.
const BYTES_A_CHANGE: u64 = 300;

/// DESIGN section 7: resync "runs while the master keeps changing and records keep streaming": equal in one go,
/// whatever happened to either tree. The bound on answers is that of a tree at rest; in the short form, where writers
/// change each object several times, with an allowance for what they change.
#[test]
fn either_side_differs() {
    let (seed, size) = (harness::rng::run_seed(), size());
    let (mut cluster, resyncs) = changed_on_either_side(size, seed);
    let distance = Distance::between(&cluster.paths.backing, &cluster.slaves[0].replica);
    let begin = Instant::now();
    start_again(&mut cluster);
    let names = trees::names(cluster.mount(), size.0);
    let writers = Writers::start(cluster.mount(), &names, seed, 4, None);
    let limit = Duration::from_secs(if harness::long_form() { 600 } else { 25 });
    let over = harness::wait::becomes_true(limit, || !cluster.slave_status(0).is_unsettled());
    let took = begin.elapsed();
    let changes = writers.stop();
    let stopped = Instant::now();
    cluster.wait_for(60);
    let status = cluster.slave_status(0);
    println!(
        "either side, with writers: {took:.1?} (over before they stopped: {over}), {changes} changes meanwhile, \
         equal after {:.1?}, {:.1?} after they stopped, {} answer bytes ({} would be allowed at rest), {} divergences",
        begin.elapsed(),
        stopped.elapsed(),
        status.answer_bytes,
        distance.bound(),
        status.divergences,
    );
    assert_eq!(status.resyncs, resyncs + 1, "in one go: {status:?}");
    let allowance = if harness::long_form() { 0 } else { changes * BYTES_A_CHANGE };
    let bound = distance.bound() + allowance;
    assert!(status.answer_bytes <= bound, "{} answer bytes, {bound} are allowed", status.answer_bytes);
    cluster.finish();
}

/// DESIGN section 7: "Only blocks that differ are sent", "Unchanged trees cost one listing a directory".
#[test]
fn only_what_differs_is_sent() {
    let (seed, size) = (harness::rng::run_seed(), size());
    let (mut cluster, resyncs) = changed_on_either_side(size, seed);
    let distance = Distance::between(&cluster.paths.backing, &cluster.slaves[0].replica);
    let begin = Instant::now();
    start_again(&mut cluster);
    cluster.wait_for(600);
    let (took, status) = (begin.elapsed(), cluster.slave_status(0));
    println!(
        "either side, at rest: {took:.1?}, {} answer bytes of at most {} ({distance:?})",
        status.answer_bytes,
        distance.bound()
    );
    cluster.assert_equal();
    assert_eq!((status.divergences, status.resyncs), (0, resyncs + 1), "in one go: {status:?}");
    assert!(status.answer_bytes <= distance.bound(), "{} of {}", status.answer_bytes, distance.bound());
    cluster.finish();
}
