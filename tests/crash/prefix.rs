//! What a replica shows is one prefix of the order of changes: while replay goes on, and after each kill.
//!
//! Writers take turns on a tree whose every change has a number (`model`). A reader can't see a whole tree at one
//! instant, but what he sees one after the other must fit states that do not go back: he goes through what he saw
//! and takes for each the first state, from the last one on, in which it was so. Where there is none, something
//! later was there without something earlier. A killed slave's tree stands still: it must be one state exactly.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{Cluster, Rng};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::model::{self, Model, NAMES, Seen, Step, TreeState};
use crate::{SOON, cluster, duration, repairs};

/// Slaves that are killed by turns.
const SLAVES: usize = 4;
/// After so long the master takes a connection for a good one.
const STREAMS: Duration = Duration::from_millis(1_300);
/// The writers are so many changes ahead of the slowest slave, at most.
const LEAD_MAX: Step = 4_000;

/// The short forms do so much; the long ones are `TDFS_MINUTES` long.
const PASSES_MIN: u64 = 4_000;
const CHANGES_MIN: Step = 8_000;
const KILLS_MIN: usize = 32;

/// Changes that a slave is behind when it is about to be killed, if they come within this time.
const BACKLOG: Step = 500;
const BACKLOG_WAIT: Duration = Duration::from_millis(300);

/// What writers, readers and the test share.
struct Stage {
    cluster: Mutex<Cluster>,
    mount: PathBuf,
    replicas: Vec<PathBuf>,
    model: Mutex<(Model, Rng)>,
    stop: AtomicBool,
    /// The newest state that each replica is known to have reached.
    floors: Vec<AtomicU64>,
    passes: AtomicU64,
    /// LSN before the first change.
    base: u64,
}

/// Stops all when it is dropped.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Stage {
    fn new(slaves: usize) -> Self {
        let rng = Rng::new(harness::rng::run_seed());
        let cluster = cluster().network(slaves).start();
        model::plant(cluster.mount());
        cluster.wait();
        Self {
            mount: cluster.mount().to_owned(),
            replicas: cluster.slaves.iter().map(|slave| slave.replica.clone()).collect(),
            floors: cluster.slaves.iter().map(|_| AtomicU64::new(0)).collect(),
            base: cluster.status().head,
            cluster: Mutex::new(cluster),
            model: Mutex::new((Model::new(), rng)),
            stop: AtomicBool::new(false),
            passes: AtomicU64::new(0),
        }
    }

    /// Runs two writers and a reader while `act` goes on, then checks the end.
    fn play(self, act: impl FnOnce(&Stage)) {
        let before = repairs(&self.cluster.lock().unwrap());
        std::thread::scope(|scope| {
            let stage = &self;
            let start = |work: fn(&Self)| {
                scope.spawn(move || {
                    // Whoever fails ends the play.
                    let _end = EndOf(&stage.stop);
                    work(stage);
                })
            };
            let workers = [start(Self::write), start(Self::write), start(Self::watch)];
            let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&self)));
            self.stop.store(true, Ordering::SeqCst);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            acted.unwrap();
        });
        let cluster = self.cluster.into_inner().unwrap();
        let (model, _) = self.model.into_inner().unwrap();
        cluster.wait();
        assert_eq!(cluster.status().head, self.base + model.step, "each change is one record");
        for replica in &self.replicas {
            let last = model.first_like(model.step, &TreeState::read(replica));
            assert_eq!(last, Some(model.step), "the last state");
        }
        assert_eq!(repairs(&cluster), before, "the log did it, not a resync");
        println!("{} changes, {} passes of the reader", model.step, self.passes.into_inner());
        cluster.finish();
    }

    fn write(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            let mut guard = self.model.lock().unwrap();
            let (model, rng) = &mut *guard;
            if model.step > self.slowest() + LEAD_MAX {
                drop(guard);
                std::thread::yield_now();
                continue;
            }
            let change = model.draw(rng);
            model.perform(&self.mount, change).unwrap_or_else(|error| panic!("{change:?}: {error}"));
            model.apply(change);
        }
    }

    fn slowest(&self) -> Step {
        self.floors.iter().map(|floor| floor.load(Ordering::SeqCst)).min().unwrap()
    }

    fn watch(&self) {
        let mut rng = Rng::part(self.base, 1);
        while !self.stop.load(Ordering::SeqCst) {
            let slave = rng.index(self.replicas.len());
            let floor = self.floors[slave].load(Ordering::SeqCst);
            let mut seen = Vec::new();
            for _ in 0..4 {
                look(&self.replicas[slave], &mut rng, &mut seen);
            }
            self.conclude(slave, floor, &seen);
            self.passes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Fails the test unless `seen`, in this order, fits states from `floor` on.
    fn conclude(&self, slave: usize, floor: Step, seen: &[Seen]) {
        let guard = self.model.lock().unwrap();
        let mut step = floor;
        for one in seen {
            let next = guard.0.first_with(step, *one);
            step = next.unwrap_or_else(|| {
                panic!("{one:?} is in no state from {step} to {}; all of it: {seen:?}", guard.0.step)
            });
        }
        self.floors[slave].fetch_max(step, Ordering::SeqCst);
    }

    /// Kills a slave: what lies there must be exactly one state, and none that was left behind already.
    fn kill(&self, slave: usize, pause: Duration) -> Step {
        let mut cluster = self.cluster.lock().unwrap();
        let acked = cluster.slave_status(slave).applied.saturating_sub(self.base);
        // Held for a moment, it has a backlog to replay when it is killed.
        let begin = self.model.lock().unwrap().0.step;
        cluster.slaves[slave].process().signal(Signal::STOP);
        harness::wait::becomes_true(BACKLOG_WAIT, || self.model.lock().unwrap().0.step > begin + BACKLOG);
        cluster.slaves[slave].process().signal(Signal::CONT);
        std::thread::sleep(pause);
        cluster.slaves[slave].process().kill();
        let held = TreeState::read(&self.replicas[slave]);
        assert!(held.torn <= 1, "more than one write in hand: {held:?}");
        let guard = self.model.lock().unwrap();
        // What was seen there, or acked, may not be gone.
        let floor = self.floors[slave].load(Ordering::SeqCst).max(acked);
        let found = guard.0.first_like(floor, &held);
        let now = guard.0.step;
        let step = found.unwrap_or_else(|| panic!("no state from {floor} to {now}: {held:?}"));
        drop(guard);
        self.floors[slave].fetch_max(step, Ordering::SeqCst);
        cluster.start_slave(slave);
        step
    }
}

/// Looks at one directory by its name and at some names in it, in the order in which it adds to `seen`.
fn look(root: &Path, rng: &mut Rng, seen: &mut Vec<Seen>) {
    let name = rng.index(model::DIRECTORIES);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root.join(format!("d{name}")), flags, Mode::empty()).unwrap();
    let identity = readlinkat(&directory, "me", Vec::new()).unwrap();
    let identity = identity.to_string_lossy().parse().unwrap();
    seen.push(Seen::Directory(name, identity));
    for _ in 0..NAMES / 2 {
        let slot = (identity, rng.index(NAMES));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match openat(&directory, format!("f{}", slot.1), flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                seen.push(Seen::Nothing(slot));
                continue;
            }
            file => file.unwrap(),
        };
        let mut text = Vec::new();
        File::from(file).read_to_end(&mut text).unwrap();
        match model::parse(&text).0.as_slice() {
            // What had no line when it was read had none when it was opened.
            [] => seen.push(Seen::Empty(slot)),
            lines @ [(_, created), ..] => {
                seen.push(Seen::Named(slot, *created));
                seen.push(Seen::Lines(*created, lines.len()));
            }
        }
    }
}

/// DESIGN P1: "names and content of a replica are at every instant those of the backing tree as it was after some
/// record of the log, and that record's LSN never goes backwards."
#[test]
fn a_reader_sees_prefixes_alone() {
    let (begin, long) = (Instant::now(), duration(Duration::ZERO));
    Stage::new(1).play(|stage| {
        harness::eventually(long + SOON * 20, "the reader looks often enough", || {
            let enough = stage.passes.load(Ordering::SeqCst) >= PASSES_MIN && stage.slowest() > CHANGES_MIN;
            (enough && begin.elapsed() >= long) || stage.stop.load(Ordering::SeqCst)
        });
    });
}

/// The same after kill -9 of a slave, before it starts again: then the whole tree is one prefix exactly. README,
/// "Prefix": "never a later change without an earlier one".
#[test]
fn each_kill_leaves_a_prefix() {
    let (begin, long) = (Instant::now(), duration(Duration::ZERO));
    // A slave that is lost within a second of its return is dialled later and later: so they take turns.
    Stage::new(SLAVES).play(|stage| {
        let mut rng = Rng::new(harness::rng::run_seed());
        let (mut kills, mut moved) = (0, 0);
        let mut started = [Instant::now(); SLAVES];
        while kills < KILLS_MIN || begin.elapsed() < long {
            let slave = kills % SLAVES;
            let last = stage.floors[slave].load(Ordering::SeqCst);
            harness::eventually(SOON, "it applies for a while", || {
                assert!(!stage.stop.load(Ordering::SeqCst), "a worker has failed");
                let applied = stage.floors[slave].load(Ordering::SeqCst);
                applied > last && started[slave].elapsed() > STREAMS
            });
            let step = stage.kill(slave, Duration::from_micros(rng.below(6_000)));
            started[slave] = Instant::now();
            moved += usize::from(step > last);
            kills += 1;
        }
        println!("{kills} kills, replay had gone on before {moved} of them");
        assert!(moved * 10 > kills * 9, "between {kills} kills replay went on only {moved} times");
    });
}
