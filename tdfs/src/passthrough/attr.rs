//! Attributes: mode, owner, times. One SETATTR can ask for several: each is a change of its own, so a
//! half-failed one is recorded as it ended.

use super::{Caller, Object, Passthrough};
use crate::commit::{Attribute, Change, Intent};
use rustix::fs::{Statx, Timespec};
use rustix::io::Result;
use std::os::fd::{AsFd, BorrowedFd};
use tdfs_host::object;
use tdfs_wire::op::{AttrOp, Op};
use tdfs_wire::{Time, TreePath};

/// A time that utimensat(2) is to set.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    /// The present.
    Now,
    /// This time.
    To(Time),
}

/// Both times of utimensat(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct SetTimes {
    /// Time of last access, not carried to replicas.
    pub atime: Option<SetTime>,
    /// Time of last modification.
    pub mtime: Option<SetTime>,
}

impl Passthrough {
    /// Sets the permission bits.
    pub fn chmod(&self, nodeid: u64, mode: u32) -> Result<()> {
        self.change_attr(
            nodeid,
            Attribute::Mode,
            |object| object::set_mode(object.fd.as_fd(), mode & 0o7777),
            |_| false,
            |path, stat| Some(AttrOp::Mode { path, mode: object::permissions(stat) }),
        )
    }

    /// Sets owner, group, both or none. The kernel clears setuid, setgid and file capabilities as it sees fit; but
    /// the setgid bit of what its group may not execute is the caller's to lose, and the kernel sees only us.
    pub fn chown(&self, nodeid: u64, uid: Option<u32>, gid: Option<u32>, caller: Caller) -> Result<()> {
        self.change_attr(
            nodeid,
            Attribute::Owner,
            |object| object::set_owner(object.fd.as_fd(), uid, gid),
            |before| object::file_type(before) != libc::S_IFDIR && caller.loses_setgid(before),
            |path, stat| {
                let (uid, gid, mode) = (stat.stx_uid, stat.stx_gid, object::permissions(stat));
                Some(AttrOp::Owner { path, uid, gid, mode })
            },
        )
    }

    /// Sets atime, mtime or both.
    pub fn set_times(&self, nodeid: u64, times: SetTimes) -> Result<()> {
        let spec = |time| match time {
            SetTime::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            SetTime::To(time) => Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) },
        };
        self.change_attr(
            nodeid,
            Attribute::Times,
            |object| object::set_times(object.fd.as_fd(), times.atime.map(spec), times.mtime.map(spec)),
            |_| false,
            |path, stat| times.mtime.map(|_| AttrOp::Times { path, mtime: object::mtime(stat) }),
        )
    }

    /// Clears setuid, setgid and file capabilities of a file that somebody without the right to keep them
    /// writes to or truncates (FUSE_HANDLE_KILLPRIV_V2 makes that our task). Returns true if there were any.
    /// setgid without the right to execute stays for members of the group (fs/attr.c, `setattr_should_drop_sgid`).
    pub fn kill_privileges(&self, nodeid: u64, caller: Caller) -> Result<bool> {
        let file = self.file_shared(nodeid, false)?;
        let stat = object::stat(file.as_fd())?;
        let mode = object::permissions(&stat);
        let mut left = mode & !libc::S_ISUID;
        let setgid = mode & libc::S_ISGID != 0;
        if setgid && (mode & libc::S_IXGRP != 0 || !caller.is_in_group(stat.stx_gid)) {
            left &= !libc::S_ISGID;
        }
        let capable = object::get_xattr(file.as_fd(), CAPABILITY).is_ok();
        if left != mode {
            self.chmod(nodeid, left)?;
        }
        if capable {
            self.remove_xattr(nodeid, CAPABILITY)?;
        }
        Ok(capable || left != mode)
    }

    /// One change: `set`, then setgid is cleared if `loses_setgid` says so of what was before.
    fn change_attr(
        &self,
        nodeid: u64,
        what: Attribute,
        set: impl FnOnce(&Object) -> Result<()>,
        loses_setgid: impl FnOnce(&Statx) -> bool,
        op: impl FnOnce(TreePath, &Statx) -> Option<AttrOp>,
    ) -> Result<()> {
        let tree = self.commit.order().shared();
        let ino = self.lock_key(nodeid);
        let turn = tree.turn(&[], &[ino]); // a lone lock: its class does not matter
        let object = self.object(nodeid)?;
        let intent = Intent::of(object.path.as_ref(), ino, |path| Intent::Attr { path, ino, what });
        let changed = self.commit.change(&turn, &intent, 0, || {
            if let Err(e) = set(&object) {
                return (Err(e), None);
            }
            let cleared = if loses_setgid(&object.stat) { clear_setgid(object.fd.as_fd()) } else { Ok(()) };
            let stat = match object::stat(object.fd.as_fd()) {
                Ok(stat) => stat,
                Err(e) => {
                    return (Err(e), object.path.map(|path| Change::of(Op::Check { paths: vec![path] })));
                }
            };
            match object.path {
                Some(path) => {
                    let change = op(path, &stat).map(|op| Change::of(Op::Attr(op)).of_object(&object.stat));
                    (cleared, change)
                }
                None => {
                    self.note_if_lost(nodeid, object.fd.as_fd(), &stat);
                    (cleared, None)
                }
            }
        });
        self.dirs.remove(nodeid); // what it lets new objects inherit may be another now
        changed
    }
}

/// Clears setgid if it is still there.
pub(super) fn clear_setgid(fd: BorrowedFd<'_>) -> Result<()> {
    let mode = object::permissions(&object::stat(fd)?);
    if mode & libc::S_ISGID == 0 { Ok(()) } else { object::set_mode(fd, mode & !libc::S_ISGID) }
}

/// The xattr that holds file capabilities (capabilities(7)).
const CAPABILITY: &[u8] = b"security.capability";

/// "Set it to the present" (utimensat(2)).
const UTIME_NOW: i64 = 0x3fff_ffff;
