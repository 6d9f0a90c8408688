//! The brake on removals: a resync that would empty a replica stops and asks a human first.
//!
//! Asked by `disk` before each removal; kept in `removals.json`, so that a kill in the middle does not begin
//! the count anew. DESIGN section 7: a typo must not delete somebody's data.

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, Result as SysResult};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tdfs_host::object;
use tdfs_host::state::{StateDir, StateError};

const FILE: &str = "removals.json";
/// A replica of at most so many objects may be emptied.
pub const SMALL: u64 = 1000;
/// Removals are noted durably in steps of so many, so that not each costs a write to the disk.
const STEP: u64 = 256;

/// The file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// Objects in the replica when the resync began; None: not counted yet.
    objects: Option<u64>,
    /// Removals that may have been done.
    removed: u64,
    /// A human has allowed all of them.
    allowed: bool,
}

/// Counts what one resync removes.
#[derive(Debug)]
pub struct Brake {
    state: Arc<StateDir>,
    kept: Kept,
    /// Removals that were done, or are about to be.
    removed: u64,
}

impl Brake {
    /// As it was when the slave ended.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn load(state: Arc<StateDir>) -> Result<Brake, StateError> {
        let kept: Kept = state.read(FILE)?.unwrap_or_default();
        Ok(Brake { state, kept, removed: kept.removed })
    }

    /// A resync begins. `objects`: how many the replica has, if that is known.
    ///
    /// # Errors
    /// When it can't be noted.
    pub fn begin(&mut self, objects: Option<u64>) -> Result<(), StateError> {
        self.removed = 0;
        self.keep(Kept { objects, ..Kept::default() })
    }

    /// A human allows the resync that goes on to remove what it has to.
    ///
    /// # Errors
    /// When it can't be noted.
    pub fn allow(&mut self) -> Result<(), StateError> {
        self.keep(Kept { allowed: true, ..self.kept })
    }

    /// May `count` more objects be removed? `total` counts the replica, where that has to be known.
    ///
    /// # Errors
    /// When it can't be counted or noted: then nothing may be removed.
    pub fn may_remove(&mut self, count: u64, total: impl FnOnce() -> io::Result<u64>) -> io::Result<bool> {
        let after = self.removed.saturating_add(count);
        if !self.kept.allowed && after > SMALL / 2 {
            let objects = match self.kept.objects {
                Some(objects) => objects,
                None => total()?.saturating_add(self.removed),
            };
            self.kept.objects = Some(objects);
            if objects > SMALL && after > objects / 2 {
                return Ok(false);
            }
        }
        if after > self.kept.removed {
            let removed = after.saturating_add(STEP);
            self.keep(Kept { removed, ..self.kept }).map_err(io::Error::other)?;
        }
        self.removed = after;
        Ok(true)
    }

    fn keep(&mut self, kept: Kept) -> Result<(), StateError> {
        if kept != self.kept {
            self.state.write(FILE, &kept)?;
            self.kept = kept;
        }
        Ok(())
    }
}

/// How many objects are below a directory (of one file system). Holds one directory open at a time: a tree can
/// be deeper than the process may have files open.
pub fn count_below(top: BorrowedFd<'_>) -> SysResult<u64> {
    let mut count = 0;
    let mut dir = object::reopen(top, OFlags::PATH | OFlags::DIRECTORY)?;
    // On the way down: each directory's inode, and the directories in it that are still to be counted.
    let mut levels = vec![(object::stat(dir.as_fd())?.stx_ino, count_names(dir.as_fd(), &mut count)?)];
    while let Some((_, dirs)) = levels.last_mut() {
        if let Some(name) = dirs.pop() {
            let Ok(below) = object::open_dir(dir.as_fd(), &name) else { continue };
            dir = below;
            levels.push((object::stat(dir.as_fd())?.stx_ino, count_names(dir.as_fd(), &mut count)?));
            continue;
        }
        levels.pop();
        let Some((above, _)) = levels.last() else { break };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = rustix::fs::openat(&dir, c"..", flags, Mode::empty())?;
        if object::stat(dir.as_fd())?.stx_ino != *above {
            return Err(Errno::AGAIN); // somebody moved it meanwhile
        }
    }
    Ok(count)
}

/// Opens a directory for counting. One that the slave, not being root, may not read is made readable for a moment.
fn open_to_count(dir: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    match object::open_to_list(dir) {
        Err(Errno::ACCESS) => {
            let mode = object::permissions(&object::stat(dir)?);
            object::set_mode(dir, mode | 0o500)?;
            let opened = object::open_to_list(dir);
            object::set_mode(dir, mode)?;
            opened
        }
        opened => opened,
    }
}

/// Counts the names in a directory; returns those of directories.
fn count_names(dir: BorrowedFd<'_>, count: &mut u64) -> SysResult<Vec<Vec<u8>>> {
    let mut dirs = Vec::new();
    for item in rustix::fs::Dir::new(open_to_count(dir)?)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        *count += 1;
        // Where the type is not told, opening it as a directory says.
        if matches!(item.file_type(), FileType::Directory | FileType::Unknown) {
            dirs.push(name.to_vec());
        }
    }
    Ok(dirs)
}
