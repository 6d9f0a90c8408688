//! Resyncs that are interrupted, in every way and at any instant.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Cluster, Rng};

use crate::trees;
use crate::{FOUND, SOON, cluster};

/// Files and bytes of the tree.
const FILES: usize = 3_000;
const BYTES: u64 = 64 << 20;
/// Bytes that may be on their way when it is interrupted: the wants in hand, each of eight blocks, are bounded
/// by the answers that wait to be sent.
const ON_THE_WAY: u64 = 2 << 20;

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    Cut,
    Reset,
    SlaveKilled,
    MasterKilled,
}

/// Lets `mishaps` happen one after the other, each when some more was compared; gives the answer bytes of all
/// phases together, and how many of the mishaps fell into the resync.
fn interrupt(cluster: &mut Cluster, mishaps: &[Mishap], rng: &mut Rng) -> (u64, usize) {
    let (mut bytes, mut met) = (0, 0);
    for mishap in mishaps {
        let pause = Duration::from_millis(500 + rng.below(500));
        std::thread::sleep(pause);
        let status = cluster.slave_status(0);
        met += usize::from(status.is_unsettled());
        if matches!(mishap, Mishap::MasterKilled) {
            bytes += status.answer_bytes; // it counts anew with each start
        }
        happen(cluster, *mishap);
    }
    cluster.wait_for(300);
    (bytes + cluster.slave_status(0).answer_bytes, met)
}

/// Interrupts the first copy of a tree; what was equal before is not sent again.
fn first_copy(mishaps: &[Mishap]) {
    let seed = harness::rng::run_seed();
    let mut cluster = cluster().proxied(seed).expect_log(FOUND).start();
    cluster.master.stop();
    trees::plant(&cluster.paths.backing, (FILES, BYTES), seed);
    // Slow enough that the mishaps fall into it.
    cluster.slaves[0].proxy.as_ref().unwrap().limit_rate(Some(16 << 20));
    cluster.start_master();
    let begin = Instant::now();
    let distance = trees::Distance::between(&cluster.paths.backing, &cluster.slaves[0].replica);
    let (answers, met) = interrupt(&mut cluster, mishaps, &mut Rng::new(seed));
    println!(
        "{mishaps:?}: {met} in the resync, {:.1?}, {answers} answer bytes for a tree of {BYTES}",
        begin.elapsed(),
    );
    assert!(met * 2 >= mishaps.len(), "too quick: only {met} of {mishaps:?} fell into the resync");
    let listings = FILES as u64 * 300 * (mishaps.len() as u64 + 1);
    let bound = BYTES * 13 / 10 + listings + mishaps.len() as u64 * ON_THE_WAY;
    assert!(answers <= bound, "{answers} bytes of answers, at most {bound} ({distance:?})");
    cluster.slaves[0].proxy.as_ref().unwrap().calm();
    let (code, words) = cluster.run("verify", &[]);
    assert_eq!(code, Some(0), "{words}");
    cluster.finish();
}

/// DESIGN section 7, rule 0: "Equal content is not sent again after an interruption; listings may be."
#[test]
fn first_copy_over_a_link_that_is_cut() {
    first_copy(&[Mishap::Cut, Mishap::Reset, Mishap::Cut, Mishap::Cut, Mishap::Reset]);
}

/// DESIGN P2: "A kill -9 of either daemon at any instant", and rule 0.
#[test]
fn first_copy_while_the_slave_is_killed() {
    first_copy(&[Mishap::SlaveKilled, Mishap::SlaveKilled, Mishap::SlaveKilled]);
}

/// The same for the master.
#[test]
fn first_copy_while_the_master_is_killed() {
    first_copy(&[Mishap::MasterKilled, Mishap::MasterKilled, Mishap::MasterKilled]);
}

/// All of them, in a resync of what differs, with applications at work.
#[test]
fn resync_of_all_under_load_interrupted() {
    let seed = harness::rng::run_seed();
    let mut cluster = cluster().proxied(seed).expect_log(FOUND).expect_log("divergence").start();
    cluster.master.stop();
    trees::plant(&cluster.paths.backing, (FILES, BYTES / 4), seed);
    cluster.start_master();
    cluster.wait();
    cluster.master.stop();
    trees::mutate(&cluster.paths.backing, seed, "m");
    trees::mutate(&cluster.slaves[0].replica, seed, "r");
    cluster.slaves[0].proxy.as_ref().unwrap().limit_rate(Some(4 << 20));
    cluster.start_master();
    let (code, words) = cluster.run("resync", &["--checksum"]);
    assert_eq!(code, Some(0), "{words}");
    let mut rng = Rng::new(seed);
    let few = if harness::long_form() { 20 } else { 2 };
    for round in 0..few {
        let names = trees::names(cluster.mount(), FILES);
        let writers = harness::ops::Writers::start(cluster.mount(), &names, seed + round, 2, Some(400));
        interrupt_only(&mut cluster, &[Mishap::Cut, Mishap::SlaveKilled, Mishap::Reset], &mut rng);
        writers.join();
        interrupt_only(&mut cluster, &[Mishap::MasterKilled], &mut rng);
    }
    cluster.slaves[0].proxy.as_ref().unwrap().calm();
    fs::write(cluster.mount().join("after"), b"all of it").unwrap();
    harness::eventually(SOON, "it is connected", || cluster.slave_status(0).state != "away");
    cluster.wait_for(300);
    let status = cluster.slave_status(0);
    assert_eq!(status.divergences, 0, "nobody wrote to the replica: {status:?}");
    cluster.finish();
}

fn interrupt_only(cluster: &mut Cluster, mishaps: &[Mishap], rng: &mut Rng) {
    for mishap in mishaps {
        std::thread::sleep(Duration::from_millis(50 + rng.below(400)));
        happen(cluster, *mishap);
    }
}

fn happen(cluster: &mut Cluster, mishap: Mishap) {
    match mishap {
        Mishap::Cut => cluster.slaves[0].proxy.as_ref().unwrap().cut(),
        Mishap::Reset => cluster.slaves[0].proxy.as_ref().unwrap().reset(),
        Mishap::SlaveKilled => {
            cluster.slaves[0].process().kill();
            cluster.start_slave(0);
        }
        Mishap::MasterKilled => {
            cluster.master.kill();
            cluster.start_master();
        }
    }
}
