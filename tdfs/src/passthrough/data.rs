//! Content: read, write, truncate, allocate, copy, fsync, lseek.
//!
//! No file is "open" here: the kernel keeps that to itself (it was answered ENOSYS to OPEN), and an
//! operation takes a backing fd from the cache. Opens drop O_SYNC, O_DSYNC and O_APPEND: a synchronous
//! write is write, unlock, fdatasync, reply; the offset of an append comes from the kernel.

use super::Passthrough;
use super::cache::DataFd;
use crate::commit::{Change, Intent, Outcome, crash_point};
use rustix::fs::{FallocateFlags, SeekFrom, Statx};
use rustix::io::{Errno, Result};
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use tdfs_host::object;
use tdfs_wire::op::{COPY_BYTES_MAX, DataOp, Op};
use tdfs_wire::record::BULK_BYTES_MAX;
use tdfs_wire::{Time, TreePath};

/// Most bytes of one write: what one record carries.
pub const WRITE_BYTES_MAX: usize = BULK_BYTES_MAX;

/// Where an allocation is made, as fallocate(2) has it.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub len: u64,
}

impl Passthrough {
    /// Reads at most `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    pub fn read(&self, nodeid: u64, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.file_shared(nodeid, false)?;
        object::read_at(file.as_fd(), buffer, offset)
    }

    /// Writes `data` at `offset`, at most [`WRITE_BYTES_MAX`].
    ///
    /// # Errors
    /// Those of pwrite(2) if nothing was written; else a short count.
    pub fn write(&self, nodeid: u64, offset: u64, data: &[u8]) -> Result<usize> {
        let tree = self.commit.order().shared();
        let turn = tree.turn(&[], &[nodeid]);
        let file = self.file(nodeid, true)?;
        let data = &data[..data.len().min(WRITE_BYTES_MAX)];
        let path = self.nodes.path(nodeid)?;
        fail_point(path.as_ref());
        let len = data.len() as u64;
        let intent =
            Intent::of(path.as_ref(), nodeid, |path| Intent::Content { path, ino: nodeid, offset, len });
        self.commit.change(&turn, &intent, data.len(), || {
            let count = match object::write_at(file.as_fd(), data, offset) {
                (0, Err(e)) => return self.content_failed(nodeid, file.as_fd(), path, e),
                (count, _) => count,
            };
            self.recorded(nodeid, file.as_fd(), path, Ok(count), |path, stat| {
                let op = DataOp::Write { path, offset, mtime: object::mtime(stat) };
                Change::with_bulk(Op::Data(op), Cow::Borrowed(&data[..count]))
            })
        })
    }

    /// Sets the size of a file.
    pub fn truncate(&self, nodeid: u64, size: u64) -> Result<()> {
        let tree = self.commit.order().shared();
        let turn = tree.turn(&[], &[nodeid]);
        let file = self.file(nodeid, true)?;
        let path = self.nodes.path(nodeid)?;
        let intent = Intent::of(path.as_ref(), nodeid, |path| Intent::Truncate { path, ino: nodeid });
        self.commit.change(&turn, &intent, 0, || {
            if let Err(e) = rustix::fs::ftruncate(&file.fd, size) {
                return (Err(e), None);
            }
            self.recorded(nodeid, file.as_fd(), path, Ok(()), truncated)
        })
    }

    /// fallocate(2). One that fails but left the file longer is undone.
    pub fn allocate(&self, nodeid: u64, range: Range, mode: u32) -> Result<()> {
        let flags = FallocateFlags::from_bits(mode).ok_or(Errno::OPNOTSUPP)?;
        let tree = self.commit.order().shared();
        let turn = tree.turn(&[], &[nodeid]);
        let file = self.file(nodeid, true)?;
        let path = self.nodes.path(nodeid)?;
        let before = object::stat(file.as_fd())?;
        let Range { offset, len } = range;
        let intent = Intent::of(path.as_ref(), nodeid, |path| Intent::Allocate {
            path,
            ino: nodeid,
            mode,
            offset,
            len,
            size: before.stx_size,
        });
        self.commit.change(&turn, &intent, 0, || match rustix::fs::fallocate(&file.fd, flags, offset, len) {
            Ok(()) => self.recorded(nodeid, file.as_fd(), path, Ok(()), |path, stat| {
                let (size, mtime) = (stat.stx_size, object::mtime(stat));
                Change::of(Op::Data(DataOp::Allocate { path, mode, offset, len, size, mtime }))
            }),
            Err(e) => self.allocation_failed(nodeid, (file.as_fd(), path), flags, &before, e),
        })
    }

    /// fallocate(2) may have grown the file before it ran out of space: what it left is undone as far as
    /// truncate can, and recorded where it can't (an mtime, a hole that was punched half, a range that was zeroed).
    fn allocation_failed(
        &self,
        nodeid: u64,
        (file, path): (BorrowedFd<'_>, Option<TreePath>),
        flags: FallocateFlags,
        before: &Statx,
        errno: Errno,
    ) -> Outcome<'static, ()> {
        let Ok(after) = object::stat(file) else { return (Err(errno), None) };
        crash_point("allocation failed");
        let has_grown = after.stx_size > before.stx_size;
        if has_grown && FallocateFlags::KEEP_SIZE.contains(flags) {
            if let Err(e) = rustix::fs::ftruncate(file, before.stx_size) {
                tracing::warn!("undo a fallocate that failed: {e}; its outcome is recorded");
            }
        } else if !has_grown
            && object::mtime(&after) == object::mtime(before)
            && after.stx_blocks == before.stx_blocks
        {
            return (Err(errno), None);
        } else if let Some(path) = path {
            return (Err(errno), Some(Change::of(Op::Check { paths: vec![path] })));
        }
        self.recorded(nodeid, file, path, Err(errno), truncated)
    }

    /// Copies a range between two files of the tree; returns how many bytes were copied.
    pub fn copy(&self, from: u64, from_offset: u64, to: u64, to_offset: u64, len: u64) -> Result<u64> {
        let tree = self.commit.order().shared();
        let turn = tree.turn(&[], &[from, to]);
        let source = self.file(from, false)?;
        let file = self.file(to, true)?;
        let (from_path, path) = (self.nodes.path(from)?, self.nodes.path(to)?);
        // From a file that no record can name, or that holds what no record tells of, the copied bytes themselves are recorded.
        let from_path = from_path.filter(|_| !self.may_be_stored_into(from));
        let len_max = if from_path.is_some() { COPY_BYTES_MAX } else { WRITE_BYTES_MAX as u64 };
        let len = usize::try_from(len.min(len_max)).unwrap_or(WRITE_BYTES_MAX);
        let bulk_bytes = if from_path.is_some() { 0 } else { len };
        let intent = Intent::of(path.as_ref(), to, |path| Intent::Content {
            path,
            ino: to,
            offset: to_offset,
            len: len as u64,
        });
        let from_bytes = from_path.as_ref().map_or(0, |from| from.as_bytes().len());
        self.commit.change(&turn, &intent, from_bytes + bulk_bytes, || {
            let (mut in_offset, mut out_offset) = (from_offset, to_offset);
            let copied = rustix::fs::copy_file_range(
                &source.fd,
                Some(&mut in_offset),
                &file.fd,
                Some(&mut out_offset),
                len,
            );
            let count = match copied {
                Ok(0) => return (Ok(0), None),
                Ok(count) => count,
                Err(e) => return self.content_failed(to, file.as_fd(), path, e),
            };
            self.recorded(to, file.as_fd(), path, Ok(count as u64), |path, stat| {
                let mtime = object::mtime(stat);
                let change =
                    copy_change(from_path, from_offset, path, to_offset, mtime, (file.as_fd(), count));
                match object::stat(source.as_fd()) {
                    Ok(source) => change.from_file(&source),
                    Err(_) => change,
                }
            })
        })
    }

    /// A write or a copy that finds no space at all has given the file a new mtime all the same.
    fn content_failed<T>(
        &self,
        nodeid: u64,
        file: BorrowedFd<'_>,
        path: Option<TreePath>,
        errno: Errno,
    ) -> Outcome<'static, T> {
        match errno {
            Errno::NOSPC | Errno::DQUOT => self.recorded(nodeid, file, path, Err(errno), truncated),
            _ => (Err(errno), None),
        }
    }

    /// Writes an object's data, and its attributes too unless `data_only`, to the disk. No order lock is
    /// held meanwhile.
    pub fn fsync(&self, nodeid: u64, data_only: bool) -> Result<()> {
        let file = self.file_shared(nodeid, false)?;
        if data_only { rustix::fs::fdatasync(&file.fd) } else { rustix::fs::fsync(&file.fd) }
    }

    /// Writes a directory to the disk.
    pub fn fsync_dir(&self, nodeid: u64) -> Result<()> {
        let open = {
            let tree = self.commit.order().shared();
            let dir = self.dir(&tree, nodeid)?;
            object::reopen(dir.as_fd(), rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY)?
        };
        rustix::fs::fsync(open)
    }

    /// Finds the next data or hole from `offset` on.
    pub fn seek(&self, nodeid: u64, offset: u64, whence: i32) -> Result<u64> {
        let file = self.file_shared(nodeid, false)?;
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        // The position of the shared fd is used by nobody else: reads and writes state their offsets.
        rustix::fs::seek(&file.fd, to)
    }

    /// The file, open, for the kernel to read itself.
    pub fn open_to_read(&self, nodeid: u64) -> Result<Arc<DataFd>> {
        self.file_shared(nodeid, false)
    }

    /// [`Passthrough::file`] for those who do not hold the tree lock.
    pub(super) fn file_shared(&self, nodeid: u64, writable: bool) -> Result<Arc<DataFd>> {
        if let Some(file) = self.files.get(nodeid)
            && (file.writable || !writable)
        {
            return Ok(file);
        }
        let tree = self.commit.order().shared();
        self.steady(&tree, nodeid, || self.file(nodeid, writable))
    }

    /// The outcome of a change of content: recorded under the file's path, or not at all if the file is in
    /// no directory any more.
    fn recorded<'a, T>(
        &self,
        nodeid: u64,
        file: BorrowedFd<'_>,
        path: Option<TreePath>,
        value: Result<T>,
        change: impl FnOnce(TreePath, &Statx) -> Change<'a>,
    ) -> Outcome<'a, T> {
        let stat = match object::stat(file) {
            Ok(stat) => stat,
            Err(e) => {
                tracing::error!("stat of an open file of the backing tree: {e}");
                let check = path.map(|path| Change::of(Op::Check { paths: vec![path] }));
                return (value, check);
            }
        };
        match path {
            // A change of content leaves the owner as it was.
            Some(path) => (value, Some(change(path, &stat).of_object(&stat))),
            None => {
                self.note_if_lost(nodeid, file, &stat);
                (value, None)
            }
        }
    }
}

fn truncated(path: TreePath, stat: &Statx) -> Change<'static> {
    Change::of(Op::Data(DataOp::Truncate { path, size: stat.stx_size, mtime: object::mtime(stat) }))
}

fn copy_change<'a>(
    from: Option<TreePath>,
    from_offset: u64,
    to: TreePath,
    to_offset: u64,
    mtime: Time,
    (file, count): (BorrowedFd<'_>, usize),
) -> Change<'a> {
    if let Some(from) = from {
        let len = count as u64;
        return Change::of(Op::Data(DataOp::Copy { from, from_offset, to, to_offset, len, mtime }));
    }
    let mut bulk = vec![0; count];
    match object::read_at(file, &mut bulk, to_offset) {
        Ok(read) if read == count => {
            let op = DataOp::Write { path: to, offset: to_offset, mtime };
            Change::with_bulk(Op::Data(op), Cow::Owned(bulk))
        }
        read => {
            tracing::error!("read back what was copied: {read:?} of {count} bytes");
            Change::of(Op::Check { paths: vec![to] })
        }
    }
}

/// For tests: holds the write of a file whose name says so, while its order lock is held.
fn fail_point(path: Option<&TreePath>) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(
        "write-held",
        path.is_some_and(|path| path.as_bytes().ends_with(b"held-by-test")),
        |_| ()
    );
    let _ = path;
}
