//! The deterministic simulation of the whole: master session, log, slave session and replay from one seed.
//!
//! Real are the log (on a faulty disk in memory), both sessions, retention, and the replica with all that it
//! does: replay, applied position, what it keeps of itself, resync, looks. The replica stands on a directory in
//! /dev/shm: a model in its place would have to say again what `replica.rs` decides, and would test nothing of it;
//! a schedule takes about 10 ms so. Made up are the clock, the connections, the master's tree and the turns that
//! threads take. Inode numbers and ctimes are the machine's, so a seed gives the same schedule each time, but for
//! what a resync makes of those two.
//!
//! A failing seed is printed; `TDFS_SEED=n` runs that one alone, and with `TDFS_TRACE=1` tells its steps.
//! `TDFS_SEEDS=n` runs so many schedules, as long as that takes; `TDFS_MINUTES=n` runs them for so long, and with both it
//! is at most so many. They begin with seed 0, or `TDFS_SEED_FROM=n`. Once a minute it is told how far they are.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};
// For the log's faulty storage, which is a file of its tests.
use tdfs_wire::log::{Storage, StorageFile};
use tdfs_wire::session::master::StateName;

mod coverage;
mod epoch;
mod expected;
mod faults;
mod link;
mod machine;
mod master;
mod storage;
mod stories;
mod tree;
mod world;

use coverage::Coverage;
use faults::Fault;
use master::Limits;
use world::World;

/// So many schedules are run, if nothing else is asked for; .ci/run asks for 10,000.
const SCHEDULES: u64 = 2_000;
/// Each has at least so many changes of the master's tree.
const CHANGES_MIN: u64 = 200;
/// Each has at least so many faults.
const FAULTS_MIN: u64 = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs the schedule of one seed to its end.
fn schedule(seed: u64, world: &mut World) {
    let dice = world.dice();
    let only_kills = seed.is_multiple_of(4);
    let faults: Vec<Fault> = match only_kills {
        true => Fault::KILLS_AND_CUTS.to_vec(),
        // Few kinds at a time, so that one does not hide another.
        false => {
            let all = Fault::ALL.iter().copied();
            let count = 2 + dice.below(8);
            let mut some: Vec<Fault> = all.collect();
            while some.len() > count {
                some.swap_remove(dice.below(some.len()));
            }
            some
        }
    };
    let one_in = [40, 150, 500][dice.below(3)];
    let changes = [4, 8, 20][dice.below(3)];
    world.only_kills = only_kills;
    let crashes = faults.contains(&Fault::CrashSlave);
    world.machines.iter_mut().for_each(|machine| machine.crashes_planned = crashes);
    world.start_machines();
    if seed % 2 == 1 {
        world.settle();
    }
    world.slow = [1, 2, 6][world.dice().below(3)];
    while world.master.appended < CHANGES_MIN || world.faults < FAULTS_MIN {
        assert!(world.step < 500_000, "it does not come to an end");
        let slaves = world.machines.len();
        let slave = world.dice().below(slaves);
        // What does not last is met more often than by chance.
        let state = world.master.is_up().then(|| world.master.outlets[slave].state());
        let one_in = match state {
            Some(StateName::CatchUp) => 4,
            Some(StateName::Connecting | StateName::Handshake | StateName::Refused | StateName::Stalled) => {
                one_in / 8
            }
            _ => one_in,
        };
        if world.dice().chance(one_in) {
            let fault = faults[world.dice().below(faults.len())];
            world.fault(fault, slave);
        }
        world.step(changes);
    }
    world.settle();
}

fn world_of(seed: u64, scratch: &std::path::Path) -> World {
    let only_kills = seed.is_multiple_of(4);
    let log_bytes = if only_kills || seed.is_multiple_of(3) { 1 << 20 } else { 4000 };
    let limits = Limits { segment_bytes: 1500, log_bytes };
    let slaves = if seed % 5 == 1 { 2 } else { 1 };
    World::new(seed, scratch, slaves, limits)
}

/// Runs one seed; Err: what went wrong, with its steps where they are asked for.
fn run(seed: u64) -> Result<Coverage, ()> {
    let scratch = tempfile::Builder::new().prefix("tdfs-test.").tempdir_in("/dev/shm").unwrap();
    let mut world = world_of(seed, scratch.path());
    let done = catch_unwind(AssertUnwindSafe(|| schedule(seed, &mut world)));
    crate::replay::target::faults::fail_after(None);
    if world.traced {
        world.said.iter().for_each(|line| println!("{line}"));
    }
    match done {
        Ok(()) => Ok(std::mem::take(&mut world.coverage)),
        Err(_) => {
            println!("seed {seed} failed; again, step by step: TDFS_SEED={seed} TDFS_TRACE=1");
            Err(())
        }
    }
}

/// How often a long run tells how far it is.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// No more are begun after so many have failed.
const FAILED_MAX: usize = 5;

/// A run of schedules, by all threads.
struct Run {
    seeds: Range<u64>,
    began: Instant,
    until: Option<Instant>,
    told: Instant,
    done: u64,
    met: Coverage,
    failed: Vec<u64>,
}

impl Run {
    /// As the environment says.
    fn new() -> Run {
        let (began, minutes) = (Instant::now(), number("TDFS_MINUTES"));
        let seeds = number("TDFS_SEED").map_or_else(
            || {
                let first = number("TDFS_SEED_FROM").unwrap_or(0);
                let count =
                    number("TDFS_SEEDS").unwrap_or(if minutes.is_some() { u64::MAX } else { SCHEDULES });
                first..first.saturating_add(count)
            },
            |seed| seed..seed + 1,
        );
        let until = minutes.map(|minutes| began + Duration::from_secs(60 * minutes));
        Run { seeds, began, until, told: began, done: 0, met: Coverage::default(), failed: Vec::new() }
    }

    fn next(&mut self) -> Option<u64> {
        let is_over = self.until.is_some_and(|until| Instant::now() >= until);
        if is_over || self.failed.len() >= FAILED_MAX { None } else { self.seeds.next() }
    }

    fn ended(&mut self, seed: u64, met: Result<Coverage, ()>) {
        self.done += 1;
        match met {
            Ok(met) => self.met.add(met),
            Err(()) => self.failed.push(seed),
        }
        if self.told.elapsed() >= TELL_INTERVAL {
            self.told = Instant::now();
            self.tell();
        }
    }

    fn tell(&self) {
        let time = self.began.elapsed().as_secs_f64();
        let (done, failed) = (self.done, self.failed.len());
        println!("{done} schedules in {time:.0} s, {:.0} a second; {failed} failed", done as f64 / time);
    }
}

/// DESIGN sections 2 to 8 as a whole: P1, P2, P5, P6, P8 under every fault, in every state.
#[test]
fn everything_becomes_equal_and_nothing_is_called_equal_that_is_not() {
    let run = Mutex::new(Run::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let next = || run.lock().unwrap().next();
                while let Some(seed) = next() {
                    let met = self::run(seed);
                    run.lock().unwrap().ended(seed, met);
                }
            });
        }
    });
    let run = run.into_inner().unwrap();
    run.tell();
    println!("rarest: {:?}", run.met.rarest());
    assert!(run.failed.is_empty(), "with TDFS_SEED one of {:?} it fails", run.failed);
    // What is rare takes as many as are run by default: less time may not be enough.
    let enough = run.until.is_none() || run.done >= SCHEDULES;
    if enough && number("TDFS_SEED").is_none() {
        assert_eq!(run.met.missing(), Vec::<String>::new(), "never met");
    }
}
