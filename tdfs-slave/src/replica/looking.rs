//! Looks at the whole replica while it counts as equal: the check at start, and verify.
//!
//! A look changes nothing. What a check finds, or verify with repair, goes to the resync of those paths, and
//! from then on the replica counts as not equal. Called by `replica` on the replay thread.

use super::{ASKS, Replica, Trust, resync_clock};
use crate::relay::Stall;
use crate::resync::{Disk, Resync};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tdfs_wire::answer::Want;
use tdfs_wire::message::{Begin, Check, Difference, Finding, Order, Phase, ResyncProgress, Verified};
use tdfs_wire::{Time, TreePath};
use tracing::{info, warn};

/// So many findings of a comparison are told one by one.
const FINDINGS_MAX: usize = 10_000;
/// So many findings of a check are named in the log.
const NAMED_MAX: u64 = 20;
/// While so many objects are to be made equal, no more are looked for: they cost memory.
const BACKLOG_MAX: u64 = 4096;
/// How often progress is told.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);

/// Why a look is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The master can't know what happened to its tree while it was not mounted.
    Check,
    /// A human wants to know.
    Verify { id: u64, repair: bool },
}

/// One look at the whole replica.
#[derive(Debug)]
struct Look {
    purpose: Purpose,
    resync: Resync,
    /// Found, and to be healed as soon as that can be noted.
    to_heal: Vec<(TreePath, Difference)>,
    /// The first findings, to be told again after a lost connection.
    found: Vec<(TreePath, Difference)>,
    /// Their paths: each is told once.
    named: BTreeSet<TreePath>,
    differences: u64,
}

/// The look that is taken, the one that waits, and what is told of them.
#[derive(Debug, Default)]
pub(super) struct Looking {
    look: Option<Look>,
    /// A look that was cancelled, for the answers that are still on their way to it.
    spent: Option<Resync>,
    /// A comparison that waits for the resync, or the check, that goes on.
    waiting: Option<Order>,
    /// A check that waits for the resync that goes on: what that has not come to yet is no finding.
    check_waits: bool,
    /// Findings to be told.
    outbox: Vec<Finding>,
    shown: Shown,
}

/// Progress as it was told last.
#[derive(Debug, Default)]
struct Shown {
    at: Option<Instant>,
    resync: Option<ResyncProgress>,
    verify: Option<ResyncProgress>,
}

impl Look {
    fn new(purpose: Purpose, before: Option<Resync>) -> Look {
        let resync = Resync::look(before);
        Look {
            purpose,
            resync,
            to_heal: Vec::new(),
            found: Vec::new(),
            named: BTreeSet::new(),
            differences: 0,
        }
    }

    fn is_verify(&self, id: u64) -> bool {
        matches!(self.purpose, Purpose::Verify { id: own, .. } if own == id)
    }

    fn heals(&self) -> bool {
        matches!(self.purpose, Purpose::Check | Purpose::Verify { repair: true, .. })
    }

    /// Takes what was found; returns what is to be told.
    fn note(&mut self, (path, what): (TreePath, Difference)) -> Option<Finding> {
        if self.heals() {
            self.to_heal.push((path.clone(), what));
        }
        if self.named.contains(&path) {
            return None;
        }
        self.differences += 1;
        if self.heals() && self.differences <= NAMED_MAX {
            warn!("{path} differs from the master's ({what:?}): it is made equal");
        }
        if self.found.len() >= FINDINGS_MAX {
            return None;
        }
        self.named.insert(path.clone());
        self.found.push((path.clone(), what));
        match self.purpose {
            Purpose::Verify { id: verify, .. } => Some(Finding::Difference { verify, path, what }),
            Purpose::Check => None,
        }
    }

    /// True if making the rest equal at once costs less than looking at it first.
    fn finds_much(&self) -> bool {
        self.purpose == Purpose::Check && self.resync.finds_much(self.differences)
    }

    fn progress(&self, phase: Phase) -> ResyncProgress {
        ResyncProgress { differences: self.differences, ..progress_of(&self.resync, phase) }
    }
}

impl Looking {
    /// Whether a check goes on in memory.
    pub(super) fn is_checking(&self) -> bool {
        self.check_waits || self.look.as_ref().is_some_and(|look| look.purpose == Purpose::Check)
    }

    /// True if what is found is made equal.
    pub(super) fn heals(&self) -> bool {
        self.look.as_ref().is_some_and(Look::heals)
    }

    /// The resync that an answer to a look is for.
    pub(super) fn asked(&mut self) -> Option<&mut Resync> {
        self.look.as_mut().map(|look| &mut look.resync).or(self.spent.as_mut())
    }

    /// What comes before the next look.
    fn before(&mut self) -> Option<Resync> {
        let spent = self.spent.take();
        self.look.take().map(|look| look.resync).or(spent)
    }

    /// The resync that looks, to be told of each record.
    pub(super) fn resync(&mut self) -> Option<&mut Resync> {
        self.look.as_mut().map(|look| &mut look.resync)
    }

    /// Progress of the resync or check, and of the comparison, as they are told.
    pub(super) fn shown(&self) -> (Option<ResyncProgress>, Option<ResyncProgress>) {
        (self.shown.resync, self.shown.verify)
    }
}

/// How far `resync` is.
fn progress_of(resync: &Resync, phase: Phase) -> ResyncProgress {
    let progress = resync.progress();
    ResyncProgress {
        phase,
        objects_done: progress.objects_done,
        objects_left: progress.objects_wanted,
        bytes_done: progress.bytes_done,
        bytes_left: progress.bytes_wanted,
        differences: progress.differences,
    }
}

impl Replica {
    /// How far a check is, as the handshake tells it.
    pub(super) fn check_standing(&self) -> Check {
        match (self.looking.is_checking(), self.kept.check_began) {
            (true, _) => Check::Running,
            (false, Some(_)) => Check::Unfinished,
            (false, None) => Check::None,
        }
    }

    /// A stream has begun, with a check or without.
    pub(super) fn looks_begin(&mut self, begin: &Begin) -> Result<(), String> {
        self.looking.spent = None;
        if self.resync.is_some() && !self.looking.is_checking() {
            // What a resync has not come to yet is no finding of a comparison.
            self.stop_looking();
        }
        if let Some(look) = &mut self.looking.look {
            look.resync.restart();
        }
        if begin.check { self.begin_check() } else { Ok(()) }
    }

    fn begin_check(&mut self) -> Result<(), String> {
        let before = self.kept.check_began;
        self.kept.check_began = Some(before.unwrap_or_else(resync_clock));
        if let Err(e) = self.kept.store(&self.state) {
            self.kept.check_began = before;
            return Err(e.to_string());
        }
        self.stop_looking();
        if self.resync.is_some() {
            self.looking.check_waits = true;
            return Ok(());
        }
        self.take_check(before)
    }

    /// The check begins; `since`: records have set mtimes since then (rule 7).
    fn take_check(&mut self, since: Option<i64>) -> Result<(), String> {
        self.looking.check_waits = false;
        self.brake.begin(None).map_err(|e| e.to_string())?;
        let mut look = Look::new(Purpose::Check, self.looking.before());
        if let Some(sec) = since {
            look.resync.distrust_since(Time { sec, nsec: 0 });
        }
        self.looking.look = Some(look);
        Ok(())
    }

    /// The replica is about to be made equal: no look is of use meanwhile, a comparison comes after it.
    pub(super) fn stop_looking(&mut self) {
        if let Some(Look { purpose: Purpose::Verify { id, repair }, .. }) = self.looking.look {
            self.looking.waiting = Some(Order::Verify { id, repair });
        }
        (self.looking.look, self.looking.spent, self.looking.check_waits) = (None, None, false);
    }

    /// What a human wants.
    pub(super) fn ordered(&mut self, order: Order) {
        match order {
            Order::Verify { id, .. } => match &mut self.looking.look {
                Some(look) if look.is_verify(id) => {
                    // What was told on a connection that is lost is told again.
                    let again = look.found.iter().cloned();
                    let told = again.map(|(path, what)| Finding::Difference { verify: id, path, what });
                    self.looking.outbox = told.collect();
                }
                _ => self.looking.waiting = Some(order),
            },
            Order::Cancel { id } => {
                let is_it =
                    |order: &mut Order| matches!(order, Order::Verify { id: other, .. } if *other == id);
                self.looking.waiting.take_if(is_it);
                let cancelled = self.looking.look.take_if(|look| look.is_verify(id));
                self.looking.spent = cancelled.map(|look| look.resync).or(self.looking.spent.take());
            }
            Order::Confirm => self.confirm(),
        }
    }

    fn confirm(&mut self) {
        let Some(resync) = &mut self.resync else { return };
        match self.brake.allow() {
            Ok(()) => {
                resync.release();
                self.last_error.take_if(|said| said == ASKS);
            }
            Err(e) => self.failed(format!("note that removals are allowed: {e}")),
        }
    }

    /// Goes on looking; returns what to ask.
    pub(super) fn look_on(&mut self) -> Vec<Want> {
        self.begin_waiting();
        self.end_needless_check();
        let Some(mut look) = self.looking.look.take() else { return Vec::new() };
        let backlog = self.resync.as_ref().map_or(0, |resync| resync.progress().objects_wanted);
        let mut wants = Vec::new();
        if backlog < BACKLOG_MAX {
            let Replica { target, lacks, brake, .. } = self;
            match look.resync.wants(Disk { target, lacks, brake }) {
                Ok(asked) => wants = asked,
                Err(failure) => self.failed(format!("look at the replica: {failure}")),
            }
        }
        for found in look.resync.take_found() {
            self.looking.outbox.extend(look.note(found));
        }
        if let Err(Stall { why }) = self.heal_found(&mut look) {
            self.failed(why);
        }
        if look.resync.done() && look.to_heal.is_empty() && self.is_over(&look) {
            self.end_look(look);
        } else {
            self.looking.look = Some(look);
        }
        wants
    }

    /// A resync that compares the whole tree finds all that a check would. What a check has found in plenty is sent
    /// once that way, and not for the check, too.
    fn end_needless_check(&mut self) {
        if let (Some(look), Some(resync)) = (&self.looking.look, &mut self.resync)
            && look.to_heal.is_empty()
            && look.finds_much()
        {
            resync.take_over();
        }
        let widened = self.resync.as_ref().is_some_and(Resync::is_widened);
        if !widened || self.looking.look.as_ref().is_none_or(|look| look.purpose != Purpose::Check) {
            return;
        }
        let before = self.kept.check_began.take();
        if let Err(e) = self.kept.store(&self.state) {
            self.kept.check_began = before;
            return self.failed(format!("note that the check became a resync of the whole tree: {e}"));
        }
        info!("{} is compared and made equal as a whole", self.dir.display());
        self.looking.spent = self.looking.before();
    }

    fn begin_waiting(&mut self) {
        if self.looking.check_waits && self.resync.is_none() {
            let since = self.kept.check_began;
            if let Err(why) = self.take_check(since) {
                self.looking.check_waits = true;
                self.failed(why);
            }
        }
        let busy = self.resync.is_some() || self.looking.is_checking();
        if let Some(Order::Verify { id, repair }) = self.looking.waiting.take_if(|_| !busy) {
            if repair && let Err(e) = self.brake.begin(None) {
                self.looking.waiting = Some(Order::Verify { id, repair });
                return self.failed(format!("note that a resync begins: {e}"));
            }
            let mut look = Look::new(Purpose::Verify { id, repair }, self.looking.before());
            look.resync.distrust_all();
            self.looking.look = Some(look);
        }
    }

    /// Hands what was found to the resync; a stall where that can't be noted.
    pub(super) fn heal_now(&mut self) -> Result<(), Stall> {
        let Some(mut look) = self.looking.look.take_if(|look| !look.to_heal.is_empty()) else {
            return Ok(());
        };
        let healed = self.heal_found(&mut look);
        self.looking.look = Some(look);
        healed
    }

    fn heal_found(&mut self, look: &mut Look) -> Result<(), Stall> {
        if look.to_heal.is_empty() {
            return Ok(());
        }
        // What hashes have found, an equal size and mtime would hide after a kill.
        let by_hashes = look.purpose != Purpose::Check;
        self.resync_paths(if by_hashes { Trust::Nothing } else { Trust::Older })?;
        let Some(resync) = &mut self.resync else { return Ok(()) };
        resync.goes_back_to(&look.resync);
        for (path, what) in look.to_heal.drain(..) {
            resync.want_found(&path, what);
        }
        Ok(())
    }

    /// True unless what was found is still being made equal, and that is waited for.
    fn is_over(&self, look: &Look) -> bool {
        look.purpose == Purpose::Check || !look.heals() || self.resync.is_none()
    }

    fn end_look(&mut self, look: Look) {
        let (directory, objects) = (self.dir.display(), look.resync.progress().objects_done);
        match look.purpose {
            Purpose::Check => {
                info!("{directory} was checked: {objects} objects, {} of them differed", look.differences);
                self.kept.check_began = None;
                if let Err(e) = self.kept.store(&self.state) {
                    // It is checked once more after the next start; no harm.
                    self.failed(format!("note the end of the check: {e}"));
                }
            }
            Purpose::Verify { id: verify, .. } => {
                let Look { resync, differences, .. } = look;
                info!(
                    "{directory} was compared by hashes: {objects} objects, {differences} of them differed"
                );
                let (as_of, bytes) = (self.applied.position().lsn, resync.progress().bytes_done);
                let ended = Verified { verify, as_of, objects, bytes, differences };
                self.looking.outbox.push(Finding::Ended(ended));
            }
        }
    }

    /// Notes how far all is, now and then.
    pub(super) fn show(&mut self) {
        let look = |is: fn(&Purpose) -> bool| self.looking.look.as_ref().filter(|look| is(&look.purpose));
        let check = look(|purpose| *purpose == Purpose::Check).map(|look| look.progress(Phase::Checking));
        let resync = match (&self.resync, check) {
            (None, check) => check,
            (Some(resync), check) => {
                let phase = if resync.is_held() { Phase::Confirm } else { Phase::Resyncing };
                let own = progress_of(resync, phase);
                Some(check.map_or(own, |check| together(own, check)))
            }
        };
        let waiting = self.looking.waiting.map(|_| nothing(Phase::Waiting));
        let verify = look(|purpose| *purpose != Purpose::Check).map(|look| look.progress(Phase::Verifying));
        let (verify, shown) = (verify.or(waiting), &self.looking.shown);
        let phase = |progress: Option<ResyncProgress>| progress.map(|progress| progress.phase);
        let same = phase(resync) == phase(shown.resync) && phase(verify) == phase(shown.verify);
        if !same || shown.at.is_none_or(|at| at.elapsed() >= SHOW_INTERVAL) {
            self.looking.shown = Shown { at: Some(Instant::now()), resync, verify };
        }
    }

    /// What is to be told of the comparison; each is told once.
    pub(super) fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.looking.outbox)
    }
}

fn nothing(phase: Phase) -> ResyncProgress {
    ResyncProgress { phase, objects_done: 0, objects_left: 0, bytes_done: 0, bytes_left: 0, differences: 0 }
}

/// A check, and what it has found being made equal.
fn together(resync: ResyncProgress, check: ResyncProgress) -> ResyncProgress {
    ResyncProgress {
        phase: resync.phase,
        objects_done: resync.objects_done + check.objects_done,
        objects_left: resync.objects_left + check.objects_left,
        bytes_done: resync.bytes_done + check.bytes_done,
        bytes_left: resync.bytes_left + check.bytes_left,
        differences: check.differences,
    }
}
