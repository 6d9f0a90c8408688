//! Objects of a tree by file descriptor: reach them one component at a time, read and set what P3 names.
//!
//! Used by the master's `passthrough` and `resync` and by the slave's `replay`. A *path fd* (O_PATH) names
//! an object without opening it, so a FIFO or a device is never opened; content is only reached through
//! [`reopen`], which refuses all but regular files. Nothing here follows a symbolic link.

use crate::step::{at_once, step};
use crate::sys;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, Timespec,
    Timestamps, XattrFlags,
};
use rustix::io::{Errno, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use tdfs_wire::Time;
use tdfs_wire::object::{Kind, Meta, Xattr};
use tdfs_wire::op::{SYMLINK_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrName};

/// "Leave this time as it is" (utimensat(2)).
const UTIME_OMIT: i64 = 0x3fff_fffe;

/// Most bytes of names and values with which xattrs are carried: they go into one frame, beside a block of content.
const XATTRS_BYTES_MAX: usize = 832 * 1024;

/// So many are never too many, whatever their names and values.
const FEW_XATTRS: usize = 12;

/// Xattrs that are carried of an object that has too many, too: without them replicas would give other rights.
const XATTRS_ALWAYS: [&[u8]; 3] =
    [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];

/// What [`stat`] reads: the basic fields and the birth time.
pub const STAT_FIELDS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Opens the object `name` in `dir` as a path fd, whatever it is, without leaving the file system.
///
/// # Errors
/// Those of openat2(2): ENOENT, EXDEV where something is mounted, ENAMETOOLONG ...
pub fn open_path(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    open_at(dir, name, OFlags::PATH)
}

/// Opens the directory `name` in `dir` as a path fd. ENOTDIR for anything else, a symlink too.
pub fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    open_at(dir, name, OFlags::PATH | OFlags::DIRECTORY)
}

fn open_at(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        // EAGAIN: the kernel could not rule out an escape while something was renamed; openat2(2) says: again.
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens what the path fd names, for reading directories or the content of regular files.
///
/// # Errors
/// EINVAL for what is neither a directory nor a regular file: a device or FIFO must never be opened.
pub fn reopen(path_fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    let mode = stat(path_fd)?.stx_mode;
    if !matches!(u32::from(mode) & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) {
        return Err(Errno::INVAL);
    }
    rustix::fs::openat(CWD, proc_path(path_fd), flags | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory to read the names in it; `dir` may be a path fd.
pub fn open_to_list(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    rustix::fs::openat(dir, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// The path below /proc by which calls that take no path fd reach what it names.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Stats what `fd` names (a path fd will do).
pub fn stat(fd: BorrowedFd<'_>) -> Result<Statx> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, STAT_FIELDS)
}

/// Stats the object `name` in `dir`; a symlink itself.
pub fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Statx> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, STAT_FIELDS)
}

/// The device that a stat says the object lives on.
pub fn device(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

/// The number of a device node.
pub fn node_device(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_rdev_major, stat.stx_rdev_minor)
}

/// The S_IFMT bits of a stat.
pub fn file_type(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & libc::S_IFMT
}

/// The 07777 bits of a stat.
pub fn permissions(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & 0o7777
}

/// The mtime of a stat.
pub fn mtime(stat: &Statx) -> Time {
    Time { sec: stat.stx_mtime.tv_sec, nsec: stat.stx_mtime.tv_nsec }
}

/// What the object is; reads the target of a symlink.
pub fn kind(path_fd: BorrowedFd<'_>, stat: &Statx) -> Result<Kind> {
    Ok(match file_type(stat) {
        libc::S_IFREG => Kind::File,
        libc::S_IFDIR => Kind::Directory,
        libc::S_IFLNK => Kind::Symlink(read_link(path_fd)?),
        libc::S_IFIFO => Kind::Fifo,
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFCHR => Kind::Char(node_device(stat)),
        _ => Kind::Block(node_device(stat)),
    })
}

/// The target of the symlink that the path fd names.
pub fn read_link(path_fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(path_fd, c"", Vec::with_capacity(SYMLINK_BYTES_MAX + 1))?.into_bytes())
}

/// The carried xattrs of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattrs {
    /// Sorted by name.
    pub carried: Vec<Xattr>,
    /// There are more names than the kernel lists (64 KiB), or more bytes than go into a frame: only file capabilities and
    /// ACLs are carried.
    pub too_many: bool,
}

/// All of an object but names and content; see [`Xattrs`] for `too_many_xattrs`.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Its stat.
    pub stat: Statx,
    /// What replicas have of it.
    pub meta: Meta,
    /// Some of its xattrs are not in there.
    pub too_many_xattrs: bool,
}

/// All of the object but names and content.
pub fn meta(path_fd: BorrowedFd<'_>, stat: &Statx) -> Result<Meta> {
    Ok(look(path_fd, stat)?.meta)
}

/// The same without xattrs: of what may not be read.
pub fn bare_meta(path_fd: BorrowedFd<'_>, stat: &Statx) -> Result<Meta> {
    Ok(meta_of(kind(path_fd, stat)?, stat, Vec::new()))
}

/// The same, and whether xattrs had to be left out.
pub fn look(path_fd: BorrowedFd<'_>, stat: &Statx) -> Result<Looked> {
    Ok(looked(kind(path_fd, stat)?, stat, xattrs(path_fd)?))
}

fn looked(kind: Kind, stat: &Statx, xattrs: Xattrs) -> Looked {
    Looked { stat: *stat, meta: meta_of(kind, stat, xattrs.carried), too_many_xattrs: xattrs.too_many }
}

fn meta_of(kind: Kind, stat: &Statx, xattrs: Vec<Xattr>) -> Meta {
    let size = if kind == Kind::File { stat.stx_size } else { 0 };
    let (mode, mtime) = (permissions(stat), mtime(stat));
    Meta { kind, mode, uid: stat.stx_uid, gid: stat.stx_gid, mtime, size, xattrs }
}

/// Stats and describes the object `name` in `dir`, whatever it is, without opening it where the kernel can:
/// half the system calls, and less than half the time, of [`open_path`], [`stat`] and [`meta`].
///
/// # Errors
/// As [`open_path`]: EXDEV where something is mounted.
pub fn look_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Looked> {
    let stat = stat_at(dir, name)?;
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::XDEV);
    }
    // Before Linux 5.8 only opening it tells what is mounted.
    if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
        && file_type(&stat) != libc::S_IFLNK
        && let Some(xattrs) = xattrs_at(dir, name)?
    {
        let kind = kind(dir, &stat)?;
        return Ok(looked(kind, &stat, xattrs));
    }
    let fd = open_path(dir, name)?;
    let stat = self::stat(fd.as_fd())?;
    look(fd.as_fd(), &stat)
}

/// Sets the 07777 bits of what is no symlink.
pub fn set_mode(path_fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    step(|| rustix::fs::chmodat(CWD, proc_path(path_fd), Mode::from_raw_mode(mode), AtFlags::empty()))
}

/// Sets owner and group; None leaves one as it is. The kernel may clear setuid, setgid and capabilities.
pub fn set_owner(path_fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (uid, gid) = (uid.map(rustix::fs::Uid::from_raw), gid.map(rustix::fs::Gid::from_raw));
    step(|| rustix::fs::chownat(path_fd, c"", uid, gid, AtFlags::EMPTY_PATH))
}

/// Sets the mtime and leaves the atime.
pub fn set_mtime(path_fd: BorrowedFd<'_>, mtime: Time) -> Result<()> {
    set_times(path_fd, None, Some(Timespec { tv_sec: mtime.sec, tv_nsec: i64::from(mtime.nsec) }))
}

/// Sets atime and mtime; None leaves one as it is. A tv_nsec of UTIME_NOW means now.
pub fn set_times(path_fd: BorrowedFd<'_>, atime: Option<Timespec>, mtime: Option<Timespec>) -> Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: atime.unwrap_or(omit), last_modification: mtime.unwrap_or(omit) };
    step(|| rustix::fs::utimensat(path_fd, c"", &times, AtFlags::EMPTY_PATH))
}

/// The carried xattrs with their values. None where the file system knows no xattrs.
pub fn xattrs(fd: BorrowedFd<'_>) -> Result<Xattrs> {
    collect_xattrs(list_xattrs(fd), |name| get_xattr(fd, name))
}

/// True if the object has so few xattrs that none more or less can make them too many.
pub fn has_few_xattrs(fd: BorrowedFd<'_>) -> bool {
    list_xattrs(fd).is_ok_and(|names| names.iter().filter(|byte| **byte == 0).count() <= FEW_XATTRS)
}

/// True if all xattrs of the object are carried, not only those that always are. Where they can't be read, they are not
/// known to be too many.
pub fn has_all_xattrs_carried(fd: BorrowedFd<'_>) -> bool {
    has_few_xattrs(fd) || !xattrs(fd).is_ok_and(|xattrs| xattrs.too_many)
}

/// True for what is carried of an object that has too many xattrs, too.
pub fn is_always_carried(xattr: &[u8]) -> bool {
    XATTRS_ALWAYS.contains(&xattr)
}

/// As [`xattrs`], of the object `name` in `dir`; None where the kernel can't tell without opening it.
fn xattrs_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Xattrs>> {
    let names = read_growing(|buffer| sys::list_xattrs_at(dir, name, buffer));
    // EPERM: what sandboxes say of a system call that they do not know.
    if matches!(names, Err(Errno::NOSYS | Errno::PERM)) {
        return Ok(None);
    }
    let value = |xattr: &[u8]| read_growing(|buffer| sys::get_xattr_at(dir, name, xattr, buffer));
    collect_xattrs(names, value).map(Some)
}

fn collect_xattrs(names: Result<Vec<u8>>, value_of: impl Fn(&[u8]) -> Result<Vec<u8>>) -> Result<Xattrs> {
    let all = match names {
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs { carried: Vec::new(), too_many: false }),
        Err(Errno::TOOBIG) => None,
        names => values(names?.split(|&b| b == 0), &value_of)?,
    };
    match all {
        Some(carried) => Ok(Xattrs { carried, too_many: false }),
        None => {
            let carried = values(XATTRS_ALWAYS.into_iter(), value_of)?.unwrap_or_default();
            Ok(Xattrs { carried, too_many: true })
        }
    }
}

/// Those of the named xattrs that are carried and there; None where that are too many bytes.
fn values<'a>(
    names: impl Iterator<Item = &'a [u8]>,
    value_of: impl Fn(&[u8]) -> Result<Vec<u8>>,
) -> Result<Option<Vec<Xattr>>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    for name in names {
        let Some(carried) = XattrName::new(name) else { continue };
        match value_of(name) {
            Ok(value) => {
                bytes += name.len() + value.len();
                found.push(Xattr { name: carried, value });
            }
            // EOPNOTSUPP: an ACL that was asked for where there are none.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
        if bytes > XATTRS_BYTES_MAX {
            return Ok(None);
        }
    }
    found.sort();
    Ok(Some(found))
}

/// The names of all xattrs, each ended by NUL, carried or not.
pub fn list_xattrs(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    read_growing(|buffer| match rustix::fs::flistxattr(fd, &mut *buffer) {
        Err(Errno::BADF) => rustix::fs::listxattr(proc_path(fd), buffer),
        done => done,
    })
}

/// The value of an xattr. ENODATA where it has none of that name.
pub fn get_xattr(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>> {
    read_growing(|buffer| match rustix::fs::fgetxattr(fd, name, &mut *buffer) {
        Err(Errno::BADF) => rustix::fs::getxattr(proc_path(fd), name, buffer),
        done => done,
    })
}

/// Most are short: one call with a small buffer, a second one where it was too small.
fn read_growing(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut short = [0u8; 256];
    match read(&mut short) {
        Ok(len) => return Ok(short[..len].to_vec()),
        Err(Errno::RANGE) => {}
        Err(e) => return Err(e),
    }
    let mut buffer = vec![0; XATTR_VALUE_BYTES_MAX];
    let len = read(&mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}

/// Sets an xattr or ACL. By an open fd, as all calls on xattrs, at a third of the cost of a path fd.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
    match step(|| rustix::fs::fsetxattr(fd, name, value, flags)) {
        Err(Errno::BADF) => step(|| rustix::fs::setxattr(proc_path(fd), name, value, flags)),
        done => done,
    }
}

/// Removes an xattr or ACL. ENODATA where it has none of that name.
pub fn remove_xattr(path_fd: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    step(|| rustix::fs::removexattr(proc_path(path_fd), name))
}

/// One name in a directory, as the directory itself tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// The inode number.
    pub ino: u64,
    /// The S_IFMT bits, or 0 where the file system does not tell them here.
    pub file_type: u32,
}

/// The names in the directory that the path fd names, without `.` and `..`, in no order.
pub fn list(path_fd: BorrowedFd<'_>) -> Result<Vec<Listed>> {
    let dir = open_to_list(path_fd)?;
    let mut found = Vec::new();
    for item in rustix::fs::Dir::new(dir)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name != b"." && name != b".." {
            let file_type = match item.file_type() {
                FileType::Unknown => 0,
                known => known.as_raw_mode(),
            };
            found.push(Listed { name: name.to_vec(), ino: item.ino(), file_type });
        }
    }
    Ok(found)
}

/// The names alone; see [`list`].
pub fn list_names(path_fd: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    Ok(list(path_fd)?.into_iter().map(|listed| listed.name).collect())
}

/// Reads up to all of `buffer` from `offset` on; fewer bytes only at the end of the file.
pub fn read_at(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::pread(file, &mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Writes `data` at `offset`; returns how many bytes were written, and the error that kept the rest.
pub fn write_at(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> (usize, Result<()>) {
    let mut done = 0;
    while done < data.len() {
        let piece = &data[done..done + at_once(data.len() - done)];
        match step(|| rustix::io::pwrite(file, piece, offset + done as u64)) {
            Ok(0) => return (done, Err(Errno::IO)),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(e) => return (done, Err(e)),
        }
    }
    (done, Ok(()))
}

/// Writes all of `data` at `offset`.
pub fn write_all_at(file: BorrowedFd<'_>, data: &[u8], offset: u64) -> Result<()> {
    write_at(file, data, offset).1
}

/// True if both name the same object.
pub fn same_object(a: impl AsFd, b: impl AsFd) -> Result<bool> {
    let (a, b) = (stat(a.as_fd())?, stat(b.as_fd())?);
    Ok(a.stx_ino == b.stx_ino && device(&a) == device(&b))
}

#[cfg(test)]
mod tests;
