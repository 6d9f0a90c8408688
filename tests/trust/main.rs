//! Trust (promise P7): who may write to a slave, which slave a master talks to, what strangers can do, what a daemon can
//! reach and what a peer can make it do.
//!
//! Real daemons; keys that are wrong, changed or missing; bytes that are replayed, damaged or no TLS at all.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod allowing;
mod confined;
mod hostile_master;
mod hostile_slave;
mod outside;
mod peer;
mod pinning;
mod ports;
mod secrets;
mod strangers;
mod tampered;
mod user;

use std::fs;
use std::time::Duration;

use harness::log_lines::mentions;
use harness::{Binaries, Cluster, ClusterBuilder, eventually};

fn binaries() -> Binaries {
    harness::binaries!()
}

/// Long for this machine when it is busy.
const SOON: Duration = Duration::from_secs(60);
/// What a slave says of a master that is not allowed.
const ASKS: &str = "a master that is not allowed asks to be";
/// What the master says of it.
const NOT_ALLOWED: &str = "this master's key is not allowed";

fn cluster() -> ClusterBuilder {
    Cluster::builder(binaries())
}

/// The same, and no slave allows the master.
fn strangers() -> ClusterBuilder {
    cluster().nobody_allowed().expect_log(ASKS).expect_log(NOT_ALLOWED)
}

/// The fingerprint of the master.
fn master_key(cluster: &Cluster) -> String {
    cluster.status().fingerprint
}

/// Waits until slave `number` is refused, and gives the reason that status shows.
fn refused(cluster: &Cluster, number: usize) -> String {
    eventually(SOON, "it is refused", || cluster.slave_status(number).state == "refused");
    cluster.slave_status(number).last_error.unwrap()
}

/// A change on the master arrives.
fn assert_works(cluster: &Cluster, name: &str) {
    fs::write(cluster.mount().join(name), name).unwrap();
    cluster.wait();
    for slave in &cluster.slaves {
        assert_eq!(fs::read_to_string(slave.replica.join(name)).unwrap(), name);
    }
}

/// How often lines of a log hold `part`.
fn count(log: &std::path::Path, part: &str) -> usize {
    fs::read_to_string(log).unwrap().lines().filter(|line| line.contains(part)).count()
}

fn master_says(cluster: &Cluster, part: &str) -> bool {
    mentions(cluster.master.log(), &[part])
}

fn slave_says(cluster: &Cluster, part: &str) -> bool {
    mentions(cluster.slaves[0].daemon.as_ref().unwrap().log(), &[part])
}
