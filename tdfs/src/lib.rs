//! The master of TDFS: kernel request -> backing tree -> log -> slaves.
//!
//! Layers, each knowing only those to its right: `daemon` > `fuse` > `passthrough` > `commit` > the log
//! (tdfs-wire); `daemon` > `ship` > the log; `resync` reads the tree below `commit`'s locks. `ship` and
//! `passthrough` never meet but in the log.

pub mod args;
#[allow(dead_code)]
mod checks;
pub mod commit;
pub mod fuse;
#[allow(dead_code)]
mod identity;
pub mod passthrough;

pub fn main_from_args() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
