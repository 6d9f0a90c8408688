//! DESIGN section 7: "A root, on either side, that is no longer the recorded one (file system UUID and file handle:
//! its disk is not mounted!) is refused at start; being empty alone is no reason."

use std::fs;

use harness::temp_tree::{mount_at, mounts_below};

use crate::{
    cluster, finish, mount_disk, mount_disk_again, names, refused, resyncs, unmount_disk, write_and_wait,
};

/// tdfs.8: "Mount the disk and start again: nothing was changed, and slaves go on by the log."
#[test]
fn a_master_whose_disk_is_not_mounted_is_refused() {
    let mut cluster = cluster().network(1).prepare(|paths| mount_disk(&paths.backing)).start();
    write_and_wait(&cluster, "file");
    let (dir, before) = (cluster.paths.backing.clone(), resyncs(&cluster));
    cluster.master.stop();
    unmount_disk(&dir);
    let identity = fs::read(cluster.paths.state.join("identity.json")).unwrap();
    for name in [None, Some("of the mountpoint")] {
        if let Some(name) = name {
            fs::write(dir.join(name), b"").unwrap();
        }
        let words = refused(&mut cluster.master, &[]);
        assert!(words.contains("mounted") && words.contains("--new"), "{words}");
        assert_eq!(mounts_below(&dir), []);
        assert!(fs::read(cluster.paths.state.join("identity.json")).unwrap() == identity);
    }
    assert_eq!(names(&cluster.slaves[0].replica), ["file"]);
    mount_disk_again(&dir);
    cluster.start_master();
    write_and_wait(&cluster, "after");
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    finish(cluster);
}

/// tdfs.8: "A renamed or emptied directory is still the same".
#[test]
fn being_empty_is_no_reason() {
    let mut cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    fs::remove_file(cluster.mount().join("file")).unwrap();
    cluster.wait();
    let before = resyncs(&cluster);
    cluster.master.stop();
    cluster.slaves[0].process().stop();
    cluster.start_slave(0);
    cluster.start_master();
    write_and_wait(&cluster, "after");
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    finish(cluster);
}

#[test]
fn a_new_directory_can_be_meant() {
    let builder = cluster().network(1).embedded().expect_log("--new: ");
    let mut cluster = builder.prepare(|paths| mount_disk(&paths.backing)).start();
    write_and_wait(&cluster, "file");
    let (epoch, before) = (cluster.status().epoch, resyncs(&cluster));
    // What is as it was is not begun anew.
    cluster.master.stop();
    cluster.master.start_again_with(&["--new"]).unwrap();
    cluster.wait_ready().unwrap();
    write_and_wait(&cluster, "second");
    assert_eq!((cluster.status().epoch, resyncs(&cluster)), (epoch.clone(), before.clone()));
    cluster.master.stop();
    unmount_disk(&cluster.paths.backing);
    fs::write(cluster.paths.backing.join("another"), b"content").unwrap();
    refused(&mut cluster.master, &[]);
    cluster.master.start_again_with(&["--new"]).unwrap();
    cluster.wait_ready().unwrap();
    cluster.wait();
    cluster.assert_equal();
    assert_eq!(names(&cluster.slaves[0].replica), ["another"]);
    assert_ne!(cluster.status().epoch, epoch);
    let once_more: Vec<u64> = before.iter().map(|resyncs| resyncs + 1).collect();
    assert_eq!(resyncs(&cluster), once_more, "the same filesystem, so nobody refuses");
    // It is this one from now on.
    cluster.master.stop();
    cluster.start_master();
    write_and_wait(&cluster, "after");
    assert_eq!(resyncs(&cluster), once_more);
    finish(cluster);
}

/// tdfs-slave.8: "Mount it and start again: the replica goes on where it was."
#[test]
fn a_slave_whose_disk_is_not_mounted_is_refused() {
    let builder = cluster().network(1).expect_log("--adopt: ");
    let mut cluster = builder.prepare(|paths| mount_disk(&paths.replicas[0])).start();
    write_and_wait(&cluster, "file");
    let (replica, before) = (cluster.slaves[0].replica.clone(), resyncs(&cluster));
    cluster.slaves[0].process().stop();
    unmount_disk(&replica);
    let words = refused(cluster.slaves[0].process(), &[]);
    assert!(words.contains("mounted") && words.contains("--adopt"), "{words}");
    assert_eq!(names(&replica), [""; 0]);
    mount_disk_again(&replica);
    fs::write(cluster.mount().join("meanwhile"), b"content").unwrap();
    cluster.start_slave(0);
    cluster.wait();
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    // Another directory that is meant is filled.
    cluster.slaves[0].process().stop();
    unmount_disk(&replica);
    cluster.slaves[0].process().start_again_with(&["--adopt"]).unwrap();
    write_and_wait(&cluster, "new");
    assert_eq!(names(&replica), ["file", "meanwhile", "new"]);
    assert_eq!(resyncs(&cluster), [before[0] + 1]);
    finish(cluster);
}

#[test]
fn an_embedded_slave_whose_disk_is_not_mounted_keeps_tdfs_from_starting() {
    let builder = cluster().embedded().expect_log("--adopt: ");
    let mut cluster = builder.prepare(|paths| mount_disk(&paths.replicas[0])).start();
    write_and_wait(&cluster, "file");
    let (replica, before) = (cluster.slaves[0].replica.clone(), resyncs(&cluster));
    cluster.master.stop();
    unmount_disk(&replica);
    let identity = fs::read(cluster.paths.state.join("identity.json")).unwrap();
    let words = refused(&mut cluster.master, &[]);
    assert!(words.contains("mounted") && words.contains("--adopt"), "{words}");
    assert!(mount_at(cluster.mount()).is_none());
    assert_eq!(names(&replica), [""; 0]);
    fs::remove_dir(&replica).unwrap();
    refused(&mut cluster.master, &[]);
    assert!(!replica.exists(), "nothing is made where its disk belongs");
    assert!(fs::read(cluster.paths.state.join("identity.json")).unwrap() == identity);
    fs::create_dir(&replica).unwrap();
    mount_disk_again(&replica);
    cluster.start_master();
    write_and_wait(&cluster, "second");
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    cluster.master.stop();
    unmount_disk(&replica);
    cluster.master.start_again_with(&["--adopt"]).unwrap();
    cluster.wait_ready().unwrap();
    write_and_wait(&cluster, "third");
    assert_eq!(names(&replica), ["file", "second", "third"]);
    finish(cluster);
}
