//! The master's machine goes down.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::cluster::ClusterPaths;
use harness::crash_disk::{CrashDisk, boot, in_own_mounts};
use harness::{ClusterBuilder, Rng};

use crate::{cluster, finish, home, plant_quiet, wait_durable};

/// How long applications work before the power goes.
const WORK: Duration = Duration::from_millis(2_000);
const CRASHES: u32 = 2;
const FILES: u64 = 40;

fn disk(paths: &ClusterPaths) -> CrashDisk {
    CrashDisk::new(&home(paths), &[&paths.backing, &paths.state])
}

/// Overwrites, appends, makes, renames and removes until the power is gone; returns how often.
fn work(root: &Path, mut rng: Rng) -> u64 {
    for number in 0.. {
        let file = |number: u64| root.join(format!("file{}", number % FILES));
        let path = file(rng.below(FILES));
        let done = match rng.below(6) {
            0 | 1 => fs::write(&path, rng.bytes(4096)),
            2 => fs::write(&path, rng.bytes(100_000)),
            3 => fs::rename(&path, file(rng.below(FILES))),
            4 => fs::hard_link(&path, file(rng.below(FILES))),
            _ => fs::remove_file(&path),
        };
        match done.err().map(|e| e.kind()) {
            None | Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::AlreadyExists) => {}
            Some(_) => return number,
        }
    }
    unreachable!("there are more numbers")
}

/// DESIGN P8, and section 8: "After a crash of the master, slaves may be ahead of it, and files may have lost content at
/// equal size and mtime: the master's tree wins".
fn goes_down(kind: &str, cluster: ClusterBuilder) {
    let seed = harness::rng::run_seed();
    let expected =
        ["is not sure that the log has every change", "sync tree and log", "I/O error", "os error 5"];
    let cluster = expected.iter().fold(cluster.network(1), |cluster, part| cluster.expect_log(part));
    let mut cluster = cluster.start();
    let disk = disk(&cluster.paths);
    plant_quiet(cluster.mount(), &mut Rng::part(seed, 0));
    wait_durable(&cluster);
    for number in 1..=CRASHES {
        let (before, epoch) = (cluster.slave_status(0), cluster.status().epoch);
        let (root, rng) = (cluster.mount().to_owned(), Rng::part(seed, number.into()));
        let working = std::thread::spawn(move || work(&root, rng));
        std::thread::sleep(WORK);
        disk.crash().unwrap();
        cluster.master.kill();
        let changes = working.join().unwrap();
        disk.come_back().unwrap();
        boot(&home(&cluster.paths), number).unwrap();
        cluster.start_master();
        cluster.wait();
        let after = cluster.slave_status(0);
        let last = after.last_resync.clone().unwrap();
        println!(
            "{kind}: {changes} changes, {} taken back, {} bytes of answers",
            last.differences, after.answer_bytes
        );
        assert_eq!(last.cause, "new-epoch");
        assert!(last.differences > 0, "what was not synced is lost, and the slave had it");
        cluster.assert_equal();
        assert_eq!((after.resyncs, after.divergences), (before.resyncs + 1, 0), "{after:?}");
        assert_ne!(cluster.status().epoch, epoch, "what happened last may be in no log");
    }
    finish(cluster);
}

#[test]
fn master_on_ext4_goes_down() {
    in_own_mounts("master::master_on_ext4_goes_down", || {
        goes_down("ext4", cluster().prepare(|paths| disk(paths).make("ext4").unwrap()));
    });
}

#[test]
fn master_on_xfs_goes_down() {
    in_own_mounts("master::master_on_xfs_goes_down", || {
        goes_down("xfs", cluster().prepare(|paths| disk(paths).make("xfs").unwrap()));
    });
}
