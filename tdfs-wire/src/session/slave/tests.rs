//! Scripted tests of the slave's session.

use super::{ACK_INTERVAL, Config, Hangup, Input, Output, Replica, Session, check_records};
use crate::message::{
    Begin, Branch, Check, Heartbeat, Hello, LINEAGE_MAX, MasterMessage, Plan, Report, SlaveMessage, Standing,
};
use crate::record::Draft;
use crate::session::{HEARTBEAT_INTERVAL, SILENCE_MAX};
use crate::{Epoch, Id, Lsn, Op, Position};
use std::time::{Duration, Instant};

const MINE: Id = Id([1; 16]);
const OTHER: Id = Id([2; 16]);
const EPOCH: Epoch = Epoch { number: 1, id: Id([3; 16]) };

struct Story {
    session: Session,
    now: Instant,
}

impl Story {
    fn new(filesystem: Option<Id>) -> Story {
        let now = Instant::now();
        Story { session: Session::new(Config { software: "t".into(), filesystem }, now), now }
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        self.session.handle(input, self.now);
        std::iter::from_fn(|| self.session.poll()).map(|output| word(&output)).collect()
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.tell(Input::Tick)
    }

    fn hello(&mut self, filesystem: Id) -> Vec<String> {
        let lineage = vec![Branch { epoch: EPOCH, from: None }];
        let hello = Hello { software: "t".into(), filesystem, lineage, head: Lsn::new(100) };
        self.tell(Input::Received(MasterMessage::Hello(hello)))
    }

    fn taken(&mut self, filesystem: Option<Id>) -> Vec<String> {
        let applied = Position { epoch: EPOCH, lsn: Lsn::new(90) };
        let standing = Standing::Equal { applied, durable: Lsn::new(80) };
        let replica = Replica {
            filesystem,
            replica: OTHER,
            standing,
            checksum: None,
            not_carried: Vec::new(),
            check: Check::None,
        };
        self.tell(Input::Taken(replica))
    }

    /// Streaming after record 90; the connection takes a message.
    fn stream() -> Story {
        let mut story = Story::new(Some(MINE));
        assert_eq!(story.hello(MINE), ["take"]);
        assert_eq!(story.taken(Some(MINE)), ["welcome"]);
        story.tell(Input::Writable);
        let begin = Begin { epoch: EPOCH, after: Lsn::new(90), plan: Plan::Stream, check: false };
        assert_eq!(story.tell(Input::Received(MasterMessage::Begin(begin))), ["begin"]);
        // What was said of the replica before is of the stream before.
        let early = Report { resyncing: true, ..Report::default() };
        assert!(story.tell(Input::Reported(early)).is_empty());
        assert!(story.tell(Input::Began(Ok(()))).is_empty());
        story
    }

    fn records(&mut self, first: u64, count: u32) -> Vec<String> {
        self.tell(Input::RecordsIn { first: Lsn::new(first), count })
    }
}

fn word(output: &Output) -> String {
    match output {
        Output::Take => "take".into(),
        Output::Begin { .. } => "begin".into(),
        Output::Lost(_) => "lost".into(),
        Output::Order(_) => "order".into(),
        Output::Deliver => "deliver".into(),
        Output::Hangup(Hangup::Fault(why)) => format!("fault: {why}"),
        Output::Hangup(Hangup::Refused(why)) => format!("refused: {why}"),
        Output::Hangup(Hangup::Gone(why)) => format!("gone: {why}"),
        Output::Send(SlaveMessage::Welcome(_)) => "welcome".into(),
        Output::Send(SlaveMessage::Ack(ack)) => {
            format!("ack {} {} {}", ack.received, ack.applied, ack.durable)
        }
        Output::Send(SlaveMessage::Report(_)) => "report".into(),
        Output::Send(SlaveMessage::Want(_)) => "want".into(),
        Output::Send(SlaveMessage::Refuse(why)) => format!("refuse: {why}"),
        Output::Send(SlaveMessage::Finding(_)) => "finding".into(),
        Output::Send(SlaveMessage::Bye(why)) => format!("bye: {why}"),
    }
}

#[test]
fn another_filesystem_is_refused_in_words() {
    let to_do = "start it with --adopt to change that";
    let text = format!("this replica belongs to filesystem {MINE}, not {OTHER}: {to_do}");
    let mut story = Story::new(Some(MINE));
    assert_eq!(story.hello(OTHER), [format!("refuse: {text}")]);
    assert_eq!(story.tell(Input::Writable), [format!("refused: {text}")]);
    // It came to belong to one while this connection was taking it over.
    let mut story = Story::new(None);
    assert_eq!(story.hello(OTHER), ["take"]);
    assert_eq!(story.taken(Some(MINE)), [format!("refuse: {text}")]);
}

#[test]
fn records_continue_exactly_or_the_connection_ends() {
    let mut story = Story::stream();
    assert_eq!(story.records(91, 5), ["deliver"]);
    assert_eq!(story.records(96, 1), ["deliver"]);
    for first in [96, 98, 1, u64::MAX] {
        let mut story = Story::stream();
        story.records(91, 6);
        assert_eq!(story.records(first, 2), [format!("fault: records from {first} on where 97 has to come")]);
    }
    assert!(story.records(97, 0)[0].starts_with("fault: 0 records"));
}

#[test]
fn an_answer_belongs_to_records_that_came() {
    let mut story = Story::stream();
    assert_eq!(story.tell(Input::AnswerIn { as_of: Lsn::new(90) }), ["deliver"]);
    let done = story.tell(Input::AnswerIn { as_of: Lsn::new(91) });
    assert_eq!(done, ["fault: an answer as of 91 right after record 90"]);
}

#[test]
fn nothing_counts_before_its_turn() {
    assert!(Story::new(None).records(1, 1)[0].starts_with("fault: records before"));
    assert!(Story::new(None).tell(Input::AnswerIn { as_of: Lsn::ZERO })[0].starts_with("fault: an answer"));
    let heartbeat = Heartbeat { head: Lsn::ZERO, durable: Lsn::ZERO, time_ns: 0 };
    let done = Story::new(None).tell(Input::Received(MasterMessage::Heartbeat(heartbeat)));
    assert_eq!(done, ["fault: a message that does not belong here: heartbeat"]);
    let mut story = Story::new(None);
    let lineage = vec![Branch { epoch: EPOCH, from: None }; LINEAGE_MAX + 1];
    let hello = Hello { software: "t".into(), filesystem: MINE, lineage, head: Lsn::ZERO };
    assert_eq!(story.tell(Input::Received(MasterMessage::Hello(hello))), ["fault: a history of 65 epochs"]);
}

#[test]
fn acks_are_gathered_and_come_each_second() {
    let mut story = Story::stream();
    story.records(91, 5);
    assert!(story.tell(Input::Applied(Lsn::new(91))).is_empty());
    assert_eq!(story.session.deadline(), Some(story.now + ACK_INTERVAL));
    story.tell(Input::Applied(Lsn::new(93)));
    assert_eq!(story.pass(ACK_INTERVAL), ["ack 95 93 80"]);
    story.tell(Input::Writable);
    assert!(story.pass(HEARTBEAT_INTERVAL / 2).is_empty(), "nothing new");
    assert_eq!(story.tell(Input::Durable(Lsn::new(93))), ["ack 95 93 93"]);
    assert!(story.pass(HEARTBEAT_INTERVAL).is_empty(), "the connection takes nothing");
    assert!(story.session.deadline() > Some(story.now + HEARTBEAT_INTERVAL), "and that is not asked again");
    assert_eq!(story.tell(Input::Writable), ["ack 95 93 93"]);
}

#[test]
fn a_report_goes_before_the_ack_and_only_when_it_changed() {
    let mut story = Story::stream();
    story.records(91, 5);
    story.now += ACK_INTERVAL;
    assert_eq!(story.tell(Input::Reported(Report::default())), ["report"]);
    story.tell(Input::Applied(Lsn::new(92)));
    assert_eq!(story.tell(Input::Writable), ["ack 95 92 80"]);
    story.tell(Input::Writable);
    assert!(story.tell(Input::Reported(Report::default())).is_empty());
    let report = Report { resyncing: true, ..Report::default() };
    assert_eq!(story.tell(Input::Reported(report)), ["report"]);
}

#[test]
fn silence_counts_only_while_it_is_listened_to() {
    let mut story = Story::stream();
    story.tell(Input::Paused);
    for _ in 0..30 {
        story.tell(Input::Writable);
        assert_eq!(story.pass(HEARTBEAT_INTERVAL), ["ack 90 90 80"]);
    }
    story.tell(Input::Resumed);
    assert_ne!(story.pass(SILENCE_MAX / 2), ["gone: silent for too long"]);
    assert_eq!(story.pass(SILENCE_MAX / 2), ["gone: silent for too long"]);
}

#[test]
fn a_frame_that_takes_long_is_no_silence() {
    let mut story = Story::stream();
    for _ in 0..30 {
        story.tell(Input::Heard);
        story.tell(Input::Writable);
        assert_eq!(story.pass(HEARTBEAT_INTERVAL), ["ack 90 90 80"]);
    }
}

#[test]
fn a_replica_that_refuses_to_begin_says_so() {
    let mut story = Story::stream();
    let done = story.tell(Input::Began(Err("the directory is not empty".into())));
    assert_eq!(done, ["refuse: the directory is not empty"]);
    assert!(story.records(91, 1).is_empty(), "what still comes is dropped");
    assert_eq!(story.tell(Input::Writable), ["refused: the directory is not empty"]);
}

#[test]
fn a_handshake_that_takes_too_long_ends() {
    let mut story = Story::new(None);
    assert_eq!(story.session.deadline(), Some(story.now + Duration::from_secs(10)));
    assert_eq!(story.pass(Duration::from_secs(10)), ["gone: the handshake took too long"]);
}

#[test]
fn frames_of_records_are_checked_whole() {
    let op = Op::Check { paths: Vec::new() };
    let mut bytes = Vec::new();
    for lsn in 5..8 {
        let mut draft = Draft::new(&op, b"bulk").unwrap();
        draft.place(Lsn::new(lsn), 0).iter().for_each(|part| bytes.extend_from_slice(part));
    }
    assert_eq!(check_records(&bytes, Lsn::new(5), 3), Ok(()));
    assert!(check_records(&bytes, Lsn::new(4), 3).is_err());
    assert!(check_records(&bytes, Lsn::new(5), 2).is_err());
    assert!(check_records(&bytes, Lsn::new(5), 4).is_err());
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        assert!(check_records(&bad, Lsn::new(5), 3).is_err(), "byte {at}");
    }
}
