//! The disk below the master's log: the faulty one of the log's own tests.

#[allow(dead_code, reason = "made for the tests of the log, which use all of it")]
#[path = "../../../tdfs-wire/src/log/tests/faulty.rs"]
mod faulty;
#[allow(dead_code, reason = "made for the tests of the log, which use all of it")]
#[path = "../../../tdfs-wire/src/log/tests/rng.rs"]
mod rng;

use crate::resync::tests::users::Dice;
use faulty::{Faults, FaultyStorage};
use rng::Rng;
use tdfs_wire::log::Storage;

/// A flat directory of segments in memory.
#[derive(Default)]
pub struct Disk {
    files: FaultyStorage,
    /// What is wrong with it, whoever writes to it.
    failing: Option<Faults>,
}

impl Disk {
    fn of(files: FaultyStorage, failing: Option<Faults>) -> Disk {
        files.faults(|faults| *faults = failing.clone().unwrap_or_default());
        Disk { files, failing }
    }

    /// For the log; all see the same files.
    pub fn storage(&self) -> Box<dyn Storage> {
        self.files.boxed()
    }

    /// It is full from now on, or can't be written.
    pub fn fail(&mut self, dice: &mut Dice) {
        let failing = if dice.chance(2) {
            // A file system that copies on write has to find new space for what was preallocated.
            if dice.chance(2) {
                self.files.forget_preallocated();
            }
            Faults { capacity: Some(self.files.used()), ..Faults::default() }
        } else {
            let (truncate_fails, remove_fails, sync_fails) = (dice.chance(2), dice.chance(2), dice.chance(2));
            Faults { write_fails: true, truncate_fails, remove_fails, sync_fails, ..Faults::default() }
        };
        *self = Disk::of(self.files.clone(), Some(failing));
    }

    /// It is as it should be.
    pub fn mend(&mut self) {
        *self = Disk::of(self.files.clone(), None);
    }

    pub fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// The next append takes `bytes` bytes, and then nothing more is done: the process is killed.
    pub fn tear_after(&self, bytes: usize) {
        self.files.faults(|faults| (faults.tear, faults.truncate_fails) = (Some(bytes), true));
    }

    /// What the next process finds after a kill: all that was written.
    #[must_use]
    pub fn after_kill(&self) -> Disk {
        Disk::of(self.files.copy(), self.failing.clone())
    }

    /// What it finds after an OS crash: what was synced, and some of the rest.
    #[must_use]
    pub fn after_crash(&self, seed: u64) -> Disk {
        Disk::of(self.files.after_crash(&mut Rng(seed)), self.failing.clone())
    }
}
