//! Tests of the choke point and of its order locks.

use super::*;
use rustix::io::Errno;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tdfs_host::state::StateDir;
use tdfs_wire::log::{FileStorage, Options, Storage, StorageFile};
use tdfs_wire::op::AttrOp;
use tdfs_wire::record::Record;
use tdfs_wire::{Epoch, Id, Lsn, TreePath};

fn commit() -> (tempfile::TempDir, Commit) {
    let dir = tempfile::tempdir().expect("make a temporary directory");
    let epoch = Epoch { number: 1, id: Id::default() };
    let log = Log::create(dir.path(), epoch, Options::default()).expect("begin a log");
    let state = StateDir::open(&dir.path().join("state")).expect("make a state directory");
    let slots = Slots::begin(&state, epoch).expect("begin the slots");
    (dir, Commit::new(Arc::new(log), slots))
}

fn intent() -> Intent {
    let path = TreePath::new(*b"f").unwrap();
    Intent::Attr { path, ino: 7, what: Attribute::Mode }
}

fn mode(number: u32) -> Change<'static> {
    Change::of(Op::Attr(AttrOp::Mode { path: TreePath::new(*b"f").unwrap(), mode: number }))
}

fn recorded_modes(commit: &Commit) -> Vec<u32> {
    let mut cursor = commit.log().cursor(Lsn::ZERO).unwrap();
    let mut modes = Vec::new();
    while let Some(batch) = cursor.read(commit.log().head(), 1 << 20).unwrap() {
        let mut bytes = &batch.bytes[..];
        while !bytes.is_empty() {
            let (record, len) = Record::parse(bytes).unwrap();
            if let Op::Attr(AttrOp::Mode { mode, .. }) = record.op {
                modes.push(mode);
            }
            bytes = &bytes[len..];
        }
    }
    modes
}

/// "An operation that fails after it changed something is undone under the locks, or its outcome is recorded;
/// the application gets its errno." (DESIGN section 4)
#[test]
fn a_half_failed_operation_is_recorded_and_fails() {
    let (_dir, commit) = commit();
    let tree = commit.order().shared();
    let turn = tree.turn(&[], &[7]);
    let done: Result<()> = commit.change(&turn, &intent(), 1, || (Err(Errno::NOSPC), Some(mode(1))));
    assert_eq!(done, Err(Errno::NOSPC));
    assert_eq!(recorded_modes(&commit), [1]);
}

#[test]
fn what_changed_nothing_is_not_recorded() {
    let (_dir, commit) = commit();
    let tree = commit.order().shared();
    let turn = tree.turn(&[], &[7]);
    assert_eq!(commit.change(&turn, &intent(), 1, || (Ok(5), None)), Ok(5));
    assert_eq!(commit.log().head(), Lsn::ZERO);
}

/// Invariant O1: the LSN order of two changes that don't commute is the order in which they happened.
#[test]
fn changes_of_one_object_are_recorded_in_the_order_they_happened() {
    let (_dir, commit) = commit();
    let happened = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let tree = commit.order().shared();
                    let turn = tree.turn(&[3], &[7]);
                    let act = || {
                        let number = happened.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                        (Ok(()), Some(mode(u32::try_from(number).unwrap())))
                    };
                    commit.change(&turn, &intent(), 1, act).unwrap();
                }
            });
        }
    });
    assert_eq!(recorded_modes(&commit), (0..2000).collect::<Vec<u32>>());
}

/// "Changes to different objects run in parallel." (DESIGN section 4)
#[test]
fn changes_of_different_objects_run_at_the_same_time() {
    let (_dir, commit) = commit();
    let both_inside = Barrier::new(2);
    std::thread::scope(|scope| {
        for ino in [7, 8] {
            let (commit, both_inside) = (&commit, &both_inside);
            scope.spawn(move || {
                let tree = commit.order().shared();
                let turn = tree.turn(&[], &[ino]);
                let act = || {
                    both_inside.wait();
                    (Ok(()), Some(mode(1)))
                };
                commit.change(&turn, &intent(), 1, act).unwrap();
            });
        }
    });
}

#[test]
fn opposite_pairs_of_objects_do_not_deadlock() {
    let (_dir, commit) = commit();
    std::thread::scope(|scope| {
        for pair in [[1, 2], [2, 1], [2, 3], [3, 1]] {
            let commit = &commit;
            scope.spawn(move || {
                for _ in 0..2000 {
                    let tree = commit.order().shared();
                    let mut turn = tree.turn(&pair, &[]);
                    turn.add_others(&[11, 10, 11]);
                }
            });
        }
    });
}

/// Files of a directory that can be written until they can't.
struct Failing(FileStorage, Arc<AtomicBool>);
struct FailingFile(Box<dyn StorageFile>, Arc<AtomicBool>);

impl Storage for Failing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(FailingFile(self.0.create(name)?, Arc::clone(&self.1))))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(FailingFile(self.0.open(name)?, Arc::clone(&self.1))))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

impl StorageFile for FailingFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, parts: [&[u8]; 2], offset: u64) -> io::Result<usize> {
        if self.1.load(Ordering::SeqCst) {
            return Err(Errno::IO.into());
        }
        self.0.write_at(parts, offset)
    }
    fn truncate(&self, size: u64) -> io::Result<()> {
        self.0.truncate(size)
    }
    fn preallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.preallocate(offset, len)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

/// DESIGN section 4: "If appending fails all the same (disk gone): the epoch ends there, applications go on
/// unhindered [...], a new epoch starts when there is room."
#[test]
fn a_log_that_fails_ends_the_epoch_and_hinders_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (epoch, next) = (Epoch { number: 1, id: Id([1; 16]) }, Epoch { number: 2, id: Id([2; 16]) });
    let fails = Arc::new(AtomicBool::new(false));
    let storage = Failing(FileStorage::new(&dir.path().join("log")).unwrap(), Arc::clone(&fails));
    let log = Log::create_in(Box::new(storage), epoch, Options::default()).unwrap();
    let state = StateDir::open(&dir.path().join("state")).unwrap();
    let commit = Commit::new(Arc::new(log), Slots::begin(&state, epoch).unwrap());
    let change = |number| {
        let tree = commit.order().shared();
        let turn = tree.turn(&[], &[7]);
        commit.change(&turn, &intent(), 1, || (Ok(number), Some(mode(number)))).unwrap()
    };
    assert_eq!((change(1), commit.trouble()), (1, None));
    fails.store(true, Ordering::SeqCst);
    assert_eq!((change(2), change(3)), (2, 3), "nobody is hindered");
    assert!(commit.trouble().unwrap().contains("append"), "{:?}", commit.trouble());
    assert!(
        matches!(commit.log().cursor(Lsn::ZERO), Err(LogError::Over)),
        "no slave gets what comes before a gap"
    );
    assert!(commit.log().prepare(next).is_err());
    fails.store(false, Ordering::SeqCst);
    assert_eq!(change(4), 4);
    assert_eq!(commit.log().head(), Lsn::new(1), "what comes after a gap is of no use");
    // A kill now must not let the old epoch go on.
    assert!(matches!(Slots::resume(&state, epoch), Ok(Found::Unproven(_))));
    let prepared = commit.log().prepare(next).unwrap();
    commit.begin_epoch(prepared);
    assert_eq!((change(5), commit.trouble()), (5, None));
    assert_eq!((recorded_modes(&commit), commit.log().epoch()), (vec![5], next));
    assert!(matches!(Slots::resume(&state, next), Ok(Found::Whole(_))));
}

#[test]
fn the_exclusive_lock_waits_for_changes_in_hand() {
    let (_dir, commit) = commit();
    let taken = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let tree = commit.order().shared();
        scope.spawn(|| {
            let _all = commit.order().exclusive();
            taken.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!taken.load(Ordering::SeqCst));
        drop(tree);
    });
    assert!(taken.load(Ordering::SeqCst));
}
