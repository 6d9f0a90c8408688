//! Segment: one file of the log. Its name, its header, what is known of it in memory.
//!
//! ```text
//!  0  [u8;6]  "TDFLOG"
//!  6  u16     layout version (version.rs)
//!  8  u64     number of the epoch
//! 16  [u8;16] id of the epoch
//! 32  u64     LSN of the first record, at least 1
//! 40  u32     CRC-32C of bytes 0..40
//! 44  records, without gaps
//! ```
//! All little-endian. Called by the rest of `log`; never opens a file.

use super::LogError;
use crate::version::LOG;
use crate::{Epoch, Id, Lsn};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes before the first record.
pub const SEGMENT_HEADER_BYTES: usize = 44;
/// Offset of the first record.
pub(super) const RECORDS_BEGIN: u64 = SEGMENT_HEADER_BYTES as u64;
/// The index has a point for the first record that begins so many bytes after the point before.
pub(super) const POINT_BYTES: u64 = 64 * 1024;

const MAGIC: [u8; 6] = *b"TDFLOG";
const SUFFIX: &str = ".log";

/// A segment's file name: `epoch number - first LSN .log`, both in decimal and padded so that names sort.
pub(super) fn name(epoch: Epoch, first: Lsn) -> String {
    format!("{:010}-{:020}{SUFFIX}", epoch.number, first.get())
}

/// Reads what [`name`] makes: epoch number and first LSN; None for any other name.
pub(super) fn parse_name(name: &str) -> Option<(u64, Lsn)> {
    let (epoch, first) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let number = |digits: &str, width| {
        (digits.len() >= width && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse::<u64>())
    };
    let (epoch, first) = (number(epoch, 10)?.ok()?, number(first, 20)?.ok()?);
    (first > 0).then(|| Lsn::try_from(first).ok()).flatten().map(|first| (epoch, first))
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The history its records belong to.
    pub epoch: Epoch,
    /// LSN of its first record.
    pub first: Lsn,
}

impl SegmentHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..6].copy_from_slice(&MAGIC);
        bytes[6..8].copy_from_slice(&LOG.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.number.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.epoch.id.0);
        bytes[32..40].copy_from_slice(&self.first.get().to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of the segment `file` (its name, for the error).
    ///
    /// # Errors
    /// [`LogError::Version`] for a later layout, [`LogError::Damaged`] for what is no header.
    pub fn parse(bytes: &[u8; SEGMENT_HEADER_BYTES], file: &str) -> Result<SegmentHeader, LogError> {
        let damaged = |why: &str| Err(LogError::Damaged { file: file.into(), offset: 0, why: why.into() });
        if bytes[0..6] != MAGIC {
            return damaged("does not begin as a log segment");
        }
        let theirs = u16::from_le_bytes([bytes[6], bytes[7]]);
        if theirs > LOG {
            return Err(LogError::Version { file: file.into(), theirs });
        }
        let crc = u32::from_le_bytes([bytes[40], bytes[41], bytes[42], bytes[43]]);
        if theirs != LOG || crc32c::crc32c(&bytes[..40]) != crc {
            return damaged("checksum of the header");
        }
        let mut id = Id::default();
        id.0.copy_from_slice(&bytes[16..32]);
        let (number, first) = (u64_at(bytes, 8), Lsn::try_from(u64_at(bytes, 32)));
        match first {
            Ok(first) if first > Lsn::ZERO => Ok(SegmentHeader { epoch: Epoch { number, id }, first }),
            _ => damaged("impossible first LSN"),
        }
    }
}

fn u64_at(bytes: &[u8; SEGMENT_HEADER_BYTES], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

/// Where one record lies: an entry of the sparse index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) lsn: Lsn,
    /// In bytes from the start of the file.
    pub(super) offset: u64,
    /// When the record was appended: nanoseconds since 1970.
    pub(super) time_ns: i64,
}

/// What is known of a segment that is held. *Active*: the last one, records are added. *Sealed*: all others.
///
/// `points`, `end` and `last` are set before the log's head moves to the record concerned, so whoever has
/// loaded the head sees them at least as new.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) first: Lsn,
    /// LSN of the last record; `u64::MAX` while active.
    last: AtomicU64,
    /// Bytes of the file that are written.
    end: AtomicU64,
    /// The first record that begins here or later gets a point.
    point_due: AtomicU64,
    /// Sorted. The first record has a point; records between two points begin less than
    /// [`POINT_BYTES`] after the earlier one.
    points: Mutex<Vec<Point>>,
}

impl Segment {
    /// An active segment without records. `bytes_max` says how much room its index may need.
    pub(super) fn new(name: String, first: Lsn, bytes_max: u64) -> Segment {
        let points = usize::try_from(bytes_max / POINT_BYTES + 2).unwrap_or(usize::MAX).min(4096);
        Segment {
            name,
            first,
            last: AtomicU64::new(u64::MAX),
            end: AtomicU64::new(RECORDS_BEGIN),
            point_due: AtomicU64::new(RECORDS_BEGIN),
            points: Mutex::new(Vec::with_capacity(points)),
        }
    }

    /// LSN of its last record; the highest number there is while it is active.
    pub(super) fn last(&self) -> Lsn {
        Lsn::new(self.last.load(Relaxed))
    }

    /// Bytes of its file that are written.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Relaxed)
    }

    /// Notes that the record `lsn` lies from the present end up to `end`. Called in LSN order.
    pub(super) fn add(&self, lsn: Lsn, time_ns: i64, end: u64) {
        let offset = self.end();
        if offset >= self.point_due.load(Relaxed) {
            self.points.lock().push(Point { lsn, offset, time_ns });
            self.point_due.store(offset + POINT_BYTES, Relaxed);
        }
        self.end.store(end, Relaxed);
    }

    /// No record follows `last`.
    pub(super) fn seal(&self, last: Lsn) {
        self.last.store(last.get(), Relaxed);
    }

    /// The last point at or before `lsn`.
    pub(super) fn point(&self, lsn: Lsn) -> Option<Point> {
        let points = self.points.lock();
        let after = points.partition_point(|point| point.lsn <= lsn);
        after.checked_sub(1).map(|at| points[at])
    }
}
