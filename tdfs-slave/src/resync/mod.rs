//! The slave's side of a resync: drives the exchange of wants and answers until the replica is equal.
//!
//! Called by `replica`, on the replay thread: each op goes to [`Resync::applied`] after it was done, or to
//! [`Resync::contradicted`] where the replica would not have it; each answer goes to [`Resync::answer`] at
//! its place in the stream; then [`Resync::wants`] says what to ask next. DESIGN section 7 has the rules.
//! `frontier` and `moves` decide without I/O; `listing` and `content` make objects equal through `Stock`. A
//! look ([`Resync::look`]) is the same exchange that changes nothing and notes what it would have changed.
//! Knows no positions, sends nothing; only `brake` keeps anything on disk.

mod brake;
mod content;
mod disk;
mod frontier;
mod groups;
mod listing;
mod losses;
mod moves;
mod settle;
mod stock;
mod watch;

pub use brake::{Brake, count_below};
pub use disk::Disk;
pub use losses::{Stood, removed_by};

use crate::replay::{Failure, Trouble};
use frontier::{Fill, Frontier, Mark, Need, NodeId};
use listing::FoundNames;
use rustix::io::Errno;
use std::collections::BTreeSet;
use stock::Stock;
use tdfs_wire::answer::{Answer, Found, Want, Wanted};
use tdfs_wire::message::Difference;
use tdfs_wire::trail::Extent;
use tdfs_wire::{Op, Time, TreePath};
use watch::{Noted, Watch};

/// Most wants that are sent and not answered.
pub const WANTS_MAX: usize = 32;

/// Most listings on their way while new objects are being filled: a file that is made stays open until it is
/// filled, if not too many are made meanwhile.
const LISTINGS_MAX: usize = 3;

/// A check that has found so many differences, and one in so many objects, is better a resync of the whole tree: that
/// lists again what was looked at, and a look's content is of no use to it.
const FINDINGS_MIN: u64 = 100;
const OBJECTS_A_FINDING_MAX: u64 = 50;

/// The wants of looks are numbered from here on.
const LOOK_WANTS: u64 = 1 << 62;

/// What a record means that the replica contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// It had to be expected: what it names is not compared yet. Nothing to count.
    Forgiven,
    /// Somebody wrote to the replica. What it names is wanted now.
    Divergence,
}

/// How far a resync is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Objects that are known to be equal since it began.
    pub objects_done: u64,
    /// Objects that are known to be needed still (more may be found).
    pub objects_wanted: u64,
    /// Bytes of content that were compared.
    pub bytes_done: u64,
    /// Bytes of content that are known to be needed still.
    pub bytes_wanted: u64,
    /// Bytes of content that came.
    pub bytes_received: u64,
    /// Objects that were not equal: 0 as long as it is a check only.
    pub differences: u64,
    /// How often the whole tree was begun, over what was asked for.
    pub widened: u64,
}

/// One resync, from what was asked for until nothing is wanted any more.
///
/// ```text
/// whole() / paths() --> wants() --> answer() ... --> nothing needed --> hard links settled --> done()
///                         ^  ^          |                                   |
///                         |  +----------+ <--- applied(), contradicted()    | counts of names differ:
///                         +-------------------------------------------------+ the whole tree once more
/// ```
#[derive(Debug)]
pub struct Resync {
    frontier: Frontier,
    /// When it began, by the clock of the replica's ctimes.
    began: Option<Time>,
    /// Wants are numbered from 1.
    want_last: u64,
    /// Wants that were sent and not answered: also those whose answers nobody waits for any more, for the
    /// master has them in hand.
    on_the_way: BTreeSet<u64>,
    distrust: Distrust,
    progress: Progress,
    accepted: settle::Accepted,
    /// Nothing is changed: what differs is noted.
    looks: bool,
    noted: Noted,
    /// A removal waits for a human to allow it.
    held: bool,
    /// The last listing made new objects: those are filled before many more are made.
    filling: bool,
}

/// Which files are compared by hashes whatever the quick check says.
#[derive(Debug, Default)]
struct Distrust {
    all: bool,
    changed_since: Option<Time>,
}

impl Resync {
    /// Of the whole tree.
    pub fn whole() -> Resync {
        Resync::new(Frontier::new(false))
    }

    /// Of these paths and what is below them; all else counts as equal. More can come by [`Resync::want`].
    pub fn paths(paths: Vec<TreePath>) -> Resync {
        let mut resync = Resync::new(Frontier::new(true));
        paths.into_iter().for_each(|path| resync.want(path));
        resync
    }

    fn new(frontier: Frontier) -> Resync {
        Resync {
            frontier,
            began: None,
            want_last: 0,
            on_the_way: BTreeSet::new(),
            distrust: Distrust::default(),
            progress: Progress::default(),
            accepted: settle::Accepted::default(),
            looks: false,
            noted: Noted::default(),
            held: false,
            filling: false,
        }
    }

    /// A look at the whole tree, that counts as equal; it takes the place of `before`.
    pub fn look(before: Option<Resync>) -> Resync {
        let mut look = Resync { looks: true, ..Resync::whole() };
        look.want_last = LOOK_WANTS;
        if let Some(before) = before {
            (look.want_last, look.on_the_way) = (before.want_last, before.on_the_way);
        }
        look
    }

    /// True if an answer belongs to a look, by its want's id.
    pub fn is_of_look(want: u64) -> bool {
        want > LOOK_WANTS
    }

    /// What a look has found since this was asked last.
    pub fn take_found(&mut self) -> Vec<(TreePath, Difference)> {
        std::mem::take(&mut self.noted.found)
    }

    /// True if a check that has found so many `differences` should be taken over by a resync of the whole tree.
    pub fn finds_much(&self, differences: u64) -> bool {
        let looked_at = differences + self.progress.objects_done;
        differences >= FINDINGS_MIN && looked_at <= differences * OBJECTS_A_FINDING_MAX
    }

    /// Heals what `look` finds: also what records did to the content that was not looked at, since it began, is hidden
    /// by the mtimes that they set (rule 7).
    pub fn goes_back_to(&mut self, look: &Resync) {
        let earliest = |own: Option<Time>, other: Option<Time>| own.into_iter().chain(other).min();
        self.began = earliest(self.began, look.began);
        self.distrust.changed_since = earliest(self.distrust.changed_since, look.distrust.changed_since);
    }

    /// Compares the whole tree from now on, if it does not yet.
    pub fn take_over(&mut self) {
        if !self.is_widened() {
            self.widen();
        }
    }

    /// True if a removal waits for a human to allow it; nothing is asked until [`Resync::release`].
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The removal is allowed.
    pub fn release(&mut self) {
        self.held = false;
    }

    /// Compares the content of all files by hashes (`--checksum`, verify).
    pub fn distrust_all(&mut self) {
        self.distrust.all = true;
    }

    /// Compares files whose ctime in the replica is `since` or later by hashes: for a resync that goes on
    /// after a kill, with the instant when it began (rule 7).
    pub fn distrust_since(&mut self, since: Time) {
        self.distrust.changed_since = Some(since);
    }

    /// Adds `path` to the scope, with all that is below it.
    pub fn want(&mut self, path: TreePath) {
        self.bounded(|frontier| frontier.want(&path));
    }

    /// Does what makes nodes for paths that may not be there.
    fn bounded<T>(&mut self, act: impl FnOnce(&mut Frontier) -> T) -> T {
        let before = self.frontier.nodes();
        let done = act(&mut self.frontier);
        if self.frontier.bound_strays(before) {
            tracing::info!("too many paths are to be compared: all of the replica is");
            self.progress.widened += 1;
        }
        done
    }

    /// Adds what a look has found: what was compared then is not compared again.
    pub fn want_found(&mut self, path: &TreePath, what: Difference) {
        match what {
            Difference::Attributes if self.frontier.place(path).checked => {
                let node = self.frontier.ensure(path);
                self.frontier.need_meta(node);
            }
            _ => self.frontier.want(path),
        }
    }

    /// Records that touched `path` will never come (the log no longer had them): `path` is one of their trail.
    pub fn miss(&mut self, path: &TreePath, extent: Extent) {
        self.bounded(|frontier| frontier.miss(path, extent));
    }

    /// Has to be told each op after it was done in the replica, with what it removed there, if that is known
    /// ([`removed_by`]). A check's paths are wanted by this.
    pub fn applied(&mut self, op: &Op, stood: Option<Stood>) {
        self.noted.names_changed();
        self.bounded(|frontier| frontier.follow(op, stood));
    }

    /// Has to be told each op that the replica contradicts, with what it should have removed; it is not tried again.
    /// `lacks_at`: where alone something is missing now, if all else of the op was done.
    pub fn contradicted(
        &mut self,
        op: &Op,
        stood: Option<Stood>,
        lacks_at: Option<&TreePath>,
    ) -> Contradiction {
        self.noted.names_changed();
        self.bounded(|frontier| frontier.contradicted(op, stood, lacks_at))
    }

    /// The connection was lost: what was not answered is asked again.
    pub fn restart(&mut self) {
        self.on_the_way.clear();
        self.frontier.requeue_all();
    }

    /// True when nothing is wanted any more. [`Resync::wants`] has to come before: it looks at the end
    /// whether hard links are as they were told.
    pub fn done(&self) -> bool {
        self.is_idle()
            && self.on_the_way.is_empty()
            && self.frontier.groups.is_empty()
            && !self.frontier.groups.is_unseen()
    }

    /// True if nobody can say whose the object is here that an op of this kind meets: all is being made equal, or the
    /// content of this file, which gets its owner at the end.
    pub fn may_differ(&self, op: &Op) -> bool {
        let is_begun = |path: &TreePath| {
            let need = self.frontier.place(path).node.and_then(|node| self.frontier.need(node));
            matches!(need, Some(Need::Object(fill)) if fill.offset > 0)
        };
        !self.frontier.is_partial() || matches!(op, Op::Data(op) if is_begun(op.changed()))
    }

    /// True once the whole tree is compared, whatever was asked for.
    pub fn is_widened(&self) -> bool {
        self.progress.widened > 0
    }

    fn is_idle(&self) -> bool {
        self.frontier.open().0 == 0
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let (objects_wanted, bytes_wanted) = self.frontier.open();
        Progress { objects_wanted, bytes_wanted, ..self.progress }
    }

    /// The next wants to send, so many that at most [`WANTS_MAX`] are on their way.
    ///
    /// # Errors
    /// A stall, where the replica can't be read; then nothing was asked.
    pub fn wants(&mut self, mut disk: Disk<'_>) -> Result<Vec<Want>, Failure> {
        self.wants_from(&mut disk)
    }

    /// Makes the replica equal to the answer. An answer to what is not wanted any more does nothing.
    ///
    /// # Errors
    /// A stall: the same answer has to be given again.
    pub fn answer(&mut self, mut disk: Disk<'_>, answer: &Answer, bulk: &[u8]) -> Result<(), Failure> {
        self.answer_to(&mut disk, answer, bulk)
    }

    fn answer_to<S: Stock>(&mut self, stock: &mut S, answer: &Answer, bulk: &[u8]) -> Result<(), Failure> {
        if !self.looks {
            return self.take_answer(stock, answer, bulk);
        }
        let mut noted = std::mem::take(&mut self.noted);
        let (before, node) = (noted.found.len(), self.frontier.asked_for(answer.id));
        let quick = node.is_some_and(|node| self.frontier.need(node) == Some(Need::Meta));
        let done = self.take_answer(&mut Watch { stock, noted: &mut noted, quick }, answer, bulk);
        if noted.found.len() > before
            && let Some(node) = node
            && matches!(self.frontier.need(node), Some(Need::Object(_)))
        {
            // One difference is enough: what heals it compares all of it, and the rest need not come twice.
            self.frontier.finish(node);
        }
        self.noted = noted;
        done
    }

    fn wants_from<S: Stock>(&mut self, stock: &mut S) -> Result<Vec<Want>, Failure> {
        if self.began.is_none() {
            self.began = Some(stock.now());
        }
        if self.is_idle() && self.looks {
            // A look is over when all was looked at: there is nothing to settle.
            self.frontier.forget_groups();
            self.frontier.groups.take_unseen();
        } else if self.is_idle() {
            self.settle(stock)?;
        }
        let mut wants = Vec::new();
        // Asked in bursts: what comes together is answered, sent and taken together.
        if self.on_the_way.len() > WANTS_MAX / 2 {
            return Ok(wants);
        }
        while !self.held && self.on_the_way.len() < WANTS_MAX {
            let Some(node) = self.frontier.next() else { break };
            if self.filling
                && self.frontier.need(node) == Some(Need::Listing)
                && self.frontier.listings_asked() >= LISTINGS_MAX
            {
                self.frontier.requeue(node);
                break;
            }
            match self.want_for(stock, node) {
                Ok(Some(want)) => wants.push(want),
                Ok(None) => {}
                Err(failure) => {
                    self.frontier.requeue(node);
                    // What was asked has to be sent; the stall will show again.
                    return if wants.is_empty() { Err(failure) } else { Ok(wants) };
                }
            }
        }
        Ok(wants)
    }

    fn want_for<S: Stock>(&mut self, stock: &mut S, node: NodeId) -> Result<Option<Want>, Failure> {
        let Some(need) = self.frontier.need(node) else { return Ok(None) };
        let Some(path) = self.frontier.path(node) else {
            // Not to be named by any path: the directory that can be named was told of it by a check.
            self.frontier.finish(node);
            return Ok(None);
        };
        let what = match need {
            Need::Listing => Wanted::Listing { after: self.frontier.listed(node).cloned() },
            Need::Meta => Wanted::Object { offset: content::BEYOND, hashes: Vec::new() },
            Need::Object(fill) => {
                let hashes = match stock.hashes(&path, fill.offset) {
                    Err(Failure::Divergence(_)) => Vec::new(),
                    hashes => hashes?,
                };
                Wanted::Object { offset: fill.offset, hashes }
            }
        };
        self.want_last += 1;
        self.frontier.ask(node, self.want_last);
        self.on_the_way.insert(self.want_last);
        Ok(Some(Want { id: self.want_last, path, what }))
    }

    fn take_answer<S: Stock>(&mut self, stock: &mut S, answer: &Answer, bulk: &[u8]) -> Result<(), Failure> {
        self.on_the_way.remove(&answer.id);
        let node = self.frontier.asked_for(answer.id);
        let need = node.and_then(|node| self.frontier.need(node));
        tracing::trace!("answer {} about {}: {}, for {need:?}", answer.id, answer.path, answer.found);
        let Some(node) = node else { return Ok(()) };
        if self.frontier.path(node).as_ref() != Some(&answer.path) {
            self.frontier.requeue(node);
            return Ok(());
        }
        let before = self.progress.differences;
        let done = self.answer_about(stock, node, answer, bulk);
        if self.frontier.is_partial() && self.progress.differences > before {
            self.need_meta_above(&answer.path);
        }
        if done.is_err() && self.held {
            self.frontier.requeue(node);
            return Ok(());
        }
        match done {
            Err(Failure::Divergence(trouble)) => {
                tracing::debug!("the replica changed while it was made equal: {trouble}");
                self.look_again(node, &answer.path);
                Ok(())
            }
            Err(Failure::NotCarried(_)) => {
                self.frontier.finish(node);
                Ok(())
            }
            other => other,
        }
    }

    /// Whoever made the object differ may have changed the mtime of its directory, which counts as equal.
    fn need_meta_above(&mut self, path: &TreePath) {
        if let Some(parent) = path.parent() {
            let node = self.frontier.ensure(&parent);
            self.frontier.need_meta(node);
        }
    }

    /// Somebody else works in the replica, or what is above is not made equal yet: the names of the directory are
    /// compared, too, and first: what fails for want of it would be asked again and again.
    fn look_again(&mut self, node: NodeId, path: &TreePath) {
        if let Some(Need::Object(fill)) = self.frontier.need(node) {
            self.frontier.set_need(node, Some(Need::Object(Fill { offset: 0, ..fill })));
        } else {
            self.frontier.requeue(node);
        }
        if let Some(parent) = path.parent().map(|parent| self.frontier.ensure(&parent)) {
            self.frontier.need_names(parent);
            self.frontier.raise(parent);
        }
    }

    /// Removes a name with all below it, unless that needs a human: then the resync is held.
    fn remove<S: Stock>(&mut self, stock: &mut S, path: &TreePath) -> Result<(), Failure> {
        if stock.may_remove(path)? {
            return stock.remove(path);
        }
        self.held = true;
        Err(Failure::Stall(Trouble {
            doing: "remove more than half of the replica, with",
            path: path.clone(),
            errno: Errno::PERM,
        }))
    }

    fn answer_about<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        answer: &Answer,
        bulk: &[u8],
    ) -> Result<(), Failure> {
        let Some(need) = self.frontier.need(node) else { return Ok(()) };
        match (&answer.found, need) {
            (Found::Gone, Need::Listing) if node != self.frontier.root() => {
                // No directory, against all that was known.
                self.frontier.set_mark(node, Mark::Checked);
                self.frontier.set_need(node, None);
                self.frontier.need_object(node);
                Ok(())
            }
            (Found::Gone, Need::Meta | Need::Object(_)) => {
                self.progress.differences += u64::from(stock.look(&answer.path)?.is_some());
                if self.frontier.is_missed(node) && self.stands_alone(stock, &answer.path)? {
                    // No other name can have missed what this one did.
                    self.frontier.forgive_missed(node);
                }
                self.remove(stock, &answer.path)?;
                self.frontier.forget(node);
                Ok(())
            }
            (Found::Listing { meta, children, last }, Need::Listing) => {
                let after = self.frontier.listed(node);
                if children.first().is_some_and(|child| after >= Some(&child.name)) {
                    tracing::debug!("a part of the listing of {} tells what was told before", answer.path);
                    self.frontier.requeue(node);
                    return Ok(());
                }
                let found = FoundNames { meta, children, last: *last };
                self.make_directory_equal(stock, node, &answer.path, found)
            }
            (Found::Object { meta, ino, links, stretches }, Need::Meta | Need::Object(_)) => {
                let found = content::FoundObject { meta, ino: *ino, links: *links, stretches, bulk };
                self.make_object_equal(stock, node, &answer.path, &found)
            }
            _ => {
                self.frontier.requeue(node);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
