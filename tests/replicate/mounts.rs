//! Where the mount is, and what else is mounted there.

use std::fs;

use harness::temp_tree::mount_at;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::{cluster, writers};

#[test]
fn mountpoint_elsewhere() {
    let builder = cluster().network(1).elsewhere().compressed().prepare(|paths| {
        fs::write(paths.backing.join("before"), b"tdfs began").unwrap();
    });
    let cluster = builder.start();
    assert!(mount_at(&cluster.paths.backing).is_none());
    assert_eq!(fs::read(cluster.mount().join("before")).unwrap(), b"tdfs began");
    fs::write(cluster.mount().join("file"), b"through the mount").unwrap();
    assert_eq!(fs::read(cluster.paths.backing.join("file")).unwrap(), b"through the mount");
    let running = writers(&cluster);
    harness::eventually(crate::SOON, "it works", || cluster.status().head > 500);
    running.stop();
    cluster.wait();
    cluster.assert_equal_to(&cluster.paths.backing);
    cluster.finish();
}

#[test]
fn on_the_disk_and_not_on_tmpfs() {
    let cluster = cluster().on_disk().network(1).embedded().start();
    let running = writers(&cluster);
    harness::eventually(crate::SOON, "both apply", || {
        cluster.status().slaves.iter().all(|slave| slave.applied > 400)
    });
    running.stop();
    cluster.finish();
}

/// DESIGN section 4: "One filesystem only", "a flag says to show it as empty directories; changes there: EXDEV".
#[test]
fn a_mount_below_is_shown_empty() {
    let cluster = cluster().network(1).flag("--skip-mounts").prepare(|paths| {
        let below = paths.backing.join("below");
        fs::create_dir(&below).unwrap();
        mount("none", &below, "tmpfs", MountFlags::empty(), None).unwrap();
        fs::write(below.join("foreign"), b"of another file system").unwrap();
        fs::write(paths.backing.join("own"), b"content").unwrap();
    });
    let cluster = cluster.start();
    assert_eq!(fs::read_dir(cluster.mount().join("below")).unwrap().count(), 0);
    let error = fs::write(cluster.mount().join("below/new"), b"x").unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::XDEV));
    fs::write(cluster.mount().join("own"), b"changed").unwrap();
    cluster.wait();
    assert_eq!(fs::read(cluster.slaves[0].replica.join("own")).unwrap(), b"changed");
    assert_eq!(fs::read_dir(cluster.slaves[0].replica.join("below")).map_or(0, Iterator::count), 0);
}

/// The whole state of a device node of the mount is the kernel's: devices work through it.
#[test]
fn devices_and_set_bits_work() {
    let cluster = cluster().network(1).start();
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
    let device = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(rustix::fs::CWD, cluster.mount().join("zero"), kind, mode, device).unwrap();
    let mut bytes = [1; 16];
    let zero = fs::File::open(cluster.mount().join("zero")).unwrap();
    std::io::Read::read_exact(&mut &zero, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 16]);
    // Not by this process: a child that another test forks meanwhile would inherit the descriptor, and as long as
    // it is open for writing nobody can execute the file.
    let copied = std::process::Command::new("cp").arg("/usr/bin/id").arg(cluster.mount().join("id")).status();
    assert!(copied.unwrap().success());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs::set_permissions(cluster.mount().join("id"), mode).unwrap();
    let path = cluster.mount().join("id");
    let output = harness::Caller::nobody().run(|| std::process::Command::new(path).output()).unwrap();
    let words = String::from_utf8_lossy(&output.stdout);
    assert!(words.contains("euid=0"), "a setuid program runs as its owner: {words}");
    cluster.finish();
}
