//! Tests of what is a hole and what is not.

use super::*;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// When it was changed last, and how many blocks it has.
fn state(file: &std::fs::File) -> (i64, i64, u64) {
    let found = file.metadata().unwrap();
    (found.ctime(), found.ctime_nsec(), found.blocks())
}

/// Blocks of the master's file system may be smaller than ours: a hole there is only zeros here, and must not be
/// punched again and again. Each time the mtime would change, of all names of the file.
#[test]
fn what_is_less_than_a_block_is_zeroed_once() {
    let file = tempfile::tempfile().unwrap();
    write_all_at(file.as_fd(), &[7; 3 * 4096], 0).unwrap();
    let mut content = vec![0; 3 * 4096];
    for (offset, len) in [(1024, 1024), (3000, 6000), (3 * 4096 - 10, 10)] {
        punch(file.as_fd(), offset, len).unwrap();
        read_at(file.as_fd(), &mut content, 0).unwrap();
        let zeros = &content[usize::try_from(offset).unwrap()..][..usize::try_from(len).unwrap()];
        assert!(zeros.iter().all(|&byte| byte == 0), "{offset}");
        std::thread::sleep(std::time::Duration::from_millis(20));
        let before = state(&file);
        punch(file.as_fd(), offset, len).unwrap();
        assert_eq!(state(&file), before, "{len} bytes at {offset}");
    }
    assert_eq!(content[0..1024], [7; 1024]);
    assert_eq!(content[2048..3000], [7; 952]);
    assert_eq!(content[9000..3 * 4096 - 10], [7; 3278]);
    // The middle block lies in the second range as a whole.
    assert_eq!(next_data(file.as_fd(), 4096, 8192).unwrap(), None);
}

/// Zeros that were written are no hole.
#[test]
fn blocks_of_zeros_become_a_hole() {
    let file = tempfile::tempfile().unwrap();
    write_all_at(file.as_fd(), &[0; 4 * 4096], 0).unwrap();
    punch(file.as_fd(), 4096, 2 * 4096).unwrap();
    assert_eq!(next_data(file.as_fd(), 4096, 3 * 4096).unwrap(), None);
    assert_eq!(next_data(file.as_fd(), 0, 4 * 4096).unwrap(), Some(0..4096));
}
