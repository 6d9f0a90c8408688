//! One connection as the slave sees it: greet, take the replica over, take what comes in order, ack.
//!
//! Driven by `tdfs-slave/src/receive.rs`, one per connection. Decides whether the master may have the
//! replica, whether a frame is the one that has to come, and when an ack is due.

use super::{HANDSHAKE_MAX, HEARTBEAT_INTERVAL, LEAVE_MAX, SILENCE_MAX};
use crate::answer::Want;
use crate::message::{
    Ack, Begin, Check, Finding, Heartbeat, Hello, LINEAGE_MAX, Lost, MasterMessage, Order, Plan, Report,
    SlaveMessage, Standing, Welcome,
};
use crate::record::RecordHeader;
use crate::text::harmless;
use crate::{Id, Lsn};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// At most so often an ack is sent only because something was applied.
pub const ACK_INTERVAL: Duration = Duration::from_millis(5);

/// What is known before a connection says anything.
#[derive(Clone, Debug)]
pub struct Config {
    /// Version of the program, told to the master for its log.
    pub software: String,
    /// The filesystem that the replica belongs to; None: to none so far.
    pub filesystem: Option<Id>,
}

/// The replica, once it was taken over.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The filesystem it belongs to; None: to none so far.
    pub filesystem: Option<Id>,
    /// Its id.
    pub replica: Id,
    /// How far it is.
    pub standing: Standing,
    /// Checksum of the record at its applied position, where that is known.
    pub checksum: Option<u32>,
    /// What of P3 can't be carried here.
    pub not_carried: Vec<String>,
    /// Whether a check of it was begun and not finished.
    pub check: Check,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A message came.
    Received(MasterMessage),
    /// A frame of records came.
    RecordsIn {
        /// LSN of the first.
        first: Lsn,
        /// How many.
        count: u32,
    },
    /// A frame with (a part of) an answer came.
    AnswerIn {
        /// The LSN as of which it is exact.
        as_of: Lsn,
    },
    /// The peer can't be talked to (another protocol version): tell it so and end.
    Unreadable(String),
    /// The replica is this connection's.
    Taken(Replica),
    /// The replica is ready for what follows `Begin`; Err: it refuses, in words.
    Began(Result<(), String>),
    /// Records up to here are done in the replica. To be said after `Reported`, where both changed.
    Applied(Lsn),
    /// Records up to here are on the disk.
    Durable(Lsn),
    /// How the replica stands.
    Reported(Report),
    /// The replica needs the state of an object.
    Want(Want),
    /// A comparison found something, or ended.
    Found(Finding),
    /// A part of a frame came: on a slow link a large frame takes longer than the master may be silent.
    Heard,
    /// Nothing is read from the connection for now: the relay is full.
    Paused,
    /// It is read again.
    Resumed,
    /// The connection can take a frame.
    Writable,
    /// The connection has to end, for this reason, which the master is told.
    Stop(String),
    /// The deadline is reached.
    Tick,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Take the replica over from whatever connection has it; say `Taken`.
    Take,
    /// Have the replica begin; then what is delivered. Say `Began`.
    Begin {
        /// The filesystem it belongs to from now on.
        filesystem: Id,
        /// How the stream begins.
        begin: Begin,
    },
    /// The frame that was just told of is the one that had to come: hand it to the relay.
    Deliver,
    /// Hand it to the relay.
    Lost(Lost),
    /// Hand it to the relay.
    Order(Order),
    /// Send a message.
    Send(SlaveMessage),
    /// Close the connection.
    Hangup(Hangup),
}

/// Why the session ends a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// The peer broke the protocol: a human must look.
    Fault(String),
    /// It was refused: a human must do something.
    Refused(String),
    /// It is silent, or one side ends.
    Gone(String),
}

impl Hangup {
    /// The reason.
    pub fn why(&self) -> &str {
        match self {
            Hangup::Fault(why) | Hangup::Refused(why) | Hangup::Gone(why) => why,
        }
    }
}

/// ```text
///  Greeting --Hello--> Taking --Taken--> Agreeing --Begin--> Streaming --Stop, Bye--> Leaving --> Ended
///     |                  |                  |                   |
///     +------------------+----- refused ----+-------------------+--> Leaving
/// ```
/// A fault or silence ends each of them at once.
#[derive(Debug)]
enum State {
    /// `Hello` has to come.
    Greeting { deadline: Instant },
    /// The replica is being taken over.
    Taking { filesystem: Id },
    /// `Welcome` is to be sent (Some), then `Begin` has to come.
    Agreeing { deadline: Instant, filesystem: Id, standing: Standing, welcome: Option<Welcome> },
    /// Records and answers come.
    Streaming(Box<Stream>),
    /// A last message is to be sent (Some), or on its way.
    Leaving { deadline: Instant, last: Option<SlaveMessage>, hangup: Hangup },
    /// Nothing happens any more.
    Ended,
}

/// What came, what was acked, what is to be said.
#[derive(Debug)]
struct Stream {
    /// Received, applied, durable as they are.
    ack: Ack,
    /// As they were told last.
    acked: Option<Ack>,
    acked_at: Instant,
    /// An ack is due whether anything changed or not.
    beat: bool,
    report: Option<Report>,
    reported: Option<Report>,
    wants: VecDeque<Want>,
    findings: VecDeque<Finding>,
    /// The replica has begun: what it said of itself before is of the stream before.
    begun: bool,
    after: Lsn,
    reading: Reading,
    heartbeat: Heartbeat,
}

/// Whether the master's silence means anything.
#[derive(Debug)]
enum Reading {
    Since { heard: Instant },
    Paused,
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    config: Config,
    state: State,
    permit: bool,
    outputs: VecDeque<Output>,
    /// When something happened last.
    now: Instant,
}

impl Session {
    /// The session of a connection that was just made.
    pub fn new(config: Config, now: Instant) -> Session {
        let state = State::Greeting { deadline: now + HANDSHAKE_MAX };
        Session { config, state, permit: true, outputs: VecDeque::new(), now }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        let done = match input {
            Input::Received(message) => self.received(message, now),
            Input::RecordsIn { first, count } => self.records_in(first, count, now),
            Input::AnswerIn { as_of } => self.answer_in(as_of, now),
            Input::Unreadable(why) => {
                let told = SlaveMessage::Refuse(harmless(&why));
                self.leave(told, Hangup::Refused(why), now);
                Ok(())
            }
            Input::Taken(replica) => {
                self.taken(replica, now);
                Ok(())
            }
            Input::Began(Ok(())) => {
                if let State::Streaming(stream) = &mut self.state {
                    stream.begun = true;
                }
                Ok(())
            }
            Input::Began(Err(why)) => {
                self.refuse(why, now);
                Ok(())
            }
            Input::Writable => {
                self.writable();
                Ok(())
            }
            Input::Stop(why) => {
                self.leave(SlaveMessage::Bye(harmless(&why)), Hangup::Gone(why), now);
                Ok(())
            }
            Input::Tick => self.tick(now),
            input => {
                if let State::Streaming(stream) = &mut self.state {
                    stream.told(input, now);
                }
                Ok(())
            }
        };
        if let Err(hangup) = done {
            self.end(hangup);
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if !self.permit {
            return None;
        }
        let message = match &mut self.state {
            State::Agreeing { welcome, .. } => welcome.take().map(SlaveMessage::Welcome),
            State::Streaming(stream) => stream.next(self.now),
            State::Leaving { last, .. } => last.take(),
            State::Greeting { .. } | State::Taking { .. } | State::Ended => None,
        };
        self.permit = message.is_none();
        message.map(Output::Send)
    }

    /// When `Tick` has to come.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Greeting { deadline }
            | State::Agreeing { deadline, .. }
            | State::Leaving { deadline, .. } => Some(*deadline),
            State::Streaming(stream) => stream.deadline(self.permit),
            State::Taking { .. } | State::Ended => None,
        }
    }

    /// True once the connection is to be closed.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// True once `Begin` came: frames may be of their full size.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming(_))
    }

    /// The master's last heartbeat, and what was received, applied and made durable.
    pub fn progress(&self) -> Option<(Heartbeat, Ack)> {
        match &self.state {
            State::Streaming(stream) => Some((stream.heartbeat, stream.ack)),
            _ => None,
        }
    }

    fn received(&mut self, message: MasterMessage, now: Instant) -> Result<(), Hangup> {
        match (&mut self.state, message) {
            (State::Greeting { .. }, MasterMessage::Hello(hello)) => self.greeted(hello, now),
            (State::Agreeing { filesystem, standing, welcome: None, .. }, MasterMessage::Begin(begin)) => {
                let (filesystem, standing) = (*filesystem, *standing);
                self.outputs.push_back(Output::Begin { filesystem, begin });
                self.state = State::Streaming(Box::new(Stream::new(begin, standing, now)));
                Ok(())
            }
            (State::Streaming(stream), MasterMessage::Heartbeat(heartbeat)) => {
                stream.heard(now);
                stream.heartbeat = heartbeat;
                Ok(())
            }
            (State::Streaming(stream), MasterMessage::Lost(lost)) => {
                stream.heard(now);
                self.outputs.push_back(Output::Lost(lost));
                Ok(())
            }
            (State::Streaming(stream), MasterMessage::Order(order)) => {
                stream.heard(now);
                self.outputs.push_back(Output::Order(order));
                Ok(())
            }
            (State::Leaving { .. } | State::Ended, _) => Ok(()),
            (_, MasterMessage::Refuse(why)) => Err(Hangup::Refused(format!("the master refuses: {why}"))),
            (_, MasterMessage::Bye(why)) => Err(Hangup::Gone(format!("the master ended: {why}"))),
            (_, message) => {
                let name = name_of(&message);
                Err(Hangup::Fault(format!("a message that does not belong here: {name}")))
            }
        }
    }

    fn greeted(&mut self, hello: Hello, now: Instant) -> Result<(), Hangup> {
        if hello.lineage.is_empty() || hello.lineage.len() > LINEAGE_MAX {
            return Err(Hangup::Fault(format!("a history of {} epochs", hello.lineage.len())));
        }
        match self.config.filesystem {
            Some(mine) if mine != hello.filesystem => self.refuse(belongs(mine, hello.filesystem), now),
            _ => {
                self.state = State::Taking { filesystem: hello.filesystem };
                self.outputs.push_back(Output::Take);
            }
        }
        Ok(())
    }

    fn taken(&mut self, replica: Replica, now: Instant) {
        let State::Taking { filesystem } = self.state else {
            return;
        };
        if let Some(mine) = replica.filesystem
            && mine != filesystem
        {
            return self.refuse(belongs(mine, filesystem), now);
        }
        let Replica { replica, standing, checksum, not_carried, check, .. } = replica;
        let welcome = Welcome {
            software: self.config.software.clone(),
            replica,
            standing,
            checksum,
            not_carried: not_carried.iter().map(|text| harmless(text)).collect(),
            check,
        };
        let deadline = now + HANDSHAKE_MAX;
        self.state = State::Agreeing { deadline, filesystem, standing, welcome: Some(welcome) };
    }

    fn records_in(&mut self, first: Lsn, count: u32, now: Instant) -> Result<(), Hangup> {
        let stream = match &mut self.state {
            State::Streaming(stream) => stream,
            State::Leaving { .. } | State::Ended => return Ok(()),
            _ => return Err(Hangup::Fault("records before the handshake".into())),
        };
        let due = stream.ack.received.next();
        if first != due {
            return Err(Hangup::Fault(format!("records from {first} on where {due} has to come")));
        }
        let last = stream.ack.received.get().checked_add(u64::from(count)).filter(|last| *last < u64::MAX);
        let Some(last) = last.filter(|_| count > 0) else {
            return Err(Hangup::Fault(format!("{count} records from {first} on")));
        };
        stream.heard(now);
        stream.ack.received = Lsn::new(last);
        self.outputs.push_back(Output::Deliver);
        Ok(())
    }

    fn answer_in(&mut self, as_of: Lsn, now: Instant) -> Result<(), Hangup> {
        let stream = match &mut self.state {
            State::Streaming(stream) => stream,
            State::Leaving { .. } | State::Ended => return Ok(()),
            _ => return Err(Hangup::Fault("an answer before the handshake".into())),
        };
        let received = stream.ack.received;
        if as_of > received {
            return Err(Hangup::Fault(format!("an answer as of {as_of} right after record {received}")));
        }
        stream.heard(now);
        self.outputs.push_back(Output::Deliver);
        Ok(())
    }

    fn tick(&mut self, now: Instant) -> Result<(), Hangup> {
        match &mut self.state {
            State::Greeting { deadline } | State::Agreeing { deadline, .. } if *deadline <= now => {
                Err(Hangup::Gone("the handshake took too long".into()))
            }
            State::Leaving { deadline, hangup, .. } if *deadline <= now => Err(hangup.clone()),
            State::Streaming(stream) => {
                stream.beat |= now >= stream.acked_at + HEARTBEAT_INTERVAL;
                match stream.reading {
                    Reading::Since { heard } if now >= heard + SILENCE_MAX => {
                        Err(Hangup::Gone("silent for too long".into()))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn writable(&mut self) {
        self.permit = true;
        if let State::Leaving { last: None, hangup, .. } = &self.state {
            let hangup = hangup.clone();
            self.end(hangup);
        }
    }

    fn refuse(&mut self, why: String, now: Instant) {
        self.leave(SlaveMessage::Refuse(harmless(&why)), Hangup::Refused(why), now);
    }

    /// Says `last`, then ends.
    fn leave(&mut self, last: SlaveMessage, hangup: Hangup, now: Instant) {
        if !matches!(self.state, State::Leaving { .. } | State::Ended) {
            self.outputs.clear();
            self.state = State::Leaving { deadline: now + LEAVE_MAX, last: Some(last), hangup };
        }
    }

    fn end(&mut self, hangup: Hangup) {
        if !matches!(self.state, State::Ended) {
            self.outputs.clear();
            self.outputs.push_back(Output::Hangup(hangup));
            self.state = State::Ended;
            self.permit = false;
        }
    }
}

impl Stream {
    fn new(begin: Begin, standing: Standing, now: Instant) -> Stream {
        let durable = match (begin.plan, standing) {
            (Plan::Stream, Standing::Equal { applied, durable }) if applied.epoch == begin.epoch => durable,
            _ => Lsn::ZERO,
        };
        let after = begin.after;
        Stream {
            ack: Ack { received: after, applied: after, durable: durable.min(after) },
            acked: None,
            acked_at: now,
            beat: false,
            report: None,
            reported: None,
            wants: VecDeque::new(),
            findings: VecDeque::new(),
            begun: false,
            after,
            reading: Reading::Since { heard: now },
            heartbeat: Heartbeat { head: after, durable: Lsn::ZERO, time_ns: 0 },
        }
    }

    fn heard(&mut self, now: Instant) {
        if let Reading::Since { heard } = &mut self.reading {
            *heard = now;
        }
    }

    /// What the replica and the shell tell.
    fn told(&mut self, input: Input, now: Instant) {
        match input {
            Input::Applied(lsn) => self.ack.applied = lsn.max(self.ack.applied).min(self.ack.received),
            Input::Durable(lsn) => self.ack.durable = lsn.max(self.ack.durable).min(self.ack.applied),
            Input::Reported(report) if self.begun => self.report = Some(report),
            Input::Want(want) => self.wants.push_back(want),
            Input::Found(finding) => self.findings.push_back(finding),
            Input::Heard => self.heard(now),
            Input::Paused => self.reading = Reading::Paused,
            Input::Resumed => self.reading = Reading::Since { heard: now },
            _ => {}
        }
    }

    /// The next message. A report goes before the ack: a replica that found itself not equal at a record
    /// has said so when that record counts as applied.
    fn next(&mut self, now: Instant) -> Option<SlaveMessage> {
        if let Some(report) = self.report.take()
            && self.reported.as_ref() != Some(&report)
        {
            self.reported = Some(report.clone());
            return Some(SlaveMessage::Report(cut_report(report)));
        }
        if let Some(want) = self.wants.pop_front() {
            return Some(SlaveMessage::Want(want));
        }
        if let Some(finding) = self.findings.pop_front() {
            return Some(SlaveMessage::Finding(finding));
        }
        if self.beat || (self.ack_changed() && now >= self.acked_at + ACK_INTERVAL) {
            (self.beat, self.acked, self.acked_at) = (false, Some(self.ack), now);
            return Some(SlaveMessage::Ack(self.ack));
        }
        None
    }

    /// True if an ack is owed for more than received records alone: those wait for the next one.
    fn ack_changed(&self) -> bool {
        let told =
            self.acked.unwrap_or(Ack { received: self.after, applied: self.after, durable: Lsn::ZERO });
        (told.applied, told.durable) != (self.ack.applied, self.ack.durable)
    }

    /// Without a permit nothing can be said: what is due goes out when there is one again.
    fn deadline(&self, permit: bool) -> Option<Instant> {
        let ack = self.acked_at + if self.ack_changed() { ACK_INTERVAL } else { HEARTBEAT_INTERVAL };
        let silence = match self.reading {
            Reading::Since { heard } => Some(heard + SILENCE_MAX),
            Reading::Paused => None,
        };
        silence.into_iter().chain(permit.then_some(ack)).min()
    }
}

/// Compares a frame of records with its header: each record whole, LSNs without holes, nothing left over.
/// What passes can be applied; of what does not, nothing may be.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_records(payload: &[u8], first: Lsn, count: u32) -> Result<(), String> {
    let (mut rest, mut due) = (payload, first);
    for _ in 0..count {
        let (header, whole) = RecordHeader::parse_whole(rest).map_err(|e| e.to_string())?;
        if header.lsn != due {
            return Err(format!("record {} where {due} has to come", header.lsn));
        }
        due = due.next();
        rest = &rest[whole.len()..];
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bytes after the last of {count} records", rest.len()))
    }
}

fn belongs(mine: Id, theirs: Id) -> String {
    format!("this replica belongs to filesystem {mine}, not {theirs}: start it with --adopt to change that")
}

fn cut_report(report: Report) -> Report {
    let short = |text: Option<String>| text.as_deref().map(harmless);
    Report { stalled: short(report.stalled), last_error: short(report.last_error), ..report }
}

fn name_of(message: &MasterMessage) -> &'static str {
    match message {
        MasterMessage::Hello(_) => "hello",
        MasterMessage::Begin(_) => "begin",
        MasterMessage::Heartbeat(_) => "heartbeat",
        MasterMessage::Refuse(_) => "refuse",
        MasterMessage::Bye(_) => "bye",
        MasterMessage::Lost(_) => "lost",
        MasterMessage::Order(_) => "order",
    }
}

#[cfg(test)]
mod tests;
