//! Tests of the slot file: what the next start finds in it.

use super::*;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tdfs_wire::{Id, TreePath};

const EPOCH: Epoch = Epoch { number: 3, id: Id([7; 16]) };

fn scene() -> (tempfile::TempDir, StateDir) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    (dir, state)
}

fn intent(ino: u64) -> Intent {
    Intent::Remove { path: TreePath::new(*b"a/b").unwrap(), ino, directory: false, links: 0 }
}

/// Ends like a kill: what is set stays set.
fn killed_with(state: &StateDir, intents: &[Intent]) {
    let slots = Slots::begin(state, EPOCH).unwrap();
    intents.iter().for_each(|intent| std::mem::forget(slots.note(intent, Lsn::new(9))));
}

fn unproven(state: &StateDir) -> String {
    match Slots::resume(state, EPOCH).unwrap() {
        Found::Unproven(why) => why,
        Found::Whole(slots) => panic!("whole: {:?}", slots.unfinished()),
    }
}

fn whole(state: &StateDir) -> Slots {
    match Slots::resume(state, EPOCH).unwrap() {
        Found::Whole(slots) => slots,
        Found::Unproven(why) => panic!("{why}"),
    }
}

/// DESIGN section 4: "the slot [...] holds the intended op, the inodes": of what was in hand, and of nothing else.
#[test]
fn the_next_start_finds_what_was_in_hand() {
    let (_dir, state) = scene();
    let slots = Slots::begin(&state, EPOCH).unwrap();
    drop(slots.note(&intent(1), Lsn::new(4)));
    std::mem::forget(slots.note(&intent(2), Lsn::new(5)));
    drop(slots.note(&Intent::Nothing, Lsn::new(6)));
    drop(slots);
    let slots = whole(&state);
    let found = slots.unfinished().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].intent, found[0].head), (&intent(2), Lsn::new(5)));
    slots.finished(&found[0]);
    drop(slots);
    assert_eq!(whole(&state).unfinished().unwrap(), []);
}

/// The longest intent there can be fits into a slot.
#[test]
fn the_longest_paths_fit() {
    let (_dir, state) = scene();
    let long = TreePath::new(vec![b"n".repeat(255); 64].join(&b'/')).unwrap();
    let rename =
        Intent::Rename { from: long.clone(), to: long, source: 1, target: Some(2), exchange: true, links: 0 };
    killed_with(&state, std::slice::from_ref(&rename));
    assert_eq!(whole(&state).unfinished().unwrap()[0].intent, rename);
}

/// DESIGN section 6: "a new one begins when the master can't prove continuity".
#[test]
fn what_can_not_be_read_proves_nothing() {
    let (dir, state) = scene();
    assert!(unproven(&state).contains("no slots"));
    killed_with(&state, &[intent(1)]);
    let file = dir.path().join(FILE);
    let good = std::fs::read(&file).unwrap();
    let set = good[HEAD_BYTES..].iter().position(|byte| *byte != 0).unwrap() + HEAD_BYTES;
    for (at, why) in
        [(9, "damaged"), (set, "damaged"), (set + 17, "damaged"), (OVER * WORD, "not be recorded")]
    {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(unproven(&state).contains(why), "byte {at}: {}", unproven(&state));
    }
    std::fs::write(&file, &good[..FILE_BYTES - 1]).unwrap();
    assert!(unproven(&state).contains("short"));
    std::fs::write(&file, [&good[..], b"x"].concat()).unwrap();
    assert!(unproven(&state).contains("longer"));
    std::fs::write(&file, &good).unwrap();
    assert_eq!(whole(&state).unfinished().unwrap().len(), 1);
    let other = Epoch { id: Id([8; 16]), ..EPOCH };
    assert!(matches!(Slots::resume(&state, other), Ok(Found::Unproven(_))));
}

/// DESIGN section 6: "State files are versioned; newer ones are refused."
#[test]
fn a_later_layout_is_refused_and_left_alone() {
    let (dir, state) = scene();
    killed_with(&state, &[intent(1)]);
    let file = dir.path().join(FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4] = 9;
    std::fs::write(&file, &bytes).unwrap();
    let words = [Slots::resume(&state, EPOCH).err().unwrap(), Slots::begin(&state, EPOCH).err().unwrap()];
    for words in words.map(|e| e.to_string()) {
        assert!(words.contains("version 9") && words.contains("later TDFS"), "{words}");
    }
    assert!(std::fs::read(&file).unwrap() == bytes);
}

#[test]
fn an_epoch_that_is_over_stays_so_until_the_next() {
    let (_dir, state) = scene();
    let slots = Slots::begin(&state, EPOCH).unwrap();
    slots.end_epoch();
    assert!(unproven(&state).contains("not be recorded"));
    let next = Epoch { number: 4, id: Id([8; 16]) };
    slots.begin_epoch(next);
    assert!(matches!(Slots::resume(&state, next), Ok(Found::Whole(_))));
    assert!(unproven(&state).contains("another epoch"));
}

/// A change that finds no slot waits for one, and none is given to two.
#[test]
fn more_changes_than_slots_wait() {
    let (_dir, state) = scene();
    let slots = Slots::begin(&state, EPOCH).unwrap();
    let mut held: Vec<_> = (0..COUNT as u64).map(|ino| slots.note(&intent(ino), Lsn::ZERO)).collect();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(slots.note(&intent(99), Lsn::ZERO));
            done.store(1, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(done.load(Ordering::SeqCst), 0);
        held.pop();
    });
    assert_eq!(done.load(Ordering::SeqCst), 1);
    assert_eq!(slots.unfinished().unwrap().len(), COUNT - 1);
}

/// DESIGN section 4: of an object without a known name "the inode is noted durably".
#[test]
fn lost_objects_are_kept_and_one_too_many_ends_the_epoch() {
    let (_dir, state) = scene();
    let slots = Slots::begin(&state, EPOCH).unwrap();
    [5, 6, 5].iter().for_each(|ino| slots.add_lost(*ino));
    slots.remove_lost(5);
    drop(slots);
    let slots = whole(&state);
    assert_eq!(slots.lost(), [6]);
    (0..LOST_COUNT as u64).for_each(|ino| slots.add_lost(100 + ino));
    assert!(unproven(&state).contains("not be recorded"));
}

/// What a slot costs a change, in nanoseconds; run by hand: `cargo test --release -p tdfs -- --ignored slot_cost`.
#[test]
#[ignore = "a measurement"]
fn slot_cost() {
    let (_dir, state) = scene();
    let slots = Slots::begin(&state, EPOCH).unwrap();
    let path = TreePath::new(*b"some/directory/with/a/file.txt").unwrap();
    let mut rounds = Vec::new();
    for _ in 0..21 {
        let begin = std::time::Instant::now();
        for at in 0..100_000 {
            let intent = Intent::Content { path: path.clone(), ino: 77, offset: at, len: 4096 };
            drop(std::hint::black_box(slots.note(&intent, Lsn::new(at))));
        }
        rounds.push(begin.elapsed().as_nanos() / 100_000);
    }
    rounds.sort_unstable();
    eprintln!("a slot costs {} ns (median of {})", rounds[10], rounds.len());
}

/// Files that may be stored into unseen are known after a kill, in the next epoch, too; too many of them end the epoch, but
/// not once they are gone.
#[test]
fn watched_files_survive_a_kill() {
    let (_dir, state) = scene();
    let slots = Slots::begin(&state, EPOCH).unwrap();
    let many = WATCHED_COUNT as u64 + 2;
    (1..=many).for_each(|ino| slots.add_watched(ino));
    drop(slots);
    assert!(unproven(&state).contains("unseen"));
    let slots = Slots::map(&state).unwrap();
    (3..=many).for_each(|ino| slots.remove_watched(ino));
    slots.begin_epoch(EPOCH);
    drop(slots);
    assert_eq!(whole(&state).watched(), [1, 2]);
}
