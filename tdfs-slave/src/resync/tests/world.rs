//! A master, a replica and the stream between them, moved on by a random scheduler.

use super::coverage::Coverage;
use super::model::{BLOCK, BLOCKS, Tree, hash};
use super::users::Users;
use crate::replay::Failure;
use crate::resync::{Contradiction, Resync, Stood, removed_by};
use std::collections::VecDeque;
use tdfs_wire::answer::{Answer, Found, Stretch, Want, Wanted};
use tdfs_wire::message::Difference;
use tdfs_wire::object::{Child, Kind};
use tdfs_wire::op::{AttrOp, NamespaceOp, Op, XattrOp};
use tdfs_wire::trail::{TRAIL_BYTES_MAX, Trail};
use tdfs_wire::{Name, Time, TreePath};

enum InStream {
    Record(Op, Vec<u8>),
    Answer(Answer, Vec<u8>),
}

/// How often each thing happens, in so many of the steps.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    change: usize,
    deliver: usize,
    answer: usize,
    want: usize,
    /// The connection is lost, one step in so many.
    pub lose_one_in: usize,
    /// A call of the replica fails once, in one turn of so many.
    pub stall_one_in: usize,
    /// An answer tells at most so many names of a directory; None: a few, at random.
    pub names_a_part: Option<usize>,
}

pub struct World {
    pub users: Users,
    pub master: Tree,
    pub replica: Tree,
    pub resync: Resync,
    /// A look beside it, whose findings go to it.
    pub look: Option<Resync>,
    /// Its findings are made equal.
    pub heals: bool,
    /// So many findings are much for a look in a tree as small as this.
    pub much: Option<u64>,
    /// What the look has found.
    pub found: Vec<(TreePath, Difference)>,
    pub pace: Pace,
    stream: VecDeque<InStream>,
    wants: Vec<Want>,
    pub divergences: u64,
    /// How many wants were answered.
    pub answered: u64,
    /// Bytes of content in answers.
    pub sent: u64,
    /// How many records changed the master while an exchange ran.
    pub changes: u64,
    pub coverage: Coverage,
    /// The limit of trails.
    pub trail_bytes_max: usize,
    /// When the replica ceased to be equal, by its clock.
    began: Time,
    traced: bool,
    pub said: Vec<String>,
}

impl World {
    pub fn new(seed: u64, resync: Resync) -> World {
        let mut users = Users::new(seed);
        let dice = &mut users.dice;
        let pace = Pace {
            change: 4 + dice.below(16),
            deliver: 12 + dice.below(12),
            answer: 1 + dice.below(8),
            want: 1 + dice.below(8),
            lose_one_in: [200, 2000][dice.below(2)],
            names_a_part: if dice.chance(3) { Some(usize::MAX) } else { None },
            stall_one_in: 3 + dice.below(10),
        };
        let replica = Tree::new(1_000_000, 1_000_000_000);
        World {
            users,
            master: Tree::new(1, 1000),
            began: replica.present(),
            replica,
            resync,
            look: None,
            heals: true,
            much: None,
            found: Vec::new(),
            pace,
            stream: VecDeque::new(),
            wants: Vec::new(),
            divergences: 0,
            answered: 0,
            sent: 0,
            changes: 0,
            coverage: Coverage::default(),
            trail_bytes_max: TRAIL_BYTES_MAX,
            traced: std::env::var_os("TDFS_TRACE").is_some(),
            said: Vec::new(),
        }
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.traced {
            self.said.push(what());
        }
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.users.dice.chance(one_in)
    }

    /// Changes the master; the record goes into the stream.
    pub fn change_master(&mut self) {
        let (op, bulk) = self.users.op(&self.master);
        if self.master.apply(&op, &bulk).is_err() {
            return;
        }
        self.say(|| format!("master: {op:?} {bulk:?}"));
        let may_say_nothing = match &op {
            Op::Attr(op) => !matches!(op, AttrOp::Times { .. }),
            Op::Xattr(op) => matches!(op, XattrOp::Remove { .. }),
            _ => false,
        };
        self.changes += u64::from(!may_say_nothing && !self.is_over());
        self.stream.push_back(InStream::Record(op, bulk));
    }

    /// Changes the master, where there is nothing on its way; the record is applied at once.
    pub fn change_both(&mut self) -> Option<Op> {
        self.change_master();
        let op = match self.stream.front() {
            Some(InStream::Record(op, _)) => Some(op.clone()),
            _ => None,
        };
        self.deliver_all();
        op
    }

    /// True if nothing is wanted any more, and no answer is on its way.
    pub fn is_over(&self) -> bool {
        let answers = || self.stream.iter().any(|item| matches!(item, InStream::Answer(..)));
        self.is_done() && self.wants.is_empty() && !answers()
    }

    fn is_done(&self) -> bool {
        self.resync.done() && self.look.as_ref().is_none_or(Resync::done)
    }

    /// Does `op` on the master; the record goes into the stream.
    pub fn record(&mut self, mut op: Op, bulk: &[u8]) {
        let left =
            removed_by(&op).and_then(|path| self.master.get(path).ok()).map_or(0, |inode| inode.links - 1);
        if let Op::Namespace(NamespaceOp::Unlink { links, .. } | NamespaceOp::Rename { links, .. }) = &mut op
        {
            *links = left as u32;
        }
        self.master.apply(&op, bulk).expect("the op is possible");
        self.stream.push_back(InStream::Record(op, bulk.to_vec()));
    }

    /// The same on both sides, before there is a stream.
    pub fn record_both(&mut self, op: Op, bulk: &[u8]) {
        self.master.apply(&op, bulk).expect("the op is possible");
        self.replica.apply(&op, bulk).expect("the op is possible");
    }

    /// The slave takes all that is in the stream.
    pub fn deliver_all(&mut self) {
        while !self.stream.is_empty() {
            self.deliver_one();
        }
    }

    /// The slave sends what it wants, without a stall.
    pub fn send_wants_now(&mut self) {
        let wants = self.resync.wants_from(&mut self.replica).expect("nothing stalls");
        self.wants.extend(wants);
    }

    /// Changes the master before there is a stream.
    pub fn prepare_master(&mut self) {
        self.change_master();
        self.stream.clear();
    }

    /// Changes the replica behind the resync's back; returns the paths of which it must be told. Only
    /// names, and objects that have one name; the mtime of directories stays.
    pub fn tamper(&mut self) -> Vec<TreePath> {
        let (op, bulk) = self.users.op(&self.replica);
        let paths = op.paths();
        let alone = |path: &TreePath| self.replica.get(path).is_ok_and(|inode| inode.links == 1);
        if !matches!(op, Op::Namespace(_)) && !paths.into_iter().all(alone) {
            return Vec::new();
        }
        self.tamper_with(&op, &bulk)
    }

    /// Does `op` in the replica, if it is possible, but for the mtimes of directories.
    pub fn tamper_with(&mut self, op: &Op, bulk: &[u8]) -> Vec<TreePath> {
        let mut paths: Vec<TreePath> = op.paths().into_iter().cloned().collect();
        let parents: Vec<TreePath> = paths.iter().filter_map(TreePath::parent).collect();
        let mtimes: Vec<_> =
            parents.iter().map(|path| self.replica.get(path).ok().map(|dir| dir.meta.mtime)).collect();
        if self.replica.apply(op, bulk).is_err() {
            return Vec::new();
        }
        for (parent, mtime) in parents.iter().zip(mtimes) {
            if let (Ok(ino), Some(mtime)) = (self.replica.ino(parent), mtime) {
                self.replica.inodes.get_mut(&ino).unwrap().meta.mtime = mtime;
            }
        }
        self.say(|| format!("tampered: {op:?} {bulk:?}"));
        paths.dedup();
        paths
    }

    /// Lets the replica differ from the master at random.
    pub fn change_replica(&mut self) {
        let (op, bulk) = self.users.op(&self.replica);
        let _possible = self.replica.apply(&op, &bulk).is_ok();
    }

    /// True if nothing is on its way any more.
    pub fn is_quiet(&self) -> bool {
        self.stream.is_empty() && self.wants.is_empty()
    }

    /// The slave sends what it wants.
    pub fn send_wants(&mut self) {
        if self.chance(self.pace.stall_one_in) {
            self.replica.stall_in = Some(self.users.dice.below(4) as u32);
        }
        match self.resync.wants_from(&mut self.replica) {
            Ok(wants) => {
                self.say(|| format!("wants: {wants:?}"));
                self.wants.extend(wants);
            }
            Err(Failure::Stall(_)) => {}
            Err(failure) => panic!("{failure}"),
        }
        self.look_on();
        self.replica.stall_in = None;
    }

    pub fn look_on(&mut self) {
        let Some(mut look) = self.look.take() else { return };
        match look.wants_from(&mut self.replica) {
            Ok(wants) => self.wants.extend(wants),
            Err(Failure::Stall(_)) => {}
            Err(failure) => panic!("{failure}"),
        }
        for (path, what) in look.take_found() {
            self.say(|| format!("found: {path}: {what:?}"));
            if self.heals {
                self.resync.goes_back_to(&look);
                self.resync.want_found(&path, what);
            }
            self.found.push((path, what));
        }
        let found = self.found.len() as u64;
        if self.heals && (look.finds_much(found) || self.much.is_some_and(|much| found >= much)) {
            self.say(|| "taken over".into());
            return self.resync.take_over();
        }
        self.look = Some(look);
    }

    /// The master answers one want, exact as of now.
    pub fn answer_one(&mut self) {
        if self.wants.is_empty() {
            return;
        }
        let want = self.wants.swap_remove(self.users.dice.below(self.wants.len()));
        self.answer(&want);
    }

    /// The master answers the want about `path`.
    pub fn answer_about(&mut self, path: &TreePath) {
        let at = self.wants.iter().position(|want| want.path == *path).expect("it is wanted");
        let want = self.wants.remove(at);
        self.answer(&want);
    }

    fn answer(&mut self, want: &Want) {
        let (found, bulk) = self.found(want);
        let answer = Answer { id: want.id, path: want.path.clone(), found };
        self.answered += 1;
        self.sent += bulk.len() as u64;
        self.say(|| format!("answer: {answer:?} {bulk:?}"));
        self.stream.push_back(InStream::Answer(answer, bulk));
    }

    /// What is asked and not answered, oldest first.
    pub fn wanted(&self) -> Vec<TreePath> {
        self.wants.iter().map(|want| want.path.clone()).collect()
    }

    fn found(&mut self, want: &Want) -> (Found, Vec<u8>) {
        let Some(here) = self.master.standing(&want.path) else { return (Found::Gone, Vec::new()) };
        let (meta, inode) = (here.meta, self.master.get(&want.path).unwrap().clone());
        match &want.what {
            Wanted::Listing { .. } if meta.kind != Kind::Directory => (Found::Gone, Vec::new()),
            Wanted::Listing { after } => {
                let is_behind =
                    |name: &&Vec<u8>| after.as_ref().is_none_or(|after| name[..] > *after.as_bytes());
                let names: Vec<&Vec<u8>> = inode.children.keys().filter(is_behind).collect();
                let fit =
                    names.len().min(self.pace.names_a_part.unwrap_or_else(|| 1 + self.users.dice.below(4)));
                let children = names[..fit].iter().map(|name| self.child(&want.path, name)).collect();
                (Found::Listing { meta, children, last: fit == names.len() }, Vec::new())
            }
            Wanted::Object { offset, hashes } => {
                let mut bulk = Vec::new();
                let rest = inode.data.get(usize::try_from(*offset).unwrap()..).unwrap_or_default();
                let stretch = |(i, block): (usize, &[u8])| {
                    if hashes.get(i) == Some(&hash(block)) {
                        return Stretch::Same(block.len() as u64);
                    }
                    if block.iter().all(|&byte| byte == 0) {
                        return Stretch::Hole(block.len() as u64);
                    }
                    bulk.extend_from_slice(block);
                    Stretch::Data(block.len() as u32)
                };
                let stretches = rest.chunks(BLOCK).take(BLOCKS).enumerate().map(stretch).collect();
                (Found::Object { meta, ino: here.ino, links: here.links, stretches }, bulk)
            }
        }
    }

    fn child(&self, dir: &TreePath, name: &[u8]) -> Child {
        let here = self.master.standing(&dir.join(name).unwrap()).unwrap();
        Child { name: Name::new(name).unwrap(), ino: here.ino, links: here.links, meta: here.meta }
    }

    /// The slave takes the next thing off the stream.
    pub fn deliver_one(&mut self) {
        match self.stream.pop_front() {
            Some(InStream::Record(op, bulk)) => self.replay(&op, &bulk),
            Some(InStream::Answer(answer, bulk)) => {
                self.say(|| format!("delivered: answer {} {}", answer.id, answer.path));
                if self.chance(self.pace.stall_one_in) {
                    self.replica.stall_in = Some(self.users.dice.below(12) as u32);
                }
                loop {
                    let asking = match &mut self.look {
                        Some(look) if Resync::is_of_look(answer.id) => look,
                        _ => &mut self.resync,
                    };
                    match asking.answer_to(&mut self.replica, &answer, &bulk) {
                        Ok(()) => break,
                        Err(Failure::Stall(_)) => {}
                        Err(failure) => panic!("{failure}"),
                    }
                }
                self.replica.stall_in = None;
            }
            None => {}
        }
    }

    fn replay(&mut self, op: &Op, bulk: &[u8]) {
        self.coverage.count(&self.resync.frontier, op);
        let stands = |path| {
            self.replica
                .standing(path)
                .map_or(Stood::default(), |here| Stood { ino: here.ino, links: here.links })
        };
        let stood = removed_by(op).map(stands);
        let Err(lacks_at) = self.replica.replay(op, bulk) else {
            self.say(|| format!("replayed: {op:?}"));
            self.resync.applied(op, stood);
            self.look.iter_mut().for_each(|look| look.applied(op, stood));
            return;
        };
        let meant = self.resync.contradicted(op, stood, lacks_at.as_ref());
        if let Some(look) = &mut self.look {
            look.contradicted(op, stood, lacks_at.as_ref());
        }
        self.say(|| format!("contradicted: {op:?}: {meant:?}"));
        self.divergences += u64::from(meant == Contradiction::Divergence);
    }

    /// The connection is lost: wants and answers on their way are gone, records come again.
    pub fn lose_connection(&mut self) {
        self.say(|| "connection lost".into());
        self.wants.clear();
        self.stream.retain(|item| matches!(item, InStream::Record(..)));
        self.resync.restart();
        self.look.iter_mut().for_each(Resync::restart);
    }

    /// The connection is lost, and the next `count` records, or fewer, never come: the log lost them. What
    /// they touched is wanted, and the stream goes on behind them. Returns how many they were.
    pub fn lose_records(&mut self, count: usize) -> usize {
        self.lose_connection();
        let mut trail = Trail::new(self.trail_bytes_max);
        let lost: Vec<InStream> = self.stream.drain(..count.min(self.stream.len())).collect();
        for item in &lost {
            if let InStream::Record(op, _) = item {
                self.say(|| format!("lost: {op:?}"));
                trail.follow(op);
            }
        }
        for (path, extent) in trail.paths() {
            self.say(|| format!("missed: {path} {extent:?}"));
            self.resync.miss(&path, extent);
        }
        self.send_wants();
        lost.len()
    }

    /// The slave is killed and started again: what it knew is lost, the replica is as it was. Records that it
    /// has not are sent, or (the log begins anew for it) never.
    pub fn kill_slave(&mut self) {
        self.say(|| "killed".into());
        self.wants.clear();
        let again = self.chance(2);
        self.stream.retain(|item| again && matches!(item, InStream::Record(..)));
        self.resync = Resync::whole();
        self.resync.distrust_since(self.began);
        self.send_wants_now();
    }

    /// A new exchange begins: until now the replica was equal.
    pub fn begin(&mut self, resync: Resync) {
        self.say(|| "begun".into());
        self.began = self.replica.present();
        self.resync = resync;
        self.send_wants_now();
    }

    /// One step of the scheduler, with changes of the master or without.
    pub fn step(&mut self, changing: bool) {
        let Pace { change, deliver, answer, want, lose_one_in, .. } = self.pace;
        if self.chance(lose_one_in) {
            return self.lose_connection();
        }
        let change = if changing { change } else { 0 };
        let turn = self.users.dice.below(change + deliver + answer + want);
        match turn {
            _ if turn < change => self.change_master(),
            _ if turn < change + deliver => self.deliver_one(),
            _ if turn < change + deliver + answer => self.answer_one(),
            _ => self.send_wants(),
        }
    }

    /// Runs until nothing is wanted any more; panics where that has no end.
    pub fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.is_quiet() {
                self.look_on();
            }
            if self.is_quiet() && self.is_done() {
                return;
            }
            self.step(false);
        }
        self.tell();
        panic!("no end: {:?}", self.resync.progress());
    }

    /// What happened, where TDFS_TRACE is set.
    pub fn tell(&self) {
        for line in &self.said {
            println!("{line}");
        }
    }

    /// Nobody wrote to the replica, so no record can have been news.
    pub fn assert_untouched(&self) {
        if self.divergences > 0 {
            self.tell();
        }
        assert_eq!(self.divergences, 0, "nobody wrote to the replica");
    }

    pub fn assert_equal(&self) {
        if !self.master.same(&self.replica) {
            self.tell();
            assert_eq!(self.master.show(), self.replica.show(), "the replica is not equal");
            panic!("the replica is not equal");
        }
    }

    /// DESIGN section 7, rule 9: "Then the replica is exact at that LSN": all records that come still fit.
    pub fn assert_exact(&self) {
        let mut later = self.replica.clone();
        for item in &self.stream {
            let InStream::Record(op, bulk) = item else { panic!("an answer is on its way") };
            if let Err(errno) = later.apply(op, bulk) {
                self.tell();
                panic!("the replica is not exact: {op:?}: {errno}");
            }
        }
        if !self.master.same(&later) {
            self.tell();
            assert_eq!(self.master.show(), later.show(), "the replica is not exact");
            panic!("the replica is not exact");
        }
    }

    /// The replica begins equal.
    pub fn copy_to_replica(&mut self) {
        self.replica = self.master.twin(1_000_000, 1_000_000_000);
    }
}
