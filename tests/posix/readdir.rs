//! Listing directories: many names, positions, changes meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use rustix::fs::Dir;

use crate::{checks, run};

#[test]
fn readdir() {
    run(checks![
        ten_thousand_names,
        dots,
        dots_of_the_top,
        positions,
        unlink_while_reading,
        inode_numbers_agree,
        types_are_told
    ]);
}

fn plant(dir: &Path, count: usize) -> BTreeSet<String> {
    let names: BTreeSet<String> = (0..count).map(|number| format!("name-{number:05}")).collect();
    names.iter().for_each(|name| drop(File::create(dir.join(name)).unwrap()));
    names
}

fn listed(dir: &Path) -> Vec<String> {
    let found = fs::read_dir(dir).unwrap();
    found.map(|found| found.unwrap().file_name().into_string().unwrap()).collect()
}

fn ten_thousand_names(dir: &Path) {
    let names = plant(dir, 10_000);
    for _ in 0..2 {
        let found = listed(dir);
        assert_eq!(found.len(), 10_000, "a name came twice or not at all");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), names);
    }
    fs::remove_file(dir.join("name-05000")).unwrap();
    assert_eq!(listed(dir).len(), 9_999);
    fs::write(dir.join("one more"), b"").unwrap();
    assert!(listed(dir).contains(&"one more".to_owned()));
}

fn numbers(dir: &Path) -> Vec<(String, u64)> {
    let found = Dir::read_from(File::open(dir).unwrap()).unwrap().map(|found| found.unwrap());
    found.map(|found| (found.file_name().to_str().unwrap().to_owned(), found.ino())).collect()
}

fn dots(dir: &Path) {
    fs::create_dir(dir.join("sub")).unwrap();
    let numbers = numbers(&dir.join("sub"));
    let ino = |path: &Path| fs::metadata(path).unwrap().ino();
    assert!(numbers.contains(&(".".to_owned(), ino(&dir.join("sub")))), "{numbers:?}");
    assert!(numbers.iter().any(|(name, _)| name == ".."), "{numbers:?}");
    assert_eq!(numbers.len(), 2);
    assert_eq!(ino(&dir.join("sub/..")), ino(dir));
}

/// The root of the mount has an inode number of its own, wherever it is told.
fn dots_of_the_top(dir: &Path) {
    let top = dir.parent().unwrap();
    let ino = fs::metadata(top).unwrap().ino();
    for _ in 0..5 {
        assert!(numbers(top).contains(&(".".to_owned(), ino)), "{:?}", numbers(top));
        assert!(numbers(dir).contains(&("..".to_owned(), ino)), "{:?}", numbers(dir));
    }
}

/// telldir(3) and seekdir(3): from any position the same names follow.
fn positions(dir: &Path) {
    plant(dir, 3_000);
    let mut reader = Dir::read_from(File::open(dir).unwrap()).unwrap();
    let mut whole = Vec::new();
    while let Some(found) = reader.read() {
        let found = found.unwrap();
        whole.push((found.file_name().to_owned(), found.offset()));
    }
    for at in [2_999, 0, 1_500, 17, 2_000] {
        reader.seek(whole[at].1).unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| reader.read()).map(|found| found.unwrap()).collect();
        let names: Vec<_> = rest.iter().map(|found| found.file_name().to_owned()).collect();
        let expected: Vec<_> = whole[at + 1..].iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, expected, "after the position of name {at}");
    }
    reader.rewind();
    assert_eq!(reader.count(), whole.len());
}

/// Removing what was listed must not hide what was not: `rm -rf` rests on it.
fn unlink_while_reading(dir: &Path) {
    plant(dir, 5_000);
    let mut seen = BTreeSet::new();
    for found in fs::read_dir(dir).unwrap() {
        let name = found.unwrap().file_name().into_string().unwrap();
        fs::remove_file(dir.join(&name)).unwrap();
        assert!(seen.insert(name), "a name came twice");
    }
    assert_eq!(seen.len(), 5_000);
    assert_eq!(listed(dir).len(), 0);
}

fn inode_numbers_agree(dir: &Path) {
    plant(dir, 300);
    for found in fs::read_dir(dir).unwrap() {
        let found = found.unwrap();
        assert_eq!(found.ino(), found.metadata().unwrap().ino());
    }
}

fn types_are_told(dir: &Path) {
    fs::create_dir(dir.join("directory")).unwrap();
    fs::write(dir.join("file"), b"").unwrap();
    std::os::unix::fs::symlink("file", dir.join("link")).unwrap();
    for found in fs::read_dir(dir).unwrap() {
        let found = found.unwrap();
        let kind = found.file_type().unwrap();
        let name = found.file_name();
        assert_eq!((kind.is_dir(), kind.is_symlink()), (name == "directory", name == "link"));
    }
}
