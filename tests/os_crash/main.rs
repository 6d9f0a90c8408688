//! Power cuts: what was not on the disk is gone, on either side, and all becomes equal again by itself.
//!
//! For real on ext4 and xfs: the file system is shut down without its journal, mounted again, and the daemons start in
//! what they take for another boot.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod master;
mod slave;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::cluster::ClusterPaths;
use harness::ops::{Names, Writers};
use harness::temp_tree::unmount_below;
use harness::{Binaries, Cluster, ClusterBuilder, Rng};

const BINARIES: Binaries = harness::binaries!();

/// For what should come within moments, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(20);
/// Files that nobody touches, and bytes of each.
const QUIET: (usize, usize) = (1_000, 64 << 10);

fn cluster() -> ClusterBuilder {
    Cluster::builder(BINARIES)
}

/// Where everything of a cluster lies.
fn home(paths: &ClusterPaths) -> PathBuf {
    paths.backing.parent().unwrap().to_owned()
}

/// Many files that nobody touches after this.
fn plant_quiet(root: &Path, rng: &mut Rng) {
    fs::create_dir(root.join("quiet")).unwrap();
    for number in 0..QUIET.0 {
        fs::write(root.join(format!("quiet/{number}")), rng.bytes(QUIET.1)).unwrap();
    }
}

fn writers(cluster: &Cluster, seed: u64) -> Writers {
    Writers::start(cluster.mount(), &Names::few(12, 4), seed, 4, None)
}

/// Waits until the slave has all on its disk.
#[track_caller]
fn wait_durable(cluster: &Cluster) {
    cluster.wait();
    harness::eventually(SOON, "all of it is durable", || {
        let slave = cluster.slave_status(0);
        slave.durable == slave.applied
    });
}

/// The usual end, for a cluster with a disk.
#[track_caller]
fn finish(mut cluster: Cluster) {
    cluster.master.stop();
    cluster.slaves[0].process().stop();
    unmount_below(cluster.tree.path());
    cluster.stop();
}

/// Bytes of all files in `root`, but for those that nobody touched.
fn bytes_of_the_rest(root: &Path) -> u64 {
    let mut waiting = vec![root.to_owned()];
    let mut bytes = 0;
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_dir() && !path.ends_with("quiet") {
                waiting.push(path);
            } else {
                bytes += meta.blocks() * 512;
            }
        }
    }
    bytes
}
