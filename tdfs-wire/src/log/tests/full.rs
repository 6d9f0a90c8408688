//! Full disks and failing writes: reserved space is there, a failed append leaves nothing behind.

use super::*;

fn capacity(storage: &FaultyStorage, bytes: u64) {
    storage.faults(|faults| faults.capacity = Some(bytes));
}

/// Appends until there is no space for one more; returns how many records there are.
fn fill_up(log: &Log) -> u64 {
    loop {
        let number = log.head().get() + 1;
        match append(log, number, 100) {
            Ok(_) => {}
            Err(e) if e.is_no_space() => return log.head().get(),
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_full_disk_shows_when_space_is_reserved() {
    for segment_bytes_max in [1000, 1 << 20] {
        let storage = FaultyStorage::default();
        capacity(&storage, 10_000);
        let log = Log::create_in(storage.boxed(), EPOCH, Options { segment_bytes_max }).unwrap();
        let head = fill_up(&log);
        assert!(log.reserve(10_000).is_err_and(|e| e.is_no_space()));
        assert!(log.bytes() > 8_000 && log.bytes() <= 10_000);
        capacity(&storage, 20_000);
        assert!(fill_up(&log) > head);
        assert_eq!(reopen(&storage, SMALL).unwrap().1.head, log.head());
    }
}

#[test]
fn reservations_add_up_until_they_are_used_or_dropped() {
    let storage = FaultyStorage::default();
    let options = Options { segment_bytes_max: 1 << 20 };
    let log = Log::create_in(storage.boxed(), EPOCH, options).unwrap();
    capacity(&storage, 10_000);
    let first = log.reserve(4_000).unwrap();
    let second = log.reserve(4_000).unwrap();
    assert!(log.reserve(4_000).is_err());
    drop(first);
    let third = log.reserve(4_000).unwrap();
    capacity(&storage, 0);
    for (reservation, number) in [(second, 1), (third, 2)] {
        let (op, bulk) = op(number, 3_000);
        let mut draft = Draft::new(&op, &bulk).unwrap();
        log.append(reservation, &mut draft, 0).unwrap();
    }
    // What the records did not need was given back.
    drop(log.reserve(1_500).unwrap());
    assert!(log.reserve(2_000).is_err());
}

#[test]
fn reserved_space_outlives_the_begin_of_a_segment() {
    let storage = FaultyStorage::default();
    let log = Log::create_in(storage.boxed(), EPOCH, SMALL).unwrap();
    let (op, bulk) = op(9, 300);
    let mut draft = Draft::new(&op, &bulk).unwrap();
    let mut waiting = vec![log.reserve(draft.len()).unwrap()];
    while storage.names().len() < 4 {
        fill(&log, log.head().get() + 1);
        waiting.push(log.reserve(draft.len()).unwrap());
    }
    capacity(&storage, 0);
    for reservation in waiting {
        log.append(reservation, &mut draft, 0).unwrap();
    }
}

/// A file system that copies on write keeps no promise of space: an append can fail that had a reservation.
#[test]
fn an_append_that_finds_its_space_gone_leaves_nothing_behind() {
    let storage = FaultyStorage::default();
    let log = Log::create_in(storage.boxed(), EPOCH, SMALL).unwrap();
    append(&log, 1, 100).unwrap();
    storage.forget_preallocated();
    capacity(&storage, storage.used() + 50);
    assert!(append(&log, 2, 100).is_err_and(|e| e.is_no_space()));
    capacity(&storage, 10_000);
    assert_eq!(append(&log, 2, 100).unwrap(), Lsn::new(2));
    assert_eq!(reopen(&storage, SMALL).unwrap().1.head, Lsn::new(2));
}

/// Taking back a torn append gives up what was preallocated: later reservations must not rely on it.
#[test]
fn space_is_reserved_anew_after_an_append_was_taken_back() {
    let storage = FaultyStorage::default();
    let options = Options { segment_bytes_max: 1 << 20 };
    let log = Log::create_in(storage.boxed(), EPOCH, options).unwrap();
    let held = log.reserve(3_000).unwrap();
    storage.faults(|faults| faults.tear = Some(10));
    assert!(matches!(append(&log, 1, 50), Err(LogError::Io { .. })));
    storage.faults(|faults| *faults = faulty::Faults::default());
    capacity(&storage, storage.used());
    assert!(log.reserve(100).is_err_and(|e| e.is_no_space()));
    capacity(&storage, storage.used() + 4_000);
    drop(log.reserve(900).unwrap());
    assert!(log.reserve(1_500).is_err_and(|e| e.is_no_space()));
    capacity(&storage, storage.used());
    let (op, bulk) = op(1, 2_500);
    log.append(held, &mut Draft::new(&op, &bulk).unwrap(), 0).unwrap();
}

#[test]
fn sealed_segments_take_no_more_space_than_they_need() {
    let storage = FaultyStorage::default();
    let log = Log::create_in(storage.boxed(), EPOCH, Options { segment_bytes_max: 5_000 }).unwrap();
    while storage.names().len() < 4 {
        append(&log, log.head().get() + 1, 1_700).unwrap();
    }
    let active = storage.read(storage.names().last().unwrap()).len() as u64;
    assert_eq!(storage.used(), log.bytes() - active + 5_000);
}

#[test]
fn without_preallocation_a_failed_append_is_taken_back() {
    let storage = FaultyStorage::default();
    storage.faults(|faults| faults.preallocates_nothing = true);
    let log = Log::create_in(storage.boxed(), EPOCH, SMALL).unwrap();
    capacity(&storage, 3_000);
    let head = fill_up(&log);
    let bytes = log.bytes();
    assert!(append(&log, head + 1, 4_000).is_err_and(|e| e.is_no_space()));
    assert_eq!((log.head().get(), log.bytes()), (head, bytes));
    capacity(&storage, 6_000);
    assert!(fill_up(&log) > head);
    assert_eq!(read_all(&mut log.cursor(lsn(0)).unwrap(), 900), log.head().get());
    assert_eq!(reopen(&storage, SMALL).unwrap().1.cut_bytes, 0);
}

#[test]
fn an_append_that_is_torn_is_taken_back_or_breaks_the_log() {
    for torn in 0..100 {
        for truncate_fails in [false, true] {
            let (storage, log) = filled(7);
            let mut cursor = log.cursor(lsn(7)).unwrap();
            storage.faults(|faults| {
                (faults.tear, faults.truncate_fails) = (Some(torn), truncate_fails);
            });
            assert!(matches!(append(&log, 8, 50), Err(LogError::Io { .. })));
            assert_eq!((log.head(), cursor.read(lsn(8), 100).unwrap()), (lsn(7), None));
            storage.faults(|faults| *faults = faulty::Faults::default());
            if truncate_fails {
                assert!(matches!(log.reserve(1).map(drop), Err(LogError::Broken)));
                assert!(matches!(append(&log, 8, 0), Err(LogError::Broken)));
                assert_eq!(read_all(&mut log.cursor(lsn(0)).unwrap(), 100), 7);
                let (log, recovered) = reopen(&storage, SMALL).unwrap();
                assert_eq!((recovered.head, recovered.cut_bytes), (lsn(7), torn as u64));
                fill(&log, 9);
            } else {
                fill(&log, 9);
                assert_eq!(read_all(&mut cursor, 100), 2);
                assert_eq!(reopen(&storage, SMALL).unwrap().1.cut_bytes, 0);
            }
        }
    }
}

#[test]
fn a_segment_that_can_not_be_begun_changes_nothing() {
    for left_behind in [false, true] {
        let (storage, log) = filled(2);
        let names = storage.names();
        storage.faults(|faults| (faults.write_fails, faults.remove_fails) = (true, left_behind));
        assert!(matches!(log.reserve(5_000).map(drop), Err(LogError::Io { .. })));
        storage.faults(|faults| *faults = faulty::Faults::default());
        if left_behind {
            assert!(matches!(log.reserve(1).map(drop), Err(LogError::Broken)));
            assert_eq!(reopen(&storage, SMALL).unwrap().1.head, lsn(2));
        } else {
            assert_eq!(storage.names(), names);
            fill(&log, 12);
        }
    }
}

#[test]
fn a_failed_sync_is_never_forgotten() {
    let (storage, log) = filled(5);
    storage.faults(|faults| faults.sync_fails = true);
    assert!(matches!(log.sync(), Err(LogError::Io { .. })));
    storage.faults(|faults| faults.sync_fails = false);
    assert!(matches!(log.sync(), Err(LogError::Broken)));
    fill(&log, 6);
}
