//! What is done to a file or directory that is held open, whether it still has a name or not.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{FallocateFlags, FlockOperation, Gid, Mode, OFlags, SeekFrom, Uid, XattrFlags};
use rustix::io::Errno;

use super::perform::{digest, whole_blocks};
use super::{Names, Region};
use crate::rng::Rng;
use crate::sys::{Mapping, RecordLock, lock_range};

/// O_DIRECT wants memory, offsets and lengths in whole blocks.
const BLOCK: usize = 4096;

/// One operation on what is held.
#[derive(Clone, Debug)]
pub enum HeldOp {
    /// pwrite(2).
    Write(Region),
    /// write(2): at the file's own position, or at its end with `O_APPEND`.
    WriteOn(usize),
    /// pread(2).
    Read(Region),
    /// pwrite(2) and pread(2) of whole blocks, as `O_DIRECT` wants them.
    Blocks(Region),
    /// ftruncate(2).
    Truncate(u64),
    /// fallocate(2) with these flags.
    Allocate(Region, u32),
    /// `copy_file_range(2)` inside the file, to this offset.
    CopyWithin(Region, u64),
    /// fchmod(2).
    Mode(u32),
    /// fchown(2).
    Owner(u32, u32),
    /// futimens(2) with both times now.
    TimesNow,
    /// fsetxattr(2) of `user.held`.
    SetXattr(usize),
    /// fstat(2).
    Stat,
    /// fsync(2) or, when true, fdatasync(2).
    Sync(bool),
    /// lseek(2) to data or, when true, to a hole.
    Seek(u64, bool),
    /// A record lock or, when true, flock(2); exclusive, shared, or none.
    Lock(bool, Option<bool>),
    /// getdents(2) from its start.
    List,
    /// Maps the file shared, for `Store` and `Load`.
    Map,
    /// Stores through the mapping, as far as the file reaches.
    Store(Region),
    /// Loads through the mapping, as far as the file reaches.
    Load(Region),
    /// msync(2).
    Flush,
}

/// What is held, and its mapping.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    mapping: Option<(Mapping, usize)>,
}

/// Draws one that needs nobody else to be still.
pub(super) fn draw(rng: &mut Rng, region: Region, names: &Names) -> HeldOp {
    match rng.below(24) {
        0..6 => HeldOp::Write(region),
        6..10 => HeldOp::WriteOn(1 + rng.index(3_000)),
        10..12 => HeldOp::Read(region),
        12 => HeldOp::Blocks(region),
        13 => HeldOp::Truncate(region.offset),
        14 => HeldOp::Allocate(region, super::generate::allocate_flags(rng, names)),
        15 => HeldOp::CopyWithin(region, rng.below(region.offset + 1)),
        16 => HeldOp::Mode(super::generate::mode(rng)),
        17 => HeldOp::Owner(*rng.pick(&[0, 1000, 65534]), *rng.pick(&[0, 1000, 65534])),
        18 => HeldOp::TimesNow,
        19 => HeldOp::SetXattr(rng.index(300)),
        20 => HeldOp::Stat,
        21 => HeldOp::Sync(rng.one_in(2)),
        22 => HeldOp::Seek(region.offset, rng.one_in(2)),
        _ if rng.one_in(2) => HeldOp::List,
        _ => HeldOp::Lock(rng.one_in(2), *rng.pick(&[Some(true), Some(false), None])),
    }
}

/// Draws one with a mapping: a store beyond the end of a file that somebody truncates meanwhile would be a SIGBUS.
pub(super) fn draw_mapped(rng: &mut Rng, region: Region) -> HeldOp {
    match rng.below(6) {
        0 => HeldOp::Map,
        1..4 => HeldOp::Store(region),
        4 => HeldOp::Load(region),
        _ => HeldOp::Flush,
    }
}

impl Held {
    pub(super) fn new(file: File) -> Self {
        Self { file, mapping: None }
    }

    /// Does it; gives what the caller gets to see.
    pub(super) fn perform(&mut self, op: &HeldOp, rng: &mut Rng) -> std::io::Result<String> {
        let nothing = |()| String::new();
        match op {
            // FUSE takes what most file systems refuse: other lengths, offsets and memory.
            HeldOp::Write(region) | HeldOp::Read(region) if self.is_direct()? => self.blocks(*region, rng),
            HeldOp::WriteOn(len) if self.is_direct()? => self.blocks(Region { offset: 0, len: *len }, rng),
            HeldOp::Map | HeldOp::Store(_) | HeldOp::Load(_) | HeldOp::Flush => self.mapped(op, rng),
            HeldOp::Write(region) => {
                self.file.write_all_at(&rng.bytes(region.len), region.offset).map(nothing)
            }
            HeldOp::WriteOn(len) => self.file.write_all(&rng.bytes(*len)).map(nothing),
            HeldOp::Read(region) => {
                let mut bytes = vec![0; region.len];
                let len = self.file.read_at(&mut bytes, region.offset)?;
                Ok(digest(&bytes[..len]))
            }
            HeldOp::Blocks(region) => self.blocks(*region, rng),
            HeldOp::Truncate(size) => self.file.set_len(*size).map(nothing),
            HeldOp::Allocate(region, flags) => {
                let flags = FallocateFlags::from_bits_retain(*flags);
                let (offset, len) = whole_blocks(*region, flags);
                Ok(rustix::fs::fallocate(&self.file, flags, offset, len).map(nothing)?)
            }
            HeldOp::CopyWithin(region, to) => {
                let (mut from_at, mut to_at) = (region.offset, *to);
                let (file, len) = (&self.file, region.len);
                let len = rustix::fs::copy_file_range(file, Some(&mut from_at), file, Some(&mut to_at), len)?;
                Ok(len.to_string())
            }
            HeldOp::Stat => Ok(super::perform::shown(&self.file.metadata()?)),
            HeldOp::Sync(only_data) if *only_data => self.file.sync_data().map(nothing),
            HeldOp::Sync(_) => self.file.sync_all().map(nothing),
            // In a directory each file system ends it with an errno of its own (tmpfs EINVAL, FUSE ENXIO without asking the
            // daemon: fs/libfs.c, fs/read_write.c): lseek(2) knows data and holes of files alone.
            HeldOp::Seek(..) if self.file.metadata()?.is_dir() => Ok(String::new()),
            HeldOp::Seek(offset, hole) => {
                let to = if *hole { SeekFrom::Hole(*offset) } else { SeekFrom::Data(*offset) };
                Ok(rustix::fs::seek(&self.file, to)?.to_string())
            }
            _ => self.describe(op, rng).map(nothing),
        }
    }

    fn describe(&self, op: &HeldOp, rng: &mut Rng) -> std::io::Result<()> {
        let file = &self.file;
        match op {
            HeldOp::Mode(mode) => Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(*mode))?),
            HeldOp::Owner(uid, gid) => {
                Ok(rustix::fs::fchown(file, Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)))?)
            }
            HeldOp::TimesNow => {
                let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
                let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
                Ok(rustix::fs::futimens(file, &times)?)
            }
            HeldOp::SetXattr(len) => {
                Ok(rustix::fs::fsetxattr(file, "user.held", &rng.bytes(*len), XattrFlags::empty())?)
            }
            HeldOp::Lock(whole, exclusive) if *whole => {
                let operation = match exclusive {
                    Some(true) => FlockOperation::NonBlockingLockExclusive,
                    Some(false) => FlockOperation::NonBlockingLockShared,
                    None => FlockOperation::NonBlockingUnlock,
                };
                Ok(rustix::fs::flock(file, operation)?)
            }
            HeldOp::Lock(_, exclusive) => {
                let kind = if rng.one_in(2) { RecordLock::Process } else { RecordLock::OpenFile };
                lock_range(file, kind, 0..100, *exclusive)
            }
            HeldOp::List => {
                for found in rustix::fs::Dir::read_from(file)? {
                    found?;
                }
                Ok(())
            }
            _ => unreachable!("{op:?} does not describe a file"),
        }
    }

    fn is_direct(&self) -> std::io::Result<bool> {
        Ok(rustix::fs::fcntl_getfl(&self.file)?.contains(OFlags::DIRECT))
    }

    fn blocks(&self, region: Region, rng: &mut Rng) -> std::io::Result<String> {
        let offset = region.offset / BLOCK as u64 * BLOCK as u64;
        let len = region.len.next_multiple_of(BLOCK);
        let mut memory = vec![0; len + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        // The same bytes wherever the memory lies.
        memory[start..start + len].copy_from_slice(&rng.bytes(len));
        self.file.write_all_at(&memory[start..start + len], offset)?;
        let read = self.file.read_at(&mut memory[start..start + len], offset)?;
        Ok(digest(&memory[start..start + read]))
    }

    fn mapped(&mut self, op: &HeldOp, rng: &mut Rng) -> std::io::Result<String> {
        let size = usize::try_from(self.file.metadata()?.size()).map_err(std::io::Error::other)?;
        if matches!(op, HeldOp::Map) {
            if size == 0 {
                return Err(Errno::INVAL.into());
            }
            self.mapping = Some((Mapping::shared(&self.file, size)?, size));
            return Ok(size.to_string());
        }
        let Some((mapping, len)) = &mut self.mapping else { return Ok("no mapping".to_owned()) };
        let reach = size.min(*len);
        let part = |region: &Region| {
            let start = usize::try_from(region.offset).map_or(reach, |start| start.min(reach));
            start..(start + region.len).min(reach)
        };
        match op {
            HeldOp::Store(region) => mapping.store(part(region).start, &rng.bytes(part(region).len())),
            HeldOp::Load(region) => return Ok(digest(&mapping.load(part(region)))),
            _ => mapping.flush()?,
        }
        Ok(String::new())
    }
}
