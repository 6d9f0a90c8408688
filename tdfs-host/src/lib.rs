//! What both daemons need of the machine they run on: objects below a root, the state directory, the
//! control socket, keys and TLS, framed connections, signals and the log on stderr; what identifies a root.
//!
//! Knows neither FUSE nor the log of records, and decides nothing about replication.

pub mod cli;
pub mod control;
pub mod daemon;
pub mod key;
pub mod link;
pub mod object;
pub mod root;
pub mod state;
pub mod step;
pub mod sys;
pub mod tls;
