//! The master: a tree in memory, the real log on a faulty disk, a real session for each slave.
//!
//! Does what `tdfs/src/ship` does around sessions and the log, in its order, one turn at a time; `tdfs_wire`
//! decides. What was kept durably outlives `kill` and `crash`; all else is made anew by `start`.

use super::link::{Link, last};
use super::storage::Disk;
use super::tree;
use crate::resync::tests::model::Tree;
use crate::resync::tests::users::Dice;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdfs_wire::answer::Want;
use tdfs_wire::frame::{Codec, Frame, FrameError, FrameKind};
use tdfs_wire::log::{self, Cover, Extent, Lacking, Log, LogError, NextEpoch, Options};
use tdfs_wire::message::{Begin, Branch, MasterMessage, Message, SlaveMessage, Standing};
use tdfs_wire::record::Draft;
use tdfs_wire::session::master::{
    Config, Hangup, Input, Known, Output, Session, StateName, View, present_lsn,
};
use tdfs_wire::{Epoch, Id, Lsn, Op, Position, TreePath};

/// The filesystem that is served.
pub const FILESYSTEM: Id = Id([3; 16]);
/// A frame of records has about so many bytes at most: small, so that a few records take a while.
const FRAME_BYTES: usize = 300;
const RETRY: Duration = Duration::from_secs(1);

/// Sizes of one schedule.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub segment_bytes: u64,
    pub log_bytes: u64,
}

/// The machine and what is on its disk.
pub struct Master {
    pub tree: Tree,
    pub log: Option<Log>,
    pub disk: Disk,
    /// As it is noted durably.
    pub lineage: Vec<Branch>,
    /// Each change since the epoch began is in its log; durable.
    pub proven: bool,
    /// The log of the next epoch, which has not begun yet.
    pub next: Option<NextEpoch>,
    /// The tree of each record by the number of its epoch; at 0 the one that the epoch began with.
    pub history: BTreeMap<(u64, Lsn), Tree>,
    /// Tree and log are on the disk up to here.
    pub synced: Position,
    /// The tree as it was then.
    pub on_disk: Tree,
    pub outlets: Vec<Outlet>,
    limits: Limits,
    /// Objects can't be read.
    pub unreadable: bool,
    /// Records that were appended, by their number.
    pub appended: u64,
    pub starts: u64,
}

/// One slave as its task sees it.
pub struct Outlet {
    pub session: Session,
    /// The epoch that the session, and the view, are of.
    pub epoch: Epoch,
    pub link: Option<usize>,
    pub view: View,
    wants: VecDeque<(u64, Want)>,
    inbox: VecDeque<(u64, Lsn, Arc<Frame>)>,
    later: Vec<(Instant, u64, Want)>,
    /// `slaves.json`.
    saved: Option<(Epoch, Known)>,
    pub lacking: Option<Lacking>,
    /// That could not be stored last: nothing is known of what it lacks until it is met, and then all is compared.
    pub uncovered: bool,
    /// As its `Welcome` told it.
    pub standing: Option<Standing>,
    /// Each `Begin` since it was taken last.
    pub begun: Vec<(Begin, Standing)>,
    pub faults: Vec<String>,
    /// The daemon was killed before it could write that it has met this replica at all: a resync is due.
    pub unknown: bool,
}

impl Outlet {
    fn new(session: Session, epoch: Epoch) -> Outlet {
        Outlet {
            view: session.view(),
            session,
            epoch,
            link: None,
            wants: VecDeque::new(),
            inbox: VecDeque::new(),
            later: Vec::new(),
            saved: None,
            lacking: None,
            uncovered: false,
            standing: None,
            begun: Vec::new(),
            faults: Vec::new(),
            unknown: false,
        }
    }

    fn forget_link(&mut self) {
        self.link = None;
        self.wants.clear();
        self.later.clear();
    }

    fn view_in(&self, epoch: Epoch) -> View {
        if self.epoch == epoch { self.view.clone() } else { self.view.clone().of_another_epoch() }
    }

    pub fn state(&self) -> StateName {
        self.session.state_name()
    }
}

impl Master {
    pub fn new(tree: Tree, slaves: usize, limits: Limits, now: Instant) -> Master {
        let epoch = Epoch { number: 1, id: Id([1; 16]) };
        let lineage = vec![Branch { epoch, from: None }];
        let disk = Disk::default();
        let history = BTreeMap::from([((1, Lsn::ZERO), tree.clone())]);
        let mut master = Master {
            on_disk: tree.clone(),
            tree,
            log: None,
            disk,
            lineage,
            proven: true,
            next: None,
            history,
            synced: Position { epoch, lsn: Lsn::ZERO },
            outlets: Vec::new(),
            limits,
            unreadable: false,
            appended: 0,
            starts: 0,
        };
        master.log = Some(Log::create_in(master.disk.storage(), epoch, master.options()).unwrap());
        for slave in 0..slaves {
            let known = Known { needs_resync: true, check_due: true, ..Known::default() };
            master.outlets.push(Outlet::new(Session::new(master.config(slave), known, now), epoch));
        }
        master
    }

    pub fn options(&self) -> Options {
        Options { segment_bytes_max: self.limits.segment_bytes }
    }

    fn config(&self, slave: usize) -> Config {
        Config {
            software: "simulated".into(),
            filesystem: FILESYSTEM,
            lineage: self.lineage.clone(),
            jitter_seed: self.starts * 7 + slave as u64,
        }
    }

    pub fn head(&self) -> Lsn {
        self.log.as_ref().map_or(Lsn::ZERO, Log::head)
    }

    pub fn is_up(&self) -> bool {
        self.log.is_some()
    }

    /// The tree as it was after a record.
    pub fn tree_at(&self, position: Position) -> Option<&Tree> {
        self.history.get(&(position.epoch.number, position.lsn))
    }

    /// Changes the tree, if `op` is possible, and records it; returns the op as recorded.
    pub fn change(&mut self, op: Op, bulk: &[u8]) -> Option<Op> {
        self.log.as_ref()?;
        let op = tree::as_recorded(op, &self.tree)?;
        self.tree.apply(&op, bulk).ok()?;
        let op = tree::with_outcome(op, &self.tree);
        self.append(&op, bulk);
        Some(op)
    }

    /// Changes the tree, is killed while it appends the record; false if the op was not possible, or is not recorded.
    pub fn change_torn(&mut self, op: Op, bulk: &[u8], bytes: usize) -> bool {
        let records = self.proven && !self.disk.is_failing();
        let Some(log) = self.log.as_ref().filter(|_| records) else { return false };
        let Some(op) = tree::as_recorded(op, &self.tree) else { return false };
        if self.tree.apply(&op, bulk).is_err() {
            return false;
        }
        let op = tree::with_outcome(op, &self.tree);
        let mut draft = Draft::new(&op, bulk).unwrap();
        let bytes = bytes % draft.len();
        let reservation = log.reserve(draft.len()).unwrap();
        self.disk.tear_after(bytes);
        log.append(reservation, &mut draft, 0).unwrap_err();
        let position = (self.epoch().number, log.head());
        self.history.insert(position, self.tree.clone());
        self.kill();
        true
    }

    /// kill -9.
    pub fn kill(&mut self) {
        (self.log, self.next) = (None, None);
        self.disk = self.disk.after_kill();
        self.outlets.iter_mut().for_each(Outlet::forget_link);
    }

    /// A power cut: the tree is a mix of what was on the disk and what was not.
    pub fn crash(&mut self, dice: &mut Dice) {
        self.kill();
        self.disk = self.disk.after_crash(dice.below(1 << 20) as u64);
        self.tree = tree::mixed(&self.on_disk, &self.tree, || dice.chance(2));
        (self.on_disk, self.proven) = (self.tree.clone(), false);
    }

    /// With what is known of the slaves durably.
    pub fn start_sessions(&mut self, now: Instant) {
        let epoch = self.epoch();
        for slave in 0..self.outlets.len() {
            let saved = self.outlets[slave].saved.clone();
            let lacking = self.outlets[slave].lacking.take().filter(|lacking| lacking.epoch() == epoch);
            let known = self.known(saved.as_ref(), lacking.is_some());
            let Outlet { uncovered, unknown, .. } = self.outlets[slave];
            let unknown = unknown || known.replica.is_none();
            let session = Session::new(self.config(slave), known, now);
            self.outlets[slave] =
                Outlet { saved, lacking, uncovered, unknown, ..Outlet::new(session, epoch) };
        }
    }

    fn known(&self, saved: Option<&(Epoch, Known)>, is_covered: bool) -> Known {
        let Some((epoch, known)) = saved else {
            return Known { needs_resync: true, check_due: true, is_covered, ..Known::default() };
        };
        let durable = present_lsn(&self.lineage, Position { epoch: *epoch, lsn: known.durable });
        Known {
            durable: durable.unwrap_or_default(),
            needs_resync: known.needs_resync || durable.is_none(),
            check_due: true,
            is_covered,
            ..known.clone()
        }
    }

    /// Ends the daemon: slaves are told as far as they take it at once.
    pub fn stop(&mut self, links: &mut [Link], dice: &mut Dice, now: Instant) {
        for slave in 0..self.outlets.len() {
            self.outlets[slave].session.handle(Input::Stop("the master ends".into()), now);
            self.perform(slave, links, now);
            self.show(slave);
        }
        self.save();
        self.sync(dice);
        self.kill();
    }

    /// Writes `slaves.json`, if that can be written: it is on the same disk.
    pub fn save(&mut self) {
        if self.disk.is_failing() {
            return;
        }
        let epoch = self.epoch();
        for outlet in &mut self.outlets {
            let view = outlet.view_in(epoch);
            let known = Known {
                durable: view.progress.durable,
                replica: view.replica,
                resyncs: view.resyncs,
                last_resync: view.last_resync,
                divergences: view.divergences,
                needs_resync: view.needs_resync,
                check_due: false,
                is_covered: false,
            };
            outlet.saved = Some((epoch, known));
        }
    }

    /// Writes `slaves.json` as it was while a slave was made equal.
    pub fn save_as_resyncing(&mut self, slave: usize) {
        self.save();
        if let Some((_, known)) = &mut self.outlets[slave].saved {
            known.needs_resync = true;
        }
    }

    /// Once a second: deletes what nobody needs.
    pub fn keep(&mut self) {
        let Some(log) = self.log.as_ref().filter(|log| !log.is_over()) else { return };
        let Extent { epoch, head, oldest } = log.extent();
        let views: Vec<View> = self.outlets.iter().map(|outlet| outlet.view_in(epoch)).collect();
        let within = log.floor_within(self.limits.log_bytes);
        let retention = log::retention(head, (oldest, within), &views, &[]);
        for at in retention.left_behind {
            self.outlets[at].view.needs_resync = true;
            self.outlets[at].session.mark_for_resync();
        }
        let floor = log.deletable(retention.floor);
        for (outlet, view) in self.outlets.iter_mut().zip(&views) {
            match log::cover(outlet.lacking.as_ref(), view, log, floor).unwrap() {
                Cover::Same => {}
                Cover::Drop => outlet.lacking = None,
                Cover::Keep(lacking) => {
                    outlet.uncovered = self.disk.is_failing();
                    outlet.lacking = Some(lacking).filter(|_| !outlet.uncovered);
                }
            }
        }
        if let Err(e) = log.retain(retention.floor) {
            self.forgive(&e);
        }
    }

    /// One turn of a slave's task: tells its session of the log and of answers, does what it says.
    pub fn turn(&mut self, slave: usize, links: &mut [Link], now: Instant) {
        if self.log.is_none() {
            return;
        }
        self.look(slave, now);
        self.perform(slave, links, now);
        self.show(slave);
    }

    /// The head first, then answers, and then the head is told: `Input::Log` says why.
    fn look(&mut self, slave: usize, now: Instant) {
        let Some(log) = &self.log else { return };
        let Extent { epoch, head, oldest } = log.extent();
        let outlet = &mut self.outlets[slave];
        if outlet.epoch != epoch {
            outlet.epoch = epoch;
            outlet.wants.clear();
            outlet.session.mark_for_resync();
            outlet.session.handle(Input::Lineage(self.lineage.clone()), now);
        }
        for (connection, as_of, frame) in outlet.inbox.drain(..) {
            outlet.session.handle(Input::Answered { connection, as_of, frame }, now);
        }
        let due = outlet.later.extract_if(.., |(at, _, _)| *at <= now).collect::<Vec<_>>();
        for (_, connection, want) in due {
            if outlet.session.is_connection(connection) {
                outlet.wants.push_back((connection, want));
            }
        }
        outlet.session.handle(Input::Log { head, oldest }, now);
        if outlet.session.deadline().is_some_and(|deadline| deadline <= now) {
            if self.synced.epoch == epoch {
                outlet.session.handle(Input::MasterDurable(self.synced.lsn), now);
            }
            outlet.session.handle(Input::Tick { time_ns: 0 }, now);
        }
    }

    fn perform(&mut self, slave: usize, links: &mut [Link], now: Instant) {
        while let Some(output) = self.outlets[slave].session.poll() {
            match output {
                Output::Dial => self.outlets[slave].link = None,
                Output::Hangup(why) => self.hangup(slave, &why, links),
                Output::Send(message) => {
                    self.note_begin(slave, &message);
                    self.write(slave, &message.frame().unwrap(), links, now);
                }
                Output::SendAnswer(frame) => self.write(slave, &frame, links, now),
                Output::Records { after, up_to } => self.write_records(slave, (after, up_to), links, now),
                Output::Ask { connection, want } => {
                    self.outlets[slave].wants.push_back((connection, want));
                }
                Output::Found(_) => {}
            }
        }
    }

    fn note_begin(&mut self, slave: usize, message: &MasterMessage) {
        let outlet = &mut self.outlets[slave];
        if let (MasterMessage::Begin(begin), Some(standing)) = (message, outlet.standing) {
            outlet.begun.push((*begin, standing));
        }
    }

    fn hangup(&mut self, slave: usize, why: &Hangup, links: &mut [Link]) {
        let outlet = &mut self.outlets[slave];
        if let Hangup::Fault(why) = why {
            outlet.faults.push(why.clone());
        }
        if let Some(at) = outlet.link {
            links[at].close(true);
        }
        outlet.forget_link();
    }

    fn write(&mut self, slave: usize, frame: &Frame, links: &mut [Link], now: Instant) {
        let outlet = &mut self.outlets[slave];
        let Some(at) = outlet.link else { return };
        links[at].down.start(frame);
        if outlet.session.is_streaming() && links[at].down.has_room() {
            outlet.session.handle(Input::Writable, now);
        }
    }

    /// Frames were taken off the connection.
    pub fn written(&mut self, slave: usize, links: &mut [Link], now: Instant) {
        let outlet = &mut self.outlets[slave];
        let Some(at) = outlet.link else { return };
        let way = &links[at].down;
        if way.is_empty() || (outlet.session.is_streaming() && way.has_room()) {
            outlet.session.handle(Input::Writable, now);
        }
    }

    fn write_records(&mut self, slave: usize, range: (Lsn, Lsn), links: &mut [Link], now: Instant) {
        let log = self.log.as_ref().unwrap();
        let (after, up_to) = range;
        let read = log.cursor(after).and_then(|mut cursor| cursor.read(up_to, FRAME_BYTES));
        match read {
            Ok(Some(batch)) => {
                let kind = FrameKind::Records { first: batch.first, count: batch.count };
                let frame = Frame::new(kind, Codec::Lzf, batch.bytes);
                self.write(slave, &frame, links, now);
                self.outlets[slave].session.handle(Input::Sent(last(&frame)), now);
            }
            Ok(None) => panic!("nothing to read after {after} up to {up_to}"),
            Err(LogError::Gone { .. }) => {
                let (head, oldest) = (log.head(), log.oldest());
                let outlet = &mut self.outlets[slave];
                outlet.session.handle(Input::Log { head, oldest }, now);
                self.lost(slave, "the log no longer has what it lacks", links, now);
            }
            Err(e @ LogError::Over) => self.lost(slave, &e.to_string(), links, now),
            Err(e) => panic!("read the log after {after}: {e}"),
        }
    }

    /// The connection is gone.
    pub fn lost(&mut self, slave: usize, why: &str, links: &mut [Link], now: Instant) {
        let outlet = &mut self.outlets[slave];
        if let Some(at) = outlet.link {
            links[at].close(true);
        }
        outlet.forget_link();
        outlet.session.handle(Input::Lost(why.into()), now);
    }

    /// True if the session waits for a connection.
    pub fn is_dialling(&self, slave: usize) -> bool {
        let outlet = &self.outlets[slave];
        self.is_up()
            && outlet.link.is_none()
            && outlet.session.deadline().is_none()
            && !outlet.session.is_ended()
    }

    /// A connection stands, or could not be made.
    pub fn dialled(&mut self, slave: usize, link: Option<usize>, now: Instant) {
        let outlet = &mut self.outlets[slave];
        outlet.link = link;
        let failed = || Input::DialFailed("nobody there".into());
        outlet.session.handle(link.map_or_else(failed, |_| Input::Dialled), now);
    }

    /// A frame came.
    pub fn receive(
        &mut self,
        slave: usize,
        came: Result<(FrameKind, Vec<u8>), FrameError>,
        links: &mut [Link],
        now: Instant,
    ) {
        self.look(slave, now); // a handshake is decided by the log as it is now
        let outlet = &mut self.outlets[slave];
        let message = match came {
            Ok((FrameKind::Message, payload)) => SlaveMessage::parse(&payload).map_err(|e| e.to_string()),
            Ok((other, _)) => Err(format!("a frame that no slave sends: {other:?}")),
            Err(e @ FrameError::Version { .. }) => {
                if let Some(at) = outlet.link {
                    links[at].close(true);
                }
                outlet.forget_link();
                return outlet.session.handle(Input::Refused(e.to_string()), now);
            }
            Err(e) => Err(e.to_string()),
        };
        match message {
            Ok(message) => {
                if let SlaveMessage::Welcome(welcome) = &message {
                    outlet.standing = Some(welcome.standing);
                    if let Some(log) = &self.log {
                        let met = log::meet(log, outlet.lacking.as_ref(), welcome);
                        outlet.session.handle(met, now);
                    }
                }
                outlet.session.handle(Input::Received(message), now);
            }
            Err(why) => self.lost(slave, &why, links, now),
        }
        self.perform(slave, links, now);
        self.show(slave);
    }

    /// The object that is asked for next.
    pub fn next_want(&self, slave: usize) -> Option<TreePath> {
        self.outlets[slave].wants.front().map(|(_, want)| want.path.clone())
    }

    /// Answers one want of a slave, exact as of now; false if there is none.
    pub fn answer_one(&mut self, slave: usize, dice: &mut Dice, now: Instant) -> bool {
        let Some(log) = &self.log else { return false };
        let (head, is_over) = (log.head(), log.is_over());
        let outlet = &mut self.outlets[slave];
        if outlet.session.answers_waiting() >= 4 {
            return false;
        }
        let Some((connection, want)) = outlet.wants.pop_front() else { return false };
        if is_over {
            return true; // what is read is as of no record
        }
        if self.unreadable {
            outlet.later.push((now + RETRY, connection, want));
            return true;
        }
        let (answer, bulk) = tree::answer(&self.tree, &want, 1 + dice.below(6));
        let frame = Arc::new(answer.frame(head, &bulk, Codec::Lzf).unwrap());
        outlet.inbox.push_back((connection, head, frame));
        true
    }

    /// What an operator is told of a slave.
    pub fn status(&self, slave: usize) -> View {
        let view = self.outlets[slave].view_in(self.epoch());
        View { needs_resync: view.needs_resync || self.is_in_trouble(), ..view }
    }

    fn show(&mut self, slave: usize) {
        let outlet = &mut self.outlets[slave];
        outlet.view = outlet.session.view();
    }

    /// The next instant at which a session has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.log.as_ref()?;
        let sessions = self.outlets.iter().filter_map(|outlet| outlet.session.deadline());
        let later = self.outlets.iter().flat_map(|outlet| outlet.later.iter().map(|(at, _, _)| *at));
        sessions.chain(later).min()
    }
}
