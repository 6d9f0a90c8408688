//! Redoes changes of content: write, truncate, allocate, copy.
//!
//! Called by `replay::apply`. What the replica's file system can't do in one call (fallocate modes,
//! copy_file_range) is done by writing, in pieces, with the same outcome. What is a hole is one afterwards.

use super::failure::{Failure, Step, at};
use super::holes::{next_data, punch};
use super::{InHand, Target};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, Result as SysResult};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tdfs_host::object::{self, read_at, write_all_at};
use tdfs_host::step::{at_once, step};
use tdfs_wire::TreePath;
use tdfs_wire::op::DataOp;

/// Content is moved in pieces of this many bytes where the kernel does not move it.
const PIECE_BYTES: usize = 1 << 20;
/// Most bytes that one copy_file_range(2) is asked for, so that a signal is never waited for long.
const COPY_BYTES_MAX: u64 = 8 << 20;
/// statfs(2) types of file systems that collapse and insert ranges in one uninterruptible step.
const SHIFTS_AT_ONCE: [u64; 3] = [0xef53, 0x5846_5342, 0xf2f5_2010];

impl InHand<'_> {
    /// Does a change of content.
    pub(super) fn data(&mut self, op: &DataOp, bulk: &[u8]) -> Result<(), Failure> {
        match op {
            DataOp::Write { path, offset, mtime } => {
                let file = self.file(path)?;
                write_all_at(file.as_fd(), bulk, *offset).map_err(at(Step::Content, "write to", path))?;
                object::set_mtime(file.as_fd(), *mtime).map_err(at(Step::Times, "set mtime of", path))
            }
            DataOp::Truncate { path, size, mtime } => {
                let file = self.file(path)?;
                step(|| rustix::fs::ftruncate(&file, *size)).map_err(at(Step::Content, "truncate", path))?;
                object::set_mtime(file.as_fd(), *mtime).map_err(at(Step::Times, "set mtime of", path))
            }
            DataOp::Allocate { path, mode, offset, len, size, mtime } => {
                let file = self.file(path)?;
                let range = Range { mode: *mode, offset: *offset, len: *len, size: *size };
                self.allocate(file.as_fd(), path, &range)?;
                object::set_mtime(file.as_fd(), *mtime).map_err(at(Step::Times, "set mtime of", path))
            }
            DataOp::Copy { from, from_offset, to, to_offset, len, .. }
                if from == to && from_offset.abs_diff(*to_offset) < *len =>
            {
                // No kernel copies so; done twice, it would do harm.
                Err(Failure::diverged("copy within", to, Errno::INVAL))
            }
            DataOp::Copy { from, from_offset, to, to_offset, len, mtime } => {
                let source = self.target.file_to_read(from).map_err(at(Step::Content, "open", from))?;
                self.belongs_to(self.owners.read, source.as_fd(), from)?;
                let file = self.file(to)?;
                let copied = copy((source.as_fd(), *from_offset), (file.as_fd(), *to_offset), *len)
                    .map_err(at(Step::Content, "copy to", to))?;
                if copied < *len {
                    return Err(Failure::diverged("copy from", from, Errno::NODATA));
                }
                object::set_mtime(file.as_fd(), *mtime).map_err(at(Step::Times, "set mtime of", to))
            }
        }
    }

    /// The file whose content is to be changed.
    fn file(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>, Failure> {
        let file = self.target.file(path).map_err(at(Step::Content, "open", path))?;
        self.recognise(file.as_fd(), path)?;
        Ok(file)
    }

    fn allocate(&mut self, file: BorrowedFd<'_>, path: &TreePath, range: &Range) -> Result<(), Failure> {
        let failed = at(Step::Content, "allocate in", path);
        let shifts = shifts(range.mode);
        if shifts && self.shifted_before(file, path, range)? {
            return Ok(());
        }
        let flags = FallocateFlags::from_bits_retain(range.mode);
        match step(|| rustix::fs::fallocate(file, flags, range.offset, range.len)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => range.write_instead(file).map_err(&failed)?,
            Err(Errno::INVAL) if shifts => range.write_instead(file).map_err(&failed)?,
            done => done.map_err(&failed)?,
        }
        if size_of(file).map_err(&failed)? == range.size {
            return Ok(());
        }
        Err(Failure::diverged("allocate in", path, Errno::INVAL))
    }

    /// In a redo: true if the range was collapsed or inserted. Done twice, a shift does harm: its redo asks the
    /// size, where it can't have been done by half.
    fn shifted_before(
        &mut self,
        file: BorrowedFd<'_>,
        path: &TreePath,
        range: &Range,
    ) -> Result<bool, Failure> {
        let failed = at(Step::Content, "allocate in", path);
        let before = self.foreseen()[0];
        if before != range.size_before() {
            return Err(Failure::diverged("shift what follows in", path, Errno::INVAL));
        }
        if !self.is_redo() {
            return Ok(false);
        }
        match size_of(file).map_err(&failed)? {
            _ if !range.is_shifted_at_once(file).map_err(&failed)? => {
                Err(Failure::diverged("redo the shift in", path, Errno::EXIST))
            }
            size if size == range.size => Ok(true),
            size if size == before => Ok(false),
            _ => Err(Failure::diverged("redo the shift in", path, Errno::INVAL)),
        }
    }
}

/// True if fallocate(2) with `mode` moves what lies behind the range.
fn shifts(mode: u32) -> bool {
    mode & (FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE).bits() != 0
}

/// The size in bytes of the file that `op` shifts; 0 if it is no shift, or nothing that could be shifted is there.
///
/// # Errors
/// A stall.
pub(super) fn size_before_shift(target: &mut Target, op: &DataOp) -> Result<u64, Failure> {
    let DataOp::Allocate { path, mode, .. } = op else { return Ok(0) };
    if !shifts(*mode) {
        return Ok(0);
    }
    let looked = target.object(path).and_then(|object| size_of(object.as_fd()));
    match looked.map_err(at(Step::Content, "stat", path)) {
        Err(Failure::Divergence(_)) => Ok(0),
        looked => looked,
    }
}

/// What fallocate(2) was asked for, and the size that it left.
struct Range {
    mode: u32,
    offset: u64,
    len: u64,
    size: u64,
}

impl Range {
    fn has(&self, flag: FallocateFlags) -> bool {
        self.mode & flag.bits() != 0
    }

    /// The size in bytes that the file had before it was shifted.
    fn size_before(&self) -> u64 {
        if self.has(FallocateFlags::COLLAPSE_RANGE) {
            self.size.saturating_add(self.len)
        } else {
            self.size.saturating_sub(self.len)
        }
    }

    /// True if a kill can't have left a collapse or insert of this range half done.
    fn is_shifted_at_once(&self, file: BorrowedFd<'_>) -> SysResult<bool> {
        let fs = rustix::fs::fstatfs(file)?;
        let block = u64::try_from(fs.f_bsize).unwrap_or(1).max(1);
        let known = SHIFTS_AT_ONCE.iter().any(|&kind| u64::try_from(fs.f_type) == Ok(kind));
        Ok(known && self.offset.is_multiple_of(block) && self.len.is_multiple_of(block))
    }

    /// Does by writing what the file system can't do.
    fn write_instead(&self, file: BorrowedFd<'_>) -> SysResult<()> {
        let before = size_of(file)?;
        let end = self.offset.saturating_add(self.len);
        if self.has(FallocateFlags::COLLAPSE_RANGE) {
            move_down(file, end, self.offset, before.saturating_sub(end))?;
            return step(|| rustix::fs::ftruncate(file, self.size));
        }
        if self.has(FallocateFlags::INSERT_RANGE) {
            step(|| rustix::fs::ftruncate(file, self.size))?;
            move_up(file, self.offset, end, before.saturating_sub(self.offset))?;
            return punch(file, self.offset, self.len);
        }
        if self.has(FallocateFlags::PUNCH_HOLE) || self.has(FallocateFlags::ZERO_RANGE) {
            // A range that was zeroed is a hole to whoever asks, though its blocks are reserved.
            punch(file, self.offset, self.len)?;
        }
        // Blocks can't be reserved here; the size can be given.
        grow(file, self.size)
    }
}

fn size_of(file: BorrowedFd<'_>) -> SysResult<u64> {
    Ok(object::stat(file)?.stx_size)
}

/// Calls `act` with the start and the length of each piece of `len` bytes.
fn in_pieces(len: u64, mut act: impl FnMut(u64, usize) -> SysResult<()>) -> SysResult<()> {
    let mut done = 0;
    while done < len {
        let piece = usize::try_from(len - done).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        act(done, piece)?;
        done += piece as u64;
    }
    Ok(())
}

/// Moves `len` bytes to a lower offset of the same file, the first piece first.
fn move_down(file: BorrowedFd<'_>, from: u64, to: u64, len: u64) -> SysResult<()> {
    in_pieces(len, |done, piece| move_piece((file, from + done), (file, to + done), piece))
}

/// Moves `len` bytes to a higher offset of the same file, the last piece first.
fn move_up(file: BorrowedFd<'_>, from: u64, to: u64, len: u64) -> SysResult<()> {
    in_pieces(len, |done, piece| {
        let start = len - done - piece as u64;
        move_piece((file, from + start), (file, to + start), piece)
    })
}

type Place<'a> = (BorrowedFd<'a>, u64);

/// Writes what is at one place to another one, data as data and holes as holes. All is read before any is written.
fn move_piece((from, from_offset): Place<'_>, (to, to_offset): Place<'_>, len: usize) -> SysResult<()> {
    let mut content = Vec::new();
    let (mut at, end) = (from_offset, from_offset + len as u64);
    while let Some(data) = next_data(from, at, end)? {
        let mut bytes = vec![0; usize::try_from(data.end - data.start).unwrap_or(len)];
        let read = read_at(from, &mut bytes, data.start)?;
        bytes.truncate(read);
        content.push((data.start - from_offset, bytes));
        at = data.end;
    }
    let mut done = 0;
    for (start, bytes) in content {
        punch(to, to_offset + done, start - done)?;
        write_all_at(to, &bytes, to_offset + start)?;
        done = start + bytes.len() as u64;
    }
    punch(to, to_offset + done, len as u64 - done)
}

/// Copies `len` bytes, holes as holes; returns fewer where the source ends. The kernel's copy_file_range writes zeros
/// for a hole wherever it does not share blocks.
fn copy((from, from_offset): Place<'_>, (to, to_offset): Place<'_>, len: u64) -> SysResult<u64> {
    let len = len.min(size_of(from)?.saturating_sub(from_offset));
    let (mut done, end) = (0, from_offset + len);
    while done < len {
        let data = next_data(from, from_offset + done, end)?.unwrap_or(end..end);
        let hole = data.start - from_offset - done;
        if hole > 0 {
            punch(to, to_offset + done, hole)?;
            done += hole;
            grow(to, to_offset + done)?;
        }
        let (source, sink) = ((from, data.start), (to, to_offset + done));
        let copied = copy_data(source, sink, data.end - data.start)?;
        done += copied;
        if copied < data.end - data.start {
            break;
        }
    }
    Ok(done)
}

/// Makes the file no smaller than this.
fn grow(file: BorrowedFd<'_>, size: u64) -> SysResult<()> {
    if size_of(file)? < size { step(|| rustix::fs::ftruncate(file, size)) } else { Ok(()) }
}

/// Copies `len` bytes, among which there is no hole.
fn copy_data((from, from_offset): Place<'_>, (to, to_offset): Place<'_>, len: u64) -> SysResult<u64> {
    let mut done = 0;
    while done < len {
        let (mut source, mut sink) = (from_offset + done, to_offset + done);
        let piece = usize::try_from((len - done).min(COPY_BYTES_MAX)).unwrap_or(PIECE_BYTES);
        let piece = at_once(piece);
        match step(|| rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut sink), piece)) {
            Ok(0) => break,
            Ok(copied) => done += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                return Ok(
                    done + copy_by_writing((from, from_offset + done), (to, to_offset + done), len - done)?
                );
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

fn copy_by_writing((from, from_offset): Place<'_>, (to, to_offset): Place<'_>, len: u64) -> SysResult<u64> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut copied = 0;
    while copied < len {
        let piece = usize::try_from(len - copied).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let read = read_at(from, &mut buffer[..piece], from_offset + copied)?;
        if read == 0 {
            break;
        }
        write_all_at(to, &buffer[..read], to_offset + copied)?;
        copied += read as u64;
    }
    Ok(copied)
}

#[cfg(test)]
mod tests;
