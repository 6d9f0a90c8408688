//! rename(2) in all its forms, of files and of directories.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::{checks, run};

#[test]
fn rename() {
    run(checks![
        plain,
        onto_itself_and_its_link,
        no_replace,
        exchange,
        directories_with_open_files_below,
        into_its_own_child,
        over_directories,
        chain_of_directories,
        whiteout_is_refused_or_carried,
    ]);
}

fn rename_with(dir: &Path, from: &str, to: &str, flags: RenameFlags) -> rustix::io::Result<()> {
    renameat_with(CWD, dir.join(from), CWD, dir.join(to), flags)
}

fn plain(dir: &Path) {
    fs::write(dir.join("a"), b"a").unwrap();
    fs::write(dir.join("b"), b"b").unwrap();
    let ino = fs::metadata(dir.join("a")).unwrap().ino();
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    assert_eq!(fs::read(dir.join("b")).unwrap(), b"a");
    assert_eq!(fs::metadata(dir.join("b")).unwrap().ino(), ino);
    assert!(!dir.join("a").exists());
    fs::create_dir(dir.join("sub")).unwrap();
    fs::rename(dir.join("b"), dir.join("sub/b")).unwrap();
    fs::write(dir.join("sub/b"), b"after the move").unwrap();
    let missing = rename_with(dir, "a", "c", RenameFlags::empty());
    assert_eq!(missing, Err(Errno::NOENT));
}

fn onto_itself_and_its_link(dir: &Path) {
    fs::write(dir.join("a"), b"a").unwrap();
    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    fs::rename(dir.join("a"), dir.join("a")).unwrap();
    // POSIX: two names of one file: nothing happens, both stay.
    fs::rename(dir.join("a"), dir.join("b")).unwrap();
    assert!(dir.join("a").exists() && dir.join("b").exists());
}

fn no_replace(dir: &Path) {
    fs::write(dir.join("a"), b"a").unwrap();
    fs::write(dir.join("b"), b"b").unwrap();
    assert_eq!(rename_with(dir, "a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename_with(dir, "a", "c", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(fs::read(dir.join("c")).unwrap(), b"a");
}

fn exchange(dir: &Path) {
    fs::write(dir.join("a"), b"a").unwrap();
    fs::create_dir_all(dir.join("d/inner")).unwrap();
    fs::write(dir.join("d/inner/file"), b"inside").unwrap();
    rename_with(dir, "a", "d", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(dir.join("d")).unwrap(), b"a");
    assert_eq!(fs::read(dir.join("a/inner/file")).unwrap(), b"inside");
    fs::write(dir.join("a/inner/file"), b"inside, changed").unwrap();
    rename_with(dir, "d", "a/inner/file", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(dir.join("a/inner/file")).unwrap(), b"a");
    assert_eq!(rename_with(dir, "d", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(rename_with(dir, "a", "a/inner", RenameFlags::EXCHANGE), Err(Errno::INVAL));
    let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    assert_eq!(rename_with(dir, "a", "d", both), Err(Errno::INVAL));
}

/// DESIGN O3: "The path in a record names that object at exactly that LSN."
fn directories_with_open_files_below(dir: &Path) {
    fs::create_dir_all(dir.join("top/middle")).unwrap();
    let file = File::create(dir.join("top/middle/file")).unwrap();
    file.write_all_at(b"1", 0).unwrap();
    fs::rename(dir.join("top"), dir.join("moved")).unwrap();
    file.write_all_at(b"2", 1).unwrap();
    fs::create_dir_all(dir.join("top/middle")).unwrap();
    fs::write(dir.join("top/middle/file"), b"another of that name").unwrap();
    file.write_all_at(b"3", 2).unwrap();
    fs::rename(dir.join("moved/middle"), dir.join("top/other")).unwrap();
    file.write_all_at(b"4", 3).unwrap();
    assert_eq!(fs::read(dir.join("top/other/file")).unwrap(), b"1234");
    assert_eq!(fs::read(dir.join("top/middle/file")).unwrap(), b"another of that name");
}

fn into_its_own_child(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    assert_eq!(rename_with(dir, "a", "a/b/c/a", RenameFlags::empty()), Err(Errno::INVAL));
    assert_eq!(rename_with(dir, "a/b/c", "a", RenameFlags::empty()), Err(Errno::NOTEMPTY));
}

fn over_directories(dir: &Path) {
    for name in ["a", "empty", "full", "full/inner"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("file"), b"").unwrap();
    fs::write(dir.join("a/file"), b"in a").unwrap();
    assert_eq!(rename_with(dir, "a", "full", RenameFlags::empty()), Err(Errno::NOTEMPTY));
    assert_eq!(rename_with(dir, "a", "file", RenameFlags::empty()), Err(Errno::NOTDIR));
    assert_eq!(rename_with(dir, "file", "a", RenameFlags::empty()), Err(Errno::ISDIR));
    fs::rename(dir.join("a"), dir.join("empty")).unwrap();
    assert_eq!(fs::read(dir.join("empty/file")).unwrap(), b"in a");
}

fn chain_of_directories(dir: &Path) {
    fs::create_dir(dir.join("0")).unwrap();
    fs::write(dir.join("0/file"), b"x").unwrap();
    for round in 0..100 {
        fs::rename(dir.join(round.to_string()), dir.join((round + 1).to_string())).unwrap();
        let file = File::options().append(true).open(dir.join(format!("{}/file", round + 1))).unwrap();
        std::io::Write::write_all(&mut &file, b".").unwrap();
    }
    assert_eq!(fs::metadata(dir.join("100/file")).unwrap().len(), 101);
}

fn whiteout_is_refused_or_carried(dir: &Path) {
    fs::write(dir.join("a"), b"a").unwrap();
    match rename_with(dir, "a", "b", RenameFlags::WHITEOUT) {
        Ok(()) => assert_eq!(fs::read(dir.join("b")).unwrap(), b"a"),
        Err(errno) => assert_eq!(errno, Errno::INVAL),
    }
}
