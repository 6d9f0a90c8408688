//! How a stream begins: which records a replica can go on with, and what it has to compare.

use super::{Cause, Covered, Session};
use crate::message::{Begin, Branch, Check, Lost, Plan, Standing, Welcome};
use crate::{Lsn, Position};
use std::collections::VecDeque;

/// The LSN of the present epoch (the last of `lineage`) that is the same point of history as `position`:
/// a position of the present epoch itself, or one at which each later epoch branched off.
pub fn present_lsn(lineage: &[Branch], position: Position) -> Option<Lsn> {
    let at = lineage.iter().rposition(|branch| branch.epoch == position.epoch)?;
    let mut here = position;
    for branch in &lineage[at + 1..] {
        if branch.from != Some(here) {
            return None;
        }
        here = Position { epoch: branch.epoch, lsn: Lsn::ZERO };
    }
    Some(here.lsn)
}

impl Session {
    /// True if the slave has made more durable than it knows of: its state was restored, or is somebody's copy. Its
    /// replica is then no tree of any one record. The record in hand, which it may have done, says nothing.
    pub(super) fn went_back(&self, welcome: &Welcome) -> bool {
        let Standing::Equal { applied, .. } = welcome.standing else { return false };
        let here = present_lsn(&self.config.lineage, applied);
        self.known.replica == Some(welcome.replica)
            && here.is_some_and(|here| here.next() < self.progress.durable)
    }

    /// Why the replica can't just go on that stands so.
    pub(super) fn cause(&self, welcome: &Welcome) -> Cause {
        let present = self.config.lineage[self.config.lineage.len() - 1].epoch;
        match welcome.standing {
            _ if self.resync_asked.is_some() => Cause::Asked,
            Standing::New => Cause::FirstCopy,
            Standing::InDoubt { .. } => Cause::SlaveCrash,
            Standing::Equal { .. } if self.went_back(welcome) => Cause::SlaveRestored,
            Standing::Equal { applied, .. } | Standing::Resyncing { applied, .. } => {
                match present_lsn(&self.config.lineage, applied) {
                    Some(here) if here <= self.head && !self.is_foreign => Cause::LogTooShort,
                    None if applied.epoch != present => Cause::NewEpoch,
                    _ => Cause::OtherHistory,
                }
            }
        }
    }

    /// How a stream to a slave begins that stands so.
    pub(super) fn plan(&self, welcome: &Welcome, trail: Option<&Covered>) -> Begin {
        let epoch = self.config.lineage[self.config.lineage.len() - 1].epoch;
        let plan = Plan::Resync { checksum: self.resync_asked.unwrap_or(false) };
        let resync = Begin { epoch, after: self.head, plan, check: false };
        let check = self.known.check_due || welcome.check == Check::Unfinished;
        if self.is_foreign {
            return resync;
        }
        let (applied, plan) = match welcome.standing {
            Standing::InDoubt { since } => {
                let lost = trail.filter(|lost| since == Position { epoch, lsn: lost.after });
                let lost = lost.filter(|_| self.resync_asked.is_none());
                return lost.map_or(resync, |lost| Begin {
                    after: lost.up_to,
                    plan: Plan::Patch,
                    check,
                    ..resync
                });
            }
            Standing::Equal { applied, .. } => (applied, Plan::Stream),
            Standing::Resyncing { applied, resumable: true } => (applied, Plan::Resume),
            Standing::Resyncing { .. } | Standing::New => return resync,
        };
        let here = present_lsn(&self.config.lineage, applied).filter(|here| *here <= self.head);
        let Some(here) = here.filter(|_| self.resync_asked.is_none()) else { return resync };
        let is_held = |after: Lsn| self.oldest <= after.next();
        match trail {
            _ if is_held(here) => Begin { epoch, after: here, plan, check },
            Some(lost) if lost.after <= here && here <= lost.up_to && is_held(lost.up_to) => {
                Begin { epoch, after: lost.up_to, plan: Plan::Patch, check }
            }
            _ => resync,
        }
    }
}

/// About so many bytes of paths go into one message.
const LOST_BYTES: usize = 128 * 1024;

/// What was lost, in messages; the last says so.
pub(super) fn lost_messages(trail: Option<Covered>) -> VecDeque<Lost> {
    let (mut messages, mut paths, mut bytes) = (VecDeque::new(), Vec::new(), 0);
    for (path, extent) in trail.into_iter().flat_map(|trail| trail.paths) {
        bytes += path.as_bytes().len() + 16;
        paths.push((path, extent));
        if bytes >= LOST_BYTES {
            messages.push_back(Lost { paths: std::mem::take(&mut paths), last: false });
            bytes = 0;
        }
    }
    messages.push_back(Lost { paths, last: true });
    messages
}
