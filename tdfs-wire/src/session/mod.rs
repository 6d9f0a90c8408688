//! Sessions: what to say when, on either end of one connection, as machines without I/O.
//!
//! `master` is one slave as the master sees it, from the first dial to the end of the daemon; `slave` is
//! one connection as the slave sees it. The shells around them (`tdfs/src/ship`,
//! `tdfs-slave/src/receive.rs`) do sockets, files and clocks and decide nothing.
//!
//! The drive contract, the same for both:
//!
//! 1. One `handle(input, now)`, then `poll()` until `None`, performing each output in order.
//! 2. `now` never goes backwards. When `deadline()` is reached, the shell says `Tick`.
//! 3. A new connection can take one frame. Each `Send`, `SendAnswer` and `Records` uses that permit up; the
//!    shell says `Writable` when it can take the next frame. So what a slow link can't take waits in its
//!    own place (the log, the replica, a flag) and never in a queue that grows.

mod backoff;
pub mod master;
pub mod slave;

use std::time::Duration;

/// How often each side gives a sign of life.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a peer may be silent before it counts as gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long the last message of an ending connection may take to be written.
pub const LEAVE_MAX: Duration = Duration::from_millis(500);
/// Most wants of one slave without their answers; more is an error of the slave.
pub const WANTS_MAX: usize = 64;

#[cfg(test)]
mod tests;
