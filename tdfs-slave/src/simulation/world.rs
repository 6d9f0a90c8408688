//! One schedule: a master, its slaves and their connections, moved on step by step from one seed.
//!
//! A step is one thing that one of the threads of the daemons does, or a moment that passes. `faults` puts
//! faults between any two of them; `expected` says after each what has to hold.

use super::coverage::Coverage;
use super::expected::Expected;
use super::link::Link;
use super::machine::{Machine, Played};
use super::master::{Limits, Master};
use super::tree;
use crate::resync::tests::model::Tree;
use crate::resync::tests::users::{Dice, Users};
use std::path::Path;
use std::time::{Duration, Instant};
use tdfs_wire::message::{Plan, Standing};
use tdfs_wire::session::master::StateName;
use tdfs_wire::{Op, Position};

/// After so much time without faults everything has to be equal.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// How often the daemons do what they do once a second.
const SECOND: Duration = Duration::from_secs(1);

/// One of the two machines that can be off or in trouble for a while: until this step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub down: Option<u64>,
    pub full: Option<u64>,
    pub unreachable: Option<u64>,
}

/// All of it.
pub struct World {
    pub users: Users,
    pub now: Instant,
    began: Instant,
    pub step: u64,
    pub master: Master,
    pub machines: Vec<Machine>,
    pub links: Vec<Link>,
    pub expected: Vec<Expected>,
    pub troubles: Vec<Trouble>,
    pub master_down: Option<u64>,
    pub unreadable: Option<u64>,
    pub log_fails: Option<u64>,
    pub coverage: Coverage,
    pub faults: u64,
    /// New connections are slow, so many times.
    pub slow: usize,
    /// Nothing but kills and cuts happens: nothing may be resynced.
    pub only_kills: bool,
    /// Nothing becomes durable at the slaves.
    pub no_syncs: bool,
    /// Plans of the streams that have begun.
    pub plans: Vec<Plan>,
    /// How many connections each slave has had.
    pub connections: Vec<u64>,
    second: Instant,
    pub traced: bool,
    pub said: Vec<String>,
}

impl World {
    pub fn new(seed: u64, scratch: &Path, slaves: usize, limits: Limits) -> World {
        let mut users = Users::new(seed);
        let mut tree = Tree::new(1, 1000);
        for _ in 0..users.dice.below(40) {
            let (op, bulk) = users.op(&tree);
            if let Some(op) = tree::as_recorded(op, &tree) {
                let _possible = tree.apply(&op, &bulk).is_ok();
            }
        }
        let now = Instant::now();
        let machine = |number| Machine::new(scratch, number);
        World {
            users,
            now,
            began: now,
            step: 0,
            master: Master::new(tree, slaves, limits, now),
            machines: (0..slaves).map(machine).collect(),
            links: Vec::new(),
            expected: (0..slaves).map(|_| Expected::default()).collect(),
            troubles: vec![Trouble::default(); slaves],
            master_down: None,
            unreadable: None,
            log_fails: None,
            coverage: Coverage::default(),
            faults: 0,
            slow: 1,
            only_kills: false,
            no_syncs: false,
            plans: Vec::new(),
            connections: vec![0; slaves],
            second: now,
            traced: std::env::var_os("TDFS_TRACE").is_some(),
            said: Vec::new(),
        }
    }

    pub fn dice(&mut self) -> &mut Dice {
        &mut self.users.dice
    }

    pub fn say(&mut self, what: impl FnOnce() -> String) {
        if self.traced {
            let (step, ms) = (self.step, self.now.duration_since(self.began).as_millis());
            self.said.push(format!("{step} {ms} ms: {}", what()));
        }
    }

    pub fn start_machines(&mut self) {
        self.machines.iter_mut().for_each(Machine::start);
    }

    /// One change of the tree by a user; false if the op that came to mind is not possible.
    pub fn change(&mut self) -> bool {
        if !self.master.is_up() {
            return false;
        }
        let (op, bulk) = self.users.op(&self.master.tree);
        let check =
            self.dice().chance(60).then(|| Op::Check { paths: op.paths().into_iter().cloned().collect() });
        self.record(check.unwrap_or(op), &bulk)
    }

    pub fn record(&mut self, op: Op, bulk: &[u8]) -> bool {
        let bulk = if matches!(op, Op::Check { .. }) { &[] } else { bulk };
        let Some(op) = self.master.change(op, bulk) else { return false };
        self.coverage.op(&op);
        let recorded = (!self.master.is_in_trouble()).then(|| self.master.head());
        self.say(|| format!("master: {recorded:?} {op:?} {bulk:?}"));
        true
    }

    /// The next thing that happens, whatever it is.
    pub fn step(&mut self, changes: usize) {
        self.step += 1;
        self.recover();
        let slave = {
            let n = self.machines.len();
            self.dice().below(n)
        };
        match self.dice().below(20 + changes) {
            0 | 1 => self.master_turn(slave),
            2..=4 => self.deliver_down(slave),
            5..=7 => self.deliver_up(slave),
            8..=11 => {
                self.play(slave);
            }
            12..=14 => self.connections_turn(slave),
            15 | 16 => {
                self.answer(slave);
            }
            17..=19 => self.pass(),
            _ => {
                self.change();
            }
        }
        self.assert_chain();
    }

    /// A moment passes; never beyond what somebody waits for.
    fn pass(&mut self) {
        let long = self.dice().chance(8);
        let millis = self.dice().below(if long { 700 } else { 6 }) as u64;
        self.pass_at_most(Duration::from_millis(millis));
    }

    pub fn pass_at_most(&mut self, time: Duration) {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let slaves = processes.filter_map(|process| process.deadline());
        let next = slaves.chain(self.master.deadline()).filter(|at| *at > self.now).min();
        let now = self.now + time;
        self.now = next.map_or(now, |next| next.min(now));
        if self.now >= self.second + SECOND {
            self.second = self.now;
            self.each_second();
        }
    }

    fn each_second(&mut self) {
        self.master.keep();
        self.assert_kept();
        self.assert_told();
        if self.master.is_up() {
            self.master.save();
        }
        self.master.sync(&mut self.users.dice);
        for slave in 0..self.machines.len() {
            if self.troubles[slave].full.is_none() && !self.no_syncs {
                self.machines[slave].sync();
            }
        }
    }

    pub fn master_turn(&mut self, slave: usize) {
        if let Some(at) = self.master.outlets[slave].link
            && self.links[at].tell_end(true)
        {
            self.master.lost(slave, "connection reset", &mut self.links, self.now);
        }
        self.master.turn(slave, &mut self.links, self.now);
        if self.master.is_dialling(slave) {
            self.dial(slave);
        }
        self.note_begun(slave);
    }

    fn dial(&mut self, slave: usize) {
        let reachable = self.troubles[slave].unreachable.is_none() && self.machines[slave].process.is_some();
        let link = reachable.then(|| {
            self.links.push(Link::new(self.slow));
            self.connections[slave] += 1;
            self.links.len() - 1
        });
        self.say(|| format!("slave {slave}: dialled: {link:?}"));
        self.master.dialled(slave, link, self.now);
        if let Some(link) = link {
            self.machines[slave].connected(link, self.now);
        }
        self.master.turn(slave, &mut self.links, self.now);
    }

    fn note_begun(&mut self, slave: usize) {
        for (begin, standing) in std::mem::take(&mut self.master.outlets[slave].begun) {
            self.say(|| format!("slave {slave}: {standing:?}: {begin:?}"));
            self.coverage.plan(begin.plan);
            self.plans.push(begin.plan);
            let equal = matches!(standing, Standing::Equal { .. });
            self.master.outlets[slave].unknown &= equal;
            if self.only_kills && equal && !self.master.outlets[slave].unknown {
                assert_eq!(begin.plan, Plan::Stream, "P2: only kills and cuts");
            }
        }
    }

    fn brings(&mut self, at: usize) -> bool {
        let Link { silent, slow, .. } = self.links[at];
        !silent && self.dice().chance(slow)
    }

    fn deliver_down(&mut self, slave: usize) {
        let Some(at) = self.master.outlets[slave].link else { return };
        if !self.brings(at) {
            return;
        }
        let Some(process) = &mut self.machines[slave].process else { return };
        let Some(one) = process.connections.iter().position(|one| one.link == at) else { return };
        if !process.reads(one) {
            return;
        }
        let Some(came) = self.links[at].down.take() else { return };
        process.receive(one, came, &mut self.links, self.now);
        self.master.written(slave, &mut self.links, self.now);
    }

    fn deliver_up(&mut self, slave: usize) {
        let Some(at) = self.master.outlets[slave].link else { return };
        if !self.master.is_up() || !self.brings(at) {
            return;
        }
        let Some(came) = self.links[at].up.take() else { return };
        self.master.receive(slave, came, &mut self.links, self.now);
        self.note_begun(slave);
        let Some(process) = &mut self.machines[slave].process else { return };
        if let Some(one) = process.connections.iter().position(|one| one.link == at) {
            process.written(one, &mut self.links, self.now);
        }
    }

    fn connections_turn(&mut self, slave: usize) {
        let Some(process) = &mut self.machines[slave].process else { return };
        for at in 0..process.connections.len() {
            process.turn(at, &mut self.links, self.now);
        }
        for one in process.connections.iter().filter(|one| one.over) {
            assert_eq!(one.fault, None, "slave {slave} calls the master wrong");
            self.links[one.link].close(false);
        }
        process.connections.retain(|one| !one.over);
    }

    pub fn answer(&mut self, slave: usize) -> bool {
        self.master.answer_one(slave, &mut self.users.dice, self.now)
    }

    pub fn play(&mut self, slave: usize) -> bool {
        let due = self.position(slave).map(|here| here.lsn.next());
        let Some(process) = &mut self.machines[slave].process else { return false };
        let shift = due.filter(|_| process.next_op().is_some_and(|op| tree::shifts(&op)));
        let played = process.play();
        let nothing = matches!(played, Played::Idle);
        if !nothing {
            self.say(|| format!("slave {slave}: {played:?}"));
        }
        self.observe(slave, &played);
        self.expected[slave].note_shift(shift);
        !nothing
    }

    /// Faults that are to last for a while are over when their time is.
    fn recover(&mut self) {
        let step = self.step;
        let over = move |until: &mut Option<u64>| until.take_if(|until| *until <= step).is_some();
        if over(&mut self.log_fails) {
            self.master.disk.mend();
        }
        if over(&mut self.master_down) {
            let starts = self.master.start(&mut self.users.dice, self.now);
            self.say(|| format!("master starts: {starts}"));
            self.master_down = (!starts).then(|| self.some_steps());
        }
        // Changes in hand are waited for.
        if self.master.next.is_some() && self.dice().chance(8) && self.master.begin_epoch() {
            let epoch = self.master.epoch();
            self.say(|| format!("epoch {} begins", epoch.number));
            self.coverage.epoch();
        }
        if over(&mut self.unreadable) {
            self.master.unreadable = false;
        }
        for slave in 0..self.troubles.len() {
            if over(&mut self.troubles[slave].down) && self.machines[slave].process.is_none() {
                self.machines[slave].start();
                let standing = self.machines[slave].standing();
                self.say(|| format!("slave {slave} starts: {standing:?}"));
                self.started(slave);
            }
            if over(&mut self.troubles[slave].full) {
                crate::replay::target::faults::fail_after(None);
            }
            over(&mut self.troubles[slave].unreachable);
        }
    }

    /// All faults are over: everything becomes equal, and counts as equal, in bounded time.
    pub fn settle(&mut self) {
        self.end_faults();
        let until = self.now + SETTLE_MAX;
        while !self.is_settled() {
            if self.now >= until {
                self.give_up();
            }
            self.round();
        }
        for slave in 0..self.machines.len() {
            self.assert_equal(slave, "at the end");
        }
        self.assert_told();
    }

    fn end_faults(&mut self) {
        let step = self.step;
        let end = |until: &mut Option<u64>| *until = until.map(|_| step);
        end(&mut self.master_down);
        end(&mut self.unreadable);
        end(&mut self.log_fails);
        for trouble in &mut self.troubles {
            end(&mut trouble.down);
            end(&mut trouble.full);
            end(&mut trouble.unreachable);
        }
        self.slow = 1;
        self.links.iter_mut().for_each(|link| link.slow = 1);
        self.recover();
        for slave in 0..self.machines.len() {
            if self.expected[slave].is_tampered() {
                self.say(|| format!("slave {slave}: a resync by checksums is asked for"));
                let resync = tdfs_wire::session::master::Input::Resync { checksum: true };
                self.master.outlets[slave].session.handle(resync, self.now);
            }
        }
    }

    /// Rounds for so long.
    pub fn let_pass(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.round();
        }
    }

    /// Everybody gets a turn; where nothing is left to do, time passes.
    pub fn round(&mut self) {
        for slave in 0..self.machines.len() {
            while self.answer(slave) {}
        }
        self.round_without_answers();
    }

    /// The same, but no want is answered.
    pub fn round_without_answers(&mut self) {
        self.step += 1;
        self.recover();
        let mut busy = false;
        for slave in 0..self.machines.len() {
            self.master_turn(slave);
            for _ in 0..3 {
                self.deliver_down(slave);
                self.deliver_up(slave);
            }
            for _ in 0..4 {
                busy |= self.play(slave);
            }
            self.connections_turn(slave);
        }
        self.assert_chain();
        self.pass_at_most(Duration::from_millis(if busy { 1 } else { 300 }));
    }

    /// Counts as equal, and is at the head, for all slaves.
    pub fn is_settled(&self) -> bool {
        let slaves = 0..self.machines.len();
        slaves.into_iter().all(|slave| self.counts_as_equal(slave) && !self.expected[slave].is_tainted())
    }

    /// The master says that it is equal and at the head.
    pub fn counts_as_equal(&self, slave: usize) -> bool {
        let (view, head) = (self.master.status(slave), self.master.head());
        view.state == StateName::Streaming
            && !view.needs_resync
            && !view.checking
            && view.progress.applied == head
            && view.progress.durable == head
    }

    fn give_up(&mut self) {
        let standings: Vec<_> = self.machines.iter().map(Machine::standing).collect();
        let views: Vec<_> = self.master.outlets.iter().map(|outlet| outlet.view.clone()).collect();
        let reports: Vec<_> =
            self.machines.iter().map(|machine| machine.process.as_ref().map(|one| one.report())).collect();
        panic!(
            "no end: head {}, {standings:?}, {reports:?}, {views:?}, {:?}",
            self.master.head(),
            self.expected
        );
    }

    /// Where the replica of a slave is, if it has a position.
    pub fn position(&self, slave: usize) -> Option<Position> {
        match self.machines[slave].standing()? {
            Standing::New => None,
            Standing::Equal { applied, .. } | Standing::Resyncing { applied, .. } => Some(applied),
            Standing::InDoubt { since } => Some(since),
        }
    }
}
