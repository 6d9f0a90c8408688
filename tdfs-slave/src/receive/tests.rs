//! Connections against a listener, with a replica that only remembers how it was called.

use super::{Entry, Receive};
use crate::relay::{Relay, Replay, Stall, Syncer};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdfs_host::link::{FrameReader, FrameWriter};
use tdfs_wire::answer::{Answer, Want};
use tdfs_wire::frame::{Codec, FrameKind};
use tdfs_wire::message::{
    Begin, Branch, Hello, MasterMessage, Message, Plan, Report, SlaveMessage, Standing,
};
use tdfs_wire::op::DataOp;
use tdfs_wire::record::{Draft, Record};
use tdfs_wire::{Epoch, Frame, Id, Lsn, Op, Position, Time, TreePath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

const EPOCH: Epoch = Epoch { number: 1, id: Id([3; 16]) };
const MINE: Id = Id([1; 16]);

#[derive(Default)]
struct Memory {
    filesystem: Option<Id>,
    applied: Lsn,
    refuses: bool,
    /// Applying blocks for so long, as a large record does.
    slow: Duration,
    stalled: bool,
}

#[derive(Clone, Default)]
struct Replica(Arc<Mutex<Memory>>);

impl Replay for Replica {
    fn standing(&self) -> Standing {
        let memory = self.0.lock();
        let applied = Position { epoch: EPOCH, lsn: memory.applied };
        memory.filesystem.map_or(Standing::New, |_| Standing::Equal { applied, durable: Lsn::ZERO })
    }
    fn filesystem(&self) -> Option<Id> {
        self.0.lock().filesystem
    }
    fn replica(&self) -> Id {
        Id([9; 16])
    }
    fn not_carried(&self) -> Vec<String> {
        Vec::new()
    }
    fn begin(&mut self, filesystem: Id, begin: &Begin) -> Result<(), String> {
        let mut memory = self.0.lock();
        if memory.refuses {
            return Err("the directory is not empty".into());
        }
        memory.filesystem = Some(filesystem);
        memory.applied = begin.after;
        Ok(())
    }
    fn apply(&mut self, record: &Record<'_>) -> Result<(), Stall> {
        std::thread::sleep(self.0.lock().slow);
        let mut memory = self.0.lock();
        if memory.stalled {
            return Err(Stall { why: "no space".into() });
        }
        assert_eq!(record.lsn, memory.applied.next());
        memory.applied = record.lsn;
        Ok(())
    }
    fn answer(&mut self, _: Lsn, _: &Answer, _: &[u8]) -> Result<(), Stall> {
        Ok(())
    }
    fn wants(&mut self) -> Vec<Want> {
        Vec::new()
    }
    fn applied(&self) -> Lsn {
        self.0.lock().applied
    }
    fn durable(&self) -> Lsn {
        Lsn::ZERO
    }
    fn report(&self) -> Report {
        Report::default()
    }
    fn idle(&mut self) {}
    fn syncer(&self) -> Syncer {
        let replica = self.clone();
        Box::new(move || Ok(replica.applied()))
    }
}

/// An op that may have bulk.
fn write() -> Op {
    let path = TreePath::root().join(b"file").unwrap();
    Op::Data(DataOp::Write { path, offset: 0, mtime: Time { sec: 0, nsec: 0 } })
}

/// A master by hand.
struct Master {
    reader: FrameReader<OwnedReadHalf>,
    writer: FrameWriter<OwnedWriteHalf>,
}

impl Master {
    async fn greet(address: &str, filesystem: Id) -> Master {
        let (reader, writer) = TcpStream::connect(address).await.unwrap().into_split();
        let mut master = Master { reader: FrameReader::new(reader), writer: FrameWriter::new(writer) };
        let lineage = vec![Branch { epoch: EPOCH, from: None }];
        let hello = Hello { software: "t".into(), filesystem, lineage, head: Lsn::new(100) };
        master.say(&MasterMessage::Hello(hello)).await;
        master
    }

    async fn begun(address: &str) -> Master {
        let mut master = Master::greet(address, MINE).await;
        let applied = match master.hear().await {
            Some(SlaveMessage::Welcome(welcome)) => match welcome.standing {
                Standing::Equal { applied, .. } => applied.lsn,
                _ => Lsn::ZERO,
            },
            other => panic!("{other:?}"),
        };
        master
            .say(&MasterMessage::Begin(Begin {
                epoch: EPOCH,
                after: applied,
                plan: Plan::Stream,
                check: false,
            }))
            .await;
        master
    }

    async fn say(&mut self, message: &MasterMessage) {
        self.writer.write(&message.frame().unwrap()).await.unwrap();
    }

    async fn records(&mut self, first: u64, count: u32, bulk: &[u8]) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        for i in 0..u64::from(count) {
            let mut draft = Draft::new(&write(), bulk).unwrap();
            let parts = draft.place(Lsn::new(first + i), 0);
            parts.iter().for_each(|part| bytes.extend_from_slice(part));
        }
        let kind = FrameKind::Records { first: Lsn::new(first), count };
        self.writer.write(&Frame::new(kind, Codec::Stored, bytes)).await
    }

    /// The next message; None at the end of the connection.
    async fn hear(&mut self) -> Option<SlaveMessage> {
        let read = tokio::time::timeout(Duration::from_secs(15), self.reader.read()).await;
        read.expect("a message within 15 s").ok().map(|(_, payload)| SlaveMessage::parse(&payload).unwrap())
    }

    async fn acked(&mut self, applied: u64) {
        loop {
            match self.hear().await.expect("a connection that lasts") {
                SlaveMessage::Ack(ack) if ack.applied >= Lsn::new(applied) => return,
                SlaveMessage::Ack(_) | SlaveMessage::Report(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// What it says last.
    async fn last_words(&mut self) -> Option<SlaveMessage> {
        let mut last = None;
        while let Some(message) = self.hear().await {
            last = Some(message);
        }
        last
    }
}

struct Slave {
    replica: Replica,
    relay: Arc<Relay>,
    receive: Arc<Receive>,
    address: String,
}

impl Slave {
    async fn new() -> Slave {
        let replica = Replica::default();
        let relay = Arc::new(Relay::start(Box::new(replica.clone())).unwrap());
        let receive = Receive::new(Arc::clone(&relay), true, Entry::Anybody);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(Arc::clone(&receive).listen(listener));
        Slave { replica, relay, receive, address }
    }

    async fn stop(self) {
        let start = Instant::now();
        self.receive.stop().await;
        let relay = Arc::clone(&self.relay);
        tokio::task::spawn_blocking(move || relay.stop().is_some()).await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_newly_greeted_connection_takes_over_at_once() {
    run(async {
        let slave = Slave::new().await;
        let mut old = Master::begun(&slave.address).await;
        old.records(1, 10, b"").await.unwrap();
        old.acked(10).await;
        assert!(slave.receive.status().connected);
        // Stalled, and with more in the relay than can be applied: nothing of it counts after the takeover.
        slave.replica.0.lock().stalled = true;
        old.records(11, 10, b"").await.unwrap();
        tokio::time::sleep(Duration::from_millis(120)).await;
        let start = Instant::now();
        let mut new = Master::begun(&slave.address).await;
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        let words = old.last_words().await;
        assert!(matches!(words, Some(SlaveMessage::Bye(why)) if why.contains("taken over")));
        slave.replica.0.lock().stalled = false;
        new.records(11, 5, b"").await.unwrap();
        new.acked(15).await;
        slave.stop().await;
        assert!(matches!(new.last_words().await, Some(SlaveMessage::Bye(_))));
    });
}

#[test]
fn another_filesystem_disturbs_nobody() {
    run(async {
        let slave = Slave::new().await;
        let mut master = Master::begun(&slave.address).await;
        master.records(1, 1, b"").await.unwrap();
        master.acked(1).await;
        let mut other = Master::greet(&slave.address, Id([2; 16])).await;
        let words = other.last_words().await;
        assert!(matches!(words, Some(SlaveMessage::Refuse(why)) if why.contains("belongs to filesystem")));
        master.records(2, 1, b"").await.unwrap();
        master.acked(2).await;
        slave.stop().await;
    });
}

#[test]
fn a_replica_that_refuses_says_why() {
    run(async {
        let slave = Slave::new().await;
        slave.replica.0.lock().refuses = true;
        let mut master = Master::begun(&slave.address).await;
        // What comes behind is not applied either.
        master.records(1, 1, b"").await.unwrap();
        let words = master.last_words().await;
        assert_eq!(words, Some(SlaveMessage::Refuse("the directory is not empty".into())));
        assert_eq!(slave.replica.applied(), Lsn::ZERO);
        slave.stop().await;
    });
}

#[test]
fn damaged_records_end_the_connection_and_are_not_applied() {
    run(async {
        let slave = Slave::new().await;
        let mut master = Master::begun(&slave.address).await;
        master.records(1, 3, b"").await.unwrap();
        // What is not applied yet goes with the connection.
        master.acked(3).await;
        // The frame says 4 to 5, the records say 3 and 4.
        let mut bytes = Vec::new();
        for lsn in [4, 4] {
            let mut draft = Draft::new(&write(), b"").unwrap();
            draft.place(Lsn::new(lsn), 0).iter().for_each(|part| bytes.extend_from_slice(part));
        }
        let kind = FrameKind::Records { first: Lsn::new(4), count: 2 };
        master.writer.write(&Frame::new(kind, Codec::Stored, bytes)).await.unwrap();
        let words = master.last_words().await;
        assert!(matches!(words, Some(SlaveMessage::Bye(why)) if why.contains("damaged")));
        let mut again = Master::begun(&slave.address).await;
        again.records(4, 1, b"").await.unwrap();
        again.acked(4).await;
        slave.stop().await;
    });
}

#[test]
fn a_full_relay_is_not_read_but_still_acks() {
    run(async {
        let slave = Slave::new().await;
        slave.replica.0.lock().stalled = true;
        let mut master = Master::begun(&slave.address).await;
        let bulk = vec![7; 1 << 20];
        let mut sent = 0;
        let blocked = async {
            loop {
                master.records(sent + 1, 1, &bulk).await.unwrap();
                sent += 1;
            }
        };
        drop(tokio::time::timeout(Duration::from_secs(2), blocked).await);
        assert!((16..48).contains(&sent), "{sent} MiB were taken");
        let mut acks = 0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2500) {
            acks += u64::from(matches!(master.hear().await, Some(SlaveMessage::Ack(_))));
        }
        assert!(acks >= 2);
        slave.stop().await;
    });
}

#[test]
fn a_peer_that_says_nothing_or_nonsense_is_sent_away() {
    run(async {
        let slave = Slave::new().await;
        let mut master = Master::begun(&slave.address).await;
        let mut silent = Vec::new();
        for _ in 0..9 {
            silent.push(TcpStream::connect(&slave.address).await.unwrap());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut byte = [0];
        assert_eq!(silent[0].read(&mut byte).await.unwrap(), 0, "the oldest of nine");
        let mut nonsense = TcpStream::connect(&slave.address).await.unwrap();
        nonsense.write_all(&[b'G'; 40]).await.unwrap();
        let mut words = Vec::new();
        drop(nonsense.read_to_end(&mut words).await);
        master.records(1, 1, b"").await.unwrap();
        master.acked(1).await;
        slave.stop().await;
    });
}

#[test]
fn what_came_is_applied_even_if_the_master_is_gone() {
    run(async {
        let slave = Slave::new().await;
        slave.replica.0.lock().slow = Duration::from_millis(2);
        let mut master = Master::begun(&slave.address).await;
        master.records(1, 100, b"").await.unwrap();
        master.acked(1).await;
        drop(master);
        let start = Instant::now();
        while slave.replica.applied() < Lsn::new(100) {
            assert!(start.elapsed() < Duration::from_secs(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slave.stop().await;
    });
}
