//! Tests of the log: order, rotation, recovery, retention, full disks; over real files and faulty ones.

mod concurrent;
mod damage;
mod epoch;
mod faulty;
mod full;
mod held;
mod model;
mod rng;

use super::{Cursor, Extent, Log, LogError, Options, Recovered};
use crate::op::{AttrOp, DataOp, Op};
use crate::record::{Draft, Record};
use crate::{Epoch, Id, Lsn, Time, TreePath};
use faulty::FaultyStorage;
pub(crate) use rng::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const EPOCH: Epoch = Epoch { number: 3, id: Id([7; 16]) };
const SMALL: Options = Options { segment_bytes_max: 600 };

fn lsn(number: u64) -> Lsn {
    Lsn::new(number)
}

/// An op that tells its number, with `bulk_len` bytes of bulk that tell it too.
fn op(number: u64, bulk_len: usize) -> (Op, Vec<u8>) {
    let path = TreePath::new(format!("dir/file-{number}").into_bytes()).unwrap();
    let mtime = Time { sec: number.cast_signed(), nsec: 1 };
    if bulk_len == 0 {
        return (Op::Attr(AttrOp::Times { path, mtime }), Vec::new());
    }
    let bulk = number.to_le_bytes().into_iter().cycle().take(bulk_len).collect();
    (Op::Data(DataOp::Write { path, offset: number, mtime }), bulk)
}

fn append(log: &Log, number: u64, bulk_len: usize) -> Result<Lsn, LogError> {
    let (op, bulk) = op(number, bulk_len);
    let mut draft = Draft::new(&op, &bulk).unwrap();
    let reservation = log.reserve(draft.len())?;
    log.append(reservation, &mut draft, 1000 + number.cast_signed())
}

/// Appends records up to `last`, each telling its LSN; every third with bulk.
fn fill(log: &Log, last: u64) {
    for number in log.head().get() + 1..=last {
        assert_eq!(append(log, number, usize::from(number % 3 == 0) * 50).unwrap(), lsn(number));
    }
}

/// Reads all up to the head in batches of at most `bytes_max`; checks that each record tells its LSN.
fn read_all(cursor: &mut Cursor, bytes_max: usize) -> u64 {
    let mut records = 0;
    while let Some(batch) = cursor.read(lsn(u64::MAX), bytes_max).unwrap() {
        assert!(batch.count == 1 || batch.bytes.len() <= bytes_max);
        assert_eq!(batch.last(), cursor.position());
        let (mut at, mut next) = (0, batch.first);
        while at < batch.bytes.len() {
            let (record, len) = Record::parse(&batch.bytes[at..]).unwrap();
            assert_eq!(record.lsn, next);
            assert_eq!((record.op, record.bulk), {
                let (op, bulk) = op(next.get(), record.bulk.len());
                (op, &*bulk.leak())
            });
            assert_eq!(record.time_ns, 1000 + next.get().cast_signed());
            (at, next, records) = (at + len, next.next(), records + 1);
        }
        assert_eq!(at, batch.bytes.len());
        assert_eq!(next, batch.last().next());
    }
    records
}

fn reopen(storage: &FaultyStorage, options: Options) -> Result<(Log, Recovered), LogError> {
    Log::open_in(storage.boxed(), EPOCH, options)
}

/// A log of `last` records in small segments.
fn filled(last: u64) -> (FaultyStorage, Log) {
    let storage = FaultyStorage::default();
    let log = Log::create_in(storage.boxed(), EPOCH, SMALL).unwrap();
    fill(&log, last);
    (storage, log)
}

#[test]
fn a_new_log_is_empty() {
    let (_, log) = filled(0);
    assert_eq!((log.head(), log.oldest(), log.epoch()), (Lsn::ZERO, lsn(1), EPOCH));
    assert_eq!(log.cursor(Lsn::ZERO).unwrap().read(lsn(9), 1000).unwrap(), None);
    assert!(matches!(log.cursor(lsn(1)), Err(LogError::Ahead { .. })));
    assert_eq!(log.sync().unwrap(), Lsn::ZERO);
}

#[test]
fn cursors_read_what_was_appended() {
    for segment_bytes_max in [100, 600, 5000, 1 << 20] {
        let storage = FaultyStorage::default();
        let log = Log::create_in(storage.boxed(), EPOCH, Options { segment_bytes_max }).unwrap();
        fill(&log, 60);
        for bytes_max in [0, 1, 300, 4096] {
            for after in [0, 1, 17, 59, 60] {
                let mut cursor = log.cursor(lsn(after)).unwrap();
                assert_eq!(read_all(&mut cursor, bytes_max), 60 - after);
            }
        }
    }
}

#[test]
fn a_cursor_stops_at_up_to_and_at_the_head() {
    let (_, log) = filled(20);
    let mut cursor = log.cursor(lsn(0)).unwrap();
    while cursor.read(lsn(13), 4096).unwrap().is_some() {}
    assert_eq!(cursor.position(), lsn(13));
    assert_eq!(read_all(&mut cursor, 4096), 7);
    fill(&log, 21);
    assert_eq!(read_all(&mut cursor, 4096), 1);
}

#[test]
fn large_records_are_read_one_at_a_time() {
    let storage = FaultyStorage::default();
    let log = Log::create_in(storage.boxed(), EPOCH, Options { segment_bytes_max: 3 << 20 }).unwrap();
    for number in 1..=9 {
        append(&log, number, if number % 2 == 0 { 1 << 20 } else { 70_000 }).unwrap();
    }
    assert!(storage.names().len() > 1);
    assert_eq!(read_all(&mut log.cursor(lsn(0)).unwrap(), 1000), 9);
    for number in 1..=9 {
        assert_eq!(log.time_of(lsn(number)), Some(1000 + number.cast_signed()));
        assert_eq!(read_all(&mut log.cursor(lsn(number)).unwrap(), 100_000), 9 - number);
    }
}

/// STYLE glossary: "LSN: first is 1, no holes"; they go on over restarts.
#[test]
fn reopening_real_files_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = &dir.path().join("state/log");
    drop(Log::create(dir, EPOCH, SMALL).unwrap());
    for round in 1..=10 {
        let (log, recovered) = Log::open(dir, EPOCH, SMALL).unwrap();
        let head = lsn((round - 1) * 7);
        assert_eq!(recovered, Recovered { head, oldest: lsn(1), cut_bytes: 0 });
        fill(&log, round * 7);
        assert_eq!(log.sync().unwrap(), lsn(round * 7));
        assert_eq!(read_all(&mut log.cursor(Lsn::ZERO).unwrap(), 500), round * 7);
        let on_disk: u64 = dir.read_dir().unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(log.bytes(), on_disk);
    }
    let log = Log::create(dir, Epoch { number: 4, ..EPOCH }, SMALL).unwrap();
    assert_eq!((log.head(), dir.read_dir().unwrap().count()), (Lsn::ZERO, 1));
}

#[test]
fn the_waker_is_called_after_each_append() {
    let (_, log) = filled(1);
    let wakes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&wakes);
    log.set_waker(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    fill(&log, 11);
    assert_eq!(wakes.load(Ordering::Relaxed), 10);
}
