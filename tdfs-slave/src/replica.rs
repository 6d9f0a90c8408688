//! The replica: its tree, its applied position, how it stands, and the resync that makes it equal.
//!
//! Owned by the thread that replays; the relay calls it through [`Replay`], one record or answer at a time in
//! the order of the stream. What it says of itself is in the state directory before it is true in the tree:
//! `resyncing` before the first change of a resync, `equal` only when all of it is on the disk.

mod kept;

use crate::applied::{Applied, Durable, NO_EPOCH};
use crate::relay::{Replay, Stall};
use crate::replay::failure::{Failure, Trouble};
use crate::replay::target::Target;
use crate::replay::{self, Foreseen, Lacks, Pass};
use crate::resync::{Contradiction, Resync};
use kept::{Kept, KeptStanding};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tdfs_host::cli::WrongUse;
use tdfs_host::object;
use tdfs_host::state::StateDir;
use tdfs_wire::answer::{Answer, Want};
use tdfs_wire::message::{Begin, Plan, Report, Standing};
use tdfs_wire::record::Record;
use tdfs_wire::{Id, Lsn, Op, Position, Time};
use tracing::{info, warn};

/// What was cached of the tree is forgotten so often: somebody may have written there, and that shall show.
const CACHE_AGE_MAX: Duration = Duration::from_secs(1);
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
    state: Arc<StateDir>,
    kept: Kept,
    resync: Option<Resync>,
    stalled: Option<String>,
    last_error: Option<String>,
    cached_since: Instant,
}

/// What another thread needs to make the replica durable. Its fd also holds the replica's lock.
#[derive(Clone)]
struct Sync {
    root: Arc<OwnedFd>,
    durable: Durable,
}

impl Replica {
    /// Opens the replica in `dir`, whose state is in `state`.
    ///
    /// # Errors
    /// In words for a human: another daemon has it, or its state can't be used.
    pub fn open(dir: &Path, state: Arc<StateDir>) -> anyhow::Result<Replica> {
        let target = Target::open(dir).map_err(|e| unusable(dir, e))?;
        let root = lock_root(&target, dir)?;
        let boot = kept::boot_id()?;
        let (mut applied, noted) = Applied::open(&state.path().join("applied"), boot)?;
        let mut kept = Kept::load(&state)?;
        if kept.standing == KeptStanding::Equal {
            let crashed = noted.boot != boot && !noted.closed;
            if crashed || noted.epoch == NO_EPOCH {
                let why = if crashed {
                    "the machine went down without a clean end"
                } else {
                    "its position is lost"
                };
                info!("{} is compared with its master as a whole: {why}", dir.display());
                (kept.standing, kept.began) = (KeptStanding::Resyncing, None);
                kept.store(&state)?;
            }
        }
        applied.mark_open()?;
        let lacks = Lacks::probe(target.root());
        if !lacks.words().is_empty() {
            info!("{} can't carry: {}", dir.display(), lacks.words().join(", "));
        }
        Ok(Replica {
            dir: dir.to_owned(),
            target,
            lacks,
            sync: Sync { root: Arc::new(root), durable: applied.for_sync() },
            applied,
            doubt: noted.doubt,
            state,
            kept,
            resync: None,
            stalled: None,
            last_error: None,
            cached_since: Instant::now(),
        })
    }

    /// How often each thing was met that can't be carried.
    pub fn lacks(&self) -> Vec<(&'static str, u64)> {
        self.lacks.counts().collect()
    }

    /// Records durably that the replica is not known to be equal from now on.
    fn mark_resyncing(&mut self) -> Result<(), Stall> {
        if self.kept.standing == KeptStanding::Resyncing {
            return Ok(());
        }
        let before = self.kept.clone();
        (self.kept.standing, self.kept.began) = (KeptStanding::Resyncing, Some(resync_clock()));
        self.kept.store(&self.state).map_err(|e| {
            self.kept = before;
            Stall { why: e.to_string() }
        })
    }

    /// From now on some paths have to be compared: the caller tells the resync which.
    fn start_resync(&mut self) -> Result<(), Stall> {
        self.mark_resyncing()?;
        self.resync.get_or_insert_with(|| Resync::paths(Vec::new()));
        Ok(())
    }

    /// The replica is not as the record says. Where it is being made equal that can be no news.
    fn diverged(&mut self, lsn: Lsn, op: &Op, trouble: &Trouble) -> Result<(), Stall> {
        self.target.drop_all();
        self.start_resync()?;
        let Some(resync) = &mut self.resync else { return Ok(()) };
        if resync.contradicted(op) == Contradiction::Divergence {
            self.kept.divergences += 1;
            let kept = self.kept.store(&self.state);
            let said = format!("divergence: record {lsn} does not fit the replica: {trouble}");
            warn!("{said}; what it names is compared with the master");
            self.last_error = Some(said);
            kept.map_err(|e| Stall { why: e.to_string() })?;
        }
        Ok(())
    }

    fn redo(&mut self, record: &Record<'_>) -> Result<(), Stall> {
        let pass = match self.doubt {
            Some(foreseen) => Pass::Redo(foreseen),
            None => {
                let foreseen = replay::foresee(&mut self.target, &record.op);
                let noted = self.applied.take_in_hand(foreseen);
                noted.map_err(|e| Stall { why: format!("note record {} in the state: {e}", record.lsn) })?;
                self.doubt = Some(foreseen);
                Pass::First
            }
        };
        match replay::apply(&mut self.target, &mut self.lacks, (&record.op, record.bulk), pass) {
            Ok(()) => self.did(&record.op)?,
            Err(Failure::Divergence(trouble)) => self.diverged(record.lsn, &record.op, &trouble)?,
            Err(failure) => return Err(Stall { why: failure.to_string() }),
        }
        self.doubt = None;
        self.applied.done();
        Ok(())
    }

    fn did(&mut self, op: &Op) -> Result<(), Stall> {
        if let Op::Check { paths } = op {
            info!("the master has {} paths compared", paths.len());
            self.start_resync()?;
        }
        if let Some(resync) = &mut self.resync {
            resync.applied(op);
        }
        Ok(())
    }

    /// Ends the resync when nothing is wanted any more: all of it is on the disk before it is called equal.
    fn finish_resync(&mut self) {
        if !self.resync.as_ref().is_some_and(Resync::done) {
            return;
        }
        let finished = self.sync.run().map_err(anyhow::Error::from).and_then(|durable| {
            self.applied.settle()?;
            self.kept.standing = KeptStanding::Equal;
            self.kept.store(&self.state)?;
            Ok(durable)
        });
        match finished {
            Ok(durable) => {
                info!("{} equals its master's tree as of record {durable}", self.dir.display());
                self.resync = None;
            }
            Err(error) => {
                self.kept.standing = KeptStanding::Resyncing;
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

    fn stream_from(&mut self, begin: &Begin) -> Result<(), String> {
        let here = self.applied.position();
        let there = Position { epoch: begin.epoch, lsn: begin.after };
        if self.kept.standing != KeptStanding::Equal {
            return Err(format!("the master goes on at {there}, but this replica is not known to be equal"));
        }
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

    fn resync_from(&mut self, filesystem: Id, begin: &Begin) -> Result<(), String> {
        let there = Position { epoch: begin.epoch, lsn: begin.after };
        if let Some(resync) = &mut self.resync
            && self.kept.filesystem == Some(filesystem)
            && self.applied.position() == there
        {
            resync.restart();
            return Ok(());
        }
        if self.kept.standing == KeptStanding::New && !self.is_empty()? {
            return Err(format!(
                "{} is neither empty nor a replica of this filesystem: empty it, or give an empty directory with -m",
                self.dir.display()
            ));
        }
        let before = self.kept.clone();
        self.kept.filesystem = Some(filesystem);
        self.kept.standing = KeptStanding::Resyncing;
        self.kept.began = match before.standing {
            // In a later epoch after a crash content can differ at equal size and mtime.
            KeptStanding::Equal if self.applied.position().epoch != begin.epoch => None,
            KeptStanding::Equal | KeptStanding::New => Some(resync_clock()),
            KeptStanding::Resyncing => before.began,
        };
        if let Err(e) = self.kept.store(&self.state) {
            self.kept = before;
            return Err(e.to_string());
        }
        self.applied.reset(there).map_err(|e| format!("note the position: {e}"))?;
        self.doubt = None;
        self.target.drop_all();
        let mut resync = Resync::whole();
        // What replay or an earlier resync wrote has the master's mtime, whatever is missing in its content.
        match self.kept.began {
            Some(sec) => resync.distrust_since(Time { sec, nsec: 0 }),
            None => resync.distrust_all(),
        }
        self.resync = Some(resync);
        info!("{} is made equal to its master's tree, from record {} on", self.dir.display(), begin.after);
        Ok(())
    }

    fn is_empty(&self) -> Result<bool, String> {
        let names = object::list_names(self.target.root());
        names.map(|names| names.is_empty()).map_err(|e| format!("list {}: {e}", self.dir.display()))
    }

    fn answered(&mut self, answer: &Answer, bulk: &[u8]) -> Result<(), Failure> {
        let Replica { target, lacks, resync: Some(resync), .. } = self else { return Ok(()) };
        let way = || vec![answer.path.clone()];
        replay::with_access(target, way, |target| resync.answer(target, lacks, answer, bulk))
    }

    fn next_wants(&mut self) -> Result<Vec<Want>, Failure> {
        let Replica { target, lacks, resync: Some(resync), .. } = self else { return Ok(Vec::new()) };
        resync.wants(target, lacks)
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
            KeptStanding::Resyncing => Standing::Resyncing { applied },
        }
    }

    fn filesystem(&self) -> Option<Id> {
        self.kept.filesystem
    }

    fn replica(&self) -> Id {
        self.kept.replica
    }

    fn not_carried(&self) -> Vec<String> {
        self.lacks.words()
    }

    fn begin(&mut self, filesystem: Id, begin: &Begin) -> Result<(), String> {
        if let Some(mine) = self.kept.filesystem
            && mine != filesystem
        {
            let dir = self.dir.display();
            return Err(format!("{dir} is a replica of filesystem {mine}, not of {filesystem}"));
        }
        self.stalled = None;
        match begin.plan {
            Plan::Stream => self.stream_from(begin),
            Plan::Resync => self.resync_from(filesystem, begin),
        }
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), Stall> {
        let due = self.applied.position().lsn.next();
        if record.lsn != due {
            return Err(Stall { why: format!("record {} came where {due} has to come", record.lsn) });
        }
        let done = self.redo(record);
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
        let wants = self.next_wants().unwrap_or_else(|failure| {
            self.failed(format!("compare the replica: {failure}"));
            Vec::new()
        });
        self.finish_resync();
        wants
    }

    fn applied(&self) -> Lsn {
        self.applied.position().lsn
    }

    fn durable(&self) -> Lsn {
        self.applied.durable()
    }

    fn report(&self) -> Report {
        Report {
            resyncing: self.kept.standing == KeptStanding::Resyncing,
            checking: false,
            stalled: self.stalled.clone(),
            divergences: self.kept.divergences,
            last_error: self.last_error.clone(),
        }
    }

    fn idle(&mut self) {
        if self.doubt.is_none()
            && let Err(e) = self.applied.settle()
        {
            self.failed(format!("note the applied position: {e}"));
        }
        if self.cached_since.elapsed() >= CACHE_AGE_MAX {
            self.target.drop_all();
            self.cached_since = Instant::now();
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

impl Sync {
    /// Makes durable what is applied now; returns how far the replica is durable.
    fn run(&self) -> io::Result<Lsn> {
        let position = self.durable.applied();
        rustix::fs::syncfs(&self.root)?;
        self.durable.advance(position)
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
mod tests;
