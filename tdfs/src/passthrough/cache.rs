//! Open backing fds of objects in use: a bounded number, whatever the number of nodes or of open files.
//!
//! Owned by `Passthrough`. Any of them can go at any time and is opened again when it is wanted, so no
//! state but speed hangs on them. An fd keeps its inode alive: it goes when the kernel forgets the node.

use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tdfs_host::object;
use tdfs_wire::Time;

/// Most directories that are kept open.
pub const DIRS_MAX: usize = 256;
/// Most regular files that are kept open.
pub const FILES_MAX: usize = 256;

/// A directory: its path fd and what new objects in it inherit.
#[derive(Debug)]
pub struct Dir {
    /// The path fd.
    pub fd: OwnedFd,
    /// Its inode has the setgid bit: new objects get its group.
    pub setgid: bool,
    /// Where a listing of it ends, if one did since its last change; else 0. The kernel asks once more there.
    pub end: AtomicU64,
    /// It has a default ACL, which new objects inherit; looked up when the first one is made.
    pub default_acl: OnceLock<bool>,
}

impl Dir {
    /// A directory of which no more is known.
    pub fn new(fd: OwnedFd, setgid: bool) -> Dir {
        Dir { fd, setgid, end: AtomicU64::new(0), default_acl: OnceLock::new() }
    }

    /// Its mtime right after a change of its names; its order lock is held.
    pub fn mtime_after_change(&self) -> rustix::io::Result<Time> {
        self.end.store(0, Ordering::Relaxed);
        Ok(object::mtime(&object::stat(self.fd.as_fd())?))
    }

    /// True if new objects inherit ACLs.
    pub fn has_default_acl(&self) -> bool {
        let look = || object::get_xattr(self.fd.as_fd(), b"system.posix_acl_default").is_ok();
        *self.default_acl.get_or_init(look)
    }
}

/// A regular file that is open for reading, maybe for writing.
#[derive(Debug)]
pub struct DataFd {
    /// The fd.
    pub fd: OwnedFd,
    /// Opened O_RDWR.
    pub writable: bool,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsFd for DataFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The fds of one class by nodeid; the one that was not used for longest goes first.
pub struct Cache<T> {
    fds: Mutex<LruCache<u64, Arc<T>>>,
}

impl<T> Cache<T> {
    /// Keeps at most `max`.
    pub fn new(max: usize) -> Cache<T> {
        Cache { fds: Mutex::new(LruCache::new(NonZeroUsize::new(max).expect("room for one"))) }
    }

    /// The fd of the node, if it is there.
    pub fn get(&self, ino: u64) -> Option<Arc<T>> {
        self.fds.lock().get(&ino).cloned()
    }

    /// Keeps an fd of the node, in place of another one.
    pub fn put(&self, ino: u64, fd: Arc<T>) {
        let replaced = self.fds.lock().push(ino, fd);
        drop(replaced); // closed outside the lock
    }

    /// Lets the fd of the node go.
    pub fn remove(&self, ino: u64) {
        let removed = self.fds.lock().pop(&ino);
        drop(removed);
    }
}
