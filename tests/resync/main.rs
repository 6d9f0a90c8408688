//! Comparing and making equal, as a whole: real daemons, real mounts, trees that were changed unseen.
//!
//! One module a theme; each test says which promise it proves.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod brake;
mod check;
mod either_side;
mod exotic;
mod healing;
mod interruption;
mod many_xattrs;
mod overflow;
mod planted;
mod rate;
mod slaves;
mod trees;
mod verify;

use std::time::Duration;

use harness::{Binaries, Cluster, ClusterBuilder};

const BINARIES: Binaries = harness::binaries!();

/// For what should come within moments, on a machine that may be busy.
const SOON: Duration = Duration::from_secs(60);

/// The WARN line of a check that finds something.
const FOUND: &str = "differs from the master's";

fn cluster() -> ClusterBuilder {
    Cluster::builder(BINARIES)
}

/// Waits until slave `number` is neither checked nor resynced any more.
#[track_caller]
fn until_settled(cluster: &Cluster, number: usize) {
    harness::eventually(SOON, "the slave is compared", || !cluster.slave_status(number).is_unsettled());
}

/// Waits until the resync of slave `number` is in this phase.
#[track_caller]
fn until_phase(cluster: &Cluster, number: usize, phase: &str) {
    harness::eventually(SOON, phase, || cluster.slave_status(number).phase() == phase);
}
