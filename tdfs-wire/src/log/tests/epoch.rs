//! The next epoch in the place of one that can't take records any more.

use super::*;

fn next() -> Epoch {
    Epoch { number: EPOCH.number + 1, id: Id([9; 16]) }
}

/// DESIGN section 4: "If appending fails all the same (disk gone): the epoch ends there [...], a new epoch starts when
/// there is room."
#[test]
fn a_new_epoch_begins_in_place_when_there_is_room() {
    let storage = FaultyStorage::default();
    let options = Options { segment_bytes_max: 1 << 20 };
    let log = Log::create_in(storage.boxed(), EPOCH, options).unwrap();
    for number in 1..=50 {
        append(&log, number, 2_000).unwrap();
    }
    let mut cursor = log.cursor(Lsn::new(3)).unwrap();
    assert!(cursor.read(Lsn::new(4), 1).unwrap().is_some());
    storage.faults(|faults| faults.capacity = Some(1_000_000));
    assert!(log.prepare(next()).is_err_and(|e| e.is_no_space()), "a record of any size needs more");
    assert!(storage.used() < 100, "the old segments are gone all the same: {:?}", storage.names());
    assert_eq!((log.epoch(), log.head(), log.is_over()), (EPOCH, Lsn::new(50), true));
    assert!(matches!(log.cursor(Lsn::new(3)), Err(LogError::Over)));
    storage.faults(|faults| faults.capacity = Some(8 << 20));
    let prepared = log.prepare(next()).unwrap();
    assert_eq!(log.extent(), Extent { epoch: EPOCH, head: Lsn::new(50), oldest: Lsn::new(1) });
    log.begin_epoch(prepared);
    assert_eq!(log.extent(), Extent { epoch: next(), head: Lsn::ZERO, oldest: Lsn::new(1) });
    assert!(!log.is_over());
    assert!(matches!(cursor.read(Lsn::new(50), 1), Err(LogError::Over)));
    assert_eq!(cursor.epoch(), EPOCH);
    for number in 1..=20 {
        append(&log, number, 2_000).unwrap();
    }
    assert_eq!(log.cursor(Lsn::new(3)).unwrap().epoch(), next());
    log.retain(Lsn::new(5)).unwrap();
    let (again, recovered) = Log::open_in(storage.boxed(), next(), options).unwrap();
    assert_eq!((again.epoch(), recovered.head), (next(), Lsn::new(20)));
}

/// P1: what a slave gets after a change that has no record would be the tree as it never was.
#[test]
fn an_epoch_that_has_ended_is_read_no_more() {
    let storage = FaultyStorage::default();
    let log = Log::create_in(storage.boxed(), EPOCH, SMALL).unwrap();
    append(&log, 1, 100).unwrap();
    let mut cursor = log.cursor(Lsn::ZERO).unwrap();
    log.end_epoch();
    assert!(log.is_over());
    assert!(matches!(cursor.read(Lsn::new(1), 1), Err(LogError::Over)));
    assert!(matches!(log.cursor(Lsn::ZERO), Err(LogError::Over)));
    assert!(!storage.names().is_empty(), "only the next epoch's log needs their space");
    log.begin_epoch(log.prepare(next()).unwrap());
    assert!(!log.is_over());
}

/// The same after an error that is no lack of space, which the log could not take back: EIO.
#[test]
fn an_epoch_that_broke_is_left_behind() {
    let storage = FaultyStorage::default();
    let options = Options { segment_bytes_max: 1 << 20 };
    let log = Log::create_in(storage.boxed(), EPOCH, options).unwrap();
    append(&log, 1, 100).unwrap();
    storage.faults(|faults| (faults.tear, faults.truncate_fails) = (Some(10), true));
    assert!(append(&log, 2, 100).is_err());
    assert!(matches!(log.reserve(1).map(drop), Err(LogError::Broken)));
    assert!(log.prepare(next()).is_err(), "it can't be written still");
    storage.faults(|faults| (faults.write_fails, faults.truncate_fails) = (false, false));
    let prepared = log.prepare(next()).unwrap();
    log.begin_epoch(prepared);
    assert_eq!(append(&log, 1, 100).unwrap(), Lsn::new(1));
    log.sync().unwrap();
    assert_eq!(Log::open_in(storage.boxed(), next(), options).unwrap().1.head, Lsn::new(1));
}
