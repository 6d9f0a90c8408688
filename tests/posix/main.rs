//! POSIX behaviour through a real mount, one module a family.
//!
//! Each check runs in a plain directory first, which shows that the check is right, and then on a mount; after
//! that the replica is compared. `TDFS_ONLY=name` picks checks, `TDFS_PLAIN_ONLY=1` leaves the mount out.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod attr;
mod data;
mod fallocate;
mod lingering;
mod locks;
mod mapping;
mod namespace;
mod outcome;
mod passthrough;
mod paths;
mod readdir;
mod rename;
mod rights;
mod statfs;
mod xattr;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use harness::{Binaries, Cluster, ClusterBuilder, TempTree};

const BINARIES: Binaries = harness::binaries!();

/// A check: it gets an empty directory and panics on what is wrong.
type Check = (&'static str, fn(&Path));

/// Names each function as a check.
macro_rules! checks {
    ($($check:path),+ $(,)?) => { &[$((stringify!($check), $check as fn(&std::path::Path))),+] };
}
use checks;

/// Runs `family` in plain directories, then on one mount with one slave, in each mode that it has; then compares.
fn run(family: &[Check]) {
    run_on(Cluster::builder(BINARIES), TempTree::new().unwrap(), family);
    run_on(Cluster::builder(BINARIES).flag("--passthrough"), TempTree::new().unwrap(), family);
}

/// The same on the disk's file system, for what tmpfs does not know.
fn run_on_disk(family: &[Check]) {
    run_on(Cluster::builder(BINARIES).on_disk(), TempTree::on_disk().unwrap(), family);
}

fn run_on(builder: ClusterBuilder, plain: TempTree, family: &[Check]) {
    let only = std::env::var("TDFS_ONLY").unwrap_or_default();
    let family: Vec<Check> = family.iter().filter(|(name, _)| name.contains(&only)).copied().collect();
    let failed = run_below(plain.path(), &family);
    assert!(failed.is_empty(), "wrong even in a plain directory: {failed:?}");
    if std::env::var_os("TDFS_PLAIN_ONLY").is_some() {
        return;
    }
    let mut cluster = builder.start();
    let failed = run_below(cluster.mount(), &family);
    cluster.wait();
    cluster.assert_equal();
    assert!(failed.is_empty(), "failed on the mount: {failed:?}");
    cluster.stop();
}

/// Runs each check in a directory of its own; gives the names of those that failed.
fn run_below(root: &Path, family: &[Check]) -> Vec<&'static str> {
    let fails = |(name, check): &&Check| {
        let directory = root.join(name.replace("::", "."));
        std::fs::create_dir(&directory).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&directory)));
        if outcome.is_err() {
            println!("check {name} failed in {}", directory.display());
        }
        outcome.is_err()
    };
    family.iter().filter(fails).map(|(name, _)| *name).collect()
}
