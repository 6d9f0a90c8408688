//! The log: all records of the present epoch in LSN order, on disk in segments, read by many cursors.
//!
//! Owned by the master's daemon; `commit` alone appends, each slave's task reads with a cursor of its own,
//! and retention deletes what every slave has made durable. Nobody else opens segment files.
//!
//! ```text
//!  oldest ...... sealed ...... | ...... sealed ...... | ... active ... head    reserved
//!     ^ retain: deletes whole sealed segments           ^ append writes here ->
//! ```
//! Invariants: LSNs inside the segments have no holes; what is at or below `head` is whole in its file
//! and never changes; cursors take no lock that an append waits for, but for a moment where one enters
//! another segment. An append goes to the page cache: it outlives kill -9, not a power cut.
//!
//! Locks, in this order: `syncing` | `retaining`, `writer`, `segments`.

mod cursor;
mod epoch;
mod error;
mod lacking;
mod recovery;
mod retention;
mod scan;
mod segment;
mod storage;
mod writer;

pub use cursor::{Batch, Cursor};
pub use epoch::{Extent, NextEpoch};
pub use error::LogError;
pub use lacking::{Cover, Lacking, LackingError, Retention, cover, meet, retention};
pub use segment::{SEGMENT_HEADER_BYTES, SegmentHeader};
pub use storage::{FileStorage, Storage, StorageFile};
pub use writer::Reservation;

use crate::record::RecordHeader;
use crate::{Epoch, Lsn};
use error::io_error;
use parking_lot::{Mutex, RwLock};
use segment::{RECORDS_BEGIN, Segment};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use writer::Writer;

/// Called after each append. Keep it cheap: it is part of every change of the tree.
type Waker = Box<dyn Fn() + Send + Sync>;

/// A segment, and its file as far as that could be opened.
type Entered = (Arc<Segment>, Result<Box<dyn StorageFile>, LogError>);

/// What a log is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that would grow beyond so many bytes is sealed and another one begun. (Records whose space
    /// was reserved earlier can still make it a few records longer.)
    pub segment_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes_max: 16 << 20 }
    }
}

/// What was found when a log was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The newest record.
    pub head: Lsn,
    /// The first record that is held; `head + 1` if none is.
    pub oldest: Lsn,
    /// Bytes of an unfinished last record that were cut off.
    pub cut_bytes: u64,
}

/// The log of one epoch, and then of the next (`epoch`). Shared by `Arc`; all of its functions can be called from any
/// thread.
pub struct Log {
    shared: RwLock<Arc<Shared>>,
    waker: RwLock<Option<Waker>>,
    /// What is still to be removed, see `retention`.
    retaining: Mutex<VecDeque<String>>,
    syncing: Mutex<Synced>,
}

/// What cursors share with the log.
struct Shared {
    storage: Arc<dyn Storage>,
    /// The epoch has ended: its segments may be gone, nobody reads here any more.
    is_over: AtomicBool,
    epoch: Epoch,
    options: Options,
    /// Stored (release) when a record is whole in its file and known to its segment.
    head: AtomicU64,
    /// Bytes that can be reserved without a look at the writer: preallocated, not written, not reserved.
    /// Changes only by differences, so `room + reserved = allocated - end` of the writer always.
    room: AtomicI64,
    /// What is held, oldest first, without holes; the last is the active one, so there is always one.
    segments: RwLock<VecDeque<Arc<Segment>>>,
    writer: Mutex<Writer>,
}

/// How far the log is durable.
#[derive(Debug)]
struct Synced {
    epoch: Epoch,
    up_to: Lsn,
    /// An fsync failed once: the kernel has dropped what it could not write, a later success proves nothing.
    failed: bool,
}

impl Synced {
    fn none(epoch: Epoch) -> Synced {
        Synced { epoch, up_to: Lsn::ZERO, failed: false }
    }
}

impl Log {
    /// Opens the log of `epoch` in the directory `dir` and recovers it: a record at the very end that is not
    /// complete is cut off; segments of other epochs are removed. Reads all that is held.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if there is anything else wrong, or no segment at all: begin a new epoch.
    /// [`LogError::Version`] if a later TDFS has written there; nothing was touched.
    pub fn open(dir: &Path, epoch: Epoch, options: Options) -> Result<(Log, Recovered), LogError> {
        let storage = FileStorage::new(dir).map_err(io_error("open the directory of", "."))?;
        Log::open_in(Box::new(storage), epoch, options)
    }

    /// Removes all segments of any epoch in the directory `dir` and begins `epoch` at LSN 0.
    ///
    /// # Errors
    /// When the storage refuses. Segments of the previous epoch may be gone already.
    pub fn create(dir: &Path, epoch: Epoch, options: Options) -> Result<Log, LogError> {
        let storage = FileStorage::new(dir).map_err(io_error("open the directory of", "."))?;
        Log::create_in(Box::new(storage), epoch, options)
    }

    /// [`Log::open`] in any storage.
    pub fn open_in(
        storage: Box<dyn Storage>,
        epoch: Epoch,
        options: Options,
    ) -> Result<(Log, Recovered), LogError> {
        let (parts, cut_bytes) = recovery::recover(&*storage, epoch, options)?;
        let log = Log::from_shared(Shared::new(storage.into(), epoch, options, parts));
        let recovered = Recovered { head: log.head(), oldest: log.oldest(), cut_bytes };
        Ok((log, recovered))
    }

    /// [`Log::create`] in any storage.
    pub fn create_in(storage: Box<dyn Storage>, epoch: Epoch, options: Options) -> Result<Log, LogError> {
        let parts = recovery::begin(&*storage, epoch, options)?;
        Ok(Log::from_shared(Shared::new(storage.into(), epoch, options, parts)))
    }

    fn from_shared(shared: Shared) -> Log {
        let epoch = shared.epoch;
        Log {
            shared: RwLock::new(Arc::new(shared)),
            waker: RwLock::new(None),
            retaining: Mutex::new(VecDeque::new()),
            syncing: Mutex::new(Synced::none(epoch)),
        }
    }

    /// The history that the records belong to.
    pub fn epoch(&self) -> Epoch {
        self.shared.read().epoch
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared.read())
    }

    /// The newest record. All records up to it can be read by cursors. One atomic load.
    pub fn head(&self) -> Lsn {
        self.shared.read().head()
    }

    /// The first record that a new cursor can read; `head + 1` when none is held.
    pub fn oldest(&self) -> Lsn {
        self.shared.read().oldest()
    }

    /// Bytes of all segments held.
    pub fn bytes(&self) -> u64 {
        self.shared().segments.read().iter().map(|segment| segment.end()).sum()
    }

    /// Bytes of the records after `lsn` that are held. Reads less than 64 KiB; if that fails, the result is
    /// up to 64 KiB too large.
    pub fn bytes_after(&self, lsn: Lsn) -> u64 {
        let shared = self.shared();
        if lsn >= shared.head() {
            return 0;
        }
        let next = lsn.next().max(shared.oldest());
        let Some((segment, file)) = shared.enter(next) else {
            return 0;
        };
        let point = || segment.point(next).map_or(RECORDS_BEGIN, |point| point.offset);
        let offset = file.map_or_else(
            |_| point(),
            |file| scan::locate(&segment, &*file, next).unwrap_or_else(|_| point()),
        );
        let segments = shared.segments.read();
        let later = segments.iter().filter(|other| other.first > segment.first);
        segment.end().saturating_sub(offset) + later.map(|other| other.end() - RECORDS_BEGIN).sum::<u64>()
    }

    /// When record `lsn` was appended: nanoseconds since 1970. Reads less than 64 KiB; if that fails, it is
    /// the time of a record less than 64 KiB before. None if that record is not held.
    pub fn time_of(&self, lsn: Lsn) -> Option<i64> {
        let (segment, header) = self.header_of(lsn)?;
        header.map_or_else(|_| segment.point(lsn).map(|point| point.time_ns), |header| Some(header.time_ns))
    }

    /// The checksum of record `lsn`. Reads less than 64 KiB. None if the record is not held, or can't be read.
    pub fn checksum_of(&self, lsn: Lsn) -> Option<u32> {
        self.header_of(lsn)?.1.ok().map(|header| header.crc)
    }

    /// The header of a record that is held, and the segment it is in.
    fn header_of(&self, lsn: Lsn) -> Option<(Arc<Segment>, Result<RecordHeader, LogError>)> {
        let shared = self.shared();
        if lsn > shared.head() || lsn < shared.oldest() {
            return None;
        }
        let (segment, file) = shared.enter(lsn)?;
        let header = file.and_then(|file| {
            let offset = scan::locate(&segment, &*file, lsn)?;
            scan::header_at(&segment, &*file, offset)
        });
        Some((segment, header))
    }

    /// Sets what is called after each append, outside the lock, by the thread that appended; it replaces
    /// what was set before. It must be cheap, and must not call this function.
    pub fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>) {
        *self.waker.write() = Some(waker);
    }

    /// Makes all records durable that are there now; returns the newest of them.
    ///
    /// # Errors
    /// When an fsync failed, now or ever before: then nobody can say what is on the disk.
    pub fn sync(&self) -> Result<Lsn, LogError> {
        let mut synced = self.syncing.lock();
        let shared = self.shared();
        if synced.epoch != shared.epoch {
            *synced = Synced::none(shared.epoch);
        }
        if synced.failed {
            return Err(LogError::Broken);
        }
        let head = shared.head();
        if head == synced.up_to {
            return Ok(head);
        }
        let done = shared.sync_segments(synced.up_to);
        match done {
            Ok(()) => synced.up_to = head,
            Err(_) => synced.failed = true,
        }
        done.map(|()| head)
    }
}

impl Shared {
    fn new(storage: Arc<dyn Storage>, epoch: Epoch, options: Options, parts: recovery::Parts) -> Shared {
        let recovery::Parts { segments, writer } = parts;
        Shared {
            storage,
            is_over: AtomicBool::new(false),
            epoch,
            options,
            head: AtomicU64::new(writer.head().get()),
            room: AtomicI64::new(0),
            segments: RwLock::new(segments),
            writer: Mutex::new(writer),
        }
    }

    fn head(&self) -> Lsn {
        Lsn::new(self.head.load(Ordering::Acquire))
    }

    fn oldest(&self) -> Lsn {
        self.segments.read().front().map_or_else(|| self.head().next(), |segment| segment.first)
    }

    /// The segment that holds `lsn` or, where that is `head + 1`, will hold it; opened while it can't be
    /// removed. None if it is no longer held.
    fn enter(&self, lsn: Lsn) -> Option<Entered> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.first <= lsn);
        let segment = segments.get(after.checked_sub(1)?)?;
        let file = self.storage.open(&segment.name).map_err(io_error("open", &segment.name));
        Some((Arc::clone(segment), file))
    }

    /// Syncs all segments that hold records after `synced`, and the names of new ones.
    fn sync_segments(&self, synced: Lsn) -> Result<(), LogError> {
        let files = {
            let segments = self.segments.read();
            let unsynced = segments.iter().filter(|segment| segment.last() > synced);
            let open = |segment: &Arc<Segment>| {
                let file = self.storage.open(&segment.name).map_err(io_error("open", &segment.name))?;
                Ok((Arc::clone(segment), file))
            };
            unsynced.map(open).collect::<Result<Vec<_>, LogError>>()?
        };
        for (segment, file) in &files {
            file.sync().map_err(io_error("sync", &segment.name))?;
        }
        if files.iter().any(|(segment, _)| segment.first > synced) {
            self.storage.sync().map_err(io_error("sync the directory of", "."))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
