//! A slave: the real replica in a directory, the real sessions, and around them what `relay` and `receive` do.
//!
//! One step at a time: one record, one answer, one frame. A kill drops the process and puts back the state files
//! as they were, for a replica that is dropped ends cleanly.

use super::link::Link;
use super::tree;
use crate::relay::{Item, News, Replay, Stall, Syncer};
use crate::replay::target::faults;
use crate::replica::Replica;
use crate::resync::tests::model::Tree;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tdfs_wire::answer::{Answer, Want};
use tdfs_wire::frame::{FrameError, FrameKind};
use tdfs_wire::message::{Begin, MasterMessage, Message, Report, Standing};
use tdfs_wire::record::Record;
use tdfs_wire::session::slave::{self, Config, Hangup, Input, Output, Session, check_records};
use tdfs_wire::{Id, Lsn, Op, TreePath};

/// With so many items in it, the relay takes no more.
const RELAY_ITEMS_MAX: usize = 6;
const STATE_FILES: [&str; 3] = ["applied", "replica.json", "removals.json"];

/// State files by their names.
type Files = Vec<(&'static str, Vec<u8>)>;

/// The machine and what is on its disk.
pub struct Machine {
    pub dir: PathBuf,
    state: PathBuf,
    pub process: Option<Process>,
    /// The tree and the state files as they were at the last sync; None: no OS crash is planned.
    on_disk: Option<(Tree, Files)>,
    pub crashes_planned: bool,
    /// Up to here a sync has succeeded in the present epoch.
    pub synced: Lsn,
}

/// The daemon.
pub struct Process {
    pub replica: Replica,
    syncer: Syncer,
    pub connections: Vec<Connection>,
    /// The one that has the replica, by its link.
    lane: Option<usize>,
    queue: VecDeque<Item>,
    /// Of the records in front, so many bytes are done.
    done: usize,
    news: News,
    begun: bool,
    stalled: Option<String>,
}

/// One connection.
pub struct Connection {
    pub link: usize,
    session: Session,
    paused: bool,
    in_hand: Option<Item>,
    taken_over: bool,
    pub over: bool,
    /// Why the session ended it as a fault of the master.
    pub fault: Option<String>,
}

/// What one step of replay did.
#[derive(Debug)]
pub enum Played {
    Idle,
    Began(Begin),
    Refused(#[expect(dead_code, reason = "shown by a trace")] String),
    Applied(Lsn, Vec<TreePath>),
    Stalled(#[expect(dead_code, reason = "shown by a trace")] String),
    Other,
}

impl Machine {
    /// A machine with an empty directory for the replica below `scratch`.
    pub fn new(scratch: &Path, number: usize) -> Machine {
        let (dir, state) = (scratch.join(format!("replica{number}")), scratch.join(format!("state{number}")));
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(&state).unwrap();
        Machine { dir, state, process: None, on_disk: None, crashes_planned: false, synced: Lsn::ZERO }
    }

    pub fn start(&mut self) {
        faults::fail_after(None);
        let open = || crate::open_replica(&self.dir, &self.state, false);
        let replica = crate::replica::tests::when_unlocked(open).unwrap();
        let syncer = replica.syncer();
        self.synced = replica.durable();
        self.process = Some(Process {
            replica,
            syncer,
            connections: Vec::new(),
            lane: None,
            queue: VecDeque::new(),
            done: 0,
            news: News::default(),
            begun: false,
            stalled: None,
        });
        if self.crashes_planned {
            self.note_on_disk();
        }
    }

    fn state_files(&self) -> Files {
        let read = |name| fs::read(self.state.join(name)).ok().map(|bytes| (name, bytes));
        STATE_FILES.into_iter().filter_map(read).collect()
    }

    fn restore(&self, files: &[(&'static str, Vec<u8>)]) {
        for name in STATE_FILES {
            match files.iter().find(|(other, _)| *other == name) {
                Some((_, bytes)) => fs::write(self.state.join(name), bytes).unwrap(),
                None => drop(fs::remove_file(self.state.join(name))),
            }
        }
    }

    fn note_on_disk(&mut self) {
        self.on_disk = Some((tree::scan(&self.dir), self.state_files()));
    }

    /// kill -9; the links of its connections are returned.
    pub fn kill(&mut self) -> Vec<usize> {
        let files = self.state_files();
        let links = self.stop();
        self.restore(&files);
        links
    }

    /// Ends by itself.
    pub fn stop(&mut self) -> Vec<usize> {
        faults::fail_after(None);
        let process = self.process.take();
        if let Some(process) = &process {
            // Else its end does it on a thread, which may hold the replica a moment longer.
            (process.syncer)().unwrap();
        }
        process.map_or(Vec::new(), |process| process.connections.iter().map(|one| one.link).collect())
    }

    /// A power cut: of what was not synced, anything may be lost.
    pub fn crash(&mut self, mut chance: impl FnMut() -> bool) -> Vec<usize> {
        let files_now = self.state_files();
        let links = self.kill();
        let (tree_then, files_then) = self.on_disk.take().expect("planned");
        let mixed = tree::mixed(&tree_then, &tree::scan(&self.dir), &mut chance);
        tree::write_anew(&self.dir, &mixed);
        // `replica.json` and `removals.json` are on the disk when a write returns.
        let applied = if chance() { files_then } else { files_now.clone() };
        let of = |files: &[(&'static str, Vec<u8>)], is: bool| {
            files.iter().filter(|(name, _)| (*name == "applied") == is).cloned().collect::<Vec<_>>()
        };
        self.restore(&[of(&applied, true), of(&files_now, false)].concat());
        self.reboot();
        links
    }

    /// What is written so far is of another boot.
    fn reboot(&self) {
        let path = self.state.join("applied");
        if let Ok(mut bytes) = fs::read(&path) {
            bytes_of_another_boot(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
    }

    /// All that is applied becomes durable.
    pub fn sync(&mut self) {
        let Some(process) = &mut self.process else { return };
        let durable = (process.syncer)().unwrap();
        process.news.durable = Some(durable);
        self.synced = durable;
        if self.crashes_planned {
            self.note_on_disk();
        }
    }

    /// The replica has done a step: it may have synced by itself. `reset`: only its position.
    pub fn played(&mut self, reset: bool, became_equal: bool) {
        let Some(process) = &self.process else { return };
        let durable = process.replica.durable();
        if std::mem::replace(&mut self.synced, durable) == durable && !reset && !became_equal {
            return;
        }
        match (&mut self.on_disk, became_equal) {
            (Some(_), true) => self.note_on_disk(),
            (Some(_), false) => {
                let files = self.state_files();
                self.on_disk.iter_mut().for_each(|on_disk| on_disk.1.clone_from(&files));
            }
            (None, _) => {}
        }
    }

    /// A connection came in.
    pub fn connected(&mut self, link: usize, now: Instant) {
        let Some(process) = &mut self.process else { return };
        let config = Config { software: "simulated".into(), filesystem: process.replica.filesystem() };
        let session = Session::new(config, now);
        process.connections.push(Connection {
            link,
            session,
            paused: false,
            in_hand: None,
            taken_over: false,
            over: false,
            fault: None,
        });
    }

    pub fn standing(&self) -> Option<Standing> {
        self.process.as_ref().map(|process| process.replica.standing())
    }
}

/// Changes the boot ids of both slots of an applied file, with their checksums.
fn bytes_of_another_boot(bytes: &mut [u8]) {
    for slot in [512, 1024] {
        let Some(slot) = bytes.get_mut(slot..slot + 96) else { continue };
        let is_sealed = crc32c::crc32c(&slot[..92]).to_le_bytes() == slot[92..];
        if is_sealed {
            slot[64..80].fill(5);
            let crc = crc32c::crc32c(&slot[..92]);
            slot[92..].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

impl Process {
    /// How it stands, as the relay tells it.
    pub fn report(&self) -> Report {
        Report { stalled: self.stalled.clone(), ..self.replica.report() }
    }

    /// True if the stream of this link has begun.
    pub fn streams_from(&self, link: Option<usize>) -> bool {
        self.begun && self.lane == link
    }

    /// The next instant at which a session has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.connections.iter().filter_map(|one| one.session.deadline()).min()
    }

    /// One step of the thread that replays.
    pub fn play(&mut self) -> Played {
        let Some(item) = self.queue.pop_front() else {
            return self.idle();
        };
        let played = match &item {
            Item::Begin { filesystem, begin } => self.begin(*filesystem, begin),
            Item::Records(payload) => {
                let (record, len) = Record::parse(&payload[self.done..]).unwrap();
                match self.replica.apply(&record) {
                    Ok(()) => {
                        self.done += len;
                        Played::Applied(record.lsn, record.op.paths().into_iter().cloned().collect())
                    }
                    Err(stall) => self.stalls(stall),
                }
            }
            Item::Answer { as_of, payload } => {
                let (answer, bulk) = Answer::parse(payload).unwrap();
                self.replica.answer(*as_of, &answer, bulk).map_or_else(|e| self.stalls(e), |()| Played::Other)
            }
            Item::Lost(lost) => self.replica.lost(lost).map_or_else(|e| self.stalls(e), |()| Played::Other),
            Item::Order(order) => {
                self.replica.order(*order);
                Played::Other
            }
        };
        let stays = match (&played, &item) {
            (Played::Refused(_), _) => return played,
            (Played::Stalled(_), _) => true,
            (_, Item::Records(payload)) => self.done < payload.len(),
            _ => false,
        };
        if stays {
            self.queue.push_front(item);
        } else {
            self.done = 0;
        }
        if !matches!(played, Played::Stalled(_)) {
            self.stalled = None;
            let wants = self.replica.wants();
            if self.queue.is_empty() {
                self.replica.idle();
            }
            self.tell(wants);
        }
        played
    }

    fn idle(&mut self) -> Played {
        self.replica.idle();
        let wants = if self.begun { self.replica.wants() } else { Vec::new() };
        self.tell(wants);
        Played::Idle
    }

    fn stalls(&mut self, stall: Stall) -> Played {
        self.stalled = Some(stall.why.clone());
        self.tell(Vec::new());
        Played::Stalled(stall.why)
    }

    fn begin(&mut self, filesystem: Id, begin: &Begin) -> Played {
        if let Err(why) = self.replica.begin(filesystem, begin) {
            self.news.began = Some(Err(why.clone()));
            self.close_lane();
            return Played::Refused(why);
        }
        self.begun = true;
        (self.news.began, self.news.durable) = (Some(Ok(())), Some(self.replica.durable()));
        self.news.report = Some(self.report());
        Played::Began(*begin)
    }

    fn tell(&mut self, wants: Vec<Want>) {
        if self.lane.is_none() {
            return;
        }
        (self.news.report, self.news.applied) = (Some(self.report()), Some(self.replica.applied()));
        self.news.wants.extend(wants);
        let findings = self.replica.findings();
        self.news.findings.extend(findings);
    }

    /// What waits is dropped; the record in hand was finished or is tried again by the next stream.
    fn close_lane(&mut self) {
        self.queue.clear();
        self.done = 0;
        for one in self.connections.iter_mut().filter(|one| self.lane == Some(one.link)) {
            one.taken_over = true;
        }
    }

    /// One turn of a connection's task: what the relay tells, the clock, and what the session says then.
    pub fn turn(&mut self, at: usize, links: &mut [Link], now: Instant) {
        let link = self.connections[at].link;
        if links[link].tell_end(false) {
            self.connections[at].over = true;
        }
        if self.lane == Some(link) {
            let (inputs, fault) = std::mem::take(&mut self.news).into_inputs();
            assert_eq!(fault, None);
            let one = &mut self.connections[at];
            inputs.for_each(|input| one.session.handle(input, now));
            if one.paused && self.queue.len() < RELAY_ITEMS_MAX {
                one.paused = false;
                one.session.handle(Input::Resumed, now);
            }
        }
        let one = &mut self.connections[at];
        if std::mem::take(&mut one.taken_over) {
            one.session.handle(Input::Stop("another connection has taken over".into()), now);
        }
        if one.session.deadline().is_some_and(|deadline| deadline <= now) {
            one.session.handle(Input::Tick, now);
        }
        self.perform(at, links, now);
    }

    fn perform(&mut self, at: usize, links: &mut [Link], now: Instant) {
        while let Some(output) = self.connections[at].session.poll() {
            match output {
                Output::Take => self.take(at, now),
                Output::Begin { filesystem, begin } => self.push(at, Item::Begin { filesystem, begin }, now),
                Output::Deliver => {
                    let item = self.connections[at].in_hand.take().expect("it was told of");
                    self.push(at, item, now);
                }
                Output::Lost(lost) => self.push(at, Item::Lost(lost), now),
                Output::Order(order) => self.push(at, Item::Order(order), now),
                Output::Send(message) => {
                    let one = &mut self.connections[at];
                    let way = &mut links[one.link].up;
                    way.start(&message.frame().unwrap());
                    if one.session.is_streaming() && way.has_room() {
                        one.session.handle(Input::Writable, now);
                    }
                }
                Output::Hangup(hangup) => self.hangup(at, hangup, links),
            }
        }
    }

    fn hangup(&mut self, at: usize, hangup: Hangup, links: &mut [Link]) {
        let one = &mut self.connections[at];
        one.over = true;
        if let Hangup::Fault(why) = hangup {
            one.fault = Some(why);
        }
        links[one.link].close(false);
    }

    fn take(&mut self, at: usize, now: Instant) {
        self.close_lane();
        let one = &mut self.connections[at];
        self.lane = Some(one.link);
        (self.stalled, self.begun, self.news) = (None, false, News::default());
        let replica = &self.replica;
        let taken = slave::Replica {
            filesystem: replica.filesystem(),
            replica: replica.replica(),
            standing: replica.standing(),
            checksum: replica.checksum(),
            not_carried: replica.not_carried(),
            check: replica.check(),
        };
        one.session.handle(Input::Taken(taken), now);
    }

    fn push(&mut self, at: usize, item: Item, now: Instant) {
        let one = &mut self.connections[at];
        if self.lane != Some(one.link) || one.taken_over {
            return;
        }
        self.queue.push_back(item);
        if self.queue.len() >= RELAY_ITEMS_MAX && !one.paused {
            one.paused = true;
            one.session.handle(Input::Paused, now);
        }
    }

    /// True if a frame would be read.
    pub fn reads(&self, at: usize) -> bool {
        !self.connections[at].paused && !self.connections[at].over
    }

    /// A frame came.
    pub fn receive(
        &mut self,
        at: usize,
        came: Result<(FrameKind, Vec<u8>), FrameError>,
        links: &mut [Link],
        now: Instant,
    ) {
        let one = &mut self.connections[at];
        let damaged = |why: String| Input::Stop(format!("the slave got damaged bytes: {why}"));
        let input = match came {
            Err(e @ FrameError::Version { .. }) => Input::Unreadable(e.to_string()),
            Err(e) => damaged(e.to_string()),
            Ok((FrameKind::Message, payload)) => match MasterMessage::parse(&payload) {
                Ok(message) => Input::Received(message),
                Err(e) => damaged(e.to_string()),
            },
            Ok((FrameKind::Records { first, count }, payload)) => match check_records(&payload, first, count)
            {
                Ok(()) => {
                    one.in_hand = Some(Item::Records(payload));
                    Input::RecordsIn { first, count }
                }
                Err(why) => damaged(why),
            },
            Ok((FrameKind::Answer { as_of }, payload)) => {
                one.in_hand = Some(Item::Answer { as_of, payload });
                Input::AnswerIn { as_of }
            }
        };
        one.session.handle(input, now);
        self.perform(at, links, now);
    }

    /// Its frames were taken off the connection.
    pub fn written(&mut self, at: usize, links: &mut [Link], now: Instant) {
        let one = &mut self.connections[at];
        let way = &links[one.link].up;
        if way.is_empty() || (one.session.is_streaming() && way.has_room()) {
            one.session.handle(Input::Writable, now);
        }
    }

    /// The op of the record in front, to be begun next.
    pub fn next_op(&self) -> Option<Op> {
        match self.queue.front() {
            Some(Item::Records(payload)) => {
                Record::parse(&payload[self.done..]).ok().map(|(record, _)| record.op)
            }
            _ => None,
        }
    }
}
