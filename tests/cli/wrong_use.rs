//! Each wrong use gets exit code 2 and one sentence.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::daemon::{end_of, run_to_end};
use harness::temp_tree::mounts_below;
use harness::{Cluster, TempTree};

use crate::{BINARIES, Ended, LIMIT, assert_one_sentence, run};

/// A master directory, a place for a replica and one for state, none of them used yet.
struct Places {
    tree: TempTree,
    dir: PathBuf,
    replica: PathBuf,
    state: PathBuf,
}

impl Places {
    fn new() -> Self {
        let tree = TempTree::new().unwrap();
        let dir = tree.dir("a").unwrap();
        fs::write(dir.join("file"), b"content").unwrap();
        let (replica, state) = (tree.path().join("b"), tree.path().join("state"));
        Self { tree, dir, replica, state }
    }

    /// tdfs with an embedded slave on these places must say no, and leave no mount.
    #[track_caller]
    fn refuse(&self, dir: &Path, replica: &Path, state: &Path, mountpoint: Option<&Path>) {
        let mut args: Vec<&dyn AsRef<std::ffi::OsStr>> =
            vec![&"-m", &dir, &"-c", &replica, &"--state", &state];
        if let Some(mountpoint) = &mountpoint {
            args.push(mountpoint);
        }
        assert_one_sentence(&run(BINARIES.tdfs, &args), 2);
        assert_eq!(mounts_below(self.tree.path()), []);
    }
}

#[test]
fn dir_missing_or_no_directory() {
    let places = Places::new();
    places.refuse(&places.dir.join("missing"), &places.replica, &places.state, None);
    places.refuse(&places.dir.join("file"), &places.replica, &places.state, None);
    let missing = places.tree.path().join("missing");
    let state = places.tree.path().join("slave state");
    for dir in [&missing, &places.dir.join("file")] {
        let ended =
            run(BINARIES.slave, &[&"-m", dir, &"--state", &state, &"--insecure", &"-l", &"127.0.0.1:0"]);
        assert_one_sentence(&ended, 2);
    }
}

#[test]
fn state_inside_dir() {
    let places = Places::new();
    places.refuse(&places.dir, &places.replica, &places.dir.join("state"), None);
    places.refuse(&places.dir, &places.replica, &places.dir, None);
    assert_eq!(fs::read_dir(&places.dir).unwrap().count(), 1, "something was made in DIR");
    let inside = places.dir.join("state");
    let ended =
        run(BINARIES.slave, &[&"-m", &places.dir, &"--state", &inside, &"--insecure", &"-l", &"127.0.0.1:0"]);
    assert_one_sentence(&ended, 2);
}

#[test]
fn dir_and_mountpoint_inside_each_other() {
    let places = Places::new();
    fs::create_dir(places.dir.join("inner")).unwrap();
    places.refuse(&places.dir, &places.replica, &places.state, Some(&places.dir.join("inner")));
    places.refuse(&places.dir, &places.replica, &places.state, Some(places.tree.path()));
    // The same through a symlink and a relative path.
    std::os::unix::fs::symlink(places.dir.join("inner"), places.tree.path().join("link")).unwrap();
    places.refuse(&places.dir, &places.replica, &places.state, Some(&places.tree.path().join("link")));
    places.refuse(
        &places.dir.join("../a/."),
        &places.replica,
        &places.state,
        Some(&places.dir.join("inner")),
    );
}

#[test]
fn mountpoint_missing() {
    let places = Places::new();
    places.refuse(&places.dir, &places.replica, &places.state, Some(&places.tree.path().join("missing")));
}

#[test]
fn replica_and_dir_inside_each_other() {
    let places = Places::new();
    places.refuse(&places.dir, &places.dir.join("replica"), &places.state, None);
    places.refuse(&places.dir, &places.dir, &places.state, None);
    fs::create_dir(places.dir.join("inner")).unwrap();
    places.refuse(&places.dir.join("inner"), &places.dir, &places.state, None);
    let mountpoint = places.tree.dir("m").unwrap();
    places.refuse(&places.dir, &mountpoint.join("replica"), &places.state, Some(&mountpoint));
}

#[test]
fn a_mount_below_without_the_flag() {
    let places = Places::new();
    let below = places.dir.join("below");
    fs::create_dir(&below).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", &below, "tmpfs", flags, None).unwrap();
    let ended = run(BINARIES.tdfs, &[&"-m", &places.dir, &"-c", &places.replica, &"--state", &places.state]);
    assert_one_sentence(&ended, 2);
    assert!(ended.stderr.contains("skip-mounts"), "it says what to do: {}", ended.stderr);
}

/// The contract: "state or log output that would lie inside the mount (what to do is part of the sentence)".
#[test]
fn log_output_inside_dir() {
    let places = Places::new();
    let log = places.dir.join("log");
    let mut command = Command::new(BINARIES.tdfs);
    command.arg("-m").arg(&places.dir).arg("-c").arg(&places.replica).arg("--state").arg(&places.state);
    command.stdin(std::process::Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let status = harness::wait::first_some(LIMIT, || child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let stderr = fs::read_to_string(&log).unwrap_or_default();
    let code = status.and_then(|status| status.code());
    assert_one_sentence(&Ended { code, stdout: String::new(), stderr }, 2);
}

#[test]
fn no_dev_fuse() {
    if !harness::require("no_dev_fuse", "unshare", "util-linux") {
        return;
    }
    let places = Places::new();
    let mut command = Command::new("unshare");
    // Nothing below an empty /dev: no fuse either.
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none /mnt && mount --bind /mnt /dev && exec \"$@\"",
        "sh",
    ]);
    let dir = places.tree.path().parent().unwrap();
    assert_eq!(dir, Path::new("/dev/shm"));
    let disk = TempTree::on_disk().unwrap();
    let master = disk.dir("a").unwrap();
    command.arg(BINARIES.tdfs).arg("-m").arg(&master).arg("-c").arg(disk.path().join("b"));
    command.arg("--state").arg(disk.path().join("state"));
    let output = end_of(command, LIMIT).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended =
        Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) };
    assert_one_sentence(&ended, 2);
    assert!(ended.stderr.contains("/dev/fuse"), "{}", ended.stderr);
}

#[test]
fn no_permission() {
    let places = Places::new();
    // Copies, because others may not get to where cargo builds.
    let program = places.tree.path().join("tdfs");
    fs::copy(BINARIES.tdfs, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&places.dir, fs::Permissions::from_mode(0o700)).unwrap();
    let (dir, replica, state) = (&places.dir, &places.replica, &places.state);
    let ended = harness::Caller::nobody()
        .run(|| run(program.to_str().unwrap(), &[&"-m", dir, &"-c", replica, &"--state", state]));
    assert_one_sentence(&ended, 2);
    let state = places.dir.join("no way in");
    let outside = places.tree.dir("open").unwrap();
    let ended = harness::Caller::nobody()
        .run(|| run(program.to_str().unwrap(), &[&"-m", &outside, &"-c", replica, &"--state", &state]));
    assert_one_sentence(&ended, 2);
}

#[test]
fn a_second_slave_on_one_replica() {
    let mut cluster = Cluster::builder(BINARIES).network(1).start();
    let slave = &cluster.slaves[0];
    for state in [slave.state.clone(), cluster.tree.path().join("state/other")] {
        let args: [&dyn AsRef<std::ffi::OsStr>; 7] =
            [&"-m", &slave.replica, &"-l", &"127.0.0.1:0", &"--state", &state, &"--insecure"];
        assert_one_sentence(&run(BINARIES.slave, &args), 2);
    }
    cluster.wait();
    cluster.stop();
}

/// Who says --insecure asks nobody for a key: what names one, or wants one, contradicts it.
#[test]
fn insecure_and_keys() {
    let places = Places::new();
    let key = "SHA256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ4";
    let named = format!("127.0.0.1:1#{key}");
    let master =
        [&"-m" as &dyn AsRef<std::ffi::OsStr>, &places.dir, &"--state", &places.state, &"--insecure"];
    let both = [master.as_slice(), &[&"-c", &"127.0.0.1:1", &"--strict-keys"]].concat();
    let named = [master.as_slice(), &[&"-c", &named]].concat();
    for args in [both, named] {
        let ended = run(BINARIES.tdfs, &args);
        assert_one_sentence(&ended, 2);
        assert!(ended.stderr.contains("--insecure"), "{}", ended.stderr);
    }
    let replica = places.tree.dir("b").unwrap();
    let args: [&dyn AsRef<std::ffi::OsStr>; 9] =
        [&"-m", &replica, &"-l", &"127.0.0.1:0", &"--state", &places.state, &"--insecure", &"--allow", &key];
    assert_one_sentence(&run(BINARIES.slave, &args), 2);
}

#[test]
fn a_port_in_use() {
    let places = Places::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let replica = places.tree.dir("b").unwrap();
    let ended =
        run(BINARIES.slave, &[&"-m", &replica, &"-l", &address, &"--state", &places.state, &"--insecure"]);
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

/// The contract: "tdfs -m DIR -c SLAVE [-c SLAVE]...": one slave at least.
#[test]
fn no_slave_at_all() {
    let places = Places::new();
    let args: Vec<OsString> =
        vec!["-m".into(), (&places.dir).into(), "--state".into(), (&places.state).into()];
    let ended = run_to_end(BINARIES.tdfs, &args, Duration::from_secs(3));
    assert!(ended.is_ok_and(|output| output.status.code() == Some(2)), "it serves DIR to nobody");
}

/// What clap refuses ends with 2 as well; its usage may take more than a line.
#[test]
fn unknown_words() {
    let places = Places::new();
    let dir = places.dir.to_str().unwrap();
    for args in [
        vec!["--no-such-flag"],
        vec!["-m"],
        vec![],
        vec!["-m", dir, "-c", "host", "-z", "2"],
        vec!["-m", dir, "-c", ""],
        vec!["-m", dir, "-c", "host:99999"],
        vec!["-m", dir, "-c", "[::1"],
        vec!["status"],
        vec!["wait", "-m", dir, "--timeout", "soon"],
    ] {
        let words: Vec<&dyn AsRef<std::ffi::OsStr>> = args.iter().map(|arg| arg as &dyn AsRef<_>).collect();
        let ended = run(BINARIES.tdfs, &words);
        assert_eq!(ended.code, Some(2), "tdfs {args:?} said {}{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.is_empty());
    }
    assert_eq!(run(BINARIES.slave, &[&"--no-such-flag"]).code, Some(2));
    assert_eq!(mounts_below(places.tree.path()), []);
}
