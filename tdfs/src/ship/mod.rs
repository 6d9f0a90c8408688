//! Ships the log to all slaves: one task each, frames shared, positions kept.
//!
//! Started by the daemon. Reads the log and asks an [`Answerer`] for what a resync needs; knows nothing of
//! FUSE or of the backing tree. A slave that is slow, full or gone costs the others nothing: what it can't
//! take stays in the log.

mod address;
mod dial;
mod frames;
mod known;
mod lacking;
mod meter;
mod progress;
mod slave;
mod verify;

pub use address::{NamedSlave, PORT, SlaveAddress};
pub use dial::{DialError, Dialled, Trust};
pub use known::KnownSlaves;
pub use meter::{CONFIRM, ResyncStatus};
pub use progress::SlaveStatus;
pub use verify::{Ended, Found, VerifyStatus};

use dial::Keys;
use frames::Frames;
use meter::Meter;
use parking_lot::{Mutex, RwLock};
use progress::SlavesFile;
use slave::Slave;
use std::collections::VecDeque;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};
use tdfs_host::key::Fingerprint;
use tdfs_host::state::{StateDir, StateError};
use tdfs_wire::answer::Want;
use tdfs_wire::frame::Codec;
use tdfs_wire::log::{self, Cover, Extent, Lacking, Log};
use tdfs_wire::message::{Branch, Order, Phase};
use tdfs_wire::session::master::{Config as SessionConfig, Known, Session, View};
use tdfs_wire::{Epoch, Frame, Id, Lsn, Position};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use verify::Verify;

/// How often retention runs, and counters are saved.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How often positions alone are saved; an older one only keeps more of the log after a restart.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long slaves may take to hear that the master ends.
const STOP_MAX: Duration = Duration::from_secs(1);
/// How often `drain` looks.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);

/// An answer, as it is handed over below the order locks.
pub struct Placed {
    /// The head of the log at that moment.
    pub as_of: Lsn,
    /// The answer.
    pub frame: Frame,
    /// Bytes of content that were read for it.
    pub content_bytes: u64,
}

/// Answers wants. Called on threads that may block, at most two at a time for each slave.
pub trait Answerer: Send + Sync {
    /// Reads the object under its order locks and calls `place` exactly once, before they are released,
    /// with the answer. `place` never blocks; once the epoch has ended it takes no answer.
    ///
    /// # Errors
    /// In words, when the object can't be read now; `place` was not called, and the want comes again later.
    fn answer(&self, want: &Want, place: &dyn Fn(Placed)) -> Result<(), String>;
}

/// A connection to a slave on its way.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Dialled, DialError>> + Send>>;
/// Connects to the embedded slave on a directory.
pub type ConnectEmbedded = Arc<dyn Fn(&Path) -> Connecting + Send + Sync>;

/// What to ship, and where.
pub struct Config {
    /// The log.
    pub log: Arc<Log>,
    /// The filesystem that is served.
    pub filesystem: Id,
    /// Its epochs, the present one (the log's) last.
    pub lineage: Vec<Branch>,
    /// The slaves.
    pub slaves: Vec<NamedSlave>,
    /// How those on the network are talked to.
    pub trust: Trust,
    /// `-z`.
    pub codec: Codec,
    /// Small frames are sent at once: not `-n`.
    pub nodelay: bool,
    /// Where the slaves' positions are kept.
    pub state: Arc<StateDir>,
    /// Most bytes of the log that are kept for a slave that is behind.
    pub log_bytes_max: u64,
    /// Most bytes a second that a resync of one slave may compare or send; None: as fast as it goes.
    pub resync_rate: Option<u64>,
    /// Each slave is compared as a whole when it is met: the tree may have changed unseen before.
    pub check: bool,
    /// Answers wants.
    pub answerer: Arc<dyn Answerer>,
    /// Connects embedded slaves.
    pub connect_embedded: ConnectEmbedded,
}

/// The running tasks.
pub struct Ship {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<(SlaveAddress, JoinHandle<()>)>>,
    keeping: Mutex<Option<JoinHandle<()>>>,
    stopping: watch::Sender<bool>,
}

/// What all tasks share.
struct Shared {
    config: Config,
    keys: Keys,
    frames: Frames,
    outlets: RwLock<Vec<Arc<Outlet>>>,
    file: Mutex<SlavesFile>,
    /// All epochs; the last is the log's, or about to be.
    lineage: RwLock<Vec<Branch>>,
    /// Up to where tree and log are on the master's disk.
    durable: Mutex<Position>,
    /// What a kill should not take back has changed: it is to be saved at once.
    changed: Notify,
}

/// What the other parts of the daemon see of one slave's task.
struct Outlet {
    address: SlaveAddress,
    /// The key that it has to show, as `-c` said.
    given_key: Option<Fingerprint>,
    view: Mutex<View>,
    /// The epoch that the view is of.
    epoch: Mutex<Epoch>,
    /// Something is in the log or in the inbox.
    wake: Notify,
    inbox: Mutex<VecDeque<Parcel>>,
    /// Threads that are answering wants.
    answering: AtomicUsize,
    /// Bytes of answers that were made, as they go over the wire.
    answer_bytes: AtomicU64,
    /// Bytes of content and answers that resyncs have cost, for `--resync-rate`.
    resync_cost: AtomicU64,
    meters: Mutex<Meters>,
    /// What the log no longer holds for it.
    lacking: Mutex<Option<Lacking>>,
    verify: Mutex<Option<Verify>>,
    stop: watch::Sender<Option<&'static str>>,
}

/// Measure what goes on.
#[derive(Default)]
struct Meters {
    resync: Meter,
    verify: Meter,
}

/// What is put into a task's inbox.
enum Parcel {
    /// An answer, placed under the order locks.
    Answered { connection: u64, as_of: Lsn, frame: Arc<Frame> },
    /// An object could not be read.
    Unreadable { connection: u64, want: Want, why: String },
    /// The same want, after a while.
    Again { connection: u64, want: Want },
    /// The log no longer holds what the slave lacks.
    LeftBehind,
    /// A resync was asked for.
    Resync { checksum: bool },
    /// A human wants something of the slave.
    Order(Order),
    /// Its connection is to be made anew: another key may be the right one.
    Repinned,
}

impl Ship {
    /// Starts one task per slave; to be called on the runtime.
    ///
    /// # Errors
    /// When the positions of the last run, or the slaves' keys, can't be read.
    pub fn start(config: Config) -> Result<Ship, StateError> {
        let file: SlavesFile = config.state.read(progress::FILE_NAME)?.unwrap_or_default();
        let frames = Frames::new(Arc::clone(&config.log), config.codec);
        let (slaves, keys) = (config.slaves.clone(), Keys::load(&config.state)?);
        let shared = Arc::new(Shared {
            lineage: RwLock::new(config.lineage.clone()),
            durable: Mutex::new(Position { epoch: config.log.epoch(), lsn: Lsn::ZERO }),
            config,
            keys,
            frames,
            outlets: RwLock::default(),
            file: Mutex::new(file),
            changed: Notify::new(),
        });
        let stopping = watch::Sender::new(false);
        let keeping = tokio::spawn(keep(Arc::clone(&shared), stopping.subscribe()));
        let ship = Ship { shared, tasks: Mutex::default(), keeping: Mutex::new(Some(keeping)), stopping };
        for slave in slaves {
            ship.add(slave);
        }
        let shared = Arc::downgrade(&ship.shared);
        ship.shared.config.log.set_waker(Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.outlets.read().iter().for_each(|outlet| outlet.wake.notify_one());
            }
        }));
        Ok(ship)
    }

    /// Adds a slave; false if it is there already.
    pub fn add(&self, NamedSlave { address, key }: NamedSlave) -> bool {
        let mut outlets = self.shared.outlets.write();
        if outlets.iter().any(|outlet| outlet.address == address) {
            return false;
        }
        let config = &self.shared.config;
        let (mut lineage, epoch) = (self.shared.lineage.read().clone(), config.log.epoch());
        lineage.truncate(lineage.iter().take_while(|branch| branch.epoch != epoch).count() + 1);
        let known = self.shared.file.lock().known(&address, &lineage);
        let lacking = lacking::load(&config.state, &address, epoch);
        let known = Known { check_due: config.check, is_covered: lacking.is_some(), ..known };
        let session = SessionConfig {
            software: concat!("tdfs ", env!("CARGO_PKG_VERSION")).into(),
            filesystem: config.filesystem,
            lineage,
            jitter_seed: jitter_seed(&address),
        };
        let session = Session::new(session, known, Instant::now());
        let outlet = Arc::new(Outlet::new((address.clone(), key), session.view(), epoch));
        *outlet.lacking.lock() = lacking;
        outlets.push(Arc::clone(&outlet));
        self.shared.frames.share(outlets.len() > 1);
        let task = Slave::new(Arc::clone(&self.shared), outlet, session);
        self.tasks.lock().push((address, tokio::spawn(task.run())));
        true
    }

    /// Ends the task of a slave and forgets it; false if nothing is known of one with that address.
    pub async fn forget(&self, address: &SlaveAddress) -> bool {
        let outlet = {
            let mut outlets = self.shared.outlets.write();
            let at = outlets.iter().position(|outlet| outlet.address == *address);
            let outlet = at.map(|at| outlets.remove(at));
            self.shared.frames.share(outlets.len() > 1);
            outlet
        };
        let known = self.shared.file.lock().forget(address);
        self.shared.save(Save::Always);
        lacking::remove(&self.shared.config.state, address);
        if let Err(e) = self.shared.keys.set(address, None) {
            tracing::warn!("slave {address}: its key is not forgotten: {e}");
        }
        let Some(outlet) = outlet else {
            return known;
        };
        outlet.stop.send_replace(Some("this slave was dropped"));
        let task = {
            let mut tasks = self.tasks.lock();
            let at = tasks.iter().position(|(other, _)| other == address);
            at.map(|at| tasks.swap_remove(at).1)
        };
        if let Some(task) = task {
            finish(vec![task]).await;
        }
        true
    }

    /// The addresses of all slaves.
    pub fn addresses(&self) -> Vec<SlaveAddress> {
        self.shared.outlets.read().iter().map(|outlet| outlet.address.clone()).collect()
    }

    /// Has a slave resynced; `checksum`: contents are compared by hashes. False if there is none with that address.
    pub fn resync(&self, address: &SlaveAddress, checksum: bool) -> bool {
        let Some(outlet) = self.outlet(address) else { return false };
        // Also where the slave's task sees it a moment later: `tdfs wait` may ask before.
        outlet.view.lock().needs_resync = true;
        outlet.put(Parcel::Resync { checksum });
        true
    }

    /// Allows the resync of a slave to remove more than half of its replica; false as above. If none waits for
    /// that, one begins that is allowed to.
    pub fn confirm(&self, address: &SlaveAddress, checksum: bool) -> bool {
        let waits = |view: &View| view.resync.is_some_and(|resync| resync.phase == Phase::Confirm);
        let waits = self.outlet(address).is_some_and(|outlet| waits(&outlet.view.lock()));
        (waits || self.resync(address, checksum)) && self.put(address, Parcel::Order(Order::Confirm))
    }

    /// Has a replica compared by hashes; `id` tells this comparison from others. False as above.
    pub fn verify(&self, address: &SlaveAddress, id: u64, repair: bool) -> bool {
        let Some(outlet) = self.outlet(address) else { return false };
        *outlet.verify.lock() = Some(Verify::new(id));
        outlet.put(Parcel::Order(Order::Verify { id, repair }));
        true
    }

    /// How the comparison `id` stands with one slave, with its findings from number `from` on; None if there
    /// is no such comparison any more.
    pub fn verified(&self, address: &SlaveAddress, id: u64, from: usize) -> Option<VerifyStatus> {
        let outlet = self.outlet(address)?;
        let (found, ended) = outlet.verify.lock().as_mut().filter(|verify| verify.id() == id)?.since(from);
        let (view, progress) = (outlet.view.lock().clone(), outlet.meters.lock().verify.status());
        let (address, state) = (address.to_string(), progress::state_word(view.state).into());
        Some(VerifyStatus { address, state, progress, found, ended, last_error: view.last_error })
    }

    /// Stops the comparison `id` with all slaves.
    pub fn cancel_verify(&self, id: u64) {
        for outlet in self.shared.outlets.read().iter() {
            outlet.cancel_verify(|verify| verify.id() == id);
        }
    }

    fn outlet(&self, address: &SlaveAddress) -> Option<Arc<Outlet>> {
        self.shared.outlets.read().iter().find(|outlet| outlet.address == *address).cloned()
    }

    fn put(&self, address: &SlaveAddress, parcel: Parcel) -> bool {
        self.outlet(address).map(|outlet| outlet.put(parcel)).is_some()
    }

    /// Tells the slaves up to where tree and log are on the master's disk.
    pub fn set_durable(&self, durable: Position) {
        *self.shared.durable.lock() = durable;
    }

    /// Notes the epochs before the log goes over to the last of them. What was kept of records that the log
    /// deleted is of no use then: all of each slave is compared.
    pub fn expect_epoch(&self, lineage: Vec<Branch>) {
        *self.shared.lineage.write() = lineage;
    }

    /// The log has gone over to the next epoch.
    pub fn epoch_began(&self) {
        for outlet in self.shared.outlets.read().iter() {
            *outlet.lacking.lock() = None;
            lacking::remove(&self.shared.config.state, &outlet.address);
            outlet.wake.notify_one();
        }
    }

    /// How all slaves stand.
    pub fn status(&self) -> Vec<SlaveStatus> {
        let (outlets, log) = (self.shared.outlets.read().clone(), &self.shared.config.log);
        let epoch = log.epoch();
        let status = |outlet: &Arc<Outlet>| {
            let key = outlet.given_key.or_else(|| self.shared.keys.get(&outlet.address));
            progress::status(outlet, outlet.view_in(epoch), log, key)
        };
        outlets.iter().map(status).collect()
    }

    /// Waits until the slaves that are connected have applied all that is in the log now; false if that took
    /// longer than `time`.
    pub async fn drain(&self, time: Duration) -> bool {
        let (head, until) = (self.shared.config.log.head(), Instant::now() + time);
        loop {
            let views = self.shared.views();
            let waits = |view: &View| view.began_after.is_some() && view.progress.applied < head;
            if !views.iter().any(|(_, view)| waits(view)) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
    }

    /// Says goodbye to all slaves, ends the tasks, saves the positions.
    pub async fn stop(&self) {
        for outlet in self.shared.outlets.read().iter() {
            outlet.stop.send_replace(Some("the master ends"));
        }
        let tasks = std::mem::take(&mut *self.tasks.lock());
        finish(tasks.into_iter().map(|(_, task)| task).collect()).await;
        self.stopping.send_replace(true);
        let keeping = self.keeping.lock().take();
        if let Some(keeping) = keeping {
            // A panic ends the process, so joining can't fail.
            let _ = keeping.await;
        }
    }
}

/// Waits for tasks that were told to end; what does not end in time is dropped.
async fn finish(tasks: Vec<JoinHandle<()>>) {
    let until = tokio::time::Instant::now() + STOP_MAX;
    for mut task in tasks {
        if tokio::time::timeout_at(until, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Once a second, and when counters change: deletes what nobody needs, saves positions.
async fn keep(shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut saved_at = Instant::now();
    loop {
        let stop = tokio::select! {
            () = tokio::time::sleep(KEEP_INTERVAL) => false,
            () = shared.changed.notified() => false,
            _ = stopping.wait_for(|stop| *stop) => true,
        };
        let all = saved_at.elapsed() >= SAVE_INTERVAL;
        let save = match (stop, all) {
            (true, _) => Save::Always,
            (false, true) => Save::Moved,
            (false, false) => Save::Changed,
        };
        let work = Arc::clone(&shared);
        let done = tokio::task::spawn_blocking(move || {
            work.retain();
            work.save(save);
            for outlet in work.outlets.read().iter() {
                outlet.cancel_verify(Verify::is_abandoned);
            }
        });
        // A panic ends the process, so joining can't fail.
        let _ = done.await;
        if save == Save::Moved {
            saved_at = Instant::now();
        }
        if stop {
            return;
        }
    }
}

/// When the positions are worth a write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Save {
    Always,
    /// If any has moved.
    Moved,
    /// If more than positions has changed.
    Changed,
}

impl Shared {
    fn views(&self) -> Vec<(SlaveAddress, View)> {
        let outlets = self.outlets.read();
        let epoch = self.config.log.epoch();
        outlets.iter().map(|outlet| (outlet.address.clone(), outlet.view_in(epoch))).collect()
    }

    fn retain(&self) {
        let Config { log, log_bytes_max, .. } = &self.config;
        if log.is_over() {
            return;
        }
        let lineage = self.lineage.read().clone();
        let outlets = self.outlets.read().clone();
        let addresses: Vec<_> = outlets.iter().map(|outlet| outlet.address.clone()).collect();
        let dropped = self.file.lock().dropped(&addresses, &lineage);
        // The head first: who connects meanwhile begins there or later.
        let Extent { epoch, head, oldest } = log.extent();
        let within = log.floor_within(*log_bytes_max);
        let views: Vec<_> = outlets.iter().map(|outlet| outlet.view_in(epoch)).collect();
        let retention = log::retention(head, (oldest, within), &views, &dropped);
        if log.epoch() != epoch {
            return; // these numbers were the last epoch's
        }
        for at in retention.left_behind {
            let mut view = outlets[at].view.lock();
            if !std::mem::replace(&mut view.needs_resync, true) {
                tracing::warn!(
                    "slave {}: it is away and the log has reached its bound (--log-max): what it lacks is resynced",
                    outlets[at].address
                );
                outlets[at].put(Parcel::LeftBehind);
            }
        }
        for (outlet, view) in outlets.iter().zip(&views) {
            self.cover(outlet, view, log.deletable(retention.floor));
        }
        if let Err(e) = log.retain(retention.floor) {
            tracing::warn!("{e}; trying again");
        }
        self.frames.forget(log.oldest().prev());
    }

    /// Makes sure that what is about to be deleted is known by the paths it touched, for a slave that lacks it.
    fn cover(&self, outlet: &Outlet, view: &View, floor: Lsn) {
        let Config { log, state, .. } = &self.config;
        // Nobody else changes it; the lock is not held meanwhile, for the slave's task asks for it.
        let before = outlet.lacking.lock().clone();
        let kept = match log::cover(before.as_ref(), view, log, floor) {
            Ok(Cover::Same) => return,
            Ok(Cover::Drop) => Ok(None),
            Ok(Cover::Keep(now)) => match lacking::store(&now, state, &outlet.address) {
                Ok(()) => Ok(Some(now)),
                Err(e) => Err(anyhow::Error::from(e)),
            },
            Err(e) => Err(e.into()),
        };
        let now = kept.unwrap_or_else(|e| {
            tracing::warn!("slave {}: {e:#}: all of it will be compared", outlet.address);
            None
        });
        if now.is_none() {
            lacking::remove(state, &outlet.address);
        }
        *outlet.lacking.lock() = now;
    }

    /// Saves what a restart has to know.
    fn save(&self, save: Save) {
        // The file first: a slave that is forgotten meanwhile does not come back.
        let mut file = self.file.lock();
        let slaves = self.views();
        let new = file.with(self.config.log.epoch(), &slaves);
        let unchanged = match save {
            Save::Always => false,
            Save::Moved => file.is_near(&new) && file.is_at(&new),
            Save::Changed => file.is_near(&new),
        };
        if unchanged {
            return;
        }
        match self.config.state.write(progress::FILE_NAME, &new) {
            Ok(()) => *file = new,
            Err(e) => tracing::warn!("{e}; trying again"),
        }
    }
}

impl Outlet {
    fn new((address, given_key): (SlaveAddress, Option<Fingerprint>), view: View, epoch: Epoch) -> Outlet {
        Outlet {
            address,
            given_key,
            view: Mutex::new(view),
            epoch: Mutex::new(epoch),
            wake: Notify::new(),
            inbox: Mutex::default(),
            answering: AtomicUsize::new(0),
            answer_bytes: AtomicU64::new(0),
            resync_cost: AtomicU64::new(0),
            meters: Mutex::default(),
            lacking: Mutex::default(),
            verify: Mutex::default(),
            stop: watch::Sender::new(None),
        }
    }

    /// How it stands in that epoch.
    fn view_in(&self, epoch: Epoch) -> View {
        let view = self.view.lock().clone();
        if *self.epoch.lock() == epoch { view } else { view.of_another_epoch() }
    }

    fn put(&self, parcel: Parcel) {
        self.inbox.lock().push_back(parcel);
        self.wake.notify_one();
    }

    fn cancel_verify(&self, is_it: impl FnOnce(&Verify) -> bool) {
        let cancelled = self.verify.lock().take_if(|verify| is_it(verify));
        if let Some(verify) = cancelled {
            self.put(Parcel::Order(Order::Cancel { id: verify.id() }));
        }
    }
}

/// Differs from slave to slave and from start to start.
fn jitter_seed(address: &SlaveAddress) -> u64 {
    let text = address.to_string();
    let start = progress::now_ns().unsigned_abs();
    text.bytes().fold(start, |seed, byte| seed.rotate_left(7) ^ u64::from(byte))
}

#[cfg(test)]
mod tests;
