//! What a slave makes of limits and failures of its own machine: it stalls, says why, and loses nothing.
//!
//! Real daemons, real mounts, real full disks. One module a theme; each test says which promise it proves.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod ends;
mod limits;

use std::time::Duration;

use harness::{Binaries, Cluster, ClusterBuilder};

const BINARIES: Binaries = harness::binaries!();

/// For what should come within moments, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(60);

fn cluster() -> ClusterBuilder {
    Cluster::builder(BINARIES)
}
