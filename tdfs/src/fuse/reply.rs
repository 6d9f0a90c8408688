//! Answers in fuser's types: attributes, times, errno. The one place where a failed request is logged.

use crate::passthrough::Seen;
use fuser::{Errno, FileAttr, FileType, Generation, INodeNo, ReplyXattr};
use rustix::fs::Statx;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tdfs_host::object;
use tdfs_wire::Time;

/// How long the kernel may keep what it is told: practically for ever, nobody else changes the tree.
pub const TTL: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Attributes of an object.
pub fn attr(seen: &Seen) -> FileAttr {
    let stat = &seen.stat;
    FileAttr {
        ino: INodeNo(seen.nodeid),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: time(stat.stx_atime.tv_sec, stat.stx_atime.tv_nsec),
        mtime: time(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
        ctime: time(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(stat),
        perm: stat.stx_mode & 0o7777,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: encode_device(object::node_device(stat)),
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

/// What tells a nodeid from an earlier object of the same number: when the inode was born.
pub fn generation(stat: &Statx) -> Generation {
    let born =
        stat.stx_btime.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(i64::from(stat.stx_btime.tv_nsec));
    Generation(born.cast_unsigned())
}

fn kind(stat: &Statx) -> FileType {
    match object::file_type(stat) {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// The type of a name in a directory listing.
pub fn listed_kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn time(sec: i64, nsec: u32) -> SystemTime {
    let whole = Duration::from_secs(sec.unsigned_abs());
    let at = if sec < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    at.and_then(|at| at.checked_add(Duration::from_nanos(nsec.into()))).unwrap_or(UNIX_EPOCH)
}

/// The time of a SETATTR as the application gave it. fuser 0.18 hands a time before 1970 on as
/// 1970 - (seconds + nanoseconds), where 1970 - seconds + nanoseconds is meant (FACTS.md section 2).
pub fn time_from_fuser(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            Time { sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nsec: after.subsec_nanos() }
        }
        Err(before) => {
            let before = before.duration();
            let sec = i64::try_from(before.as_secs()).map_or(i64::MIN, |sec| -sec);
            Time { sec, nsec: before.subsec_nanos() }
        }
    }
}

/// dev_t as a FUSE message has it: 12 bits major, 20 bits minor (new_encode_dev of linux/kdev_t.h).
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The reverse of [`encode_device`].
pub fn decode_device(device: u32) -> u64 {
    rustix::fs::makedev((device & 0x000f_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0x000f_ff00))
}

/// fuser's form of an errno. What the backing tree's disk is to blame for is logged: a human must look.
pub fn errno(operation: &'static str, errno: rustix::io::Errno) -> Errno {
    if matches!(errno, rustix::io::Errno::IO | rustix::io::Errno::STALE) {
        tracing::error!("{operation} on the backing tree: {errno}");
    }
    Errno::from_i32(errno.raw_os_error())
}

/// The answer "there is nothing of that name": nodeid 0.
pub fn nothing() -> FileAttr {
    FileAttr { ino: INodeNo(0), ..dots(0) }
}

/// What a listing says of `.` and `..`: the kernel takes their inode number and type, and nothing else.
pub fn dots(ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::Directory,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Answers GETXATTR and LISTXATTR: the length where no room is given, ERANGE where too little.
pub fn xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match size {
        0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        size if value.len() > size as usize => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}
