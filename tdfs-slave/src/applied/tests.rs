//! Tests of the applied position: what is read after a kill, a torn sector, a newer version.

use super::*;
use std::path::PathBuf;

const EPOCH: Epoch = Epoch { number: 3, id: Id([7; 16]) };
const BOOT: Id = Id([1; 16]);

fn at(lsn: u64) -> Position {
    Position { epoch: EPOCH, lsn: Lsn::new(lsn) }
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("applied");
    (dir, path)
}

#[test]
fn a_new_file_says_nothing() {
    let (_dir, path) = file();
    let (_, noted) = Applied::open(&path, BOOT).unwrap();
    assert_eq!((noted.epoch, noted.applied, noted.doubt, noted.closed), (NO_EPOCH, Lsn::ZERO, None, false));
    // Killed before it wrote any position.
    assert_eq!(Applied::open(&path, BOOT).unwrap().1, noted);
}

#[test]
fn at_most_the_record_in_hand_is_in_doubt_after_a_kill() {
    let (_dir, path) = file();
    let (mut applied, _) = Applied::open(&path, BOOT).unwrap();
    applied.reset(at(10)).unwrap();
    let noted = |doubt, lsn| {
        let noted = Applied::open(&path, BOOT).unwrap().1;
        assert_eq!((noted.doubt, noted.applied, noted.epoch), (doubt, Lsn::new(lsn), EPOCH));
    };
    noted(None, 10);
    applied.take_in_hand([5, 6]).unwrap();
    noted(Some([5, 6]), 10);
    applied.done(7);
    noted(Some([5, 6]), 10);
    applied.take_in_hand([0, 0]).unwrap();
    noted(Some([0, 0]), 11);
    applied.done(7);
    applied.settle().unwrap();
    noted(None, 12);
    assert_eq!(applied.position(), at(12));
}

#[test]
fn an_opened_file_does_not_look_closed_after_a_power_cut() {
    let (_dir, path) = file();
    let (mut applied, _) = Applied::open(&path, BOOT).unwrap();
    applied.reset(at(3)).unwrap();
    applied.take_in_hand([5, 6]).unwrap();
    applied.done(7);
    applied.for_sync().advance(applied.position()).unwrap();
    applied.close().unwrap();
    let (mut applied, noted) = Applied::open(&path, BOOT).unwrap();
    assert!(noted.closed);
    applied.mark_open().unwrap();
    let noted = Applied::open(&path, BOOT).unwrap().1;
    assert!(!noted.closed);
    assert_eq!(noted.applied, Lsn::new(4));
}

#[test]
fn a_torn_slot_leaves_the_one_before() {
    let (_dir, path) = file();
    let (mut applied, _) = Applied::open(&path, BOOT).unwrap();
    applied.reset(at(1)).unwrap();
    for _ in 0..5 {
        applied.take_in_hand([1, 1]).unwrap();
        applied.done(7);
    }
    let newest = SLOTS[usize::from(applied.slot.sequence % 2 == 1)];
    applied.file.write_all_at(&[0xff; 8], newest + 40).unwrap();
    assert_eq!(Applied::open(&path, BOOT).unwrap().1.applied, Lsn::new(4));
    for at in SLOTS {
        applied.file.write_all_at(&[0xff; 8], at).unwrap();
    }
    let error = Applied::open(&path, BOOT).unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
}

#[test]
fn durable_is_what_was_applied_when_the_sync_began() {
    let (_dir, path) = file();
    let (mut applied, _) = Applied::open(&path, BOOT).unwrap();
    applied.reset(at(0)).unwrap();
    let sync = applied.for_sync();
    applied.take_in_hand([0, 0]).unwrap();
    applied.done(7);
    let began = sync.applied();
    applied.take_in_hand([0, 0]).unwrap();
    applied.done(7);
    assert_eq!(applied.durable(), Lsn::ZERO);
    assert_eq!(sync.advance(began).unwrap(), Lsn::new(1));
    // A slower sync that began earlier takes nothing back.
    assert_eq!(sync.advance(at(0)).unwrap(), Lsn::new(1));
    assert_eq!(Applied::open(&path, BOOT).unwrap().1.durable, Lsn::new(1));
    // One that began in another epoch says nothing about this one.
    applied.reset(Position { epoch: Epoch { number: 4, ..EPOCH }, lsn: Lsn::ZERO }).unwrap();
    assert_eq!(sync.advance(at(2)).unwrap(), Lsn::ZERO);
}

#[test]
fn only_an_end_with_all_on_disk_is_closed() {
    let (_dir, path) = file();
    let (mut applied, _) = Applied::open(&path, BOOT).unwrap();
    applied.reset(at(0)).unwrap();
    applied.take_in_hand([0, 0]).unwrap();
    applied.done(7);
    applied.close().unwrap();
    assert!(!Applied::open(&path, BOOT).unwrap().1.closed);
    let sync = applied.for_sync();
    sync.advance(sync.applied()).unwrap();
    applied.close().unwrap();
    let (mut applied, noted) = Applied::open(&path, Id([2; 16])).unwrap();
    assert!(noted.closed && noted.boot == BOOT);
    applied.take_in_hand([0, 0]).unwrap();
    let noted = Applied::open(&path, BOOT).unwrap().1;
    assert!(!noted.closed && noted.boot == Id([2; 16]));
}

#[test]
fn a_newer_version_is_refused_in_words() {
    let (_dir, path) = file();
    drop(Applied::open(&path, BOOT).unwrap());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&(STATE + 1).to_le_bytes(), 8).unwrap();
    let error = Applied::open(&path, BOOT).unwrap_err();
    assert!(error.to_string().contains("newer TDFS"), "{error}");
    file.write_all_at(b"something", 0).unwrap();
    let error = Applied::open(&path, BOOT).unwrap_err();
    assert!(error.to_string().contains("no file of a TDFS slave"), "{error}");
}
