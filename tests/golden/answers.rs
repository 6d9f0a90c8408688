//! Each answer, as it stands in a frame's payload: head and bulk.

use crate::values::{Bulk, LSN, meta, path};
use crate::{files, variants};
use tdfs_wire::Name;
use tdfs_wire::answer::{Answer, Found, Stretch};
use tdfs_wire::frame::Codec;
use tdfs_wire::object::{Child, Kind};

fn kinds() -> Vec<Kind> {
    vec![
        Kind::File,
        Kind::Directory,
        Kind::Symlink(b"../\xff".to_vec()),
        Kind::Fifo,
        Kind::Socket,
        Kind::Char(0x103),
        Kind::Block(0x801),
    ]
}

fn stretches() -> Vec<Stretch> {
    vec![Stretch::Same(131_072), Stretch::Hole(4096), Stretch::Data(5)]
}

fn examples() -> Vec<(&'static str, Found, &'static [u8])> {
    let child = |(nth, kind): (u64, Kind)| {
        let name = Name::new(format!("child {nth}").into_bytes()).expect("a name");
        Child { name, ino: 100 + nth, links: 1 + nth, meta: meta(kind) }
    };
    let children = (0..).zip(kinds()).map(child).collect();
    let object = Found::Object { meta: meta(Kind::File), ino: 100, links: 2, stretches: stretches() };
    vec![
        ("answer/gone", Found::Gone, b""),
        ("answer/listing", Found::Listing { meta: meta(Kind::Directory), children, last: true }, b""),
        ("answer/object", object, b"bytes"),
    ]
}

pub fn names() -> Vec<String> {
    examples().into_iter().map(|(name, ..)| name.into()).collect()
}

#[test]
fn answers() {
    for (name, found, bulk) in examples() {
        let answer = Answer { id: 12, path: path("dir"), found };
        let frame = answer.frame(LSN, bulk, Codec::Stored).unwrap();
        files::check(name, &(answer, Bulk(bulk.to_vec())), frame.payload(), |bytes| {
            let (answer, bulk) = Answer::parse(bytes).unwrap();
            (answer, Bulk(bulk.to_vec()))
        });
    }
}

#[test]
fn each_answer_has_a_file() {
    variants::check_all_shown(examples().into_iter().map(|(_, found, _)| found));
    variants::check_all_shown(kinds());
    variants::check_all_shown(stretches());
}
