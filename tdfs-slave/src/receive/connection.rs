//! The shell of one slave session: waits for what happens, tells the session, does what it says.

use super::{Peer, Place, Receive};
use crate::relay::{Item, Lane};
use crate::status::MasterStatus;
use std::sync::Arc;
use std::time::Instant;
use tdfs_host::link::{FrameReader, FrameSender, LinkError, ReadHalf, WriteHalf};
use tdfs_wire::frame::{FrameError, FrameKind};
use tdfs_wire::message::{Begin, MasterMessage, Message};
use tdfs_wire::session::slave::{Config, Hangup, Input, Output, Session, check_records};
use tokio::sync::watch;

/// Version of the program, for the peer's log.
const SOFTWARE: &str = concat!("tdfs-slave ", env!("CARGO_PKG_VERSION"));

/// One connection.
pub(super) struct Connection<'a> {
    receive: &'a Receive,
    session: Session,
    reader: FrameReader<ReadHalf>,
    sender: FrameSender<WriteHalf>,
    peer: Peer,
    place: Option<Place>,
    lane: Option<Lane>,
    /// The relay is full: nothing is read.
    paused: bool,
    begun: Option<Begin>,
    stopping: watch::Receiver<bool>,
    /// What came last, until the session says whether it goes to the relay.
    in_hand: Option<Item>,
}

/// What a connection waits for.
enum Happened {
    Frame(FrameKind, Vec<u8>),
    Unreadable(LinkError),
    Written,
    Lost(std::io::Error),
    Relay,
    SentAway,
    Revoked,
    Stopping,
    Deadline,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        receive: &'a Receive,
        reader: ReadHalf,
        writer: WriteHalf,
        peer: Peer,
        place: Option<Place>,
        stopping: watch::Receiver<bool>,
    ) -> Connection<'a> {
        let filesystem = receive.relay.facts().replica.filesystem;
        let config = Config { software: SOFTWARE.into(), filesystem };
        Connection {
            receive,
            session: Session::new(config, Instant::now()),
            reader: FrameReader::new(reader),
            sender: FrameSender::new(writer),
            peer,
            place,
            lane: None,
            paused: false,
            begun: None,
            stopping,
            in_hand: None,
        }
    }

    pub(super) async fn run(mut self) {
        while !self.perform().await {
            let happened = self.wait().await;
            if self.apply(happened) {
                break;
            }
        }
        if self.begun.is_some() {
            self.note_status(false);
        }
    }

    /// Does what the session says; true when the connection is over.
    async fn perform(&mut self) -> bool {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Take => {
                    let Some((lane, replica)) = self.receive.relay.take().await else {
                        return true;
                    };
                    self.lane = Some(lane);
                    self.tell(Input::Taken(replica));
                }
                Output::Begin { filesystem, begin } => {
                    self.begin(begin);
                    self.in_hand = Some(Item::Begin { filesystem, begin });
                    self.deliver();
                }
                Output::Deliver => self.deliver(),
                Output::Lost(lost) => {
                    self.in_hand = Some(Item::Lost(lost));
                    self.deliver();
                }
                Output::Order(order) => {
                    self.in_hand = Some(Item::Order(order));
                    self.deliver();
                }
                Output::Send(message) => match message.frame() {
                    Ok(frame) => {
                        self.sender.start(Arc::new(frame));
                        if self.session.is_streaming() && self.sender.has_room() {
                            self.tell(Input::Writable);
                        }
                    }
                    Err(e) => {
                        tracing::error!("make a message for {}: {e}", self.peer.name);
                        return true;
                    }
                },
                Output::Hangup(hangup) => {
                    self.say_goodbye(&hangup);
                    return true;
                }
            }
        }
        if self.begun.is_some() {
            self.note_status(true);
        }
        false
    }

    fn begin(&mut self, begin: Begin) {
        self.reader.handshake_done();
        self.place = None;
        self.begun = Some(begin);
        tracing::info!(
            "master at {}: {:?} after record {} of epoch {}",
            self.peer.name,
            begin.plan,
            begin.after,
            begin.epoch.number
        );
    }

    fn deliver(&mut self) {
        let (Some(item), Some(lane)) = (self.in_hand.take(), &self.lane) else {
            unreachable!("the session delivers what is in hand, once the replica was taken");
        };
        lane.push(item);
        if lane.is_full() && !self.paused {
            self.paused = true;
            self.tell(Input::Paused);
        }
    }

    async fn wait(&mut self) -> Happened {
        let deadline = self.session.deadline();
        let (lane, place) = (&self.lane, &self.place);
        tokio::select! {
            biased;
            written = self.sender.done() => written.map_or_else(Happened::Lost, |()| Happened::Written),
            () = async {
                match lane {
                    Some(lane) => lane.changed().await,
                    None => std::future::pending().await,
                }
            } => Happened::Relay,
            () = self.receive.revoked(self.peer.key) => Happened::Revoked,
            frame = self.reader.read(), if !self.paused => match frame {
                Ok((kind, payload)) => Happened::Frame(kind, payload),
                Err(e) => Happened::Unreadable(e),
            },
            () = async {
                match place {
                    Some(place) => place.sent_away().await,
                    None => std::future::pending().await,
                }
            } => Happened::SentAway,
            _ = self.stopping.changed() => Happened::Stopping,
            () = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            } => Happened::Deadline,
        }
    }

    /// Tells the session; true when the connection is over without its doing.
    fn apply(&mut self, happened: Happened) -> bool {
        match happened {
            Happened::Frame(kind, payload) => self.came(kind, payload),
            Happened::Unreadable(LinkError::Frame(FrameError::Version { theirs })) => {
                let why = FrameError::Version { theirs }.to_string();
                self.tell(Input::Unreadable(why));
            }
            Happened::Unreadable(LinkError::Frame(e)) => self.damaged(&e.to_string()),
            Happened::Unreadable(e) => return self.lost(&e.to_string()),
            Happened::Lost(e) => return self.lost(&e.to_string()),
            Happened::Written => self.written(),
            Happened::Relay => self.relay_changed(),
            Happened::SentAway => return self.lost("sent away: too many connections that say nothing"),
            Happened::Revoked => {
                let why = "this master is no longer allowed";
                tracing::warn!("master at {}: {why}: the connection ends", self.peer.name);
                // Not even a last message waits: it may be the thief of a key who does not read it.
                return true;
            }
            Happened::Stopping => self.tell(Input::Stop("the slave ends".into())),
            Happened::Deadline => {
                if self.reader.has_moved() {
                    self.tell(Input::Heard);
                }
                self.tell(Input::Tick);
            }
        }
        false
    }

    /// Frames were written. Before the session ends, its last message has to be: other frames may wait still.
    fn written(&mut self) {
        if self.sender.is_done() || (self.session.is_streaming() && self.sender.has_room()) {
            self.tell(Input::Writable);
        }
    }

    fn came(&mut self, kind: FrameKind, payload: Vec<u8>) {
        let input = match kind {
            FrameKind::Message => match MasterMessage::parse(&payload) {
                Ok(message) => Input::Received(message),
                Err(e) => return self.damaged(&e.to_string()),
            },
            FrameKind::Records { first, count } => {
                if let Err(why) = check_records(&payload, first, count) {
                    return self.damaged(&why);
                }
                self.in_hand = Some(Item::Records(payload));
                Input::RecordsIn { first, count }
            }
            FrameKind::Answer { as_of } => {
                self.in_hand = Some(Item::Answer { as_of, payload });
                Input::AnswerIn { as_of }
            }
        };
        self.tell(input);
    }

    fn relay_changed(&mut self) {
        let Some(lane) = &self.lane else {
            return;
        };
        let (news, closed, full) = (lane.news(), lane.is_closed(), lane.is_full());
        let (inputs, fault) = news.into_inputs();
        for input in inputs {
            self.tell(input);
        }
        if let Some(why) = fault {
            self.damaged(&why);
        }
        if self.paused && !full {
            self.paused = false;
            self.tell(Input::Resumed);
        }
        if closed {
            self.tell(Input::Stop("another connection has taken over".into()));
        }
    }

    fn tell(&mut self, input: Input) {
        self.session.handle(input, Instant::now());
    }

    /// Ends the connection because of bytes that should not have come. Before a stream has begun they are
    /// no more than somebody else's noise.
    fn damaged(&mut self, why: &str) {
        if self.begun.is_some() {
            let name = &self.peer.name;
            tracing::error!("master at {name}: {why}; nothing of it is applied, the connection ends");
        } else {
            self.receive.complain(&self.peer, why);
        }
        self.tell(Input::Stop(format!("the slave got damaged bytes: {why}")));
    }

    fn lost(&self, why: &str) -> bool {
        if self.begun.is_some() {
            tracing::info!("master at {}: {why}", self.peer.name);
        } else {
            tracing::debug!("connection from {}: {why}", self.peer.name);
        }
        true
    }

    fn say_goodbye(&self, hangup: &Hangup) {
        match hangup {
            Hangup::Fault(why) => tracing::error!("master at {}: {why}", self.peer.name),
            Hangup::Refused(why) => self.receive.complain(&self.peer, why),
            Hangup::Gone(why) => {
                self.lost(why);
            }
        }
    }

    /// Shows how it stands; a connection that was replaced has nothing to show any more.
    fn note_status(&self, connected: bool) {
        if self.lane.as_ref().is_some_and(Lane::is_closed) {
            return;
        }
        let mut status = self.receive.status.lock();
        if connected && let (Some(begin), Some((heartbeat, ack))) = (self.begun, self.session.progress()) {
            let head = heartbeat.head.max(ack.received);
            if !status.connected {
                status.master.clone_from(&self.peer.name);
                status.key = self.peer.key;
            }
            status.connected = true;
            (status.epoch, status.received, status.head) = (Some(begin.epoch), ack.received, head);
        } else if !connected {
            *status = MasterStatus { connected: false, ..status.clone() };
        }
    }
}
