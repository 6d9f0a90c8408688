//! The bounded, ordered hand-over from receive to replay, and the thread that replays.
//!
//! Owns the replica's [`Replay`] and calls it from one thread only. A connection takes the replica over
//! ([`Relay::take`]) and gets a [`Lane`]: what it pushes is replayed in order, until another connection
//! takes over; then the lane is closed and what it still held is dropped. Knows no socket and no session.

mod play;

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tdfs_wire::answer::{Answer, Want};
use tdfs_wire::message::{Begin, Check, Finding, Lost, Order, Report, Standing};
use tdfs_wire::record::Record;
use tdfs_wire::session::slave::{Input, Replica};
use tdfs_wire::{Id, Lsn};
use tokio::sync::{Notify, oneshot};

/// With so many bytes in it, the relay takes no more: the connection is not read until there is room.
const RELAY_BYTES_MAX: usize = 16 << 20;
/// How often what was applied is made durable, and an idle replica gets its turn.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The replica, as the relay drives it. All of it blocks, and is called by one thread at a time.
pub trait Replay: Send {
    /// How far the replica is.
    fn standing(&self) -> Standing;
    /// Checksum of the record at its applied position, where that is known.
    fn checksum(&self) -> Option<u32> {
        None
    }
    /// The filesystem it belongs to.
    fn filesystem(&self) -> Option<Id>;
    /// Its id.
    fn replica(&self) -> Id;
    /// What of P3 can't be carried here.
    fn not_carried(&self) -> Vec<String>;
    /// Whether a check of it was begun and not finished.
    fn check(&self) -> Check {
        Check::None
    }
    /// Prepares for what follows. All wants of an earlier connection are void.
    ///
    /// # Errors
    /// Why the replica refuses, in words.
    fn begin(&mut self, filesystem: Id, begin: &Begin) -> Result<(), String>;
    /// Applies the next record.
    ///
    /// # Errors
    /// It was not applied, and will be tried again.
    fn apply(&mut self, record: &Record<'_>) -> Result<(), Stall>;
    /// Takes (a part of) an answer.
    ///
    /// # Errors
    /// It was not taken, and will be tried again.
    fn answer(&mut self, as_of: Lsn, answer: &Answer, bulk: &[u8]) -> Result<(), Stall>;
    /// Takes paths that lost records touched.
    ///
    /// # Errors
    /// They were not taken, and will be given again.
    fn lost(&mut self, _lost: &Lost) -> Result<(), Stall> {
        Ok(())
    }
    /// Takes what a human wants.
    fn order(&mut self, _order: Order) {}
    /// What a comparison has found since this was asked last.
    fn findings(&mut self) -> Vec<Finding> {
        Vec::new()
    }
    /// Wants to send now; the replica bounds how many are out at once.
    fn wants(&mut self) -> Vec<Want>;
    /// Newest record done.
    fn applied(&self) -> Lsn;
    /// Newest record on the disk.
    fn durable(&self) -> Lsn;
    /// How it stands.
    fn report(&self) -> Report;
    /// Nothing is to be done at present: a chance to do what was put off. Called also once a second.
    fn idle(&mut self);
    /// What makes all that is applied durable and returns up to where; called from another thread.
    fn syncer(&self) -> Syncer;
}

/// Makes what is applied durable; returns the newest record that is.
pub type Syncer = Box<dyn Fn() -> io::Result<Lsn> + Send + Sync>;

/// A record or an answer can't be applied at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Why, for a human: what was tried, and the errno in words.
    pub why: String,
}

/// What is replayed.
#[derive(Debug)]
pub enum Item {
    /// The beginning of a stream.
    Begin {
        /// The filesystem it is of.
        filesystem: Id,
        /// How it begins.
        begin: Begin,
    },
    /// Records that were checked to be whole and without holes.
    Records(Vec<u8>),
    /// (A part of) an answer.
    Answer {
        /// The LSN as of which it is exact.
        as_of: Lsn,
        /// The opened payload.
        payload: Vec<u8>,
    },
    /// Paths of lost records.
    Lost(Lost),
    /// What a human wants.
    Order(Order),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Begin { .. } | Item::Order(_) => 0,
            Item::Lost(lost) => lost.paths.iter().map(|(path, _)| path.as_bytes().len()).sum(),
            Item::Records(payload) | Item::Answer { payload, .. } => payload.len(),
        }
    }
}

/// What a lane tells its connection, in the order in which the session has to be told.
#[derive(Debug, Default)]
pub struct News {
    /// The stream has begun, or the replica refuses it.
    pub began: Option<Result<(), String>>,
    /// How the replica stands, if that changed.
    pub report: Option<Report>,
    /// Newest record done, if that changed.
    pub applied: Option<Lsn>,
    /// Newest record on the disk, if that changed.
    pub durable: Option<Lsn>,
    /// Wants to send.
    pub wants: Vec<Want>,
    /// Findings to send.
    pub findings: Vec<Finding>,
    /// What came can't be replayed: the connection must end.
    pub fault: Option<String>,
}

impl News {
    /// As the session has to be told, in order: a report before the position that it belongs to.
    pub fn into_inputs(self) -> (impl Iterator<Item = Input>, Option<String>) {
        let News { began, report, applied, durable, wants, findings, fault } = self;
        let inputs = [
            began.map(Input::Began),
            report.map(Input::Reported),
            applied.map(Input::Applied),
            durable.map(Input::Durable),
        ];
        let asked = wants.into_iter().map(Input::Want).chain(findings.into_iter().map(Input::Found));
        (inputs.into_iter().flatten().chain(asked), fault)
    }
}

/// How the replica is, whether connected or not.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Who and where it is.
    pub replica: Replica,
    /// Newest record done.
    pub applied: Lsn,
    /// Newest record on the disk.
    pub durable: Lsn,
    /// How it stands.
    pub report: Report,
}

/// The relay of one replica.
pub struct Relay {
    shared: Arc<Shared>,
    player: Mutex<Option<JoinHandle<Box<dyn Replay>>>>,
    syncing: Mutex<Option<JoinHandle<()>>>,
}

/// One connection's way into the relay. When it is dropped, what was pushed is replayed all the same: the
/// master may never come back, and the records are there.
pub struct Lane {
    shared: Arc<Shared>,
    ends: Arc<Ends>,
}

/// What both ends of a lane share.
#[derive(Default)]
struct Ends {
    closed: AtomicBool,
    news: Mutex<News>,
    notify: Notify,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something was put into the queue, or taken out of the player's hands.
    work: Condvar,
    facts: Mutex<Facts>,
    /// Wakes the thread that syncs, to end.
    sync_now: Condvar,
    sync_error: Mutex<Option<String>>,
}

struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    lane: Arc<Ends>,
    take: Option<oneshot::Sender<Replica>>,
    /// Counts streams: an LSN that was found out in an earlier one means nothing in this one.
    stream: u64,
    stop: bool,
}

impl Relay {
    /// Starts the threads of a replica.
    ///
    /// # Errors
    /// When a thread can't be made.
    pub fn start(replay: Box<dyn Replay>) -> io::Result<Relay> {
        let syncer = replay.syncer();
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                items: VecDeque::new(),
                bytes: 0,
                lane: Arc::default(),
                take: None,
                stream: 0,
                stop: false,
            }),
            work: Condvar::new(),
            facts: Mutex::new(facts(&*replay)),
            sync_now: Condvar::new(),
            sync_error: Mutex::new(None),
        });
        let (player, sync) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = std::thread::Builder::new().name("replay".into());
        let player = threads.spawn(move || play::run(&player, replay))?;
        let threads = std::thread::Builder::new().name("sync".into());
        let syncing = threads.spawn(move || sync.sync_until_stopped(&syncer))?;
        Ok(Relay { shared, player: Mutex::new(Some(player)), syncing: Mutex::new(Some(syncing)) })
    }

    /// How the replica is.
    pub fn facts(&self) -> Facts {
        self.shared.facts.lock().clone()
    }

    /// Takes the replica over: the lane that had it is closed at once, the record in hand finishes. None if
    /// another connection did the same meanwhile, or the relay has stopped.
    pub async fn take(&self) -> Option<(Lane, Replica)> {
        let ends = Arc::new(Ends::default());
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if queue.stop {
                return None;
            }
            queue.close_lane();
            queue.lane = Arc::clone(&ends);
            queue.take = Some(reply);
        }
        self.shared.work.notify_all();
        let replica = answer.await.ok()?;
        Some((Lane { shared: Arc::clone(&self.shared), ends }, replica))
    }

    /// Ends: the record in hand finishes, what waits is dropped. Blocks; returns the replica, or None if
    /// that was done before.
    pub fn stop(&self) -> Option<Box<dyn Replay>> {
        {
            let mut queue = self.shared.queue.lock();
            queue.stop = true;
            queue.close_lane();
        }
        self.shared.work.notify_all();
        self.shared.sync_now.notify_all();
        // A panic in either thread ends the process (panic = abort), so joining can't fail in a daemon.
        // A sync that is going on is not waited for: a busy disk takes its time.
        drop(self.syncing.lock().take());
        self.player.lock().take().and_then(|player| player.join().ok())
    }
}

impl Lane {
    /// Hands an item over. Does not wait: who pushes looks at [`Lane::is_full`] before it reads more.
    /// Of a closed lane the item is dropped.
    pub fn push(&self, item: Item) {
        let mut queue = self.shared.queue.lock();
        if self.is_closed() {
            return;
        }
        queue.bytes += item.bytes();
        queue.items.push_back(item);
        drop(queue);
        self.shared.work.notify_all();
    }

    /// True while nothing more should be pushed.
    pub fn is_full(&self) -> bool {
        self.shared.queue.lock().bytes >= RELAY_BYTES_MAX
    }

    /// True once another connection has the replica.
    pub fn is_closed(&self) -> bool {
        self.ends.closed.load(Ordering::Acquire)
    }

    /// Waits until there is news, or room after the lane was full. Dropping the future loses nothing.
    pub async fn changed(&self) {
        self.ends.notify.notified().await;
    }

    /// What is new since the last call.
    pub fn news(&self) -> News {
        std::mem::take(&mut *self.ends.news.lock())
    }
}

impl Queue {
    fn close_lane(&mut self) {
        self.lane.closed.store(true, Ordering::Release);
        self.lane.notify.notify_one();
        self.items.clear();
        self.bytes = 0;
        self.stream += 1;
    }
}

impl Ends {
    fn tell(&self, tell: impl FnOnce(&mut News)) {
        tell(&mut self.news.lock());
        self.notify.notify_one();
    }
}

impl Shared {
    fn sync_until_stopped(&self, syncer: &Syncer) {
        let mut synced = None;
        loop {
            let (stream, lane) = {
                let mut queue = self.queue.lock();
                if !queue.stop {
                    self.sync_now.wait_for(&mut queue, SYNC_INTERVAL);
                }
                if queue.stop {
                    return;
                }
                (queue.stream, Arc::clone(&queue.lane))
            };
            let here = (stream, self.facts.lock().applied);
            if synced == Some(here) {
                continue;
            }
            match syncer() {
                Ok(durable) => {
                    *self.sync_error.lock() = None;
                    synced = Some(here);
                    self.made_durable(durable, stream, &lane);
                }
                Err(e) => self.sync_failed(&e),
            }
        }
    }

    /// Closes a lane that brought something which can't be replayed; what follows it must not be either.
    fn close(&self, lane: &Ends) {
        let mut queue = self.queue.lock();
        if std::ptr::eq(&*queue.lane, lane) {
            queue.close_lane();
        }
    }

    fn made_durable(&self, durable: Lsn, stream: u64, lane: &Ends) {
        let queue = self.queue.lock();
        if queue.stream == stream {
            self.facts.lock().durable = durable;
            lane.tell(|news| news.durable = Some(durable));
        }
    }

    fn sync_failed(&self, error: &io::Error) {
        let why = format!("make the replica durable: {error}");
        if self.sync_error.lock().replace(why.clone()).as_ref() != Some(&why) {
            tracing::warn!("{why}; trying again each second");
        }
    }
}

fn facts(replay: &dyn Replay) -> Facts {
    Facts {
        replica: Replica {
            filesystem: replay.filesystem(),
            replica: replay.replica(),
            standing: replay.standing(),
            checksum: replay.checksum(),
            not_carried: replay.not_carried(),
            check: replay.check(),
        },
        applied: replay.applied(),
        durable: replay.durable(),
        report: replay.report(),
    }
}
