//! Each message of both directions, as it stands in a frame's payload.

use crate::values::{epoch, id, path, position};
use crate::{files, variants};
use std::fmt::Debug;
use tdfs_wire::answer::{Want, Wanted};
use tdfs_wire::message::{
    Ack, Begin, Branch, Check, Difference, Finding, Heartbeat, Hello, Lost, MasterMessage, Message, Order,
    Phase, Plan, Report, ResyncProgress, SlaveMessage, Standing, Verified, Welcome,
};
use tdfs_wire::trail::Extent;
use tdfs_wire::{Lsn, Name};

fn begin(plan: Plan) -> MasterMessage {
    MasterMessage::Begin(Begin { epoch: epoch(), after: Lsn::new(78), plan, check: plan == Plan::Stream })
}

fn master() -> Vec<(&'static str, MasterMessage)> {
    let branch = Branch { epoch: position().epoch, from: None };
    let hello = Hello {
        software: "tdfs 0.1.0".into(),
        filesystem: id(0x10),
        lineage: vec![branch, Branch { epoch: epoch(), from: Some(position()) }],
        head: Lsn::new(99),
    };
    let heartbeat = Heartbeat { head: Lsn::new(99), durable: Lsn::new(98), time_ns: -1 };
    vec![
        ("master/hello", MasterMessage::Hello(hello)),
        ("master/begin-stream", begin(Plan::Stream)),
        ("master/begin-resume", begin(Plan::Resume)),
        ("master/begin-patch", begin(Plan::Patch)),
        ("master/begin-resync", begin(Plan::Resync { checksum: true })),
        ("master/heartbeat", MasterMessage::Heartbeat(heartbeat)),
        ("master/refuse", MasterMessage::Refuse("not \u{201e}mine\u{201c}".into())),
        ("master/bye", MasterMessage::Bye("stopped".into())),
        (
            "master/lost",
            MasterMessage::Lost(Lost {
                paths: vec![(path("a"), Extent::All), (path("b/c"), Extent::Itself)],
                last: true,
            }),
        ),
        ("master/order-verify", MasterMessage::Order(Order::Verify { id: 7, repair: true })),
        ("master/order-cancel", MasterMessage::Order(Order::Cancel { id: 7 })),
        ("master/order-confirm", MasterMessage::Order(Order::Confirm)),
    ]
}

fn welcome(standing: Standing, check: Check) -> SlaveMessage {
    let not_carried = vec!["owner".into(), "trusted xattrs".into()];
    let software = "tdfs-slave 0.1.0".into();
    let checksum = (check == Check::Running).then_some(0xc0de);
    SlaveMessage::Welcome(Welcome { software, replica: id(0x20), standing, checksum, not_carried, check })
}

fn progress(phase: Phase) -> ResyncProgress {
    ResyncProgress { phase, objects_done: 1, objects_left: 2, bytes_done: 3, bytes_left: 4, differences: 5 }
}

fn want(what: Wanted) -> SlaveMessage {
    SlaveMessage::Want(Want { id: 12, path: path("dir"), what })
}

fn slave() -> Vec<(&'static str, SlaveMessage)> {
    let ack = Ack { received: Lsn::new(13), applied: Lsn::new(12), durable: Lsn::new(11) };
    let stalled = Report {
        resyncing: true,
        checking: false,
        stalled: Some("no space left".into()),
        divergences: 4,
        last_error: Some("EIO".into()),
        differences: 9,
        resync: Some(progress(Phase::Resyncing)),
        verify: Some(progress(Phase::Waiting)),
    };
    let checking = Report { checking: true, ..Report::default() };
    let report = |phase| SlaveMessage::Report(Report { resync: Some(progress(phase)), ..Report::default() });
    let difference = |what| SlaveMessage::Finding(Finding::Difference { verify: 7, path: path("f"), what });
    let ended = Verified { verify: 7, as_of: Lsn::new(80), objects: 5, bytes: 1 << 33, differences: 6 };
    let applied = position();
    vec![
        ("slave/welcome-new", welcome(Standing::New, Check::None)),
        ("slave/welcome-equal", welcome(Standing::Equal { applied, durable: Lsn::new(76) }, Check::Running)),
        (
            "slave/welcome-resyncing",
            welcome(Standing::Resyncing { applied, resumable: true }, Check::Unfinished),
        ),
        ("slave/welcome-in-doubt", welcome(Standing::InDoubt { since: applied }, Check::None)),
        ("slave/ack", SlaveMessage::Ack(ack)),
        ("slave/report-stalled", SlaveMessage::Report(stalled)),
        ("slave/report-checking", SlaveMessage::Report(checking)),
        ("slave/report-phase-checking", report(Phase::Checking)),
        ("slave/report-phase-confirm", report(Phase::Confirm)),
        ("slave/report-phase-verifying", report(Phase::Verifying)),
        ("slave/finding-missing", difference(Difference::Missing)),
        ("slave/finding-extra", difference(Difference::Extra)),
        ("slave/finding-kind", difference(Difference::Kind)),
        ("slave/finding-content", difference(Difference::Content)),
        ("slave/finding-attributes", difference(Difference::Attributes)),
        ("slave/finding-links", difference(Difference::Links)),
        ("slave/finding-ended", SlaveMessage::Finding(Finding::Ended(ended))),
        ("slave/want-listing", want(Wanted::Listing { after: None })),
        (
            "slave/want-listing-after",
            want(Wanted::Listing { after: Some(Name::new(*b"b").expect("a name")) }),
        ),
        ("slave/want-object", want(Wanted::Object { offset: 1 << 17, hashes: vec![[0xaa; 32], [0xbb; 32]] })),
        ("slave/refuse", SlaveMessage::Refuse("busy".into())),
        ("slave/bye", SlaveMessage::Bye("stopped".into())),
    ]
}

pub fn names() -> Vec<String> {
    let master = master().into_iter().map(|(name, _)| name.into());
    master.chain(slave().into_iter().map(|(name, _)| name.into())).collect()
}

fn check<M: Message + PartialEq + Debug>(name: &str, message: &M) {
    let frame = message.frame().expect("within limits");
    files::check(name, message, frame.payload(), |bytes| M::parse(bytes).expect("a message"));
}

#[test]
fn messages() {
    master().iter().for_each(|(name, message)| check(name, message));
    slave().iter().for_each(|(name, message)| check(name, message));
}

#[test]
fn each_message_has_a_file() {
    variants::check_all_shown(master().into_iter().map(|(_, message)| message));
    variants::check_all_shown(slave().into_iter().map(|(_, message)| message));
    variants::check_all_shown(master().into_iter().filter_map(|(_, message)| match message {
        MasterMessage::Begin(begin) => Some(begin.plan),
        _ => None,
    }));
    variants::check_all_shown(slave().into_iter().filter_map(|(_, message)| match message {
        SlaveMessage::Welcome(welcome) => Some(welcome.standing),
        _ => None,
    }));
    variants::check_all_shown(master().into_iter().filter_map(|(_, message)| match message {
        MasterMessage::Order(order) => Some(order),
        _ => None,
    }));
    variants::check_all_shown(slave().into_iter().filter_map(|(_, message)| match message {
        SlaveMessage::Finding(Finding::Difference { what, .. }) => Some(what),
        _ => None,
    }));
    variants::check_all_shown(
        slave()
            .into_iter()
            .flat_map(|(_, message)| match message {
                SlaveMessage::Report(report) => report.resync.into_iter().chain(report.verify).collect(),
                _ => Vec::new(),
            })
            .map(|progress| progress.phase),
    );
    variants::check_all_shown(slave().into_iter().filter_map(|(_, message)| match message {
        SlaveMessage::Welcome(welcome) => Some(welcome.check),
        _ => None,
    }));
    variants::check_all_shown(slave().into_iter().filter_map(|(_, message)| match message {
        SlaveMessage::Want(want) => Some(want.what),
        _ => None,
    }));
}
