//! THE choke point: every change of the backing tree happens in [`Commit::change`], and nowhere else.
//!
//! Called by `passthrough` for each operation that changes something. Owns the order locks and is the
//! only one that appends to the log. Never talks to slaves; they read the log.
//!
//! Invariant O1: if two changes don't commute, their LSN order is the order in which they happened to the
//! backing tree. Both need a common order lock, and the record is appended before it is released.
//! Invariant O2: if change A was answered before change B was asked for, LSN(A) < LSN(B): the append comes
//! before the reply. Invariant O3: the path in a record names that object at exactly that LSN: paths are
//! built under the same locks.

mod order;

pub use order::{Order, Reading, TreeExclusive, TreeShared, Turn};

use rustix::io::{Errno, Result};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tdfs_wire::Op;
use tdfs_wire::log::Log;
use tdfs_wire::record::{Draft, RECORD_HEADER_BYTES};

/// Upper bound of an encoded op without its paths, names, targets and bulk.
const OP_FIXED_BYTES: usize = 256;

/// What happened to the backing tree, to be recorded.
pub struct Change<'a> {
    /// The outcome.
    pub op: Op,
    /// Bulk data of the record.
    pub bulk: Cow<'a, [u8]>,
}

impl Change<'_> {
    /// A change without bulk data.
    pub fn of(op: Op) -> Change<'static> {
        Change { op, bulk: Cow::Borrowed(&[]) }
    }
}

/// Outcome of an attempted change: what the application is told, and what has to be recorded. The two are
/// independent: an operation can fail after it changed something, and succeed without changing anything.
pub type Outcome<'a, T> = (Result<T>, Option<Change<'a>>);

/// Puts every change into one order and into the log.
pub struct Commit {
    order: Order,
    log: Arc<Log>,
}

impl Commit {
    /// The choke point in front of `log`.
    pub fn new(log: Arc<Log>) -> Commit {
        Commit { order: Order::default(), log }
    }

    /// The order locks.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The log that changes go into.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Does a change and records it. `turn` proves that the locks of all objects which `act` touches are
    /// held; they stay held until the record is appended. `bytes` is an upper bound of the record's paths,
    /// names and bulk: space for it is made sure of before anything is changed.
    ///
    /// # Errors
    /// What `act` says; ENOSPC, before anything was changed, when the log has no room for the record.
    ///
    /// # Panics
    /// When a record for which room was made sure of can't be appended: the tree has changed and the
    /// history would not know. The log is abandoned and the daemon stops; the next start begins a new epoch.
    pub fn change<'a, T>(
        &self,
        _turn: &Turn<'_>,
        bytes: usize,
        act: impl FnOnce() -> Outcome<'a, T>,
    ) -> Result<T> {
        let reserved = self.log.reserve(RECORD_HEADER_BYTES + OP_FIXED_BYTES + bytes).map_err(|e| {
            tracing::error!("the log has no room for a change of the tree: {e}");
            Errno::NOSPC
        })?;
        let (value, change) = act();
        if let Some(change) = change {
            let mut draft = Draft::new(&change.op, &change.bulk)
                .unwrap_or_else(|e| panic!("limits were checked before the change, but: {e}"));
            if let Err(e) = self.log.append(reserved, &mut draft, now_ns()) {
                self.log.abandon(); // it lacks a change that has happened
                panic!("append {:?} after room was reserved for it: {e}", change.op);
            }
        }
        value
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
