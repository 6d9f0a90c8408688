//! Tests of reaching and describing objects.

use super::*;
use rustix::fs::FileType;
use std::fs;

fn root() -> (tempfile::TempDir, OwnedFd) {
    let dir = tempfile::tempdir().expect("make a temporary directory");
    let fd = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open it");
    (dir, fd)
}

#[test]
fn a_fifo_is_named_but_never_opened() {
    let (dir, fd) = root();
    rustix::fs::mknodat(&fd, "pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("mkfifo");
    let pipe = open_path(fd.as_fd(), b"pipe").expect("path fd");
    assert_eq!(kind(pipe.as_fd(), &stat(pipe.as_fd()).unwrap()), Ok(Kind::Fifo));
    assert_eq!(reopen(pipe.as_fd(), OFlags::RDONLY).unwrap_err(), Errno::INVAL);
    drop(dir);
}

#[test]
fn a_symlink_is_described_not_followed() {
    let (dir, fd) = root();
    fs::create_dir(dir.path().join("d")).unwrap();
    std::os::unix::fs::symlink("d", dir.path().join("l")).unwrap();
    assert_eq!(open_dir(fd.as_fd(), b"l").unwrap_err(), Errno::NOTDIR);
    let link = open_path(fd.as_fd(), b"l").unwrap();
    let meta = meta(link.as_fd(), &stat(link.as_fd()).unwrap()).unwrap();
    assert_eq!(meta.kind, Kind::Symlink(b"d".to_vec()));
}

#[test]
fn nothing_above_the_root_is_reached() {
    let (_dir, fd) = root();
    assert_eq!(open_path(fd.as_fd(), b"..").unwrap_err(), Errno::XDEV);
    assert_eq!(open_path(fd.as_fd(), b"/etc").unwrap_err(), Errno::XDEV);
}

#[test]
fn attributes_are_set_and_read_back() {
    let (dir, fd) = root();
    fs::write(dir.path().join("f"), "content").unwrap();
    let file = open_path(fd.as_fd(), b"f").unwrap();
    let before_1970 = Time { sec: -5, nsec: 123_456_789 };
    set_mode(file.as_fd(), 0o4751).unwrap();
    set_mtime(file.as_fd(), before_1970).unwrap();
    set_xattr(file.as_fd(), b"user.long", &[7; 1000], XattrFlags::empty()).unwrap();
    let meta = meta(file.as_fd(), &stat(file.as_fd()).unwrap()).unwrap();
    assert_eq!((meta.mode, meta.mtime, meta.size), (0o4751, before_1970, 7));
    assert_eq!(meta.xattrs[0].value.len(), 1000);
    remove_xattr(file.as_fd(), b"user.long").unwrap();
    assert_eq!(xattrs(file.as_fd()).unwrap().carried, []);
}

#[test]
fn looking_by_name_tells_what_opening_tells() {
    let (dir, fd) = root();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("f"), "content").unwrap();
    std::os::unix::fs::symlink("f", at("l")).unwrap();
    rustix::fs::mknodat(&fd, "pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("mkfifo");
    let file = open_path(fd.as_fd(), b"f").unwrap();
    set_xattr(file.as_fd(), b"user.long", &[7; 1000], XattrFlags::empty()).unwrap();
    for listed in list(fd.as_fd()).unwrap() {
        let opened = open_path(fd.as_fd(), &listed.name).unwrap();
        let stat = stat(opened.as_fd()).unwrap();
        let Looked { stat: seen, meta: seen_meta, .. } = look_at(fd.as_fd(), &listed.name).unwrap();
        assert_eq!(seen_meta, meta(opened.as_fd(), &stat).unwrap());
        assert_eq!((seen.stx_ino, file_type(&seen)), (stat.stx_ino, file_type(&stat)));
        assert_eq!((listed.ino, listed.file_type), (stat.stx_ino, file_type(&stat)));
    }
    assert_eq!(look_at(fd.as_fd(), b"f").unwrap().meta.xattrs[0].value.len(), 1000);
    assert_eq!(look_at(fd.as_fd(), b"missing").unwrap_err(), Errno::NOENT);
}

#[test]
fn looking_by_name_does_not_enter_what_is_mounted() {
    let proc = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open /");
    assert_eq!(look_at(proc.as_fd(), b"proc").unwrap_err(), Errno::XDEV);
}
