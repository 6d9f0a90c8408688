//! A master session and a slave session over a link that is slow, cut and half-open, from one seed.

use super::{master, slave};
use crate::answer::{Want, Wanted};
use crate::frame::{Codec, FrameKind};
use crate::message::{Begin, Branch, Check, MasterMessage, Plan, Report, SlaveMessage, Standing};
use crate::{Epoch, Frame, Id, Lsn, Position, TreePath};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

const OBJECTS: u64 = 6;
const EPOCH: Epoch = Epoch { number: 1, id: Id([7; 16]) };
const FILESYSTEM: Id = Id([1; 16]);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

enum Down {
    Message(MasterMessage),
    Records { first: Lsn, count: u32 },
    Answer { as_of: Lsn, object: u64, version: Lsn },
}

/// What the slave keeps when its connection goes.
#[derive(Default)]
struct Replica {
    filesystem: Option<Id>,
    applied: Lsn,
    durable: Lsn,
    missing: Option<BTreeSet<u64>>,
    asked: BTreeSet<u64>,
    content: BTreeMap<u64, Lsn>,
    relay: VecDeque<Down>,
    begun: u64,
    resyncs: u64,
    resumed: u64,
}

struct World {
    random: Random,
    now: Instant,
    /// The object that each record touches; the first record is at 0.
    log: Vec<u64>,
    oldest: Lsn,
    master: master::Session,
    master_writes: bool,
    asks: VecDeque<(u64, Want)>,
    placed: VecDeque<(u64, Lsn, Arc<Frame>)>,
    slave: Option<slave::Session>,
    slave_writes: bool,
    replica: Replica,
    down: VecDeque<Down>,
    up: VecDeque<SlaveMessage>,
    cuts: u64,
    answers: u64,
    /// A part of the answer about this object came, and not all.
    log_max: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let now = Instant::now();
        let config = master::Config {
            software: "test".into(),
            filesystem: FILESYSTEM,
            lineage: vec![Branch { epoch: EPOCH, from: None }],
            jitter_seed: seed,
        };
        World {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now,
            log: Vec::new(),
            oldest: Lsn::new(1),
            master: master::Session::new(config, master::Known::default(), now),
            master_writes: false,
            asks: VecDeque::new(),
            placed: VecDeque::new(),
            slave: None,
            slave_writes: false,
            replica: Replica::default(),
            down: VecDeque::new(),
            up: VecDeque::new(),
            cuts: 0,
            answers: 0,
            log_max: usize::MAX,
        }
    }

    fn head(&self) -> Lsn {
        Lsn::new(self.log.len() as u64)
    }

    /// The newest record up to `lsn` that touches the object.
    fn version(&self, object: u64, lsn: Lsn) -> Lsn {
        let upto = usize::try_from(lsn.get()).unwrap();
        let at = self.log[..upto].iter().rposition(|touched| *touched == object);
        Lsn::new(at.map_or(0, |at| at as u64 + 1))
    }

    fn tell_master(&mut self, input: master::Input) {
        self.master.handle(input, self.now);
        while let Some(output) = self.master.poll() {
            match output {
                master::Output::Dial => self.dial(),
                master::Output::Hangup(why) => {
                    assert!(!matches!(why, master::Hangup::Fault(_)), "{why:?}");
                    self.cut();
                }
                master::Output::Send(message) => self.write_down(Down::Message(message)),
                master::Output::SendAnswer(frame) => self.write_answer(&frame),
                master::Output::Records { after, up_to } => self.write_records(after, up_to),
                master::Output::Found(_) => panic!("nobody looks for anything"),
                master::Output::Ask { connection, want } => self.asks.push_back((connection, want)),
            }
        }
    }

    fn write_down(&mut self, frame: Down) {
        assert!(!self.master_writes, "one frame for one permit");
        self.master_writes = true;
        self.down.push_back(frame);
    }

    fn write_answer(&mut self, frame: &Frame) {
        let FrameKind::Answer { as_of } = frame.kind() else { panic!("not an answer") };
        let number = |at: usize| u64::from_le_bytes(frame.payload()[at..at + 8].try_into().unwrap());
        self.write_down(Down::Answer { as_of, object: number(0), version: Lsn::new(number(8)) });
    }

    fn write_records(&mut self, after: Lsn, up_to: Lsn) {
        assert!(after < up_to && up_to <= self.head());
        if self.oldest > after.next() {
            return self.wake();
        }
        let count = 1 + self.random.below(up_to.since(after).min(5));
        self.write_down(Down::Records { first: after.next(), count: u32::try_from(count).unwrap() });
        self.tell_master(master::Input::Sent(after.plus(count)));
    }

    fn dial(&mut self) {
        if self.random.one_in(3) {
            return self.tell_master(master::Input::DialFailed("nobody there".into()));
        }
        self.disconnect();
        let config = slave::Config { software: "test".into(), filesystem: self.replica.filesystem };
        self.slave = Some(slave::Session::new(config, self.now));
        self.tell_master(master::Input::Dialled);
    }

    fn cut(&mut self) {
        self.cuts += 1;
        self.disconnect();
    }

    fn disconnect(&mut self) {
        (self.master_writes, self.slave_writes, self.slave) = (false, false, None);
        self.down.clear();
        self.up.clear();
        self.replica.relay.clear();
    }

    fn tell_slave(&mut self, input: slave::Input) {
        let Some(mut session) = self.slave.take() else { return };
        session.handle(input, self.now);
        let mut more = Vec::new();
        while let Some(output) = session.poll() {
            match output {
                slave::Output::Take => more.push(slave::Input::Taken(self.replica.taken())),
                slave::Output::Begin { filesystem, begin } => {
                    self.replica.begin(filesystem, begin);
                    more.push(slave::Input::Began(Ok(())));
                    more.push(slave::Input::Reported(self.replica.report()));
                }
                slave::Output::Lost(_) | slave::Output::Order(_) => panic!("nobody ordered anything"),
                slave::Output::Deliver => panic!("only what came is delivered"),
                slave::Output::Send(message) => {
                    assert!(!self.slave_writes, "one message for one permit");
                    self.slave_writes = true;
                    self.up.push_back(message);
                }
                slave::Output::Hangup(why) => {
                    assert!(!matches!(why, slave::Hangup::Fault(_)), "{why:?}");
                    self.slave = None;
                    self.disconnect();
                    self.tell_master(master::Input::Lost("closed".into()));
                    return;
                }
            }
        }
        self.slave = Some(session);
        for input in more {
            self.tell_slave(input);
        }
    }

    fn receive_down(&mut self) {
        let (Some(frame), true) = (self.down.pop_front(), self.slave.is_some()) else { return };
        let input = match &frame {
            Down::Message(message) => return self.tell_slave(slave::Input::Received(message.clone())),
            Down::Records { first, count } => slave::Input::RecordsIn { first: *first, count: *count },
            Down::Answer { as_of, .. } => slave::Input::AnswerIn { as_of: *as_of },
        };
        let session = self.slave.as_mut().unwrap();
        session.handle(input, self.now);
        assert_eq!(session.poll(), Some(slave::Output::Deliver));
        self.replica.relay.push_back(frame);
        self.tell_slave(slave::Input::Tick);
    }

    fn replay(&mut self) {
        match self.replica.relay.pop_front() {
            Some(Down::Records { first, count }) => {
                for lsn in (0..u64::from(count)).map(|i| first.plus(i)) {
                    assert_eq!(lsn, self.replica.applied.next(), "a hole or a repetition");
                    self.replica.applied = lsn;
                    self.replica.content.insert(self.log[usize::try_from(lsn.get()).unwrap() - 1], lsn);
                }
            }
            Some(Down::Answer { as_of, object, version }) => {
                let applied = self.replica.applied;
                assert!(as_of <= applied, "an answer as of {as_of} at {applied}");
                assert_eq!(version, self.version(object, applied), "an answer in the wrong place");
                self.replica.content.insert(object, version);
                self.answers += 1;
                self.replica.answered(object);
            }
            Some(Down::Message(_)) | None => {}
        }
        self.tell_slave(slave::Input::Reported(self.replica.report()));
        self.tell_slave(slave::Input::Applied(self.replica.applied));
        while let Some(want) = self.replica.want() {
            self.tell_slave(slave::Input::Want(want));
        }
    }

    fn answer(&mut self) {
        let Some((connection, want)) = self.asks.pop_front() else { return };
        let as_of = self.head();
        let mut raw = want.id.to_le_bytes().to_vec();
        raw.extend_from_slice(&self.version(want.id, as_of).get().to_le_bytes());
        let frame = Arc::new(Frame::new(FrameKind::Answer { as_of }, Codec::Stored, raw));
        self.placed.push_back((connection, as_of, frame));
    }

    /// The shell wakes: the head is read first, then the answers that were placed are told, then the head.
    fn wake(&mut self) {
        let (head, oldest) = (self.head(), self.oldest);
        while let Some((connection, as_of, frame)) = self.placed.pop_front() {
            self.tell_master(master::Input::Answered { connection, as_of, frame });
        }
        self.tell_master(master::Input::Log { head, oldest });
    }

    fn pass_time(&mut self, time: Duration) {
        self.now += time;
        if self.master.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.tell_master(master::Input::Tick { time_ns: 0 });
        }
        if self.slave.as_ref().and_then(slave::Session::deadline).is_some_and(|d| d <= self.now) {
            self.tell_slave(slave::Input::Tick);
        }
    }

    fn step(&mut self, faults: bool) {
        match self.random.below(12) {
            0 | 1 if self.log.len() < self.log_max => {
                let object = self.random.below(OBJECTS);
                self.log.push(object);
            }
            2 => self.answer(),
            3 => self.wake(),
            4 | 5 => self.receive_down(),
            6 => {
                if let Some(message) = self.up.pop_front() {
                    self.tell_master(master::Input::Received(message));
                }
            }
            7 => self.replay(),
            8 if self.master_writes => {
                self.master_writes = false;
                self.tell_master(master::Input::Writable);
            }
            9 if self.slave_writes => {
                self.slave_writes = false;
                self.tell_slave(slave::Input::Writable);
            }
            10 => {
                let time = Duration::from_millis(self.random.below(300));
                self.pass_time(time);
            }
            11 if faults && self.random.one_in(60) => self.fault(),
            _ => {}
        }
    }

    fn fault(&mut self) {
        match self.random.below(4) {
            0 => {
                self.cut();
                self.tell_master(master::Input::Lost("reset".into()));
            }
            1 => self.disconnect(),
            2 => {
                self.oldest =
                    self.oldest.max(Lsn::new(self.head().get().saturating_sub(self.random.below(9))))
            }
            _ => {
                self.replica.durable = self.replica.applied;
                self.tell_slave(slave::Input::Durable(self.replica.durable));
            }
        }
    }
}

impl Replica {
    fn taken(&self) -> slave::Replica {
        let applied = Position { epoch: EPOCH, lsn: self.applied };
        let standing = match (self.filesystem, &self.missing) {
            (None, _) => Standing::New,
            (Some(_), Some(_)) => Standing::Resyncing { applied, resumable: true },
            (Some(_), None) => Standing::Equal { applied, durable: self.durable },
        };
        slave::Replica {
            filesystem: self.filesystem,
            replica: Id([2; 16]),
            standing,
            not_carried: Vec::new(),
            checksum: None,
            check: Check::None,
        }
    }

    fn begin(&mut self, filesystem: Id, begin: Begin) {
        self.filesystem = Some(filesystem);
        self.begun += 1;
        self.asked.clear();
        match begin.plan {
            Plan::Stream => {
                assert_eq!(begin.after, self.applied);
                assert!(self.missing.is_none());
            }
            Plan::Resume => {
                self.resumed += 1;
                assert_eq!(begin.after, self.applied);
                assert!(self.missing.is_some());
            }
            Plan::Patch => panic!("nothing is kept of lost records"),
            Plan::Resync { .. } => {
                self.resyncs += 1;
                (self.applied, self.durable) = (begin.after, Lsn::ZERO);
                self.missing = Some((0..OBJECTS).collect());
                self.content.clear();
            }
        }
    }

    fn report(&self) -> Report {
        Report { resyncing: self.missing.is_some(), ..Report::default() }
    }

    fn want(&mut self) -> Option<Want> {
        let id = *self.missing.as_ref()?.iter().find(|id| !self.asked.contains(id))?;
        self.asked.insert(id);
        Some(Want { id, path: TreePath::root(), what: Wanted::Listing { after: None } })
    }

    fn answered(&mut self, object: u64) {
        let missing = self.missing.as_mut().expect("an answer nobody wants");
        assert!(missing.remove(&object));
        if missing.is_empty() {
            self.missing = None;
        }
    }
}

/// DESIGN section 7 rule 2 and promise P2, over a link with faults.
#[test]
fn order_holds_over_a_faulty_link() {
    let (mut cuts, mut resyncs, mut resumed, mut answers, mut begun) = (0, 0, 0, 0, 0);
    let seeds = std::env::var("TDFS_SEED").ok().map_or(0..400, |seed| {
        let seed: u64 = seed.parse().expect("TDFS_SEED is a number");
        seed..seed + 1
    });
    for seed in seeds {
        println!("TDFS_SEED={seed}");
        let mut world = World::new(seed + 1);
        world.pass_time(Duration::ZERO);
        for _ in 0..3000 {
            world.step(true);
        }
        settle(&mut world);
        (cuts, resyncs) = (cuts + world.cuts, resyncs + world.replica.resyncs);
        resumed += world.replica.resumed;
        (answers, begun) = (answers + world.answers, begun + world.replica.begun);
    }
    println!("{cuts} cuts, {resyncs} resyncs, {resumed} resumed, {answers} answers, {begun} streams");
}

fn settle(world: &mut World) {
    world.log_max = world.log.len() + 50;
    for _ in 0..100_000 {
        world.step(false);
        let view = world.master.view();
        let done = view.state == master::StateName::Streaming && !view.needs_resync;
        if world.log.len() == world.log_max && done && view.progress.applied == world.head() {
            break;
        }
    }
    let view = world.master.view();
    assert_eq!(view.progress.applied, world.head(), "{view:?}");
    assert_eq!(view.state, master::StateName::Streaming);
    for object in 0..OBJECTS {
        let version = world.version(object, world.head());
        assert_eq!(world.replica.content.get(&object).copied().unwrap_or_default(), version);
    }
}
