//! Opens: who has a file open, where the kernel reads files itself (`--passthrough`).
//!
//! Used by the adapter for OPEN and RELEASE, which come only then, and by `watch.rs`. The kernel takes no open of a file
//! through its page cache while it passes others on, nor the other way round (EIO to the application). So the first open
//! decides, and who comes while it lasts goes with it.
//!
//! ```text
//!  closed --to read only--> Passed: the kernel reads the backing file; who writes meanwhile, writes past its cache
//!    ^    --to write------> Cached: as without --passthrough
//!    |
//!    +---- nobody uses it: its ending is over <---- lingering <---- Passed, last release
//! ```
//! A mapping of a Passed file is one of the backing file, and no release tells of its end. So behind its last release a file
//! *lingers*: it is Passed still, for who opens it. From time to time somebody looks if the backing file is used by anybody
//! ([`Opens::let_go`]). If not, it is *ending*: what was stored is looked for, the kernel's pages, which what was written
//! meanwhile did not reach, are dropped, and only then it is closed. Who opens it meanwhile finds it Passed still.
//!
//! A file that is opened to read and write while it is Passed can be mapped, and what is stored so reaches the backing
//! file by no request. Such a file is *watched* until it is closed: see `passthrough/stores.rs`. A Passed file holds its node:
//! the kernel may forget that while a mapping lives.

use crate::passthrough::Passthrough;
use fuser::BackingId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// While so many files linger, no further one is passed on: each is looked at every second.
const LINGERING_MAX: usize = 4096;

/// All files that are open.
pub struct Opens {
    files: Mutex<Files>,
    passthrough: Arc<Passthrough>,
}

#[derive(Debug, Default)]
struct Files {
    by_ino: HashMap<u64, Open>,
    /// How many are Passed and not open.
    lingering: usize,
}

/// How one file is open, and how often.
#[derive(Debug)]
enum Open {
    Cached { count: u64 },
    Passed(Passed),
}

#[derive(Debug)]
struct Passed {
    /// None where the kernel had to let the backing file go, to see if anybody uses it.
    backing: Option<Arc<BackingId>>,
    count: u64,
    access: Access,
    /// Nobody used it when that was looked at, and nobody has opened it since.
    is_ending: bool,
}

/// What happened while a file was Passed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// By requests that went past the kernel's pages.
    pub is_written: bool,
    /// It may be stored into unseen.
    pub is_watched: bool,
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
    /// It is Passed, and the kernel does not take the backing file again.
    Refused,
}

impl Opens {
    /// No file is open.
    pub fn new(passthrough: Arc<Passthrough>) -> Opens {
        Opens { files: Mutex::default(), passthrough }
    }

    /// A file is opened with these flags of open(2); `back` has the kernel take the backing file. Where that can't
    /// be done, it is cached.
    ///
    /// With O_DIRECT the kernel would ask of the application what the backing file system asks: so none is Passed first.
    pub fn open(&self, ino: u64, flags: i32, back: impl Fn() -> Option<BackingId>) -> Opened {
        let reads = flags & libc::O_ACCMODE == libc::O_RDONLY;
        let passes = reads && flags & libc::O_DIRECT == 0;
        let files = &mut *self.files.lock();
        let room = files.lingering < LINGERING_MAX;
        let first = || match if passes && room { back() } else { None } {
            Some(backing) if self.passthrough.hold(ino) => {
                files.lingering += 1; // until it is counted as open, below
                let backing = Some(Arc::new(backing));
                Open::Passed(Passed { backing, count: 0, access: Access::default(), is_ending: false })
            }
            _ => Open::Cached { count: 0 },
        };
        match files.by_ino.entry(ino).or_insert_with(first) {
            Open::Cached { count } => {
                *count += 1;
                Opened::Cached
            }
            Open::Passed(passed) => {
                let Some(backing) = passed.backing.take().or_else(|| back().map(Arc::new)) else {
                    return Opened::Refused;
                };
                files.lingering -= usize::from(passed.count == 0);
                passed.count += 1;
                passed.is_ending = false;
                passed.access.is_written |= !reads;
                if flags & libc::O_ACCMODE == libc::O_RDWR && !passed.access.is_watched {
                    passed.access.is_watched = true;
                    self.passthrough.watch_stores(ino);
                }
                passed.backing = Some(Arc::clone(&backing));
                if passes { Opened::Passed(backing) } else { Opened::Direct(backing) }
            }
        }
    }

    /// One open of a file has ended; true if it lingers now.
    pub fn release(&self, ino: u64) -> bool {
        let files = &mut *self.files.lock();
        let Entry::Occupied(mut file) = files.by_ino.entry(ino) else { return false };
        match file.get_mut() {
            Open::Cached { count } if *count > 1 => *count -= 1,
            Open::Cached { .. } => drop(file.remove()),
            Open::Passed(passed) => {
                passed.count -= 1;
                files.lingering += usize::from(passed.count == 0);
                return passed.count == 0;
            }
        }
        false
    }

    /// All files that linger.
    pub fn lingering(&self) -> Vec<u64> {
        self.list(|passed| passed.count == 0)
    }

    /// Has the kernel let the backing file of a lingering file go, and asks if anybody uses it all the same. If not, the
    /// file is ending, and `end` has to follow; what happened to it is given. Nobody opens it meanwhile.
    pub fn let_go(&self, ino: u64, is_used: impl FnOnce() -> bool) -> Option<Access> {
        let mut files = self.files.lock();
        let Some(Open::Passed(passed)) = files.by_ino.get_mut(&ino) else { return None };
        if passed.count > 0 {
            return None;
        }
        passed.backing = None;
        passed.is_ending = !is_used();
        passed.is_ending.then_some(passed.access)
    }

    /// Closes a file that is ending, if nobody has opened it meanwhile.
    pub fn end(&self, ino: u64) {
        let mut files = self.files.lock();
        let Some(Open::Passed(Passed { is_ending: true, access, .. })) = files.by_ino.get(&ino) else {
            return;
        };
        if access.is_watched {
            self.passthrough.forget_stores(ino);
        }
        files.lingering -= 1;
        files.by_ino.remove(&ino);
        drop(files); // a file without a name goes with its node, which takes its time
        self.passthrough.forget(ino, 1);
    }

    /// True if the kernel reads the file itself.
    pub fn is_passed(&self, ino: u64) -> bool {
        matches!(self.files.lock().by_ino.get(&ino), Some(Open::Passed(_)))
    }

    /// True if the file is watched.
    pub fn is_watched(&self, ino: u64) -> bool {
        matches!(self.files.lock().by_ino.get(&ino), Some(Open::Passed(passed)) if passed.access.is_watched)
    }

    /// All files that are watched.
    pub fn watched(&self) -> Vec<u64> {
        self.list(|passed| passed.access.is_watched)
    }

    fn list(&self, is_meant: impl Fn(&Passed) -> bool) -> Vec<u64> {
        let files = self.files.lock();
        let meant = |open: &Open| matches!(open, Open::Passed(passed) if is_meant(passed));
        files.by_ino.iter().filter(|(_, open)| meant(open)).map(|(ino, _)| *ino).collect()
    }
}
