//! DESIGN section 7: "A root, on either side, that is no longer the recorded one (file system UUID and file handle:
//! its disk is not mounted!) is refused at start; being empty alone is no reason."

use std::fs;

use harness::temp_tree::mounts_below;

use crate::{
    cluster, finish, mount_disk, mount_disk_again, names, refused, resyncs, unmount_disk, write_and_wait,
};

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
