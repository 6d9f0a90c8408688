//! Stores that no request tells of: into mappings of the backing file, which `--passthrough` lets applications have.
//!
//! Called by `fuse/` for the files that it watches: at fsync, each second, and when nobody uses the file any more.
//! A look writes the file's pages to the disk. On disk file systems that makes the kernel notice the next store into
//! each of them, by the file's mtime and ctime: what has those of the look before has its content, too. They are taken
//! before the pages are written, so a store that comes while they are changes what the next look finds. Elsewhere
//! (tmpfs writes nothing out) nothing can be known, and the file counts as stored into each time. The numbers of these
//! files stand in the slot file: the start behind a kill -9 has them checked.

use super::Passthrough;
use crate::commit::{Change, Intent};
use parking_lot::Mutex;
use rustix::fs::{OFlags, Statx};
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};
use tdfs_host::object;
use tdfs_wire::Op;

/// mtime and ctime, in seconds and nanoseconds.
type Stamp = [(i64, u32); 2];

/// `f_type` of the file systems whose mtime tells of stores (statfs(2)): ext4, XFS, btrfs.
const TELLING: [libc::__fsword_t; 3] =
    [libc::EXT4_SUPER_MAGIC, libc::XFS_SUPER_MAGIC, libc::BTRFS_SUPER_MAGIC];
/// A younger ctime says nothing of the next store: its time may be the same, as the clock of files goes in
/// steps (before Linux 6.13), and the store that gave it may not have got its page yet.
const SETTLED_AGE: Duration = Duration::from_secs(1);

/// The files that are watched, with what the last look at each has found.
#[derive(Debug, Default)]
pub struct Stores {
    seen: Mutex<HashMap<u64, Option<Stamp>>>,
}

impl Passthrough {
    /// From now on the file may be stored into unseen.
    pub fn watch_stores(&self, nodeid: u64) {
        let mut seen = self.stores.seen.lock();
        if let Entry::Vacant(file) = seen.entry(nodeid) {
            file.insert(None);
            self.commit.slots().add_watched(nodeid);
        }
    }

    /// The file is not watched any more.
    pub fn forget_stores(&self, nodeid: u64) {
        let mut seen = self.stores.seen.lock();
        if seen.remove(&nodeid).is_some() {
            self.commit.slots().remove_watched(nodeid);
        }
    }

    /// True if the file may hold what no record tells of yet.
    pub(super) fn may_be_stored_into(&self, nodeid: u64) -> bool {
        self.stores.seen.lock().contains_key(&nodeid)
    }

    /// Has the file checked on all slaves if anything was stored since the last look. True if so.
    pub fn look_for_stores(&self, nodeid: u64) -> Result<bool> {
        let file = self.file_shared(nodeid, false)?;
        let tells = TELLING.contains(&rustix::fs::fstatfs(&file.fd)?.f_type);
        let stat = object::stat(file.as_fd())?;
        let stamp = stamp_of(&stat).filter(|_| tells);
        rustix::fs::fdatasync(&file.fd)?;
        if stamp.is_some() && self.stores.seen.lock().get(&nodeid) == Some(&stamp) {
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
            *seen = stamp;
        }
        Ok(true)
    }

    /// The file, open, with no descriptor of it kept here: to see by `is_used_elsewhere` of tdfs-host if anybody uses it.
    pub fn open_alone(&self, nodeid: u64) -> Result<OwnedFd> {
        self.files.remove(nodeid);
        let tree = self.commit.order().shared();
        self.steady(&tree, nodeid, || open_quietly(&self.object(nodeid)?.fd, OFlags::RDONLY))
    }

    /// Opens and closes the file with these flags of open(2).
    ///
    /// # Errors
    /// What stands against it: ETXTBSY while it is executed, EINVAL with O_DIRECT where the file system has none.
    pub fn try_open(&self, nodeid: u64, flags: i32) -> Result<()> {
        let flags = OFlags::from_bits_retain(flags.cast_unsigned()) & (OFlags::RWMODE | OFlags::DIRECT);
        let tree = self.commit.order().shared();
        self.steady(&tree, nodeid, || open_quietly(&self.object(nodeid)?.fd, flags)).map(drop)
    }
}

/// Opens the object of a path fd without leaving a trace in its atime, where that is allowed.
pub(super) fn open_quietly(path_fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
    match object::reopen(path_fd.as_fd(), flags | OFlags::NOATIME) {
        Err(Errno::PERM) => object::reopen(path_fd.as_fd(), flags),
        opened => opened,
    }
}

/// None as long as it says nothing.
fn stamp_of(stat: &Statx) -> Option<Stamp> {
    let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
    let (seconds, nanoseconds) = time(stat.stx_ctime);
    let changed = SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or(0), nanoseconds);
    let is_settled = changed.elapsed().is_ok_and(|age| age >= SETTLED_AGE);
    is_settled.then(|| [time(stat.stx_mtime), (seconds, nanoseconds)])
}
