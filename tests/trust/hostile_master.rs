//! A master that wants out of the replica, against a real slave.
//!
//! It is allowed, so it may do anything to the replica; and nothing to anything else.

use crate::outside::{Opens, Outside};
use crate::peer::Peer;
use crate::{SOON, binaries};
use harness::{Daemon, TempTree};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::PathBuf;
use std::process::Command;
use tdfs_wire::answer::{Answer, Found, Stretch, Want, Wanted};
use tdfs_wire::frame::{Codec, Frame, FrameKind};
use tdfs_wire::message::{
    Begin, Branch, Heartbeat, Hello, Lost, MasterMessage, Plan, SlaveMessage, Standing, Welcome,
};
use tdfs_wire::object::{Child, Kind, Meta};
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, NewObject, Node, RenameMode, XattrName, XattrOp};
use tdfs_wire::record::{Draft, RECORD_HEADER_BYTES};
use tdfs_wire::trail::Extent;
use tdfs_wire::{Epoch, Id, Lsn, Name, Op, Time, TreePath};

const FILESYSTEM: Id = Id([9; 16]);
const EPOCH: Epoch = Epoch { number: 1, id: Id([8; 16]) };
const TIME: Time = Time { sec: 1_700_000_000, nsec: 7 };
/// More than a slave takes at rest, and far less than what is sent to it.
const MEMORY_MAX: u64 = 384 << 20;

/// A slave, and what lies around it.
struct Prey {
    slave: Daemon,
    address: SocketAddr,
    home: PathBuf,
    replica: PathBuf,
    state: PathBuf,
    outside: Outside,
    tree: TempTree,
}

impl Prey {
    fn start() -> Prey {
        let tree = TempTree::new().unwrap();
        let home = tree.path().to_owned();
        let (replica, state) = (tree.dir("b").unwrap(), tree.dir("state").unwrap());
        let address = harness::cluster::free_address().unwrap();
        let mut args: Vec<std::ffi::OsString> = vec!["-m".into(), (&replica).into()];
        args.extend(["--state".into(), (&state).into()]);
        args.extend(["-l".into(), address.to_string().into(), "--insecure".into()]);
        let slave = Daemon::start(binaries().slave, &args, &home.join("log")).unwrap();
        let log = home.join("log");
        harness::eventually(SOON, "the slave waits", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("waits for its master"))
        });
        let outside = Outside::new(&home);
        Prey { slave, address, home, replica, state, outside, tree }
    }

    #[track_caller]
    fn assert_bears(&mut self) {
        self.outside.assert_untouched();
        assert!(self.slave.is_alive(), "the slave has ended; its log:\n{}", self.slave.log_tail());
        let peak = self.slave.memory_peak();
        assert!(peak < MEMORY_MAX, "the slave took {} MiB", peak >> 20);
    }

    /// It still ends as it should, and says nothing that a terminal would obey.
    fn finish(mut self) {
        self.assert_bears();
        let mut status = Command::new(binaries().slave);
        let status = status.args(["status", "-m"]).arg(&self.replica).arg("--state").arg(&self.state);
        let shown = status.output().unwrap();
        assert!(shown.status.success());
        self.slave.signal(rustix::process::Signal::TERM);
        assert!(
            self.slave.wait_end(SOON).is_some_and(|status| status.success()),
            "{}",
            self.slave.log_tail()
        );
        let log = fs::read(self.home.join("log")).unwrap();
        for text in [log, shown.stdout] {
            let text = String::from_utf8(text).unwrap();
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{}", text.escape_debug());
            assert!(!text.contains("panicked"), "{text}");
        }
        harness::temp_tree::unmount_below(self.tree.path());
        self.tree.assert_no_leaks();
    }
}

/// A connection that was accepted.
struct Master {
    peer: Peer,
    lsn: Lsn,
}

impl Master {
    fn greet(address: SocketAddr) -> (Peer, Welcome) {
        let mut peer = Peer::dial(address);
        let lineage = vec![Branch { epoch: EPOCH, from: None }];
        let hello = Hello { software: "x".into(), filesystem: FILESYSTEM, lineage, head: Lsn::new(1 << 40) };
        peer.send(&MasterMessage::Hello(hello)).unwrap();
        match peer.hear().unwrap() {
            SlaveMessage::Welcome(welcome) => (peer, welcome),
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Begins a stream, where it goes on or, of a replica that is not equal, with a resync.
    fn begin(address: SocketAddr) -> Master {
        let (peer, welcome) = Master::greet(address);
        let (plan, lsn) = match welcome.standing {
            Standing::Equal { applied, .. } => (Plan::Stream, applied.lsn),
            Standing::Resyncing { applied, .. } => (Plan::Resync { checksum: false }, applied.lsn),
            Standing::New | Standing::InDoubt { .. } => (Plan::Resync { checksum: false }, Lsn::ZERO),
        };
        let mut master = Master { peer, lsn };
        master.say_begin(plan, lsn);
        master
    }

    fn say_begin(&mut self, plan: Plan, after: Lsn) {
        let begin = MasterMessage::Begin(Begin { epoch: EPOCH, after, plan, check: false });
        self.peer.send(&begin).unwrap();
        self.lsn = after;
    }

    fn beat(&mut self) -> io::Result<()> {
        let beat = Heartbeat { head: Lsn::new(1 << 40), durable: Lsn::ZERO, time_ns: 0 };
        self.peer.send(&MasterMessage::Heartbeat(beat))
    }

    fn record(&mut self, op: &Op, bulk: &[u8]) -> io::Result<()> {
        let lsn = self.lsn.next();
        let bytes = Draft::new(op, bulk).expect("within the limits").place(lsn, 0).concat();
        self.records(bytes, lsn, 1)
    }

    fn records(&mut self, bytes: Vec<u8>, first: Lsn, count: u32) -> io::Result<()> {
        self.lsn = self.lsn.plus(count.into());
        self.peer.send_raw(FrameKind::Records { first, count }, bytes)
    }

    fn answer(&mut self, id: u64, path: &TreePath, found: Found, bulk: &[u8]) -> io::Result<()> {
        let answer = Answer { id, path: path.clone(), found };
        let frame = answer.frame(self.lsn, bulk, Codec::Lzf).expect("within the limits");
        self.peer.send_frame(&frame)
    }

    fn want(&mut self) -> io::Result<Want> {
        loop {
            self.beat()?;
            if let SlaveMessage::Want(want) = self.peer.hear()? {
                return Ok(want);
            }
        }
    }

    /// Answers the first want by a directory that holds nothing: then an empty replica is equal.
    fn make_equal(&mut self, children: Vec<Child>) {
        let want = self.want().unwrap();
        assert_eq!(want.what, Wanted::Listing { after: None });
        self.answer(want.id, &want.path, listing(children, true), &[]).unwrap();
    }

    /// Waits until all records that were sent are done in the replica.
    #[track_caller]
    fn wait_applied(&mut self) {
        loop {
            self.beat().expect("the slave goes on");
            match self.peer.hear().expect("the slave goes on") {
                SlaveMessage::Ack(ack) if ack.applied == self.lsn => return,
                SlaveMessage::Report(report) => assert_eq!(report.stalled, None),
                _ => {}
            }
        }
    }
}

fn p(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

fn meta(kind: Kind) -> Meta {
    Meta { kind, mode: 0o755, uid: 0, gid: 0, mtime: TIME, size: 0, xattrs: Vec::new() }
}

fn listing(children: Vec<Child>, last: bool) -> Found {
    Found::Listing { meta: meta(Kind::Directory), children, last }
}

fn child(name: &str, kind: Kind) -> Child {
    Child { name: Name::new(name.as_bytes()).unwrap(), ino: 77, links: 1, meta: meta(kind) }
}

fn new(path: &str) -> NewObject {
    NewObject {
        path: p(path),
        mode: 0o777,
        uid: 0,
        gid: 0,
        mtime: TIME,
        parent_mtime: TIME,
        access_acl_bytes: 0,
        default_acl_bytes: 0,
    }
}

fn rename(from: &str, to: &str, mode: RenameMode) -> Op {
    let (from, to) = (p(from), p(to));
    let times = (TIME, TIME);
    Op::Namespace(NamespaceOp::Rename {
        from,
        to,
        mode,
        from_parent_mtime: times.0,
        to_parent_mtime: times.1,
        links: 0,
    })
}

/// Each op that can be tried with a path.
fn ops_on(path: &str) -> Vec<(Op, &'static [u8])> {
    let (at, time) = (p(path), TIME);
    let copy = |from: &str, to: &str| {
        let (from, to) = (p(from), p(to));
        Op::Data(DataOp::Copy { from, from_offset: 0, to, to_offset: 0, len: 8, mtime: time })
    };
    let name = || XattrName::new(&b"user.x"[..]).unwrap();
    vec![
        (Op::Namespace(NamespaceOp::Create(new(path))), b""),
        (Op::Namespace(NamespaceOp::Mkdir(new(path))), b""),
        (Op::Namespace(NamespaceOp::Mknod { new: new(path), node: Node::Fifo }), b""),
        (Op::Namespace(NamespaceOp::Symlink { new: new(path), target: b"/".to_vec() }), b""),
        (Op::Data(DataOp::Write { path: at.clone(), offset: 0, mtime: time }), b"written by a peer"),
        (Op::Data(DataOp::Truncate { path: at.clone(), size: 0, mtime: time }), b""),
        (
            Op::Data(DataOp::Allocate {
                path: at.clone(),
                mode: 0,
                offset: 0,
                len: 9,
                size: 99,
                mtime: time,
            }),
            b"",
        ),
        (copy(path, "loot"), b""),
        (copy("loot", path), b""),
        (Op::Attr(AttrOp::Mode { path: at.clone(), mode: 0o777 }), b""),
        (Op::Attr(AttrOp::Owner { path: at.clone(), uid: 1, gid: 1, mode: 0o777 }), b""),
        (Op::Attr(AttrOp::Times { path: at.clone(), mtime: time }), b""),
        (Op::Xattr(XattrOp::Set { path: at.clone(), name: name(), mode: None }), b"value"),
        (Op::Xattr(XattrOp::Remove { path: at.clone(), name: name(), mode: None }), b""),
        (Op::Namespace(NamespaceOp::Link { from: at.clone(), to: p("stolen"), parent_mtime: time }), b""),
        (Op::Namespace(NamespaceOp::Link { from: p("loot"), to: at.clone(), parent_mtime: time }), b""),
        (rename(path, "moved", RenameMode::Replace), b""),
        (rename("loot", path, RenameMode::Replace), b""),
        (rename("loot", path, RenameMode::Exchange), b""),
        (Op::Namespace(NamespaceOp::Unlink { path: at.clone(), parent_mtime: time, links: 0 }), b""),
        (Op::Namespace(NamespaceOp::Rmdir { path: at, parent_mtime: time }), b""),
    ]
}

fn equal_replica(prey: &Prey) -> Master {
    let mut master = Master::begin(prey.address);
    master.make_equal(Vec::new());
    master.record(&Op::Namespace(NamespaceOp::Create(new("loot"))), &[]).unwrap();
    master.wait_applied();
    master
}

/// SECURITY: "a master can't make a slave touch anything outside its replica": through symlinks on either side, and
/// through what is mounted in the replica.
#[test]
fn no_record_leaves_the_replica() {
    let mut prey = Prey::start();
    let mut master = equal_replica(&prey);
    let outside = prey.outside.dir.clone();
    for (name, target) in [("sent", outside.clone()), ("up", "../outside".into()), ("self", "..".into())] {
        let target = target.to_str().unwrap().as_bytes().to_vec();
        master.record(&Op::Namespace(NamespaceOp::Symlink { new: new(name), target }), &[]).unwrap();
    }
    let target = outside.join("secret").to_str().unwrap().as_bytes().to_vec();
    master.record(&Op::Namespace(NamespaceOp::Symlink { new: new("file"), target }), &[]).unwrap();
    master.wait_applied();
    symlink(&outside, prey.replica.join("planted")).unwrap();
    let mounted = mount_in(&prey);
    let mut paths = vec!["file".to_owned(), "mounted/kept".into(), "mounted/new".into()];
    for link in ["sent", "up", "planted", "self/outside"] {
        paths.extend(["secret", "dir", "dir/inner/f", "new"].map(|name| format!("{link}/{name}")));
    }
    for path in paths {
        for (op, bulk) in ops_on(&path) {
            master.record(&op, bulk).unwrap();
        }
        master.wait_applied();
        prey.assert_bears();
    }
    if mounted {
        assert_eq!(fs::read_dir(prey.replica.join("mounted")).unwrap().count(), 1);
        assert_eq!(fs::read(prey.replica.join("mounted/kept")).unwrap(), b"kept");
    }
    // Of the link that is in the replica itself it can have made another name.
    for name in ["stolen", "moved"] {
        let found = fs::symlink_metadata(prey.replica.join(name));
        assert!(
            found.is_err() || found.is_ok_and(|found| found.is_symlink()),
            "{name} is something from outside"
        );
    }
    prey.finish();
}

/// Another file system in the replica, with a file in it.
fn mount_in(prey: &Prey) -> bool {
    let place = prey.replica.join("mounted");
    fs::create_dir(&place).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&place).status();
    let mounted = mount.is_ok_and(|status| status.success());
    fs::write(place.join("kept"), "kept").unwrap();
    mounted
}

/// A device node or a FIFO that one record makes is opened by no other, nor by a resync.
#[test]
fn no_node_is_opened() {
    let mut prey = Prey::start();
    let mut master = equal_replica(&prey);
    let nodes = [
        ("fifo", Node::Fifo),
        ("socket", Node::Socket),
        ("char", Node::Char(0x103)),
        ("block", Node::Block(0x700)),
    ];
    let opens = Opens::watch(&prey.replica);
    for (name, node) in nodes {
        master.record(&Op::Namespace(NamespaceOp::Mknod { new: new(name), node }), &[]).unwrap();
        master.wait_applied();
        assert!(!fs::symlink_metadata(prey.replica.join(name)).unwrap().file_type().is_file());
        for (op, bulk) in ops_on(name) {
            let stays = !matches!(&op, Op::Namespace(op) if !matches!(op, NamespaceOp::Create(_)));
            if stays {
                master.record(&op, bulk).unwrap();
            }
        }
        master.wait_applied();
        prey.assert_bears();
    }
    // Answers that say it is a file with content; it is another object then, never the node itself.
    drop(master);
    let mut master = Master::begin(prey.address);
    let names = nodes.map(|(name, _)| name);
    let files = ["block", "char", "fifo", "socket"].map(|name| Child { ino: 1, ..child(name, Kind::File) });
    let distinct = files.into_iter().enumerate().map(|(nth, child)| Child { ino: 100 + nth as u64, ..child });
    master.make_equal(distinct.collect());
    for _ in names {
        let Ok(want) = master.want() else { break };
        let found = Found::Object {
            meta: Meta { size: 5, ..meta(Kind::File) },
            ino: 100,
            links: 1,
            stretches: vec![Stretch::Data(5)],
        };
        master.answer(want.id, &want.path, found, b"bytes").unwrap();
    }
    master.beat().unwrap();
    let opened = opens.names();
    for name in names {
        let now = fs::symlink_metadata(prey.replica.join(name));
        let is_node = now.is_ok_and(|now| {
            let kind = now.file_type();
            kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()
        });
        assert!(!is_node || !opened.contains(&name.to_owned()), "{name} was opened: {opened:?}");
    }
    prey.finish();
}

/// Puts `to` where `from` stands in an encoded record, and makes its checksum right.
fn forge(op: &Op, lsn: Lsn, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut bytes = Draft::new(op, &[]).unwrap().place(lsn, 0).concat();
    let at = bytes.windows(from.len()).position(|window| window == from).expect("find what is replaced");
    bytes[at..at + from.len()].copy_from_slice(to);
    let crc =
        crc32c::crc32c_append(crc32c::crc32c(&bytes[RECORD_HEADER_BYTES..]), &bytes[8..RECORD_HEADER_BYTES]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Names that are none, numbers that can't be, frames that lie: each ends the connection and does nothing.
#[test]
fn what_no_master_sends_ends_the_connection() {
    let mut prey = Prey::start();
    drop(equal_replica(&prey));
    let create = Op::Namespace(NamespaceOp::Create(new("aa/bb/c")));
    for name in [b"../bb/c", b"/a/bb/c", b"aa//b/c", b"aa/../c", b"aa/bb/.", b"aa\0bb/c", b"./a/b/c"] {
        let mut master = Master::begin(prey.address);
        let next = master.lsn.next();
        master.records(forge(&create, next, b"aa/bb/c", name), next, 1).unwrap();
        master.peer.assert_ends();
        prey.assert_bears();
    }
    let record = |lsn: Lsn| Draft::new(&create, &[]).unwrap().place(lsn, 0).concat();
    type Attempt = fn(Lsn) -> (Lsn, Lsn, u32);
    let attempts: [Attempt; 5] = [
        |next| (next.next(), next.next(), 1),
        |next| (next, next.next(), 1),
        |next| (next, next, 2),
        |next| (next, next, u32::MAX),
        |_| (Lsn::MAX, Lsn::MAX, 1),
    ];
    for attempt in attempts {
        let mut master = Master::begin(prey.address);
        let (first, told, count) = attempt(master.lsn.next());
        master.records(record(told), first, count).unwrap();
        master.peer.assert_ends();
        prey.assert_bears();
    }
    // The highest number there is, before any greeting: once it ended the daemon.
    for before in [true, false] {
        let mut peer = if before { Peer::dial(prey.address) } else { Master::begin(prey.address).peer };
        let lsn = Lsn::new(u64::MAX);
        peer.send_raw(FrameKind::Records { first: lsn, count: 1 }, record(lsn)).unwrap();
        peer.assert_ends();
        prey.assert_bears();
    }
    for plan in [Plan::Stream, Plan::Resume, Plan::Patch, Plan::Resync { checksum: true }] {
        let (peer, _) = Master::greet(prey.address);
        let mut master = Master { peer, lsn: Lsn::ZERO };
        master.say_begin(plan, Lsn::new(u64::MAX));
        master.peer.assert_ends();
        prey.assert_bears();
    }
    assert_eq!(fs::read_dir(&prey.replica).unwrap().count(), 1, "only the loot is there");
    prey.finish();
}

/// Answers that nobody asked for, contradict themselves, or expand to more than they may.
#[test]
fn answers_do_nothing_but_what_was_asked() {
    let mut prey = Prey::start();
    let mut master = equal_replica(&prey);
    let loot = || child("loot", Kind::File);
    for id in [0, 1, 7, 1 << 62, u64::MAX] {
        master.answer(id, &TreePath::root(), listing(Vec::new(), true), &[]).unwrap();
        master.answer(id, &TreePath::root(), listing(vec![loot()], false), &[]).unwrap();
    }
    master.record(&Op::Attr(AttrOp::Times { path: p("loot"), mtime: TIME }), &[]).unwrap();
    master.wait_applied();
    assert!(prey.replica.join("loot").exists(), "an answer that nobody asked for did something");
    for children in [
        vec![loot(), loot()],
        vec![child("z", Kind::File), child("a", Kind::File)],
        vec![Child { links: u64::MAX, ..loot() }],
        vec![child("link", Kind::Symlink(Vec::new()))],
        vec![child("link", Kind::Symlink(b"a\0b".to_vec()))],
    ] {
        let mut master = Master::begin(prey.address);
        let _ = master.answer(3, &TreePath::root(), listing(children, true), &[]);
        master.peer.assert_ends();
        prey.assert_bears();
    }
    // A few bytes that say they are very many.
    let bomb = Frame::new(FrameKind::Answer { as_of: Lsn::ZERO }, Codec::Lzf, vec![0; 1 << 20]);
    for claim in [u32::MAX, 1 << 30, 2 << 20] {
        let mut peer = Master::begin(prey.address).peer;
        let mut head = bomb.header(2);
        head[8..12].copy_from_slice(&claim.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..36]), bomb.payload());
        head[36..].copy_from_slice(&crc.to_le_bytes());
        peer.send_bytes(&[&head, bomb.payload()].concat()).unwrap();
        peer.assert_ends();
        prey.assert_bears();
    }
    prey.finish();
}

/// However much a master says, the slave's memory is bounded.
#[test]
fn memory_is_bounded() {
    let mut prey = Prey::start();
    let mut master = equal_replica(&prey);
    // Names that do not exist, each in a deep directory of its own: all are to be compared.
    for round in 0..60 {
        let deep = |nth: usize| p(&format!("{round}-{nth}/{}", "d/".repeat(7000) + "x"));
        let op = Op::Check { paths: (0..4).map(deep).collect() };
        if master.record(&op, &[]).is_err() {
            break;
        }
        prey.assert_bears();
    }
    drop(master);
    let (peer, welcome) = Master::greet(prey.address);
    let mut master = Master { peer, lsn: Lsn::ZERO };
    let at = match welcome.standing {
        Standing::Resyncing { applied, .. } | Standing::Equal { applied, .. } => applied.lsn,
        other => panic!("{other:?}"),
    };
    master.say_begin(Plan::Patch, at.next());
    for round in 0..12 {
        let deep = |nth: usize| (p(&format!("p{round}-{nth}/{}", "d/".repeat(7000) + "x")), Extent::All);
        let lost = Lost { paths: (0..20).map(deep).collect(), last: false };
        if master.peer.send(&MasterMessage::Lost(lost)).is_err() {
            break;
        }
        prey.assert_bears();
    }
    prey.finish();
}

/// What a master says is shown as text, whatever is in it.
#[test]
fn words_are_only_words() {
    let mut prey = Prey::start();
    let evil = "\u{1b}]0;mine\u{7}\u{1b}[2J\r\n2026-01-01T00:00:00Z ERROR forged".repeat(2000);
    for message in [
        MasterMessage::Refuse(evil.chars().take(60_000).collect()),
        MasterMessage::Bye(evil.chars().take(60_000).collect()),
    ] {
        let (mut peer, _) = Master::greet(prey.address);
        peer.send(&message).unwrap();
        peer.assert_ends();
        prey.assert_bears();
    }
    let log = fs::read_to_string(prey.home.join("log")).unwrap();
    assert!(log.contains(r"\u{1b}]0;mine"), "it is shown all the same: {log}");
    assert!(log.lines().all(|line| line.len() < 2000 && !line.starts_with("2026-01-01")), "{log}");
    prey.finish();
}
