//! The task of one slave: the shell of its session.
//!
//! Owns the connection. Waits for what happens - a frame, a write that is done, the log, an answer, the
//! deadline - tells the session, and does what it says. Decides nothing about the protocol.

use super::dial::{DialError, Dialled, dial};
use super::frames::last;
use super::verify::Verify;
use super::{Config, Connecting, Outlet, Parcel, Placed, Shared, SlaveAddress, progress};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tdfs_host::link::{FrameReader, FrameSender, LinkError, ReadHalf, WriteHalf};
use tdfs_wire::answer::Want;
use tdfs_wire::frame::{FrameError, FrameKind};
use tdfs_wire::log::{self, Extent, LogError};
use tdfs_wire::message::{Finding, MasterMessage, Message, Order, Plan, SlaveMessage, Verified};
use tdfs_wire::session::master::{Hangup, Input, Output, Session, StateName};
use tdfs_wire::{Epoch, Frame, Lsn};
use tokio::sync::watch;

/// How long a connection may take to be made.
const DIAL_MAX: Duration = Duration::from_secs(10);
/// Most threads that answer wants of one slave.
const ANSWERING_MAX: usize = 2;
/// So many are handed to one thread, until their answers have so many bytes: to wake a thread, and then this
/// task, costs more than a small answer.
const ANSWERED_TOGETHER_MAX: usize = 8;
const ANSWERED_TOGETHER_BYTES: usize = 256 * 1024;
/// After so long an object that could not be read is tried again.
const UNREADABLE_RETRY: Duration = Duration::from_secs(1);
/// While so many answers wait to be sent, no further one is made: they cost memory.
const ANSWERS_WAITING_MAX: usize = 4;

/// One slave.
pub(super) struct Slave {
    shared: Arc<Shared>,
    outlet: Arc<Outlet>,
    session: Session,
    /// The epoch that the session is in.
    epoch: Epoch,
    link: Link,
    wants: VecDeque<(u64, Want)>,
    /// Before this no want is answered (`--resync-rate`).
    answer_at: Instant,
    stop: watch::Receiver<Option<&'static str>>,
    /// Why an object that is wanted can't be read at the moment.
    unreadable: Option<String>,
    /// What was logged last about why there is no connection; the same is not logged again.
    complaint: Option<String>,
}

/// The connection.
enum Link {
    None,
    Dialling(Connecting),
    Open { reader: Box<FrameReader<ReadHalf>>, sender: FrameSender<WriteHalf> },
}

/// What a task waits for.
enum Happened {
    Dialled(Result<Dialled, DialError>),
    Frame(FrameKind, Vec<u8>),
    Unreadable(LinkError),
    Written,
    Lost(io::Error),
    Wake,
    Stop,
    Deadline,
}

impl Slave {
    pub(super) fn new(shared: Arc<Shared>, outlet: Arc<Outlet>, session: Session) -> Slave {
        let stop = outlet.stop.subscribe();
        let (link, wants, answer_at) = (Link::None, VecDeque::new(), Instant::now());
        let (epoch, unreadable, complaint) = (*outlet.epoch.lock(), None, None);
        Slave { shared, outlet, session, epoch, link, wants, answer_at, stop, unreadable, complaint }
    }

    pub(super) async fn run(mut self) {
        let mut all = true;
        while !self.session.is_ended() {
            self.look();
            self.perform().await;
            self.show(all);
            if self.session.is_ended() {
                break;
            }
            let happened = self.wait().await;
            all = !matches!(happened, Happened::Wake | Happened::Written);
            self.apply(happened);
        }
    }

    /// Tells the session of the log and of the inbox. The order matters: the head is read first, then all
    /// answers that were placed before records up to that head are told, and only then the head
    /// (`Input::Log`). An answer of another epoch than the session's is none: it has another connection then.
    fn look(&mut self) {
        let Extent { epoch, head, oldest } = self.shared.config.log.extent();
        if epoch != self.epoch && !self.enter(epoch) {
            return;
        }
        let parcels = {
            let mut inbox = self.outlet.inbox.lock();
            if self.shared.config.log.epoch() != epoch {
                return; // a new epoch, this moment: what lies there can be of it
            }
            std::mem::take(&mut *inbox)
        };
        for parcel in parcels {
            match parcel {
                Parcel::Answered { connection, as_of, frame } => {
                    self.unreadable = None;
                    self.tell(Input::Answered { connection, as_of, frame });
                }
                Parcel::Unreadable { connection, want, why } => self.ask_later(connection, want, why),
                Parcel::Again { connection, want } if self.session.is_connection(connection) => {
                    self.wants.push_back((connection, want));
                }
                Parcel::Again { .. } => {} // of a connection that is gone
                Parcel::LeftBehind => self.session.mark_for_resync(),
                Parcel::Resync { checksum } => self.tell(Input::Resync { checksum }),
                Parcel::Order(order) => self.tell(Input::Order(order)),
                Parcel::Repinned => {
                    if matches!(self.link, Link::Open { .. }) {
                        self.lost("its key was changed here".into());
                    }
                }
            }
        }
        self.tell(Input::Log { head, oldest });
    }

    /// Goes over to a new epoch; false if its lineage is not known here yet.
    fn enter(&mut self, epoch: Epoch) -> bool {
        let lineage = self.shared.lineage.read().clone();
        if lineage.last().is_none_or(|branch| branch.epoch != epoch) {
            return false;
        }
        self.epoch = epoch;
        self.wants.clear();
        self.session.mark_for_resync();
        self.tell(Input::Lineage(lineage));
        true
    }

    async fn perform(&mut self) {
        loop {
            while let Some(output) = self.session.poll() {
                match output {
                    Output::Dial => self.link = Link::Dialling(self.dial()),
                    Output::Hangup(why) => self.hangup(&why),
                    Output::Send(message) => self.send(&message),
                    Output::SendAnswer(frame) => self.start(frame),
                    Output::Records { after, up_to } => self.send_records(after, up_to).await,
                    Output::Ask { connection, want } => self.wants.push_back((connection, want)),
                    Output::Found(finding) => self.found(&finding),
                }
            }
            if !self.answer_wants() {
                return;
            }
        }
    }

    fn dial(&self) -> Connecting {
        let connecting: Connecting = match &self.outlet.address {
            SlaveAddress::Embedded(path) => (self.shared.config.connect_embedded)(path),
            SlaveAddress::Network { host, port } => {
                let (shared, outlet) = (Arc::clone(&self.shared), Arc::clone(&self.outlet));
                let (host, port) = (host.clone(), *port);
                Box::pin(async move {
                    let Shared { config, keys, .. } = &*shared;
                    dial((&outlet, keys, &config.trust), (&host, port), config.nodelay).await
                })
            }
        };
        Box::pin(async {
            let late = |_| DialError::Failed("connect: no answer".into());
            tokio::time::timeout(DIAL_MAX, connecting).await.map_err(late)?
        })
    }

    fn send(&mut self, message: &MasterMessage) {
        match message {
            MasterMessage::Begin(begin) => {
                self.complaint = None;
                let (after, epoch) = (begin.after, begin.epoch.number);
                let how = match begin.plan {
                    Plan::Stream if begin.check => "streaming and check",
                    Plan::Stream => "streaming",
                    Plan::Resume => "the resync goes on",
                    Plan::Patch => "resync of what records touched that it lacks or may have lost",
                    Plan::Resync { checksum: false } => "resync",
                    Plan::Resync { checksum: true } => "resync by checksums",
                };
                tracing::info!("slave {}: {how} after record {after} of epoch {epoch}", self.outlet.address);
                if let Link::Open { reader, .. } = &mut self.link {
                    reader.handshake_done();
                }
            }
            MasterMessage::Order(Order::Verify { .. }) => {
                self.outlet.verify.lock().iter_mut().for_each(Verify::restart);
            }
            MasterMessage::Hello(_)
            | MasterMessage::Order(_)
            | MasterMessage::Lost(_)
            | MasterMessage::Heartbeat(_)
            | MasterMessage::Refuse(_)
            | MasterMessage::Bye(_) => {}
        }
        match message.frame() {
            Ok(frame) => self.start(Arc::new(frame)),
            Err(e) => self.fault(&format!("make a message: {e}")),
        }
    }

    fn start(&mut self, frame: Arc<Frame>) {
        if let Link::Open { sender, .. } = &mut self.link {
            sender.start(frame);
            if self.session.is_streaming() && sender.has_room() {
                self.tell(Input::Writable);
            }
        }
    }

    /// Frames were written. Before the session ends, its last message has to be: other frames may wait still.
    fn written(&mut self) {
        let Link::Open { sender, .. } = &self.link else { return };
        if sender.is_done() || (self.session.is_streaming() && sender.has_room()) {
            self.tell(Input::Writable);
        }
    }

    async fn send_records(&mut self, after: Lsn, up_to: Lsn) {
        match self.shared.frames.after(self.epoch, after, up_to).await {
            Ok(frame) => {
                let sent = last(&frame);
                self.start(frame);
                self.tell(Input::Sent(sent));
            }
            // Gone means: retention was faster. The session learns it from the log's new begin.
            Err(LogError::Gone { .. }) => {
                let log = &self.shared.config.log;
                let (head, oldest) = (log.head(), log.oldest());
                self.tell(Input::Log { head, oldest });
                self.tell(Input::Lost("the log no longer has what it lacks".into()));
                self.link = Link::None;
            }
            Err(LogError::Over) => self.lost(LogError::Over.to_string()),
            Err(e) => self.fault(&e.to_string()),
        }
    }

    fn found(&self, finding: &Finding) {
        let (Finding::Difference { verify: id, .. } | Finding::Ended(Verified { verify: id, .. })) = finding;
        let mut verify = self.outlet.verify.lock();
        if let Some(verify) = verify.as_mut().filter(|verify| verify.id() == *id) {
            verify.found(finding);
        }
    }

    /// When the next want may be answered: what a resync costs is spread over time (`--resync-rate`).
    fn rate_allows_at(&mut self, now: Instant) -> Instant {
        let Some(rate) = self.shared.config.resync_rate else { return now };
        let cost = self.outlet.resync_cost.swap(0, Ordering::Relaxed);
        let time = Duration::from_secs_f64(cost as f64 / rate.max(1) as f64);
        self.answer_at = self.answer_at.max(now) + time;
        self.answer_at
    }

    /// Has wants answered as far as there is room; true if one was begun.
    fn answer_wants(&mut self) -> bool {
        let mut begun = false;
        let now = Instant::now();
        if self.wants.is_empty() || self.rate_allows_at(now) > now {
            return false;
        }
        while self.outlet.answering.load(Ordering::Acquire) < ANSWERING_MAX
            && self.session.answers_waiting() < ANSWERS_WAITING_MAX
            && !self.wants.is_empty()
        {
            begun = true;
            let some = self.wants.len().min(ANSWERED_TOGETHER_MAX);
            let wants: Vec<(u64, Want)> = self.wants.drain(..some).collect();
            self.outlet.answering.fetch_add(1, Ordering::AcqRel);
            let outlet = Arc::clone(&self.outlet);
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || answer_some(&shared.config, &outlet, wants));
        }
        begun
    }

    async fn wait(&mut self) -> Happened {
        let rated = (!self.wants.is_empty() && self.answer_at > Instant::now()).then_some(self.answer_at);
        let deadline = self.session.deadline().into_iter().chain(rated).min();
        let outlet = &self.outlet;
        let link = async {
            match &mut self.link {
                Link::None => std::future::pending().await,
                Link::Dialling(connecting) => Happened::Dialled(connecting.await),
                Link::Open { reader, sender } => tokio::select! {
                    biased;
                    written = sender.done() => written.map_or_else(Happened::Lost, |()| Happened::Written),
                    frame = reader.read() => match frame {
                        Ok((kind, payload)) => Happened::Frame(kind, payload),
                        Err(e) => Happened::Unreadable(e),
                    },
                },
            }
        };
        let streaming = self.session.is_streaming();
        tokio::select! {
            biased;
            happened = link => happened,
            () = outlet.wake.notified(), if streaming => Happened::Wake,
            _ = self.stop.changed() => Happened::Stop,
            () = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            } => Happened::Deadline,
        }
    }

    fn apply(&mut self, happened: Happened) {
        match happened {
            Happened::Dialled(Ok(Dialled { reader, writer, .. })) => {
                let reader = Box::new(FrameReader::new(reader));
                self.link = Link::Open { reader, sender: FrameSender::new(writer) };
                self.tell(Input::Dialled);
            }
            Happened::Dialled(Err(DialError::Failed(why))) => {
                self.complain(&why);
                self.link = Link::None;
                self.tell(Input::DialFailed(why));
            }
            Happened::Dialled(Err(DialError::Refused { why, is_alarm })) => {
                if !is_alarm {
                    self.warn_once(&why);
                } else if self.is_news(&why) {
                    tracing::error!("slave {}: {why}", self.outlet.address);
                }
                self.link = Link::None;
                self.tell(Input::Refused(why));
            }
            Happened::Frame(kind, payload) => {
                self.look(); // a handshake is decided by the log as it is now
                self.came(kind, &payload);
            }
            Happened::Unreadable(LinkError::Frame(e @ FrameError::Version { .. })) => {
                self.link = Link::None;
                let why = e.to_string();
                self.warn_once(&why);
                self.tell(Input::Refused(why));
            }
            Happened::Unreadable(LinkError::Frame(e)) => self.fault(&e.to_string()),
            Happened::Unreadable(e) => self.lost(e.to_string()),
            Happened::Lost(e) => self.lost(format!("connection lost: {e}")),
            Happened::Written => self.written(),
            Happened::Wake => {}
            Happened::Stop => {
                let why = self.stop.borrow_and_update().unwrap_or("the master ends");
                self.tell(Input::Stop(why.into()));
            }
            Happened::Deadline => {
                let durable = *self.shared.durable.lock();
                if durable.epoch == self.epoch {
                    self.tell(Input::MasterDurable(durable.lsn));
                }
                self.tell(Input::Tick { time_ns: progress::now_ns() });
            }
        }
    }

    fn came(&mut self, kind: FrameKind, payload: &[u8]) {
        let message = match kind {
            FrameKind::Message => SlaveMessage::parse(payload).map_err(|e| e.to_string()),
            other => Err(format!("a frame that no slave sends: {other:?}")),
        };
        match message {
            Ok(message) => {
                if let SlaveMessage::Welcome(welcome) = &message {
                    let (log, lacking) = (&self.shared.config.log, self.outlet.lacking.lock().clone());
                    // What the log names since a slave's crash is read here, once.
                    let met = tokio::task::block_in_place(|| log::meet(log, lacking.as_ref(), welcome));
                    self.tell(met);
                }
                self.tell(Input::Received(message));
            }
            Err(why) => self.fault(&why),
        }
    }

    fn tell(&mut self, input: Input) {
        self.session.handle(input, Instant::now());
    }

    /// An object can't be read at the moment (EIO, no right to): others go on, and it is tried again.
    fn ask_later(&mut self, connection: u64, want: Want, why: String) {
        if self.unreadable.as_ref() != Some(&why) {
            tracing::error!("slave {}: {why}; trying again", self.outlet.address);
            self.unreadable = Some(why);
        }
        let outlet = Arc::clone(&self.outlet);
        tokio::spawn(async move {
            tokio::time::sleep(UNREADABLE_RETRY).await;
            outlet.put(Parcel::Again { connection, want });
            outlet.wake.notify_one();
        });
    }

    /// Something is wrong that a human must look at; the connection ends.
    fn fault(&mut self, why: &str) {
        tracing::error!("slave {}: {why}; the connection ends", self.outlet.address);
        self.link = Link::None;
        self.wants.clear();
        self.tell(Input::Lost(why.into()));
    }

    fn lost(&mut self, why: String) {
        self.complain(&why);
        self.link = Link::None;
        self.wants.clear();
        self.tell(Input::Lost(why));
    }

    fn hangup(&mut self, hangup: &Hangup) {
        match hangup {
            Hangup::Fault(why) => {
                tracing::error!("slave {}: {why}; the connection ends", self.outlet.address);
            }
            Hangup::Refused(why) => self.warn_once(&format!("refuses: {why}")),
            Hangup::Gone(why) => self.complain(why),
        }
        self.link = Link::None;
        self.wants.clear();
    }

    fn complain(&mut self, why: &str) {
        if self.is_news(why) {
            tracing::info!("slave {}: {why}", self.outlet.address);
        }
    }

    fn warn_once(&mut self, why: &str) {
        if self.is_news(why) {
            tracing::warn!("slave {}: {why}", self.outlet.address);
        }
    }

    fn is_news(&mut self, why: &str) -> bool {
        self.complaint.replace(why.to_owned()).as_deref() != Some(why)
    }

    /// Lets the others see how it stands.
    fn show(&self, all: bool) {
        let mut view = self.outlet.view.lock();
        let state: StateName = self.session.state_name();
        let before = (view.resyncs, view.needs_resync);
        if all || view.state != state {
            *view = self.session.view();
        } else {
            view.progress = self.session.progress();
        }
        if self.unreadable.is_some() {
            view.last_error.clone_from(&self.unreadable);
        }
        if before != (view.resyncs, view.needs_resync) {
            self.shared.changed.notify_one();
        }
        let (resync, verify) = (view.resync, view.verify);
        *self.outlet.epoch.lock() = self.epoch;
        drop(view);
        if all {
            let (mut meters, now) = (self.outlet.meters.lock(), Instant::now());
            meters.resync.update(resync, now);
            meters.verify.update(verify, now);
        }
    }
}

/// Answers wants until their answers are large together; the others come again.
fn answer_some(config: &Config, outlet: &Outlet, wants: Vec<(u64, Want)>) {
    let mut bytes = 0;
    for (connection, want) in wants {
        if bytes < ANSWERED_TOGETHER_BYTES {
            bytes += answer(config, outlet, connection, want);
        } else {
            outlet.put(Parcel::Again { connection, want });
        }
    }
    outlet.answering.fetch_sub(1, Ordering::AcqRel);
    outlet.wake.notify_one();
}

/// Returns how many bytes the answer has.
fn answer(config: &Config, outlet: &Outlet, connection: u64, want: Want) -> usize {
    let bytes = Cell::new(0);
    let answered = config.answerer.answer(&want, &|Placed { as_of, frame, content_bytes }| {
        // Changes without a record make what was read a state as of none. The next epoch asks anew.
        if config.log.is_over() {
            return;
        }
        bytes.set(frame.wire_len());
        let wire = bytes.get() as u64;
        outlet.answer_bytes.fetch_add(wire, Ordering::Relaxed);
        outlet.resync_cost.fetch_add(wire.max(content_bytes), Ordering::Relaxed);
        outlet.put(Parcel::Answered { connection, as_of, frame: Arc::new(frame) });
    });
    if let Err(why) = answered {
        outlet.put(Parcel::Unreadable { connection, want, why });
    }
    bytes.get()
}
