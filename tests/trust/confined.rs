//! The slave has given up, in each of its threads, what it does not need.

use crate::{SOON, cluster};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// tdfs-slave(8), CONFINEMENT: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD, SYS_ADMIN, SETFCAP, by their numbers.
const KEPT: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 21 | 1 << 31;
const SYS_ADMIN: u64 = 1 << 21;
const EACCES: &str = "13";

/// The fields of each thread's status.
fn threads(pid: i32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("list threads");
    let status = |path: &Path| {
        let text = fs::read_to_string(path.join("status")).expect("read a thread's status");
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    };
    tasks.map(|task| status(&task.expect("list threads").path())).collect()
}

fn assert_confined(pid: i32, kept: u64) {
    let threads = threads(pid);
    assert!(threads.len() >= 4, "main, two of the runtime, replay, sync: {}", threads.len());
    for thread in threads {
        let caps = |field: &str| u64::from_str_radix(&thread[field], 16).expect("a set of capabilities");
        let sets = ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"].map(caps);
        assert_eq!(sets, [kept, kept, kept, 0, 0], "thread {}", thread["Name"]);
        assert_eq!(thread["NoNewPrivs"], "1", "thread {}", thread["Name"]);
    }
}

/// tdfs-slave(8): "before it listens to anyone, it gives up for good" ...
#[test]
fn every_thread_of_a_slave_is_confined() {
    let cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("f"), "content").unwrap();
    cluster.wait();
    let slave = &cluster.slaves[0];
    assert_confined(slave.daemon.as_ref().unwrap().pid().as_raw_pid(), KEPT);
    // What any process of root could open.
    let outside = cluster.mount().parent().unwrap().join("outside");
    fs::create_dir(&outside).unwrap();
    for (path, expected) in [
        (outside.join("secret"), [EACCES, EACCES]),
        ("/etc/shadow".into(), [EACCES, EACCES]),
        (slave.replica.join("f"), ["0", "0"]),
        // Through a symlink that somebody planted.
        (slave.replica.join("planted/secret"), [EACCES, EACCES]),
    ] {
        if path.starts_with(&outside) {
            fs::write(&path, "secret").unwrap();
            std::os::unix::fs::symlink(&outside, slave.replica.join("planted")).unwrap();
        }
        let told = slave.state.join("tried-outside");
        fs::write(slave.state.join("try-outside"), path.to_str().unwrap()).unwrap();
        harness::eventually(SOON, "the slave tries it", || told.exists());
        harness::eventually(SOON, "the slave tells it", || {
            fs::read_to_string(&told).is_ok_and(|t| !t.is_empty())
        });
        assert_eq!(fs::read_to_string(&told).unwrap(), expected.join(" "), "{}", path.display());
        fs::remove_file(told).unwrap();
        let _ = fs::remove_file(slave.replica.join("f.made"));
    }
    fs::remove_file(slave.replica.join("planted")).unwrap();
    cluster.finish();
}

/// tdfs-slave(8): "--no-trusted-xattrs gives up the right to set trusted xattrs".
#[test]
fn without_trusted_xattrs_there_is_no_sys_admin() {
    let cluster = cluster().network(1).slave_flag("--no-trusted-xattrs").start();
    let file = cluster.mount().join("f");
    fs::write(&file, "content").unwrap();
    for name in ["user.u", "trusted.t"] {
        rustix::fs::setxattr(&file, name, b"value", rustix::fs::XattrFlags::empty()).unwrap();
    }
    cluster.wait();
    let slave = &cluster.slaves[0];
    assert_confined(slave.daemon.as_ref().unwrap().pid().as_raw_pid(), KEPT & !SYS_ADMIN);
    assert!(cluster.slave_status(0).not_carried.contains(&"trusted xattrs".to_owned()));
    let mut value = [0; 16];
    let replica = slave.replica.join("f");
    assert_eq!(rustix::fs::getxattr(&replica, "user.u", &mut value), Ok(5));
    assert!(rustix::fs::getxattr(&replica, "trusted.t", &mut value).is_err());
    cluster.finish();
}
