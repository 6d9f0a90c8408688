//! The thread that replays: one item after the other, a stalled one again and again.

use super::{Ends, Facts, Item, Replay, SYNC_INTERVAL, Shared, Stall, facts};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tdfs_wire::Id;
use tdfs_wire::answer::{Answer, Want};
use tdfs_wire::message::{Begin, Report};
use tdfs_wire::record::Record;
use tdfs_wire::session::slave::Replica;
use tokio::sync::oneshot;

/// At most so often progress inside one item is told.
const TELL_INTERVAL: Duration = Duration::from_millis(5);
const STALL_DELAY_MIN: Duration = Duration::from_millis(50);
const STALL_DELAY_MAX: Duration = Duration::from_secs(1);

/// What is to be done next.
enum Next {
    Item(Item, Arc<Ends>),
    Taken(oneshot::Sender<Replica>),
    Idle,
    Stop,
}

struct Player<'a> {
    shared: &'a Shared,
    replay: Box<dyn Replay>,
    told_at: Instant,
    stalled: Option<String>,
    /// The present connection has begun its stream: wants may be asked.
    begun: bool,
}

pub(super) fn run(shared: &Shared, replay: Box<dyn Replay>) -> Box<dyn Replay> {
    let mut player = Player { shared, replay, told_at: Instant::now(), stalled: None, begun: false };
    let mut idle_at = Instant::now();
    loop {
        match shared.next() {
            Next::Item(item, lane) => {
                player.play(&item, &lane);
                if shared.is_empty() || idle_at.elapsed() >= SYNC_INTERVAL {
                    player.idle();
                    idle_at = Instant::now();
                }
                // With more to come at once, whoever is told would be woken for each item.
                if shared.is_empty() || player.told_at.elapsed() >= TELL_INTERVAL {
                    player.tell(&lane, Vec::new());
                }
            }
            Next::Taken(reply) => {
                (player.stalled, player.begun) = (None, false);
                let facts = player.note_facts();
                // Nobody may wait any more: then yet another connection takes over.
                let _ = reply.send(facts.replica);
            }
            Next::Idle => {
                player.idle();
                idle_at = Instant::now();
                player.note_facts();
                let lane = Arc::clone(&shared.queue.lock().lane);
                // What could not be looked at before (an EIO in the replica) is looked at again.
                let wants = if player.begun { player.replay.wants() } else { Vec::new() };
                player.tell(&lane, wants);
            }
            Next::Stop => return player.replay,
        }
    }
}

impl Shared {
    fn next(&self) -> Next {
        let mut queue = self.queue.lock();
        if !queue.stop && queue.take.is_none() && queue.items.is_empty() {
            self.work.wait_for(&mut queue, SYNC_INTERVAL);
        }
        if queue.stop {
            return Next::Stop;
        }
        if let Some(reply) = queue.take.take() {
            return Next::Taken(reply);
        }
        let Some(item) = queue.items.pop_front() else {
            return Next::Idle;
        };
        let was_full = queue.bytes >= super::RELAY_BYTES_MAX;
        queue.bytes -= item.bytes();
        if was_full && queue.bytes < super::RELAY_BYTES_MAX {
            queue.lane.notify.notify_one();
        }
        Next::Item(item, Arc::clone(&queue.lane))
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().items.is_empty()
    }
}

impl Player<'_> {
    fn play(&mut self, item: &Item, lane: &Ends) {
        match item {
            Item::Begin { filesystem, begin } => {
                self.begin(*filesystem, begin, lane);
            }
            Item::Records(payload) => self.play_records(payload, lane),
            Item::Answer { as_of, payload } => {
                let (answer, bulk) = match Answer::parse(payload) {
                    Ok(parsed) => parsed,
                    Err(e) => return self.fault(lane, e.to_string()),
                };
                self.until_done(lane, |replay| replay.answer(*as_of, &answer, bulk));
                self.tell_wants(lane);
            }
            Item::Lost(lost) => {
                self.until_done(lane, |replay| replay.lost(lost));
                self.tell_wants(lane);
            }
            Item::Order(order) => {
                self.replay.order(*order);
                self.tell_wants(lane);
            }
        }
    }

    fn begin(&mut self, filesystem: Id, begin: &Begin, lane: &Ends) {
        self.shared.queue.lock().stream += 1;
        let began = self.replay.begin(filesystem, begin);
        let facts = self.note_facts();
        if let Err(why) = began {
            // Told first: who sees the lane closed and no reason would believe that another connection took over.
            lane.tell(|news| news.began = Some(Err(why)));
            return self.shared.close(lane);
        }
        self.begun = true;
        // What was said before the stream began says nothing about it.
        lane.tell(|news| {
            (news.began, news.durable) = (Some(Ok(())), Some(facts.durable));
            news.report = Some(facts.report);
        });
        let wants = self.replay.wants();
        self.tell(lane, wants);
    }

    fn fault(&self, lane: &Ends, why: String) {
        lane.tell(|news| news.fault = Some(why));
        self.shared.close(lane);
    }

    fn play_records(&mut self, payload: &[u8], lane: &Ends) {
        let mut rest = payload;
        while !rest.is_empty() {
            let (record, len) = match Record::parse(rest) {
                Ok(parsed) => parsed,
                Err(e) => return self.fault(lane, e.to_string()),
            };
            rest = &rest[len..];
            if !self.until_done(lane, |replay| replay.apply(&record)) {
                return;
            }
            self.tell_wants(lane);
        }
    }

    /// Tries until it succeeds; false if the lane was closed before.
    fn until_done(
        &mut self,
        lane: &Ends,
        mut attempt: impl FnMut(&mut dyn Replay) -> Result<(), Stall>,
    ) -> bool {
        let mut delay = STALL_DELAY_MIN;
        while !lane.closed.load(Ordering::Acquire) {
            let Err(Stall { why }) = attempt(&mut *self.replay) else {
                if self.stalled.take().is_some() {
                    tracing::info!("the replica goes on");
                }
                return true;
            };
            if self.stalled.as_ref() != Some(&why) {
                tracing::warn!("the replica is stalled: {why}; trying again");
                self.stalled = Some(why);
            }
            self.tell(lane, Vec::new());
            self.wait(lane, delay);
            delay = (delay * 2).min(STALL_DELAY_MAX);
        }
        false
    }

    /// Waits, but not after the lane was closed.
    fn wait(&mut self, lane: &Ends, delay: Duration) {
        let until = Instant::now() + delay;
        let mut queue = self.shared.queue.lock();
        while !lane.closed.load(Ordering::Acquire) && Instant::now() < until {
            self.shared.work.wait_until(&mut queue, until);
        }
    }

    fn idle(&mut self) {
        self.replay.idle();
    }

    /// Tells wants at once, progress now and then.
    fn tell_wants(&mut self, lane: &Ends) {
        let wants = self.replay.wants();
        if !wants.is_empty() || self.told_at.elapsed() >= TELL_INTERVAL {
            self.tell(lane, wants);
        }
    }

    fn tell(&mut self, lane: &Ends, wants: Vec<Want>) {
        self.told_at = Instant::now();
        let (report, applied) = (self.report(), self.replay.applied());
        {
            let mut facts = self.shared.facts.lock();
            let replica = &mut facts.replica;
            (replica.standing, replica.check) = (self.replay.standing(), self.replay.check());
            replica.checksum = self.replay.checksum();
            (facts.applied, facts.report) = (applied, report.clone());
        }
        if lane.closed.load(Ordering::Acquire) {
            return;
        }
        let findings = self.replay.findings();
        lane.tell(|news| {
            (news.report, news.applied) = (Some(report), Some(applied));
            news.wants.extend(wants);
            news.findings.extend(findings);
        });
    }

    fn report(&self) -> Report {
        let mut report = self.replay.report();
        report.stalled.clone_from(&self.stalled);
        if report.last_error.is_none() {
            report.last_error.clone_from(&self.shared.sync_error.lock());
        }
        report
    }

    fn note_facts(&self) -> Facts {
        let facts = Facts { report: self.report(), ..facts(&*self.replay) };
        self.shared.facts.lock().clone_from(&facts);
        facts
    }
}
