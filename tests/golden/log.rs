//! A log segment: its file name, its header, and a record behind it, as they stand on disk.

use crate::files;
use crate::values::{MTIME, TIME_NS, epoch, path};
use std::fs;
use tdfs_wire::log::{Log, Options, SEGMENT_HEADER_BYTES, SegmentHeader};
use tdfs_wire::op::AttrOp;
use tdfs_wire::record::{Draft, Record};
use tdfs_wire::{Lsn, Op};

const HEADER: &str = "log/segment-header";
const SEGMENT: &str = "log/segment";
const FILE: &str = "0000000003-00000000000000000001.log";

pub fn names() -> Vec<String> {
    [HEADER, SEGMENT].map(String::from).into()
}

#[test]
fn segment_header() {
    let header = SegmentHeader { epoch: epoch(), first: Lsn::new(0x0102_0304_0506_0708) };
    files::check(HEADER, &header, &header.encode(), |bytes| {
        let bytes: &[u8; SEGMENT_HEADER_BYTES] = bytes.try_into().unwrap();
        SegmentHeader::parse(bytes, "golden").unwrap()
    });
}

#[test]
fn segment() {
    let dir = tempfile::tempdir().unwrap();
    let op = Op::Attr(AttrOp::Times { path: path("file"), mtime: MTIME });
    let log = Log::create(dir.path(), epoch(), Options::default()).unwrap();
    let mut draft = Draft::new(&op, &[]).unwrap();
    log.append(log.reserve(draft.len()).unwrap(), &mut draft, TIME_NS).unwrap();
    let encoded = fs::read(dir.path().join(FILE)).unwrap();
    let value = (epoch(), Lsn::new(1), TIME_NS, op);
    files::check(SEGMENT, &value, &encoded, |bytes| {
        fs::write(dir.path().join(FILE), bytes).unwrap();
        let (log, _) = Log::open(dir.path(), epoch(), Options::default()).unwrap();
        let batch = log.cursor(Lsn::ZERO).unwrap().read(log.head(), 1000).unwrap().unwrap();
        let (record, _) = Record::parse(&batch.bytes).unwrap();
        (log.epoch(), record.lsn, record.time_ns, record.op)
    });
}
