//! Recovery: what is found in the storage becomes a log again, or is refused; and how an epoch begins.
//!
//! Called when a log is opened or created. A kill -9 can leave, at the very end, a prefix of a record or of a
//! segment's header: that is cut off. Everything else that is not as it has to be is damage. Never guesses.

use super::error::io_error;
use super::scan::{damaged, read_error, take_run};
use super::segment::{self, RECORDS_BEGIN, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use super::storage::{Storage, StorageFile, read_exact_at};
use super::writer::{self, Writer};
use super::{LogError, Options};
use crate::record::{RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader};
use crate::{Epoch, Lsn};
use std::collections::VecDeque;
use std::sync::Arc;

/// Segments are read so many bytes at a time; any record fits in.
const WINDOW_BYTES: usize = 4 << 20;
const _: () = assert!(WINDOW_BYTES >= RECORD_BYTES_MAX);

/// What a log is made of.
pub(super) struct Parts {
    pub(super) segments: VecDeque<Arc<Segment>>,
    pub(super) writer: Writer,
}

/// A file that is a segment by its name.
struct Found {
    name: String,
    number: u64,
    first: Lsn,
    /// None if the file is too short to have one.
    header: Option<Result<SegmentHeader, LogError>>,
}

/// Removes all segments of any epoch by their names alone: what can't be read can be removed all the same.
pub(super) fn remove_all(storage: &dyn Storage) -> Result<(), LogError> {
    let names = storage.list().map_err(io_error("list the directory of", "."))?;
    let mut segments: Vec<_> = names.iter().filter(|name| segment::parse_name(name).is_some()).collect();
    segments.sort();
    segments.into_iter().try_for_each(|name| remove(storage, name))
}

/// Removes all segments and makes the first one of `epoch`.
pub(super) fn begin(storage: &dyn Storage, epoch: Epoch, options: Options) -> Result<Parts, LogError> {
    // In order, so that after a kill in the midst of it the old epoch has lost its oldest records only.
    for found in survey(storage)? {
        remove(storage, &found.name)?;
    }
    let first = Lsn::ZERO.next();
    let name = segment::name(epoch, first);
    let (file, ()) = writer::begin(storage, &name, epoch, first, |_| Ok(())).map_err(|(e, _)| e)?;
    let segment = Arc::new(Segment::new(name, first, options.segment_bytes_max));
    Ok(Parts { segments: [Arc::clone(&segment)].into(), writer: Writer::new(segment, file, Lsn::ZERO) })
}

/// Reads all segments of `epoch`; returns the log and how many bytes were cut off at its end.
pub(super) fn recover(
    storage: &dyn Storage,
    epoch: Epoch,
    options: Options,
) -> Result<(Parts, u64), LogError> {
    let mut own = remove_others(storage, survey(storage)?, epoch)?;
    let mut cut_bytes = 0;
    // Only the file that was being begun can lack its header; without it the one before is the last.
    if own.len() > 1
        && let Some(unfinished) = own.pop_if(|last| last.header.is_none())
    {
        cut_bytes += open(storage, &unfinished.name)?.size().map_err(io_error("read", &unfinished.name))?;
        remove(storage, &unfinished.name)?;
    }
    let mut segments = VecDeque::new();
    let mut writer = None;
    let mut head: Option<Lsn> = None;
    let count = own.len();
    for (at, found) in own.into_iter().enumerate() {
        let is_last = at + 1 == count;
        let segment = Segment::new(found.name.clone(), found.first, options.segment_bytes_max);
        check(&segment, found, epoch, head)?;
        let file = open(storage, &segment.name)?;
        let size = file.size().map_err(io_error("read", &segment.name))?;
        let last = read_records(&segment, &*file, size)?;
        if is_last && segment.end() < size {
            cut_bytes += size - segment.end();
            file.truncate(segment.end()).map_err(io_error("cut the end of", &segment.name))?;
        } else if segment.end() < size {
            return Err(damaged(&segment, segment.end(), "an unfinished record that is not the last".into()));
        }
        head = Some(last);
        let segment = Arc::new(segment);
        segments.push_back(Arc::clone(&segment));
        if is_last {
            writer = Some(Writer::new(segment, file, last));
        } else {
            segment.seal(last);
        }
    }
    let writer = writer.ok_or_else(|| LogError::Damaged {
        file: ".".into(),
        offset: 0,
        why: format!("no segment of epoch {} is there", epoch.number),
    })?;
    Ok((Parts { segments, writer }, cut_bytes))
}

/// All segments of any epoch with their headers, sorted by epoch and LSN. Refuses those of a later version.
fn survey(storage: &dyn Storage) -> Result<Vec<Found>, LogError> {
    let names = storage.list().map_err(io_error("list the directory of", "."))?;
    let mut all = Vec::new();
    for name in names {
        let Some((number, first)) = segment::parse_name(&name) else {
            continue;
        };
        let file = open(storage, &name)?;
        let size = file.size().map_err(io_error("read", &name))?;
        let header = if size < RECORDS_BEGIN {
            None
        } else {
            let mut bytes = [0; SEGMENT_HEADER_BYTES];
            read_exact_at(&*file, &mut bytes, 0).map_err(io_error("read", &name))?;
            Some(SegmentHeader::parse(&bytes, &name))
        };
        if let Some(Err(e @ LogError::Version { .. })) = header {
            return Err(e);
        }
        all.push(Found { name, number, first, header });
    }
    all.sort_by_key(|found| (found.number, found.first));
    Ok(all)
}

/// Removes what belongs to other epochs, by name or by header; returns the rest.
fn remove_others(storage: &dyn Storage, all: Vec<Found>, epoch: Epoch) -> Result<Vec<Found>, LogError> {
    let is_own = |found: &Found| {
        let contradicts = matches!(&found.header, Some(Ok(header)) if header.epoch != epoch);
        found.number == epoch.number && !contradicts
    };
    let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_own);
    for found in others {
        remove(storage, &found.name)?;
    }
    Ok(own)
}

/// Compares a segment's header with its name, the epoch, and the segment before.
fn check(segment: &Segment, found: Found, epoch: Epoch, head: Option<Lsn>) -> Result<(), LogError> {
    let header = match found.header {
        Some(header) => header?,
        None => return Err(damaged(segment, 0, "the file is too short for its header".into())),
    };
    if (header != SegmentHeader { epoch, first: segment.first }) {
        return Err(damaged(segment, 0, "header and file name contradict each other".into()));
    }
    match head {
        Some(head) if head.next() != segment.first => Err(damaged(
            segment,
            0,
            format!("begins at LSN {}, the one before ends at {head}", segment.first),
        )),
        _ => Ok(()),
    }
}

/// Reads and checks all records up to `size`; `segment` knows them afterwards. Returns the last. What is left
/// between the segment's end and `size` is the beginning of a record.
fn read_records(segment: &Segment, file: &dyn StorageFile, size: u64) -> Result<Lsn, LogError> {
    let mut head = segment.first.prev();
    let mut window = vec![0; usize::try_from(size - RECORDS_BEGIN).unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES)];
    loop {
        let begin = segment.end();
        let left = usize::try_from(size - begin).unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES);
        let bytes = &mut window[..left];
        read_exact_at(file, bytes, begin).map_err(read_error(segment, begin))?;
        let next = head.next();
        let each = |at: usize, header: &RecordHeader| {
            head = header.lsn;
            segment.add(header.lsn, header.time_ns, begin + (at + header.len) as u64);
        };
        let run = take_run(bytes, next, Lsn::new(u64::MAX), each)
            .map_err(|(at, why)| damaged(segment, begin + at as u64, why))?;
        if begin + left as u64 == size {
            check_torn(segment, &bytes[run.bytes..], head.next())?;
            return Ok(head);
        }
    }
}

/// The beginning of a record must be one of the record that had to come next, as far as it can tell.
fn check_torn(segment: &Segment, torn: &[u8], next: Lsn) -> Result<(), LogError> {
    if torn.len() < RECORD_HEADER_BYTES {
        return Ok(());
    }
    match RecordHeader::parse(torn) {
        Ok(header) if header.lsn == next => Ok(()),
        Ok(header) => {
            Err(damaged(segment, segment.end(), format!("LSN {} where {next} has to come", header.lsn)))
        }
        Err(e) => Err(damaged(segment, segment.end(), e.to_string())),
    }
}

fn open(storage: &dyn Storage, name: &str) -> Result<Box<dyn StorageFile>, LogError> {
    storage.open(name).map_err(io_error("open", name))
}

fn remove(storage: &dyn Storage, name: &str) -> Result<(), LogError> {
    storage.remove(name).map_err(io_error("remove", name))
}
