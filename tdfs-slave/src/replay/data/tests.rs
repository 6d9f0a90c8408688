//! Tests of moving content where the kernel does not: in pieces, in either direction.

use super::*;

/// A file of so many bytes, none like its neighbours.
fn file(len: usize) -> (std::fs::File, Vec<u8>) {
    let file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..len).map(|i| u8::try_from((i * 7 + i / 251) % 256).unwrap()).collect();
    write_all_at(file.as_fd(), &content, 0).unwrap();
    (file, content)
}

fn content(file: &std::fs::File) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(size_of(file.as_fd()).unwrap()).unwrap()];
    read_at(file.as_fd(), &mut content, 0).unwrap();
    content
}

const LEN: usize = 2 * PIECE_BYTES + 12_345;

#[test]
fn a_range_is_collapsed_by_writing() {
    let (file, before) = file(LEN);
    let (offset, len) = (4096, 8192);
    let range = Range { mode: FallocateFlags::COLLAPSE_RANGE.bits(), offset, len, size: LEN as u64 - len };
    range.write_instead(file.as_fd()).unwrap();
    assert!(content(&file) == [&before[..4096], &before[4096 + 8192..]].concat());
}

#[test]
fn a_range_is_inserted_by_writing() {
    let (file, before) = file(LEN);
    let (offset, len) = (4096, 3 * PIECE_BYTES as u64);
    let range = Range { mode: FallocateFlags::INSERT_RANGE.bits(), offset, len, size: LEN as u64 + len };
    range.write_instead(file.as_fd()).unwrap();
    assert!(content(&file) == [&before[..4096], &vec![0; 3 * PIECE_BYTES], &before[4096..]].concat());
}

#[test]
fn zeros_are_written_up_to_the_end_and_the_size_is_given() {
    let (file, before) = file(LEN);
    let offset = LEN as u64 - 10;
    let keep = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let range = Range { mode: keep.bits(), offset, len: 1 << 40, size: LEN as u64 };
    range.write_instead(file.as_fd()).unwrap();
    assert!(content(&file) == [&before[..LEN - 10], &[0; 10]].concat());
    let range = Range { mode: FallocateFlags::ZERO_RANGE.bits(), offset, len: 110, size: LEN as u64 + 100 };
    range.write_instead(file.as_fd()).unwrap();
    assert!(content(&file) == [&before[..LEN - 10], &[0; 110]].concat());
}

#[test]
fn a_copy_by_writing_ends_where_its_source_ends() {
    let ((from, before), (to, _)) = (file(LEN), file(10));
    let copied = copy_by_writing((from.as_fd(), 100), (to.as_fd(), 5), LEN as u64).unwrap();
    assert_eq!(copied, LEN as u64 - 100);
    assert!(content(&to)[5..] == before[100..]);
}
