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

mod crash_point;
mod intent;
mod order;
mod slots;

pub use crash_point::crash_point;
pub use intent::{Attribute, Intent};
pub use order::{Order, Reading, TreeExclusive, TreeShared, Turn};
pub use slots::{Found, Slots, Unfinished};

use parking_lot::Mutex;
use rustix::fs::Statx;
use rustix::io::Result;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tdfs_wire::log::{Log, LogError, NextEpoch, Reservation};
use tdfs_wire::object::Owner;
use tdfs_wire::record::{Draft, Owners, RECORD_HEADER_BYTES, Record};
use tdfs_wire::{Lsn, Op};

/// Upper bound of an encoded op without its paths, names, targets and bulk.
const OP_FIXED_BYTES: usize = 256;
/// The target of a symlink, the name of an xattr.
const OP_EXTRA_BYTES: usize = 8192;
/// The log is read in pieces of about so many bytes.
const READ_BYTES: usize = 1 << 20;

/// What happened to the backing tree, to be recorded.
pub struct Change<'a> {
    /// The outcome.
    pub op: Op,
    /// Whose the objects were before.
    pub owners: Owners,
    /// Bulk data of the record.
    pub bulk: Cow<'a, [u8]>,
}

impl<'a> Change<'a> {
    /// A change without bulk data.
    pub fn of(op: Op) -> Change<'static> {
        Change::with_bulk(op, Cow::Borrowed(&[]))
    }

    /// A change with bulk data.
    pub fn with_bulk(op: Op, bulk: Cow<'a, [u8]>) -> Change<'a> {
        Change { op, owners: Owners::default(), bulk }
    }

    /// The same, of an object that this was told of before.
    pub fn of_object(mut self, before: &Statx) -> Change<'a> {
        self.owners.changed = Some(owner(before));
        self
    }

    /// The same, copied from a file that this was told of.
    pub fn from_file(mut self, source: &Statx) -> Change<'a> {
        self.owners.read = Some(owner(source));
        self
    }
}

fn owner(stat: &Statx) -> Owner {
    Owner { uid: stat.stx_uid, gid: stat.stx_gid }
}

/// Outcome of an attempted change: what the application is told, and what has to be recorded. The two are
/// independent: an operation can fail after it changed something, and succeed without changing anything.
pub type Outcome<'a, T> = (Result<T>, Option<Change<'a>>);

/// Puts every change into one order and into the log.
pub struct Commit {
    order: Order,
    log: Arc<Log>,
    slots: Slots,
    /// Why the epoch is over, while it is: a change has happened that could not be recorded.
    over: Mutex<Option<String>>,
    is_over: AtomicBool,
}

impl Commit {
    /// The choke point in front of `log`, with the slots of the same epoch.
    pub fn new(log: Arc<Log>, slots: Slots) -> Commit {
        Commit {
            order: Order::default(),
            log,
            slots,
            over: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// The order locks.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The log that changes go into.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What was in hand at a kill, and what is lost.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Does a change and records it. `turn` proves that the locks of all objects which `act` touches are
    /// held; they stay held until the record is appended. `intent` is noted before `act` is called and cleared when
    /// its outcome is appended, so that a kill -9 in between loses nothing. `extra_bytes` is an upper bound of
    /// what the record has beside the intent's paths and names: bulk, targets. Space for all of it is made sure of
    /// before anything is changed; a log that has none, or fails, ends the epoch, and the change is done all the same.
    ///
    /// # Errors
    /// What `act` says.
    pub fn change<'a, T>(
        &self,
        _turn: &Turn<'_>,
        intent: &Intent,
        extra_bytes: usize,
        act: impl FnOnce() -> Outcome<'a, T>,
    ) -> Result<T> {
        let reserved = self.reserve(intent.record_bytes() + extra_bytes);
        let noted = self.slots.note(intent, self.log.head());
        crash_point("noted");
        let (value, change) = act();
        crash_point("done");
        if let (Some(change), Some(reserved)) = (change, reserved) {
            self.append(reserved, &change);
        }
        crash_point("recorded");
        drop(noted);
        value
    }

    /// Records what was found out about a change of the last run.
    pub fn record(&self, _turn: &Turn<'_>, change: &Change<'_>) {
        let paths: usize = change.op.paths().iter().map(|path| path.as_bytes().len()).sum();
        if let Some(reserved) = self.reserve(paths + change.bulk.len() + OP_EXTRA_BYTES) {
            self.append(reserved, change);
        }
    }

    /// Why no change is recorded at present: since the log failed the epoch is over, until the next one begins.
    pub fn trouble(&self) -> Option<String> {
        self.over.lock().clone()
    }

    /// Goes over to the epoch of `next`, which is on the disk, as is the lineage that tells of it. Waits for the
    /// changes in hand and keeps others off for as long as a few stores take.
    pub fn begin_epoch(&self, next: NextEpoch) {
        let _alone = self.order.exclusive();
        self.log.begin_epoch(next);
        self.slots.begin_epoch(self.log.epoch());
        self.is_over.store(false, Ordering::Release);
        *self.over.lock() = None;
    }

    /// All ops that were recorded after `lsn`; None if the log does not hold them any more, or the epoch is over.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn recorded_after(&self, lsn: Lsn) -> std::result::Result<Option<Vec<Op>>, LogError> {
        let mut cursor = match self.log.cursor(lsn) {
            Err(LogError::Gone { .. } | LogError::Over) => return Ok(None),
            cursor => cursor?,
        };
        let mut ops = Vec::new();
        while let Some(batch) = cursor.read(self.log.head(), READ_BYTES)? {
            let mut rest = &batch.bytes[..];
            while let Ok((record, len)) = Record::parse(rest) {
                ops.push(record.op);
                rest = &rest[len..];
            }
        }
        Ok(Some(ops))
    }

    /// Room for a record; None when the epoch is over.
    fn reserve(&self, bytes: usize) -> Option<Reservation> {
        if self.is_over.load(Ordering::Acquire) {
            return None;
        }
        let reserved = self.log.reserve(RECORD_HEADER_BYTES + OP_FIXED_BYTES + bytes);
        reserved.map_err(|e| self.end_epoch(&e)).ok()
    }

    fn append(&self, reserved: Reservation, change: &Change<'_>) {
        let mut draft = Draft::owned(&change.op, change.owners, &change.bulk)
            .unwrap_or_else(|e| panic!("limits were checked before the change, but: {e}"));
        if let Err(e) = self.log.append(reserved, &mut draft, now_ns()) {
            self.end_epoch(&e);
        }
    }

    /// The log can't take a record. Applications go on unhindered (DESIGN P5); what they change from now on no
    /// slave gets by records, and a kill must not make the next start believe otherwise.
    fn end_epoch(&self, why: &LogError) {
        // First: who sees the flag below changes the tree at once, and what it has become is no answer to a slave.
        self.slots.end_epoch();
        self.log.end_epoch();
        let mut over = self.over.lock();
        if !self.is_over.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "{why}: changes are not recorded, no slave gets them; as soon as the log can be written again a new \
                 epoch begins, and all slaves are made equal by resync"
            );
            *over = Some(why.to_string());
        }
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
