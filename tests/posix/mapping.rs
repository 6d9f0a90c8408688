//! Mapped files: shared stores arrive, private ones stay, both see what write(2) does.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use harness::sys::Mapping;

use crate::{checks, run};

#[test]
fn mapping() {
    run(checks![
        shared_stores_arrive,
        stores_after_close_arrive,
        private_stores_stay,
        writes_are_seen,
        stores_beside_writes,
        beyond_the_end_nothing_is_written,
    ]);
}

fn file_of(dir: &Path, len: usize) -> File {
    fs::write(dir.join("file"), vec![b'.'; len]).unwrap();
    File::options().read(true).write(true).open(dir.join("file")).unwrap()
}

/// DESIGN section 2: "Stores through a shared mapping count when the kernel writes them back".
fn shared_stores_arrive(dir: &Path) {
    let file = file_of(dir, 200_000);
    let mut mapping = Mapping::shared(&file, 200_000).unwrap();
    mapping.store(0, b"first");
    mapping.store(123_456, b"middle");
    mapping.store(199_996, b"last");
    mapping.flush().unwrap();
    let found = fs::read(dir.join("file")).unwrap();
    assert_eq!((&found[..6], &found[123_455..123_463]), (&b"first."[..], &b".middle."[..]));
    assert_eq!((found.len(), &found[199_996..]), (200_000, &b"last"[..]));
}

fn stores_after_close_arrive(dir: &Path) {
    let mut mapping = Mapping::shared(&file_of(dir, 10_000), 10_000).unwrap();
    mapping.store(5_000, b"without an open file");
    fs::rename(dir.join("file"), dir.join("moved")).unwrap();
    mapping.store(100, b"after a rename");
    drop(mapping);
    let found = fs::read(dir.join("moved")).unwrap();
    assert_eq!((&found[5_000..5_007], &found[100..105]), (&b"without"[..], &b"after"[..]));
}

fn private_stores_stay(dir: &Path) {
    let file = file_of(dir, 8_192);
    let mut mapping = Mapping::private(&file, 8_192).unwrap();
    mapping.store(10, b"mine alone");
    assert_eq!(mapping.load(10..14), b"mine");
    drop(mapping);
    assert_eq!(fs::read(dir.join("file")).unwrap(), vec![b'.'; 8_192]);
}

fn writes_are_seen(dir: &Path) {
    let file = file_of(dir, 20_000);
    let mapping = Mapping::shared(&file, 20_000).unwrap();
    assert_eq!(mapping.load(9_999..10_002), b"...");
    file.write_all_at(b"written", 10_000).unwrap();
    assert_eq!(mapping.load(9_999..10_008), b".written.");
}

fn stores_beside_writes(dir: &Path) {
    let file = file_of(dir, 4_096);
    let mut mapping = Mapping::shared(&file, 4_096).unwrap();
    for round in 0..50 {
        mapping.store(round, b"s");
        file.write_all_at(b"w", 1_000 + round as u64).unwrap();
    }
    mapping.flush().unwrap();
    let found = fs::read(dir.join("file")).unwrap();
    assert_eq!(
        (&found[..51], &found[999..1_051]),
        (&[&[b's'; 50][..], b"."].concat()[..], &[b".", &[b'w'; 50][..], b"."].concat()[..])
    );
}

fn beyond_the_end_nothing_is_written(dir: &Path) {
    let file = file_of(dir, 100);
    let mut mapping = Mapping::shared(&file, 4_096).unwrap();
    mapping.store(90, b"inside and outside");
    mapping.flush().unwrap();
    drop(mapping);
    assert_eq!(file.metadata().unwrap().len(), 100);
    assert_eq!(fs::read(dir.join("file")).unwrap()[90..], *b"inside and");
}
