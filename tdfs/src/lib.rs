//! The master of TDFS: kernel request -> backing tree -> log -> slaves.
//!
//! Layers, each knowing only those to its right: `daemon` > `fuse` > `passthrough` > `commit` > the log
//! (tdfs-wire); `daemon` > `ship` > the log; `resync` reads the tree below `commit`'s locks. `ship` and
//! `passthrough` never meet but in the log.

pub mod args;
mod below;
mod checks;
mod commands;
pub mod commit;
mod daemon;
mod embedded;
pub mod fuse;
mod identity;
pub mod passthrough;
mod resync;
pub mod ship;
mod status;

pub use daemon::main_from_args;
