//! The master ends and begins again, wanted or not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use harness::daemon::run_to_end;
use harness::temp_tree::mount_at;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use crate::{BINARIES, SOON, cluster, resyncs, writers};

/// The contract: "then the master likewise: equal, and `resyncs` in status unchanged".
#[test]
fn master_restart() {
    let mut cluster = cluster().network(2).start();
    fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let before = resyncs(&cluster);
    for round in 0..3 {
        let writers = writers(&cluster);
        let head = cluster.status().head;
        harness::eventually(SOON, "it works", || cluster.status().head > head + 300);
        writers.stop();
        cluster.master.stop();
        assert!(mount_at(cluster.mount()).is_none());
        if round == 1 {
            cluster.slaves[0].process().stop();
            cluster.start_slave(0);
        }
        cluster.start_master();
    }
    cluster.wait();
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

/// As in the contract: with writers running on the mount while the slave is away.
#[test]
fn slave_and_master_restart_under_load() {
    let mut cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let before = resyncs(&cluster);
    let running = writers(&cluster);
    cluster.slaves[0].process().stop();
    std::thread::sleep(Duration::from_secs(if harness::long_form() { 30 } else { 1 }));
    running.stop();
    // The master ends while the slave is away: what it missed must still be there afterwards.
    cluster.master.stop();
    cluster.start_master();
    let running = writers(&cluster);
    cluster.start_slave(0);
    harness::eventually(SOON, "it catches up", || cluster.slave_status(0).applied > 100);
    running.stop();
    cluster.wait();
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

#[test]
fn sigterm_exits_cleanly() {
    let mut cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    let start = Instant::now();
    cluster.master.stop();
    assert!(start.elapsed() < Duration::from_secs(8), "took {:?}", start.elapsed());
    assert!(mount_at(cluster.mount()).is_none());
    // In place: what is seen now is the backing tree, and the drained replica equals it.
    assert_eq!(fs::read(cluster.mount().join("file")).unwrap(), b"content");
    cluster.assert_equal();
    cluster.stop();
}

/// The contract: "the master unmounts (lazily where a file is open)", "fds still open get ENOTCONN after that".
#[test]
fn sigterm_with_an_open_file() {
    let mut cluster = cluster().network(1).start();
    let file = File::create(cluster.mount().join("file")).unwrap();
    file.write_all_at(b"content", 0).unwrap();
    cluster.master.signal(Signal::INT);
    cluster.master.assert_ends_cleanly(harness::daemon::STOP_LIMIT);
    assert!(mount_at(cluster.mount()).is_none());
    let error = file.write_all_at(b"more", 0).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTCONN));
    drop(file);
    cluster.assert_equal();
    cluster.stop();
}

/// Dirty pages of a mapping are part of what a clean end saves.
#[test]
fn sigterm_with_a_dirty_mapping() {
    let mut cluster = cluster().network(1).start();
    let path = cluster.mount().join("file");
    fs::write(&path, vec![0; 100_000]).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut mapping = harness::sys::Mapping::shared(&file, 100_000).unwrap();
    mapping.store(50_000, b"stored, never synced");
    cluster.master.stop();
    drop((mapping, file));
    let found = fs::read(&path).unwrap();
    assert_eq!(&found[50_000..50_020], b"stored, never synced");
    cluster.assert_equal();
    cluster.stop();
}

/// tdfs.8: "A second signal ends it at once."
#[test]
fn a_second_signal_ends_at_once() {
    let mut cluster = cluster().proxied(1).expect_log("second signal").start();
    fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    // Draining would take its 5 s now.
    cluster.slaves[0].proxy.as_ref().unwrap().stall(true);
    fs::write(cluster.mount().join("second"), vec![1; 1 << 20]).unwrap();
    cluster.master.signal(Signal::TERM);
    harness::eventually(SOON, "it has unmounted", || mount_at(cluster.mount()).is_none());
    cluster.master.signal(Signal::TERM);
    let start = Instant::now();
    assert!(cluster.master.wait_end(Duration::from_secs(10)).is_some());
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
    cluster.slaves[0].proxy.as_ref().unwrap().calm();
    cluster.start_master();
    cluster.finish();
}

/// The contract: "When the mount is taken away from outside (umount), tdfs ends by itself, cleanly."
#[test]
fn umount_from_outside_ends_tdfs() {
    let mut cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    unmount(cluster.mount(), UnmountFlags::empty()).unwrap();
    cluster.master.assert_ends_cleanly(Duration::from_secs(10));
    assert!(mount_at(cluster.mount()).is_none());
    assert_eq!(fs::read(cluster.mount().join("file")).unwrap(), b"content");
    cluster.start_master();
    cluster.finish();
}

/// The contract: "same DIR already served (a lock)".
#[test]
fn second_tdfs_on_same_dir_is_refused() {
    let cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    for state in [cluster.paths.state.clone(), cluster.tree.path().join("state/other")] {
        let mut args: Vec<std::ffi::OsString> = vec!["-m".into(), (&cluster.paths.backing).into()];
        args.extend(["-c".into(), cluster.tree.path().join("other replica").into()]);
        args.extend(["--state".into(), state.into()]);
        let output = run_to_end(BINARIES.tdfs, &args, SOON).unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), words.trim().lines().count()), (Some(2), 1), "{words}");
    }
    fs::write(cluster.mount().join("file"), b"the first goes on").unwrap();
    cluster.finish();
}

/// DESIGN section 4: "A stale mount of a dead tdfs at that place is recognised and cleared at start."
#[test]
fn stale_mount_of_a_dead_master_is_cleared() {
    let mut cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    cluster.wait();
    cluster.master.kill();
    let error = fs::read(cluster.mount().join("file")).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTCONN));
    cluster.start_master();
    assert_eq!(fs::read(cluster.mount().join("file")).unwrap(), b"content");
    fs::write(cluster.mount().join("after"), b"the kill").unwrap();
    cluster.finish();
}

/// Nothing that is done a thousand times may leave a file open in either daemon.
#[test]
fn no_fds_leak() {
    let mut cluster = cluster().network(1).start();
    let round = |mount: &std::path::Path, round: usize| {
        for number in 0..200 {
            let path = mount.join(format!("file{number}"));
            fs::write(&path, format!("{round}")).unwrap();
            fs::rename(&path, mount.join(format!("moved{number}"))).unwrap();
            let held = File::open(mount.join(format!("moved{number}"))).unwrap();
            fs::remove_file(mount.join(format!("moved{number}"))).unwrap();
            drop(held);
        }
    };
    round(cluster.mount(), 0);
    cluster.wait();
    let before = (cluster.master.fd_count(), cluster.slaves[0].process().fd_count());
    for number in 1..6 {
        round(cluster.mount(), number);
    }
    cluster.wait();
    let slave_pid = cluster.slaves[0].process().pid().as_raw_pid().to_string();
    let slave_fds = || harness::temp_tree::fds_of(&slave_pid).len();
    // The slave's small cache of open files may fill; the kernel forgets nodes when it likes.
    let settled = || cluster.master.fd_count() <= before.0 + 20 && slave_fds() <= before.1 + 300;
    let now = || (cluster.master.fd_count(), slave_fds());
    assert!(harness::wait::becomes_true(SOON, settled), "fds before {before:?}, now {:?}", now());
    cluster.finish();
}
