//! Reading names and attributes: lookup, forget, getattr, readlink, statfs.

use super::nodes::{NodeName, Place};
use super::{FOREIGN, Passthrough, Why};
use crate::commit::TreeShared;
use rustix::fs::{StatVfs, Statx};
use rustix::io::{Errno, Result};
use std::os::fd::AsFd;
use tdfs_host::object;

/// An object as an answer tells it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its nodeid.
    pub nodeid: u64,
    /// Its attributes.
    pub stat: Statx,
}

impl Passthrough {
    /// Finds `name` in a directory and counts one lookup of what it names.
    ///
    /// # Errors
    /// ENOENT where there is nothing of that name.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Seen> {
        if parent & FOREIGN != 0 {
            return Err(Errno::NOENT);
        }
        let tree = self.commit.order().shared();
        let dir = self.dir(&tree, parent)?;
        let _held = tree.reading(self.lock_key(parent));
        let stat = object::stat_at(dir.as_fd(), name)?;
        if self.is_hidden(parent, name, &stat) {
            return Err(Errno::NOENT);
        }
        self.tell(&tree, parent, name, stat)
    }

    /// Notes that the kernel is told of an object under a name. The directory's order lock is held, so
    /// that the name can't move before it is noted.
    pub(super) fn tell(&self, _tree: &TreeShared<'_>, parent: u64, name: &[u8], stat: Statx) -> Result<Seen> {
        let nodeid = self.nodeid(&stat);
        self.nodes.remember(nodeid, parent, name);
        Ok(Seen { nodeid, stat })
    }

    /// Takes back `count` lookups.
    pub fn forget(&self, nodeid: u64, count: u64) {
        if self.nodes.forget(nodeid, count) {
            self.files.remove(nodeid);
            self.dirs.remove(nodeid);
        }
    }

    /// Keeps the node until it is forgotten once more than the kernel does; false if it is gone already.
    pub fn hold(&self, nodeid: u64) -> bool {
        self.nodes.hold(nodeid)
    }

    /// Attributes of an object.
    pub fn getattr(&self, nodeid: u64) -> Result<Seen> {
        let tree = self.commit.order().shared();
        let stat = self.steady(&tree, nodeid, || {
            let stat = match self.nodes.place(nodeid)? {
                Place::Root => object::stat(self.root.as_fd())?,
                Place::Nameless(fd) => object::stat(fd.as_fd())?,
                Place::Named(NodeName { parent, name }) => {
                    object::stat_at(self.dir(&tree, parent)?.as_fd(), &name)?
                }
            };
            if self.nodeid(&stat) == nodeid { Ok(stat) } else { Err(Errno::STALE) }
        })?;
        Ok(Seen { nodeid, stat })
    }

    /// True for what is foreign and no directory: it can't be shown as an empty one. Either is noted as left out.
    pub(super) fn is_hidden(&self, parent: u64, name: &[u8], stat: &Statx) -> bool {
        if !self.is_foreign(stat) {
            return false;
        }
        if let Ok(path) = self.path_of_new(parent, name) {
            self.left_out.note(Why::Foreign, path);
        }
        object::file_type(stat) != libc::S_IFDIR
    }

    /// The target of a symlink.
    pub fn readlink(&self, nodeid: u64) -> Result<Vec<u8>> {
        let tree = self.commit.order().shared();
        self.steady(&tree, nodeid, || object::read_link(self.object(nodeid)?.fd.as_fd()))
    }

    /// Numbers of the backing file system.
    pub fn statfs(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(&self.root.fd)
    }
}
