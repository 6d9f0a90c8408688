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

/// Data, a hole of so many bytes, data.
fn sparse(hole: u64) -> std::fs::File {
    let (file, before) = file(2 * 4096);
    write_all_at(file.as_fd(), &before[..4096], 4096 + hole).unwrap();
    punch(file.as_fd(), 4096, hole).unwrap();
    file
}

fn holes(file: &std::fs::File) -> Vec<(u64, u64)> {
    let (mut holes, mut at, size) = (Vec::new(), 0, size_of(file.as_fd()).unwrap());
    while let Some(data) = next_data(file.as_fd(), at, size).unwrap() {
        if data.start > at {
            holes.push((at, data.start));
        }
        at = data.end;
    }
    if at < size {
        holes.push((at, size));
    }
    holes
}

/// README: "Names of any bytes, types, contents, holes, owners".
#[test]
fn holes_are_moved_with_what_is_around_them() {
    let hole = 3 * PIECE_BYTES as u64;
    let file = sparse(hole);
    let whole = content(&file);
    let range = Range {
        mode: FallocateFlags::INSERT_RANGE.bits(),
        offset: 0,
        len: 8192,
        size: 2 * 4096 + hole + 8192,
    };
    range.write_instead(file.as_fd()).unwrap();
    assert_eq!(holes(&file), [(0, 8192), (8192 + 4096, 8192 + 4096 + hole)]);
    let range = Range { mode: FallocateFlags::COLLAPSE_RANGE.bits(), size: range.size - 8192, ..range };
    range.write_instead(file.as_fd()).unwrap();
    assert_eq!(holes(&file), [(4096, 4096 + hole)]);
    assert!(content(&file) == whole);
}

#[test]
fn holes_are_copied_as_holes() {
    let hole = 3 * PIECE_BYTES as u64;
    let (from, (to, _)) = (sparse(hole), file(5 * 4096));
    let size = 2 * 4096 + hole;
    from.set_len(size + 4096).unwrap();
    let copied = copy((from.as_fd(), 0), (to.as_fd(), 4096), u64::MAX >> 2).unwrap();
    assert_eq!(copied, size + 4096);
    assert_eq!(holes(&to), [(2 * 4096, 2 * 4096 + hole), (4096 + size, 2 * 4096 + size)]);
    assert!(content(&to)[4096..] == content(&from));
}

#[test]
fn a_range_that_can_not_be_zeroed_at_once_becomes_a_hole() {
    let (file, before) = file(5 * 4096);
    let mode = FallocateFlags::ZERO_RANGE.bits();
    let range = Range { mode, offset: 4096, len: 8 * 4096, size: 9 * 4096 };
    range.write_instead(file.as_fd()).unwrap();
    assert_eq!(holes(&file), [(4096, 9 * 4096)]);
    assert!(content(&file) == [&before[..4096], &[0; 8 * 4096]].concat());
}
