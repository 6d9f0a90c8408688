//! A typo, or a disk that is not mounted, must not delete somebody's data: whose directory it is, on either side.
//!
//! Real daemons on directories that are mounts of their own, which are taken away and come back.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod adopt;
mod restored;
mod roots;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::temp_tree::{mount_at, unmount_below};
use harness::{Binaries, Cluster, ClusterBuilder, Daemon};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

const BINARIES: Binaries = harness::binaries!();

/// For what should come within moments, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(20);

fn cluster() -> ClusterBuilder {
    // The second place of a disk is one that reaches below a mount in place.
    Cluster::builder(BINARIES).expect_log("below the mount")
}

/// Where a disk keeps its content while it is not mounted at its place.
fn aside(place: &Path) -> PathBuf {
    place.with_extension("aside")
}

/// Mounts a new disk on `place`.
fn mount_disk(place: &Path) {
    fs::create_dir_all(place).unwrap();
    fs::create_dir(aside(place)).unwrap();
    mount("none", aside(place), "tmpfs", MountFlags::empty(), None).unwrap();
    mount_disk_again(place);
}

/// Unmounts it; nothing on it is lost.
fn unmount_disk(place: &Path) {
    unmount(place, UnmountFlags::empty()).unwrap();
}

/// Mounts it again.
fn mount_disk_again(place: &Path) {
    mount_bind(aside(place), place).unwrap();
}

/// The names in `dir`, sorted.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|name| name.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// The `resyncs` of every slave.
fn resyncs(cluster: &Cluster) -> Vec<u64> {
    cluster.status().slaves.iter().map(|slave| slave.resyncs).collect()
}

/// Makes a file and waits until it is everywhere: without a new record, `tdfs wait` would be content with a
/// slave that is away and had all.
#[track_caller]
fn write_and_wait(cluster: &Cluster, name: &str) {
    fs::write(cluster.mount().join(name), b"content").unwrap();
    cluster.wait();
}

/// Starts it again with `more` arguments; it has to end by itself with exit code 2. Returns its last words.
#[track_caller]
fn refused(daemon: &mut Daemon, more: &[&str]) -> String {
    let said_before = fs::read_to_string(daemon.log()).unwrap_or_default().len();
    daemon.start_again_with(more).unwrap();
    let status = daemon.wait_end(SOON);
    assert_eq!(status.and_then(|status| status.code()), Some(2), "{}", daemon.log_tail());
    let log = fs::read_to_string(daemon.log()).unwrap();
    let words: Vec<&str> = log[said_before..].lines().filter(|line| line.starts_with("tdfs")).collect();
    assert_eq!(words.len(), 1, "one sentence: {words:?}");
    words[0].to_owned()
}

/// Waits until the master says that slave `number` is refused; returns the words.
#[track_caller]
fn refused_slave(cluster: &Cluster, number: usize) -> String {
    let words = harness::wait::first_some(SOON, || {
        let slave = cluster.slave_status(number);
        slave.last_error.filter(|_| slave.state == "refused")
    });
    words.expect("not refused in time")
}

/// The usual end, for a cluster with disks.
#[track_caller]
fn finish(mut cluster: Cluster) {
    cluster.wait();
    cluster.assert_equal();
    cluster.master.stop();
    assert!(mount_at(cluster.mount()).is_none_or(|mount| mount.kind == "tmpfs"));
    for slave in &mut cluster.slaves {
        if let Some(daemon) = &mut slave.daemon {
            daemon.stop();
        }
    }
    unmount_below(cluster.tree.path());
    cluster.stop();
}
