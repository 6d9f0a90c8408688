//! Opens: who has a file open, where the kernel reads files itself (`--passthrough`).
//!
//! Used by the adapter for OPEN and RELEASE, which come only then. The kernel takes no open of a file through its page
//! cache while it passes others on, nor the other way round (EIO to the application). So the first open decides, and
//! who comes while it lasts goes with it. Does no I/O.
//!
//! ```text
//!  closed --to read only--> Passed: the kernel reads the backing file; who writes meanwhile, writes past its cache
//!         --to write------> Cached: as without --passthrough
//! ```
//! What was written while a file was Passed may stand otherwise in pages that the kernel cached before. So after the last
//! release of such a file it is *ending*: those pages are dropped, and only then it is closed. Who opens it meanwhile
//! finds it Passed still.
//!
//! A file that is opened to read and write while it is Passed can be mapped, and what is stored so reaches the backing
//! file by no request. Such a file is *watched*: see `passthrough/stores.rs`.

use fuser::BackingId;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All files that are open.
#[derive(Debug, Default)]
pub struct Opens {
    files: Mutex<HashMap<u64, Open>>,
    ended: Condvar,
}

/// How one file is open, and how often.
#[derive(Debug)]
enum Open {
    Cached { count: u64 },
    Passed { backing: Arc<BackingId>, count: u64, access: Access },
}

/// What happened while a file was Passed.
#[derive(Debug, Default)]
struct Access {
    is_written: bool,
    is_watched: bool,
    /// Last releases whose ending goes on.
    endings: u64,
}

/// How an open is to be answered.
#[derive(Debug)]
pub enum Opened {
    /// The kernel caches pages, and may keep those that it has.
    Cached,
    /// The kernel reads the backing file.
    Passed(Arc<BackingId>),
    /// The same, and reads and writes come as requests, past the kernel's cache.
    Direct(Arc<BackingId>),
}

impl Opens {
    /// A file is opened; `mode` are its O_ACCMODE bits, `back` has the kernel take the backing file. Where that can't
    /// be done, it is cached.
    pub fn open(&self, ino: u64, mode: i32, back: impl FnOnce() -> Option<BackingId>) -> Opened {
        let mut files = self.files.lock();
        let reads = mode == libc::O_RDONLY;
        let first = || match if reads { back().map(Arc::new) } else { None } {
            Some(backing) => Open::Passed { backing, count: 0, access: Access::default() },
            None => Open::Cached { count: 0 },
        };
        match files.entry(ino).or_insert_with(first) {
            Open::Passed { backing, count, access } => {
                *count += 1;
                access.is_written |= !reads;
                access.is_watched |= mode == libc::O_RDWR;
                let backing = Arc::clone(backing);
                if reads { Opened::Passed(backing) } else { Opened::Direct(backing) }
            }
            Open::Cached { count } => {
                *count += 1;
                Opened::Cached
            }
        }
    }

    /// One open of a file has ended; true with the last one of a file that was written while it was Passed: `end` has to
    /// follow when the kernel's pages of it are dropped.
    pub fn release(&self, ino: u64) -> bool {
        let mut files = self.files.lock();
        let Entry::Occupied(mut file) = files.entry(ino) else { return false };
        match file.get_mut() {
            Open::Cached { count } if *count > 1 => *count -= 1,
            Open::Passed { count, access, .. } if *count > 1 || access.is_written => {
                *count -= 1;
                let ends = *count == 0;
                access.endings += u64::from(ends);
                return ends;
            }
            _ => drop(file.remove()),
        }
        false
    }

    /// The ending that the last release began is over.
    pub fn end(&self, ino: u64) {
        let mut files = self.files.lock();
        if let Some(Open::Passed { count, access, .. }) = files.get_mut(&ino) {
            access.endings -= 1;
            if *count == 0 && access.endings == 0 {
                files.remove(&ino);
            }
        }
        self.ended.notify_all();
    }

    /// Waits until nothing is ending, at most so long; true if that was so.
    pub fn wait_until_ended(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let ends = |open: &Open| matches!(open, Open::Passed { access, .. } if access.endings > 0);
        let mut files = self.files.lock();
        while files.values().any(ends) {
            if self.ended.wait_until(&mut files, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    /// True if the kernel reads the file itself.
    pub fn is_passed(&self, ino: u64) -> bool {
        matches!(self.files.lock().get(&ino), Some(Open::Passed { .. }))
    }

    /// True if the file is watched.
    pub fn is_watched(&self, ino: u64) -> bool {
        matches!(
            self.files.lock().get(&ino),
            Some(Open::Passed { access: Access { is_watched: true, .. }, .. })
        )
    }

    /// All files that are watched.
    pub fn watched(&self) -> Vec<u64> {
        let files = self.files.lock();
        let is_watched = |open: &Open| matches!(open, Open::Passed { access, .. } if access.is_watched);
        let watched = files.iter().filter(|(_, open)| is_watched(open));
        watched.map(|(ino, _)| *ino).collect()
    }
}
