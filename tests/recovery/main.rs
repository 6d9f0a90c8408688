//! What survives a kill -9 of the master at any instant, and a log that can't take records any more.
//!
//! One module a theme; each test says which promise it proves.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod crash_points;
mod full_log;

use std::time::Duration;

use harness::{Binaries, Cluster, ClusterBuilder};

const BINARIES: Binaries = harness::binaries!();

/// For what should come within moments, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(60);

fn cluster() -> ClusterBuilder {
    Cluster::builder(BINARIES)
}
