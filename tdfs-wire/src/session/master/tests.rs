//! Scripted tests of the master's session.

use super::{
    Cause, Config, Covered, Hangup, Input, Known, LastResync, Output, Session, StateName, present_lsn,
};
use crate::answer::{Want, Wanted};
use crate::frame::{Codec, FrameKind};
use crate::message::{
    Ack, Begin, Branch, Check, Difference, Finding, MasterMessage, Order, Plan, Report, SlaveMessage,
    Standing, Verified, Welcome,
};
use crate::session::{HEARTBEAT_INTERVAL, SILENCE_MAX, WANTS_MAX};
use crate::{Epoch, Frame, Id, Lsn, Position, TreePath};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn epoch(number: u8) -> Epoch {
    Epoch { number: u64::from(number), id: Id([number; 16]) }
}

fn at(number: u8, lsn: u64) -> Position {
    Position { epoch: epoch(number), lsn: Lsn::new(lsn) }
}

/// A session with a clock; outputs as short words.
struct Story {
    session: Session,
    now: Instant,
}

impl Story {
    /// Epoch 2 branched off epoch 1 at record 50; the log of epoch 2 holds records 11 to 100.
    fn new() -> Story {
        let now = Instant::now();
        let lineage =
            vec![Branch { epoch: epoch(1), from: None }, Branch { epoch: epoch(2), from: Some(at(1, 50)) }];
        let config = Config { software: "t".into(), filesystem: Id([1; 16]), lineage, jitter_seed: 5 };
        let mut story = Story { session: Session::new(config, Known::default(), now), now };
        story.log(100, 11);
        story
    }

    fn tell(&mut self, input: Input) -> Vec<String> {
        self.session.handle(input, self.now);
        std::iter::from_fn(|| self.session.poll()).map(|output| word(&output)).collect()
    }

    fn log(&mut self, head: u64, oldest: u64) -> Vec<String> {
        self.tell(Input::Log { head: Lsn::new(head), oldest: Lsn::new(oldest) })
    }

    fn pass(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.tell(Input::Tick { time_ns: 7 })
    }

    fn greet(&mut self) {
        assert_eq!(self.pass(Duration::from_secs(6)), ["dial"]);
        assert_eq!(self.tell(Input::Dialled), ["hello"]);
        assert!(self.tell(Input::Writable).is_empty());
    }

    fn welcome(&mut self, standing: Standing) -> Vec<String> {
        self.welcome_checking(standing, Check::None)
    }

    fn welcome_checking(&mut self, standing: Standing, check: Check) -> Vec<String> {
        let (software, not_carried) = ("t".into(), Vec::new());
        let welcome =
            Welcome { software, replica: Id([2; 16]), standing, checksum: None, not_carried, check };
        self.tell(Input::Received(SlaveMessage::Welcome(welcome)))
    }

    fn stream(after: u64) -> Story {
        let mut story = Story::new();
        story.greet();
        story.welcome(equal(at(2, after)));
        story
    }

    fn ack(&mut self, received: u64, applied: u64, durable: u64) -> Vec<String> {
        let (received, applied, durable) = (Lsn::new(received), Lsn::new(applied), Lsn::new(durable));
        self.tell(Input::Received(SlaveMessage::Ack(Ack { received, applied, durable })))
    }

    fn want(&mut self) -> Vec<String> {
        let want = Want { id: 1, path: TreePath::root(), what: Wanted::Listing { after: None } };
        self.tell(Input::Received(SlaveMessage::Want(want)))
    }

    fn answered(&mut self, connection: u64, as_of: u64) -> Vec<String> {
        let as_of = Lsn::new(as_of);
        let frame = Arc::new(Frame::new(FrameKind::Answer { as_of }, Codec::Stored, vec![0]));
        self.tell(Input::Answered { connection, as_of, frame })
    }

    fn state(&self) -> StateName {
        self.session.state_name()
    }
}

fn equal(applied: Position) -> Standing {
    Standing::Equal { applied, durable: applied.lsn }
}

fn begun(begin: &Begin) -> String {
    let plan = match begin.plan {
        Plan::Stream => "stream",
        Plan::Resume => "resume",
        Plan::Patch => "patch",
        Plan::Resync { checksum: false } => "resync",
        Plan::Resync { checksum: true } => "checksum",
    };
    format!("{plan} {}{}", begin.after, if begin.check { " check" } else { "" })
}

fn word(output: &Output) -> String {
    match output {
        Output::Dial => "dial".into(),
        Output::Hangup(Hangup::Fault(why)) => format!("fault: {why}"),
        Output::Hangup(Hangup::Refused(why)) => format!("refused: {why}"),
        Output::Hangup(Hangup::Gone(why)) => format!("gone: {why}"),
        Output::Send(MasterMessage::Hello(_)) => "hello".into(),
        Output::Send(MasterMessage::Begin(b)) => begun(b),
        Output::Send(MasterMessage::Lost(_)) => "lost".into(),
        Output::Send(MasterMessage::Order(order)) => format!("{order:?}"),
        Output::Found(_) => "found".into(),
        Output::Send(MasterMessage::Heartbeat(_)) => "heartbeat".into(),
        Output::Send(MasterMessage::Refuse(_)) => "refuse".into(),
        Output::Send(MasterMessage::Bye(_)) => "bye".into(),
        Output::SendAnswer(_) => "answer".into(),
        Output::Records { after, up_to } => format!("records {after}..{up_to}"),
        Output::Ask { connection, .. } => format!("ask {connection}"),
    }
}

#[test]
fn a_stream_begins_where_the_replica_is_if_the_log_reaches_back() {
    let resync = "resync 100";
    for (standing, begin) in [
        (equal(at(2, 10)), "stream 10"),
        (equal(at(2, 100)), "stream 100"),
        (equal(at(2, 9)), resync),
        (equal(at(2, 101)), resync),
        (equal(at(1, 50)), resync),
        (equal(at(3, 50)), resync),
        (Standing::New, resync),
        (Standing::Resyncing { applied: at(2, 100), resumable: false }, resync),
        (Standing::Resyncing { applied: at(2, 50), resumable: true }, "resume 50"),
        (Standing::Resyncing { applied: at(2, 9), resumable: true }, resync),
    ] {
        let mut story = Story::new();
        story.greet();
        assert_eq!(story.welcome(standing), [begin], "{standing:?}");
    }
    let mut story = Story::new();
    story.greet();
    story.tell(Input::Met { trail: None, is_foreign: true });
    assert_eq!(story.welcome(equal(at(2, 50))), [resync], "its history is another one");
    let mut story = Story::new();
    story.log(100, 1);
    story.greet();
    assert_eq!(story.welcome(equal(at(1, 50))), ["stream 0"], "the branch point, and the log is whole");
}

/// tdfs(8): "its cause ... and the differences: how many objects were not equal"
#[test]
fn the_cause_of_a_resync_is_told() {
    for (standing, cause) in [
        (Standing::New, Cause::FirstCopy),
        (Standing::InDoubt { since: at(2, 50) }, Cause::SlaveCrash),
        (equal(at(2, 9)), Cause::LogTooShort),
        (equal(at(2, 101)), Cause::OtherHistory),
        (equal(at(3, 50)), Cause::NewEpoch),
        (equal(at(1, 51)), Cause::NewEpoch),
    ] {
        let mut story = Story::new();
        story.greet();
        story.welcome(standing);
        let report = Report { resyncing: true, differences: 3, ..Report::default() };
        story.tell(Input::Received(SlaveMessage::Report(report)));
        let told = story.session.view().last_resync;
        assert_eq!(told, Some(LastResync { cause, differences: 3 }), "{standing:?}");
    }
}

/// ARCHITECTURE: "one that knows of less than it has told the master to be durable: by hashes". Also if the link goes
/// before the slave has noted it. Of the record that was in hand at a kill it need not know.
#[test]
fn a_slave_that_knows_of_less_than_it_made_durable_is_resynced_by_hashes() {
    let durable = |durable| {
        let mut story = Story::stream(60);
        story.tell(Input::Writable);
        story.tell(Input::Sent(Lsn::new(80)));
        story.ack(80, 80, durable);
        story.tell(Input::Lost("cut".into()));
        story.greet();
        story
    };
    assert_eq!(durable(80).welcome(equal(at(2, 80))), ["stream 80"]);
    assert_eq!(durable(80).welcome(equal(at(2, 79))), ["stream 79"], "80 was in hand");
    let mut story = durable(80);
    assert_eq!(story.welcome(equal(at(2, 78))), ["checksum 100"]);
    story.tell(Input::Lost("cut".into()));
    story.greet();
    assert_eq!(story.welcome(equal(at(2, 78))), ["checksum 100"], "it has not noted it yet");
    let report = Report { resyncing: true, ..Report::default() };
    story.tell(Input::Received(SlaveMessage::Report(report)));
    assert_eq!(story.session.view().resyncs, 1);
    story.tell(Input::Lost("cut".into()));
    story.greet();
    assert_eq!(story.welcome(equal(at(2, 100))), ["stream 100"], "that is over");
}

/// DESIGN section 8: "After an OS crash of the slave ... everything since durable is in doubt: resync of the paths that
/// the log names in that range ...; the whole tree if the log no longer has it."
#[test]
fn a_replica_in_doubt_compares_what_the_log_names_since() {
    let covered = |after| Covered { after: Lsn::new(after), up_to: Lsn::new(100), paths: Vec::new() };
    for (since, trail, begin) in [
        (at(2, 60), Some(covered(60)), ["patch 100"].as_slice()),
        (at(2, 60), Some(covered(61)), &["resync 100"]),
        (at(1, 60), Some(covered(60)), &["resync 100"]),
        (at(2, 60), None, &["resync 100"]),
    ] {
        let mut story = Story::new();
        story.greet();
        story.tell(Input::Met { trail, is_foreign: false });
        assert_eq!(story.welcome(Standing::InDoubt { since }), begin);
        assert!(story.session.view().needs_resync);
        assert_eq!(
            story.session.view().progress.durable,
            Lsn::ZERO,
            "nothing of it is safe in the log alone"
        );
    }
}

#[test]
fn positions_are_followed_through_branches() {
    let lineage = [
        Branch { epoch: epoch(1), from: None },
        Branch { epoch: epoch(2), from: Some(at(1, 50)) },
        Branch { epoch: epoch(3), from: Some(at(2, 0)) },
    ];
    assert_eq!(present_lsn(&lineage, at(3, 9)), Some(Lsn::new(9)));
    assert_eq!(present_lsn(&lineage, at(1, 50)), Some(Lsn::ZERO));
    assert_eq!(present_lsn(&lineage, at(1, 49)), None);
    assert_eq!(present_lsn(&lineage, at(2, 1)), None);
    assert_eq!(present_lsn(&lineage, at(4, 1)), None);
}

#[test]
fn records_go_out_as_the_connection_takes_them() {
    let mut story = Story::stream(90);
    assert_eq!(story.state(), StateName::CatchUp);
    assert_eq!(story.tell(Input::Writable), ["records 90..100"]);
    assert!(story.log(102, 11).is_empty(), "one read at a time");
    assert!(story.tell(Input::Sent(Lsn::new(95))).is_empty(), "no permit");
    assert_eq!(story.tell(Input::Writable), ["records 95..102"]);
    story.tell(Input::Sent(Lsn::new(102)));
    assert!(story.tell(Input::Writable).is_empty());
    assert_eq!(story.state(), StateName::Streaming);
    assert_eq!(story.log(103, 11), ["records 102..103"], "at once");
}

#[test]
fn an_answer_goes_right_after_its_record() {
    let mut story = Story::stream(90);
    assert_eq!(story.want(), ["ask 1"]);
    story.want();
    story.want();
    story.answered(1, 95);
    story.answered(1, 93);
    story.answered(1, 100);
    assert_eq!(story.tell(Input::Writable), ["records 90..93"]);
    story.tell(Input::Sent(Lsn::new(93)));
    assert_eq!(story.tell(Input::Writable), ["answer"]);
    story.pass(HEARTBEAT_INTERVAL);
    assert_eq!(story.tell(Input::Writable), ["heartbeat"]);
    assert_eq!(story.tell(Input::Writable), ["records 93..95"]);
    story.tell(Input::Sent(Lsn::new(95)));
    assert_eq!(story.tell(Input::Writable), ["answer"]);
    assert_eq!(story.tell(Input::Writable), ["records 95..100"]);
}

#[test]
fn a_late_answer_goes_at_the_cursor() {
    let mut story = Story::stream(90);
    story.want();
    assert_eq!(story.tell(Input::Writable), ["records 90..100"]);
    story.answered(1, 92);
    story.tell(Input::Sent(Lsn::new(96)));
    assert_eq!(story.tell(Input::Writable), ["answer"]);
    assert_eq!(story.tell(Input::Writable), ["records 96..100"]);
}

#[test]
fn answers_of_a_connection_that_is_gone_are_dropped() {
    let mut story = Story::stream(100);
    story.want();
    story.tell(Input::Lost("cut".into()));
    assert_eq!(story.state(), StateName::Away);
    story.greet();
    story.welcome(equal(at(2, 100)));
    assert!(story.answered(1, 100).is_empty());
    assert!(story.tell(Input::Writable).is_empty());
}

#[test]
fn what_the_slave_claims_is_checked() {
    for (received, applied, durable) in
        [(101, 90, 90), (95, 96, 90), (95, 94, 95), (89, 89, 89), (90, 90, 89)]
    {
        let mut story = Story::stream(90);
        story.tell(Input::Writable);
        story.tell(Input::Sent(Lsn::new(100)));
        let done = story.ack(received, applied, durable);
        assert!(done[0].starts_with("fault: an ack"), "{done:?}");
        assert_eq!(story.state(), StateName::Away);
    }
    let mut story = Story::stream(90);
    story.tell(Input::Writable);
    story.tell(Input::Sent(Lsn::new(100)));
    assert!(story.ack(100, 95, 90).is_empty());
    assert_eq!(story.session.progress().applied, Lsn::new(95));
}

#[test]
fn too_many_wants_end_the_connection() {
    let mut story = Story::stream(100);
    for _ in 0..WANTS_MAX {
        assert_eq!(story.want(), ["ask 1"]);
    }
    assert_eq!(story.want(), ["fault: more than 64 wants at once"]);
}

#[test]
fn a_resync_lasts_until_the_slave_says_so() {
    let mut story = Story::new();
    story.greet();
    story.welcome(Standing::New);
    assert_eq!(story.state(), StateName::Resyncing);
    assert!(story.session.view().needs_resync);
    let report = |resyncing, stalled| {
        Input::Received(SlaveMessage::Report(Report { resyncing, stalled, ..Report::default() }))
    };
    story.tell(report(true, Some("no space".into())));
    assert_eq!(story.state(), StateName::Stalled);
    story.tell(report(true, None));
    assert_eq!(story.state(), StateName::Resyncing);
    story.tell(report(false, None));
    story.tell(Input::Writable);
    assert_eq!(story.state(), StateName::Streaming);
    assert!(!story.session.view().needs_resync);
    assert_eq!(story.session.view().resyncs, 1);
}

#[test]
fn a_log_that_no_longer_reaches_back_means_a_new_handshake_and_a_resync() {
    let mut story = Story::stream(90);
    let done = story.log(200, 92);
    assert!(done[0].starts_with("gone: it is so far behind"), "{done:?}");
    assert!(story.session.view().needs_resync);
    story.greet();
    assert_eq!(story.welcome(equal(at(2, 90))), ["resync 200"]);
}

#[test]
fn silence_ends_the_connection_and_heartbeats_are_sent() {
    let mut story = Story::stream(100);
    story.tell(Input::Writable);
    for _ in 0..9 {
        assert_eq!(story.pass(HEARTBEAT_INTERVAL), ["heartbeat"]);
        story.tell(Input::Writable);
    }
    assert_eq!(story.pass(HEARTBEAT_INTERVAL), ["gone: silent for too long"]);
    let mut story = Story::stream(100);
    story.tell(Input::Writable);
    for _ in 0..30 {
        story.ack(100, 100, 100);
        story.pass(SILENCE_MAX / 2);
    }
    assert_eq!(story.state(), StateName::Streaming);
}

#[test]
fn dialling_never_ends_and_slows_down() {
    let mut story = Story::new();
    let mut delays = Vec::new();
    for _ in 0..12 {
        let deadline = story.session.deadline().unwrap();
        delays.push(deadline - story.now);
        assert_eq!(story.pass(deadline - story.now), ["dial"]);
        story.tell(Input::DialFailed("nobody".into()));
        assert_eq!(story.state(), StateName::Away);
    }
    assert_eq!(delays[0], Duration::ZERO);
    assert!(delays[1] <= Duration::from_millis(100) && delays[1] >= Duration::from_millis(75));
    assert!(delays[11] <= Duration::from_secs(5) && delays[11] >= Duration::from_millis(3750));
    assert_eq!(story.session.view().last_error.as_deref(), Some("nobody"));
}

#[test]
fn a_refusal_is_shown_and_tried_again() {
    let mut story = Story::new();
    story.greet();
    let refuse = || Input::Received(SlaveMessage::Refuse("not mine".into()));
    assert_eq!(story.tell(refuse()), ["refused: not mine"]);
    assert_eq!(
        (story.state(), story.session.view().last_error),
        (StateName::Refused, Some("not mine".into()))
    );
    story.greet();
    assert_eq!(story.state(), StateName::Refused, "until it is welcome");
    story.welcome(equal(at(2, 100)));
    assert_eq!(story.session.view().last_error, None);
}

#[test]
fn messages_out_of_place_are_faults() {
    let mut story = Story::new();
    story.greet();
    let done = story.ack(1, 1, 1);
    assert_eq!(done, ["fault: a message that does not belong here: ack"]);
    let mut story = Story::stream(100);
    let done = story.welcome(Standing::New);
    assert_eq!(done, ["fault: a message that does not belong here: welcome"]);
}

#[test]
fn goodbye_is_said_before_the_end() {
    let mut story = Story::stream(100);
    assert!(story.tell(Input::Stop("the master ends".into())).is_empty(), "a frame is on its way");
    assert_eq!(story.tell(Input::Writable), ["bye"]);
    assert_eq!(story.tell(Input::Writable), ["gone: the master ends"]);
    assert!(story.session.is_ended());
    let mut story = Story::stream(100);
    story.tell(Input::Stop("the master ends".into()));
    assert_eq!(story.pass(Duration::from_secs(1)), ["gone: the master ends"], "a slave that takes nothing");
}

#[test]
fn a_new_epoch_begins_with_a_new_handshake() {
    let mut story = Story::stream(100);
    let branch = |number, from| Branch { epoch: epoch(number), from };
    let done = story.tell(Input::Lineage(vec![branch(2, None), branch(3, Some(at(2, 100)))]));
    assert_eq!(done, ["gone: a new epoch has begun"]);
    story.greet();
    assert_eq!(story.welcome(equal(at(2, 100))), ["stream 0"]);
}

fn checking(checking: bool, resyncing: bool) -> Input {
    Input::Received(SlaveMessage::Report(Report { checking, resyncing, ..Report::default() }))
}

/// DESIGN section 7: "When tdfs starts ... it checks every slave in the background".
#[test]
fn a_check_is_due_until_the_slave_knows_of_it() {
    let mut story = Story::new();
    story.session.known.check_due = true;
    story.greet();
    assert_eq!(story.welcome(equal(at(2, 100))), ["stream 100 check"]);
    assert!(story.session.view().checking);
    // The connection is lost before the slave got it.
    story.tell(Input::Lost("cut".into()));
    assert!(story.session.view().checking);
    story.greet();
    assert_eq!(story.welcome(equal(at(2, 100))), ["stream 100 check"]);
    story.tell(checking(true, false));
    story.tell(Input::Lost("cut".into()));
    assert!(story.session.view().checking, "it goes on, connected or not");
    // It says so itself from now on.
    for (check, begin) in
        [(Check::Running, "stream 100"), (Check::Unfinished, "stream 100 check"), (Check::None, "stream 100")]
    {
        story.greet();
        assert_eq!(story.welcome_checking(equal(at(2, 100)), check), [begin], "{check:?}");
        story.tell(Input::Lost("cut".into()));
    }
    assert_eq!(story.session.view().resyncs, 0);
}

/// A check that finds something becomes a resync, and is counted as one.
#[test]
fn a_check_that_finds_something_counts() {
    let mut story = Story::new();
    story.session.known.check_due = true;
    story.greet();
    story.welcome(equal(at(2, 100)));
    story.tell(checking(true, false));
    assert_eq!((story.state(), story.session.view().resyncs), (StateName::CatchUp, 0));
    story.tell(checking(true, true));
    assert_eq!((story.state(), story.session.view().resyncs), (StateName::Resyncing, 1));
    assert!(story.session.view().needs_resync);
    story.tell(checking(false, true));
    story.tell(checking(false, false));
    assert_eq!(story.session.view().resyncs, 1);
    assert!(!story.session.view().needs_resync && !story.session.view().checking);
}

/// Of what a slave has to report only the newest goes out: it need not ever say that the check goes on.
#[test]
fn a_check_that_a_resync_has_taken_over_before_a_report_is_not_due_any_more() {
    let mut story = Story::new();
    story.session.known.check_due = true;
    story.greet();
    assert_eq!(story.welcome(equal(at(2, 100))), ["stream 100 check"]);
    story.tell(checking(false, true));
    story.tell(checking(false, false));
    assert!(!story.session.view().needs_resync && !story.session.view().checking);
}

#[test]
fn a_resync_by_hand_begins_anew_with_what_was_asked_for() {
    for (checksum, begin) in [(false, "resync 100"), (true, "checksum 100")] {
        let mut story = Story::stream(100);
        story.tell(Input::Resync { checksum });
        story.greet();
        let resumable = Standing::Resyncing { applied: at(2, 100), resumable: true };
        assert_eq!(story.welcome(resumable), [begin]);
        // The connection is lost before the slave has begun: what was asked for stays so.
        story.tell(Input::Lost("cut".into()));
        story.greet();
        assert_eq!(story.welcome(equal(at(2, 100))), [begin]);
        story.tell(checking(false, true));
        assert_eq!(story.session.view().resyncs, 1);
        story.tell(Input::Lost("cut".into()));
        story.greet();
        assert_eq!(story.welcome(resumable), ["resume 100"]);
        assert_eq!(story.session.view().resyncs, 1);
    }
}

/// A comparison is ordered again in each stream until it ends; what was cancelled says no more.
#[test]
fn verify_is_ordered_until_it_ends() {
    let verify = Order::Verify { id: 7, repair: false };
    let mut story = Story::new();
    story.tell(Input::Order(verify));
    story.greet();
    story.welcome(equal(at(2, 100)));
    assert_eq!(story.tell(Input::Writable), [format!("{verify:?}")]);
    let found = |verify| {
        let (path, what) = (TreePath::root(), Difference::Content);
        Input::Received(SlaveMessage::Finding(Finding::Difference { verify, path, what }))
    };
    assert_eq!(story.tell(found(7)), ["found"]);
    assert!(story.tell(found(6)).is_empty(), "an earlier one");
    story.tell(Input::Lost("cut".into()));
    story.greet();
    story.welcome(equal(at(2, 100)));
    assert_eq!(story.tell(Input::Writable), [format!("{verify:?}")], "once more");
    story.tell(Input::Writable);
    let ended = Verified { verify: 7, as_of: Lsn::new(100), objects: 1, bytes: 0, differences: 0 };
    assert_eq!(story.tell(Input::Received(SlaveMessage::Finding(Finding::Ended(ended)))), ["found"]);
    story.tell(Input::Lost("cut".into()));
    story.greet();
    story.welcome(equal(at(2, 100)));
    assert!(story.tell(Input::Writable).is_empty(), "it has ended");
    story.tell(Input::Order(verify));
    story.tell(Input::Writable);
    assert_eq!(story.tell(Input::Order(Order::Cancel { id: 7 })), [format!("{:?}", Order::Cancel { id: 7 })]);
    assert!(story.tell(found(7)).is_empty());
}
