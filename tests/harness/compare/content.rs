//! Compares what two regular files of the same size hold, and where they hold nothing.

use std::fs::File;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::object::Object;

/// Holes are compared in these units; every file system of interest allocates so.
const BLOCK: u64 = 4096;
/// Read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// `statfs` type of tmpfs, whose map of holes does not depend on what was read before.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Both files: the directory each is in, and what was read of it.
pub struct Sides<'a> {
    /// The source.
    pub left: (BorrowedFd<'a>, &'a Object),
    /// The replica.
    pub right: (BorrowedFd<'a>, &'a Object),
}

/// Holds the buffers.
pub struct Comparer {
    holes: bool,
    right_is_tmpfs: bool,
    left_buffer: Vec<u8>,
    right_buffer: Vec<u8>,
}

impl Comparer {
    /// For a right tree whose root is `right`.
    pub fn new(right: &OwnedFd, holes: bool) -> Result<Self> {
        let kind = rustix::fs::fstatfs(right).context("statfs")?.f_type;
        Ok(Self {
            holes,
            right_is_tmpfs: u64::try_from(kind).is_ok_and(|kind| kind == TMPFS_MAGIC),
            left_buffer: vec![0; BUFFER_BYTES],
            right_buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Gives the differences; at most one of content and one of holes.
    pub fn compare(&mut self, name: &[u8], sides: &Sides<'_>) -> Result<Vec<String>> {
        let size = u64::try_from(sides.left.1.stat.st_size).context("read a size")?;
        let mut found = Vec::new();
        if size == 0 {
            return Ok(found);
        }
        let left = open(sides.left.0, name).context("open left file")?;
        let right = open(sides.right.0, name).context("open right file")?;
        let mut ranges = std::iter::once(0..size).collect();
        // Before reading: what was read can look like data where nothing was ever written.
        if is_sparse(sides.left.1) {
            let left_data = data_extents(&left, size).context("map left file")?;
            let right_data = data_extents(&right, size).context("map right file")?;
            found.extend(self.holes_filled(sides, &left_data, &right_data));
            ranges = union(left_data, right_data);
        }
        for range in ranges {
            if let Some(at) = self.first_difference(&left, &right, range)? {
                found.push(format!("content: differs from byte {at} of {size}"));
                break;
            }
        }
        Ok(found)
    }

    /// The first data of the right file that lies in a hole of the left one.
    fn holes_filled(&self, sides: &Sides<'_>, left: &[Range<u64>], right: &[Range<u64>]) -> Option<String> {
        let filled = right.iter().find(|data| !left.iter().any(|outer| contains(outer, data)))?;
        let more = sides.right.1.stat.st_blocks > sides.left.1.stat.st_blocks;
        let told = format!("holes: data at {filled:?} on the right, the left holds {left:?}");
        (self.holes && (self.right_is_tmpfs || more)).then_some(told)
    }

    fn first_difference(&mut self, left: &File, right: &File, range: Range<u64>) -> Result<Option<u64>> {
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at).unwrap_or(BUFFER_BYTES).min(BUFFER_BYTES);
            let left_bytes = &mut self.left_buffer[..len];
            let right_bytes = &mut self.right_buffer[..len];
            left.read_exact_at(left_bytes, at).context("read left file")?;
            right.read_exact_at(right_bytes, at).context("read right file")?;
            if left_bytes != right_bytes {
                let same = left_bytes.iter().zip(&*right_bytes).take_while(|(left, right)| left == right);
                return Ok(Some(at + same.count() as u64));
            }
            at += len as u64;
        }
        Ok(None)
    }
}

/// Fewer blocks than the size needs.
fn is_sparse(object: &Object) -> bool {
    object.stat.st_blocks.saturating_mul(512) < object.stat.st_size
}

fn open(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let quiet = rustix::fs::openat(at, name, flags | OFlags::NOATIME, Mode::empty());
    quiet.or_else(|_| rustix::fs::openat(at, name, flags, Mode::empty())).map(File::from)
}

/// Where a file of `size` bytes holds data, in whole blocks, merged, in order.
pub fn data_extents(file: &File, size: u64) -> rustix::io::Result<Vec<Range<u64>>> {
    let mut extents: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        at = end;
        let rounded = start / BLOCK * BLOCK..end.next_multiple_of(BLOCK).min(size);
        match extents.last_mut() {
            Some(last) if last.end >= rounded.start => last.end = rounded.end,
            _ => extents.push(rounded),
        }
    }
    Ok(extents)
}

fn contains(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn union(left: Vec<Range<u64>>, right: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut all = [left, right].concat();
    all.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
