//! One slave as the master sees it: dialled for ever, greeted, fed from the log, watched.
//!
//! Driven by `tdfs/src/ship`, one per slave. Decides how a stream begins, what may be sent next, and when
//! a connection is over. What the order of records and answers rests on is in `stream.rs`.

mod contract;
mod plan;
mod stream;

pub use contract::{
    Cause, Config, Covered, Hangup, Input, Known, LastResync, Output, Progress, StateName, View,
};
use plan::lost_messages;
pub use plan::present_lsn;

use super::backoff::Backoff;
use super::{HANDSHAKE_MAX, LEAVE_MAX};
use crate::Lsn;
use crate::message::{
    Branch, Check, Finding, Hello, MasterMessage, Order, Plan, Report, SlaveMessage, Standing, Verified,
    Welcome,
};
use crate::text::harmless;
use std::collections::VecDeque;
use std::time::Instant;
use stream::Stream;

/// ```text
///  Waiting --time--> Dialling --Dialled--> Handshake --Welcome--> Streaming --Stop--> Leaving --> Ended
///     ^                 |                      |                      |
///     +-----------------+--- failed, lost, refused, silent, fault ----+
/// ```
#[derive(Debug)]
enum State {
    /// No connection until then.
    Waiting { until: Instant },
    /// The shell is connecting.
    Dialling,
    /// `Hello` is to be sent (Some), or `Welcome` has to come.
    Handshake { deadline: Instant, hello: Option<Hello> },
    /// `Begin` was decided.
    Streaming(Box<Stream>),
    /// `Bye` is to be sent (Some), or on its way.
    Leaving { deadline: Instant, bye: Option<String> },
    /// Nothing happens any more.
    Ended,
}

/// Why there is no connection at present.
#[derive(Debug)]
enum Trouble {
    /// None so far: the first connection has not been tried to the end.
    None,
    Away(String),
    Refused(String),
}

/// The machine.
#[derive(Debug)]
pub struct Session {
    config: Config,
    state: State,
    trouble: Trouble,
    known: Known,
    progress: Progress,
    report: Report,
    not_carried: Vec<String>,
    backoff: Backoff,
    head: Lsn,
    oldest: Lsn,
    durable: Lsn,
    /// A resync was asked for, with or without `checksum`.
    resync_asked: Option<bool>,
    /// Told in each stream until it is over.
    verify: Option<Order>,
    /// To be told in the next stream, or in this one.
    orders: VecDeque<Order>,
    trail: Option<Covered>,
    is_foreign: bool,
    /// Since it was met last: its position is known, and that it goes on from there.
    met: bool,
    /// `Begin` was sent and the slave has not said anything since: why, if it counts as another resync.
    beginning: Option<Option<Cause>>,
    /// What the check that goes on has found is counted.
    check_counted: bool,
    connection: u64,
    permit: bool,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that will dial at its first `Tick`.
    ///
    /// # Panics
    /// When the lineage is empty: a master has an epoch.
    pub fn new(config: Config, known: Known, now: Instant) -> Session {
        assert!(!config.lineage.is_empty(), "a master without an epoch");
        Session {
            backoff: Backoff::new(config.jitter_seed),
            config,
            state: State::Waiting { until: now },
            trouble: Trouble::None,
            progress: Progress {
                sent: known.durable,
                received: known.durable,
                applied: known.durable,
                durable: known.durable,
            },
            known,
            report: Report::default(),
            not_carried: Vec::new(),
            head: Lsn::ZERO,
            oldest: Lsn::ZERO.next(),
            durable: Lsn::ZERO,
            resync_asked: None,
            verify: None,
            orders: VecDeque::new(),
            trail: None,
            is_foreign: false,
            met: false,
            beginning: None,
            check_counted: false,
            connection: 0,
            permit: false,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Dialled => self.dialled(now),
            Input::DialFailed(why) | Input::Lost(why) => self.away(why, now),
            Input::Refused(why) => self.refused(why, now),
            Input::Received(message) => self.received(message, now),
            Input::Log { head, oldest } => {
                (self.head, self.oldest) = (head, oldest);
                self.check_cursor(now);
            }
            Input::Sent(lsn) => {
                if let State::Streaming(stream) = &mut self.state {
                    stream.sent(lsn);
                    self.progress.sent = lsn;
                }
            }
            Input::Answered { connection, as_of, frame } => {
                if let State::Streaming(stream) = &mut self.state
                    && connection == self.connection
                {
                    stream.answered(as_of, frame);
                }
            }
            Input::Writable => self.writable(),
            Input::Met { trail, is_foreign } => (self.trail, self.is_foreign) = (trail, is_foreign),
            Input::MasterDurable(durable) => self.durable = durable,
            Input::Lineage(lineage) => self.new_lineage(lineage, now),
            Input::Resync { checksum } => {
                self.resync_asked = Some(checksum);
                self.known.needs_resync = true;
                self.begin_anew("a resync was asked for", now);
            }
            Input::Order(order) => self.ordered(order),
            Input::Stop(why) => self.stop(why, now),
            Input::Tick { time_ns } => self.tick(time_ns, now),
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
        let output = match &mut self.state {
            State::Handshake { hello, .. } => hello.take().map(|h| Output::Send(MasterMessage::Hello(h))),
            State::Streaming(stream) => stream.next(self.head, self.durable, &mut self.orders),
            State::Leaving { bye, .. } => bye.take().map(|b| Output::Send(MasterMessage::Bye(b))),
            State::Waiting { .. } | State::Dialling | State::Ended => None,
        };
        self.permit = output.is_none();
        output
    }

    /// When `Tick` has to come.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Handshake { deadline, .. } | State::Leaving { deadline, .. } => Some(*deadline),
            State::Streaming(stream) => Some(stream.deadline()),
            State::Dialling | State::Ended => None,
        }
    }

    /// True once `Stop` was carried out.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// True while records can be sent.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming(_))
    }

    /// How many answers wait for their place or for the connection.
    pub fn answers_waiting(&self) -> usize {
        match &self.state {
            State::Streaming(stream) => stream.answers_waiting(),
            _ => 0,
        }
    }

    /// True if the present connection has this number ([`Output::Ask`]).
    pub fn is_connection(&self, connection: u64) -> bool {
        self.is_streaming() && connection == self.connection
    }

    /// How far the slave is.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Marks the slave: the log does not hold for it what it lacks.
    pub fn mark_for_resync(&mut self) {
        self.known.needs_resync = true;
    }

    /// What can be told of the slave.
    pub fn view(&self) -> View {
        let (began_after, resyncing, checking) = match &self.state {
            State::Streaming(stream) => {
                (Some(stream.begin().after), stream.resyncing(), self.report.checking)
            }
            // What was going on when the connection ended, is not over.
            _ => (None, false, self.report.checking),
        };
        View {
            state: self.state_name(),
            progress: self.progress,
            began_after,
            continues: self.met || self.known.replica.is_some() || !self.known.needs_resync,
            met: self.met,
            replica: self.known.replica,
            not_carried: self.not_carried.clone(),
            last_error: self.last_error(),
            resyncs: self.known.resyncs,
            last_resync: self.known.last_resync,
            divergences: self.known.divergences,
            checking: checking || self.known.check_due,
            resync: self.report.resync,
            verify: self.report.verify,
            needs_resync: self.known.needs_resync || resyncing,
        }
    }

    /// The state alone; cheaper than the whole view.
    pub fn state_name(&self) -> StateName {
        match (&self.state, &self.trouble) {
            (State::Streaming(_), _) if self.report.stalled.is_some() => StateName::Stalled,
            (State::Streaming(stream), _) => stream.state_name(),
            (_, Trouble::Refused(_)) => StateName::Refused,
            (State::Handshake { .. }, _) => StateName::Handshake,
            (_, Trouble::None) => StateName::Connecting,
            (_, Trouble::Away(_)) => StateName::Away,
        }
    }

    fn last_error(&self) -> Option<String> {
        match (&self.state, &self.trouble) {
            (State::Streaming(_), _) => {
                self.report.stalled.clone().or_else(|| self.report.last_error.clone())
            }
            (_, Trouble::Away(why) | Trouble::Refused(why)) => Some(why.clone()),
            (_, Trouble::None) => None,
        }
    }

    fn dialled(&mut self, now: Instant) {
        if !matches!(self.state, State::Dialling) {
            return;
        }
        self.connection += 1;
        self.permit = true;
        let hello = Hello {
            software: self.config.software.clone(),
            filesystem: self.config.filesystem,
            lineage: self.config.lineage.clone(),
            head: self.head,
        };
        self.state = State::Handshake { deadline: now + HANDSHAKE_MAX, hello: Some(hello) };
    }

    fn received(&mut self, message: SlaveMessage, now: Instant) {
        let done = match (&mut self.state, message) {
            (State::Handshake { hello: None, .. }, SlaveMessage::Welcome(welcome)) => {
                self.welcomed(welcome, now);
                Ok(())
            }
            (State::Handshake { .. } | State::Streaming(_), SlaveMessage::Refuse(why)) => {
                self.hangup(Hangup::Refused(why), now);
                Ok(())
            }
            (State::Handshake { .. } | State::Streaming(_), SlaveMessage::Bye(why)) => {
                self.hangup(Hangup::Gone(format!("the slave ended: {why}")), now);
                Ok(())
            }
            (State::Streaming(stream), SlaveMessage::Ack(ack)) => {
                stream.acked(ack, now).map(|()| self.progress = stream.progress())
            }
            (State::Streaming(stream), SlaveMessage::Report(report)) => {
                stream.reported(&report, now);
                self.known.needs_resync = stream.resyncing();
                self.known.divergences = report.divergences;
                self.report_came(report);
                Ok(())
            }
            (State::Streaming(stream), SlaveMessage::Finding(finding)) => {
                stream.heard(now);
                self.found(finding);
                Ok(())
            }
            (State::Streaming(stream), SlaveMessage::Want(want)) => stream.wanted(&want, now).map(|()| {
                let connection = self.connection;
                self.outputs.push_back(Output::Ask { connection, want });
            }),
            (State::Leaving { .. } | State::Ended | State::Waiting { .. } | State::Dialling, _) => Ok(()),
            (_, message) => Err(format!("a message that does not belong here: {}", name_of(&message))),
        };
        if let Err(why) = done {
            self.hangup(Hangup::Fault(why), now);
        }
    }

    fn welcomed(&mut self, welcome: Welcome, now: Instant) {
        let (trail, cause) = (self.trail.take(), self.cause(&welcome));
        if self.went_back(&welcome) {
            // As if somebody had asked: its progress can't tell it any more if this connection is lost at once.
            self.resync_asked = Some(true);
            self.known.needs_resync = true;
        }
        let begin = self.plan(&welcome, trail.as_ref());
        (self.met, self.beginning) = (true, None);
        let unfinished = matches!(welcome.standing, Standing::Resyncing { .. });
        if begin.plan == Plan::Patch && !unfinished {
            self.resync_begins(cause);
        }
        if matches!(begin.plan, Plan::Resync { .. }) {
            let same =
                self.known.replica == Some(welcome.replica) && unfinished && self.resync_asked.is_none();
            self.beginning = Some((!same).then_some(cause));
        }
        let durable = match welcome.standing {
            Standing::Equal { applied, durable } if applied.epoch == begin.epoch => durable.min(begin.after),
            _ => Lsn::ZERO,
        };
        let durable = if begin.plan == Plan::Stream { durable } else { Lsn::ZERO };
        let after = begin.after;
        self.progress = Progress { sent: after, received: after, applied: after, durable };
        self.known.replica = Some(welcome.replica);
        let resyncing = begin.plan != Plan::Stream;
        self.known.needs_resync = resyncing;
        // Told before, but maybe not heard.
        self.orders.retain(|order| Some(*order) != self.verify);
        self.orders.extend(self.verify);
        self.not_carried = welcome.not_carried;
        let checking = begin.check || welcome.check == Check::Running;
        self.report = Report { resyncing, checking, ..Report::default() };
        self.trouble = Trouble::None;
        let lost = if begin.plan == Plan::Patch { lost_messages(trail) } else { VecDeque::new() };
        self.state = State::Streaming(Box::new(Stream::new(begin, lost, self.progress, now)));
    }

    /// One more, which is not the same as the one before.
    fn resync_begins(&mut self, cause: Cause) {
        self.known.resyncs += 1;
        self.known.last_resync = Some(LastResync { cause, differences: 0 });
    }

    fn report_came(&mut self, report: Report) {
        if let Some(cause) = self.beginning.take() {
            // It has begun: a resync of the whole tree looks at everything.
            if let Some(cause) = cause {
                self.resync_begins(cause);
            }
            self.resync_asked = None;
        }
        // The slave has begun: it knows of the check, durably. What it tells first may come from after its end.
        self.known.check_due = false;
        // The check has found something: one resync, also where that is healed bit by bit.
        let turned = !self.report.resyncing && report.resyncing;
        let found = turned && self.report.checking;
        if found && !self.check_counted {
            self.resync_begins(Cause::Check);
        } else if turned && !found {
            self.known.last_resync = Some(LastResync { cause: Cause::Healing, differences: 0 });
        }
        self.check_counted = report.checking && (self.check_counted || found);
        if let Some(last) =
            self.known.last_resync.as_mut().filter(|_| self.report.resyncing || report.resyncing)
        {
            last.differences = report.differences;
        }
        self.report = report;
    }

    fn ordered(&mut self, order: Order) {
        match order {
            Order::Verify { .. } => self.verify = Some(order),
            Order::Cancel { id } => {
                self.verify
                    .take_if(|verify| matches!(verify, Order::Verify { id: other, .. } if *other == id));
            }
            Order::Confirm => {}
        }
        // What waits for a connection is told once.
        self.orders.retain(|waiting| *waiting != order);
        self.orders.push_back(order);
    }

    fn found(&mut self, finding: Finding) {
        let (Finding::Difference { verify, .. } | Finding::Ended(Verified { verify, .. })) = finding;
        let asked = matches!(self.verify, Some(Order::Verify { id, .. }) if id == verify);
        if !asked {
            return; // of one that was cancelled
        }
        if matches!(finding, Finding::Ended(_)) {
            self.verify = None;
        }
        self.outputs.push_back(Output::Found(finding));
    }

    fn writable(&mut self) {
        self.permit = true;
        if matches!(self.state, State::Leaving { bye: None, .. }) {
            self.outputs.push_back(Output::Hangup(Hangup::Gone("the master ends".into())));
            self.state = State::Ended;
        }
    }

    fn check_cursor(&mut self, now: Instant) {
        let State::Streaming(stream) = &mut self.state else {
            return;
        };
        if self.oldest > stream.progress().sent.next() {
            self.known.needs_resync = true;
            self.begin_anew("it is so far behind that the log no longer has what it lacks", now);
        } else {
            stream.log_moved(self.head);
        }
    }

    /// Ends the connection only to begin another one.
    fn begin_anew(&mut self, why: &str, now: Instant) {
        if matches!(self.state, State::Handshake { .. } | State::Streaming(_)) {
            self.hangup(Hangup::Gone(why.into()), now);
        }
    }

    fn new_lineage(&mut self, lineage: Vec<Branch>, now: Instant) {
        assert!(!lineage.is_empty(), "a master without an epoch");
        self.config.lineage = lineage;
        self.progress = Progress::default();
        (self.head, self.oldest) = (Lsn::ZERO, Lsn::ZERO.next());
        self.durable = Lsn::ZERO;
        self.begin_anew("a new epoch has begun", now);
    }

    fn stop(&mut self, why: String, now: Instant) {
        self.outputs.clear();
        self.state = match self.state {
            State::Streaming(_) | State::Handshake { hello: None, .. } => {
                State::Leaving { deadline: now + LEAVE_MAX, bye: Some(harmless(&why)) }
            }
            State::Handshake { .. } | State::Dialling => {
                self.outputs.push_back(Output::Hangup(Hangup::Gone("the master ends".into())));
                State::Ended
            }
            State::Leaving { .. } | State::Waiting { .. } | State::Ended => State::Ended,
        };
    }

    fn tick(&mut self, time_ns: i64, now: Instant) {
        match &mut self.state {
            State::Waiting { until } if *until <= now => {
                self.state = State::Dialling;
                self.outputs.push_back(Output::Dial);
            }
            State::Handshake { deadline, .. } if *deadline <= now => {
                self.hangup(Hangup::Gone("no answer to the greeting".into()), now);
            }
            State::Streaming(stream) => {
                if stream.is_silent(now) {
                    self.hangup(Hangup::Gone("silent for too long".into()), now);
                } else if stream.tick(time_ns, now) {
                    self.backoff.reset();
                }
            }
            State::Leaving { deadline, .. } if *deadline <= now => {
                self.outputs.push_back(Output::Hangup(Hangup::Gone("the master ends".into())));
                self.state = State::Ended;
            }
            _ => {}
        }
    }

    /// Ends the connection from this side.
    fn hangup(&mut self, hangup: Hangup, now: Instant) {
        match hangup.clone() {
            Hangup::Fault(why) | Hangup::Gone(why) => self.away(why, now),
            Hangup::Refused(why) => self.refused(why, now),
        }
        self.outputs.push_back(Output::Hangup(hangup));
    }

    fn away(&mut self, why: String, now: Instant) {
        if matches!(self.state, State::Waiting { .. }) {
            return; // the echo of what ended the connection
        }
        let delay = self.backoff.delay();
        self.unlink(now + delay);
        self.trouble = Trouble::Away(why);
    }

    fn refused(&mut self, why: String, now: Instant) {
        if matches!(self.state, State::Waiting { .. }) {
            return;
        }
        let delay = self.backoff.delay_max();
        self.unlink(now + delay);
        self.trouble = Trouble::Refused(why);
    }

    fn unlink(&mut self, until: Instant) {
        self.outputs.clear();
        self.permit = false;
        self.report = Report { stalled: None, resync: None, verify: None, ..self.report.clone() };
        self.state = match self.state {
            State::Leaving { .. } | State::Ended => State::Ended,
            _ => State::Waiting { until },
        };
    }
}

fn name_of(message: &SlaveMessage) -> &'static str {
    match message {
        SlaveMessage::Welcome(_) => "welcome",
        SlaveMessage::Ack(_) => "ack",
        SlaveMessage::Report(_) => "report",
        SlaveMessage::Want(_) => "want",
        SlaveMessage::Refuse(_) => "refuse",
        SlaveMessage::Bye(_) => "bye",
        SlaveMessage::Finding(_) => "finding",
    }
}

#[cfg(test)]
mod tests;
