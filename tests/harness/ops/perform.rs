//! Does one operation, and tells an outcome that any busy tree may have from one that is a bug.

use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;

use super::held::{Held, HeldOp};
use super::{Op, Region, Rename, Special};
use crate::rng::Rng;
use crate::sys::Mapping;

/// What threads that meet on few names may well be told. Anything else is a bug.
const ALLOWED: [Errno; 15] = [
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
    Errno::BADF,
    Errno::AGAIN,
];
/// A file capability: `CAP_NET_RAW`, permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// What everybody is told whose mount has lost its daemon.
const GONE: [Errno; 4] = [Errno::NOTCONN, Errno::CONNABORTED, Errno::IO, Errno::INTR];
/// Files that one performer holds open.
const HELD_MAX: usize = 6;

/// Does operations below one root, for one thread.
#[derive(Debug)]
pub struct Performer {
    root: PathBuf,
    held: Vec<Held>,
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
            Ok(_) => return Ok(true),
            Err(error) => error,
        };
        let errno = Errno::from_io_error(&error);
        // ext4 says so when the xattrs of one file need more than a block.
        let is_xattr = matches!(op, Op::SetXattr(..) | Op::SetAcl(..) | Op::Held(HeldOp::SetXattr(_)));
        let full = is_xattr && errno == Some(Errno::NOSPC);
        // Only directories have a default ACL; root may execute only what somebody may; see `creates`.
        let refusable = creates(op) || matches!(op, Op::SetAcl(_, true, _) | Op::Access(..));
        let refused = refusable && errno == Some(Errno::ACCESS);
        let allowed = full || refused || errno.is_some_and(|errno| ALLOWED.contains(&errno));
        if !allowed {
            return Err(anyhow::Error::new(error).context(format!("{op:?} must not end so")));
        }
        Ok(false)
    }

    /// Does it, whatever the outcome; gives what the caller gets to see.
    pub fn attempt(&mut self, op: &Op, rng: &mut Rng) -> std::io::Result<String> {
        let nothing = |()| String::new();
        match op {
            Op::Hold(path, flags, mode) => {
                let flags = OFlags::from_bits_retain(flags.cast_unsigned());
                let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let file = rustix::fs::open(self.root.join(path), flags, Mode::from_raw_mode(*mode))?;
                let file = regular_or_directory(file.into())?;
                if self.held.len() == HELD_MAX {
                    self.held.remove(0);
                }
                self.held.push(Held::new(file));
                Ok(String::new())
            }
            Op::Held(op) => match self.held.len() {
                0 => Ok(String::new()),
                count => self.held[rng.index(count)].perform(op, rng),
            },
            Op::Release => {
                self.held.pop();
                Ok(String::new())
            }
            Op::List(path) => self.list(path),
            Op::Read(path) => {
                let mut bytes = vec![0; 65_536];
                let len = self.open(path)?.read_at(&mut bytes, 0)?;
                Ok(digest(&bytes[..len]))
            }
            Op::Stat(path) => Ok(shown(&self.root.join(path).symlink_metadata()?)),
            Op::Access(path, rights) => {
                let rights = Access::from_bits_retain(*rights);
                Ok(rustix::fs::access(self.root.join(path), rights).map(nothing)?)
            }
            Op::Umask(mask) => {
                rustix::process::umask(Mode::from_raw_mode(*mask));
                Ok(String::new())
            }
            Op::Write(..) | Op::Append(..) | Op::Empty(_) | Op::Truncate(..) => {
                self.write(op, rng).map(nothing)
            }
            Op::Allocate(..) | Op::Copy(..) | Op::StoreMapped(..) => self.shape(op, rng),
            Op::Mode(..)
            | Op::Owner(..)
            | Op::Times(..)
            | Op::SetXattr(..)
            | Op::RemoveXattr(..)
            | Op::SetAcl(..) => self.describe(op, rng).map(nothing),
            _ => self.name(op).map(nothing),
        }
    }

    /// Opens a regular file for reading and writing; a FIFO or a device is passed over.
    fn open(&self, path: &Path) -> std::io::Result<File> {
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        regular(options.open(self.root.join(path))?)
    }

    fn list(&self, path: &Path) -> std::io::Result<String> {
        let mut names = Vec::new();
        for found in std::fs::read_dir(self.root.join(path))? {
            let found = found?;
            // Gone meanwhile is no failure of the listing.
            let described = found.metadata().map_or_else(|error| error.to_string(), |meta| shown(&meta));
            names.push(format!("{:?} {:?} {described}", found.file_name(), found.file_type()?));
        }
        names.sort_unstable();
        Ok(names.join("; "))
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

    fn shape(&self, op: &Op, rng: &mut Rng) -> std::io::Result<String> {
        match op {
            Op::Allocate(path, region, flags) => {
                let flags = FallocateFlags::from_bits_retain(*flags);
                let (offset, len) = whole_blocks(*region, flags);
                rustix::fs::fallocate(self.open(path)?, flags, offset, len)?;
                Ok(String::new())
            }
            Op::Copy(from, to, region, to_offset) => {
                let (from, to) = (self.open(from)?, self.open(to)?);
                let (mut from_at, mut to_at) = (region.offset, *to_offset);
                let len = rustix::fs::copy_file_range(
                    &from,
                    Some(&mut from_at),
                    &to,
                    Some(&mut to_at),
                    region.len,
                )?;
                Ok(len.to_string())
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
                if rng.one_in(2) {
                    mapping.flush()?;
                }
                Ok(String::new())
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
                let is_capability = *name == "security.capability";
                let value = if is_capability { CAPABILITY.to_vec() } else { rng.bytes(*len) };
                Ok(rustix::fs::lsetxattr(at(path), *name, &value, XattrFlags::empty())?)
            }
            Op::SetAcl(path, is_default, acl) => {
                let name = if *is_default { "system.posix_acl_default" } else { "system.posix_acl_access" };
                Ok(rustix::fs::setxattr(at(path), name, &acl.bytes(), XattrFlags::empty())?)
            }
            Op::RemoveXattr(path, name) => Ok(rustix::fs::lremovexattr(at(path), *name)?),
            _ => unreachable!("{op:?} is neither attr nor xattr"),
        }
    }
}

/// True for what opens with `O_CREAT`. That is refused to root, too, where a sticky directory that all may write (an ACL
/// can make it so) has another's device or socket of that name: fs/namei.c, `may_create_in_sticky`.
fn creates(op: &Op) -> bool {
    match op {
        Op::Create(_) | Op::Write(..) | Op::Append(..) | Op::StoreMapped(..) => true,
        Op::Hold(_, flags, _) => flags & libc::O_CREAT != 0,
        _ => false,
    }
}

/// True for an outcome of `perform` that says that the mount has lost its daemon.
pub(super) fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error);
    error.is_some_and(|errno| GONE.contains(&errno))
}

/// Few characters that tell bytes from others.
pub fn digest(bytes: &[u8]) -> String {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for word in bytes.chunks(8) {
        let mut padded = [0; 8];
        padded[..word.len()].copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(padded)).wrapping_mul(0x0100_0000_01B3).rotate_left(23);
    }
    format!("{} bytes {hash:016x}", bytes.len())
}

/// What stat(2) tells, but for times, inode numbers and blocks.
pub(super) fn shown(meta: &Metadata) -> String {
    let size = if meta.is_dir() { 0 } else { meta.size() };
    let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
    format!("{mode:o} {uid}:{gid} links {} size {size} device {:x}", meta.nlink(), meta.rdev())
}

/// What these flags take: collapsing and inserting want whole blocks.
pub(super) fn whole_blocks(region: Region, flags: FallocateFlags) -> (u64, u64) {
    let (offset, len) = (region.offset, region.len as u64);
    if flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE) {
        return (offset / 4096 * 4096, len.next_multiple_of(4096));
    }
    (offset, len)
}

/// Passes over what could block, and devices.
fn regular_or_directory(file: File) -> std::io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_dir() { Ok(file) } else { Err(Errno::NODEV.into()) }
}

/// Passes over what is no regular file.
fn regular(file: File) -> std::io::Result<File> {
    if file.metadata()?.mode() & libc::S_IFMT == libc::S_IFREG { Ok(file) } else { Err(Errno::NODEV.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temp_tree::TempTree;

    /// On no mount of ours: the refusal is the kernel's.
    #[test]
    fn root_is_refused_another_s_socket_in_a_sticky_directory_that_all_may_write() {
        let temp = TempTree::new().expect("make a temp directory");
        let dir = temp.dir("sticky").expect("make a directory");
        rustix::fs::chmodat(CWD, &dir, Mode::from_raw_mode(0o1777), AtFlags::empty())
            .expect("make it sticky");
        let socket = dir.join("s");
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, &socket, FileType::Socket, mode, 0).expect("make a socket");
        std::os::unix::fs::chown(&socket, Some(1000), None).expect("give it away");

        let mut performer = Performer::new(&dir);
        let mut rng = Rng::new(0);
        let mut errno = |op: &Op| {
            let error = performer.attempt(op, &mut rng).expect_err("be refused");
            (creates(op), Errno::from_io_error(&error).expect("an errno"))
        };
        let with = Op::Hold("s".into(), libc::O_RDWR | libc::O_CREAT, 0o600);
        let without = Op::Hold("s".into(), libc::O_RDWR, 0);
        assert_eq!(errno(&with), (true, Errno::ACCESS));
        assert_eq!(errno(&without), (false, Errno::NXIO));
    }
}
