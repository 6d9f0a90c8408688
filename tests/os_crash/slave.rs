//! The slave's machine goes down.

use std::time::Duration;

use harness::cluster::ClusterPaths;
use harness::crash_disk::{CrashDisk, boot, in_own_mounts};
use harness::{ClusterBuilder, Rng};

use crate::{bytes_of_the_rest, cluster, finish, home, plant_quiet, wait_durable, writers};

/// How long writers work before the power goes, and after.
const WORK: Duration = Duration::from_millis(1_000);
const CRASHES: u32 = 2;

fn disk(paths: &ClusterPaths) -> CrashDisk {
    CrashDisk::new(&home(paths), &[&paths.replicas[0], &paths.state.with_file_name("b0")])
}

/// DESIGN P8: "After an OS crash or power cut of either side the replica is made equal again by itself, as cheaply as the
/// log allows": of what lies there for long nothing is read or sent. README: "of the slave, by comparing what the log names
/// since its last sync [...]. `tdfs status` says so."
fn goes_down(kind: &str, cluster: ClusterBuilder) {
    let seed = harness::rng::run_seed();
    let cluster = cluster.network(1).expect_log("stalled").expect_log("os error 5");
    let mut cluster = cluster.start();
    let disk = disk(&cluster.paths);
    plant_quiet(cluster.mount(), &mut Rng::part(seed, 0));
    wait_durable(&cluster);
    for number in 1..=CRASHES {
        let before = cluster.slave_status(0);
        let writing = writers(&cluster, seed + u64::from(number));
        std::thread::sleep(WORK);
        disk.crash().unwrap();
        cluster.slaves[0].process().kill();
        std::thread::sleep(WORK);
        let changes = writing.stop();
        disk.come_back().unwrap();
        boot(&home(&cluster.paths), number).unwrap();
        cluster.start_slave(0);
        cluster.wait();
        let after = cluster.slave_status(0);
        let answers = after.answer_bytes - before.answer_bytes;
        println!("{kind}: {changes} changes, {answers} bytes of answers");
        cluster.assert_equal();
        assert_eq!((after.resyncs, after.divergences), (before.resyncs + 1, 0), "{after:?}");
        assert_eq!(after.last_resync.map(|last| last.cause).as_deref(), Some("slave-crash"));
        let rest = bytes_of_the_rest(cluster.mount());
        assert!(answers < rest + (4 << 20), "{answers} bytes of answers, and {rest} were not at rest");
    }
    finish(cluster);
}

#[test]
fn slave_on_ext4_goes_down() {
    in_own_mounts("slave::slave_on_ext4_goes_down", || {
        goes_down("ext4", cluster().prepare(|paths| disk(paths).make("ext4").unwrap()));
    });
}

#[test]
fn slave_on_xfs_goes_down() {
    in_own_mounts("slave::slave_on_xfs_goes_down", || {
        goes_down("xfs", cluster().prepare(|paths| disk(paths).make("xfs").unwrap()));
    });
}
