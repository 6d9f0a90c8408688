//! A slave that wants more than the tree, against a real master with another slave.
//!
//! It may read all of the tree; and nothing else, and it may hold up nobody.

use crate::outside::{Opens, Outside};
use crate::peer::Peer;
use crate::{SOON, cluster};
use harness::Cluster;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Command;
use tdfs_wire::answer::{Answer, BLOCK_BYTES, Found, Want, Wanted};
use tdfs_wire::frame::FrameKind;
use tdfs_wire::message::{
    Ack, Begin, Check, Difference, Finding, Hello, MasterMessage, Message, Report, SlaveMessage, Standing,
    Welcome,
};
use tdfs_wire::object::Kind;
use tdfs_wire::{Id, Lsn, Position, TreePath};

/// More than a master takes at rest.
const MEMORY_MAX: u64 = 384 << 20;
const EVIL: &str = "\u{1b}]0;mine\u{7}\u{1b}[2J\r\n2026-01-01T00:00:00Z ERROR forged";

/// A master with an honest slave, and the port where it meets the hostile one.
struct Prey {
    cluster: Cluster,
    listener: TcpListener,
    outside: Outside,
    written: u32,
}

impl Prey {
    fn start() -> Prey {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cluster = cluster().insecure().network(1).flag("-c").flag(address).start();
        let outside = Outside::new(cluster.tree.path());
        let tree = cluster.mount();
        symlink(&outside.dir, tree.join("link")).unwrap();
        symlink(outside.dir.join("secret"), tree.join("file-link")).unwrap();
        symlink("..", tree.join("up")).unwrap();
        for (name, node) in [("fifo", "p"), ("null", "c")] {
            let more: &[&str] = if node == "c" { &["1", "3"] } else { &[] };
            assert!(
                Command::new("mknod").arg(tree.join(name)).arg(node).args(more).status().unwrap().success()
            );
        }
        fs::write(tree.join("large"), vec![7; 4 << 20]).unwrap();
        Prey { cluster, listener, outside, written: 0 }
    }

    /// The master lives, is not large, and serves applications and the other slave.
    #[track_caller]
    fn assert_bears(&mut self) {
        self.written += 1;
        let (name, content) = (format!("written-{}", self.written), self.written.to_string());
        fs::write(self.cluster.mount().join(&name), &content).unwrap();
        let replica = self.cluster.slaves[0].replica.join(name);
        harness::eventually(SOON, "the other slave has it", || {
            fs::read_to_string(&replica).is_ok_and(|found| found == content)
        });
        assert!(self.cluster.master.is_alive(), "{}", self.cluster.master.log_tail());
        let peak = self.cluster.master.memory_peak();
        assert!(peak < MEMORY_MAX, "the master took {} MiB", peak >> 20);
        self.outside.assert_untouched();
    }

    fn hello(&self) -> (Peer, Hello) {
        let mut peer = Peer::accept(&self.listener);
        match peer.hear().unwrap() {
            MasterMessage::Hello(hello) => (peer, hello),
            other => panic!("no greeting: {other:?}"),
        }
    }

    /// A stream that has begun with a resync.
    fn begun(&self) -> (Peer, Begin) {
        let (mut peer, _) = self.hello();
        peer.send(&SlaveMessage::Welcome(welcome(Standing::New))).unwrap();
        loop {
            if let MasterMessage::Begin(begin) = peer.hear().unwrap() {
                return (peer, begin);
            }
        }
    }

    fn finish(mut self) {
        self.assert_bears();
        let (_, shown) = self.cluster.run("status", &[]);
        let log = fs::read_to_string(self.cluster.master.log()).unwrap();
        for text in [log, shown] {
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{}", text.escape_debug());
            assert!(!text.contains("panicked"), "{text}");
        }
        self.cluster.master.signal(rustix::process::Signal::TERM);
        assert!(self.cluster.master.wait_end(SOON).is_some_and(|status| status.success()));
    }
}

fn welcome(standing: Standing) -> Welcome {
    Welcome {
        software: EVIL.into(),
        replica: Id([5; 16]),
        standing,
        checksum: Some(5),
        not_carried: vec![EVIL.repeat(20); 40],
        check: Check::None,
    }
}

fn want(id: u64, path: &str, what: Wanted) -> SlaveMessage {
    SlaveMessage::Want(Want { id, path: TreePath::new(path.as_bytes()).unwrap(), what })
}

fn content() -> Wanted {
    Wanted::Object { offset: 0, hashes: Vec::new() }
}

/// The next answer.
fn answer(peer: &mut Peer) -> (Answer, Vec<u8>) {
    loop {
        if let (FrameKind::Answer { .. }, payload) = peer.read().unwrap() {
            let (answer, bulk) = Answer::parse(&payload).unwrap();
            return (answer, bulk.to_vec());
        }
    }
}

/// SECURITY: "a slave can't make a master reveal anything outside its tree", nor open a node in it.
#[test]
fn no_want_leaves_the_tree() {
    let mut prey = Prey::start();
    let opens = Opens::watch(&prey.cluster.paths.backing);
    let (mut peer, _) = prey.begun();
    let paths =
        ["link/secret", "link/dir", "link/dir/inner/f", "up/outside/secret", "up/a", "no/such", "fifo/x"];
    for (id, path) in (1..).zip(paths) {
        for what in [Wanted::Listing { after: None }, content()] {
            peer.send(&want(id, path, what)).unwrap();
            assert_eq!(
                answer(&mut peer),
                (Answer { id, path: TreePath::new(path.as_bytes()).unwrap(), found: Found::Gone }, vec![])
            );
        }
    }
    for (path, is_it) in [
        ("link", (|kind| matches!(kind, Kind::Symlink(_))) as fn(&Kind) -> bool),
        ("file-link", |kind| matches!(kind, Kind::Symlink(_))),
        ("fifo", |kind| *kind == Kind::Fifo),
        ("null", |kind| *kind == Kind::Char(0x103)),
    ] {
        peer.send(&want(50, path, content())).unwrap();
        let (answer, bulk) = answer(&mut peer);
        let Found::Object { meta, stretches, .. } = answer.found else { panic!("{path}: {answer:?}") };
        assert!(is_it(&meta.kind) && stretches.is_empty() && bulk.is_empty(), "{path}: {meta:?}");
    }
    let names = opens.names();
    assert!(!names.iter().any(|name| name == "fifo" || name == "null"), "a node was opened: {names:?}");
    prey.assert_bears();
    prey.finish();
}

/// Paths that are none, numbers that can't be, more than may be asked: each ends the connection.
#[test]
fn what_no_slave_sends_ends_the_connection() {
    let mut prey = Prey::start();
    let object = |offset| Wanted::Object { offset, hashes: Vec::new() };
    let raw = |path: &[u8]| {
        let frame = want(1, "aa/bb", content()).frame().unwrap();
        let mut bytes = frame.payload().to_vec();
        let at = bytes.windows(5).position(|window| window == b"aa/bb").unwrap();
        bytes[at..at + 5].copy_from_slice(path);
        bytes
    };
    let ack = |lsn| SlaveMessage::Ack(Ack { received: lsn, applied: lsn, durable: lsn });
    let payload = |message: &SlaveMessage| message.frame().unwrap().payload().to_vec();
    let hashes = Wanted::Object { offset: 0, hashes: vec![[0; 32]; 30_000] };
    let attempts: Vec<Vec<Vec<u8>>> = vec![
        vec![raw(b"../bb")],
        vec![raw(b"/a/bb")],
        vec![raw(b"aa\0bb")],
        vec![payload(&want(1, "large", object(u64::MAX)))],
        vec![payload(&want(1, "large", object(1)))],
        vec![payload(&want(1, "large", object(u64::MAX / BLOCK_BYTES * BLOCK_BYTES)))],
        vec![payload(&want(1, "large", hashes))],
        vec![payload(&ack(Lsn::new(1 << 40)))],
        vec![payload(&ack(Lsn::new(u64::MAX)))],
        vec![payload(&SlaveMessage::Welcome(welcome(Standing::New)))],
        vec![payload(&want(1, "large", content())); 200],
    ];
    for payloads in attempts {
        let (mut peer, _) = prey.begun();
        for payload in payloads {
            if peer.send_raw(FrameKind::Message, payload).is_err() {
                break;
            }
        }
        peer.assert_ends();
        prey.assert_bears();
    }
    let (mut peer, begin) = prey.begun();
    peer.send(&ack(begin.after)).unwrap();
    peer.send(&ack(Lsn::ZERO)).unwrap();
    peer.assert_ends();
    prey.finish();
}

/// A slave that asks for all that it may and never reads holds up nobody, and little memory.
#[test]
fn who_does_not_read_holds_up_nobody() {
    let mut prey = Prey::start();
    for number in 0..3000 {
        fs::write(prey.cluster.mount().join(format!("a-long-name-of-one-of-many-files-{number}")), "")
            .unwrap();
    }
    let (mut peer, _) = prey.begun();
    for id in 0..64 {
        let (path, what) =
            if id % 2 == 0 { ("", Wanted::Listing { after: None }) } else { ("large", content()) };
        peer.send(&want(id, path, what)).unwrap();
    }
    for _ in 0..5 {
        prey.assert_bears();
    }
    for number in 0..200 {
        fs::write(prey.cluster.mount().join("much"), vec![3; 1 << 20]).unwrap();
        if number % 50 == 0 {
            prey.assert_bears();
        }
    }
    drop(peer);
    prey.finish();
}

/// What a slave says of itself can be anything, and is shown as text.
#[test]
fn a_slave_can_say_what_it_likes() {
    let mut prey = Prey::start();
    let mut standings = Vec::new();
    for lsn in [Lsn::ZERO, Lsn::new(1), Lsn::new(1 << 40), Lsn::MAX] {
        standings.extend([0, 1].map(|other| (lsn, other)));
    }
    for (number, (lsn, other)) in standings.into_iter().enumerate() {
        let (mut peer, hello) = prey.hello();
        let mut epoch = hello.lineage.last().unwrap().epoch;
        epoch.number += other;
        let applied = Position { epoch, lsn };
        let standing = match number % 4 {
            0 | 3 => Standing::Equal { applied, durable: Lsn::MAX },
            1 => Standing::Resyncing { applied, resumable: true },
            _ => Standing::InDoubt { since: applied },
        };
        peer.send(&SlaveMessage::Welcome(welcome(standing))).unwrap();
        let report = Report {
            stalled: Some(EVIL.repeat(10_000)),
            last_error: Some(EVIL.into()),
            divergences: u64::MAX,
            differences: u64::MAX,
            ..Report::default()
        };
        peer.send(&SlaveMessage::Report(report)).unwrap();
        let path = TreePath::new(*b"\x1b[2J").unwrap();
        let finding = Finding::Difference { verify: 1, path, what: Difference::Extra };
        for _ in 0..1000 {
            peer.send(&SlaveMessage::Finding(finding.clone())).unwrap();
        }
        prey.assert_bears();
        let (_, shown) = prey.cluster.run("status", &[]);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{}", shown.escape_debug());
        assert!(shown.contains(r"\u{1b}]0;mine"), "{shown}");
    }
    let (mut peer, _) = prey.hello();
    peer.send(&SlaveMessage::Refuse(EVIL.repeat(500))).unwrap();
    peer.assert_ends();
    prey.finish();
}
