//! The brake: before a resync empties a replica it asks.

use std::fs;
use std::path::Path;

use harness::{Cluster, ClusterBuilder};

use crate::{FOUND, SOON, cluster, trees, until_phase};

/// Removes the directory of all but a few files, seen by nobody.
fn empty(cluster: &mut Cluster) {
    cluster.master.stop();
    fs::remove_dir_all(cluster.paths.backing.join("bulk")).unwrap();
    fs::create_dir(cluster.paths.backing.join("bulk")).unwrap();
    cluster.start_master();
}

fn with_files(builder: ClusterBuilder, prepare: fn(&Path)) -> Cluster {
    // A function pointer can't hold the other one: so the mount itself is filled.
    let cluster = builder.expect_log(FOUND).expect_log("more than half").start();
    prepare(cluster.mount());
    cluster.wait();
    cluster
}

fn fill(root: &Path, count: usize) {
    fs::create_dir_all(root.join("stays")).unwrap();
    for number in 0..count {
        let directory = root.join(format!("bulk/{}", number / 50));
        if number % 50 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(format!("file{number}")), b"content").unwrap();
    }
    (0..10).for_each(|number| fs::write(root.join(format!("stays/{number}")), b"content").unwrap());
}

/// DESIGN section 7: "A typo must not delete somebody's data": before more than half of a replica goes, the
/// resync waits for `tdfs resync --confirm`, whatever is restarted meanwhile.
#[test]
fn a_resync_that_would_empty_a_replica_waits_for_a_human() {
    let mut cluster = with_files(cluster().network(1), |root| fill(root, 2_000));
    let replica = cluster.slaves[0].replica.clone();
    let before = trees::walk(&replica).len();
    empty(&mut cluster);
    until_phase(&cluster, 0, "confirm");
    let held = cluster.slave_status(0);
    assert!(held.needs_resync && held.state == "resyncing", "{held:?}");
    let left = trees::walk(&replica).len();
    assert!(left * 2 >= before, "only {left} of {before} objects are left");
    // Records go on: what they change is there soon, the rest waits.
    let flows = |name: &str| {
        fs::write(cluster.mount().join("stays").join(name), b"live").unwrap();
        harness::eventually(SOON, name, || {
            fs::read(replica.join("stays").join(name)).is_ok_and(|got| got == b"live")
        });
    };
    flows("first");
    let (code, words) = cluster.wait_code(1);
    assert_eq!(code, Some(1), "it is not equal: {words}");
    assert_eq!(trees::walk(&replica).len(), left + 1, "more was removed");
    // Neither side's restart is a yes.
    let (mut count, address) = (left + 1, cluster.slaves[0].address.clone());
    for side in ["slave", "master", "slave killed", "master killed"] {
        match side {
            "slave" => cluster.slaves[0].process().stop(),
            "slave killed" => cluster.slaves[0].process().kill(),
            "master" => cluster.master.stop(),
            _ => cluster.master.kill(),
        }
        if side.starts_with("slave") {
            cluster.start_slave(0);
        } else {
            cluster.start_master();
        }
        until_phase(&cluster, 0, "confirm");
        fs::write(cluster.mount().join("stays").join(side), b"live").unwrap();
        harness::eventually(SOON, side, || replica.join("stays").join(side).exists());
        let now = trees::walk(&replica).len();
        // Removals are noted in steps ahead of time: never more of them than allowed.
        assert!(now * 2 >= before && now <= count + 1, "{side}: {now} objects, there were {count}");
        count = now;
    }
    let (code, words) = cluster.run("resync", &["-c", &address, "--confirm"]);
    assert_eq!(code, Some(0), "{words}");
    cluster.wait();
    assert!(!replica.join("bulk/0").exists());
    cluster.finish();
}

/// A replica of at most 1,000 objects is small enough to be emptied without a question.
#[test]
fn a_small_replica_may_be_emptied() {
    let mut cluster = with_files(cluster().network(1), |root| fill(root, 900));
    let count = trees::walk(&cluster.slaves[0].replica).len();
    assert!((900..=1_000).contains(&count), "{count} objects");
    empty(&mut cluster);
    cluster.finish();
}

/// Less than half is no reason to ask, and neither is what applications remove.
#[test]
fn removals_that_are_meant_are_done() {
    let mut cluster = with_files(cluster().network(1), |root| fill(root, 1_500));
    cluster.master.stop();
    (0..12)
        .for_each(|number| fs::remove_dir_all(cluster.paths.backing.join(format!("bulk/{number}"))).unwrap());
    cluster.start_master();
    cluster.wait();
    fs::remove_dir_all(cluster.mount().join("bulk")).unwrap();
    cluster.finish();
}
