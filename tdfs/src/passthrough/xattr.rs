//! Extended attributes and POSIX ACLs: get, list, set, remove. Those that a replica does not carry are
//! done on the backing tree and not recorded; so are those of an object that has too many (`object::Xattrs`).

use super::attr::clear_setgid;
use super::{Caller, Passthrough, carried};
use crate::commit::{Change, Intent, Outcome};
use rustix::fs::{Statx, XattrFlags};
use rustix::io::{Errno, Result};
use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use tdfs_host::object;
use tdfs_wire::op::{Op, XATTR_VALUE_BYTES_MAX, XattrOp};

impl Passthrough {
    /// The value of an xattr. ENODATA where there is none of that name.
    pub fn get_xattr(&self, nodeid: u64, name: &[u8]) -> Result<Vec<u8>> {
        let tree = self.commit.order().shared();
        if let Some(file) = self.files.get(nodeid) {
            return object::get_xattr(file.as_fd(), name);
        }
        self.steady(&tree, nodeid, || object::get_xattr(self.object(nodeid)?.fd.as_fd(), name))
    }

    /// The names of all xattrs that the caller may know of, each ended by NUL.
    pub fn list_xattrs(&self, nodeid: u64, caller: Caller) -> Result<Vec<u8>> {
        let tree = self.commit.order().shared();
        let names = self.steady(&tree, nodeid, || object::list_xattrs(self.object(nodeid)?.fd.as_fd()))?;
        Ok(if caller.sees_trusted() { names } else { without_trusted(&names) })
    }

    /// Sets an xattr or ACL; `flags` are those of setxattr(2). Setting an access ACL is a way to set the mode, so it
    /// clears setgid as chmod(2) does (fs/posix_acl.c, `posix_acl_update_mode`); the kernel sees only us.
    pub fn set_xattr(
        &self,
        nodeid: u64,
        (name, value): (&[u8], &[u8]),
        flags: u32,
        caller: Caller,
    ) -> Result<()> {
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Errno::TOOBIG);
        }
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let set = |fd: &OwnedFd| object::set_xattr(fd.as_fd(), name, value, flags);
        self.change_xattr(nodeid, (name, value), set, |stat| {
            name == b"system.posix_acl_access" && caller.loses_setgid(stat)
        })
    }

    /// Removes an xattr or ACL. ENODATA where there is none of that name.
    pub fn remove_xattr(&self, nodeid: u64, name: &[u8]) -> Result<()> {
        self.change_xattr(nodeid, (name, &[]), |fd| object::remove_xattr(fd.as_fd(), name), |_| false)
    }

    fn change_xattr<'a>(
        &self,
        nodeid: u64,
        (name, value): (&[u8], &'a [u8]),
        set: impl FnOnce(&OwnedFd) -> Result<()>,
        loses_setgid: impl FnOnce(&Statx) -> bool,
    ) -> Result<()> {
        let tree = self.commit.order().shared();
        let ino = self.lock_key(nodeid);
        let turn = tree.turn(&[], &[ino]); // a lone lock: its class does not matter
        let object = self.object(nodeid)?;
        let xattr = carried(name);
        let intent = xattr.clone().map_or(Intent::Nothing, |name| {
            Intent::of(object.path.as_ref(), ino, |path| Intent::Xattr { path, ino, name })
        });
        let changed = self.commit.change(&turn, &intent, value.len(), || -> Outcome<'a, ()> {
            let all_before = object::has_all_xattrs_carried(object.fd.as_fd());
            if let Err(e) = set(&object.fd) {
                return (Err(e), None);
            }
            let cleared = if loses_setgid(&object.stat) { clear_setgid(object.fd.as_fd()) } else { Ok(()) };
            let all_now = object::has_all_xattrs_carried(object.fd.as_fd());
            if xattr.is_none() && all_before == all_now {
                return (cleared, None);
            }
            let Some(path) = object.path else {
                self.note_if_lost(nodeid, object.fd.as_fd(), &object.stat);
                return (cleared, None);
            };
            let is_told = all_now || object::is_always_carried(name);
            let change = match xattr {
                // Others go or come with it: slaves ask which there are.
                _ if all_before != all_now => Some(Change::of(Op::Check { paths: vec![path] })),
                Some(xattr) if is_told => {
                    Some(xattr_change(&object.fd, path, xattr, value).of_object(&object.stat))
                }
                _ => None,
            };
            (cleared, change)
        });
        self.dirs.remove(nodeid); // a default ACL may have come or gone
        changed
    }
}

/// The names that do not begin with `trusted.`.
fn without_trusted(names: &[u8]) -> Vec<u8> {
    names
        .split_inclusive(|byte| *byte == 0)
        .filter(|name| !name.starts_with(b"trusted."))
        .flatten()
        .copied()
        .collect()
}

/// What is recorded: the outcome, read back. Setting an ACL that says no more than the mode sets the mode
/// and leaves no ACL.
pub(super) fn xattr_change<'a>(
    fd: &OwnedFd,
    path: tdfs_wire::TreePath,
    name: tdfs_wire::op::XattrName,
    value: &'a [u8],
) -> Change<'a> {
    let mode = if name.is_acl() {
        object::stat(fd.as_fd()).ok().map(|stat| object::permissions(&stat))
    } else {
        None
    };
    match object::get_xattr(fd.as_fd(), name.as_bytes()) {
        Ok(found) => {
            let bulk = if found == value { Cow::Borrowed(value) } else { Cow::Owned(found) };
            Change::with_bulk(Op::Xattr(XattrOp::Set { path, name, mode }), bulk)
        }
        Err(Errno::NODATA) => Change::of(Op::Xattr(XattrOp::Remove { path, name, mode })),
        Err(_) => Change::of(Op::Check { paths: vec![path] }),
    }
}
