//! A master, a replica and the stream between them, moved on by a random scheduler.

use super::model::{BLOCK, BLOCKS, Tree, hash, time};
use crate::replay::Failure;
use crate::resync::Resync;
use std::collections::VecDeque;
use tdfs_wire::answer::{Answer, Found, Stretch, Want, Wanted};
use tdfs_wire::object::{Child, Kind};
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, NewObject, Node, Op, RenameMode, XattrName, XattrOp};
use tdfs_wire::{Name, Time, TreePath};

/// xorshift64*: repeatable from its seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

enum InStream {
    Record(Op, Vec<u8>),
    Answer(Answer, Vec<u8>),
}

pub struct World {
    pub dice: Dice,
    pub master: Tree,
    pub replica: Tree,
    pub resync: Resync,
    clock: i64,
    stream: VecDeque<InStream>,
    wants: Vec<Want>,
    pub divergences: u64,
    pub said: Vec<String>,
}

impl World {
    pub fn new(seed: u64, resync: Resync) -> World {
        World {
            dice: Dice::new(seed),
            master: Tree::new(1, 1000),
            replica: Tree::new(1_000_000, 1_000_000_000),
            resync,
            clock: 10_000,
            stream: VecDeque::new(),
            wants: Vec::new(),
            divergences: 0,
            said: Vec::new(),
        }
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if std::env::var_os("TDFS_TRACE").is_some() {
            self.said.push(what());
        }
    }

    pub fn tick(&mut self) -> Time {
        self.clock += 1;
        time(self.clock)
    }

    fn some_path(&mut self, tree: &Tree) -> TreePath {
        let paths = tree.paths();
        if paths.is_empty() { self.new_path(tree) } else { paths[self.dice.below(paths.len())].clone() }
    }

    fn new_path(&mut self, tree: &Tree) -> TreePath {
        let is_dir = |path: &TreePath| tree.get(path).unwrap().meta.kind == Kind::Directory;
        let mut dirs: Vec<_> = tree.paths().into_iter().filter(is_dir).collect();
        dirs.retain(|dir| dir.components().count() < 4);
        dirs.push(TreePath::root());
        let name = [b"abcdefgh"[self.dice.below(5)]];
        dirs[self.dice.below(dirs.len())].join(&name).unwrap()
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        let len = 1 + self.dice.below(max);
        (0..len).map(|_| b"\0xyz"[self.dice.below(4)]).collect()
    }

    /// An op that may or may not be possible on `tree`.
    fn random_op(&mut self, tree: &Tree) -> (Op, Vec<u8>) {
        let (path, other, fresh) = (self.some_path(tree), self.some_path(tree), self.new_path(tree));
        let to = if self.dice.chance(2) { other } else { fresh.clone() };
        let (mtime, parent_mtime) = (self.tick(), self.tick());
        let new = NewObject {
            path: fresh,
            mode: 0o640,
            uid: 7,
            gid: 7,
            mtime,
            parent_mtime,
            access_acl_bytes: 0,
            default_acl_bytes: 0,
        };
        let op = match self.dice.below(24) {
            0..=2 => Op::Namespace(NamespaceOp::Create(new)),
            3 | 4 => Op::Namespace(NamespaceOp::Mkdir(new)),
            5 if self.dice.chance(2) => Op::Namespace(NamespaceOp::Symlink {
                new,
                target: b"target"[..1 + self.dice.below(3)].to_vec(),
            }),
            5 => Op::Namespace(NamespaceOp::Mknod { new, node: Node::Char(self.dice.below(2) as u64) }),
            6 | 7 => Op::Namespace(NamespaceOp::Link { from: path, to, parent_mtime }),
            8 | 9 => Op::Namespace(NamespaceOp::Unlink { path, parent_mtime }),
            10 => Op::Namespace(NamespaceOp::Rmdir { path, parent_mtime }),
            11..=14 => {
                let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
                let mode = modes[self.dice.below(3)];
                let same = path.parent() == to.parent();
                let to_parent_mtime = if same { mtime } else { parent_mtime };
                Op::Namespace(NamespaceOp::Rename {
                    from: path,
                    to,
                    mode,
                    from_parent_mtime: mtime,
                    to_parent_mtime,
                })
            }
            15..=19 => return self.random_data(path, to, mtime),
            20 => Op::Attr(AttrOp::Mode { path, mode: [0o600, 0o644, 0o4755][self.dice.below(3)] }),
            21 => Op::Attr(AttrOp::Owner { path, uid: self.dice.below(3) as u32, gid: 0, mode: 0o700 }),
            22 => Op::Attr(AttrOp::Times { path, mtime }),
            _ => {
                let name = XattrName::new(*b"user.x").unwrap();
                let set = self.dice.chance(2);
                let op = if set {
                    XattrOp::Set { path, name, mode: None }
                } else {
                    XattrOp::Remove { path, name, mode: None }
                };
                return (Op::Xattr(op), if set { self.bytes(3) } else { Vec::new() });
            }
        };
        (op, Vec::new())
    }

    fn random_data(&mut self, path: TreePath, to: TreePath, mtime: Time) -> (Op, Vec<u8>) {
        let (offset, size) = (self.dice.below(16) as u64, self.dice.below(30) as u64);
        match self.dice.below(6) {
            0..=2 => (Op::Data(DataOp::Write { path, offset, mtime }), self.bytes(12)),
            3 => (Op::Data(DataOp::Truncate { path, size, mtime }), Vec::new()),
            4 => {
                let len = 1 + self.dice.below(6) as u64;
                let mode = [0, 0x03, 0x08, 0x10, 0x20][self.dice.below(5)];
                let size = if mode & 0x28 == 0 { offset + len } else { 0 };
                (Op::Data(DataOp::Allocate { path, mode, offset, len, size, mtime }), Vec::new())
            }
            _ => {
                let (from_offset, len) = (self.dice.below(6) as u64, 1 + self.dice.below(8) as u64);
                let copy = DataOp::Copy { from: path, from_offset, to, to_offset: offset, len, mtime };
                (Op::Data(copy), Vec::new())
            }
        }
    }

    /// Changes the master; the record goes into the stream.
    pub fn change_master(&mut self) {
        let tree = self.master.clone();
        let (op, bulk) = self.random_op(&tree);
        if self.master.apply(&op, &bulk).is_ok() {
            self.say(|| format!("master: {op:?} {bulk:?}"));
            self.stream.push_back(InStream::Record(op, bulk));
        } else {
            self.master = tree;
        }
    }

    /// Does `op` on the master; the record goes into the stream.
    pub fn record(&mut self, op: Op, bulk: &[u8]) {
        self.master.apply(&op, bulk).expect("the op is possible");
        self.stream.push_back(InStream::Record(op, bulk.to_vec()));
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
        let before = self.replica.clone();
        let (op, bulk) = self.random_op(&before);
        let mut paths: Vec<TreePath> = op.paths().into_iter().cloned().collect();
        let alone = |path: &TreePath| before.get(path).is_ok_and(|inode| inode.links == 1);
        if !matches!(op, Op::Namespace(_)) && !paths.iter().all(alone) {
            return Vec::new();
        }
        if self.replica.apply(&op, &bulk).is_err() {
            self.replica = before;
            return Vec::new();
        }
        for parent in paths.iter().filter_map(TreePath::parent).collect::<Vec<_>>() {
            if let (Ok(ino), Ok(was)) = (self.replica.ino(&parent), before.get(&parent)) {
                self.replica.inodes.get_mut(&ino).unwrap().meta.mtime = was.meta.mtime;
            }
        }
        self.say(|| format!("tampered: {op:?} {bulk:?}"));
        paths.dedup();
        paths
    }

    /// Lets the replica differ from the master at random.
    pub fn change_replica(&mut self) {
        let before = self.replica.clone();
        let (op, bulk) = self.random_op(&before);
        if self.replica.apply(&op, &bulk).is_err() {
            self.replica = before;
        }
    }

    /// True if nothing is on its way any more.
    pub fn is_quiet(&self) -> bool {
        self.stream.is_empty() && self.wants.is_empty()
    }

    /// The slave sends what it wants.
    pub fn send_wants(&mut self) {
        if self.dice.chance(4) {
            self.replica.stall_in = Some(self.dice.below(4) as u32);
        }
        match self.resync.wants_from(&mut self.replica) {
            Ok(wants) => {
                self.say(|| format!("wants: {wants:?}"));
                self.wants.extend(wants);
            }
            Err(Failure::Stall(_)) => {}
            Err(failure) => panic!("{failure}"),
        }
        self.replica.stall_in = None;
    }

    /// The master answers one want, exact as of now.
    pub fn answer_one(&mut self) {
        if self.wants.is_empty() {
            return;
        }
        let want = self.wants.swap_remove(self.dice.below(self.wants.len()));
        for (answer, bulk) in self.answers(&want) {
            self.say(|| format!("answer: {answer:?} {bulk:?}"));
            self.stream.push_back(InStream::Answer(answer, bulk));
        }
    }

    fn answers(&mut self, want: &Want) -> Vec<(Answer, Vec<u8>)> {
        let answer = |found| Answer { id: want.id, path: want.path.clone(), found };
        let Some(here) = self.master.standing(&want.path) else {
            return vec![(answer(Found::Gone), Vec::new())];
        };
        let (meta, inode) = (here.meta, self.master.get(&want.path).unwrap().clone());
        match &want.what {
            Wanted::Listing if meta.kind != Kind::Directory => vec![(answer(Found::Gone), Vec::new())],
            Wanted::Listing => {
                let children: Vec<Child> =
                    inode.children.keys().map(|name| self.child(&want.path, name)).collect();
                let mut answers = Vec::new();
                let mut rest = &children[..];
                loop {
                    let (part, left) = rest.split_at(rest.len().min(1 + self.dice.below(4)));
                    let found =
                        Found::Listing { meta: meta.clone(), children: part.to_vec(), last: left.is_empty() };
                    answers.push((answer(found), Vec::new()));
                    rest = left;
                    if rest.is_empty() {
                        return answers;
                    }
                }
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
                vec![(answer(Found::Object { meta, ino: here.ino, links: here.links, stretches }), bulk)]
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
                if self.dice.chance(3) {
                    self.replica.stall_in = Some(self.dice.below(12) as u32);
                }
                loop {
                    match self.resync.answer_to(&mut self.replica, &answer, &bulk) {
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
        let before = self.replica.clone();
        if self.replica.apply(op, bulk).is_ok() {
            self.say(|| format!("replayed: {op:?}"));
            self.resync.applied(op);
        } else {
            self.replica = before;
            let meant = self.resync.contradicted(op);
            self.say(|| format!("contradicted: {op:?}: {meant:?}"));
            self.divergences += u64::from(meant == crate::resync::Contradiction::Divergence);
        }
    }

    /// The connection is lost: wants and answers on their way are gone, records come again.
    pub fn lose_connection(&mut self) {
        self.say(|| "connection lost".into());
        self.wants.clear();
        self.stream.retain(|item| matches!(item, InStream::Record(..)));
        self.resync.restart();
    }

    /// One step of the scheduler, with changes of the master or without.
    pub fn step(&mut self, changing: bool) {
        match self.dice.below(40) {
            0..=11 if changing => self.change_master(),
            0..=23 => self.deliver_one(),
            24..=31 => self.answer_one(),
            39 if self.dice.chance(8) => self.lose_connection(),
            _ => self.send_wants(),
        }
    }

    /// Runs until nothing is wanted any more; panics where that has no end.
    pub fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.is_quiet() && self.resync.done() {
                return;
            }
            self.step(false);
        }
        panic!("no end: {:?}", self.resync.progress());
    }

    /// What happened, where TDFS_TRACE is set.
    pub fn tell(&self) {
        for line in &self.said {
            println!("{line}");
        }
    }

    pub fn assert_equal(&self) {
        let (there, here) = (self.master.show(), self.replica.show());
        if there != here {
            self.tell();
        }
        assert_eq!(there, here, "the replica is not equal");
    }

    /// The replica begins equal. (Each mtime is given once, so that equal size and mtime mean equal content:
    /// a master's user who sets both back fools any quick check.)
    pub fn copy_to_replica(&mut self) {
        self.replica = self.master.twin(1_000_000, 1_000_000_000);
    }
}
