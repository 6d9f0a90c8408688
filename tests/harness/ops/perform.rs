//! Does one operation, and tells an outcome that any busy tree may have from one that is a bug.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::{Op, Region, Rename, Special};
use crate::rng::Rng;
use crate::sys::Mapping;

/// What threads that meet on few names may well be told. Anything else is a bug.
const ALLOWED: [Errno; 13] = [
    Errno::NOENT,
    Errno::EXIST,
    Errno::NOTDIR,
    Errno::ISDIR,
    Errno::NOTEMPTY,
    Errno::INVAL,
    Errno::LOOP,
    Errno::NXIO,
    Errno::NODATA,
    Errno::NOTSUP,
    Errno::PERM,
    Errno::BUSY,
    Errno::NODEV,
];
/// What everybody is told whose mount has lost its daemon.
const GONE: [Errno; 4] = [Errno::NOTCONN, Errno::CONNABORTED, Errno::IO, Errno::INTR];
/// Files that one performer holds open.
const HELD_MAX: usize = 6;

/// Does operations below one root, for one thread.
#[derive(Debug)]
pub struct Performer {
    root: PathBuf,
    held: Vec<File>,
}

impl Performer {
    /// For the tree below `root`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), held: Vec::new() }
    }

    /// True when the operation succeeded, false when it failed as it may; an error when it must not.
    pub fn perform(&mut self, op: &Op, rng: &mut Rng) -> Result<bool> {
        let outcome = self.attempt(op, rng);
        let error = match outcome {
            Ok(()) => return Ok(true),
            Err(error) => error,
        };
        let errno = Errno::from_io_error(&error);
        // ext4 says so when the xattrs of one file need more than a block.
        let full = matches!(op, Op::SetXattr(..)) && errno == Some(Errno::NOSPC);
        let allowed = full || errno.is_some_and(|errno| ALLOWED.contains(&errno));
        if !allowed {
            return Err(anyhow::Error::new(error).context(format!("{op:?} must not end so")));
        }
        Ok(false)
    }

    fn attempt(&mut self, op: &Op, rng: &mut Rng) -> std::io::Result<()> {
        match op {
            Op::Hold(path) => {
                let file = self.open(path)?;
                if self.held.len() == HELD_MAX {
                    self.held.remove(0);
                }
                self.held.push(file);
                Ok(())
            }
            Op::WriteHeld(region) => match self.held.len() {
                0 => Ok(()),
                count => self.held[rng.index(count)].write_all_at(&rng.bytes(region.len), region.offset),
            },
            Op::Release => {
                self.held.pop();
                Ok(())
            }
            Op::List(path) => self.list(path),
            Op::Read(path) => self.open(path)?.read_at(&mut [0; 65_536], 0).map(drop),
            Op::Write(..) | Op::Append(..) | Op::Empty(_) | Op::Truncate(..) => self.write(op, rng),
            Op::Allocate(..) | Op::Copy(..) | Op::StoreMapped(..) => self.shape(op, rng),
            Op::Mode(..) | Op::Owner(..) | Op::Times(..) | Op::SetXattr(..) | Op::RemoveXattr(..) => {
                self.describe(op, rng)
            }
            _ => self.name(op),
        }
    }

    /// Opens a regular file for reading and writing; a FIFO or a device is passed over.
    fn open(&self, path: &Path) -> std::io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        regular(options.open(self.root.join(path))?)
    }

    fn list(&self, path: &Path) -> std::io::Result<()> {
        for found in std::fs::read_dir(self.root.join(path))? {
            // Gone meanwhile is no failure of the listing.
            let _ = found?.metadata();
        }
        Ok(())
    }

    fn write(&self, op: &Op, rng: &mut Rng) -> std::io::Result<()> {
        match op {
            Op::Write(path, region) => {
                let mut options = File::options();
                options.write(true).custom_flags(libc::O_NONBLOCK).create(rng.one_in(2));
                let file = regular(options.open(self.root.join(path))?)?;
                file.write_all_at(&rng.bytes(region.len), region.offset)
            }
            Op::Append(path, len) => {
                let mut options = File::options();
                options.append(true).custom_flags(libc::O_NONBLOCK).create(rng.one_in(2));
                regular(options.open(self.root.join(path))?)?.write_all(&rng.bytes(*len))
            }
            Op::Empty(path) => {
                let mut options = File::options();
                options.write(true).truncate(true).custom_flags(libc::O_NONBLOCK);
                regular(options.open(self.root.join(path))?).map(drop)
            }
            Op::Truncate(path, size) => self.open(path)?.set_len(*size),
            _ => unreachable!("{op:?} is none of the writes"),
        }
    }

    fn shape(&self, op: &Op, rng: &mut Rng) -> std::io::Result<()> {
        match op {
            Op::Allocate(path, region, flags) => {
                let flags = FallocateFlags::from_bits_retain(*flags);
                let whole = flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE);
                let Region { mut offset, len } = *region;
                let mut len = len as u64;
                if whole {
                    (offset, len) = (offset / 4096 * 4096, len.next_multiple_of(4096));
                }
                Ok(rustix::fs::fallocate(self.open(path)?, flags, offset, len)?)
            }
            Op::Copy(from, to, region, to_offset) => {
                let (from, to) = (self.open(from)?, self.open(to)?);
                let (mut from_at, mut to_at) = (region.offset, *to_offset);
                rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), region.len)?;
                Ok(())
            }
            Op::StoreMapped(path, region) => {
                let offset = usize::try_from(region.offset).expect("fit an offset into usize");
                let mut options = File::options();
                options.read(true).write(true).create(true).truncate(false);
                let file = options.open(self.root.join(path))?;
                if file.metadata()?.len() < (offset + region.len) as u64 {
                    file.set_len((offset + region.len) as u64)?;
                }
                let mut mapping = Mapping::shared(&file, offset + region.len)?;
                mapping.store(offset, &rng.bytes(region.len));
                if rng.one_in(2) { mapping.flush() } else { Ok(()) }
            }
            _ => unreachable!("{op:?} does not shape a file"),
        }
    }

    fn name(&self, op: &Op) -> std::io::Result<()> {
        let at = |path: &Path| self.root.join(path);
        match op {
            Op::Create(path) => {
                let mut options = File::options();
                options.write(true).create(true).truncate(false).custom_flags(libc::O_NONBLOCK);
                options.open(at(path)).map(drop)
            }
            Op::Mkdir(path, mode) => Ok(rustix::fs::mkdir(at(path), Mode::from_raw_mode(*mode))?),
            Op::Rmdir(path) => std::fs::remove_dir(at(path)),
            Op::Unlink(path) => std::fs::remove_file(at(path)),
            Op::Link(from, to) => std::fs::hard_link(at(from), at(to)),
            Op::Symlink(target, path) => symlink(target, at(path)),
            Op::Mknod(path, special) => {
                let (kind, device) = match special {
                    Special::Fifo => (FileType::Fifo, 0),
                    Special::Socket => (FileType::Socket, 0),
                    Special::Device => (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
                };
                Ok(rustix::fs::mknodat(CWD, at(path), kind, Mode::from_raw_mode(0o640), device)?)
            }
            Op::Rename(from, to, flags) => {
                let flags = match flags {
                    Rename::Plain => RenameFlags::empty(),
                    Rename::NoReplace => RenameFlags::NOREPLACE,
                    Rename::Exchange => RenameFlags::EXCHANGE,
                };
                Ok(rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags)?)
            }
            _ => unreachable!("{op:?} is not in the namespace family"),
        }
    }

    fn describe(&self, op: &Op, rng: &mut Rng) -> std::io::Result<()> {
        let at = |path: &Path| self.root.join(path);
        match op {
            Op::Mode(path, mode) => {
                Ok(rustix::fs::chmodat(CWD, at(path), Mode::from_raw_mode(*mode), AtFlags::empty())?)
            }
            Op::Owner(path, uid, gid) => {
                let owner = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                Ok(rustix::fs::chownat(CWD, at(path), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Op::Times(path, seconds, nanoseconds) => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                let times = Timestamps { last_access: time, last_modification: time };
                Ok(rustix::fs::utimensat(CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Op::SetXattr(path, name, len) => {
                Ok(rustix::fs::lsetxattr(at(path), *name, &rng.bytes(*len), XattrFlags::empty())?)
            }
            Op::RemoveXattr(path, name) => Ok(rustix::fs::lremovexattr(at(path), *name)?),
            _ => unreachable!("{op:?} is neither attr nor xattr"),
        }
    }
}

/// True for an outcome of `perform` that says that the mount has lost its daemon.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error);
    error.is_some_and(|errno| GONE.contains(&errno))
}

/// Passes over what is no regular file.
fn regular(file: File) -> std::io::Result<File> {
    if file.metadata()?.mode() & libc::S_IFMT == libc::S_IFREG { Ok(file) } else { Err(Errno::NODEV.into()) }
}
