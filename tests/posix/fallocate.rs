//! fallocate(2) in the modes that tmpfs knows, and on the disk in those that only some file systems know.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate as allocate, seek};
use rustix::io::Errno;

use crate::{checks, run, run_on_disk};

const KEEP: FallocateFlags = FallocateFlags::KEEP_SIZE;

#[test]
fn fallocate() {
    run(checks![grows, keeps_size, punches_holes, wrong_use]);
}

#[test]
fn fallocate_on_disk() {
    run_on_disk(checks![grows, keeps_size, punches_holes, wrong_use, zeroes, collapses, inserts]);
}

fn file_of(dir: &Path, blocks: u8) -> File {
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(dir.join("file")).unwrap();
    for block in 0..blocks {
        file.write_all_at(&[block + 1; 4096], u64::from(block) * 4096).unwrap();
    }
    file
}

/// The first byte of each block.
fn blocks(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("file")).unwrap().chunks(4096).map(|block| block[0]).collect()
}

fn grows(dir: &Path) {
    let file = file_of(dir, 2);
    allocate(&file, FallocateFlags::empty(), 4096, 40_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 44_096);
    assert!(file.metadata().unwrap().blocks() * 512 >= 44_096);
    assert_eq!(blocks(dir)[..3], [1, 2, 0]);
}

fn keeps_size(dir: &Path) {
    let file = file_of(dir, 2);
    allocate(&file, KEEP, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 8192);
    file.write_all_at(&[9; 10], 8192).unwrap();
    assert_eq!(blocks(dir), [1, 2, 9]);
}

fn punches_holes(dir: &Path) {
    let file = file_of(dir, 8);
    allocate(&file, FallocateFlags::PUNCH_HOLE | KEEP, 2 * 4096, 3 * 4096).unwrap();
    allocate(&file, FallocateFlags::PUNCH_HOLE | KEEP, 6 * 4096 + 100, 200).unwrap();
    assert_eq!(blocks(dir), [1, 2, 0, 0, 0, 6, 7, 8]);
    assert_eq!(fs::read(dir.join("file")).unwrap()[6 * 4096 + 99..6 * 4096 + 301].iter().max(), Some(&7));
    assert_eq!(seek(&file, SeekFrom::Hole(0)), Ok(2 * 4096));
    assert_eq!(seek(&file, SeekFrom::Data(2 * 4096)), Ok(5 * 4096));
    assert_eq!(file.metadata().unwrap().len(), 8 * 4096);
    // What was in the page cache before must not come back.
    let mut bytes = [1; 4096];
    file.read_exact_at(&mut bytes, 3 * 4096).unwrap();
    assert_eq!(bytes, [0; 4096]);
}

fn wrong_use(dir: &Path) {
    let file = file_of(dir, 1);
    assert_eq!(allocate(&file, FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
    assert_eq!(allocate(&file, FallocateFlags::PUNCH_HOLE, 0, 4096), Err(Errno::OPNOTSUPP));
    let reader = File::open(dir.join("file")).unwrap();
    assert_eq!(allocate(&reader, FallocateFlags::empty(), 0, 10), Err(Errno::BADF));
}

fn zeroes(dir: &Path) {
    let file = file_of(dir, 4);
    allocate(&file, FallocateFlags::ZERO_RANGE, 4096 + 50, 4096).unwrap();
    let bytes = fs::read(dir.join("file")).unwrap();
    assert_eq!(bytes[4096..4096 + 50], [2; 50]);
    assert_eq!(bytes[4096 + 50..8192 + 50], [0; 4096]);
    allocate(&file, FallocateFlags::ZERO_RANGE, 3 * 4096, 10 * 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 13 * 4096);
    allocate(&file, FallocateFlags::ZERO_RANGE | KEEP, 0, 100 * 4096).unwrap();
    assert_eq!(blocks(dir), [0; 13]);
}

/// The kernel's FUSE refuses the modes that move data; a mount that learns them must do them right.
fn moved(outcome: rustix::io::Result<()>) -> bool {
    assert!(matches!(outcome, Ok(()) | Err(Errno::OPNOTSUPP)), "{outcome:?}");
    outcome.is_ok()
}

fn collapses(dir: &Path) {
    let file = file_of(dir, 5);
    if moved(allocate(&file, FallocateFlags::COLLAPSE_RANGE, 4096, 2 * 4096)) {
        assert_eq!(blocks(dir), [1, 4, 5]);
    }
}

fn inserts(dir: &Path) {
    let file = file_of(dir, 3);
    if moved(allocate(&file, FallocateFlags::INSERT_RANGE, 4096, 2 * 4096)) {
        assert_eq!(blocks(dir), [1, 0, 0, 2, 3]);
    }
}
