//! Stores that no request tells of: into mappings of the backing file, which `--passthrough` lets applications have.
//!
//! Called by `fuse/` for the files that it watches: at fsync, at the last release, and each second while they are open.
//! A look writes the file's pages to the disk first. On disk file systems that makes the kernel notice the next store into
//! each of them, by the file's mtime: what has the mtime and ctime of the look before has its content, too. Elsewhere
//! (tmpfs writes nothing out) nothing can be known, and the file counts as stored into each time.

use super::Passthrough;
use crate::commit::{Change, Intent};
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use tdfs_host::object;
use tdfs_wire::Op;

/// mtime and ctime, in seconds and nanoseconds.
type Stamp = [(i64, u32); 2];

/// `f_type` of the file systems whose mtime tells of stores (statfs(2)): ext4, XFS, btrfs.
const TELLING: [libc::__fsword_t; 3] =
    [libc::EXT4_SUPER_MAGIC, libc::XFS_SUPER_MAGIC, libc::BTRFS_SUPER_MAGIC];

/// The files that are watched, with what the last look at each has found.
#[derive(Debug, Default)]
pub struct Stores {
    seen: Mutex<HashMap<u64, Option<Stamp>>>,
}

impl Passthrough {
    /// From now on the file may be stored into unseen.
    pub fn watch_stores(&self, nodeid: u64) {
        self.stores.seen.lock().entry(nodeid).or_default();
    }

    /// The file is not watched any more.
    pub fn forget_stores(&self, nodeid: u64) {
        self.stores.seen.lock().remove(&nodeid);
    }

    /// True if the file may hold what no record tells of yet.
    pub(super) fn may_be_stored_into(&self, nodeid: u64) -> bool {
        self.stores.seen.lock().contains_key(&nodeid)
    }

    /// Has the file checked on all slaves if anything was stored since the last look. True if so.
    pub fn look_for_stores(&self, nodeid: u64) -> Result<bool> {
        let file = self.file_shared(nodeid, false)?;
        rustix::fs::fdatasync(&file.fd)?;
        let stat = object::stat(file.as_fd())?;
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
        let stamp = [time(stat.stx_mtime), time(stat.stx_ctime)];
        let tells = TELLING.contains(&rustix::fs::fstatfs(&file.fd)?.f_type);
        if tells && self.stores.seen.lock().get(&nodeid) == Some(&Some(stamp)) {
            return Ok(false);
        }
        let tree = self.commit.order().shared();
        let turn = tree.turn(&[], &[self.lock_key(nodeid)]);
        match self.nodes.path(nodeid)? {
            Some(path) => {
                let (bytes, check) = (path.as_bytes().len(), Change::of(Op::Check { paths: vec![path] }));
                self.commit.change(&turn, &Intent::Nothing, bytes, || (Ok(()), Some(check)))?;
            }
            None => self.note_if_lost(nodeid, file.as_fd(), &stat),
        }
        if let Some(seen) = self.stores.seen.lock().get_mut(&nodeid) {
            *seen = Some(stamp);
        }
        Ok(true)
    }

    /// The file, open, with no descriptor of it kept here: to see by `is_used_elsewhere` of tdfs-host if anybody uses it.
    pub fn open_alone(&self, nodeid: u64) -> Result<OwnedFd> {
        self.files.remove(nodeid);
        let tree = self.commit.order().shared();
        self.steady(&tree, nodeid, || open_quietly(&self.object(nodeid)?.fd, OFlags::RDONLY))
    }
}

/// Opens the object of a path fd without leaving a trace in its atime, where that is allowed.
pub(super) fn open_quietly(path_fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
    match object::reopen(path_fd.as_fd(), flags | OFlags::NOATIME) {
        Err(Errno::PERM) => object::reopen(path_fd.as_fd(), flags),
        opened => opened,
    }
}
