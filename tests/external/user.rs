//! tdfs of an ordinary user, mounted by fusermount3.
//!
//! /dev/fuse may be for root alone on this machine; so the test has one of its own, in its own mounts.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::crash_disk::in_own_mounts;
use harness::daemon::{Daemon, end_of, run_to_end};
use harness::status::Status;
use harness::temp_tree::{mount_at, unmount_below};
use harness::{Compare, TempTree, eventually};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount, mount_bind};

const SOON: Duration = Duration::from_secs(30);
const NOBODY: u32 = 65_534;
const DEV_FUSE: &str = "/dev/fuse";

/// What the user does with files of his own.
const WORK: &str = "set -e; umask 022
    mkdir -p d/e; echo one > d/file; echo two >> d/file; ln d/file d/e/link; ln -s ../file d/e/soft
    head -c 300000 /dev/urandom > random; truncate -s 200000 random; truncate -s 2000000 sparse
    chmod 640 random; touch -d 2001-02-03T04:05:06 d; mv d/e moved; mkfifo fifo; rm d/file
    cp /bin/true setuid; chmod 4755 setuid; test ! -w others; cat others";

/// Where it all is.
struct Places {
    tree: TempTree,
    backing: PathBuf,
    mount: PathBuf,
    replica: PathBuf,
    state: PathBuf,
    program: PathBuf,
}

impl Places {
    fn new(in_place: bool) -> Self {
        let tree = TempTree::new().expect("make a temp directory");
        let make = |name: &str| {
            let dir = tree.dir(name).expect("make a directory");
            chown(&dir, Some(NOBODY), Some(NOBODY)).expect("give it to the user");
            dir
        };
        let (backing, home) = (make("a"), make("home"));
        let mount = if in_place { backing.clone() } else { make("m") };
        fs::write(backing.join("others"), "root's").expect("make a file that is not the user's");
        fs::write(backing.join("secret"), "root's").expect("make a file that the user may not read");
        fs::create_dir(backing.join("lost+found")).expect("make a directory that the user may not list");
        for (name, mode) in [("secret", 0o600), ("lost+found", 0o700)] {
            let closed = fs::Permissions::from_mode(mode);
            fs::set_permissions(backing.join(name), closed).expect("close it to the user");
        }
        let program = tree.path().join("tdfs");
        fs::write(&program, "").expect("make a place for the program");
        // The user may not look where it was built.
        mount_bind(harness::binaries!().tdfs, &program).expect("show the program");
        Self { backing, mount, replica: home.join("b"), state: home.join("state"), program, tree }
    }

    fn give_dev_fuse(&self) {
        let dev = self.tree.dir("dev").expect("make a directory");
        mount("tdfs-test", &dev, "tmpfs", MountFlags::empty(), None).expect("mount a tmpfs with devices");
        let node = dev.join("fuse");
        let mode = Mode::from_raw_mode(0o666);
        mknodat(CWD, &node, FileType::CharacterDevice, mode, makedev(10, 229)).expect("make /dev/fuse");
        fs::set_permissions(&node, fs::Permissions::from_mode(0o666)).expect("let everybody use it");
        mount_bind(&node, DEV_FUSE).expect("show it as /dev/fuse");
    }

    fn status(&self) -> Option<Status> {
        let args: Vec<OsString> = ["status".into(), "--json".into()].into_iter().chain(self.of()).collect();
        let output = run_to_end(harness::binaries!().tdfs, &args, SOON).ok()?;
        Status::parse(&output.stdout).ok()
    }

    fn args(&self) -> Vec<OsString> {
        let mut args = vec![OsString::from(&self.program)];
        args.extend(self.of());
        args.extend(["-c".into(), (&self.replica).into()]);
        args.extend((self.mount != self.backing).then(|| (&self.mount).into()));
        args
    }

    fn of(&self) -> [OsString; 4] {
        ["-m".into(), (&self.backing).into(), "--state".into(), (&self.state).into()]
    }
}

/// `command` as the user.
fn as_user(command: &[OsString]) -> Vec<OsString> {
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(OsString::from);
    user.iter().chain(command).cloned().collect()
}

/// tdfs.8: "an ordinary user needs fusermount3, and serves only his own processes"; and what his rights can't carry is
/// named by status.
#[test]
fn an_ordinary_user_mirrors_his_own_files() {
    let test = "an_ordinary_user_mirrors_his_own_files";
    if !harness::require(test, "fusermount3", "fuse3") || !harness::require(test, "setpriv", "util-linux") {
        return;
    }
    in_own_mounts("user::an_ordinary_user_mirrors_his_own_files", || {
        mirrors(&Places::new(true));
        mirrors(&Places::new(false));
    });
}

fn mirrors(places: &Places) {
    places.give_dev_fuse();
    let log = places.tree.path().join("log");
    let mut master =
        Daemon::start("setpriv", &as_user(&places.args()), &log).expect("start tdfs as the user");
    master.expect_log("content that this user may not read");
    eventually(SOON, "it is mounted", || {
        assert!(master.is_alive(), "it ended; its log:\n{}", master.log_tail());
        mount_at(&places.mount).is_some_and(|mount| mount.kind == "fuse.tdfs") && places.status().is_some()
    });
    work(&places.mount);
    let refused = fs::read_dir(&places.mount).expect_err("another user, be it root, gets nothing");
    assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
    let mut wait: Vec<OsString> = vec!["wait".into(), "--timeout".into(), "60".into()];
    wait.extend(places.of());
    let waited = run_to_end(harness::binaries!().tdfs, &wait, SOON * 3).expect("wait for the slave");
    assert!(waited.status.success(), "{waited:?}");
    let status = places.status().expect("ask for the status");
    master.stop();
    compare(places, &status.slaves[0].not_carried);
    unmount_below(places.tree.path());
    places.tree.assert_no_leaks();
}

fn work(mount: &Path) {
    let mut command = Command::new("setpriv");
    let script: [OsString; 4] = ["sh".into(), "-c".into(), format!("cd \"$0\"; {WORK}").into(), mount.into()];
    command.args(as_user(&script));
    let ended = end_of(command, SOON).expect("work as the user");
    assert!(ended.status.success() && ended.stdout == b"root's", "{ended:?}");
}

/// All is equal but what is said not to be.
fn compare(places: &Places, not_carried: &[String]) {
    for lack in ["owner and group", "setuid", "may not read: /lost+found, /secret"] {
        assert!(not_carried.iter().any(|words| words.contains(lack)), "{lack} is not in {not_carried:?}");
    }
    assert_eq!(fs::metadata(places.replica.join("secret")).expect("it has the name").len(), 6);
    let found = Compare::default().run(&places.backing, &places.replica).expect("compare the trees");
    let of = |name: &str| found.iter().filter(|difference| difference.contains(name)).count();
    // Its user and its group; the mode.
    let owners = ["./others: ", "./lost+found: ", "./secret: "].map(of);
    // Of the secret the content, too.
    assert_eq!((owners, of("./setuid: mode"), found.len()), ([2, 2, 3], 1, 8), "{found:?}");
}
