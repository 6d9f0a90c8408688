//! The order locks: which changes may run at the same time.
//!
//! Owned by `commit`; taken by `passthrough` for every change and every path it uses, and by `resync` for
//! its answers. Lock order, and so no deadlock:
//!
//! 1. the tree lock: shared for everything, exclusive to rename a directory;
//! 2. directories, by ascending inode number;
//! 3. other objects, by ascending inode number.
//!
//! Under the exclusive tree lock no object lock is needed. A thread takes the tree lock once: taking it
//! shared a second time would wait for a writer who waits for us. Never held across an fsync or anything
//! that waits for the network.

use parking_lot::lock_api::{ArcRwLockReadGuard, ArcRwLockWriteGuard};
use parking_lot::{Mutex, RawRwLock, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::HashMap;
use std::sync::Arc;

const SHARDS: usize = 64;

type ObjectLock = Arc<RwLock<()>>;

/// The tree lock and the locks of all objects that are in use at the moment.
#[derive(Default)]
pub struct Order {
    tree: RwLock<()>,
    objects: ObjectLocks,
}

/// The shared tree lock: no directory is renamed while it is held, so paths of directories stay.
pub struct TreeShared<'a> {
    order: &'a Order,
    _guard: RwLockReadGuard<'a, ()>,
}

/// The exclusive tree lock: nothing else happens to the tree.
pub struct TreeExclusive<'a> {
    _guard: RwLockWriteGuard<'a, ()>,
}

/// Proof that all locks which a change needs are held. Without one `commit` takes nothing.
pub enum Turn<'a> {
    /// Locks of single objects below the shared tree lock.
    Objects(&'a TreeShared<'a>, Vec<Held<'a>>),
    /// The whole tree.
    Tree(&'a TreeExclusive<'a>),
}

impl Order {
    /// Takes the tree lock shared.
    pub fn shared(&self) -> TreeShared<'_> {
        TreeShared { order: self, _guard: self.tree.read() }
    }

    /// Takes the tree lock exclusively.
    pub fn exclusive(&self) -> TreeExclusive<'_> {
        TreeExclusive { _guard: self.tree.write() }
    }
}

impl<'a> TreeShared<'a> {
    /// Takes the locks of objects that a change touches: directories first, then all else; within each
    /// class in any order and with repetitions.
    pub fn turn(&'a self, directories: &[u64], others: &[u64]) -> Turn<'a> {
        let mut held = Vec::with_capacity(directories.len() + others.len());
        self.extend(&mut held, directories);
        self.extend(&mut held, others);
        Turn::Objects(self, held)
    }

    /// Takes the lock of one object so that it does not change while the guard lives.
    pub fn reading(&'a self, ino: u64) -> Reading<'a> {
        self.order.objects.read(ino)
    }

    fn extend(&'a self, held: &mut Vec<Held<'a>>, inos: &[u64]) {
        let mut inos = inos.to_vec();
        inos.sort_unstable();
        inos.dedup();
        held.extend(inos.into_iter().map(|ino| self.order.objects.write(ino)));
    }
}

impl Turn<'_> {
    /// Adds locks of objects that are no directories; allowed once, after the directories' locks.
    pub fn add_others(&mut self, inos: &[u64]) {
        match self {
            Turn::Objects(tree, held) => tree.extend(held, inos),
            Turn::Tree(_) => {}
        }
    }
}

/// One lock per object in use, made when first wanted and gone with the last who wants it.
struct ObjectLocks {
    shards: [Mutex<HashMap<u64, ObjectLock>>; SHARDS],
}

impl Default for ObjectLocks {
    fn default() -> ObjectLocks {
        ObjectLocks { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl ObjectLocks {
    fn shard(&self, ino: u64) -> &Mutex<HashMap<u64, ObjectLock>> {
        let shard = usize::try_from(ino % SHARDS as u64).expect("a remainder of SHARDS");
        &self.shards[shard]
    }

    fn get(&self, ino: u64) -> ObjectLock {
        self.shard(ino).lock().entry(ino).or_default().clone()
    }

    fn write(&self, ino: u64) -> Held<'_> {
        let guard = self.get(ino).write_arc();
        Held { locks: self, ino, guard: Some(guard) }
    }

    fn read(&self, ino: u64) -> Reading<'_> {
        let guard = self.get(ino).read_arc();
        Reading { locks: self, ino, guard: Some(guard) }
    }

    /// Drops the lock from the table if only the table has it. New users come through the table, under
    /// the shard's mutex, so the count can't rise from one meanwhile.
    fn tidy(&self, ino: u64) {
        let mut shard = self.shard(ino).lock();
        if shard.get(&ino).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            shard.remove(&ino);
        }
    }
}

/// The lock of one object, held to change it.
pub struct Held<'a> {
    locks: &'a ObjectLocks,
    ino: u64,
    guard: Option<ArcRwLockWriteGuard<RawRwLock, ()>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.locks.tidy(self.ino);
    }
}

/// The lock of one object, held to read it.
pub struct Reading<'a> {
    locks: &'a ObjectLocks,
    ino: u64,
    guard: Option<ArcRwLockReadGuard<RawRwLock, ()>>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.locks.tidy(self.ino);
    }
}
