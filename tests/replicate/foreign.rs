//! What lies in the directory and is not of its file system: never recorded, never silent.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use harness::crash_disk::in_own_mounts;
use harness::daemon::run_to_end;
use harness::modes::Backing;
use harness::{Cluster, TempTree};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind};

use crate::{BINARIES, SOON, cluster};

/// Each way to change something in or at `at`, which is foreign, is refused; `own` is a file and `dir` a directory beside it.
#[track_caller]
fn assert_unchangeable(at: &Path, own: &Path, dir: &Path) {
    let fifo = || mknodat(CWD, at.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0);
    let user = || setxattr(at, "user.a", b"x", XattrFlags::empty());
    let changes: [(&str, &dyn Fn() -> std::io::Result<()>); 12] = [
        ("create", &|| fs::write(at.join("new"), b"x")),
        ("mkdir", &|| fs::create_dir(at.join("new"))),
        ("mknod", &|| Ok(fifo()?)),
        ("symlink", &|| symlink("to", at.join("new"))),
        ("link", &|| fs::hard_link(own, at.join("new"))),
        ("rename into it", &|| fs::rename(own, at.join("new"))),
        ("rename of it", &|| fs::rename(at, at.with_file_name("new"))),
        ("rename onto it", &|| fs::rename(dir, at)),
        ("rmdir", &|| fs::remove_dir(at)),
        ("chmod", &|| fs::set_permissions(at, fs::Permissions::from_mode(0o700))),
        ("utimes", &|| File::open(at)?.set_modified(SystemTime::UNIX_EPOCH)),
        ("setxattr", &|| Ok(user()?)),
    ];
    for (what, change) in changes {
        let refused = change().expect_err(what);
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::XDEV), "{what}: {refused}");
    }
}

/// What `status` says that slave 0 does not get.
fn not_carried(cluster: &Cluster) -> String {
    cluster.slave_status(0).not_carried.join("; ")
}

/// tdfs.8, `--skip-mounts`: a subvolume of btrfs is another file system, though nothing is mounted there.
#[test]
fn a_subvolume_is_shown_empty() {
    if !harness::require("a_subvolume_is_shown_empty", "btrfs", "btrfs-progs") {
        return;
    }
    in_own_mounts("foreign::a_subvolume_is_shown_empty", || {
        let cluster = cluster().embedded().expect_log("left out").prepare(Backing::Btrfs.prepare());
        let cluster = cluster.prepare(|paths| {
            for name in ["sub", "other"] {
                let mut make = Command::new("btrfs");
                make.args(["-q", "subvolume", "create"]).arg(paths.backing.join(name));
                assert!(make.status().unwrap().success());
                fs::write(paths.backing.join(name).join("f"), name).unwrap();
            }
            fs::write(paths.backing.join("own"), "content").unwrap();
            fs::create_dir(paths.backing.join("dir")).unwrap();
        });
        let mut cluster = cluster.start();
        let below = cluster.paths.backing.parent().unwrap().join("disk/0");
        let inodes = ["sub", "other"].map(|name| {
            let at = cluster.mount().join(name);
            assert_eq!(fs::read_dir(&at).unwrap().count(), 0, "{name} is shown empty");
            assert_unchangeable(&at, &cluster.mount().join("own"), &cluster.mount().join("dir"));
            assert_eq!(fs::read_dir(below.join(name)).unwrap().count(), 1, "something was made in {name}");
            fs::metadata(&at).unwrap().ino()
        });
        assert_ne!(inodes[0], inodes[1], "two subvolumes are two directories");
        fs::write(cluster.mount().join("own"), "changed").unwrap();
        cluster.wait();
        let (code, words) = cluster.run("verify", &[]);
        assert_eq!(code, Some(0), "{words}");
        let replica = cluster.slaves[0].replica.clone();
        assert_eq!(fs::read(replica.join("own")).unwrap(), b"changed");
        assert!(!replica.join("sub").exists() && !replica.join("other").exists());
        let told = not_carried(&cluster);
        assert!(told.contains("sub") && told.contains("other"), "status says only: {told}");
        cluster.master.stop();
    });
}

/// The same for what `--skip-mounts` leaves out: a bind mount shows another directory of the same file system.
#[test]
fn a_bind_mount_is_shown_empty() {
    let cluster = cluster().network(1).flag("--skip-mounts").expect_log("left out").prepare(|paths| {
        let (real, bound) = (paths.backing.join("real"), paths.backing.join("bound"));
        [&real, &bound, &paths.backing.join("dir")].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
        fs::write(real.join("f"), "content").unwrap();
        fs::write(paths.backing.join("own"), "content").unwrap();
        mount_bind(&real, &bound).unwrap();
    });
    let mut cluster = cluster.start();
    assert_eq!(fs::read_dir(cluster.mount().join("bound")).unwrap().count(), 0);
    let at = |name: &str| cluster.mount().join(name);
    assert_unchangeable(&at("bound"), &at("own"), &at("dir"));
    fs::write(at("real/f"), "changed").unwrap();
    cluster.wait();
    let replica = &cluster.slaves[0].replica;
    assert_eq!(fs::read(replica.join("real/f")).unwrap(), b"changed");
    assert!(!replica.join("bound").exists());
    assert!(not_carried(&cluster).contains("bound"), "{}", not_carried(&cluster));
    cluster.master.stop();
}

/// An overlayfs on `at`; its lower layer lies in `lower`, and has a file.
fn overlay(lower: &Path, upper: &Path, at: &Path) {
    let (lower, work, upper) = (lower.join("lower"), upper.join("work"), upper.join("upper"));
    [&lower, &work, &upper].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    fs::write(lower.join("f"), "of a lower layer").unwrap();
    let layers =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let layers = std::ffi::CString::new(layers).unwrap();
    mount("overlay", at, "overlay", MountFlags::empty(), Some(layers.as_c_str())).unwrap();
}

/// tdfs.8, `--skip-mounts`: where files are of other devices than directories, they can't be told from those of mounts.
#[test]
fn an_overlay_of_several_file_systems_is_refused() {
    in_own_mounts("foreign::an_overlay_of_several_file_systems_is_refused", || {
        let tree = TempTree::new().unwrap();
        let [lower, upper, at] = ["lower", "upper", "at"].map(|name| tree.dir(name).unwrap());
        [&lower, &upper]
            .into_iter()
            .for_each(|dir| mount("none", dir, "tmpfs", MountFlags::empty(), None).unwrap());
        overlay(&lower, &upper, &at);
        let (replica, state) = (tree.path().join("b"), tree.path().join("state"));
        let args: [OsString; 6] =
            ["-m".into(), (&at).into(), "-c".into(), replica.into(), "--state".into(), state.into()];
        let ended = run_to_end(BINARIES.tdfs, &args, SOON).unwrap();
        let words = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(2) && words.contains("xino=on"), "{words}");
        assert_eq!(words.trim_end().lines().count(), 1, "{words}");
    });
}

/// The other way round: with all layers on one file system nothing is missing.
#[test]
fn an_overlay_of_one_file_system_is_mirrored() {
    in_own_mounts("foreign::an_overlay_of_one_file_system_is_mirrored", || {
        let cluster = cluster().embedded().prepare(|paths| {
            let layers = paths.backing.parent().unwrap().join("layers");
            fs::create_dir(&layers).unwrap();
            overlay(&layers, &layers, &paths.backing);
        });
        let mut cluster = cluster.start();
        assert_eq!(fs::read(cluster.mount().join("f")).unwrap(), b"of a lower layer");
        cluster.wait();
        cluster.assert_equal();
        fs::write(cluster.mount().join("f"), "changed").unwrap();
        fs::write(cluster.mount().join("new"), "new").unwrap();
        cluster.wait();
        cluster.assert_equal();
        cluster.master.stop();
    });
}
