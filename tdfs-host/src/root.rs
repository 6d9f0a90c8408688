//! What identifies a root directory, so that a start finds out that its disk is not mounted, or that another
//! directory lies at its path.
//!
//! Both daemons keep it in their state and compare it before they change anything. Decides nothing.

use crate::{object, sys};
use rustix::io::{Errno, Result};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd};

/// Where a directory is, whatever its path: on which file system, and which object of it.
///
/// Of each there is a second form for file systems and kernels that don't tell the first (btrfs tells no UUID, but
/// makes its fsid of it; XFS tells one, and its fsid is a device number). Both are kept: a new kernel that tells
/// more must not make a directory look like another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// UUID of the file system.
    uuid: Option<String>,
    /// The id that statfs(2) tells: made of the UUID, or only of the device number.
    fsid: String,
    /// File handle: its type and bytes. It differs where an inode number is used again.
    handle: Option<String>,
    /// Inode number.
    inode: u64,
}

impl Root {
    /// Of the directory that `fd` names; a path fd will do.
    ///
    /// # Errors
    /// When it can't be opened or asked.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Root> {
        let open = object::open_to_list(fd)?; // ioctl(2) takes no path fd
        let uuid = where_told(sys::file_system_uuid(open.as_fd()))?;
        let handle = where_told(sys::file_handle(open.as_fd()))?;
        Ok(Root {
            uuid: uuid.filter(|uuid| !uuid.is_empty()).map(|uuid| hex(&uuid)),
            fsid: format!("{:016x}", rustix::fs::fstatvfs(&open)?.f_fsid),
            handle: handle.map(|(kind, bytes)| format!("{kind:x}:{}", hex(&bytes))),
            inode: object::stat(open.as_fd())?.stx_ino,
        })
    }

    /// True if both are the same directory of the same file system, by the best that both know.
    pub fn is(&self, other: &Root) -> bool {
        let same_file_system = match (&self.uuid, &other.uuid) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.fsid == other.fsid,
        };
        let same_object = match (&self.handle, &other.handle) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.inode == other.inode,
        };
        same_file_system && same_object
    }
}

/// None where the file system or the kernel has no such thing (or a sandbox forbids to ask).
fn where_told<T>(asked: Result<T>) -> Result<Option<T>> {
    match asked {
        Ok(told) => Ok(Some(told)),
        Err(
            Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::OVERFLOW | Errno::PERM,
        ) => Ok(None),
        Err(e) => Err(e),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
