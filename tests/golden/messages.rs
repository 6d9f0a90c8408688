//! Each message of both directions, as it stands in a frame's payload.

use crate::values::{epoch, id, path, position};
use crate::{files, variants};
use std::fmt::Debug;
use tdfs_wire::Lsn;
use tdfs_wire::answer::{Want, Wanted};
use tdfs_wire::message::{
    Ack, Begin, Branch, Heartbeat, Hello, MasterMessage, Message, Plan, Report, SlaveMessage, Standing,
    Welcome,
};

fn begin(plan: Plan) -> MasterMessage {
    MasterMessage::Begin(Begin { epoch: epoch(), after: Lsn::new(78), plan })
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
        ("master/begin-resync", begin(Plan::Resync)),
        ("master/heartbeat", MasterMessage::Heartbeat(heartbeat)),
        ("master/refuse", MasterMessage::Refuse("not \u{201e}mine\u{201c}".into())),
        ("master/bye", MasterMessage::Bye("stopped".into())),
    ]
}

fn welcome(standing: Standing) -> SlaveMessage {
    let not_carried = vec!["owner".into(), "trusted xattrs".into()];
    let software = "tdfs-slave 0.1.0".into();
    SlaveMessage::Welcome(Welcome { software, replica: id(0x20), standing, not_carried })
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
    };
    let checking = Report { checking: true, ..Report::default() };
    let applied = position();
    vec![
        ("slave/welcome-new", welcome(Standing::New)),
        ("slave/welcome-equal", welcome(Standing::Equal { applied, durable: Lsn::new(76) })),
        ("slave/welcome-resyncing", welcome(Standing::Resyncing { applied })),
        ("slave/ack", SlaveMessage::Ack(ack)),
        ("slave/report-stalled", SlaveMessage::Report(stalled)),
        ("slave/report-checking", SlaveMessage::Report(checking)),
        ("slave/want-listing", want(Wanted::Listing)),
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
    variants::check_all_shown(slave().into_iter().filter_map(|(_, message)| match message {
        SlaveMessage::Want(want) => Some(want.what),
        _ => None,
    }));
}
