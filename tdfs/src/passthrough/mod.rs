//! The operations of a file system on the backing tree, with plain arguments and plain results.
//!
//! Called by `fuse/`, whose types end there. Each operation that changes something goes through
//! `commit`; none touches the network. Files by family: `namespace`, `data`, `attr`, `xattr` change,
//! `lookup` and `dir` read.
//!
//! Every path is built and used under the shared tree lock, and what was opened must be the node's own
//! inode: the kernel caches our answers for very long, so none may be about another object.

mod attr;
mod cache;
mod caller;
mod data;
mod dir;
mod left_out;
mod lookup;
mod lost;
mod namespace;
mod nodes;
mod stores;
mod unfinished;
mod xattr;

pub use attr::{SetTime, SetTimes};
pub use caller::Caller;
pub use data::{Range, WRITE_BYTES_MAX};
pub use dir::{DirItem, Listed};
pub use left_out::{LeftOut, Why};
pub use lookup::Seen;
pub use lost::Lost;
pub use nodes::ROOT;

use crate::commit::{Commit, TreeShared};
use cache::{Cache, DIRS_MAX, DataFd, Dir, FILES_MAX};
use nodes::{NodeName, Nodes, Place};
use rustix::fs::{Mode, OFlags, Statx, StatxAttributes};
use rustix::io::{Errno, Result};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use stores::{Stores, open_quietly};
use tdfs_host::object;
use tdfs_wire::TreePath;
use tdfs_wire::op::XattrName;

/// The backing tree, served.
pub struct Passthrough {
    root: Arc<Dir>,
    root_ino: u64,
    device: u64,
    owner: Caller,
    commit: Commit,
    nodes: Nodes,
    dirs: Cache<Dir>,
    files: Cache<DataFd>,
    lost: Lost,
    left_out: LeftOut,
    stores: Stores,
}

/// An object that an operation works on: a path fd and, where it has a known name, its path.
struct Object {
    fd: OwnedFd,
    stat: Statx,
    path: Option<TreePath>,
}

impl Passthrough {
    /// Serves the tree below `root`, a path fd of its directory.
    pub fn new(root: OwnedFd, commit: Commit) -> Result<Passthrough> {
        let stat = object::stat(root.as_fd())?;
        Ok(Passthrough {
            root_ino: stat.stx_ino,
            device: object::device(&stat),
            owner: Caller {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                pid: 0,
            },
            root: Arc::new(Dir::new(root, false)),
            commit,
            nodes: Nodes::default(),
            dirs: Cache::new(DIRS_MAX),
            files: Cache::new(FILES_MAX),
            lost: Lost::default(),
            left_out: LeftOut::default(),
            stores: Stores::default(),
        })
    }

    /// Order locks and log.
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// The path fd of the root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Objects that were changed while no name of them was known, and are being looked for.
    pub fn lost(&self) -> &Lost {
        &self.lost
    }

    /// What was met that no replica can get.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// True for what is no part of the tree that is served, though it stands in it: on another file system, in another
    /// subvolume, which nothing is mounted for, or a bind mount.
    pub fn is_foreign(&self, stat: &Statx) -> bool {
        let mounted = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        object::device(stat) != self.device || (mounted && stat.stx_ino != self.root_ino)
    }

    /// nodeid of the object that a stat describes: its inode number, 1 for the root. What is foreign gets a number that
    /// no inode has, made with its device's: many have the same inode number.
    fn nodeid(&self, stat: &Statx) -> u64 {
        match stat.stx_ino {
            ino if self.is_foreign(stat) => FOREIGN | (ino ^ (object::device(stat) << 32)),
            ino if ino == self.root_ino => ROOT,
            ino => ino,
        }
    }

    /// The key of the object's order lock.
    fn lock_key(&self, nodeid: u64) -> u64 {
        if nodeid == ROOT { self.root_ino } else { nodeid }
    }

    /// EXDEV for what is foreign.
    fn check_own(&self, stat: &Statx) -> Result<()> {
        if self.is_foreign(stat) { Err(Errno::XDEV) } else { Ok(()) }
    }

    /// EXDEV for a foreign directory: nothing is reached below it.
    fn check_own_node(nodeid: u64) -> Result<()> {
        if nodeid & FOREIGN == 0 { Ok(()) } else { Err(Errno::XDEV) }
    }

    /// The directory of a node, from the cache or opened step by step from the nearest directory that is
    /// there. Steps are single names, so no path is too long.
    fn dir(&self, tree: &TreeShared<'_>, nodeid: u64) -> Result<Arc<Dir>> {
        let _ = tree;
        self.dir_locked(nodeid)
    }

    /// [`Passthrough::dir`] for those who hold the tree lock in either way.
    fn dir_locked(&self, nodeid: u64) -> Result<Arc<Dir>> {
        Self::check_own_node(nodeid)?;
        let mut missing: Vec<(u64, NodeName)> = Vec::new();
        let mut at = nodeid;
        let mut dir = loop {
            if let Some(dir) = self.dirs.get(at) {
                break dir;
            }
            match self.nodes.place(at)? {
                Place::Root => {
                    let root = object::reopen(self.root.as_fd(), OFlags::PATH | OFlags::DIRECTORY)?;
                    break self.keep_dir(ROOT, root)?;
                }
                Place::Nameless(fd) => {
                    let fd = rustix::io::fcntl_dupfd_cloexec(&*fd, 0)?;
                    break self.keep_dir(at, fd)?;
                }
                Place::Named(name) => {
                    let parent = name.parent;
                    missing.push((at, name));
                    at = parent;
                }
            }
        };
        while let Some((nodeid, name)) = missing.pop() {
            dir = self.keep_dir(nodeid, object::open_dir(dir.as_fd(), &name.name)?)?;
        }
        Ok(dir)
    }

    fn keep_dir(&self, nodeid: u64, fd: OwnedFd) -> Result<Arc<Dir>> {
        let stat = object::stat(fd.as_fd())?;
        if self.nodeid(&stat) != nodeid {
            return Err(Errno::STALE);
        }
        let setgid = object::permissions(&stat) & libc::S_ISGID != 0;
        let dir = Arc::new(Dir::new(fd, setgid));
        self.dirs.put(nodeid, dir.clone());
        Ok(dir)
    }

    /// Runs `look` for an object whose order lock is not held. A name can move between our look at the table
    /// and the use of it; then we look again below the object's lock.
    fn steady<T>(&self, tree: &TreeShared<'_>, nodeid: u64, look: impl Fn() -> Result<T>) -> Result<T> {
        match look() {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => {
                let _held = tree.reading(self.lock_key(nodeid));
                look()
            }
            other => other,
        }
    }

    /// Opens the object of a node as a path fd and finds its path, both exact if the object's order lock is
    /// held; else [`Passthrough::steady`] makes them so.
    ///
    /// # Errors
    /// ESTALE if another object is found; EXDEV for a foreign directory.
    fn object(&self, nodeid: u64) -> Result<Object> {
        Self::check_own_node(nodeid)?;
        let fd = match self.nodes.place(nodeid)? {
            Place::Root => object::reopen(self.root.as_fd(), OFlags::PATH | OFlags::DIRECTORY)?,
            Place::Nameless(fd) => rustix::io::fcntl_dupfd_cloexec(&*fd, 0)?,
            Place::Named(name) => object::open_path(self.dir_locked(name.parent)?.as_fd(), &name.name)?,
        };
        let stat = object::stat(fd.as_fd())?;
        if self.nodeid(&stat) != nodeid {
            return Err(Errno::STALE);
        }
        Ok(Object { path: self.nodes.path(nodeid)?, fd, stat })
    }

    /// The open file of a node, from the cache or opened. Only regular files are ever opened. As for
    /// [`Passthrough::object`], the object's order lock is held, or `steady` is around.
    fn file(&self, nodeid: u64, writable: bool) -> Result<Arc<DataFd>> {
        if let Some(file) = self.files.get(nodeid)
            && (file.writable || !writable)
        {
            return Ok(file);
        }
        let object = self.object(nodeid)?;
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let file = Arc::new(DataFd { fd: open_quietly(&object.fd, access)?, writable });
        self.files.put(nodeid, file.clone());
        Ok(file)
    }
}

/// How often an operation looks again for a directory whose name moved away before it was locked.
const RETRIES: usize = 100;
/// Marks the nodeid of a directory that is foreign: it is shown empty.
const FOREIGN: u64 = 1 << 63;

/// Runs `create` under a umask, which is the calling thread's own.
fn under_umask<T>(umask: u32, create: impl FnOnce() -> Result<T>) -> Result<T> {
    thread_local!(static UMASK: Cell<Option<u32>> = const { Cell::new(None) });
    if UMASK.get().is_none() {
        tdfs_host::sys::unshare_umask()?;
    }
    if UMASK.get() != Some(umask) {
        rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
        UMASK.set(Some(umask));
    }
    create()
}

/// The ACLs that a new object inherited, in the order in which they stand in a record's bulk.
fn inherited_acls(fd: BorrowedFd<'_>) -> Result<[Vec<u8>; 2]> {
    let acl = |name: &[u8]| match object::get_xattr(fd, name) {
        Ok(value) => Ok(value),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e),
    };
    Ok([acl(b"system.posix_acl_access")?, acl(b"system.posix_acl_default")?])
}

/// The name of an xattr if a replica carries it.
fn carried(name: &[u8]) -> Option<XattrName> {
    XattrName::new(name)
}

#[cfg(test)]
pub(crate) mod tests;
