//! What few trees have: it is copied, and a check finds it equal.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use harness::{Cluster, require};
use rustix::fs::{CWD, FileType, Mode, OFlags, XattrFlags};

use crate::{FOUND, cluster, trees};

/// Names in the one large directory.
fn many() -> usize {
    if harness::long_form() { 100_000 } else { 20_000 }
}

fn plant(root: &Path) {
    names(root);
    deep(root);
    special(root);
    access(root);
    let directory = root.join("many");
    fs::create_dir(&directory).unwrap();
    let template = directory.join("0");
    File::create(&template).unwrap();
    (1..many()).for_each(|number| drop(File::create(directory.join(format!("{number}"))).unwrap()));
}

/// Every byte that a name may hold, and the longest names.
fn names(root: &Path) {
    let directory = root.join("names");
    fs::create_dir(&directory).unwrap();
    let bytes = (1..=255_u8).filter(|byte| *byte != b'/');
    for byte in bytes {
        for name in [&[byte][..], &[b'x', byte], &[byte, byte, b'y']] {
            if name != b"." {
                fs::write(directory.join(OsStr::from_bytes(name)), name).unwrap();
            }
        }
    }
    for byte in [b'n', 0xff, b'\n', b' '] {
        fs::create_dir(directory.join(OsStr::from_bytes(&[byte; 255]))).unwrap();
        fs::write(
            directory.join(OsStr::from_bytes(&[byte; 255])).join(OsStr::from_bytes(&[byte; 254])),
            b"x",
        )
        .unwrap();
    }
}

/// A depth of 500, with paths longer than `PATH_MAX`.
fn deep(root: &Path) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    for level in 0..500 {
        let name = format!("level{level}");
        rustix::fs::mkdirat(&at, &*name, Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, &*name, flags, Mode::empty()).unwrap();
        if level % 100 == 99 {
            let file = rustix::fs::openat(
                &at,
                "file",
                OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::RUSR,
            )
            .unwrap();
            rustix::io::write(&file, name.as_bytes()).unwrap();
        }
    }
}

/// All types, links to nowhere, and holes of every kind.
fn special(root: &Path) {
    let directory = root.join("special");
    fs::create_dir(&directory).unwrap();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, directory.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    make("fifo", FileType::Fifo, 0);
    make("socket", FileType::Socket, 0);
    make("char", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    make("large char", FileType::CharacterDevice, rustix::fs::makedev(4_000, 1_000_000));
    make("block", FileType::BlockDevice, rustix::fs::makedev(7, 200));
    fs::hard_link(directory.join("fifo"), directory.join("second fifo")).unwrap();
    let long = "t".repeat(4_095);
    for (number, target) in ["/", "..", ".", "missing/", "link0", "//x//", " ", &long].iter().enumerate() {
        symlink(target, directory.join(format!("link{number}"))).unwrap();
    }
    symlink(OsStr::from_bytes(b"\xff\xfe\n"), directory.join("link of bytes")).unwrap();
    fs::hard_link(directory.join("link0"), directory.join("second link")).unwrap();
    let sparse = |name: &str, len: u64, data: &[(u64, &[u8])]| {
        let file = File::create(directory.join(name)).unwrap();
        file.set_len(len).unwrap();
        data.iter().for_each(|(at, bytes)| file.write_all_at(bytes, *at).unwrap());
    };
    sparse("all hole", 1 << 30, &[]);
    sparse("hole at the end", 10 << 20, &[(0, b"start")]);
    sparse("hole at the start", 10 << 20, &[((10 << 20) - 3, b"end")]);
    sparse("islands", 1 << 30, &[(5_000, b"a"), (131_071, b"bc"), (1 << 29, b"far away")]);
    sparse("zeros that are data", 1 << 20, &[(0, &[0; 300_000])]);
}

/// Modes that let nobody in, owners, xattrs, ACLs, capabilities, odd times.
fn access(root: &Path) {
    let directory = root.join("access");
    fs::create_dir(&directory).unwrap();
    for (name, mode) in [("none", 0), ("all", 0o7777), ("setuid", 0o4711)] {
        fs::write(directory.join(name), name).unwrap();
        std::os::unix::fs::chown(directory.join(name), Some(65_534), Some(4_000_000_000)).unwrap();
        rustix::fs::chmod(directory.join(name), Mode::from_raw_mode(mode)).unwrap();
    }
    fs::create_dir(directory.join("closed")).unwrap();
    fs::write(directory.join("closed/in"), b"behind a closed door").unwrap();
    rustix::fs::chmod(directory.join("closed"), Mode::empty()).unwrap();
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(directory.join(name), key, value, XattrFlags::empty()).unwrap();
    };
    set("all", "user.empty", b"");
    set("all", "user.bytes", &(0..=255).collect::<Vec<u8>>());
    set("all", "trusted.x", b"for root");
    set("closed", "user.of a directory", &[9; 1_000]);
    // cap_net_bind_service=ep, in the layout of version 2.
    let mut capability = vec![1, 0, 0, 2, 0, 4, 0, 0];
    capability.extend([0; 12]);
    set("setuid", "security.capability", &capability);
    for (name, seconds) in [("old", 0_u64), ("new", 4_102_444_800)] {
        let file = File::create(directory.join(name)).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, 999_999_999);
        file.set_modified(time).unwrap();
    }
    if require("exotic", "setfacl", "acl") {
        for words in [["-m", "u:1:rwx,g:2:r"], ["-m", "d:u:3:rx,d:g::-"]] {
            let target = if words[1].starts_with("d:") { "closed" } else { "all" };
            let done = std::process::Command::new("setfacl").args(words).arg(directory.join(target)).status();
            assert!(done.unwrap().success());
        }
    }
}

/// The objects whose ctime or inode is another one.
fn touched(before: &std::collections::BTreeMap<PathBuf, (u64, i64, i64)>, root: &Path) -> Vec<PathBuf> {
    let now = trees::ctimes(root);
    now.into_iter().filter(|(path, is)| before.get(path) != Some(is)).map(|(path, _)| path).collect()
}

/// DESIGN P3: "Equal: names (any bytes), types, content, size, mode [...]", after the first copy and after a
/// check, which finds nothing to do.
#[test]
fn exotic_trees_are_copied_and_checked() {
    let mut cluster = cluster().network(1).on_disk().prepare(|paths| plant(&paths.backing)).start();
    cluster.wait_for(300);
    cluster.assert_equal();
    assert_eq!(cluster.slave_status(0).not_carried, Vec::<String>::new());
    cluster.master.stop();
    // The deepest paths are too long for this walk by paths: it looks at the rest.
    let shallow = cluster.slaves[0].replica.clone();
    let before: Vec<_> = ["names", "special", "access", "many"]
        .map(|part| (shallow.join(part), trees::ctimes(&shallow.join(part))))
        .into_iter()
        .collect();
    cluster.start_master();
    cluster.wait_for(300);
    for (part, before) in &before {
        assert_eq!(touched(before, part), Vec::<PathBuf>::new(), "a check changes nothing");
    }
    let status = cluster.slave_status(0);
    assert_eq!((status.resyncs, status.divergences), (1, 0), "{status:?}");
    let (code, words) = cluster.run("verify", &[]);
    assert_eq!(code, Some(0), "{words}");
    cluster.finish();
}

/// Bytes of the large file: data at its start and its end, a hole between them.
fn large() -> (u64, u64) {
    if harness::long_form() { (10 << 30, 1 << 30) } else { (256 << 20, 128 << 20) }
}

fn changed_byte(cluster: &Cluster, at: u64) {
    let file = File::options().read(true).write(true).open(cluster.paths.backing.join("large")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// DESIGN section 7: "Only blocks that differ are sent; a huge file never needs to fit in memory."
#[test]
fn one_byte_in_a_large_file_moves_one_block() {
    let mut cluster = cluster().network(1).on_disk().expect_log(FOUND).start();
    cluster.master.stop();
    let (len, data) = large();
    let file = File::create(cluster.paths.backing.join("large")).unwrap();
    file.set_len(len).unwrap();
    let piece = harness::Rng::new(8).bytes(1 << 20);
    for at in (0..data / 2).step_by(1 << 20) {
        file.write_all_at(&piece, at).unwrap();
        file.write_all_at(&piece, len - data / 2 + at).unwrap();
    }
    drop(file);
    cluster.start_master();
    cluster.wait_for(600);
    let resyncs = cluster.slave_status(0).resyncs;
    cluster.master.stop();
    changed_byte(&cluster, len - data / 4);
    cluster.start_master();
    cluster.wait_for(600);
    let status = cluster.slave_status(0);
    println!("one byte of {len}: {} answer bytes", status.answer_bytes);
    assert_eq!((status.resyncs, status.divergences), (resyncs + 1, 0), "{status:?}");
    // What tells that the other blocks are the same costs a little for each want of eight of them.
    let told = len / (1 << 20) * 300;
    assert!(status.answer_bytes <= (128 << 10) + 4096 + told, "{} answer bytes", status.answer_bytes);
    cluster.finish();
}
