//! Epochs of the master: what ends one, and how the next begins, in place or at a start.
//!
//! Does what `commit`, `identity` and `daemon` of tdfs do around the real log. `proven` stands for what slots and
//! `identity.json` say durably: each change since the epoch began is in its log.

use super::master::Master;
use crate::resync::tests::users::Dice;
use std::time::Instant;
use tdfs_wire::log::{Log, LogError};
use tdfs_wire::message::{Branch, LINEAGE_MAX};
use tdfs_wire::record::Draft;
use tdfs_wire::{Epoch, Id, Lsn, Op, Position};

impl Master {
    /// The present epoch: the log's, or while the daemon is down the one that is noted.
    pub fn epoch(&self) -> Epoch {
        self.log.as_ref().map_or(self.lineage[self.lineage.len() - 1].epoch, Log::epoch)
    }

    /// The daemon runs and changes get no records.
    pub fn is_in_trouble(&self) -> bool {
        self.is_up() && !self.proven
    }

    /// Records a change that was made. If the log can't take it, the epoch ends; from then on none is recorded.
    pub fn append(&mut self, op: &Op, bulk: &[u8]) {
        let Some(log) = self.log.as_ref().filter(|_| self.proven) else { return };
        let (before, mut draft) = (log.head(), Draft::new(op, bulk).unwrap());
        match log.reserve(draft.len()).and_then(|reserved| log.append(reserved, &mut draft, 0)) {
            Ok(lsn) => {
                assert_eq!(lsn, before.next(), "LSNs have no holes");
                self.history.insert((self.epoch().number, lsn), self.tree.clone());
                self.appended += 1;
            }
            Err(e) => {
                self.forgive(&e);
                log.end_epoch();
                self.proven = false;
            }
        }
    }

    /// Once a second: tree and log reach the disk. Or, where a change has no record, the next epoch's log is tried.
    pub fn sync(&mut self, dice: &mut Dice) {
        let Some(log) = &self.log else { return };
        if !self.proven {
            return self.prepare_epoch(dice);
        }
        match log.sync() {
            Ok(lsn) => {
                self.synced = Position { epoch: log.epoch(), lsn };
                self.on_disk = self.tree.clone();
            }
            Err(LogError::Broken) => {} // a sync failed before: it may have been this one's
            Err(e) => self.forgive(&e),
        }
    }

    fn prepare_epoch(&mut self, dice: &mut Dice) {
        let (None, Some(log)) = (&self.next, &self.log) else { return };
        let epoch = self.epoch_after(dice);
        match log.prepare(epoch) {
            Ok(next) => {
                self.next = Some(next);
                self.note(epoch);
            }
            Err(e) => self.forgive(&e),
        }
    }

    /// Goes over to the log that was prepared; false if there is none.
    pub fn begin_epoch(&mut self) -> bool {
        let (Some(log), Some(next)) = (&self.log, self.next.take()) else { return false };
        log.begin_epoch(next);
        assert_eq!(log.head(), Lsn::ZERO);
        self.history.insert((self.epoch().number, Lsn::ZERO), self.tree.clone());
        self.proven = true;
        self.outlets.iter_mut().for_each(|outlet| outlet.lacking = None);
        true
    }

    /// Starts the daemon: as `identity` and `Ship::start` do. False if it can't, because of the disk.
    pub fn start(&mut self, dice: &mut Dice, now: Instant) -> bool {
        self.starts += 1;
        let log = match self.open_log(dice) {
            Ok(log) => log,
            Err(e) => {
                self.forgive(&e);
                return false;
            }
        };
        self.log = Some(log);
        let (epoch, head) = (self.epoch(), self.head());
        self.history.insert((epoch.number, head), self.tree.clone());
        self.start_sessions(now);
        true
    }

    fn open_log(&mut self, dice: &mut Dice) -> Result<Log, LogError> {
        if self.proven {
            return Ok(Log::open_in(self.disk.storage(), self.epoch(), self.options())?.0);
        }
        let epoch = self.epoch_after(dice);
        let log = Log::create_in(self.disk.storage(), epoch, self.options())?;
        self.note(epoch);
        self.proven = true;
        Ok(log)
    }

    /// The epoch behind all that are noted. Its id tells it from one of the same number that did not come to be.
    fn epoch_after(&self, dice: &mut Dice) -> Epoch {
        let noted = self.lineage[self.lineage.len() - 1].epoch;
        let id = Id(std::array::from_fn(|_| u8::try_from(dice.below(256)).unwrap()));
        Epoch { number: noted.number + 1, id }
    }

    fn note(&mut self, epoch: Epoch) {
        self.lineage.push(Branch { epoch, from: None });
        let surplus = self.lineage.len().saturating_sub(LINEAGE_MAX);
        self.lineage.drain(..surplus);
    }

    /// Only a disk that fails may be at fault.
    pub fn forgive(&self, error: &LogError) {
        assert!(self.disk.is_failing(), "{error}");
    }
}
