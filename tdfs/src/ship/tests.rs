//! Ship and receive against each other, with a replica that only remembers.

use super::{Answerer, Config, Connecting, Dialled, NamedSlave, Placed, Ship, SlaveAddress, Trust};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdfs_host::state::StateDir;
use tdfs_slave::receive::{Entry, Receive};
use tdfs_slave::relay::{Relay, Replay, Stall, Syncer};
use tdfs_wire::answer::{Answer, Found, Want, Wanted};
use tdfs_wire::frame::Codec;
use tdfs_wire::log::{Log, Options};
use tdfs_wire::message::{Begin, Branch, Plan, Report, Standing};
use tdfs_wire::op::DataOp;
use tdfs_wire::record::{Draft, Record};
use tdfs_wire::{Epoch, Id, Lsn, Op, Position, Time, TreePath};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const OBJECTS: u64 = 20;
const EPOCH: Epoch = Epoch { number: 3, id: Id([3; 16]) };
const FILESYSTEM: Id = Id([1; 16]);

fn path(object: u64) -> TreePath {
    TreePath::new(format!("o{object}").into_bytes()).unwrap()
}

fn object_of(path: &TreePath) -> u64 {
    std::str::from_utf8(&path.as_bytes()[1..]).unwrap().parse().unwrap()
}

/// The "backing tree": the LSN of the last record that touched each object. Its lock is the order lock.
struct Tree {
    log: Arc<Log>,
    versions: Mutex<BTreeMap<u64, Lsn>>,
}

impl Tree {
    fn change(&self, object: u64) {
        let mut versions = self.versions.lock();
        let op = Op::Data(DataOp::Write { path: path(object), offset: 0, mtime: Time { sec: 0, nsec: 0 } });
        let bulk = vec![b'x'; usize::try_from(object).unwrap() * 100];
        let mut draft = Draft::new(&op, &bulk).unwrap();
        let space = self.log.reserve(draft.len()).unwrap();
        let lsn = self.log.append(space, &mut draft, super::progress::now_ns()).unwrap();
        versions.insert(object, lsn);
    }
}

impl Answerer for Tree {
    fn answer(&self, want: &Want, place: &dyn Fn(Placed)) -> Result<(), String> {
        let versions = self.versions.lock();
        let as_of = self.log.head();
        let version = versions.get(&object_of(&want.path)).copied().unwrap_or_default();
        // The id carries the version: a replica that only remembers has no use for metadata.
        let answer = Answer { id: version.get(), path: want.path.clone(), found: Found::Gone };
        let frame = answer.frame(as_of, b"", Codec::Stored).unwrap();
        place(Placed { as_of, frame, content_bytes: 0 });
        Ok(())
    }
}

/// What a replica remembers; outlives the daemon.
#[derive(Default)]
struct Memory {
    filesystem: Option<Id>,
    applied: Lsn,
    durable: Lsn,
    missing: Option<BTreeSet<u64>>,
    asked: BTreeSet<u64>,
    content: BTreeMap<u64, Lsn>,
    full: bool,
}

#[derive(Clone, Default)]
struct Replica(Arc<(Mutex<Memory>, Condvar)>);

impl Replay for Replica {
    fn standing(&self) -> Standing {
        let memory = self.0.0.lock();
        let applied = Position { epoch: EPOCH, lsn: memory.applied };
        match (&memory.missing, memory.filesystem) {
            (_, None) => Standing::New,
            (Some(_), _) => Standing::Resyncing { applied, resumable: true },
            (None, _) => Standing::Equal { applied, durable: memory.durable },
        }
    }

    fn filesystem(&self) -> Option<Id> {
        self.0.0.lock().filesystem
    }

    fn replica(&self) -> Id {
        Id([9; 16])
    }

    fn not_carried(&self) -> Vec<String> {
        vec!["owners".into()]
    }

    fn begin(&mut self, filesystem: Id, begin: &Begin) -> Result<(), String> {
        let mut memory = self.0.0.lock();
        memory.filesystem = Some(filesystem);
        memory.asked.clear();
        match begin.plan {
            Plan::Stream => assert_eq!(begin.after, memory.applied),
            Plan::Resume => assert_eq!(begin.after, memory.applied),
            Plan::Patch => panic!("nothing is kept of lost records"),
            Plan::Resync { .. } => {
                memory.applied = begin.after;
                memory.missing = Some((0..OBJECTS).collect());
            }
        }
        Ok(())
    }

    fn apply(&mut self, record: &Record<'_>) -> Result<(), Stall> {
        let mut memory = self.0.0.lock();
        if memory.full {
            return Err(Stall { why: "write: no space left".into() });
        }
        assert_eq!(record.lsn, memory.applied.next());
        let Op::Data(DataOp::Write { path, .. }) = &record.op else { panic!("not what was sent") };
        memory.applied = record.lsn;
        memory.content.insert(object_of(path), record.lsn);
        self.0.1.notify_all();
        Ok(())
    }

    fn answer(&mut self, as_of: Lsn, answer: &Answer, _bulk: &[u8]) -> Result<(), Stall> {
        let mut memory = self.0.0.lock();
        assert!(as_of <= memory.applied);
        let object = object_of(&answer.path);
        let known = memory.content.get(&object).copied().unwrap_or_default();
        assert!(known <= Lsn::new(answer.id), "an answer undoes record {known}");
        memory.content.insert(object, Lsn::new(answer.id));
        let missing = memory.missing.as_mut().unwrap();
        missing.remove(&object);
        if missing.is_empty() {
            memory.missing = None;
        }
        Ok(())
    }

    fn wants(&mut self) -> Vec<Want> {
        let mut memory = self.0.0.lock();
        let Memory { missing: Some(missing), asked, .. } = &mut *memory else { return Vec::new() };
        let due: Vec<u64> = missing.difference(asked).copied().collect();
        asked.extend(&due);
        due.into_iter().map(|id| Want { id, path: path(id), what: Wanted::Listing { after: None } }).collect()
    }

    fn applied(&self) -> Lsn {
        self.0.0.lock().applied
    }

    fn durable(&self) -> Lsn {
        self.0.0.lock().durable
    }

    fn report(&self) -> Report {
        Report { resyncing: self.0.0.lock().missing.is_some(), ..Report::default() }
    }

    fn idle(&mut self) {}

    fn syncer(&self) -> Syncer {
        let replica = self.clone();
        Box::new(move || {
            let mut memory = replica.0.0.lock();
            memory.durable = memory.applied;
            Ok(memory.durable)
        })
    }
}

struct World {
    _dir: tempfile::TempDir,
    state: Arc<StateDir>,
    tree: Arc<Tree>,
}

impl World {
    fn new(segment_bytes_max: u64) -> World {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(&dir.path().join("state")).unwrap());
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let log = Log::create(&dir.path().join("log"), EPOCH, Options { segment_bytes_max }).unwrap();
        let tree = Arc::new(Tree { log: Arc::new(log), versions: Mutex::default() });
        World { _dir: dir, state, tree }
    }

    fn ship(&self, slaves: &[SlaveAddress], embedded: Option<&Arc<Receive>>, log_bytes_max: u64) -> Ship {
        let embedded = embedded.cloned();
        Ship::start(Config {
            log: Arc::clone(&self.tree.log),
            filesystem: FILESYSTEM,
            lineage: vec![Branch { epoch: EPOCH, from: None }],
            slaves: slaves.iter().map(|address| NamedSlave { address: address.clone(), key: None }).collect(),
            trust: Trust { tls: None, strict: false, repin: "tdfs repin -m /data".into() },
            codec: Codec::Lzf,
            nodelay: true,
            state: Arc::clone(&self.state),
            resync_rate: None,
            check: false,
            log_bytes_max,
            answerer: Arc::clone(&self.tree) as Arc<dyn Answerer>,
            connect_embedded: Arc::new(move |_: &Path| -> Connecting {
                let connected = embedded.as_ref().unwrap().connect_embedded();
                let dialled = |(reader, writer)| Dialled { reader, writer, key: None };
                Box::pin(std::future::ready(connected.map(dialled).map_err(Into::into)))
            }),
        })
        .unwrap()
    }

    fn assert_equal(&self, replica: &Replica) {
        let mut content = replica.0.0.lock().content.clone();
        content.retain(|_, version| *version > Lsn::ZERO);
        assert_eq!(*self.tree.versions.lock(), content);
    }
}

async fn listen(replica: &Replica) -> (Arc<Receive>, Arc<Relay>, SlaveAddress) {
    let relay = Arc::new(Relay::start(Box::new(replica.clone())).unwrap());
    let receive = Receive::new(Arc::clone(&relay), true, Entry::Anybody);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(Arc::clone(&receive).listen(listener));
    (receive, relay, address)
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
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

fn streams(ship: &Ship, at: usize) -> bool {
    let status = &ship.status()[at];
    status.state == "streaming" && status.lag_records == 0 && !status.needs_resync
}

/// An embedded slave and one on the network, filled while the tree changes, then restarted: no second resync.
#[test]
fn slaves_are_filled_and_go_on_from_the_log() {
    run(async {
        let world = World::new(1 << 20);
        (0..1000).for_each(|i| world.tree.change(i % OBJECTS));
        let (near, far) = (Replica::default(), Replica::default());
        let embedded_relay = Arc::new(Relay::start(Box::new(near.clone())).unwrap());
        let embedded = Receive::new(Arc::clone(&embedded_relay), true, Entry::Anybody);
        let (receive, relay, address) = listen(&far).await;
        let slaves = [SlaveAddress::Embedded("/replica".into()), address];
        let ship = world.ship(&slaves, Some(&embedded), 1 << 30);
        for i in 0..5000 {
            world.tree.change(i * 7 % OBJECTS);
            if i % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        until("both stream", || streams(&ship, 0) && streams(&ship, 1)).await;
        world.assert_equal(&near);
        world.assert_equal(&far);
        assert_eq!(ship.status()[0].not_carried, ["owners"]);
        assert!(ship.drain(Duration::from_secs(1)).await);
        until("durable", || ship.status().iter().all(|s| s.durable == s.applied)).await;
        ship.stop().await;

        (0..1000).for_each(|i| world.tree.change(i % OBJECTS));
        let ship = world.ship(&slaves, Some(&embedded), 1 << 30);
        assert_eq!(ship.status()[0].durable, 6000, "known from the last run");
        until("both stream again", || streams(&ship, 0) && streams(&ship, 1)).await;
        world.assert_equal(&near);
        world.assert_equal(&far);
        assert_eq!(ship.status().iter().map(|slave| slave.resyncs).collect::<Vec<_>>(), [1, 1]);

        receive.stop().await;
        relay.stop();
        until("away", || ship.status()[1].state == "away").await;
        assert!(ship.status()[1].last_error.is_some());
        ship.stop().await;
        embedded.stop().await;
        embedded_relay.stop();
    });
}

/// P1, and DESIGN section 7, rule 2: while changes get no records, an object's state is as of none of them: a replica is
/// not made equal to it, but in the next epoch.
#[test]
fn what_no_record_tells_of_is_no_answer() {
    run(async {
        let world = World::new(1 << 20);
        (0..100).for_each(|i| world.tree.change(i % OBJECTS));
        world.tree.log.end_epoch();
        let replica = Replica::default();
        let (receive, relay, address) = listen(&replica).await;
        let ship = world.ship(&[address], None, 1 << 30);
        until("it asks", || replica.0.0.lock().asked.len() == 20).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(replica.0.0.lock().content.len(), 0);
        let next = Epoch { number: EPOCH.number + 1, id: Id([4; 16]) };
        let prepared = world.tree.log.prepare(next).unwrap();
        ship.expect_epoch([EPOCH, next].map(|epoch| Branch { epoch, from: None }).into());
        world.tree.log.begin_epoch(prepared);
        ship.epoch_began();
        until("it is equal", || streams(&ship, 0)).await;
        world.assert_equal(&replica);
        ship.stop().await;
        receive.stop().await;
        relay.stop();
    });
}

/// A link that is cut again and again loses, doubles and reorders nothing.
#[test]
fn a_link_that_is_cut_goes_on_where_it_was() {
    run(async {
        let world = World::new(1 << 20);
        let replica = Replica::default();
        let (receive, relay, address) = listen(&replica).await;
        let target = address.to_string();
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxied: SlaveAddress = proxy.local_addr().unwrap().to_string().parse().unwrap();
        let cutting = tokio::spawn(async move {
            for round in 0_u64.. {
                let (mut one, _) = proxy.accept().await.unwrap();
                let Ok(mut other) = TcpStream::connect(&target).await else { continue };
                let time = if round < 8 { Duration::from_millis(30 * (round + 1)) } else { Duration::MAX };
                let copy = tokio::io::copy_bidirectional(&mut one, &mut other);
                drop(tokio::time::timeout(time, copy).await);
            }
        });
        let ship = world.ship(&[proxied], None, 1 << 30);
        until("first copy", || streams(&ship, 0)).await;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            (0..20).for_each(|i| world.tree.change(i));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        until("streams at last", || streams(&ship, 0)).await;
        world.assert_equal(&replica);
        assert!(relay.facts().applied == world.tree.log.head());
        assert!(ship.status()[0].resyncs <= 2, "{}", ship.status()[0].resyncs);
        ship.stop().await;
        cutting.abort();
        receive.stop().await;
        relay.stop();
    });
}

/// A slave that can't apply a record stalls, says why, holds only bounded memory, and goes on.
#[test]
fn a_stalled_slave_says_why_and_is_left_behind_by_a_bounded_log() {
    run(async {
        let world = World::new(64 << 10);
        let (stuck, well) = (Replica::default(), Replica::default());
        let (receive, relay, address) = listen(&stuck).await;
        let (other_receive, other_relay, other) = listen(&well).await;
        let ship = world.ship(&[address, other], None, 256 << 10);
        until("first copy", || streams(&ship, 0) && streams(&ship, 1)).await;
        stuck.0.0.lock().full = true;
        world.tree.change(1);
        until("stalled", || ship.status()[0].state == "stalled").await;
        assert!(ship.status()[0].last_error.as_ref().unwrap().contains("no space left"));
        until("the other one goes on", || ship.status()[1].lag_records == 0).await;
        stuck.0.0.lock().full = false;
        until("goes on", || streams(&ship, 0)).await;
        world.assert_equal(&stuck);

        receive.stop().await;
        relay.stop();
        until("away", || ship.status()[0].state == "away").await;
        (0..3000).for_each(|i| world.tree.change(i % OBJECTS));
        until("left behind", || ship.status()[0].needs_resync).await;
        until("the log is bounded", || world.tree.log.bytes() < (512 << 10)).await;
        until("the other one goes on", || ship.status()[1].lag_records == 0).await;
        assert!(!ship.status()[1].needs_resync && ship.status()[1].resyncs == 1);
        ship.stop().await;
        other_receive.stop().await;
        other_relay.stop();
    });
}

/// Bad bytes: the connection ends, nothing is applied, the next connection goes on.
#[test]
fn damaged_bytes_are_never_applied() {
    run(async {
        let world = World::new(1 << 20);
        let replica = Replica::default();
        let (receive, relay, address) = listen(&replica).await;
        let target = address.to_string();
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxied: SlaveAddress = proxy.local_addr().unwrap().to_string().parse().unwrap();
        let flipping = tokio::spawn(async move {
            for round in 0_usize.. {
                let (mut one, _) = proxy.accept().await.unwrap();
                let mut other = TcpStream::connect(&target).await.unwrap();
                let (mut up, mut down) = (one.split(), other.split());
                let spoil = async {
                    let (mut bytes, mut seen) = ([0; 4096], 0);
                    while let Ok(got @ 1..) = up.0.read(&mut bytes).await {
                        let bad = 300 + round * 97;
                        if round < 6 && (seen..seen + got).contains(&bad) {
                            bytes[bad - seen] ^= 0x40;
                        }
                        seen += got;
                        if down.1.write_all(&bytes[..got]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    () = spoil => {}
                    _ = tokio::io::copy(&mut down.0, &mut up.1) => {}
                }
            }
        });
        let ship = world.ship(&[proxied], None, 1 << 30);
        (0..200).for_each(|i| world.tree.change(i % OBJECTS));
        until("streams at last", || streams(&ship, 0)).await;
        world.assert_equal(&replica);
        ship.stop().await;
        flipping.abort();
        receive.stop().await;
        relay.stop();
    });
}

/// A port where nobody answers is dialled without end, and is no error.
#[test]
fn a_slave_that_is_not_there_yet_is_dialled() {
    run(async {
        let world = World::new(1 << 20);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let ship = world.ship(&[address.to_string().parse().unwrap()], None, 1 << 30);
        until("away", || ship.status()[0].state == "away").await;
        let replica = Replica::default();
        let relay = Arc::new(Relay::start(Box::new(replica.clone())).unwrap());
        let receive = Receive::new(Arc::clone(&relay), true, Entry::Anybody);
        tokio::spawn(Arc::clone(&receive).listen(TcpListener::bind(address).await.unwrap()));
        until("streams", || streams(&ship, 0)).await;
        assert_eq!(ship.status()[0].last_error, None::<String>);
        ship.stop().await;
        receive.stop().await;
        relay.stop();
    });
}
