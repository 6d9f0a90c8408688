//! Messages of both directions, as payloads of frames.

use std::fmt::Debug;
use tdfs_wire::codec::MESSAGE_BYTES_MAX;
use tdfs_wire::message::{Finding, MasterMessage, Message, SlaveMessage, TEXT_BYTES_MAX, TEXTS_MAX};
use tdfs_wire::text::harmless;
use tdfs_wire::{Lsn, TreePath, check_name};

/// The first byte says the direction.
pub fn run(bytes: &[u8]) {
    let Some((direction, payload)) = bytes.split_first() else { return };
    if direction % 2 == 0 {
        if let Some(message) = read::<MasterMessage>(payload) {
            check_master(&message);
        }
    } else if let Some(message) = read::<SlaveMessage>(payload) {
        check_slave(&message);
    }
}

/// What is accepted is within the limit, and is read again as the same.
fn read<M: Message + PartialEq + Debug>(payload: &[u8]) -> Option<M> {
    let message = M::parse(payload).ok()?;
    assert!(payload.len() <= MESSAGE_BYTES_MAX);
    match message.frame() {
        Ok(frame) => assert_eq!(M::parse(frame.payload()).expect("our own message"), message),
        // Its texts were escaped, and are longer now.
        Err(_) => assert!(payload.len() + (TEXTS_MAX + 1) * TEXT_BYTES_MAX > MESSAGE_BYTES_MAX),
    }
    Some(message)
}

fn check_master(message: &MasterMessage) {
    match message {
        MasterMessage::Hello(hello) => {
            check_text(&hello.software);
            check_lsn(hello.head);
        }
        MasterMessage::Begin(begin) => check_lsn(begin.after),
        MasterMessage::Refuse(why) | MasterMessage::Bye(why) => check_text(why),
        MasterMessage::Lost(lost) => lost.paths.iter().for_each(|(path, _)| check_path(path)),
        MasterMessage::Heartbeat(heartbeat) => check_lsn(heartbeat.head),
        MasterMessage::Order(_) => {}
    }
}

fn check_slave(message: &SlaveMessage) {
    match message {
        SlaveMessage::Welcome(welcome) => {
            check_text(&welcome.software);
            assert!(welcome.not_carried.len() <= TEXTS_MAX);
            welcome.not_carried.iter().for_each(|text| check_text(text));
        }
        SlaveMessage::Report(report) => {
            report.stalled.iter().chain(&report.last_error).for_each(|text| check_text(text));
        }
        SlaveMessage::Want(want) => check_path(&want.path),
        SlaveMessage::Finding(Finding::Difference { path, .. }) => check_path(path),
        SlaveMessage::Refuse(why) | SlaveMessage::Bye(why) => check_text(why),
        SlaveMessage::Ack(ack) => check_lsn(ack.received),
        SlaveMessage::Finding(Finding::Ended(ended)) => check_lsn(ended.as_of),
    }
}

/// A peer's text can be shown.
pub fn check_text(text: &str) {
    assert!(text.len() <= TEXT_BYTES_MAX);
    assert!(!text.contains(char::is_control));
    assert_eq!(harmless(text), text);
}

/// A peer's number can be counted on from.
fn check_lsn(lsn: Lsn) {
    assert!(lsn <= Lsn::MAX);
}

/// A peer's path stays below the root.
pub fn check_path(path: &TreePath) {
    for name in path.components() {
        check_name(name).expect("a name that is none");
    }
}
