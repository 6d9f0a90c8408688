//! How a stream begins: at the position where the replica is, or by making it equal.
//!
//! Called by `replica` for each `Begin`, on the replay thread. What is noted durably comes before what it says.

use super::kept::{Kept, KeptStanding};
use super::{ASKS, Replica, Trust, resync_clock};
use crate::applied::{Applied, NO_EPOCH};
use crate::resync::{Brake, Resync, count_below};
use std::path::Path;
use tdfs_host::object;
use tdfs_host::state::StateDir;
use tdfs_wire::message::Begin;
use tdfs_wire::{Id, Position, Time};
use tracing::info;

/// What is left to trust after the machine went down, or of a position that is lost: what was on the disk.
pub(super) fn doubt(
    dir: &Path,
    (kept, state): (&mut Kept, &StateDir),
    applied: &mut Applied,
    brake: &mut Brake,
) -> anyhow::Result<()> {
    let durable = Position { lsn: applied.durable(), ..applied.position() };
    match kept.standing {
        KeptStanding::New => return Ok(()),
        KeptStanding::Equal | KeptStanding::InDoubt if durable.epoch != NO_EPOCH && is_root() => {
            info!(
                "the machine went down: what was done in {} since record {} is compared with its master",
                dir.display(),
                durable.lsn
            );
            kept.standing = KeptStanding::InDoubt;
        }
        KeptStanding::Equal | KeptStanding::InDoubt => {
            // Without root, directories on the way can have been opened wider at that moment.
            info!("{} is compared with its master as a whole: the machine went down", dir.display());
            kept.standing = KeptStanding::Resyncing;
        }
        // What it wrote may be lost at equal size and mtime, and so may what was done just before it began.
        KeptStanding::Resyncing => {}
    }
    kept.began = None;
    brake.begin(None)?;
    kept.store(state)?;
    if durable.epoch != NO_EPOCH {
        applied.reset(durable)?;
    }
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Replica {
    pub(super) fn stream_from(&mut self, begin: &Begin) -> Result<(), String> {
        if self.kept.standing != KeptStanding::Equal {
            let there = Position { epoch: begin.epoch, lsn: begin.after };
            return Err(format!("the master goes on at {there}, but this replica is not known to be equal"));
        }
        self.go_on_from(begin)
    }

    /// The resync goes on: what was not answered is asked again.
    pub(super) fn resume_from(&mut self, begin: &Begin) -> Result<(), String> {
        if self.resync.is_none() {
            return Err("the master has a resync go on of which nothing is known here".into());
        }
        self.go_on_from(begin)?;
        self.resync.iter_mut().for_each(Resync::restart);
        Ok(())
    }

    /// The next record is the one after what is applied here.
    fn go_on_from(&mut self, begin: &Begin) -> Result<(), String> {
        let here = self.applied.position();
        let there = Position { epoch: begin.epoch, lsn: begin.after };
        if here == there {
            return Ok(());
        }
        // A later epoch that branched off exactly here: its master knows its own history.
        if here.epoch != there.epoch && here.epoch.number < there.epoch.number && self.doubt.is_none() {
            let synced = self.sync.run().map_err(|e| format!("sync the replica: {e}"))?;
            debug_assert!(synced == here.lsn);
            return self.applied.reset(there).map_err(|e| format!("note the new epoch: {e}"));
        }
        Err(format!("the master goes on at {there}, but this replica is at {here}"))
    }

    /// What lies here that this filesystem's master has no right to, in words. Refused unless it is adopted.
    pub(super) fn foreign(&self, filesystem: Id) -> Result<Option<String>, String> {
        let dir = self.dir.display();
        let foreign = match (self.kept.filesystem, self.kept.standing) {
            (Some(mine), _) if mine != filesystem => {
                format!("{dir} is a replica of filesystem {mine}, not of {filesystem}")
            }
            (_, KeptStanding::New) if !self.is_empty()? => {
                format!("{dir} is neither empty nor a replica of this filesystem")
            }
            _ => return Ok(None),
        };
        if self.adopt {
            return Ok(Some(foreign));
        }
        Err(format!("{foreign}: give an empty directory, or say --adopt to have this one made equal"))
    }

    pub(super) fn resync_from(
        &mut self,
        filesystem: Id,
        begin: &Begin,
        (checksum, is_foreign): (bool, bool),
    ) -> Result<(), String> {
        let there = Position { epoch: begin.epoch, lsn: begin.after };
        let before = self.kept.clone();
        self.kept.filesystem = Some(filesystem);
        self.kept.standing = KeptStanding::Resyncing;
        self.kept.began = match before.standing {
            // Equal size and mtime say nothing where somebody else's hand was at work.
            _ if is_foreign => None,
            // In a later epoch after a crash content can differ at equal size and mtime.
            KeptStanding::Equal | KeptStanding::Resyncing if self.applied.position().epoch != begin.epoch => {
                None
            }
            KeptStanding::InDoubt => None,
            _ if checksum => None,
            KeptStanding::Equal | KeptStanding::New => {
                Some(before.check_began.unwrap_or(i64::MAX).min(resync_clock()))
            }
            KeptStanding::Resyncing => before.began,
        };
        self.kept.check_began = None;
        if before.standing != KeptStanding::Resyncing
            && let Err(why) = self.begin_brake()
        {
            self.kept = before;
            return Err(why);
        }
        if let Err(e) = self.kept.store(&self.state) {
            self.kept = before;
            return Err(e.to_string());
        }
        // From here on nothing that was compared before is of use, also if the position can't be noted.
        (self.resync, self.doubt, self.contradiction, self.doubted) = (None, None, None, false);
        self.last_error.take_if(|said| said == ASKS);
        self.applied.reset(there).map_err(|e| format!("note the position: {e}"))?;
        self.target.drop_all();
        let mut resync = Resync::whole();
        // What replay or an earlier resync wrote has the master's mtime, whatever is missing in its content.
        match self.kept.began {
            Some(sec) => resync.distrust_since(Time { sec, nsec: 0 }),
            None => resync.distrust_all(),
        }
        (self.resync, self.lost_due) = (Some(resync), None);
        info!("{} is made equal to its master's tree, from record {} on", self.dir.display(), begin.after);
        Ok(())
    }

    /// Records between what is applied here and `begin.after` are lost: the paths they touched come next.
    pub(super) fn patch_from(&mut self, begin: &Begin) -> Result<(), String> {
        if self.kept.standing == KeptStanding::Resyncing && self.resync.is_none() {
            return Err("the master goes on with a resync of which nothing is known here".into());
        }
        let in_doubt = self.kept.standing == KeptStanding::InDoubt;
        // What the lost records wrote may have any mtime: after a kill all contents are compared.
        self.start_resync(Trust::Nothing).map_err(|stall| stall.why)?;
        if in_doubt {
            self.doubted = true;
            self.resync.iter_mut().for_each(Resync::distrust_all);
        }
        self.lost_due = Some(Position { epoch: begin.epoch, lsn: begin.after });
        self.target.drop_all();
        self.resync.iter_mut().for_each(Resync::restart);
        Ok(())
    }

    fn begin_brake(&mut self) -> Result<(), String> {
        let objects = count_below(self.target.root());
        let objects = objects.map_err(|e| format!("count what is in {}: {e}", self.dir.display()))?;
        self.brake.begin(Some(objects)).map_err(|e| e.to_string())
    }

    fn is_empty(&self) -> Result<bool, String> {
        let names = object::list_names(self.target.root());
        names.map(|names| names.is_empty()).map_err(|e| format!("list {}: {e}", self.dir.display()))
    }
}
