//! Reading directories, without keeping one open: each call seeks to where the last one ended.

use super::{FOREIGN, Passthrough, ROOT, Seen};
use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::{Errno, Result};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use tdfs_host::object;

/// Buffer for one getdents64(2).
const DIR_BUFFER_BYTES: usize = 32 * 1024;

/// Room for `.` and `..`, and at least one short name.
const DOTS_BYTES: usize = 512;

/// What a listing is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// `.` and `..`, if the file system begins with them.
    Dots,
    /// All names.
    Names,
    /// All names with their attributes.
    Attributes,
}

/// One name of a directory that is being read.
#[derive(Debug)]
pub struct DirItem<'a> {
    /// The name, `.` and `..` included.
    pub name: &'a [u8],
    /// Where to go on after it.
    pub next: u64,
    /// Inode number (d_ino); of the root, which `.` and `..` can name, its nodeid.
    pub ino: u64,
    /// Type, Unknown where the file system does not tell.
    pub kind: FileType,
    /// Attributes, if they were asked for and it is neither `.` nor `..`.
    pub seen: Option<Seen>,
}

impl Passthrough {
    /// Reads a directory from `offset` on (0, or the `next` of an item) and gives each name to `add`, until
    /// that returns false (the item did not fit any more). With [`Listed::Attributes`] each item comes with its
    /// attributes and counts as looked up once if `add` took it.
    pub fn read_dir(
        &self,
        nodeid: u64,
        offset: u64,
        listed: Listed,
        mut add: impl FnMut(&DirItem<'_>) -> bool,
    ) -> Result<()> {
        if nodeid & FOREIGN != 0 {
            return Ok(()); // shown empty
        }
        let tree = self.commit.order().shared();
        let dir = self.dir(&tree, nodeid)?;
        let _held = tree.reading(self.lock_key(nodeid));
        if offset > 0 && offset == dir.end.load(Ordering::Relaxed) {
            return Ok(());
        }
        let open = object::open_to_list(dir.as_fd())?;
        if offset > 0 {
            rustix::fs::seek(&open, SeekFrom::Start(offset))?;
        }
        let mut buffer = [MaybeUninit::uninit(); DIR_BUFFER_BYTES];
        let buffer_bytes = if listed == Listed::Dots { DOTS_BYTES } else { DIR_BUFFER_BYTES };
        let mut raw = RawDir::new(&open, &mut buffer[..buffer_bytes]);
        let mut told = offset;
        while let Some(item) = raw.next() {
            let item = item?;
            let name = item.file_name().to_bytes();
            let dots = name == b"." || name == b"..";
            if listed == Listed::Dots && !dots {
                return Ok(());
            }
            let seen = if listed == Listed::Attributes && !dots {
                match object::stat_at(dir.as_fd(), name) {
                    Ok(stat) if self.is_hidden(nodeid, name, &stat) => continue,
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
            let ino = if item.ino() == self.root_ino { ROOT } else { item.ino() };
            let (next, kind) = (item.next_entry_cookie(), item.file_type());
            if !add(&DirItem { name, next, ino, kind, seen }) {
                if let Some(known) = known {
                    self.forget(known, 1);
                }
                return Ok(());
            }
            told = next;
        }
        dir.end.store(told, Ordering::Relaxed);
        Ok(())
    }
}
