//! The log's disk is full: applications go on, nobody is told that slaves are equal, and as soon as there is room
//! again everything becomes equal by itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use harness::cluster::ClusterPaths;
use harness::ops::{Names, Writers};
use harness::{Cluster, rng};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{SOON, cluster};

/// A cluster whose master keeps its state on a small disk of its own, which is full before the first change.
struct Scene {
    cluster: Cluster,
    filler: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let cluster = cluster()
            .network(1)
            .prepare(small_state)
            .expect_log("No space left on device")
            .expect_log("could not be recorded")
            .expect_log("epoch 2 has begun")
            .start();
        cluster.wait();
        let saved = || fs::read_to_string(cluster.paths.state.join("slaves.json")).unwrap_or_default();
        harness::eventually(SOON, "the first copy is noted", || saved().contains("\"needs_resync\": false"));
        assert_eq!((number(&cluster), cluster.slave_status(0).resyncs), (1, 1));
        let filler = cluster.paths.state.join("filler");
        fill(&filler);
        Scene { cluster, filler }
    }

    /// Changes of every kind succeed, and all say that the slave lacks them.
    fn change(&self) {
        let mount = self.cluster.mount();
        fs::create_dir(mount.join("dir")).unwrap();
        for file in 0..50 {
            fs::write(mount.join(format!("dir/{file}")), vec![1; 100_000]).unwrap();
        }
        fs::remove_file(mount.join("dir/7")).unwrap();
        fs::rename(mount.join("dir/8"), mount.join("8")).unwrap();
        let (status, slave) = (self.cluster.status(), self.cluster.slave_status(0));
        assert_eq!(status.epoch.as_u64(), Some(1));
        assert!(status.last_error.is_some_and(|why| why.contains("not recorded")));
        assert!(slave.needs_resync, "{slave:?}");
        let (code, words) = self.cluster.wait_code(1);
        assert_eq!(code, Some(1), "{words}");
        assert!(!self.cluster.slaves[0].replica.join("8").exists());
    }

    /// Everything becomes equal by itself, and goes on.
    fn end(mut self) {
        self.cluster.wait();
        self.cluster.assert_equal();
        assert_eq!((number(&self.cluster), self.cluster.slave_status(0).resyncs), (2, 2));
        assert_eq!(self.cluster.status().last_error, None);
        fs::write(self.cluster.mount().join("later"), b"a record").unwrap();
        self.cluster.wait();
        self.cluster.assert_equal();
        assert_eq!((number(&self.cluster), self.cluster.slave_status(0).resyncs), (2, 2));
        self.cluster.master.stop();
        unmount(&self.cluster.paths.state, UnmountFlags::empty()).unwrap();
        self.cluster.stop();
    }
}

fn small_state(paths: &ClusterPaths) {
    fs::create_dir_all(&paths.state).unwrap();
    mount("tmpfs", &paths.state, "tmpfs", MountFlags::empty(), Some(c"size=16m,mode=0700")).unwrap();
}

fn number(cluster: &Cluster) -> u64 {
    cluster.status().epoch.as_u64().unwrap()
}

/// Takes all the space there is.
fn fill(path: &Path) {
    let mut filler = File::options().create(true).append(true).open(path).unwrap();
    for piece in [vec![1; 1 << 16], vec![1; 4096]] {
        while filler.write_all(&piece).is_ok() {}
    }
}

/// P5: "a slow, dead or full slave blocks neither the master nor another slave", and neither does a full log; DESIGN
/// section 4: "the epoch ends there, applications go on unhindered, slaves are marked for resync, a new epoch
/// starts when there is room". tdfs.8: "Applications go on, no slave gets their changes, and each second a new epoch is
/// tried, whose begin is a resync of all slaves."
#[test]
fn a_full_log_hinders_nobody() {
    let scene = Scene::new();
    scene.change();
    fs::remove_file(&scene.filler).unwrap();
    scene.end();
}

/// The same with a kill -9 in between: the old epoch does not go on. Without room tdfs says why it does not start.
#[test]
fn a_kill_with_a_full_log_ends_the_epoch() {
    let mut scene = Scene::new();
    scene.change();
    scene.cluster.master.kill();
    fill(&scene.filler);
    scene.cluster.master.start_again().unwrap();
    let ended = scene.cluster.master.wait_end(SOON).expect("it can't start");
    let tail = scene.cluster.master.log_tail();
    let said = tail.lines().last().unwrap();
    assert_eq!(ended.code(), Some(1), "{tail}");
    assert!(said.starts_with("tdfs: ") && said.contains("No space left on device"), "{tail}");
    fs::remove_file(&scene.filler).unwrap();
    scene.cluster.start_master();
    scene.end();
}

/// Epoch after epoch ends while threads write and two slaves are at different places: none gets a record or an
/// answer of the wrong one.
#[test]
fn epochs_end_under_load() {
    let expected = ["No space left on device", "has begun", "could not be recorded", "will be compared"];
    let mut cluster = cluster().network(2).prepare(small_state);
    for part in expected {
        cluster = cluster.expect_log(part);
    }
    let mut cluster = cluster.start();
    let names = Names::few(12, 4);
    let running = Writers::start(cluster.mount(), &names, rng::run_seed(), 3, None);
    let filler = cluster.paths.state.join("filler");
    for _ in 0..if harness::long_form() { 20 } else { 4 } {
        let before = number(&cluster);
        harness::eventually(SOON, "the epoch ends", || {
            fill(&filler);
            cluster.status().last_error.is_some() || number(&cluster) > before
        });
        fs::remove_file(&filler).unwrap();
        harness::eventually(SOON, "the next epoch begins", || number(&cluster) > before);
    }
    running.stop();
    cluster.wait();
    cluster.assert_equal();
    let divergences: Vec<u64> = cluster.status().slaves.iter().map(|slave| slave.divergences).collect();
    assert_eq!(divergences, [0, 0]);
    cluster.master.stop();
    unmount(&cluster.paths.state, UnmountFlags::empty()).unwrap();
    cluster.stop();
}
