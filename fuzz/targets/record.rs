//! Records: what a slave replays, and what a segment holds.

use super::message::check_path;
use tdfs_wire::record::{Draft, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, Record, RecordHeader};
use tdfs_wire::session::slave::check_records;
use tdfs_wire::trail::Trail;
use tdfs_wire::{Lsn, Op};

/// A trail that is widened soon.
const TRAIL_BYTES: usize = 4096;

/// A run of records: as it is, and with each checksum made right.
pub fn run(bytes: &[u8]) {
    read(bytes);
    let mut mended = bytes.to_vec();
    let mut at = 0;
    while let Ok(header) = RecordHeader::parse(&mended[at..]) {
        let end = (at + header.len).min(mended.len());
        sign(&mut mended[at..end]);
        at = end;
    }
    read(&mended);
}

/// Makes the checksum of a record right.
pub fn sign(record: &mut [u8]) {
    let Some(payload) = record.get(RECORD_HEADER_BYTES..) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c(payload), &record[8..RECORD_HEADER_BYTES]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn read(bytes: &[u8]) {
    let mut trail = Trail::new(TRAIL_BYTES);
    let mut rest = bytes;
    while let Ok((record, len)) = Record::parse(rest) {
        assert!(len <= RECORD_BYTES_MAX && record.lsn <= Lsn::MAX);
        let mut draft =
            Draft::owned(&record.op, record.owners, record.bulk).expect("what was read is within the limits");
        assert_eq!(draft.place(record.lsn, record.time_ns).concat(), rest[..len], "one reading");
        check_op(&record.op, record.bulk);
        trail.follow(&record.op);
        assert!(trail.bytes() <= TRAIL_BYTES, "a trail is bounded");
        rest = &rest[len..];
    }
    let kept = Trail::from_bytes(&trail.to_bytes(), TRAIL_BYTES).expect("our own trail");
    assert_eq!(kept.paths(), trail.paths());
    if let Ok(header) = RecordHeader::parse(bytes) {
        for count in [1, 2, u32::MAX] {
            let _ = check_records(bytes, header.lsn, count);
        }
    }
}

fn check_op(op: &Op, bulk: &[u8]) {
    assert_eq!(op.check(bulk.len()), Ok(()));
    op.paths().into_iter().for_each(check_path);
}
