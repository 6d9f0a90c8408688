//! Names of any bytes, as long as they may be, and paths longer than one system call can name.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags, fstat, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::{checks, run};

#[test]
fn paths() {
    run(checks![
        names_of_any_bytes,
        names_of_255_bytes,
        beyond_path_max,
        deep_trees_move,
        links_and_dots_lead_where_they_say,
    ]);
}

/// They lead applications out of the tree; neither tdfs nor a slave goes there (of those: `replay/tests/hostile.rs`).
fn links_and_dots_lead_where_they_say(dir: &Path) {
    let outside = tempfile::tempdir().unwrap();
    let names =
        || fs::read_dir(outside.path()).unwrap().map(|found| found.unwrap().file_name()).collect::<Vec<_>>();
    symlink(outside.path(), dir.join("out")).unwrap();
    symlink("../..", dir.join("up")).unwrap();
    symlink("up/../..", dir.join("further")).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    symlink(outside.path(), dir.join("sub/out")).unwrap();
    fs::write(dir.join("out/file"), b"outside").unwrap();
    fs::write(dir.join("sub/../inside"), b"inside").unwrap();
    let above = |levels| dir.ancestors().nth(levels).unwrap().canonicalize().unwrap();
    assert_eq!(dir.join("up").canonicalize().unwrap(), above(2));
    assert_eq!(dir.join("further").canonicalize().unwrap(), above(4));
    assert_eq!(dir.join("sub/../../..").canonicalize().unwrap(), above(2));
    rustix::fs::setxattr(dir.join("out"), "trusted.a", b"b", XattrFlags::empty()).unwrap();
    fs::rename(dir.join("sub/out"), dir.join("sub/moved")).unwrap();
    fs::remove_dir_all(dir.join("sub")).unwrap();
    fs::remove_file(dir.join("out")).unwrap();
    symlink(outside.path(), dir.join("out")).unwrap();
    assert_eq!(names(), ["file"]);
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"outside");
}

fn names_of_any_bytes(dir: &Path) {
    for byte in (1..=255_u8).filter(|byte| *byte != b'/' && *byte != b'.') {
        fs::write(dir.join(OsStr::from_bytes(&[byte])), [byte]).unwrap();
    }
    for name in [
        "...",
        ".hidden",
        " ",
        "a\nb",
        "-rf",
        "*",
        "%s",
        "\u{1f980}",
        "..\\..",
        "a//b".trim_end_matches("//b"),
    ] {
        if !dir.join(name).exists() {
            fs::create_dir(dir.join(name)).unwrap();
        }
    }
    let invalid = dir.join(OsStr::from_bytes(b"\xff\xfe\x80"));
    fs::create_dir(&invalid).unwrap();
    fs::write(invalid.join(OsStr::from_bytes(b"\xc3\x28")), b"below").unwrap();
    fs::rename(&invalid, dir.join(OsStr::from_bytes(b"\x80 renamed"))).unwrap();
    symlink(OsStr::from_bytes(b"\xf0\x28"), dir.join(OsStr::from_bytes(b"\xe2\x28"))).unwrap();
    assert!(fs::read_dir(dir).unwrap().count() > 250);
}

fn names_of_255_bytes(dir: &Path) {
    let longest = "n".repeat(255);
    fs::write(dir.join(&longest), b"x").unwrap();
    fs::hard_link(dir.join(&longest), dir.join("m".repeat(255))).unwrap();
    fs::create_dir(dir.join("d".repeat(255))).unwrap();
    let too_long = dir.join("n".repeat(256));
    let errno = |result: std::io::Result<()>| Errno::from_io_error(&result.unwrap_err());
    assert_eq!(errno(fs::write(&too_long, b"x")), Some(Errno::NAMETOOLONG));
    assert_eq!(errno(fs::create_dir(&too_long)), Some(Errno::NAMETOOLONG));
    assert_eq!(errno(symlink("x", &too_long)), Some(Errno::NAMETOOLONG));
    assert_eq!(errno(fs::rename(dir.join(&longest), &too_long)), Some(Errno::NAMETOOLONG));
    assert_eq!(errno(fs::metadata(&too_long).map(drop)), Some(Errno::NAMETOOLONG));
}

fn directory_below(at: &OwnedFd, name: &str) -> OwnedFd {
    mkdirat(at, name, Mode::from_raw_mode(0o755)).unwrap();
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn open_directory(dir: &Path) -> OwnedFd {
    openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// The contract: "paths beyond 4096 bytes reached by relative steps".
fn beyond_path_max(dir: &Path) {
    let mut at = open_directory(dir);
    for level in 0..40 {
        at = directory_below(&at, &format!("{level:0>200}"));
    }
    let flags = OFlags::CREATE | OFlags::RDWR;
    let file = File::from(openat(&at, "file", flags, Mode::from_raw_mode(0o600)).unwrap());
    file.write_all_at(b"deep down", 0).unwrap();
    file.set_len(5).unwrap();
    rustix::fs::fsetxattr(&file, "user.deep", b"v", XattrFlags::empty()).unwrap();
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
    rustix::fs::symlinkat("target", &at, "link").unwrap();
    rustix::fs::linkat(&at, "file", &at, "second", AtFlags::empty()).unwrap();
    renameat(&at, "second", &at, "third").unwrap();
    let inner = directory_below(&at, "inner");
    renameat(&at, "link", &inner, "link").unwrap();
    unlinkat(&at, "file", AtFlags::empty()).unwrap();
    file.write_all_at(b"DEEP", 0).unwrap();
    let again = File::from(openat(&at, "third", OFlags::RDONLY, Mode::empty()).unwrap());
    let mut bytes = [0; 5];
    again.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, fstat(&again).unwrap().st_mode & 0o7777), (b"DEEP ", 0o640));
    assert!(rustix::fs::Dir::read_from(&at).unwrap().count() >= 4);
}

/// Moving a directory lengthens the paths of what is open below it.
fn deep_trees_move(dir: &Path) {
    let root = open_directory(dir);
    let low = directory_below(&root, "low");
    let file = File::from(openat(&low, "file", OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap());
    let mut at = directory_below(&root, "high");
    for level in 0..25 {
        at = directory_below(&at, &format!("{level:0>220}"));
    }
    renameat(&root, "low", &at, "low").unwrap();
    file.write_all_at(b"moved below", 0).unwrap();
    openat(&low, "new", OFlags::CREATE | OFlags::RDWR, Mode::RWXU).unwrap();
    renameat(&at, "low", &root, "back").unwrap();
    file.write_all_at(b"MOVED", 0).unwrap();
    assert_eq!(fs::read(dir.join("back/file")).unwrap(), b"MOVED below");
    assert!(dir.join("back/new").exists());
}
