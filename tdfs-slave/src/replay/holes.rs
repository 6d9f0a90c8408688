//! Holes of the replica's files: finds them, makes them, carries them over.
//!
//! Called by `replay` and `resync`. A file system frees whole blocks only, and its blocks may be larger than the
//! master's: what is less than a block is zeros. Never changes what is as it should be, for that would set an
//! mtime which other names of the file have too.

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::{Errno, Result};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use tdfs_host::object::{self, read_at, write_all_at};
use tdfs_host::step::step;

/// Read or written at once.
const PIECE_BYTES: usize = 128 * 1024;

/// The first run of data that begins before `end`, from `at` on, cut off there. None for holes alone.
pub fn next_data(file: BorrowedFd<'_>, at: u64, end: u64) -> Result<Option<Range<u64>>> {
    if at >= end {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        start => start?,
    };
    if start >= end {
        return Ok(None);
    }
    Ok(Some(start..rustix::fs::seek(file, SeekFrom::Hole(start))?.min(end)))
}

/// Makes a range read as zeros, and a hole of the whole blocks in it. The size stays.
pub fn punch(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
    if is_punched(file, offset, len)? {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match step(|| rustix::fs::fallocate(file, flags, offset, len)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros_where_needed(file, offset, len),
        done => done,
    }
}

/// Copies the data of the first `size` bytes; what is a hole stays one in a file that is new.
pub fn copy_to_new(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: u64) -> Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while let Some(data) = next_data(from, at, size)? {
        at = data.start;
        let piece = usize::try_from(data.end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let read = read_at(from, &mut buffer[..piece], at)?;
        if read == 0 {
            break;
        }
        write_all_at(to, &buffer[..read], at)?;
        at += read as u64;
    }
    step(|| rustix::fs::ftruncate(to, size))
}

/// True if punching would change nothing: the range reads as zeros, and no whole block in it is data.
fn is_punched(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<bool> {
    let end = offset.saturating_add(len);
    if next_data(file, offset, end)?.is_none() {
        return Ok(true);
    }
    let block = u64::try_from(rustix::fs::fstatfs(file)?.f_bsize).unwrap_or(1).max(1);
    let (first, last) = (offset.checked_next_multiple_of(block).unwrap_or(end).min(end), end / block * block);
    Ok(next_data(file, first, last)?.is_none()
        && reads_as_zeros(file, offset, first)?
        && reads_as_zeros(file, last.max(first), end)?)
}

/// Only what is there: a file system that can't punch must not be made to grow a file. What is zeros already
/// is left alone.
fn write_zeros_where_needed(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<()> {
    let end = object::stat(file)?.stx_size.min(offset.saturating_add(len));
    if reads_as_zeros(file, offset, end)? {
        return Ok(());
    }
    let zeros = vec![0; PIECE_BYTES];
    let mut done = offset;
    while done < end {
        let piece = usize::try_from(end - done).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        write_all_at(file, &zeros[..piece], done)?;
        done += piece as u64;
    }
    Ok(())
}

/// True if a range, given by both its ends, reads as zeros or is beyond the end of the file.
pub fn reads_as_zeros(file: BorrowedFd<'_>, offset: u64, end: u64) -> Result<bool> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = offset;
    while let Some(data) = next_data(file, at, end)? {
        at = data.start;
        let piece = usize::try_from(data.end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let read = read_at(file, &mut buffer[..piece], at)?;
        if buffer[..read].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
