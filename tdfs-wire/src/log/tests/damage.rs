//! What a kill leaves is repaired; what it can't have left is damage.

use super::*;
use crate::log::segment;
use crate::log::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// DESIGN section 6: "Recovery cuts a torn tail".
#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    for last in [1, 3, 4, 5, 6] {
        let (storage, log) = filled(last);
        let name = storage.names().pop().unwrap();
        let whole = storage.read(&name);
        let record = usize::try_from(log.bytes_after(lsn(last - 1))).unwrap();
        for missing in 1..=record {
            let torn = storage.copy();
            torn.write(&name, whole[..whole.len() - missing].to_vec());
            let (log, recovered) = reopen(&torn, SMALL).unwrap();
            let cut_bytes = (record - missing) as u64;
            assert_eq!(recovered, Recovered { head: lsn(last - 1), oldest: lsn(1), cut_bytes });
            fill(&log, last + 2);
            let (log, recovered) = reopen(&torn, SMALL).unwrap();
            assert_eq!((recovered.head, recovered.cut_bytes), (lsn(last + 2), 0));
            assert_eq!(read_all(&mut log.cursor(Lsn::ZERO).unwrap(), 200), last + 2);
        }
    }
}

#[test]
fn a_segment_that_was_being_begun_is_removed() {
    let (storage, _) = filled(20);
    let name = segment::name(EPOCH, lsn(21));
    let header = SegmentHeader { epoch: EPOCH, first: lsn(21) }.encode();
    for len in 0..=SEGMENT_HEADER_BYTES {
        let torn = storage.copy();
        torn.write(&name, header[..len].to_vec());
        let (log, recovered) = reopen(&torn, SMALL).unwrap();
        assert_eq!(recovered.cut_bytes, if len < SEGMENT_HEADER_BYTES { len as u64 } else { 0 });
        assert_eq!(recovered.head, lsn(20));
        fill(&log, 25);
        assert_eq!(read_all(&mut log.cursor(Lsn::ZERO).unwrap(), 200), 25);
        assert_eq!(reopen(&torn, SMALL).unwrap().1.head, lsn(25));
    }
}

/// DESIGN section 6: "a hole or damage anywhere else starts a new epoch".
#[test]
fn every_flipped_byte_is_damage() {
    let (storage, _) = filled(14);
    assert!(storage.names().len() >= 3);
    for name in storage.names() {
        let whole = storage.read(&name);
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let damaged = storage.copy();
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                damaged.write(&name, bytes);
                let opened = reopen(&damaged, SMALL).map(|(_, recovered)| recovered);
                match opened {
                    Err(LogError::Damaged { file, .. }) => assert_eq!(file, name),
                    Err(LogError::Version { .. }) => assert!(at == 6 || at == 7),
                    other => panic!("{name}, byte {at} ^ {flip:#x}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn holes_are_damage() {
    let (storage, _) = filled(30);
    let names = storage.names();
    let is_damaged =
        |storage: &FaultyStorage| matches!(reopen(storage, SMALL), Err(LogError::Damaged { .. }));
    for (at, name) in names.iter().enumerate() {
        let without = storage.copy();
        crate::log::Storage::remove(&without, name).unwrap();
        let can_go = at == 0 || at + 1 == names.len();
        assert_eq!(is_damaged(&without), !can_go, "without {name}");
        if at + 1 < names.len() {
            let whole = storage.read(name);
            for cut in [1, 20, whole.len() - SEGMENT_HEADER_BYTES, whole.len()] {
                let shorter = storage.copy();
                shorter.write(name, whole[..whole.len() - cut].to_vec());
                assert!(is_damaged(&shorter), "{name} without its last {cut} bytes");
            }
        }
        let longer = storage.copy();
        longer.write(name, [&*storage.read(name), &[0; 100]].concat());
        assert!(is_damaged(&longer), "{name} with zeros behind");
    }
}

#[test]
fn a_segment_in_the_place_of_another_is_damage() {
    let (storage, _) = filled(30);
    let names = storage.names();
    storage.write(&names[1], storage.read(&names[2]));
    assert!(matches!(reopen(&storage, SMALL), Err(LogError::Damaged { .. })));
}

/// The bytes of a record that says `number`, though it may stand elsewhere.
fn record(number: u64) -> Vec<u8> {
    let (op, bulk) = op(number, 50);
    Draft::new(&op, &bulk).unwrap().place(lsn(number), 1).concat()
}

#[test]
fn a_record_in_the_place_of_another_is_damage() {
    let (storage, _) = filled(0);
    let (name, header) = (storage.names().remove(0), storage.read(&storage.names()[0]));
    let opened = |records: &[Vec<u8>]| {
        storage.write(&name, [&*header, &records.concat()].concat());
        reopen(&storage.copy(), SMALL).map(|(_, recovered)| recovered)
    };
    assert_eq!(opened(&[record(1), record(2)]).unwrap().head, lsn(2));
    for wrong in [[2, 3], [1, 1], [1, 3], [2, 1], [1, 0]] {
        assert!(matches!(opened(&wrong.map(record)), Err(LogError::Damaged { .. })), "{wrong:?}");
    }
    // Nor can a torn tail be that of any other record, as far as its header goes.
    for (number, len, is_torn) in
        [(2, 31, true), (2, 40, true), (3, 31, true), (3, 40, false), (1, 40, false)]
    {
        let tail = record(number)[..len].to_vec();
        assert_eq!(opened(&[record(1), tail]).is_ok(), is_torn, "{len} bytes of record {number}");
    }
    let mut longer = record(2)[..40].to_vec();
    longer[0] ^= 1;
    assert!(opened(&[record(1), longer]).is_err());
}

#[test]
fn a_torn_record_before_the_last_segment_is_damage() {
    let (storage, log) = filled(30);
    for name in storage.names().iter().rev().skip(1) {
        let next = storage.names().into_iter().find(|other| other > name).unwrap();
        let (_, next) = segment::parse_name(&next).unwrap();
        let longer = storage.copy();
        longer.write(name, [&*storage.read(name), &record(next.get())[..40]].concat());
        assert!(matches!(reopen(&longer, SMALL), Err(LogError::Damaged { .. })), "behind {name}");
    }
    drop(log);
}

#[test]
fn no_segment_is_damage() {
    let storage = FaultyStorage::default();
    assert!(matches!(reopen(&storage, SMALL), Err(LogError::Damaged { .. })));
    storage.write(&segment::name(EPOCH, lsn(1)), vec![1; 20]);
    assert!(matches!(reopen(&storage, SMALL), Err(LogError::Damaged { .. })));
}

#[test]
fn a_cursor_notices_damage_under_it() {
    let (storage, log) = filled(6);
    let name = storage.names().remove(0);
    let mut cursor = log.cursor(Lsn::ZERO).unwrap();
    let mut bytes = storage.read(&name);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let mut fresh = {
        storage.write(&name, bytes);
        log.cursor(Lsn::ZERO).unwrap()
    };
    assert!(cursor.read(lsn(6), 4096).unwrap().is_some());
    assert!(matches!(fresh.read(lsn(6), 4096), Err(LogError::Damaged { .. })));
    assert_eq!(fresh.position(), Lsn::ZERO);
}

#[test]
fn other_epochs_are_removed_and_other_files_left_alone() {
    let (storage, _) = filled(10);
    let own = storage.names();
    storage.write("readme", vec![1]);
    storage.write("0000000003-1.log", vec![1]);
    storage.write(&segment::name(Epoch { number: 2, ..EPOCH }, lsn(1)), vec![1; 99]);
    let restored = Epoch { number: EPOCH.number, id: Id([8; 16]) };
    let header = SegmentHeader { epoch: restored, first: lsn(900) }.encode();
    storage.write(&segment::name(restored, lsn(900)), header.to_vec());
    assert_eq!(reopen(&storage, SMALL).unwrap().1.head, lsn(10));
    let mut left = storage.names();
    left.retain(|name| name != "readme" && name != "0000000003-1.log");
    assert_eq!(left, own);
    assert_eq!(storage.names().len(), own.len() + 2);
}

/// DESIGN section 6: "State files are versioned; newer ones are refused."
#[test]
fn a_later_version_is_refused_and_nothing_is_touched() {
    let (storage, _) = filled(10);
    let name = segment::name(Epoch { number: 9, ..EPOCH }, lsn(1));
    let mut header = SegmentHeader { epoch: EPOCH, first: lsn(1) }.encode();
    let later = crate::version::LOG + 1;
    header[6..8].copy_from_slice(&later.to_le_bytes());
    storage.write(&name, header.to_vec());
    let names = storage.names();
    let opened = reopen(&storage, SMALL).map(|_| ());
    assert!(opened.unwrap_err().to_string().contains(&format!("layout version {later}")));
    let begun = Log::create_in(storage.boxed(), EPOCH, SMALL).map(|_| ());
    assert!(matches!(begun, Err(LogError::Version { theirs, .. }) if theirs == later));
    assert_eq!(storage.names(), names);
}

#[test]
fn names_are_parsed_as_they_are_built() {
    let name = segment::name(EPOCH, lsn(42));
    assert_eq!(name, "0000000003-00000000000000000042.log");
    assert_eq!(segment::parse_name(&name), Some((3, lsn(42))));
    let huge = Epoch { number: u64::MAX, ..EPOCH };
    assert_eq!(segment::parse_name(&segment::name(huge, lsn(1))), Some((u64::MAX, lsn(1))));
    for wrong in [
        "",
        ".log",
        "x.log",
        "0000000003-00000000000000000000.log",
        "0000000003-18446744073709551615.log",
        "0000000003-99999999999999999999.log",
        "0000000003-+0000000000000000042.log",
        "0000000003-00000000000000000042.log.tmp",
        "3-42.log",
    ] {
        assert_eq!(segment::parse_name(wrong), None, "{wrong}");
    }
}
