//! A storage in memory that loses what was not synced, tears writes, and gets full.

use super::super::{Storage, StorageFile};
use super::Rng;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// What an OS crash loses or keeps as a whole, in bytes.
const SECTOR: usize = 512;

type Content = Arc<Mutex<FileState>>;

#[derive(Clone, Default)]
pub(super) struct FaultyStorage(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, Content>,
    names_synced: BTreeSet<String>,
    faults: Faults,
}

/// What goes wrong from now on.
#[derive(Clone, Default)]
pub(super) struct Faults {
    /// Bytes that fit in all files together; None: any number.
    pub(super) capacity: Option<u64>,
    /// The storage has no preallocation.
    pub(super) preallocates_nothing: bool,
    /// The next write takes so many bytes, and the one after it fails.
    pub(super) tear: Option<usize>,
    pub(super) write_fails: bool,
    pub(super) truncate_fails: bool,
    pub(super) remove_fails: bool,
    pub(super) sync_fails: bool,
}

#[derive(Default)]
struct FileState {
    live: Vec<u8>,
    synced: Vec<u8>,
    allocated: u64,
}

struct FaultyFile {
    content: Content,
    disk: Arc<Mutex<Disk>>,
}

fn broken() -> io::Error {
    io::Error::from(io::ErrorKind::Other)
}

impl FaultyStorage {
    pub(super) fn boxed(&self) -> Box<dyn Storage> {
        Box::new(self.clone())
    }

    pub(super) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.0.lock().faults);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.lock().files.keys().cloned().collect()
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        self.0.lock().files[name].lock().live.clone()
    }

    pub(super) fn write(&self, name: &str, live: Vec<u8>) {
        let content = FileState { live, ..FileState::default() };
        self.0.lock().files.insert(name.into(), Arc::new(Mutex::new(content)));
    }

    /// Bytes that all files take, preallocated ones too.
    pub(super) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// From now on only what was written has its space.
    pub(super) fn forget_preallocated(&self) {
        self.0.lock().files.values().for_each(|file| file.lock().allocated = 0);
    }

    /// A copy as another process would find it now, without faults.
    pub(super) fn copy(&self) -> FaultyStorage {
        let copy = FaultyStorage::default();
        self.names().iter().for_each(|name| copy.write(name, self.read(name)));
        copy
    }

    /// What a power cut may leave: all that was synced, and some sectors of the rest.
    pub(super) fn after_crash(&self, rng: &mut Rng) -> FaultyStorage {
        let (after, disk) = (FaultyStorage::default(), self.0.lock());
        for (name, content) in &disk.files {
            if !disk.names_synced.contains(name) && rng.below(2) == 0 {
                continue;
            }
            let content = content.lock();
            let kept = content.live.len().min(content.synced.len());
            let len = kept + rng.below(content.live.len() - kept + 1);
            let mut bytes = content.live[..len].to_vec();
            for sector in (kept..len).step_by(SECTOR) {
                if rng.below(4) == 0 {
                    let end = len.min(sector + SECTOR);
                    bytes[sector..end].fill(0);
                }
            }
            after.write(name, bytes);
        }
        after
    }
}

impl Disk {
    fn used(&self) -> u64 {
        self.files.values().map(|file| file.lock().size()).sum()
    }

    /// Whether `content` may take `allocated` bytes; what lies beyond must come from somewhere.
    fn grow(&self, content: &Content, to: u64) -> io::Result<()> {
        let mine = { content.lock().size() };
        let used = self.used();
        match self.faults.capacity {
            Some(capacity) if to > mine && used + (to - mine) > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl FileState {
    fn size(&self) -> u64 {
        self.allocated.max(self.live.len() as u64)
    }
}

impl Storage for FaultyStorage {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut disk = self.0.lock();
        if disk.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        disk.files.insert(name.into(), Content::default());
        drop(disk);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let disk = self.0.lock();
        let content = disk.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FaultyFile { content: Arc::clone(content), disk: Arc::clone(&self.0) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.0.lock();
        if disk.faults.remove_fails {
            return Err(broken());
        }
        disk.files.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.names_synced = disk.files.keys().cloned().collect();
        Ok(())
    }
}

impl StorageFile for FaultyFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content.lock().live.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let rest = content.live.get(usize::try_from(offset).map_err(|_| broken())?..).unwrap_or_default();
        // Short reads are allowed, so there are some.
        let len = rest.len().min(buffer.len()).min(40_000);
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, parts: [&[u8]; 2], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        if disk.faults.write_fails {
            return Err(broken());
        }
        let offset = usize::try_from(offset).map_err(|_| broken())?;
        let mut bytes = parts.concat();
        if let Some(taken) = disk.faults.tear.take() {
            bytes.truncate(taken);
            disk.faults.write_fails = true;
            if bytes.is_empty() {
                return Err(broken());
            }
        }
        disk.grow(&self.content, (offset + bytes.len()) as u64)?;
        let mut content = self.content.lock();
        assert!(offset <= content.live.len(), "the log wrote beyond its end");
        let end = content.live.len().max(offset + bytes.len());
        content.live.resize(end, 0);
        content.live[offset..offset + bytes.len()].copy_from_slice(&bytes);
        Ok(bytes.len())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        if self.disk.lock().faults.truncate_fails {
            return Err(broken());
        }
        let mut content = self.content.lock();
        content.live.resize(usize::try_from(size).map_err(|_| broken())?, 0);
        content.allocated = 0;
        Ok(())
    }

    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let disk = self.disk.lock();
        if disk.faults.preallocates_nothing {
            return Ok(());
        }
        disk.grow(&self.content, offset + len)?;
        let mut content = self.content.lock();
        content.allocated = content.allocated.max(offset + len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.disk.lock().faults.sync_fails {
            return Err(broken());
        }
        let mut content = self.content.lock();
        content.synced = content.live.clone();
        Ok(())
    }
}
