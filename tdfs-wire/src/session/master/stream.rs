//! What goes to one slave, in which order, once `Begin` was decided.
//!
//! The order rule (DESIGN section 7, rule 2): an answer that is exact as of record n goes right after
//! record n, or at the cursor if that has passed n - nothing since can have touched its object. So no
//! record above n is sent while it waits, and nothing comes between its parts.

use super::{Output, Progress, StateName};
use crate::answer::Want;
use crate::message::{Ack, Begin, Heartbeat, Lost, MasterMessage, Order, Plan, Report};
use crate::session::{HEARTBEAT_INTERVAL, SILENCE_MAX, WANTS_MAX};
use crate::{Frame, Lsn};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// So many records behind, a slave that was at the head counts as catching up again.
const CATCH_UP_RECORDS: u64 = 10_000;

/// One answer that waits for its place.
#[derive(Debug)]
struct Waiting {
    as_of: Lsn,
    frame: Arc<Frame>,
}

/// Whether records go out.
#[derive(Debug)]
enum Records {
    /// The next ones may be asked for.
    Idle,
    /// The shell reads and sends; at most up to here.
    Reading { up_to: Lsn },
}

/// The stream of one connection.
#[derive(Debug)]
pub(super) struct Stream {
    begin: Begin,
    begin_sent: bool,
    /// To be told before anything else.
    lost: VecDeque<Lost>,
    progress: Progress,
    at_head: bool,
    resyncing: bool,
    records: Records,
    answers: VecDeque<Waiting>,
    wants: usize,
    heard: Instant,
    heartbeat_at: Instant,
    /// The clock of the heartbeat that waits for the connection.
    heartbeat: Option<i64>,
}

impl Stream {
    pub(super) fn new(begin: Begin, lost: VecDeque<Lost>, progress: Progress, now: Instant) -> Stream {
        Stream {
            begin,
            begin_sent: false,
            lost,
            progress,
            at_head: false,
            resyncing: begin.plan != Plan::Stream,
            records: Records::Idle,
            answers: VecDeque::new(),
            wants: 0,
            heard: now,
            heartbeat_at: now + HEARTBEAT_INTERVAL,
            heartbeat: None,
        }
    }

    pub(super) fn begin(&self) -> Begin {
        self.begin
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn resyncing(&self) -> bool {
        self.resyncing
    }

    pub(super) fn answers_waiting(&self) -> usize {
        self.answers.len()
    }

    pub(super) fn state_name(&self) -> StateName {
        match (self.resyncing, self.at_head) {
            (true, _) => StateName::Resyncing,
            (false, true) => StateName::Streaming,
            (false, false) => StateName::CatchUp,
        }
    }

    /// What the connection's next frame is.
    pub(super) fn next(&mut self, head: Lsn, durable: Lsn, orders: &mut VecDeque<Order>) -> Option<Output> {
        if let Records::Reading { .. } = self.records {
            return None;
        }
        if !self.begin_sent {
            self.begin_sent = true;
            return Some(Output::Send(MasterMessage::Begin(self.begin)));
        }
        if let Some(lost) = self.lost.pop_front() {
            return Some(Output::Send(MasterMessage::Lost(lost)));
        }
        if let Some(time_ns) = self.heartbeat.take() {
            return Some(Output::Send(MasterMessage::Heartbeat(Heartbeat { head, durable, time_ns })));
        }
        if let Some(order) = orders.pop_front() {
            return Some(Output::Send(MasterMessage::Order(order)));
        }
        if self.answers.front().is_some_and(|answer| answer.as_of <= self.progress.sent) {
            self.wants -= 1;
            return self.answers.pop_front().map(|answer| Output::SendAnswer(answer.frame));
        }
        let up_to = self.answers.front().map_or(head, |answer| answer.as_of.min(head));
        if up_to <= self.progress.sent {
            self.at_head |= self.progress.sent == head;
            return None;
        }
        self.records = Records::Reading { up_to };
        Some(Output::Records { after: self.progress.sent, up_to })
    }

    pub(super) fn sent(&mut self, lsn: Lsn) {
        let Records::Reading { up_to } = self.records else {
            panic!("records were sent up to {lsn} that nobody asked for");
        };
        assert!(self.progress.sent < lsn && lsn <= up_to, "sent {lsn}, asked for up to {up_to}");
        self.records = Records::Idle;
        self.progress.sent = lsn;
    }

    pub(super) fn log_moved(&mut self, head: Lsn) {
        if head.since(self.progress.sent) > CATCH_UP_RECORDS {
            self.at_head = false;
        }
    }

    /// Queues an answer behind those that are exact as of an earlier or the same record.
    pub(super) fn answered(&mut self, as_of: Lsn, frame: Arc<Frame>) {
        assert!(self.answers.len() < self.wants, "an answer to a want that does not exist");
        let at = self.answers.iter().rposition(|a| a.as_of <= as_of).map_or(0, |at| at + 1);
        self.answers.insert(at, Waiting { as_of, frame });
    }

    /// Takes an ack; Err: it contradicts what was sent or acked before.
    pub(super) fn acked(&mut self, ack: Ack, now: Instant) -> Result<(), String> {
        self.heard = now;
        let Ack { received, applied, durable } = ack;
        let known = self.progress;
        if !(durable <= applied && applied <= received && received <= known.sent) {
            return Err(format!(
                "an ack with durable {durable}, applied {applied}, received {received} where {} was sent",
                known.sent
            ));
        }
        if received < known.received || applied < known.applied || durable < known.durable {
            return Err(format!(
                "an ack goes backwards: durable {} to {durable}, applied {} to {applied}, received {} to {received}",
                known.durable, known.applied, known.received
            ));
        }
        self.progress = Progress { sent: known.sent, received, applied, durable };
        Ok(())
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(super) fn reported(&mut self, report: &Report, now: Instant) {
        self.heard = now;
        self.resyncing = report.resyncing;
    }

    /// Counts a want; Err: it is none, or there are too many without an answer.
    pub(super) fn wanted(&mut self, want: &Want, now: Instant) -> Result<(), String> {
        self.heard = now;
        want.check().map_err(|why| format!("it wants {why}"))?;
        if self.wants >= WANTS_MAX {
            return Err(format!("more than {WANTS_MAX} wants at once"));
        }
        self.wants += 1;
        Ok(())
    }

    pub(super) fn is_silent(&self, now: Instant) -> bool {
        now >= self.heard + SILENCE_MAX
    }

    /// Returns true when a heartbeat fell due: the connection has held for a while.
    pub(super) fn tick(&mut self, time_ns: i64, now: Instant) -> bool {
        if now < self.heartbeat_at {
            return false;
        }
        self.heartbeat = Some(time_ns);
        self.heartbeat_at = now + HEARTBEAT_INTERVAL;
        true
    }

    pub(super) fn deadline(&self) -> Instant {
        self.heartbeat_at.min(self.heard + SILENCE_MAX)
    }
}
