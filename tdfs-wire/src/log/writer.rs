//! The writing end: reserve space, append, begin the next segment.
//!
//! Called by commit: `reserve` before the change to the tree, `append` after it. Never fsyncs, never reads.
//! Segments are begun in `reserve` alone, so that a full disk shows before the change.

use super::error::io_error;
use super::segment::{self, RECORDS_BEGIN, Segment, SegmentHeader};
use super::storage::{Storage, StorageFile, write_all_at};
use super::{Log, LogError, Options, Shared};
use crate::record::Draft;
use crate::{Epoch, Lsn};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Disk space is taken so many bytes at a time.
const PREALLOCATE_BYTES: u64 = 4 << 20;

/// Space in the log for one record. Dropped unused, it gives the space back.
#[must_use]
pub struct Reservation {
    shared: Arc<Shared>,
    bytes: i64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.room.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// The active segment as the one who appends sees it.
pub(super) struct Writer {
    segment: Arc<Segment>,
    file: Box<dyn StorageFile>,
    /// Where the next record goes.
    end: u64,
    /// Disk space is taken up to here. Invariant: `end <= allocated`.
    allocated: u64,
    head: Lsn,
    /// Bytes may lie behind `end` that can't be cut off: whoever opens this log must not find more there.
    broken: bool,
}

impl Log {
    /// Takes space for a record of at most `bytes` bytes, so that appending it will not fail for lack of space
    /// (where the file system can preallocate; else this only begins segments). Space that was reserved and
    /// not yet used adds up.
    ///
    /// # Errors
    /// When there is no space: see [`LogError::is_no_space`]. [`LogError::Broken`] once an append could not
    /// be taken back.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, LogError> {
        self.shared().reserve(bytes)
    }

    /// Appends the record: gives it the next LSN and `time_ns` (nanoseconds since 1970), writes it, moves the
    /// head, wakes. One critical section: no record is appended before all earlier ones are. Gives
    /// back what it does not need of `reservation`.
    ///
    /// # Errors
    /// Nothing was appended then. If the bytes written so far could not be taken back either, all later calls
    /// fail with [`LogError::Broken`].
    pub fn append(
        &self,
        reservation: Reservation,
        draft: &mut Draft<'_>,
        time_ns: i64,
    ) -> Result<Lsn, LogError> {
        let shared = Arc::clone(&reservation.shared);
        let lsn = {
            let mut writer = shared.writer.lock();
            let lsn = writer.append(&shared, draft, time_ns)?;
            drop(reservation);
            shared.head.store(lsn.get(), Ordering::Release);
            lsn
        };
        if let Some(wake) = &*self.waker.read() {
            wake();
        }
        Ok(lsn)
    }
}

impl Shared {
    pub(super) fn reserve(self: Arc<Shared>, bytes: usize) -> Result<Reservation, LogError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if !self.take_room(bytes) {
            self.make_room(bytes)?;
        }
        Ok(Reservation { shared: self, bytes })
    }

    fn take_room(&self, bytes: i64) -> bool {
        let less = |room: i64| room.checked_sub(bytes).filter(|&left| left >= 0);
        self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn make_room(&self, bytes: i64) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        while !self.take_room(bytes) {
            writer.extend(self, bytes.unsigned_abs())?;
        }
        Ok(())
    }

    fn change_room(&self, before: u64, after: u64) {
        // Both are differences inside one file, far below 2^63.
        self.room.fetch_add(after.cast_signed() - before.cast_signed(), Ordering::Relaxed);
    }
}

impl Writer {
    /// Goes on behind the last record of `segment`, whose file ends there.
    pub(super) fn new(segment: Arc<Segment>, file: Box<dyn StorageFile>, head: Lsn) -> Writer {
        let end = segment.end();
        Writer { segment, file, end, allocated: end, head, broken: false }
    }

    pub(super) fn head(&self) -> Lsn {
        self.head
    }

    fn append(&mut self, shared: &Shared, draft: &mut Draft<'_>, time_ns: i64) -> Result<Lsn, LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        let lsn = self.head.next();
        let end = self.end + draft.len() as u64;
        if let Err(e) = write_all_at(&*self.file, draft.place(lsn, time_ns), self.end) {
            self.take_back(shared);
            return Err(io_error("append to", &self.segment.name)(e));
        }
        self.segment.add(lsn, time_ns, end);
        let before = self.allocated - self.end;
        (self.end, self.head) = (end, lsn);
        self.allocated = self.allocated.max(end);
        shared.change_room(before, self.allocated - self.end);
        Ok(lsn)
    }

    /// Removes what a failed append has left behind the end, and with it what was preallocated there.
    fn take_back(&mut self, shared: &Shared) {
        shared.change_room(self.allocated - self.end, 0);
        self.allocated = self.end;
        if self.file.truncate(self.end).is_err() {
            self.give_up(shared);
        }
    }

    /// Nothing can be reserved or appended from now on.
    fn give_up(&mut self, shared: &Shared) {
        self.broken = true;
        // So low that no reservation finds room without coming here.
        shared.room.fetch_sub(i64::MAX / 2, Ordering::Relaxed);
    }

    /// Makes space for `bytes` beside what is reserved already: further on in the active segment or, if it
    /// is full, in the next one.
    fn extend(&mut self, shared: &Shared, bytes: u64) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        let left = self.allocated - self.end;
        let reserved = u64::try_from(left.cast_signed() - shared.room.load(Ordering::Relaxed)).unwrap_or(0);
        let wanted = reserved.saturating_add(bytes);
        let full = self.end.saturating_add(wanted) > shared.options.segment_bytes_max;
        if full && self.head >= self.segment.first {
            return self.begin_next(shared, wanted);
        }
        let allocated = preallocate(&*self.file, self.end, wanted, shared.options)
            .map_err(io_error("preallocate", &self.segment.name))?;
        self.allocated = self.allocated.max(allocated);
        shared.change_room(left, self.allocated - self.end);
        Ok(())
    }

    /// Seals the active segment and begins the next with space for `wanted` bytes; changes nothing if
    /// that can't be had.
    fn begin_next(&mut self, shared: &Shared, wanted: u64) -> Result<(), LogError> {
        let name = segment::name(shared.epoch, self.head.next());
        let begun = begin(&*shared.storage, &name, shared.epoch, self.head.next(), |file| {
            preallocate(file, RECORDS_BEGIN, wanted, shared.options)
        });
        let (file, allocated) = begun.map_err(|(e, left_behind)| {
            if left_behind {
                self.give_up(shared);
            }
            e
        })?;
        // Gives up what was preallocated; if that fails, some disk space is lost until it is deleted.
        let _ = self.file.truncate(self.end);
        self.segment.seal(self.head);
        let next = Arc::new(Segment::new(name, self.head.next(), shared.options.segment_bytes_max));
        shared.segments.write().push_back(Arc::clone(&next));
        let before = self.allocated - self.end;
        *self = Writer { allocated, ..Writer::new(next, file, self.head) };
        shared.change_room(before, self.allocated - self.end);
        Ok(())
    }
}

/// Makes the file of a segment that begins with `first` and lets `prepare` do more; takes it back if one of
/// them fails. The error says whether that failed too.
pub(super) fn begin<T>(
    storage: &dyn Storage,
    name: &str,
    epoch: Epoch,
    first: Lsn,
    prepare: impl FnOnce(&dyn StorageFile) -> io::Result<T>,
) -> Result<(Box<dyn StorageFile>, T), (LogError, bool)> {
    let file = storage.create(name).map_err(|e| (io_error("create", name)(e), false))?;
    let header = SegmentHeader { epoch, first }.encode();
    let prepared = write_all_at(&*file, [&header, &[]], 0).and_then(|()| prepare(&*file));
    match prepared {
        Ok(prepared) => Ok((file, prepared)),
        Err(e) => Err((io_error("begin", name)(e), storage.remove(name).is_err())),
    }
}

/// Takes disk space from `end` on: for `wanted` bytes, and for some more if that is there. Returns up to where.
fn preallocate(file: &dyn StorageFile, end: u64, wanted: u64, options: Options) -> io::Result<u64> {
    let ahead = PREALLOCATE_BYTES.min(options.segment_bytes_max.saturating_sub(end)).max(wanted);
    if ahead > wanted && file.preallocate(end, ahead).is_ok() {
        return Ok(end.saturating_add(ahead));
    }
    file.preallocate(end, wanted)?;
    Ok(end.saturating_add(wanted))
}
