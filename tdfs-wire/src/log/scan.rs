//! Finds records in the bytes of a segment and says whether they are the ones that have to come.
//!
//! Called by `cursor`, `recovery` and for look-ups. Decodes no op.

use super::LogError;
use super::segment::{POINT_BYTES, RECORDS_BEGIN, Segment};
use super::storage::{StorageFile, read_exact_at};
use crate::Lsn;
use crate::record::{RECORD_HEADER_BYTES, RecordError, RecordHeader};
use std::io;

/// Whole records at the start of some bytes.
#[derive(Debug)]
pub(super) struct Run {
    /// How many bytes they have in all.
    pub(super) bytes: usize,
    /// How many they are.
    pub(super) count: u32,
}

/// Takes whole records, `next` being the first that has to come and `up_to` the last that is wanted, as
/// long as they lie in `bytes`. Each is checked and shown to `each` with its offset.
///
/// # Errors
/// The offset of the first that is damaged or is not the next, and why.
pub(super) fn take_run(
    bytes: &[u8],
    mut next: Lsn,
    up_to: Lsn,
    mut each: impl FnMut(usize, &RecordHeader),
) -> Result<Run, (usize, String)> {
    let mut run = Run { bytes: 0, count: 0 };
    while next <= up_to && run.count < u32::MAX {
        let at = run.bytes;
        match RecordHeader::parse_whole(&bytes[at..]) {
            Ok((header, _)) if header.lsn == next => {
                each(at, &header);
                run.bytes += header.len;
                run.count += 1;
                next = next.next();
            }
            Ok((header, _)) => return Err((at, format!("LSN {} where {next} has to come", header.lsn))),
            Err(RecordError::Incomplete) => break,
            Err(RecordError::Corrupt(why)) => return Err((at, why)),
        }
    }
    Ok(run)
}

/// Where the record `lsn` of `segment` begins; one past the last record gives the end of that.
/// All records before `lsn` must be written. Reads less than 64 KiB.
pub(super) fn locate(segment: &Segment, file: &dyn StorageFile, lsn: Lsn) -> Result<u64, LogError> {
    let Some(point) = segment.point(lsn).filter(|_| lsn != segment.first) else {
        return Ok(RECORDS_BEGIN);
    };
    let mut offset = point.offset;
    if point.lsn == lsn {
        return Ok(offset);
    }
    let window = (segment.end() - offset).min(POINT_BYTES + RECORD_HEADER_BYTES as u64);
    let mut bytes = vec![0; usize::try_from(window).unwrap_or(0)];
    read_exact_at(file, &mut bytes, offset).map_err(read_error(segment, offset))?;
    let mut next = point.lsn;
    while next < lsn {
        let header = usize::try_from(offset - point.offset).ok().and_then(|at| bytes.get(at..));
        let header = RecordHeader::parse(header.unwrap_or_default());
        match header {
            Ok(header) if header.lsn == next => offset += header.len as u64,
            Ok(header) => return Err(damaged(segment, offset, format!("LSN {}, not {next}", header.lsn))),
            Err(e) => return Err(damaged(segment, offset, e.to_string())),
        }
        next = next.next();
    }
    if offset > segment.end() {
        return Err(damaged(segment, offset, format!("LSN {lsn} would begin behind what was written")));
    }
    Ok(offset)
}

/// The header of the record that begins at `offset`.
pub(super) fn header_at(
    segment: &Segment,
    file: &dyn StorageFile,
    offset: u64,
) -> Result<RecordHeader, LogError> {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    read_exact_at(file, &mut bytes, offset).map_err(read_error(segment, offset))?;
    RecordHeader::parse(&bytes).map_err(|e| damaged(segment, offset, e.to_string()))
}

/// That something is wrong in a segment.
pub(super) fn damaged(segment: &Segment, offset: u64, why: String) -> LogError {
    LogError::Damaged { file: segment.name.clone(), offset, why }
}

/// For `map_err` of a read: an end where bytes have been written is damage.
pub(super) fn read_error(segment: &Segment, offset: u64) -> impl FnOnce(io::Error) -> LogError {
    move |e| match e.kind() {
        io::ErrorKind::UnexpectedEof => damaged(segment, offset, "the file ends too early".into()),
        _ => super::error::io_error("read", &segment.name)(e),
    }
}
