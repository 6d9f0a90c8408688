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
//! A file that is opened to read and write while it is Passed can be mapped, and what is stored so reaches the backing
//! file by no request. Such a file is *watched*: see `passthrough/stores.rs`.

use fuser::BackingId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// All files that are open.
#[derive(Debug, Default)]
pub struct Opens {
    files: Mutex<HashMap<u64, Open>>,
}

/// How one file is open, and how often.
#[derive(Debug)]
enum Open {
    Cached { count: u64 },
    Passed { backing: Arc<BackingId>, count: u64, is_watched: bool },
}

/// How an open is to be answered.
#[derive(Debug)]
pub enum Opened {
    /// The kernel caches pages, and may keep those that it has.
    Cached {
        /// False: it may have been Passed before, and be written past those.
        keeps: bool,
    },
    /// The kernel reads the backing file.
    Passed(Arc<BackingId>),
    /// The same, and reads and writes come as requests, past the kernel's cache.
    Direct(Arc<BackingId>),
}

impl Opens {
    /// A file is opened; `access` are its O_ACCMODE bits, `back` has the kernel take the backing file. Where that can't
    /// be done, it is cached.
    pub fn open(&self, ino: u64, access: i32, back: impl FnOnce() -> Option<BackingId>) -> Opened {
        let mut files = self.files.lock();
        let reads = access == libc::O_RDONLY;
        let first = || match if reads { back().map(Arc::new) } else { None } {
            Some(backing) => Open::Passed { backing, count: 0, is_watched: false },
            None => Open::Cached { count: 0 },
        };
        match files.entry(ino).or_insert_with(first) {
            Open::Passed { backing, count, is_watched } => {
                *count += 1;
                *is_watched |= access == libc::O_RDWR;
                let backing = Arc::clone(backing);
                if reads { Opened::Passed(backing) } else { Opened::Direct(backing) }
            }
            Open::Cached { count } => {
                *count += 1;
                Opened::Cached { keeps: reads || *count > 1 }
            }
        }
    }

    /// One open of a file has ended; true with the last one of a file that is watched.
    pub fn release(&self, ino: u64) -> bool {
        let mut files = self.files.lock();
        let Entry::Occupied(mut file) = files.entry(ino) else { return false };
        let (count, is_watched) = match file.get_mut() {
            Open::Cached { count } => (count, false),
            Open::Passed { count, is_watched, .. } => (count, *is_watched),
        };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            file.remove();
        }
        is_last && is_watched
    }

    /// True if the kernel reads the file itself.
    pub fn is_passed(&self, ino: u64) -> bool {
        matches!(self.files.lock().get(&ino), Some(Open::Passed { .. }))
    }

    /// True if the file is watched.
    pub fn is_watched(&self, ino: u64) -> bool {
        matches!(self.files.lock().get(&ino), Some(Open::Passed { is_watched: true, .. }))
    }

    /// All files that are watched.
    pub fn watched(&self) -> Vec<u64> {
        let files = self.files.lock();
        let watched = files.iter().filter(|(_, open)| matches!(open, Open::Passed { is_watched: true, .. }));
        watched.map(|(ino, _)| *ino).collect()
    }
}
