//! Full, read-only, out of fds, a sync that fails: promise P6 ("the slave stalls on it, retries, and says why
//! (ENOSPC, EIO ...)") and P5 ("a slow, dead or full slave blocks neither the master nor another slave").

use std::ffi::CString;
use std::fs;
use std::path::Path;

use harness::Cluster;
use harness::cluster::ClusterPaths;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, prlimit};

use crate::{SOON, cluster};

const STALLED: &str = "the replica is stalled";

/// True if there is no root to mount anything.
fn skip() -> bool {
    let user = !rustix::process::geteuid().is_root();
    if user {
        println!("SKIPPED: needs root");
    }
    user
}

/// Puts a file system of 4 MiB where the first replica will be.
fn small(paths: &ClusterPaths) {
    let options = CString::new("size=4m,nr_inodes=4096").unwrap();
    let flags = MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount("tdfs-test", &paths.replicas[0], "tmpfs", flags, Some(options.as_c_str())).unwrap();
    let private = MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change(&paths.replicas[0], private).unwrap();
}

fn remount(replica: &Path, flags: MountFlags, options: &str) -> rustix::io::Result<()> {
    let options = CString::new(options).unwrap();
    rustix::mount::mount_remount(replica, flags | MountFlags::NODEV | MountFlags::NOSUID, options.as_c_str())
}

/// Waits until the first slave is stalled and names this errno.
#[track_caller]
fn until_stalled(cluster: &Cluster, errno: &str) {
    harness::eventually(SOON, errno, || {
        let slave = cluster.slave_status(0);
        slave.state == "stalled" && slave.last_error.is_some_and(|why| why.contains(errno))
    });
}

/// The other slave gets on meanwhile, and so do applications.
#[track_caller]
fn others_go_on(cluster: &Cluster) {
    fs::write(cluster.mount().join("meanwhile"), "x").unwrap();
    let head = cluster.status().head;
    harness::eventually(SOON, "the other slave has all", || cluster.slave_status(1).applied >= head);
    let slave = cluster.slave_status(0);
    assert!(slave.state == "stalled" && slave.applied < head && slave.lag_records > 0, "{slave:?}");
}

/// It went on by itself: nothing was compared, nothing was lost.
#[track_caller]
fn finish(mut cluster: Cluster, resyncs: u64, mounted: bool) {
    cluster.wait();
    cluster.assert_equal();
    let slave = cluster.slave_status(0);
    assert_eq!((slave.divergences, slave.resyncs), (0, resyncs), "{slave:?}");
    cluster.master.stop();
    cluster.slaves.iter_mut().for_each(|slave| slave.process().stop());
    if mounted {
        rustix::mount::unmount(&cluster.slaves[0].replica, UnmountFlags::empty()).unwrap();
    }
    cluster.stop();
}

/// README: "A record that can't be applied is never skipped: the slave stalls, retries, and `tdfs status` says why."
/// tdfs-slave.8: "it says why in its log and in its status and tries again until it succeeds."
#[test]
fn a_full_replica_stalls_and_goes_on_when_there_is_room() {
    if skip() {
        return;
    }
    let cluster = cluster().network(2).prepare(small).expect_log(STALLED).start();
    fs::create_dir(cluster.mount().join("d")).unwrap();
    cluster.wait();
    let before = cluster.slave_status(0).resyncs;
    for number in 0..8 {
        fs::write(cluster.mount().join(format!("d/f{number}")), vec![number; 1 << 20]).unwrap();
    }
    fs::rename(cluster.mount().join("d"), cluster.mount().join("moved")).unwrap();
    until_stalled(&cluster, "ENOSPC");
    others_go_on(&cluster);
    remount(&cluster.slaves[0].replica, MountFlags::empty(), "size=64m").unwrap();
    finish(cluster, before, true);
}

#[test]
fn a_full_replica_goes_on_after_a_kill() {
    if skip() {
        return;
    }
    let mut cluster = cluster().network(2).prepare(small).expect_log(STALLED).start();
    cluster.wait();
    let before = cluster.slave_status(0).resyncs;
    for number in 0..8 {
        fs::write(cluster.mount().join(format!("f{number}")), vec![number; 1 << 20]).unwrap();
    }
    until_stalled(&cluster, "ENOSPC");
    cluster.slaves[0].process().kill();
    cluster.start_slave(0);
    cluster.expect_log(STALLED);
    until_stalled(&cluster, "ENOSPC");
    remount(&cluster.slaves[0].replica, MountFlags::empty(), "size=64m").unwrap();
    finish(cluster, before, true);
}

#[test]
fn a_read_only_replica_stalls() {
    if skip() {
        return;
    }
    let cluster = cluster().network(2).prepare(small).expect_log(STALLED).start();
    cluster.wait();
    let before = cluster.slave_status(0).resyncs;
    let replica = cluster.slaves[0].replica.clone();
    // What was written last stays open for a moment.
    harness::eventually(SOON, "no file is open", || remount(&replica, MountFlags::RDONLY, "").is_ok());
    fs::write(cluster.mount().join("f"), "content").unwrap();
    until_stalled(&cluster, "EROFS");
    others_go_on(&cluster);
    remount(&replica, MountFlags::empty(), "").unwrap();
    finish(cluster, before, true);
}

#[test]
fn a_slave_without_fds_stalls() {
    let mut cluster = cluster().network(2).expect_log(STALLED).start();
    cluster.wait();
    let before = cluster.slave_status(0).resyncs;
    let slave = cluster.slaves[0].process().pid();
    let limit = |current| {
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        prlimit(Some(slave), Resource::Nofile, Rlimit { current: Some(current), maximum }).unwrap();
    };
    limit(3);
    for number in 0..10 {
        fs::create_dir_all(cluster.mount().join(format!("d{number}/e"))).unwrap();
        fs::write(cluster.mount().join(format!("d{number}/e/f")), "content").unwrap();
    }
    until_stalled(&cluster, "EMFILE");
    others_go_on(&cluster);
    limit(1024);
    finish(cluster, before, false);
}

/// DESIGN section 8: "a failed syncfs never advances it". What it lost is found, and status says so.
#[test]
fn a_failed_sync_has_all_compared() {
    let cluster =
        cluster().network(1).expect_log("make the replica durable").expect_log("may be lost").start();
    fs::write(cluster.mount().join("f"), "content").unwrap();
    cluster.wait();
    fs::write(cluster.slaves[0].state.join("fail-syncfs"), "5").unwrap();
    fs::write(cluster.mount().join("g"), "content").unwrap();
    let said = || cluster.slave_status(0).last_error.is_some_and(|said| said.contains("may be lost"));
    harness::eventually(SOON, "status says so", said);
    cluster.wait();
    let head = cluster.status().head;
    harness::eventually(SOON, "all is durable", || cluster.slave_status(0).durable == head);
    cluster.finish();
}
