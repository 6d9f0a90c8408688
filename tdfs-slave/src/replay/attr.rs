//! Redoes changes of attributes: mode, owner, times.
//!
//! Called by `replay::apply`; the single steps are used by the other families too. chown(2) can clear
//! setuid and setgid, so the mode always comes after the owner.

use super::failure::{Failure, Step, Trouble, at};
use super::{InHand, Lack, Lacks};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use tdfs_host::object;
use tdfs_host::step::step;
use tdfs_wire::TreePath;
use tdfs_wire::object::Owner;
use tdfs_wire::op::AttrOp;

impl InHand<'_> {
    /// Does a change of attributes.
    pub(super) fn attr(&mut self, op: &AttrOp) -> Result<(), Failure> {
        let path = op.path();
        let fd = self.target.attributes(path).map_err(at(Step::Names, "reach", path))?;
        match *op {
            // In a redo it may have its new owner already.
            AttrOp::Owner { uid, gid, .. } if self.is_redo() => self
                .belongs_to(Some(Owner { uid, gid }), fd.as_fd(), path)
                .or_else(|_| self.recognise(fd.as_fd(), path))?,
            _ => self.recognise(fd.as_fd(), path)?,
        }
        match *op {
            AttrOp::Mode { mode, .. } => set_mode_of(self.lacks, fd.as_fd(), path, mode),
            AttrOp::Owner { uid, gid, mode, .. } => {
                set_owner(self.lacks, fd.as_fd(), path, (uid, gid))?;
                set_mode_of(self.lacks, fd.as_fd(), path, mode)
            }
            AttrOp::Times { mtime, .. } => {
                object::set_mtime(fd.as_fd(), mtime).map_err(at(Step::Times, "set mtime of", path))
            }
        }
    }
}

/// Sets owner and group; where that is refused the group alone; where that is refused too, none.
///
/// # Errors
/// A stall. An owner that can't be carried is counted in `lacks`.
pub fn set_owner(
    lacks: &mut Lacks,
    fd: BorrowedFd<'_>,
    path: &TreePath,
    (uid, gid): (u32, u32),
) -> Result<(), Failure> {
    let Err(errno) = object::set_owner(fd, Some(uid), Some(gid)) else { return Ok(()) };
    let failure = at(Step::Owner, "set the owner of", path)(errno);
    if matches!(failure, Failure::NotCarried(_)) {
        // One of the slave's own groups may be given all the same; the owner is counted below.
        let _ = object::set_owner(fd, None, Some(gid));
    }
    lacks.forgive(Lack::Owner, failure)
}

/// Sets the mode, unless it is a symlink: those have none.
pub(super) fn set_mode_of(
    lacks: &mut Lacks,
    fd: BorrowedFd<'_>,
    path: &TreePath,
    mode: u32,
) -> Result<(), Failure> {
    let stat = object::stat(fd).map_err(at(Step::Names, "stat", path))?;
    match object::file_type(&stat) {
        libc::S_IFLNK => Ok(()),
        file_type => set_mode(lacks, fd, path, (mode, file_type == libc::S_IFDIR)),
    }
}

/// Sets the mode of what is no symlink, without what can't be carried.
///
/// # Errors
/// A stall or a divergence.
pub fn set_mode(
    lacks: &mut Lacks,
    fd: BorrowedFd<'_>,
    path: &TreePath,
    (mode, is_directory): (u32, bool),
) -> Result<(), Failure> {
    let carried = lacks.mode(mode, is_directory);
    if carried != mode {
        lacks
            .note(Lack::SetId, &Trouble { doing: "set the mode of", path: path.clone(), errno: Errno::PERM });
    }
    // An open file takes it at once; what a path fd names is reached through /proc, at three times the cost.
    let set = match step(|| rustix::fs::fchmod(fd, rustix::fs::Mode::from_raw_mode(carried))) {
        Err(Errno::BADF) => object::set_mode(fd, carried),
        done => done,
    };
    set.map_err(at(Step::Mode, "set the mode of", path))
}
