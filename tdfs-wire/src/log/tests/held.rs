//! What is held: retention, bounds, and what is told about it.

use super::*;

#[test]
fn retain_deletes_whole_sealed_segments() {
    let (storage, log) = filled(40);
    let before = storage.names().len();
    log.retain(lsn(3)).unwrap();
    assert_eq!((log.oldest(), storage.names().len()), (lsn(1), before));
    log.retain(lsn(17)).unwrap();
    assert!(log.oldest() > lsn(5) && log.oldest() <= lsn(18));
    assert_eq!(read_all(&mut log.cursor(log.oldest().prev()).unwrap(), 500), 41 - log.oldest().get());
    let oldest = log.oldest();
    assert!(
        matches!(log.cursor(oldest.prev().prev()), Err(LogError::Gone { oldest: told }) if told == oldest)
    );
    assert_eq!(reopen(&storage.copy(), SMALL).unwrap().1, Recovered { head: lsn(40), oldest, cut_bytes: 0 });
    log.retain(lsn(u64::MAX)).unwrap();
    assert_eq!(storage.names().len(), 1);
    fill(&log, 60);
    assert_eq!(reopen(&storage, SMALL).unwrap().1.head, lsn(60));
}

#[test]
fn a_cursor_reads_the_deleted_segment_it_is_in_to_its_end() {
    let (_, log) = filled(40);
    let mut cursor = log.cursor(Lsn::ZERO).unwrap();
    cursor.read(lsn(1), 1).unwrap().unwrap();
    log.retain(lsn(20)).unwrap();
    cursor.read(lsn(40), 10_000).unwrap().unwrap();
    let position = cursor.position();
    assert!(position > lsn(2) && position.next() < log.oldest());
    assert!(matches!(cursor.read(lsn(40), 100), Err(LogError::Gone { .. })));
    assert_eq!(cursor.position(), position);
}

#[test]
fn what_can_not_be_removed_is_removed_by_the_next_call() {
    let (storage, log) = filled(40);
    storage.faults(|faults| faults.remove_fails = true);
    assert!(log.retain(lsn(10)).is_err());
    let oldest = log.oldest();
    assert!(oldest > lsn(1) && storage.names()[0].ends_with("01.log"));
    assert_eq!(reopen(&storage.copy(), SMALL).unwrap().1.oldest, lsn(1));
    storage.faults(|faults| faults.remove_fails = false);
    log.retain(Lsn::ZERO).unwrap();
    assert_eq!(reopen(&storage, SMALL).unwrap().1.oldest, oldest);
}

#[test]
fn floor_within_leaves_so_many_bytes() {
    let (_, log) = filled(40);
    assert_eq!(log.floor_within(u64::MAX), Lsn::ZERO);
    assert_eq!(log.floor_within(log.bytes()), Lsn::ZERO);
    for bytes_max in (700..log.bytes()).rev().step_by(37) {
        let floor = log.floor_within(bytes_max);
        log.retain(floor).unwrap();
        assert!(log.bytes() <= bytes_max && log.bytes() + 700 > bytes_max);
        assert_eq!(log.oldest(), floor.next());
    }
    let floor = log.floor_within(0);
    log.retain(floor).unwrap();
    assert_eq!(log.oldest(), floor.next());
    assert!(log.bytes() > 0 && log.floor_within(0) == floor);
}

#[test]
fn bytes_and_times_are_exact() {
    let storage = FaultyStorage::default();
    let log = Log::create_in(storage.boxed(), EPOCH, Options { segment_bytes_max: 200_000 }).unwrap();
    let mut lens = vec![0];
    for number in 1..=1500 {
        let (op, bulk) = op(number, usize::try_from(number % 7).unwrap() * 130);
        lens.push(Draft::new(&op, &bulk).unwrap().len() as u64);
        append(&log, number, bulk.len()).unwrap();
    }
    for reopened in [false, true] {
        let log = if reopened { &reopen(&storage, SMALL).unwrap().0 } else { &log };
        for number in (0..=1500_u32).step_by(13) {
            let after: u64 = lens[number as usize + 1..].iter().sum();
            assert_eq!(log.bytes_after(lsn(number.into())), after);
            let time = (number > 0).then_some(1000 + i64::from(number));
            assert_eq!(log.time_of(lsn(number.into())), time);
        }
        assert_eq!((log.bytes_after(lsn(9999)), log.time_of(lsn(1501))), (0, None));
    }
    log.retain(lsn(1000)).unwrap();
    let oldest = usize::try_from(log.oldest().get()).unwrap();
    assert_eq!(log.bytes_after(Lsn::ZERO), lens[oldest..].iter().sum());
    assert_eq!(log.time_of(log.oldest().prev()), None);
}

/// Promise: what `sync` has answered is there after a power cut, or the log says that it is damaged.
#[test]
fn synced_records_outlive_a_power_cut() {
    let (mut opened, mut kept_more) = (0, 0);
    for seed in 0..500 {
        let mut rng = Rng(seed);
        let (storage, log) = filled(rng.below(30) as u64);
        let synced = log.sync().unwrap();
        fill(&log, synced.get() + rng.below(30) as u64);
        let after = storage.after_crash(&mut rng);
        match reopen(&after, SMALL) {
            Ok((log, recovered)) => {
                assert!(recovered.head >= synced, "seed {seed}");
                let held = recovered.head.next().since(recovered.oldest);
                assert_eq!(read_all(&mut log.cursor(recovered.oldest.prev()).unwrap(), 300), held);
                assert!(recovered.oldest == lsn(1) || synced == Lsn::ZERO, "seed {seed}");
                opened += 1;
                kept_more += u64::from(recovered.head > synced);
            }
            Err(LogError::Damaged { .. }) => {}
            Err(e) => panic!("seed {seed}: {e}"),
        }
    }
    assert!(opened > 50 && kept_more > 10, "{opened} opened, {kept_more} of them with unsynced records");
}
