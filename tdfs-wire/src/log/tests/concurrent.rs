//! Many cursors beside many appenders.

use super::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::thread;

const APPENDERS: u64 = 4;
const EACH: u64 = 3000;

/// The number of an appender and which of its records this is, from the path that `op` made.
fn told(record: &Record<'_>) -> (u64, u64) {
    let path = record.op.paths()[0].as_bytes().to_vec();
    let number: u64 = String::from_utf8(path).unwrap().rsplit('-').next().unwrap().parse().unwrap();
    (number / EACH, number % EACH)
}

/// Reads until all is there; the records of each appender come in its order, LSNs without holes.
fn read_along(log: &Log, bytes_max: usize) {
    let mut cursor = log.cursor(Lsn::ZERO).unwrap();
    let mut next: HashMap<u64, u64> = HashMap::new();
    while cursor.position() < lsn(APPENDERS * EACH) {
        let before = cursor.position();
        let Some(batch) = cursor.read(log.head(), bytes_max).unwrap() else {
            thread::yield_now();
            continue;
        };
        assert_eq!(batch.first, before.next());
        let mut at = 0;
        while at < batch.bytes.len() {
            let (record, len) = Record::parse(&batch.bytes[at..]).unwrap();
            let (appender, nth) = told(&record);
            let expected = next.entry(appender).or_default();
            assert_eq!(nth, *expected);
            (*expected, at) = (nth + 1, at + len);
        }
    }
    assert!(next.values().all(|&count| count == EACH));
}

#[test]
fn cursors_keep_up_with_appenders() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::create(dir.path(), EPOCH, Options { segment_bytes_max: 100_000 }).unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                let log = &log;
                scope.spawn(move || {
                    let mut last = Lsn::ZERO;
                    for nth in 0..EACH {
                        let bulk_len = usize::try_from(nth % 5).unwrap() * 40;
                        let appended = append(log, appender * EACH + nth, bulk_len).unwrap();
                        assert!(appended > last && log.head() >= appended);
                        last = appended;
                        drop(log.reserve(100).unwrap());
                    }
                })
            })
            .collect();
        let readers: Vec<_> = [1, 3000, 1 << 20]
            .map(|max| {
                scope.spawn({
                    let log = &log;
                    move || read_along(log, max)
                })
            })
            .into();
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let synced = log.sync().unwrap();
                assert!(synced <= log.head());
                let _ = (log.bytes_after(synced), log.time_of(synced), log.bytes());
                thread::yield_now();
            }
        });
        appenders.into_iter().for_each(|thread| thread.join().unwrap());
        readers.into_iter().for_each(|thread| thread.join().unwrap());
        ended.store(true, Ordering::Relaxed);
    });
    drop(log);
    let (log, recovered) = Log::open(dir.path(), EPOCH, Options::default()).unwrap();
    assert_eq!(recovered, Recovered { head: lsn(APPENDERS * EACH), oldest: lsn(1), cut_bytes: 0 });
    read_along(&log, 4096);
}

#[test]
fn retention_runs_beside_appends_and_reads() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::create(dir.path(), EPOCH, Options { segment_bytes_max: 5000 }).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| fill(&log, 5000));
        scope.spawn(|| {
            let mut cursor = log.cursor(Lsn::ZERO).unwrap();
            while cursor.position() < lsn(5000) {
                read_all(&mut cursor, 700);
                log.retain(cursor.position()).unwrap();
            }
        });
    });
    assert!(log.bytes() < 6000 && log.oldest() > lsn(4900));
}
