//! The TDFS slave: receive -> relay -> replay -> ack.
//!
//! `receive` takes connections in and drives a session over each; `relay` hands what came to the thread that
//! replays; `replica` keeps how the replica stands and calls `replay` for each record, `resync` where the
//! log can't say. Also the slave inside of tdfs (`-c DIR`): then tdfs is the daemon, and starts with
//! [`open_replica`].

pub mod allowed;
pub mod applied;
mod args;
mod checks;
mod commands;
mod confine;
mod daemon;
pub mod receive;
pub mod relay;
pub mod replay;
pub mod replica;
pub mod resync;
#[cfg(test)]
mod simulation;
pub mod status;

pub use args::Args;
pub use daemon::{main_from_args, open_replica};
