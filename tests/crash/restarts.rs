//! Clean ends of either side, of both, in any order, again and again under load.

use std::time::Duration;

use harness::history::History;
use harness::ops::{Names, Writers};
use harness::{Cluster, Rng};

use crate::{SOON, cluster, repairs};

/// What ends and begins again in a round.
#[derive(Clone, Copy, Debug)]
enum Step {
    Slave(usize),
    Master,
    /// Both slaves while the master goes on.
    Slaves,
    /// Slave, then master; the master is back first.
    SlaveThenMaster(usize),
    /// Master, then slave; the slave is back first.
    MasterThenSlave(usize),
    All,
}

/// ARCHITECTURE: "Recovery cuts a torn tail; damage elsewhere starts a new epoch, and so does an OS crash since the
/// last clean end": a clean end does not. DESIGN P2: "no record is lost, doubled or reordered."
#[test]
fn clean_restarts_in_any_order_need_no_resync() {
    let mut rng = Rng::new(harness::rng::run_seed());
    let mut cluster = cluster().network(2).start();
    std::fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let (before, epoch) = (repairs(&cluster), cluster.status().epoch);
    let mut steps =
        vec![Step::Slave(0), Step::Slaves, Step::Master, Step::SlaveThenMaster(1), Step::MasterThenSlave(0)];
    steps.push(Step::All);
    let rounds = if harness::long_form() { 30 } else { 1 };
    let mut history: Option<History> = None;
    for _ in 0..rounds {
        // Each kind once, in an order of the seed.
        let mut left = steps.clone();
        while !left.is_empty() {
            let step = left.swap_remove(rng.index(left.len()));
            let found = restart(&mut cluster, step, &mut rng);
            if let (Some(found), Some(last)) = (&found, &history) {
                found.assert_continues(last);
            }
            history = found.or(history);
        }
        cluster.wait();
        cluster.assert_equal();
    }
    assert_eq!(repairs(&cluster), before, "the log did it, not a resync");
    assert_eq!(cluster.status().epoch, epoch);
    cluster.finish();
}

/// Writers run until the master ends (and on, where it does not); gives what its log held while it was down.
fn restart(cluster: &mut Cluster, step: Step, rng: &mut Rng) -> Option<History> {
    let writers = Writers::start(cluster.mount(), &Names::few(12, 4), rng.next(), 3, None);
    harness::eventually(SOON, "writers write", || writers.done() > 100 + rng.below(300));
    let slaves = match step {
        Step::Slave(slave) | Step::SlaveThenMaster(slave) | Step::MasterThenSlave(slave) => slave..slave + 1,
        Step::Slaves | Step::All => 0..2,
        Step::Master => 0..0,
    };
    let master_goes = !matches!(step, Step::Slave(_) | Step::Slaves);
    let master_first = matches!(step, Step::MasterThenSlave(_));
    let mut writers = Some(writers);
    if master_first {
        writers.take().map(Writers::stop);
        cluster.master.stop();
    }
    slaves.clone().for_each(|slave| cluster.slaves[slave].process().stop());
    if let Some(writers) = &writers {
        let done = writers.done();
        harness::eventually(SOON, "writers go on", || writers.done() > done + 100);
    }
    let mut history = None;
    if master_goes {
        // What it could not send any more must be there afterwards.
        writers.take().map(Writers::stop);
        if !master_first {
            cluster.master.stop();
        }
        history = Some(History::read(&cluster.paths.state).unwrap());
    }
    if master_first {
        slaves.clone().for_each(|slave| cluster.start_slave(slave));
        cluster.start_master();
    } else {
        if master_goes {
            cluster.start_master();
        }
        slaves.for_each(|slave| cluster.start_slave(slave));
    }
    if let Some(writers) = writers {
        writers.stop();
    }
    history
}

/// tdfs.8: "slaves that are connected get at most 5 s to apply what they lack": a master that has drained leaves
/// equal replicas without `tdfs wait`, time after time, and each start goes on where the last one ended.
#[test]
fn each_clean_end_leaves_equal_replicas() {
    let mut cluster = cluster().network(1).start();
    std::fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let before = repairs(&cluster);
    for round in 0..4 {
        let writers = Writers::start(cluster.mount(), &Names::few(12, 4), round, 3, Some(300));
        assert!(writers.join() > 0);
        cluster.master.stop_within(Duration::from_secs(30));
        cluster.assert_equal();
        cluster.start_master();
    }
    cluster.wait();
    assert_eq!(repairs(&cluster), before);
    cluster.finish();
}
