//! Reading directories, without keeping one open: each call seeks to where the last one ended.

use super::{FOREIGN, Passthrough, Seen};
use rustix::fs::{FileType, OFlags, RawDir, SeekFrom};
use rustix::io::{Errno, Result};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use tdfs_host::object;

/// Buffer for one getdents64(2).
const DIR_BUFFER_BYTES: usize = 32 * 1024;

/// One name of a directory that is being read.
#[derive(Debug)]
pub struct DirItem<'a> {
    /// The name, `.` and `..` included.
    pub name: &'a [u8],
    /// Where to go on after it.
    pub next: u64,
    /// Inode number (d_ino).
    pub ino: u64,
    /// Type, Unknown where the file system does not tell.
    pub kind: FileType,
    /// Attributes, if they were asked for and it is neither `.` nor `..`.
    pub seen: Option<Seen>,
}

impl DirItem<'_> {
    /// True for `.` and `..`.
    pub fn is_dots(&self) -> bool {
        self.name == b"." || self.name == b".."
    }
}

impl Passthrough {
    /// Reads a directory from `offset` on (0, or the `next` of an item) and gives each name to `add`, until
    /// that returns false (the item did not fit any more). With `plus` each item comes with its attributes
    /// and counts as looked up once if `add` took it.
    pub fn read_dir(
        &self,
        nodeid: u64,
        offset: u64,
        plus: bool,
        mut add: impl FnMut(&DirItem<'_>) -> bool,
    ) -> Result<()> {
        if nodeid & FOREIGN != 0 {
            return Ok(()); // shown empty
        }
        let tree = self.commit.order().shared();
        let dir = self.dir(&tree, nodeid)?;
        let _held = tree.reading(self.lock_key(nodeid));
        let open = object::reopen(dir.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::seek(&open, SeekFrom::Start(offset))?;
        let mut buffer = [MaybeUninit::uninit(); DIR_BUFFER_BYTES];
        let mut raw = RawDir::new(&open, &mut buffer);
        while let Some(item) = raw.next() {
            let item = item?;
            let name = item.file_name().to_bytes();
            let dots = name == b"." || name == b"..";
            let seen = if plus && !dots {
                match object::stat_at(dir.as_fd(), name) {
                    Ok(stat) if self.is_hidden(&stat) => continue,
                    Err(Errno::NOENT) => continue,
                    stat => stat.map(|stat| Some(Seen { nodeid: self.nodeid(&stat), stat }))?,
                }
            } else {
                None
            };
            let known = seen.as_ref().map(|seen| seen.nodeid);
            if let Some(known) = known {
                self.nodes.remember(known, nodeid, name);
            }
            let (next, ino, kind) = (item.next_entry_cookie(), item.ino(), item.file_type());
            if !add(&DirItem { name, next, ino, kind, seen }) {
                if let Some(known) = known {
                    self.forget(known, 1);
                }
                break;
            }
        }
        Ok(())
    }
}
