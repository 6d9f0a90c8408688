//! The replica as a place: from a path to a file descriptor, always below the root, never through a symlink.
//!
//! Used by `replay` and by `resync`, which see the replica through nothing else. Keeps small caches of
//! directories and open files by path, so that the writes that follow a create cost no open. Whoever renames
//! or removes says so by [`Target::drop_at_or_below`], or later records would reach the wrong object.
//! Never opens a FIFO, a socket or a device: content is reached only through what fstat calls a regular file.

use crate::replay::widened::Widened;
use lru::LruCache;
use rustix::fs::{Advice, Mode, OFlags};
use rustix::io::{Errno, Result};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use tdfs_host::object;
use tdfs_wire::TreePath;

/// Most path fds of directories that are kept.
pub const DIRS_MAX: usize = 256;
/// Most open files that are kept: the files of so many directories as a resync lists at once, 16 in each, stay
/// open from their making until they are filled.
pub const FILES_MAX: usize = 512;

/// The root of a replica with the objects below it that were used last.
///
/// Invariant: each cached fd names the object that its path names in the replica, as far as changes made
/// through this value go.
pub struct Target {
    root: Arc<OwnedFd>,
    dirs: LruCache<Box<[u8]>, Arc<OwnedFd>>,
    files: LruCache<Box<[u8]>, Arc<OwnedFd>>,
    widened: Widened,
    from_disk: bool,
}

impl Target {
    /// Opens the replica whose root is `dir`.
    ///
    /// # Errors
    /// Those of open(2): ENOENT, ENOTDIR ...
    pub fn open(dir: &Path) -> io::Result<Target> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Target::new(rustix::fs::open(dir, flags, Mode::empty())?))
    }

    /// The replica whose root the path fd `root` names.
    pub fn new(root: OwnedFd) -> Target {
        let limit = |max| NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN);
        Target {
            root: Arc::new(root),
            dirs: LruCache::new(limit(DIRS_MAX)),
            files: LruCache::new(limit(FILES_MAX)),
            widened: Widened::default(),
            from_disk: false,
        }
    }

    /// Notes in the file `path` what is widened, and takes over what a killed process left so.
    ///
    /// # Errors
    /// When the file can't be read or made.
    pub fn note_widened(&mut self, path: &Path) -> io::Result<()> {
        self.widened = Widened::load(path)?;
        Ok(())
    }

    /// What is widened at present.
    pub(super) fn widened(&mut self) -> &mut Widened {
        &mut self.widened
    }

    /// Whether content is to be read from the disk and not from memory, which can differ after a failed sync.
    pub fn read_from_disk(&mut self, from_disk: bool) {
        self.from_disk = from_disk;
    }

    /// The path fd of the root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A path fd of the directory `path`, reached component by component from the longest path that is cached.
    ///
    /// # Errors
    /// ENOENT or ENOTDIR (a symlink is no directory) at any component; EXDEV where something is mounted.
    pub fn dir(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>> {
        self.dir_of_bytes(path.as_bytes())
    }

    fn dir_of_bytes(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>> {
        #[cfg(test)]
        faults::check()?;
        let (mut known, mut dir) = self.longest_cached(path);
        while known < path.len() {
            let start = if known == 0 { 0 } else { known + 1 };
            let end = path[start..].iter().position(|&b| b == b'/').map_or(path.len(), |slash| start + slash);
            dir = Arc::new(object::open_dir(dir.as_fd(), &path[start..end])?);
            self.dirs.put(path[..end].into(), Arc::clone(&dir));
            known = end;
        }
        Ok(dir)
    }

    /// The longest leading part of `path` that is cached: its length in bytes, and its directory.
    fn longest_cached(&mut self, path: &[u8]) -> (usize, Arc<OwnedFd>) {
        let mut end = path.len();
        while end > 0 {
            if let Some(dir) = self.dirs.get(&path[..end]) {
                return (end, Arc::clone(dir));
            }
            end = path[..end].iter().rposition(|&b| b == b'/').unwrap_or(0);
        }
        (0, Arc::clone(&self.root))
    }

    /// The directory that holds `path`, and its name there.
    ///
    /// # Errors
    /// EINVAL for the root; else those of [`Target::dir`].
    pub fn parent<'p>(&mut self, path: &'p TreePath) -> Result<(Arc<OwnedFd>, &'p [u8])> {
        let (parent, name) = split(path)?;
        Ok((self.dir_of_bytes(parent)?, name))
    }

    /// A path fd of the object `path`, whatever it is; the root too.
    ///
    /// # Errors
    /// Those of [`Target::dir`] for its parent; ENOENT.
    pub fn object(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>> {
        if path.is_root() {
            return Ok(Arc::clone(&self.root));
        }
        let (parent, name) = self.parent(path)?;
        Ok(Arc::new(object::open_path(parent.as_fd(), name)?))
    }

    /// The regular file `path`, open for reading and writing; kept open for the next use.
    ///
    /// # Errors
    /// EISDIR for a directory, EINVAL for anything else that is no regular file; ETXTBSY, EACCES ... of open(2).
    pub fn file(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>> {
        #[cfg(test)]
        faults::check()?;
        if let Some(file) = self.files.get(path.as_bytes()) {
            return Ok(Arc::clone(file));
        }
        let object = self.object(path)?;
        let file = Arc::new(self.open_file(object.as_fd(), OFlags::RDWR)?);
        self.files.put(path.as_bytes().into(), Arc::clone(&file));
        Ok(file)
    }

    /// The regular file `path`, open at least for reading: for sources of copies, and to compare content.
    ///
    /// # Errors
    /// As [`Target::file`], but a file that can't be opened for writing will do.
    pub fn file_to_read(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>> {
        match self.file(path) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => {
                let object = self.object(path)?;
                Ok(Arc::new(self.open_file(object.as_fd(), OFlags::RDONLY)?))
            }
            file => file,
        }
    }

    fn open_file(&self, object: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
        let file = object::reopen(object, flags | OFlags::NOCTTY)?;
        if self.from_disk {
            // Advice: what is dirty stays in memory, and was not lost.
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
        }
        Ok(file)
    }

    /// Keeps `file`, just created as `path` and open for reading and writing, for the writes that follow.
    pub fn keep_file(&mut self, path: &TreePath, file: OwnedFd) -> Arc<OwnedFd> {
        let file = Arc::new(file);
        self.files.put(path.as_bytes().into(), Arc::clone(&file));
        file
    }

    /// An fd of `path` by which its attributes can be set: an open file that is kept, a directory that is
    /// kept, else a new path fd.
    ///
    /// # Errors
    /// Those of [`Target::object`].
    pub fn attributes(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>> {
        #[cfg(test)]
        faults::check()?;
        if let Some(fd) = self.files.get(path.as_bytes()).or_else(|| self.dirs.get(path.as_bytes())) {
            return Ok(Arc::clone(fd));
        }
        self.object(path)
    }

    /// Forgets what is kept of `path`, which is no directory (unlink).
    pub fn drop_file(&mut self, path: &TreePath) {
        self.files.pop(path.as_bytes());
    }

    /// Forgets what is kept of `path` and of everything below it (rename, rmdir, exchange).
    pub fn drop_at_or_below(&mut self, path: &TreePath) {
        drop_below(&mut self.files, path.as_bytes());
        drop_below(&mut self.dirs, path.as_bytes());
    }

    /// Forgets everything: somebody else may have changed the replica.
    pub fn drop_all(&mut self) {
        self.files.clear();
        self.dirs.clear();
    }
}

/// The parent and the name of a path, without copying it.
fn split(path: &TreePath) -> Result<(&[u8], &[u8])> {
    let bytes = path.as_bytes();
    match bytes.iter().rposition(|&b| b == b'/') {
        _ if bytes.is_empty() => Err(Errno::INVAL),
        Some(slash) => Ok((&bytes[..slash], &bytes[slash + 1..])),
        None => Ok((&bytes[..0], bytes)),
    }
}

fn drop_below(cache: &mut LruCache<Box<[u8]>, Arc<OwnedFd>>, path: &[u8]) {
    let below = |key: &[u8]| {
        path.is_empty() || (key.starts_with(path) && (key.len() == path.len() || key[path.len()] == b'/'))
    };
    let gone: Vec<Box<[u8]>> =
        cache.iter().filter(|(key, _)| below(key)).map(|(key, _)| key.clone()).collect();
    for key in gone {
        cache.pop(&key);
    }
}

/// Lets a replica fail as a full disk does, at a point inside of an op: for the simulation.
#[cfg(test)]
pub(crate) mod faults {
    use rustix::io::{Errno, Result};
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// After so many more calls of this thread all fail, until this is called again; None: none fails.
    pub(crate) fn fail_after(calls: Option<u32>) {
        LEFT.set(calls);
    }

    pub(super) fn check() -> Result<()> {
        match LEFT.get() {
            Some(0) => Err(Errno::NOSPC),
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
