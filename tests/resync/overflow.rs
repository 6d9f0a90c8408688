//! The log's bound: what it no longer holds is known by the paths that it touched.

use std::fs;
use std::path::Path;

use harness::Cluster;
use harness::status::SlaveStatus;

use crate::{SOON, cluster, until_settled};

/// The listing of so many files alone takes more than `ANSWER_BYTES_MAX`.
const FILES: usize = 6_000;
/// What the lost records touched, and little else.
const ANSWER_BYTES_MAX: u64 = 400_000;
/// The smallest log: a segment has 16 MiB.
const LOG: &str = "--log-max=33554432";

fn fill(root: &Path) {
    for number in 0..FILES {
        let directory = root.join(format!("d{}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(format!("a file with a long name {number}")), number.to_string()).unwrap();
    }
}

/// Changes a few things, and one file so often that the log can't hold it.
fn overflow(cluster: &Cluster) {
    let mount = cluster.mount();
    fs::rename(mount.join("d1/a file with a long name 100"), mount.join("d2/moved")).unwrap();
    fs::remove_file(mount.join("d3/a file with a long name 300")).unwrap();
    fs::write(mount.join("d4/new"), b"new").unwrap();
    let again = vec![b'x'; 100_000];
    for round in 0..1_300 {
        let mut bytes = again.clone();
        bytes[0] = u8::try_from(round % 251).unwrap();
        fs::write(mount.join("d0/busy"), &bytes).unwrap();
    }
    fs::create_dir(mount.join("late")).unwrap();
    fs::write(mount.join("late/file"), b"late").unwrap();
    harness::eventually(SOON, "the log has overflown", || cluster.slave_status(0).needs_resync);
    let log = cluster.paths.state.join("log");
    let size =
        || fs::read_dir(&log).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>();
    harness::eventually(SOON, "what it lacks is deleted", || size() < 100 << 20);
}

/// A slave that was equal and is away; the log no longer holds what it lacks. With its status from before.
fn left_behind() -> (Cluster, SlaveStatus) {
    let mut cluster = cluster().network(1).flag(LOG).flag("--no-check").expect_log("--log-max").start();
    fill(cluster.mount());
    cluster.wait();
    let before = cluster.slave_status(0);
    cluster.slaves[0].process().stop();
    overflow(&cluster);
    (cluster, before)
}

/// DESIGN section 7, rule 10: "only the paths of lost records are wanted again".
#[test]
fn a_slave_that_was_left_behind_compares_what_lost_records_touched() {
    let (mut cluster, before) = left_behind();
    cluster.start_slave(0);
    cluster.wait();
    cluster.assert_equal();
    let after = cluster.slave_status(0);
    assert_eq!((after.resyncs, after.divergences), (before.resyncs + 1, 0), "{after:?}");
    let bytes = after.answer_bytes - before.answer_bytes;
    println!("{bytes} B of answers");
    assert!(bytes < ANSWER_BYTES_MAX, "{bytes} B of answers: more was compared than what was touched");
    cluster.finish();
}

/// The same: "the master keeps their final names per slave, durably".
#[test]
fn what_was_lost_is_known_after_a_restart_of_the_master() {
    let (mut cluster, before) = left_behind();
    cluster.master.kill();
    cluster.start_master();
    // It goes on being followed.
    fs::rename(cluster.mount().join("d6"), cluster.mount().join("renamed")).unwrap();
    cluster.start_slave(0);
    cluster.wait();
    cluster.assert_equal();
    let after = cluster.slave_status(0);
    assert_eq!(after.resyncs, before.resyncs + 1, "{after:?}");
    println!("{} B of answers", after.answer_bytes);
    assert!(after.answer_bytes < ANSWER_BYTES_MAX, "{after:?}: more was compared than what was touched");
    cluster.finish();
}

/// Rule 10: "an overflow keeps what was checked": a resync that is interrupted that long goes on where it was.
#[test]
fn an_overflow_does_not_make_a_resync_start_over() {
    let cluster = cluster().proxied(7).flag(LOG).flag("--resync-rate=400000").start();
    let (address, proxy) = (cluster.slaves[0].address.clone(), cluster.slaves[0].proxy.as_ref().unwrap());
    fill(cluster.mount());
    cluster.wait();
    let resync = || {
        let before = cluster.slave_status(0);
        assert_eq!(cluster.run("resync", &["--checksum", "-c", &address]).0, Some(0));
        harness::eventually(SOON, "it begins", || cluster.slave_status(0).resyncs > before.resyncs);
        before.answer_bytes
    };
    let start = resync();
    cluster.wait();
    let whole = cluster.slave_status(0).answer_bytes - start;
    let start = resync();
    harness::eventually(SOON, "half of it is compared", || {
        cluster.slave_status(0).answer_bytes - start > whole / 2
    });
    proxy.stall(true);
    overflow(&cluster);
    let connected = |state: &str| matches!(state, "streaming" | "catchup" | "resyncing" | "stalled");
    harness::eventually(SOON, "the silence is noticed", || !connected(&cluster.slave_status(0).state));
    proxy.stall(false);
    until_settled(&cluster, 0);
    cluster.wait();
    cluster.assert_equal();
    let (after, all) = (cluster.slave_status(0), cluster.slave_status(0).answer_bytes - start);
    println!("a whole resync: {whole} B of answers, the interrupted one: {all} B");
    assert_eq!(after.resyncs, 3, "the first copy and two by hand: {after:?}");
    assert!(
        all < whole + whole / 4 + 150_000,
        "it began again: {all} B of answers, {whole} B by a whole one"
    );
    cluster.finish();
}
