//! The order of changes as the replica shows it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{SOON, cluster};

const FILES: u64 = 50;
const CHANGES: u64 = 10_000;

fn path_of(root: &Path, change: u64) -> PathBuf {
    root.join(format!("file{}", change % FILES))
}

/// Reads a number, twice until both readings agree: the write in hand may be seen partly done.
fn number_in(path: &Path) -> u64 {
    let read = || fs::read(path).ok().and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    let mut before = read();
    loop {
        let after = read();
        if after == before {
            return after.trim().parse().unwrap_or(0);
        }
        before = after;
    }
}

/// Change n goes to file n mod 50. What a pass over the files finds is a prefix of the changes, seen while it
/// grows, exactly if no file is as much as one round behind a file that was read before it.
fn assert_prefix(root: &Path, last: &mut [u64]) {
    let mut newest = 0;
    for (file, last) in (0..FILES).zip(last) {
        let number = number_in(&path_of(root, file));
        assert!(number >= *last, "file{file} went back from {last} to {number}");
        assert!(number == 0 || number % FILES == file, "file{file} holds {number}");
        assert!(number + FILES > newest, "file{file} holds {number} after {newest} was seen elsewhere");
        *last = number;
        newest = newest.max(number);
    }
}

/// DESIGN P1: "names and content of a replica are at every instant those of the backing tree as it was after
/// some record of the log, and that record's LSN never goes backwards."
#[test]
fn ordered_watcher() {
    let cluster = cluster().network(1).compressed().start();
    for file in 0..FILES {
        fs::write(path_of(cluster.mount(), file), format!("{:020}", 0)).unwrap();
    }
    cluster.wait();
    let done = AtomicBool::new(false);
    let replica = cluster.slaves[0].replica.clone();
    let passes = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut last = vec![0; usize::try_from(FILES).unwrap()];
            let mut passes = 0;
            while !done.load(Ordering::SeqCst) {
                assert_prefix(&replica, &mut last);
                passes += 1;
            }
            passes
        });
        let wrote = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (1..=CHANGES).for_each(|change| write_change(cluster.mount(), change));
            cluster.wait();
        }));
        done.store(true, Ordering::SeqCst);
        let passes = watcher.join().unwrap();
        wrote.unwrap();
        passes
    });
    assert!(passes > 20, "the watcher looked only {passes} times");
    cluster.finish();
}

/// By turns over the old content and by a new file that takes the name.
fn write_change(root: &Path, change: u64) {
    let (path, text) = (path_of(root, change), format!("{change:020}"));
    if change.is_multiple_of(3) {
        fs::write(root.join("new"), text).unwrap();
        fs::rename(root.join("new"), path).unwrap();
    } else {
        File::options().write(true).open(path).unwrap().write_all_at(text.as_bytes(), 0).unwrap();
    }
}

/// DESIGN O2: "If change A was answered before change B was asked for, LSN(A) < LSN(B)": with two threads that
/// take turns, the replica never shows the later without the earlier.
#[test]
fn turns_of_two_threads_stay_turns() {
    let cluster = cluster().network(1).start();
    let replica = cluster.slaves[0].replica.clone();
    let (one, two) = (cluster.mount().join("one"), cluster.mount().join("two"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                // Links `n` come by turns in two directories: n in `two` says that n is in `one`.
                for number in fs::read_dir(replica.join("two")).into_iter().flatten().flatten() {
                    let before = replica.join("one").join(number.file_name());
                    assert!(before.exists(), "{} is there before its forerunner", before.display());
                }
            }
        });
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        for number in 0..300 {
            for directory in [&one, &two] {
                let path = directory.join(number.to_string());
                scope.spawn(|| File::create(path).unwrap()).join().unwrap();
            }
        }
        let caught = harness::wait::becomes_true(SOON, || cluster.wait_code(5).0 == Some(0));
        done.store(true, Ordering::SeqCst);
        watcher.join().unwrap();
        assert!(caught);
    });
    cluster.finish();
}

/// DESIGN section 4: "Changes to different objects run in parallel." One file's backing write is held for 2 s by
/// a fail point, with its order lock; a write to another file completes meanwhile.
#[test]
fn a_write_that_sleeps_holds_up_no_other() {
    let cluster = cluster().embedded().start();
    let (held, other) = (cluster.mount().join("held-by-test"), cluster.mount().join("other"));
    fs::write(&other, b"").unwrap();
    let start = std::time::Instant::now();
    let writer = std::thread::spawn(move || fs::write(held, b"late").unwrap());
    while !writer.is_finished() && start.elapsed() < std::time::Duration::from_secs(1) {
        fs::write(&other, b"meanwhile").unwrap();
    }
    assert!(!writer.is_finished(), "the fail point did not hold the write");
    writer.join().unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_secs(2));
    cluster.finish();
}
