//! tdfs-slave without root keeps what it can, and says what it can't.

use crate::{SOON, binaries};
use harness::{Compare, Daemon, TempTree};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

const NOBODY: u32 = 65_534;

/// Everything that root's tree may hold.
fn fill(tree: &Path) {
    fs::create_dir_all(tree.join("dir/closed")).unwrap();
    for (name, mode) in [("plain", 0o644), ("closed", 0), ("setuid", 0o4755), ("dir/closed/f", 0o600)] {
        fs::write(tree.join(name), name.repeat(1000)).unwrap();
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("../plain", tree.join("dir/link")).unwrap();
    fs::hard_link(tree.join("plain"), tree.join("dir/plain")).unwrap();
    chown(tree.join("plain"), Some(1234), Some(5678)).unwrap();
    let set = |name: &str| {
        rustix::fs::setxattr(tree.join("plain"), name, b"value", rustix::fs::XattrFlags::empty()).unwrap();
    };
    ["user.u", "trusted.t"].into_iter().for_each(set);
    for (name, kind) in [("fifo", "p"), ("null", "c")] {
        let mut mknod = Command::new("mknod");
        mknod.arg(tree.join(name)).arg(kind);
        if kind == "c" {
            mknod.args(["1", "3"]);
        }
        assert!(mknod.status().unwrap().success());
    }
    fs::set_permissions(tree.join("dir/closed"), fs::Permissions::from_mode(0o000)).unwrap();
}

/// tdfs-slave(8), WHAT IS CARRIED: "A slave that is not root leaves out owners, ..."
#[test]
fn an_ordinary_user_keeps_what_he_can_and_says_what_he_cannot() {
    if !harness::require("an_ordinary_user_keeps_what_he_can", "setpriv", "util-linux") {
        return;
    }
    let mut cluster = crate::cluster().insecure().later().expect_log("can't carry").start();
    fill(cluster.mount());
    let home = TempTree::new().unwrap();
    let (replica, state) = (home.dir("b").unwrap(), home.dir("state").unwrap());
    [&replica, &state].into_iter().for_each(|dir| chown(dir, Some(NOBODY), Some(NOBODY)).unwrap());
    let mut args: Vec<OsString> =
        ["--reuid=65534", "--regid=65534", "--clear-groups"].into_iter().map(OsString::from).collect();
    args.extend([binaries().slave.into(), "-m".into(), (&replica).into(), "--state".into(), (&state).into()]);
    args.extend(["-l".into(), (&cluster.slaves[0].address).into(), "--insecure".into()]);
    let mut slave = Daemon::start("setpriv", &args, &home.path().join("log")).unwrap();
    harness::eventually(SOON, "the replica is filled", || {
        let status = cluster.slave_status(0);
        status.state == "streaming" && !status.needs_resync && status.lag_records == 0
    });
    fs::write(cluster.mount().join("dir/closed/later"), "later").unwrap();
    cluster.wait();
    let said = [
        "owner and group",
        "setuid and setgid of files",
        "device nodes",
        "trusted xattrs",
        "file capabilities",
    ];
    let log = fs::read_to_string(slave.log()).unwrap();
    let (at_start, _) = log.split_once("waits for its master").expect("it says when it is ready");
    let mut status = Command::new(binaries().slave);
    let status = status.args(["status", "-m"]).arg(&replica).arg("--state").arg(&state).output().unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    let told = cluster.slave_status(0).not_carried.join("; ");
    for lack in said {
        assert!(at_start.contains(lack), "{lack}: not in the log at start: {at_start}");
        assert!(status.contains(lack), "{lack}: not in its status: {status}");
        assert!(told.contains(lack), "{lack}: not in the master's status: {told}");
    }
    let what_it_carries = Compare { owners: false, xattrs: &["user."], ..Compare::default() };
    let found = what_it_carries.run(cluster.mount(), &replica).unwrap();
    let others: Vec<_> =
        found.iter().filter(|line| !["null", "setuid"].iter().any(|name| line.contains(name))).collect();
    assert!(others.is_empty() && found.len() == 2, "{found:#?}");
    assert!(!replica.join("null").exists());
    assert_eq!(fs::metadata(replica.join("plain")).unwrap().uid(), NOBODY);
    assert_eq!(fs::metadata(replica.join("setuid")).unwrap().mode() & 0o7777, 0o755);
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(replica.join("plain"), "user.u", &mut value), Ok(5));
    slave.stop();
    cluster.master.stop();
}
