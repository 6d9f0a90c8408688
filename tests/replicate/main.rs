//! Replication as a whole: scenarios with real daemons, real mounts and a link that may be bad.
//!
//! One module a theme; each test says which promise it proves.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod first_copy;
mod foreign;
mod links;
mod main_job;
mod master_life;
mod mounts;
mod order;
mod slaves;
mod sources;
mod stress;

use std::time::Duration;

use harness::ops::{Names, Writers};
use harness::{Binaries, Cluster, ClusterBuilder};

const BINARIES: Binaries = harness::binaries!();

/// For what should come within moments, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(20);

fn cluster() -> ClusterBuilder {
    Cluster::builder(BINARIES)
}

/// Three threads that change the mount until they are stopped.
fn writers(cluster: &Cluster) -> Writers {
    Writers::start(cluster.mount(), &Names::few(12, 4), harness::rng::run_seed(), 3, None)
}

/// The `resyncs` of every slave.
fn resyncs(cluster: &Cluster) -> Vec<u64> {
    cluster.status().slaves.iter().map(|slave| slave.resyncs).collect()
}
