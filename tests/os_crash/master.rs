//! The master's machine goes down.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use harness::cluster::ClusterPaths;
use harness::crash_disk::{CrashDisk, boot, in_own_mounts};
use harness::{ClusterBuilder, Rng};

use crate::{SOON, cluster, finish, home, plant_quiet, wait_durable};

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

/// What a crash left of a file: its content is an old one and its mtime is not.
fn has_lost_content_alone(path: &Path, old: &[u8], new_mtime: SystemTime) -> bool {
    let meta = fs::metadata(path).unwrap();
    meta.modified().unwrap() == new_mtime && fs::read(path).unwrap() == old
}

/// DESIGN section 8: "files may have lost content at equal size and mtime: the master's tree wins, and status says what was
/// taken back". README: "of the master, by comparing all contents". The journal has the mtime, the data was not written.
fn loses_content_alone(kind: &str, cluster: ClusterBuilder) {
    let mut rng = Rng::new(harness::rng::run_seed());
    let expected =
        ["is not sure that the log has every change", "sync tree and log", "I/O error", "os error 5"];
    let mut cluster = expected.iter().fold(cluster.network(1), |all, part| all.expect_log(part)).start();
    let disk = disk(&cluster.paths);
    let (path, replica) = (cluster.mount().join("file"), cluster.slaves[0].replica.join("file"));
    let mut old = rng.bytes(100_000);
    fs::write(&path, &old).unwrap();
    // The tree is synced once a second, at times right between the two.
    for number in 1..=20 {
        wait_durable(&cluster);
        rustix::fs::syncfs(File::open(home(&cluster.paths).join("disk")).unwrap()).unwrap();
        let new = rng.bytes(old.len());
        File::options().write(true).open(&path).unwrap().write_all_at(&new, 0).unwrap();
        let mtime = fs::metadata(&path).unwrap().modified().unwrap();
        let other = File::create(cluster.mount().join("other")).unwrap();
        other.sync_all().unwrap();
        drop(other);
        let replicated = harness::wait::becomes_true(SOON, || fs::read(&replica).unwrap() == new);
        assert!(replicated, "the slave was not ahead of the disk");
        disk.crash().unwrap();
        cluster.master.kill();
        disk.come_back().unwrap();
        let lost = has_lost_content_alone(&cluster.paths.backing.join("file"), &old, mtime);
        boot(&home(&cluster.paths), number).unwrap();
        cluster.start_master();
        cluster.wait();
        cluster.assert_equal();
        if lost {
            println!("{kind}: content alone was lost by crash {number}");
            assert_eq!(fs::read(&replica).unwrap(), old);
            let last = cluster.slave_status(0).last_resync.unwrap();
            assert!(last.cause == "new-epoch" && last.differences > 0, "{last:?}");
            let (_, told) = cluster.run("status", &[]);
            assert!(told.contains("taken back"), "{told}");
            return finish(cluster);
        }
        old = fs::read(&path).unwrap();
    }
    panic!("no crash lost content alone");
}

#[test]
fn content_alone_is_lost_on_ext4() {
    in_own_mounts("master::content_alone_is_lost_on_ext4", || {
        loses_content_alone("ext4", cluster().prepare(|paths| disk(paths).make("ext4").unwrap()));
    });
}

#[test]
fn content_alone_is_lost_on_xfs() {
    in_own_mounts("master::content_alone_is_lost_on_xfs", || {
        loses_content_alone("xfs", cluster().prepare(|paths| disk(paths).make("xfs").unwrap()));
    });
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
