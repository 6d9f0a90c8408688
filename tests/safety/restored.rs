//! A state directory that was restored from a backup: the master's log tells another history than its slave has, or the
//! slave believes that its replica is older than it is.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::Cluster;

use crate::{SOON, cluster, write_and_wait};

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

fn write_many(cluster: &Cluster, word: &str) {
    (0..50).for_each(|number| fs::write(cluster.mount().join(format!("{word}{number}")), word).unwrap());
}

/// DESIGN section 6: "a slave whose position is past our head or whose checksum of the record at its position is not ours
/// (a restored state directory)". Without the check at start, which would find it too.
#[test]
fn a_slave_of_another_history_is_resynced() {
    for passes_the_slave in [false, true] {
        let mut cluster = cluster().network(1).flag("--no-check").start();
        let (state, saved) = (cluster.paths.state.clone(), cluster.paths.state.with_extension("saved"));
        write_and_wait(&cluster, "before");
        cluster.master.stop();
        copy(&state, &saved);
        cluster.start_master();
        write_many(&cluster, "lost history ");
        cluster.wait();
        let applied = cluster.slave_status(0).applied;
        cluster.slaves[0].process().stop();
        (0..50).for_each(|number| {
            fs::remove_file(cluster.mount().join(format!("lost history {number}"))).unwrap();
        });
        cluster.master.stop();
        fs::remove_dir_all(&state).unwrap();
        fs::rename(&saved, &state).unwrap();
        cluster.start_master();
        if passes_the_slave {
            write_many(&cluster, "one ");
            write_many(&cluster, "two ");
            assert!(cluster.status().head > applied, "the slave's position is one of this history, too");
        } else {
            assert!(cluster.status().head < applied);
        }
        cluster.start_slave(0);
        cluster.wait();
        cluster.assert_equal();
        let last = cluster.slave_status(0).last_resync.unwrap();
        assert_eq!(last.cause, "other-history", "{last:?}");
        cluster.stop();
    }
}

/// tdfs.8: "the state directory of the master or of the slave was restored from a backup": what the slave replayed
/// since would be done again, to names that are other files by now, and to content that somebody changed meanwhile.
#[test]
fn a_slave_whose_state_was_restored_is_resynced() {
    for master_restarts in [false, true] {
        let mut cluster = cluster().network(1).flag("--no-check").start();
        let state = cluster.paths.state.with_file_name("b0");
        let saved = state.with_extension("saved");
        write_and_wait(&cluster, "before");
        cluster.slaves[0].process().stop();
        copy(&state, &saved);
        cluster.start_slave(0);
        write_many(&cluster, "one ");
        fs::rename(cluster.mount().join("one 1"), cluster.mount().join("two 1")).unwrap();
        fs::write(cluster.mount().join("one 1"), "another").unwrap();
        cluster.wait();
        let durable = || cluster.slave_status(0).durable == cluster.status().head;
        harness::eventually(SOON, "all of it is durable", durable);
        cluster.slaves[0].process().stop();
        if master_restarts {
            cluster.master.stop();
            cluster.start_master();
        }
        fs::remove_dir_all(&state).unwrap();
        fs::rename(&saved, &state).unwrap();
        // At the same size and mtime.
        let replica = cluster.slaves[0].replica.join("two 1");
        let before = fs::metadata(&replica).unwrap().modified().unwrap();
        fs::write(&replica, "ONE ").unwrap();
        fs::File::options().write(true).open(&replica).unwrap().set_modified(before).unwrap();
        cluster.start_slave(0);
        // Until it is there, it counts as one that has applied all.
        let cause = || cluster.slave_status(0).last_resync.unwrap().cause;
        harness::eventually(SOON, "it is known to have gone back", || cause() == "slave-restored");
        cluster.wait();
        cluster.assert_equal();
        cluster.stop();
    }
}
