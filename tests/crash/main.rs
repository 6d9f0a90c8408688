//! Real processes and mounts, ended and cut off at any instant: nothing is lost, nothing doubled.
//!
//! One module a theme; each test says which promise it proves.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod full;
mod kills;
mod links;
mod model;
mod prefix;
mod restarts;
mod slow_slave;

use std::time::Duration;

use harness::{Binaries, Cluster, ClusterBuilder};

const BINARIES: Binaries = harness::binaries!();

/// For what should come within moments, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(60);

fn cluster() -> ClusterBuilder {
    Cluster::builder(BINARIES)
}

/// `resyncs` and `divergences` of every slave: neither may grow where the log does it.
fn repairs(cluster: &Cluster) -> Vec<(u64, u64)> {
    cluster.status().slaves.iter().map(|slave| (slave.resyncs, slave.divergences)).collect()
}

/// How long a long form goes on: `TDFS_MINUTES`, 30 by default; `short` without `TDFS_LONG`.
fn duration(short: Duration) -> Duration {
    if !harness::long_form() {
        return short;
    }
    let minutes = std::env::var("TDFS_MINUTES").map_or(30, |text| text.parse().unwrap());
    Duration::from_secs(minutes * 60)
}
