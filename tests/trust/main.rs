//! Trust: what a daemon can reach, what a peer can make it do.

mod confined;
mod hostile_master;
mod hostile_slave;
mod outside;
mod peer;
mod user;

use harness::{Binaries, ClusterBuilder};
use std::time::Duration;

/// Long for this machine when it is busy.
const SOON: Duration = Duration::from_secs(60);

fn binaries() -> Binaries {
    harness::binaries!()
}

fn cluster() -> ClusterBuilder {
    harness::Cluster::builder(binaries())
}
