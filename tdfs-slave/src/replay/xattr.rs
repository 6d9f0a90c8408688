//! Redoes changes of extended attributes and POSIX ACLs: set, remove.
//!
//! Called by `replay::apply`. What the replica's file system or the slave's rights can't carry is counted
//! and left out; a value that can't be stored never leaves an older one behind.

use super::attr::set_mode_of;
use super::failure::{Failure, Step, Trouble, at};
use super::{InHand, Lack, Lacks};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use tdfs_host::object;
use tdfs_wire::TreePath;
use tdfs_wire::op::XattrOp;

/// With this much room left, ENOSPC of an xattr means its own limit (ext4: one block), not a full disk.
const ROOM_BYTES: u64 = 1 << 20;
/// The same for inodes.
const ROOM_INODES: u64 = 64;

impl InHand<'_> {
    /// Does a change of extended attributes.
    pub(super) fn xattr(&mut self, op: &XattrOp, bulk: &[u8]) -> Result<(), Failure> {
        let path = op.path();
        let fd = self.target.attributes(path).map_err(at(Step::Names, "reach", path))?;
        self.recognise(fd.as_fd(), path)?;
        let lacks = &mut *self.lacks;
        match op {
            XattrOp::Set { name, mode, .. } => {
                set_xattr(lacks, fd.as_fd(), path, (name.as_bytes(), bulk))?;
                mode.map_or(Ok(()), |mode| set_mode_of(lacks, fd.as_fd(), path, mode))
            }
            XattrOp::Remove { name, mode, .. } => {
                match object::remove_xattr(fd.as_fd(), name.as_bytes()) {
                    // Gone is what the record wants; it may never have been carried.
                    Ok(()) | Err(Errno::NODATA) => {}
                    Err(errno) => {
                        if may_carry_none(fd.as_fd(), name.as_bytes()) {
                            return Err(Failure::diverged("remove an xattr of", path, errno));
                        }
                        let failure = at(Step::Xattr, "remove an xattr of", path)(errno);
                        lacks.forgive(Lack::of_xattr(name.as_bytes()), failure)?;
                    }
                }
                mode.map_or(Ok(()), |mode| set_mode_of(lacks, fd.as_fd(), path, mode))
            }
        }
    }
}

/// Sets one xattr or ACL, or counts it among what can't be carried; then none of that name is left.
///
/// # Errors
/// A stall, or a divergence where the object can't be the master's.
pub fn set_xattr(
    lacks: &mut Lacks,
    fd: BorrowedFd<'_>,
    path: &TreePath,
    (name, value): (&[u8], &[u8]),
) -> Result<(), Failure> {
    let Err(errno) = object::set_xattr(fd, name, value, XattrFlags::empty()) else { return Ok(()) };
    let trouble = Trouble { doing: "set an xattr of", path: path.clone(), errno };
    if may_carry_none(fd, name) {
        return Err(Failure::Divergence(trouble));
    }
    let (lack, failure) = match errno {
        Errno::NOSPC if has_room(fd) => (Lack::LargeXattr, Failure::NotCarried(trouble)),
        Errno::TOOBIG => (Lack::LargeXattr, Failure::NotCarried(trouble)),
        _ => (Lack::of_xattr(name), Failure::of(Step::Xattr, trouble)),
    };
    if matches!(failure, Failure::NotCarried(_)) {
        // Fails the same way where it can't be carried at all; then there is no older value either.
        let _ = object::remove_xattr(fd, name);
    }
    lacks.forgive(lack, failure)
}

/// True for an object on which no master could have set that xattr: it is not the master's object.
fn may_carry_none(fd: BorrowedFd<'_>, name: &[u8]) -> bool {
    let Ok(stat) = object::stat(fd) else { return false };
    match object::file_type(&stat) {
        libc::S_IFDIR => false,
        // acl(5): only directories have a default ACL; for others the kernel says EACCES.
        _ if name == b"system.posix_acl_default" => true,
        libc::S_IFREG => false,
        libc::S_IFLNK => name.starts_with(b"user.") || name.starts_with(b"system."),
        _ => name.starts_with(b"user."),
    }
}

/// True if the file system has room, so that "no space" was said of the xattr alone.
fn has_room(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatvfs(fd).is_ok_and(|fs| {
        fs.f_bavail.saturating_mul(fs.f_frsize) >= ROOM_BYTES
            && (fs.f_files == 0 || fs.f_favail >= ROOM_INODES)
    })
}
