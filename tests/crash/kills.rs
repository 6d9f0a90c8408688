//! kill -9 of either daemon, or of both, at random instants under full load.
//!
//! After a kill of the slave its replica is looked at before it starts again; after each round the trees are
//! compared. A difference is counted, told, mended by `verify --repair`, and fails the test at its end.

use std::path::Path;
use std::time::{Duration, Instant};

use harness::history::History;
use harness::ledger::{Ledger, newest_commit};
use harness::ops::{Names, Writers};
use harness::{Cluster, Compare, Rng, require};

use crate::{cluster, duration, repairs};

/// The short form; the long one is `TDFS_MINUTES` long.
const SHORT: Duration = Duration::from_secs(20);
/// Kills that the long form has to reach.
const LONG_KILLS_MIN: u64 = 500;
const THREADS: u64 = 4;
/// Longer without a change the kill counts as one without records in flight.
const STANDSTILL_MAX: Duration = Duration::from_millis(200);

/// What is killed in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// So many times, with the writers going on.
    Slave(u64),
    Master,
    /// Master first or slave first.
    Both {
        master_first: bool,
    },
}

impl Side {
    fn draw(rng: &mut Rng) -> Self {
        match rng.below(20) {
            0..9 => Self::Slave(1 + rng.below(3)),
            9..16 => Self::Master,
            _ => Self::Both { master_first: rng.one_in(2) },
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    slave_kills: u64,
    master_kills: u64,
    in_flight: u64,
    records: u64,
    commits: u64,
    /// Resyncs and divergences.
    repairs: u64,
    differences: u64,
}

impl Counts {
    fn kills(&self) -> u64 {
        self.slave_kills + self.master_kills
    }
}

/// What goes on from round to round.
struct Rounds {
    cluster: Cluster,
    rng: Rng,
    seed: u64,
    counts: Counts,
    /// The newest commit that was answered, and the newest that the replica held.
    commits: (u64, u64),
    repairs: Vec<(u64, u64)>,
    history: Option<History>,
}

/// DESIGN P2: "A kill -9 of either daemon at any instant [...]: no record is lost, doubled or reordered."
/// P1, for the database: "names and content of a replica are at every instant those of the backing tree as it
/// was after some record of the log". README: "Data counts as changed when write(2) returns: it is
/// then in the log, in the page cache, which survives the end of tdfs". And: "A kill -9 of tdfs loses nothing."
#[test]
fn kills_at_random_instants_lose_and_double_nothing() {
    if !require("kills", "sqlite3", "sqlite3") {
        return;
    }
    let seed = harness::rng::run_seed();
    // The check at start would mend what a kill has lost, and this test would not see it.
    let mut cluster = cluster().network(1).flag("--no-check").start();
    std::fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    // The numbers of repairs are on disk from here on.
    cluster.master.stop();
    cluster.start_master();
    let repairs = repairs(&cluster);
    let counts = Counts::default();
    let rng = Rng::new(seed);
    let mut rounds = Rounds { cluster, rng, seed, counts, commits: (0, 0), repairs, history: None };
    let (begin, limit) = (Instant::now(), duration(SHORT));
    let too_few = |kills| harness::long_form() && kills < LONG_KILLS_MIN;
    // A busy machine gets three times as long for them.
    while begin.elapsed() < limit || too_few(rounds.counts.kills()) && begin.elapsed() < limit * 3 {
        let side = Side::draw(&mut rounds.rng);
        rounds.round(side);
    }
    let counts = rounds.counts;
    println!("{:.0?}: {} kills, {counts:?}", begin.elapsed(), counts.kills());
    assert_eq!((counts.repairs, counts.differences), (0, 0), "{counts:?}");
    // Of few kills on a busy machine more may meet writers that stand still.
    let (kills_min, percent_min) = if harness::long_form() { (LONG_KILLS_MIN, 90) } else { (5, 60) };
    assert!(counts.in_flight * 100 >= counts.kills() * percent_min, "too few kills under load: {counts:?}");
    assert!(counts.kills() >= kills_min, "too few kills: {counts:?}");
    rounds.cluster.finish();
}

impl Rounds {
    fn round(&mut self, side: Side) {
        self.counts.rounds += 1;
        let head = self.cluster.status().head;
        let names = Names::few(12, 4);
        let dies = !matches!(side, Side::Slave(_));
        // A store through a mapping of a dead mount would end this process.
        let names = if dies { names.without_mappings() } else { names };
        let seed = self.seed.wrapping_add(self.counts.rounds);
        let writers = Writers::start(self.cluster.mount(), &names, seed, THREADS, None);
        let ledger = Ledger::start(self.cluster.mount(), self.commits.0).unwrap();
        match side {
            Side::Slave(times) => {
                for _ in 0..times {
                    self.under_load(&writers);
                    self.kill_slave();
                    self.cluster.start_slave(0);
                }
            }
            Side::Master => {
                self.under_load(&writers);
                self.kill_master(&writers);
            }
            Side::Both { master_first } => {
                self.under_load(&writers);
                let pause = Duration::from_micros(self.rng.below(5_000));
                if master_first {
                    self.kill_master(&writers);
                    std::thread::sleep(pause);
                    self.kill_slave();
                } else {
                    self.kill_slave();
                    std::thread::sleep(pause);
                    self.count_in_flight(&writers);
                    self.kill_master(&writers);
                }
            }
        }
        writers.stop();
        self.commits.0 = ledger.stop();
        self.restart(side);
        self.counts.records += self.cluster.status().head - head;
        self.settle(side);
    }

    /// Waits until a random instant at which the writers are at work.
    fn under_load(&mut self, writers: &Writers) {
        let pause = match self.rng.below(3) {
            0 => self.rng.below(20_000),
            _ => self.rng.below(400_000),
        };
        // A kill of writers that have not begun would prove nothing.
        let begun = writers.done();
        harness::eventually(crate::SOON, "writers write", || writers.done() > begun + 20);
        std::thread::sleep(Duration::from_micros(pause));
        self.count_in_flight(writers);
    }

    /// Looks until one more change was made, which the kill follows at once: that one counts as one with records
    /// in flight. (On a busy machine four writers may all stand still for some time.)
    fn count_in_flight(&mut self, writers: &Writers) {
        let (before, begin) = (writers.done(), Instant::now());
        while writers.done() == before && begin.elapsed() < STANDSTILL_MAX {
            std::thread::yield_now();
        }
        self.counts.in_flight += u64::from(writers.done() > before);
    }

    fn kill_slave(&mut self) {
        self.counts.slave_kills += 1;
        self.cluster.slaves[0].process().kill();
        let newest = self.newest_commit_of(&self.cluster.slaves[0].replica.clone());
        assert!(newest >= self.commits.1, "the replica went back from {} to {newest}", self.commits.1);
        self.commits.1 = newest;
    }

    fn kill_master(&mut self, writers: &Writers) {
        self.counts.master_kills += 1;
        writers.let_go();
        self.cluster.master.kill();
    }

    fn newest_commit_of(&self, tree: &Path) -> u64 {
        newest_commit(tree).unwrap_or_else(|error| panic!("{}: {error:#}; {:?}", tree.display(), self.counts))
    }

    fn restart(&mut self, side: Side) {
        if side != Side::Master && !matches!(side, Side::Slave(_)) && self.rng.one_in(2) {
            self.cluster.start_slave(0);
        }
        if !self.cluster.master.is_running() {
            let history = History::read(&self.cluster.paths.state).unwrap();
            if let Some(before) = self.history.take() {
                history.assert_continues(&before);
            }
            self.history = Some(history);
            self.cluster.start_master();
        }
        if !self.cluster.slaves[0].process().is_running() {
            self.cluster.start_slave(0);
        }
    }

    /// Both sides run: they become equal, by the log alone, and nothing that was answered is missing.
    fn settle(&mut self, side: Side) {
        self.cluster.wait();
        let (mount, replica) = (self.cluster.mount().to_owned(), self.cluster.slaves[0].replica.clone());
        let differences = Compare::default().run(&mount, &replica).unwrap();
        let repairs = repairs(&self.cluster);
        // A kill of the master can take the youngest of these numbers back: they are saved now and then.
        let grown = repairs.iter().zip(&self.repairs).any(|(now, then)| now.0 > then.0 || now.1 > then.1);
        self.repairs.clone_from(&repairs);
        if grown || !differences.is_empty() {
            self.counts.repairs += u64::from(grown);
            self.counts.differences += u64::from(!differences.is_empty());
            let round = self.counts.rounds;
            println!("round {round}, {side:?}: (resyncs, divergences) {repairs:?}, {:.0?}", self.counts);
            println!("  {}", differences.join("\n  "));
            println!("{}\n{}", self.cluster.master.log_tail(), self.cluster.slaves[0].process().log_tail());
            for part in ["differs from the master's", "differs from", "divergence", "contradicts"] {
                self.cluster.expect_log(part);
            }
            self.cluster.run("verify", &["--repair"]);
            self.cluster.wait();
            self.repairs = crate::repairs(&self.cluster);
        }
        let found = self.newest_commit_of(&mount);
        let answered = self.commits.0;
        assert!(
            found == answered || found == answered + 1,
            "{answered} commits were answered, {found} are there"
        );
        self.commits = (found, self.newest_commit_of(&replica));
        assert_eq!(self.commits.1, found, "the replica lacks commits");
        self.counts.commits = found;
    }
}
