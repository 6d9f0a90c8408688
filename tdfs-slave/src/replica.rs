//! The replica: its tree, its applied position, how it stands, and the resync that makes it equal.
//!
//! Owned by the thread that replays; the relay calls it through [`Replay`], one record or answer at a time in
//! the order of the stream. What it says of itself is in the state directory before it is true in the tree:
//! `resyncing` before the first change of a resync, `equal` only when all of it is on the disk.

mod begin;
mod kept;
mod looking;
mod sync;

use crate::applied::{Applied, NO_EPOCH};
use crate::relay::{Replay, Stall};
use crate::replay::failure::{Failure, Trouble};
use crate::replay::target::Target;
use crate::replay::{self, Foreseen, Lacks, Pass, Widened};
use crate::resync::{Brake, Contradiction, Disk, Resync, Stood, removed_by};
use kept::{Kept, KeptStanding};
use looking::Looking;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use sync::Sync;
use tdfs_host::cli::WrongUse;
use tdfs_host::object;
use tdfs_host::root::Root;
use tdfs_host::state::StateDir;
use tdfs_host::step::try_outside;
use tdfs_wire::answer::{Answer, Want};
use tdfs_wire::message::{Begin, Check, Finding, Lost, Order, Plan, Report, Standing};
use tdfs_wire::op::AttrOp;
use tdfs_wire::record::{Owners, Record};
use tdfs_wire::{Id, Lsn, Op, Position, TreePath};
use tracing::{info, warn};

/// What was cached of the tree is forgotten so often: somebody may have written there, and that shall show.
const CACHE_AGE_MAX: Duration = Duration::from_secs(1);
/// setuid and setgid, in a mode.
const SET_ID_BITS: u32 = 0o6000;
/// What a failed sync means, in status.
const LOST: &str = "a sync of the replica failed, and what was written before may be lost";
/// What a resync says that waits for a human.
const ASKS: &str = "the resync would remove more than half of the replica: it waits for `tdfs resync --confirm` at the master";
/// How long the sync at the end may take before the end is not called clean.
const CLOSE_SYNC_MAX: Duration = Duration::from_millis(700);

/// A replica that this process holds.
pub struct Replica {
    dir: PathBuf,
    target: Target,
    lacks: Lacks,
    sync: Sync,
    applied: Applied,
    /// The record after the applied one was begun before: what was foreseen of it.
    doubt: Option<Foreseen>,
    /// What the record in hand removes, where a resync or a look has to know.
    stood: Option<Stood>,
    /// The record in hand contradicts the replica, and that could not be noted yet.
    contradiction: Option<Trouble>,
    state: Arc<StateDir>,
    kept: Kept,
    /// The first master that begins may have what lies here, whatever it is.
    adopt: bool,
    resync: Option<Resync>,
    /// How many objects were not equal in the last resync.
    differences: u64,
    brake: Brake,
    looking: Looking,
    /// Paths of lost records are still to come: nothing is known to be equal before. With the last of them the
    /// replica is at this position.
    lost_due: Option<Position>,
    /// Some of these paths are in doubt since a crash: also where the connection is lost that tells them.
    doubted: bool,
    stalled: Option<String>,
    last_error: Option<String>,
    cached_since: Instant,
}

/// What counts as equal after a kill, by the quick check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Files that did not change since the resync, or the check that led to it, began.
    Older,
    /// No file: equal size and mtime said nothing about what is healed.
    Nothing,
}

impl Replica {
    /// Opens the replica in `dir`, whose state is in `state`. `adopt`: the user has said that this directory is
    /// meant, and that the first master that begins may have it made equal, whatever lies there.
    ///
    /// # Errors
    /// In words for a human: another daemon has it, its state can't be used, or belongs to another directory.
    pub fn open(dir: &Path, state: Arc<StateDir>, adopt: bool) -> anyhow::Result<Replica> {
        let mut target = Target::open(dir).map_err(|e| unusable(dir, e))?;
        let root = lock_root(&target, dir)?;
        let mut kept = Kept::load(&state)?;
        let root_now = Root::of(target.root()).map_err(|e| unusable(dir, e.into()))?;
        kept.belong_to(root_now, dir, adopt, &state)?;
        let boot = kept::boot_id()?;
        let (mut applied, noted) = Applied::open(&state.path().join("applied"), boot)?;
        let mut brake = Brake::load(Arc::clone(&state))?;
        let crashed = noted.boot != boot && !noted.closed;
        let doubt = if crashed { None } else { noted.doubt };
        if crashed || noted.epoch == NO_EPOCH {
            begin::doubt(dir, (&mut kept, &state), &mut applied, &mut brake)?;
        }
        applied.mark_open()?;
        target.note_widened(&state.path().join("widened"))?;
        if let Err(failure) = Widened::restore(&mut target) {
            warn!("{failure}; it is tried again before the next record"); // a kill came between
        }
        let sync = Sync::new(root, applied.for_sync(), &state)?;
        let lacks = Lacks::probe(target.root());
        if !lacks.words().is_empty() {
            info!("{} can't carry: {}", dir.display(), lacks.words().join(", "));
        }
        let mut replica = Replica {
            dir: dir.to_owned(),
            target,
            lacks,
            sync,
            applied,
            doubt,
            stood: None,
            contradiction: None,
            state,
            kept,
            adopt,
            resync: None,
            differences: 0,
            brake,
            looking: Looking::default(),
            lost_due: None,
            doubted: false,
            stalled: None,
            last_error: None,
            cached_since: Instant::now(),
        };
        let distrusted = replica.distrust_failed_sync();
        distrusted.map_err(|stall| anyhow::Error::msg(stall.why))?;
        Ok(replica)
    }

    /// Refuses a missing `dir` if `state` knows it: its disk is not mounted, and what would be made in its place
    /// would stay there, below the mountpoint.
    ///
    /// # Errors
    /// That; and where the state can't be read.
    pub fn check_is_there(dir: &Path, state: &StateDir) -> anyhow::Result<()> {
        if !dir.exists() && Kept::load(state)?.has_root() {
            return Err(kept::other_directory(dir, state).into());
        }
        Ok(())
    }

    /// How often each thing was met that can't be carried.
    pub fn lacks(&self) -> Vec<(&'static str, u64)> {
        self.lacks.counts().collect()
    }

    /// Records durably that the replica is not known to be equal from now on.
    fn mark_resyncing(&mut self, trust: Trust) -> Result<(), Stall> {
        let before = self.kept.clone();
        let was = before.standing == KeptStanding::Resyncing;
        let began = match (trust, was) {
            (Trust::Nothing, _) => None,
            (Trust::Older, true) => before.began,
            (Trust::Older, false) => Some(before.check_began.unwrap_or(i64::MAX).min(resync_clock())),
        };
        if was && began == before.began {
            return Ok(());
        }
        (self.kept.standing, self.kept.began) = (KeptStanding::Resyncing, began);
        self.kept.store(&self.state).map_err(|e| {
            self.kept = before;
            Stall { why: e.to_string() }
        })
    }

    /// From now on some paths have to be compared: the caller tells the resync which.
    fn start_resync(&mut self, trust: Trust) -> Result<(), Stall> {
        // What one look finds is one resync, also where it is healed bit by bit.
        if self.kept.standing != KeptStanding::Resyncing && !self.looking.heals() {
            self.brake.begin(None).map_err(|e| Stall { why: e.to_string() })?;
        }
        self.resync_paths(trust)
    }

    /// The same, of what a look has found: the brake was begun with that.
    fn resync_paths(&mut self, trust: Trust) -> Result<(), Stall> {
        self.mark_resyncing(trust)?;
        self.resync.get_or_insert_with(|| Resync::paths(Vec::new()));
        Ok(())
    }

    /// After a failed sync the kernel has dropped what it could not write, and says so once: nobody knows what is
    /// on the disk, so all of it is compared by hashes, read from there.
    fn distrust_failed_sync(&mut self) -> Result<(), Stall> {
        if !self.sync.has_failed() {
            return Ok(());
        }
        if self.kept.standing != KeptStanding::New {
            self.resync_whole()?;
            self.failed(format!("{LOST}: all of it is compared with the master's by hashes"));
        }
        let forgotten = self.sync.forget_failure();
        forgotten.map_err(|e| Stall { why: format!("note that all is compared: {e}") })
    }

    fn resync_whole(&mut self) -> Result<(), Stall> {
        if self.kept.standing == KeptStanding::Resyncing && self.resync.is_none() {
            return self.mark_resyncing(Trust::Nothing); // it begins with the stream
        }
        self.start_resync(Trust::Nothing)?;
        self.target.drop_all();
        self.target.read_from_disk(true);
        if let Some(resync) = &mut self.resync {
            resync.distrust_all();
            resync.want(TreePath::root());
        }
        self.stop_looking();
        Ok(())
    }

    /// The replica is not as the record says. Where it is being made equal that can be no news.
    fn diverged(&mut self, lsn: Lsn, op: &Op, trouble: &Trouble) -> Result<(), Stall> {
        self.target.drop_all();
        let lacks_at =
            self.doubt.map_or(Ok(None), |foreseen| replay::lacks_at(&mut self.target, op, foreseen));
        let lacks_at = lacks_at.map_err(|failure| Stall { why: failure.to_string() })?;
        let (stood, lacks_at) = (self.stood, lacks_at.as_ref());
        // In one write with the standing, so that no kill comes between the two.
        let alone = self.kept.standing == KeptStanding::Equal && !self.looking.is_checking();
        self.kept.divergences += u64::from(alone);
        if let Err(stall) = self.start_resync(Trust::Older) {
            self.kept.divergences -= u64::from(alone);
            return Err(stall);
        }
        // What a check has not come to yet may differ because the master's tree changed unseen.
        let looked = self.looking.resync().map(|look| look.contradicted(op, stood, lacks_at));
        let expected = self.looking.is_checking() && looked == Some(Contradiction::Forgiven);
        let Some(resync) = &mut self.resync else { return Ok(()) };
        if resync.contradicted(op, stood, lacks_at) == Contradiction::Divergence && !expected {
            if !alone {
                self.kept.divergences += 1;
                // Only the count is at stake; a stall would have the record counted twice.
                if let Err(e) = self.kept.store(&self.state) {
                    warn!("note a divergence: {e}");
                }
            }
            let said = format!("divergence: record {lsn} does not fit the replica: {trouble}");
            warn!("{said}; what it names is compared with the master");
            self.last_error = Some(said);
        }
        Ok(())
    }

    fn redo(&mut self, record: &Record<'_>) -> Result<(), Stall> {
        let pass = match self.doubt {
            Some(foreseen) => Pass::Redo(foreseen),
            None => {
                let foreseen = replay::foresee(&mut self.target, &record.op);
                let foreseen = foreseen.map_err(|failure| Stall { why: failure.to_string() })?;
                self.stood = self.stands(&record.op)?;
                let noted = self.applied.take_in_hand(foreseen);
                noted.map_err(|e| Stall { why: format!("note record {} in the state: {e}", record.lsn) })?;
                self.doubt = Some(foreseen);
                Pass::First(foreseen)
            }
        };
        if self.contradiction.is_none() {
            let told = (&record.op, self.owners(record), record.bulk);
            match replay::apply(&mut self.target, &mut self.lacks, told, pass) {
                Ok(()) => self.did(&record.op)?,
                // Not to be tried again: a second attempt would take the intruder's work for its own.
                Err(Failure::Divergence(trouble)) => self.contradiction = Some(trouble),
                Err(failure) => return Err(Stall { why: failure.to_string() }),
            }
        }
        if let Some(trouble) = self.contradiction.clone() {
            self.diverged(record.lsn, &record.op, &trouble)?;
        }
        (self.doubt, self.stood, self.contradiction) = (None, None, None);
        self.applied.done(record.crc);
        Ok(())
    }

    /// Whose the objects have to be that a record changes, where that can be said; a setuid bit never gets to what is
    /// somebody else's.
    fn owners(&self, record: &Record<'_>) -> Owners {
        let sets_id = matches!(record.op, Op::Attr(AttrOp::Mode { mode, .. }) if mode & SET_ID_BITS != 0);
        let is_known = match &self.resync {
            Some(resync) => !resync.may_differ(&record.op),
            None => self.kept.standing == KeptStanding::Equal,
        };
        if is_known || sets_id { record.owners } else { Owners::default() }
    }

    /// What `op` is going to remove; None where nobody has to know.
    fn stands(&mut self, op: &Op) -> Result<Option<Stood>, Stall> {
        let followed = self.resync.is_some() || self.looking.resync().is_some();
        let Some(path) = removed_by(op).filter(|_| followed) else { return Ok(None) };
        let stands = replay::stands_at(&mut self.target, path);
        let (ino, links) = stands.map_err(|failure| Stall { why: failure.to_string() })?;
        Ok(Some(Stood { ino, links }))
    }

    fn did(&mut self, op: &Op) -> Result<(), Stall> {
        if let Op::Check { paths } = op {
            info!("the master has {} paths compared", paths.len());
            self.start_resync(Trust::Older)?;
        }
        if let Some(resync) = &mut self.resync {
            resync.applied(op, self.stood);
        }
        if let Some(look) = self.looking.resync() {
            look.applied(op, self.stood);
        }
        Ok(())
    }

    /// Ends the resync when nothing is wanted any more: all of it is on the disk before it is called equal.
    fn finish_resync(&mut self) {
        if self.lost_due.is_some() || !self.resync.as_ref().is_some_and(Resync::done) {
            return;
        }
        let began = self.kept.began;
        let finished = self.sync.run().map_err(anyhow::Error::from).and_then(|durable| {
            self.applied.settle()?;
            self.kept.standing = KeptStanding::Equal;
            self.kept.began = None;
            self.kept.store(&self.state)?;
            Ok(durable)
        });
        match finished {
            Ok(durable) => {
                info!("{} equals its master's tree as of record {durable}", self.dir.display());
                self.differences = self.resync.take().map_or(0, |resync| resync.progress().differences);
                self.target.read_from_disk(false);
                self.last_error.take_if(|said| said == ASKS);
            }
            Err(error) => {
                (self.kept.standing, self.kept.began) = (KeptStanding::Resyncing, began);
                self.failed(format!("call the replica equal: {error}"));
            }
        }
    }

    /// Notes what a human should know; says it once.
    fn failed(&mut self, why: String) {
        if self.last_error.as_ref() != Some(&why) {
            warn!("{why}");
            self.last_error = Some(why);
        }
    }

    fn answered(&mut self, answer: &Answer, bulk: &[u8]) -> Result<(), Failure> {
        let Replica { target, lacks, brake, resync, looking, .. } = self;
        let asking = if Resync::is_of_look(answer.id) { looking.asked() } else { resync.as_mut() };
        let Some(asking) = asking else { return Ok(()) };
        let way = || vec![answer.path.clone()];
        replay::with_access(target, way, |target| asking.answer(Disk { target, lacks, brake }, answer, bulk))
    }

    fn next_wants(&mut self) -> Result<Vec<Want>, Failure> {
        let Replica { target, lacks, brake, resync: Some(resync), .. } = self else { return Ok(Vec::new()) };
        resync.wants(Disk { target, lacks, brake })
    }

    /// Makes all durable, if that takes no longer than `CLOSE_SYNC_MAX`, and marks the end as clean.
    fn close(&mut self) -> io::Result<()> {
        if self.sync.durable.applied().lsn > self.applied.durable() {
            let (sender, receiver) = mpsc::channel();
            let sync = self.sync.clone();
            std::thread::Builder::new().name("tdfs-close".into()).spawn(move || sender.send(sync.run()))?;
            match receiver.recv_timeout(CLOSE_SYNC_MAX) {
                Ok(synced) => drop(synced?),
                Err(_) => info!("the last sync takes long: the end is not waited for"),
            }
        }
        self.applied.close()
    }
}

impl Replay for Replica {
    fn standing(&self) -> Standing {
        let applied = self.applied.position();
        match self.kept.standing {
            KeptStanding::New => Standing::New,
            KeptStanding::Equal => Standing::Equal { applied, durable: self.applied.durable() },
            KeptStanding::Resyncing if self.doubted => Standing::InDoubt { since: applied },
            KeptStanding::Resyncing => Standing::Resyncing { applied, resumable: self.resync.is_some() },
            KeptStanding::InDoubt => Standing::InDoubt { since: applied },
        }
    }

    /// None also while whoever comes first may have it.
    fn filesystem(&self) -> Option<Id> {
        self.kept.filesystem.filter(|_| !self.adopt)
    }

    fn checksum(&self) -> Option<u32> {
        self.applied.checksum()
    }

    fn replica(&self) -> Id {
        self.kept.replica
    }

    fn not_carried(&self) -> Vec<String> {
        self.lacks.words()
    }

    fn check(&self) -> Check {
        self.check_standing()
    }

    fn begin(&mut self, filesystem: Id, begin: &Begin) -> Result<(), String> {
        let foreign = self.foreign(filesystem)?;
        (self.stalled, self.lost_due) = (None, None);
        match (begin.plan, &foreign) {
            (Plan::Resync { checksum }, _) => {
                self.resync_from(filesystem, begin, (checksum, foreign.is_some()))?;
                self.stop_looking();
            }
            (_, Some(what)) => return Err(format!("{what}: no stream can go on here")),
            (Plan::Stream, None) => self.stream_from(begin)?,
            (Plan::Resume, None) => self.resume_from(begin)?,
            (Plan::Patch, None) => self.patch_from(begin)?,
        }
        // Once: the next filesystem has to be allowed by the user again.
        self.adopt = false;
        if let Some(what) = foreign {
            warn!("--adopt: {what}; from now on it is, and all of it is made equal to its master's tree");
        }
        self.looks_begin(begin)
    }

    fn lost(&mut self, lost: &Lost) -> Result<(), Stall> {
        let (Some(there), Some(resync)) = (self.lost_due, &mut self.resync) else { return Ok(()) };
        for (path, extent) in &lost.paths {
            resync.miss(path, *extent);
            self.looking.resync().into_iter().for_each(|look| look.miss(path, *extent));
        }
        if lost.last {
            let noted = self.applied.reset(there);
            noted.map_err(|e| Stall { why: format!("note the position: {e}") })?;
            (self.doubt, self.contradiction, self.lost_due) = (None, None, None);
            self.doubted = false;
        }
        Ok(())
    }

    fn order(&mut self, order: Order) {
        self.ordered(order);
    }

    fn findings(&mut self) -> Vec<Finding> {
        self.take_findings()
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), Stall> {
        let due = self.applied.position().lsn.next();
        if record.lsn != due {
            return Err(Stall { why: format!("record {} came where {due} has to come", record.lsn) });
        }
        // What was found and is not noted yet could be moved away by the record.
        let ready = self.distrust_failed_sync().and_then(|()| self.heal_now());
        let done = ready.and_then(|()| self.redo(record));
        if done.is_err() {
            // What is cached may lead to what somebody moved out of the replica, where nothing can be done.
            self.target.drop_all();
        }
        self.stalled = done.as_ref().err().map(|stall| format!("record {}: {}", record.lsn, stall.why));
        done
    }

    fn answer(&mut self, as_of: Lsn, answer: &Answer, bulk: &[u8]) -> Result<(), Stall> {
        let done = self.answered(answer, bulk).map_err(|failure| Stall { why: failure.to_string() });
        self.stalled = done.as_ref().err().map(|stall| format!("answer as of {as_of}: {}", stall.why));
        done
    }

    /// Also finds out that nothing is wanted any more.
    fn wants(&mut self) -> Vec<Want> {
        if self.lost_due.is_some() || self.doubted {
            return Vec::new();
        }
        let mut wants = self.look_on();
        wants.extend(self.next_wants().unwrap_or_else(|failure| {
            self.failed(format!("compare the replica: {failure}"));
            Vec::new()
        }));
        if self.resync.as_ref().is_some_and(Resync::is_held) {
            self.failed(ASKS.into());
        }
        let was_resyncing = self.resync.is_some();
        self.finish_resync();
        if was_resyncing && self.resync.is_none() {
            wants.extend(self.look_on()); // it may have waited for this
        }
        self.show();
        wants
    }

    fn applied(&self) -> Lsn {
        self.applied.position().lsn
    }

    fn durable(&self) -> Lsn {
        self.applied.durable()
    }

    fn report(&self) -> Report {
        let (resync, verify) = self.looking.shown();
        Report {
            resyncing: matches!(self.kept.standing, KeptStanding::Resyncing | KeptStanding::InDoubt),
            checking: self.looking.is_checking(),
            stalled: self.stalled.clone(),
            divergences: self.kept.divergences,
            last_error: self.last_error.clone(),
            differences: self
                .resync
                .as_ref()
                .map_or(self.differences, |resync| resync.progress().differences),
            resync,
            verify,
        }
    }

    fn idle(&mut self) {
        try_outside(self.state.path());
        if self.doubt.is_none()
            && let Err(e) = self.applied.settle()
        {
            self.failed(format!("note the applied position: {e}"));
        }
        if self.cached_since.elapsed() >= CACHE_AGE_MAX {
            self.target.drop_all();
            self.cached_since = Instant::now();
        }
        if let Err(Stall { why }) = self.distrust_failed_sync() {
            self.failed(why);
        }
        self.finish_resync();
    }

    fn syncer(&self) -> Box<dyn Fn() -> io::Result<Lsn> + Send + std::marker::Sync> {
        let sync = self.sync.clone();
        Box::new(move || sync.run())
    }
}

impl Drop for Replica {
    /// Ends cleanly: the record in hand is done or was never begun.
    fn drop(&mut self) {
        let closed = if self.doubt.is_none() { self.close() } else { Ok(()) };
        if let Err(e) = closed {
            warn!("the end of {} is not clean: {e}", self.dir.display());
        }
    }
}

/// Opens the root for syncing and takes its exclusive lock, which ends with the process.
fn lock_root(target: &Target, dir: &Path) -> Result<OwnedFd, WrongUse> {
    let opened = object::reopen(target.root(), OFlags::RDONLY | OFlags::DIRECTORY);
    let root = opened.map_err(|e| unusable(dir, e.into()))?;
    match rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(root),
        Err(Errno::WOULDBLOCK) => {
            let shown = dir.display();
            Err(WrongUse(format!("{shown} is served by another process already: one slave a directory")))
        }
        Err(e) => Err(unusable(dir, e.into())),
    }
}

fn unusable(dir: &Path, why: io::Error) -> WrongUse {
    WrongUse(format!("{} can't be used as a replica: {why}", dir.display()))
}

/// The present by the clock of ctimes, in seconds, a little early: file systems' clocks run by ticks.
fn resync_clock() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - 2
}

#[cfg(test)]
pub(crate) mod tests;
