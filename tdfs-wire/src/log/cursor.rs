//! Cursor: reads the log from a position on, as many at a time as there are slaves.
//!
//! Owned by who reads. Takes no lock but to enter a segment; never writes.

use super::scan::{self, damaged, read_error, take_run};
use super::segment::Segment;
use super::storage::{StorageFile, read_exact_at};
use super::{Log, LogError, Shared};
use crate::record::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader};
use crate::{Epoch, Lsn};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Whole records one after the other, as they stand in the log and go into a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// LSN of the first.
    pub first: Lsn,
    /// How many, at least one.
    pub count: u32,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

impl Batch {
    /// LSN of the last.
    pub fn last(&self) -> Lsn {
        self.first.plus(u64::from(self.count)).prev()
    }
}

/// A place in the log from which records are read. Holds the segment it is in open: one that is deleted
/// meanwhile can be read to its end.
pub struct Cursor {
    shared: Arc<Shared>,
    segment: Arc<Segment>,
    file: Box<dyn StorageFile>,
    /// Where the record after `position` begins.
    offset: u64,
    position: Lsn,
}

impl Log {
    /// A cursor that begins with the record after `after`.
    ///
    /// # Errors
    /// [`LogError::Gone`] if that record is no longer held, [`LogError::Ahead`] if `after` is not appended yet,
    /// [`LogError::Over`] if the epoch has ended.
    pub fn cursor(&self, after: Lsn) -> Result<Cursor, LogError> {
        let shared = self.shared();
        if shared.is_over.load(Ordering::Acquire) {
            return Err(LogError::Over);
        }
        let head = shared.head();
        if after > head {
            return Err(LogError::Ahead { head });
        }
        let (segment, file) = shared.enter_next(after)?;
        let offset = scan::locate(&segment, &*file, after.next())?;
        Ok(Cursor { shared, segment, file, offset, position: after })
    }
}

impl Shared {
    /// The segment of the record after `after`.
    fn enter_next(&self, after: Lsn) -> Result<(Arc<Segment>, Box<dyn StorageFile>), LogError> {
        let (segment, file) =
            self.enter(after.next()).ok_or_else(|| LogError::Gone { oldest: self.oldest() })?;
        Ok((segment, file?))
    }
}

impl Cursor {
    /// The epoch that it reads.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// The last record that was read; at first what the cursor was made with.
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Reads whole records after the position, none beyond `up_to` or the head: at most `bytes_max` bytes of
    /// them, but always at least one record if there is one. Each is checked. None if there is none.
    ///
    /// # Errors
    /// [`LogError::Gone`] if retention has passed the position and the segment it was in is read to its end.
    /// [`LogError::Over`] if the epoch has ended. [`LogError::Damaged`] if the file is not what was appended.
    /// The position stays.
    pub fn read(&mut self, up_to: Lsn, bytes_max: usize) -> Result<Option<Batch>, LogError> {
        if self.shared.is_over.load(Ordering::Acquire) {
            return Err(LogError::Over);
        }
        // The head first: then `last` and `end` of the segment are at least as new.
        let up_to = up_to.min(self.shared.head());
        if self.position >= up_to {
            return Ok(None);
        }
        if self.position >= self.segment.last() {
            let (segment, file) = self.shared.enter_next(self.position)?;
            self.offset = scan::locate(&segment, &*file, self.position.next())?;
            (self.segment, self.file) = (segment, file);
        }
        let first = self.position.next();
        let mut bytes = self.fetch(bytes_max.max(RECORD_HEADER_BYTES))?;
        let mut run = self.take(&bytes, up_to)?;
        if run.count == 0 {
            let long = RecordHeader::parse(&bytes).map_or(RECORD_BYTES_MAX, |header| header.len);
            bytes = self.fetch(long)?;
            run = self.take(&bytes, first)?;
        }
        if run.count == 0 {
            return Err(damaged(&self.segment, self.offset, format!("record {first} is not whole")));
        }
        bytes.truncate(run.bytes);
        self.offset += run.bytes as u64;
        self.position = self.position.plus(u64::from(run.count));
        Ok(Some(Batch { first, count: run.count, bytes }))
    }

    /// Up to `bytes_max` bytes from the offset on, of those that are written.
    fn fetch(&self, bytes_max: usize) -> Result<Vec<u8>, LogError> {
        let written = usize::try_from(self.segment.end() - self.offset).unwrap_or(usize::MAX);
        let mut bytes = vec![0; written.min(bytes_max)];
        read_exact_at(&*self.file, &mut bytes, self.offset)
            .map_err(read_error(&self.segment, self.offset))?;
        Ok(bytes)
    }

    fn take(&self, bytes: &[u8], up_to: Lsn) -> Result<scan::Run, LogError> {
        let up_to = up_to.min(self.segment.last());
        take_run(bytes, self.position.next(), up_to, |_, _| {})
            .map_err(|(at, why)| damaged(&self.segment, self.offset + at as u64, why))
    }
}
