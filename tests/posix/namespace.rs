//! Names come and go: create, mkdir, mknod, symlink, link, unlink, rmdir, and files without a name.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;

use crate::{checks, run};

#[test]
fn namespace() {
    run(checks![
        create,
        create_exclusively,
        directories,
        fifo_and_socket,
        device_nodes,
        symlinks,
        hard_links,
        link_to_a_symlink,
        unlink_and_make_again,
        open_but_unlinked,
        open_but_replaced,
        unlinked_by_one_of_two_names,
        directory_times_and_link_counts,
        temporary_file_without_a_name,
    ]);
}

fn errno<T>(result: std::io::Result<T>) -> Option<Errno> {
    result.err().as_ref().and_then(Errno::from_io_error)
}

fn create(dir: &Path) {
    let mut options = File::options();
    let file = options.write(true).create(true).mode(0o640).open(dir.join("file")).unwrap();
    let stat = file.metadata().unwrap();
    assert_eq!((stat.len(), stat.mode() & 0o7777, stat.nlink()), (0, 0o640, 1));
    assert_eq!(errno(File::open(dir.join("missing"))), Some(Errno::NOENT));
    assert_eq!(errno(File::create(dir.join("missing/file"))), Some(Errno::NOENT));
    assert_eq!(errno(File::create(dir.join("file/inner"))), Some(Errno::NOTDIR));
    assert_eq!(errno(File::create(dir)), Some(Errno::ISDIR));
    // Writable through the fd that created it, though its mode forbids it to everybody.
    let mut closed = options.mode(0o000).open(dir.join("closed")).unwrap();
    closed.write_all(b"written").unwrap();
    assert_eq!(fs::read(dir.join("closed")).unwrap(), b"written");
}

fn create_exclusively(dir: &Path) {
    File::create_new(dir.join("file")).unwrap();
    assert_eq!(errno(File::create_new(dir.join("file"))), Some(Errno::EXIST));
    symlink("nowhere", dir.join("dangling")).unwrap();
    assert_eq!(errno(File::create_new(dir.join("dangling"))), Some(Errno::EXIST));
    File::create(dir.join("dangling")).unwrap();
    assert!(dir.join("nowhere").is_file());
}

fn directories(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    assert_eq!(errno(fs::create_dir(dir.join("a"))), Some(Errno::EXIST));
    assert_eq!(errno(fs::remove_dir(dir.join("a"))), Some(Errno::NOTEMPTY));
    assert_eq!(errno(fs::remove_file(dir.join("a"))), Some(Errno::ISDIR));
    fs::remove_dir(dir.join("a/b/c")).unwrap();
    assert_eq!(errno(fs::remove_dir(dir.join("a/b/c"))), Some(Errno::NOENT));
    File::create(dir.join("file")).unwrap();
    assert_eq!(errno(fs::remove_dir(dir.join("file"))), Some(Errno::NOTDIR));
    // One that is open lives on without a name, but takes nothing new.
    fs::create_dir(dir.join("gone")).unwrap();
    let gone = File::open(dir.join("gone")).unwrap();
    fs::remove_dir(dir.join("gone")).unwrap();
    assert!(gone.metadata().unwrap().is_dir());
    assert_eq!(rustix::fs::mkdirat(&gone, "inner", Mode::RWXU), Err(Errno::NOENT));
}

fn fifo_and_socket(dir: &Path) {
    mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert!(fs::symlink_metadata(dir.join("fifo")).unwrap().file_type().is_fifo());
    let path = dir.join("fifo");
    let reader = std::thread::spawn(move || fs::read(path).unwrap());
    File::options().write(true).open(dir.join("fifo")).unwrap().write_all(b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");

    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    assert!(fs::symlink_metadata(dir.join("socket")).unwrap().file_type().is_socket());
    let mut sender = std::os::unix::net::UnixStream::connect(dir.join("socket")).unwrap();
    sender.write_all(b"over").unwrap();
    drop(sender);
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "over");
}

fn device_nodes(dir: &Path) {
    for (name, kind, device) in [
        ("null", FileType::CharacterDevice, makedev(1, 3)),
        ("large numbers", FileType::CharacterDevice, makedev(4095, 1_048_575)),
        ("block", FileType::BlockDevice, makedev(7, 200)),
    ] {
        mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
        let stat = fs::symlink_metadata(dir.join(name)).unwrap();
        assert_eq!((stat.rdev(), stat.mode() & 0o7777), (device, 0o640));
    }
    // A regular file by mknod is one like any other.
    mknodat(CWD, dir.join("regular"), FileType::RegularFile, Mode::from_raw_mode(0o600), 0).unwrap();
    fs::write(dir.join("regular"), b"content").unwrap();
    let again = mknodat(CWD, dir.join("null"), FileType::Fifo, Mode::RWXU, 0);
    assert_eq!(again, Err(Errno::EXIST));
}

fn symlinks(dir: &Path) {
    let long = "x/".repeat(2000);
    for (name, target) in [("relative", "../somewhere"), ("absolute", "/etc/passwd"), ("long", &long)] {
        symlink(target, dir.join(name)).unwrap();
        assert_eq!(fs::read_link(dir.join(name)).unwrap().to_str(), Some(target));
        assert_eq!(fs::symlink_metadata(dir.join(name)).unwrap().len(), target.len() as u64);
    }
    symlink("loop", dir.join("loop")).unwrap();
    assert_eq!(errno(File::open(dir.join("loop"))), Some(Errno::LOOP));
    assert_eq!(errno(symlink("other", dir.join("loop"))), Some(Errno::EXIST));
    assert_eq!(errno(symlink("", dir.join("empty"))), Some(Errno::NOENT));
    fs::write(dir.join("file"), b"behind").unwrap();
    symlink("file", dir.join("link")).unwrap();
    assert_eq!(fs::read(dir.join("link")).unwrap(), b"behind");
    let raw = std::ffi::OsString::from_vec(vec![0xff, 0x80, b'\n']);
    symlink(&raw, dir.join("raw")).unwrap();
    assert_eq!(fs::read_link(dir.join("raw")).unwrap().as_os_str(), raw);
}

fn hard_links(dir: &Path) {
    fs::write(dir.join("one"), b"1").unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::hard_link(dir.join("one"), dir.join("two")).unwrap();
    fs::hard_link(dir.join("two"), dir.join("sub/three")).unwrap();
    assert_eq!(fs::metadata(dir.join("one")).unwrap().nlink(), 3);
    fs::write(dir.join("sub/three"), b"changed through the third").unwrap();
    assert_eq!(fs::read(dir.join("one")).unwrap(), b"changed through the third");
    assert_eq!(fs::metadata(dir.join("one")).unwrap().ino(), fs::metadata(dir.join("two")).unwrap().ino());
    fs::remove_file(dir.join("one")).unwrap();
    assert_eq!(fs::metadata(dir.join("two")).unwrap().nlink(), 2);
    fs::set_permissions(dir.join("two"), std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    assert_eq!(fs::metadata(dir.join("sub/three")).unwrap().mode() & 0o7777, 0o604);
    assert_eq!(errno(fs::hard_link(dir.join("two"), dir.join("sub/three"))), Some(Errno::EXIST));
    assert_eq!(errno(fs::hard_link(dir.join("sub"), dir.join("four"))), Some(Errno::PERM));
    assert_eq!(errno(fs::hard_link(dir.join("one"), dir.join("five"))), Some(Errno::NOENT));
}

fn link_to_a_symlink(dir: &Path) {
    fs::write(dir.join("file"), b"x").unwrap();
    symlink("file", dir.join("link")).unwrap();
    rustix::fs::linkat(CWD, dir.join("link"), CWD, dir.join("same link"), AtFlags::empty()).unwrap();
    assert!(fs::symlink_metadata(dir.join("same link")).unwrap().file_type().is_symlink());
    rustix::fs::linkat(CWD, dir.join("link"), CWD, dir.join("same file"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(fs::symlink_metadata(dir.join("file")).unwrap().nlink(), 2);
    mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::hard_link(dir.join("fifo"), dir.join("same fifo")).unwrap();
}

fn unlink_and_make_again(dir: &Path) {
    for round in 0..50 {
        fs::write(dir.join("name"), format!("round {round}")).unwrap();
        fs::remove_file(dir.join("name")).unwrap();
        assert_eq!(fs::metadata(dir.join("name")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(dir.join("name")).unwrap();
        fs::remove_dir(dir.join("name")).unwrap();
    }
    fs::write(dir.join("name"), b"last").unwrap();
}

/// DESIGN P3 and section 4: a file without a name is still read and written, and is not on the replica.
fn open_but_unlinked(dir: &Path) {
    let path = dir.join("gone");
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    file.write_all(b"before").unwrap();
    fs::remove_file(&path).unwrap();
    file.write_all(b" and after").unwrap();
    file.set_len(12).unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "before and a");
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    // Others take the name while the first is still open.
    fs::write(&path, b"another").unwrap();
    file.write_all_at(b"unseen", 0).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"another");
    assert_ne!(fs::metadata(&path).unwrap().ino(), file.metadata().unwrap().ino());
    fs::remove_file(&path).unwrap();
}

fn open_but_replaced(dir: &Path) {
    fs::write(dir.join("old"), b"old content").unwrap();
    let old = File::options().read(true).write(true).open(dir.join("old")).unwrap();
    fs::write(dir.join("new"), b"new content").unwrap();
    fs::rename(dir.join("new"), dir.join("old")).unwrap();
    old.write_all_at(b"OLD", 0).unwrap();
    let mut bytes = [0; 11];
    old.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, old.metadata().unwrap().nlink()), (b"OLD content", 0));
    assert_eq!(fs::read(dir.join("old")).unwrap(), b"new content");
}

/// DESIGN section 4: a file "opened as a, a unlinked, b never looked up" is written all the same.
fn unlinked_by_one_of_two_names(dir: &Path) {
    fs::write(dir.join("a"), b"content").unwrap();
    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    let file = File::options().write(true).open(dir.join("a")).unwrap();
    fs::remove_file(dir.join("a")).unwrap();
    file.write_all_at(b"CON", 0).unwrap();
    fs::rename(dir.join("b"), dir.join("c")).unwrap();
    file.write_all_at(b"TENT", 3).unwrap();
    assert_eq!(fs::read(dir.join("c")).unwrap(), b"CONTENT");
}

fn directory_times_and_link_counts(dir: &Path) {
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let settle = || File::open(dir).unwrap().set_modified(old).unwrap();
    let moved = |what: &str| {
        assert_ne!(
            fs::metadata(dir).unwrap().modified().unwrap(),
            old,
            "mtime of the directory after {what}"
        );
        settle();
    };
    settle();
    fs::create_dir(dir.join("sub")).unwrap();
    moved("mkdir");
    File::create(dir.join("file")).unwrap();
    moved("create");
    fs::write(dir.join("file"), b"content alone does not count").unwrap();
    assert_eq!(fs::metadata(dir).unwrap().modified().unwrap(), old);
    fs::hard_link(dir.join("file"), dir.join("link")).unwrap();
    moved("link");
    fs::rename(dir.join("link"), dir.join("sub/link")).unwrap();
    moved("rename");
    fs::remove_file(dir.join("file")).unwrap();
    moved("unlink");
    fs::create_dir(dir.join("sub/inner")).unwrap();
    let subdirectories = fs::metadata(dir.join("sub")).unwrap().nlink();
    fs::remove_dir(dir.join("sub/inner")).unwrap();
    assert_eq!(fs::metadata(dir.join("sub")).unwrap().nlink() + 1, subdirectories);
}

/// FUSE may not know `O_TMPFILE`; then applications fall back, and nothing may be left behind.
fn temporary_file_without_a_name(dir: &Path) {
    match File::options().write(true).custom_flags(libc::O_TMPFILE).open(dir) {
        Ok(file) => file.write_all_at(b"x", 0).unwrap(),
        Err(error) => assert_eq!(Errno::from_io_error(&error), Some(Errno::OPNOTSUPP)),
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}
