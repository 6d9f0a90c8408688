//! What a user of the slave's machine puts into the replica in place of what the master has there.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use harness::Cluster;

use crate::{SOON, cluster};

const USER: u32 = 1000;

/// A user's home, on the mount and in the replica, in which one file is his and one root's. The slave has nothing of it open.
fn home() -> (Cluster, PathBuf, PathBuf) {
    let cluster = cluster()
        .network(1)
        .expect_log("divergence")
        .expect_log("stalled: open /home/his: EACCES")
        .prepare(|paths| {
            let home = paths.backing.join("home");
            fs::create_dir(&home).unwrap();
            fs::write(home.join("his"), "his").unwrap();
            fs::write(home.join("roots"), "root's").unwrap();
            for path in [home.join("his"), home] {
                chown(path, Some(USER), Some(USER)).unwrap();
            }
        })
        .start();
    cluster.wait();
    let (mount, replica) = (cluster.mount().join("home"), cluster.slaves[0].replica.join("home"));
    let open = format!("/proc/{}/fd", cluster.slaves[0].daemon.as_ref().unwrap().pid().as_raw_pid());
    let is_below = |fd: PathBuf| fs::read_link(fd).is_ok_and(|file| file.starts_with(&replica));
    harness::eventually(SOON, "the slave closes what it made", || {
        !fs::read_dir(&open).unwrap().any(|fd| is_below(fd.unwrap().path()))
    });
    (cluster, mount, replica)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn is_counted(cluster: &Cluster) {
    let status = cluster.slave_status(0);
    assert!(status.divergences > 0, "{status:?}");
}

/// SECURITY.md: "an ordinary user on either machine: nothing". He may rename in his home, there and on the master.
#[test]
fn no_file_of_root_becomes_a_setuid_program() {
    let (cluster, mount, replica) = home();
    let before = fs::metadata(replica.join("roots")).unwrap();
    fs::rename(replica.join("roots"), replica.join("his")).unwrap();
    let planted = fs::File::open(replica.join("his")).unwrap();
    set_mode(&mount.join("his"), 0o4755);
    cluster.wait();
    is_counted(&cluster);
    cluster.assert_equal();
    let now = fs::metadata(replica.join("his")).unwrap();
    assert_eq!((now.uid(), now.mode() & 0o7777), (USER, 0o4755));
    let left = planted.metadata().unwrap();
    drop(planted);
    assert_eq!(left.ino(), before.ino());
    assert!(left.uid() == USER || left.mode() & 0o6000 == 0, "it is root's still, and setuid");
    cluster.finish();
}

/// tdfs-slave(8): "What belongs to another user or group than on the master is not changed by a record".
#[test]
fn what_a_planted_link_leads_to_stays_as_it_was() {
    let (cluster, mount, replica) = home();
    let victim = cluster.tree.path().join("victim");
    fs::write(&victim, "root's").unwrap();
    set_mode(&victim, 0o600);
    fs::remove_file(replica.join("his")).unwrap();
    fs::hard_link(&victim, replica.join("his")).unwrap();
    fs::write(mount.join("his"), "written by him").unwrap();
    set_mode(&mount.join("his"), 0o644);
    chown(mount.join("his"), Some(USER), Some(7)).unwrap();
    cluster.wait();
    is_counted(&cluster);
    cluster.assert_equal();
    let now = fs::metadata(&victim).unwrap();
    assert_eq!((now.uid(), now.mode() & 0o7777, now.nlink()), (0, 0o600, 1));
    assert_eq!(fs::read_to_string(victim).unwrap(), "root's");
    cluster.finish();
}

/// A confined slave can do nothing in a directory that is outside by now. README: "never a silent stall".
#[test]
fn a_directory_that_is_moved_out_of_the_replica_stops_nothing() {
    let (cluster, mount, replica) = home();
    let outside = cluster.tree.path().join("outside");
    // The slave has it open.
    fs::write(mount.join("before"), "before").unwrap();
    cluster.wait();
    fs::rename(&replica, &outside).unwrap();
    symlink(&outside, &replica).unwrap();
    fs::write(mount.join("his"), "after").unwrap();
    fs::write(mount.join("new"), "new").unwrap();
    fs::rename(mount.join("before"), mount.join("renamed")).unwrap();
    cluster.wait();
    is_counted(&cluster);
    cluster.assert_equal();
    assert!(!outside.join("new").exists(), "it went outside");
    cluster.finish();
}
