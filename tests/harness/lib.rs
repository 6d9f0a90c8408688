//! The harness: starts real daemons on real mounts, breaks what lies between them, compares trees.
//!
//! Used by every test target of this package and by nothing else. Everything it starts or mounts lies
//! below one temp directory and goes away with it, also when a test fails.

pub mod caller;
pub mod cluster;
pub mod compare;
pub mod crash_disk;
pub mod daemon;
pub mod history;
pub mod ledger;
pub mod log_lines;
pub mod modes;
pub mod ops;
pub mod programs;
pub mod proxy;
pub mod rng;
pub mod status;
pub mod sys;
pub mod temp_tree;
pub mod wait;
mod watchdog;

pub use caller::Caller;
pub use cluster::{Cluster, ClusterBuilder};
pub use compare::{Compare, assert_same, compare};
pub use daemon::{Binaries, Daemon};
pub use programs::{long_form, require};
pub use rng::Rng;
pub use temp_tree::TempTree;
pub use wait::eventually;
