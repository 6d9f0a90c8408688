//! Replicas that somebody else writes to, and replicas that are full.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use harness::Cluster;
use harness::log_lines::mentions;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use crate::{SOON, cluster};

/// DESIGN P6: "a replica that contradicts a record (someone wrote to it) is healed by resync of those paths,
/// and counted", while the stream goes on.
#[test]
fn a_replica_somebody_wrote_to_is_healed() {
    let cluster = cluster()
        .network(1)
        .expect_log("divergence")
        .prepare(|paths| {
            for name in ["file", "dir/in", "other/in", "deep/er/in", "left"] {
                let path = paths.backing.join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, vec![5; 200_000]).unwrap();
            }
        })
        .start();
    cluster.wait();
    let (mount, replica) = (cluster.mount().to_owned(), cluster.slaves[0].replica.clone());
    // What it has open it looks at again after a second.
    std::thread::sleep(Duration::from_millis(1_500));
    let mut counted = 0;
    let mut heal = |what: &str, act: &dyn Fn()| {
        act();
        fs::write(mount.join(format!("marker {}", what.replace('/', " "))), b"the stream goes on").unwrap();
        cluster.wait();
        let status = cluster.slave_status(0);
        assert!(status.divergences > counted, "{what}: it is counted: {status:?}");
        counted = status.divergences;
        let said = status.last_error.clone().unwrap_or_default();
        assert!(said.contains("divergence") && said.contains(what), "{what} is not named: {status:?}");
        cluster.assert_equal();
    };
    heal("file", &|| {
        fs::remove_file(replica.join("file")).unwrap();
        fs::set_permissions(mount.join("file"), PermissionsExt::from_mode(0o640)).unwrap();
    });
    heal("dir", &|| {
        fs::remove_dir_all(replica.join("dir")).unwrap();
        fs::write(mount.join("dir/new"), b"into what is gone").unwrap();
    });
    heal("comes", &|| {
        fs::create_dir_all(replica.join("comes/with/content")).unwrap();
        fs::write(mount.join("comes"), b"a file where a directory is").unwrap();
    });
    heal("renamed", &|| {
        fs::remove_dir_all(replica.join("other")).unwrap();
        fs::rename(mount.join("other"), mount.join("renamed")).unwrap();
    });
    heal("deep/er", &|| {
        fs::remove_dir_all(replica.join("deep/er")).unwrap();
        fs::write(replica.join("deep/er"), b"a file where a directory is").unwrap();
        fs::remove_file(mount.join("deep/er/in")).unwrap();
    });
    assert!(mentions(cluster.slaves[0].daemon.as_ref().unwrap().log(), &["divergence: record"]));
    assert_eq!(cluster.slave_status(0).resyncs, 1, "healing some paths begins no resync of all");
    cluster.finish();
}

/// A file system of 8 MiB for the replica.
fn small(place: &Path) {
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), Some(c"size=8m")).unwrap();
}

/// Makes room, waits, compares, and ends with nothing left mounted.
fn grow_and_finish(mut cluster: Cluster) {
    let replica = cluster.slaves[0].replica.clone();
    mount_remount(&replica, MountFlags::empty(), "size=256m").unwrap();
    cluster.wait();
    cluster.assert_equal();
    let status = cluster.slave_status(0);
    assert_eq!((status.divergences, status.resyncs), (0, 1), "nothing was skipped: {status:?}");
    assert_eq!(status.state, "streaming", "{status:?}");
    cluster.master.stop();
    cluster.slaves[0].process().stop();
    unmount(&replica, UnmountFlags::empty()).unwrap();
    cluster.stop();
}

#[track_caller]
fn until_full(cluster: &Cluster) {
    harness::eventually(SOON, "it stalls and says why", || {
        let status = cluster.slave_status(0);
        let said = status.last_error.unwrap_or_default();
        status.state == "stalled" && said.to_lowercase().contains("no space left")
    });
}

/// DESIGN P6: "A record that can't be applied is never skipped: the slave stalls on it, retries, and says why".
#[test]
fn a_full_slave_stalls_and_goes_on() {
    let cluster =
        cluster().network(1).expect_log("o space left").prepare(|paths| small(&paths.replicas[0])).start();
    fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let bytes = harness::Rng::new(4).bytes(1 << 20);
    for number in 0..24 {
        fs::write(cluster.mount().join(format!("file{number}")), &bytes).unwrap();
    }
    until_full(&cluster);
    let stalled = cluster.slave_status(0);
    fs::rename(cluster.mount().join("file20"), cluster.mount().join("renamed")).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let later = cluster.slave_status(0);
    assert_eq!((later.applied, later.divergences), (stalled.applied, 0), "none is skipped: {later:?}");
    grow_and_finish(cluster);
}

/// The same when it fills up in the first copy.
#[test]
fn a_slave_too_small_for_the_first_copy_stalls_and_goes_on() {
    let cluster = cluster()
        .network(1)
        .expect_log("o space left")
        .prepare(|paths| {
            small(&paths.replicas[0]);
            let bytes = harness::Rng::new(4).bytes(1 << 20);
            (0..24)
                .for_each(|number| fs::write(paths.backing.join(format!("file{number}")), &bytes).unwrap());
        })
        .start();
    until_full(&cluster);
    fs::write(cluster.mount().join("meanwhile"), b"from an application").unwrap();
    grow_and_finish(cluster);
}
