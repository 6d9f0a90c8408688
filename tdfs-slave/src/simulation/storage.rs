//! The disk below the master's log: the faulty one of the log's own tests.

#[allow(dead_code, reason = "made for the tests of the log, which use all of it")]
#[path = "../../../tdfs-wire/src/log/tests/faulty.rs"]
mod faulty;
#[allow(dead_code, reason = "made for the tests of the log, which use all of it")]
#[path = "../../../tdfs-wire/src/log/tests/rng.rs"]
mod rng;

use faulty::FaultyStorage;
use rng::Rng;
use tdfs_wire::log::Storage;

/// A flat directory of segments in memory.
#[derive(Default)]
pub struct Disk(FaultyStorage);

impl Disk {
    /// For the log; all see the same files.
    pub fn storage(&self) -> Box<dyn Storage> {
        self.0.boxed()
    }

    /// The next append takes `bytes` bytes, and then nothing more is done: the process is killed.
    pub fn tear_after(&self, bytes: usize) {
        self.0.faults(|faults| (faults.tear, faults.truncate_fails) = (Some(bytes), true));
    }

    /// What the next process finds after a kill: all that was written.
    #[must_use]
    pub fn after_kill(&self) -> Disk {
        Disk(self.0.copy())
    }

    /// What it finds after an OS crash: what was synced, and some of the rest.
    #[must_use]
    pub fn after_crash(&self, seed: u64) -> Disk {
        Disk(self.0.after_crash(&mut Rng(seed)))
    }
}
