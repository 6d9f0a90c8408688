//! What a kill -9 left between a change and its record: found out and recorded before anything is mounted.
//!
//! Called once by `daemon` at start, when the epoch goes on. Each slot that is set says what was about to be done; no
//! record of it was appended, so the tree tells what became of it, and that is recorded with its present values: slaves
//! replay it and need to know nothing of the kill. The application never got an answer, so either outcome is
//! right; what can be in half is brought to its end (an object that has not got its owner, a range half punched),
//! never undone: to remove an object that tdfs did not make could not be taken back.

use super::cache::Dir;
use super::namespace::{describe, mtime_after};
use super::xattr::xattr_change;
use super::{Caller, Passthrough};
use crate::commit::{Attribute, Change, Intent, Turn, Unfinished, crash_point};
use anyhow::Context;
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, Statx};
use rustix::io::{Errno, Result};
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tdfs_host::object;
use tdfs_wire::TreePath;
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, Node, Op, RenameMode, XattrName};
use tdfs_wire::record::BULK_BYTES_MAX;

/// Takes what was found out, one record at a time.
type Tell<'a> = &'a mut dyn FnMut(Change<'_>);

/// A file that an intent names, opened.
struct File<'a> {
    fd: OwnedFd,
    stat: Statx,
    path: &'a TreePath,
}

impl Passthrough {
    /// Records every change that was in hand when the last tdfs was killed, and a check of what was lost or watched then.
    /// Nothing is mounted yet, and nobody else changes the tree.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn finish_unfinished(&self) -> anyhow::Result<()> {
        let tree = self.commit.order().exclusive();
        let turn = Turn::Tree(&tree);
        let all = self.commit.slots().unfinished().map_err(anyhow::Error::msg)?;
        for unfinished in &all {
            self.finish_one(&turn, unfinished)?;
            crash_point("found out");
            self.commit.slots().finished(unfinished);
        }
        if !all.is_empty() {
            tracing::info!(
                "{} changes were in hand when tdfs was killed: their outcome is recorded",
                all.len()
            );
        }
        self.find_lost_before(&turn);
        Ok(())
    }

    fn finish_one(&self, turn: &Turn<'_>, unfinished: &Unfinished) -> anyhow::Result<()> {
        let Unfinished { intent, head, .. } = unfinished;
        let recorded = self.commit.recorded_after(*head).context("read the log")?;
        if recorded.as_ref().is_some_and(|ops| ops.iter().any(|op| intent.is_answered_by(op))) {
            return Ok(());
        }
        let mut tell = |change: Change<'_>| {
            self.commit.record(turn, &change);
            crash_point("outcome recorded");
        };
        let found = match recorded {
            Some(_) => self.find_out(intent, &mut tell),
            None => Err(Errno::STALE), // its record may have been deleted already
        };
        if let Err(e) = found {
            tracing::warn!("what became of {intent:?} can't be found out: {e}; slaves compare it");
            let paths = intent.paths().into_iter().cloned().collect();
            self.commit.record(turn, &Change::of(Op::Check { paths }));
        }
        Ok(())
    }

    fn find_out(&self, intent: &Intent, tell: Tell<'_>) -> Result<()> {
        match intent {
            Intent::Nothing => Ok(()),
            Intent::Make { path, uid, gid } => self.made(path, Caller { uid: *uid, gid: *gid, pid: 0 }, tell),
            Intent::Link { from, to, ino } => self.linked(from.as_ref(), to, *ino, tell),
            Intent::Remove { path, ino, directory, links } => {
                let left = (!directory).then_some(*links);
                self.removed(path, *ino, left, tell)
            }
            Intent::Rename { from, to, source, target, exchange, links } => {
                self.renamed((from, to), (*source, *target), (*exchange, *links), tell)
            }
            Intent::Content { path, ino, offset, len } => match self.file_at(path, *ino)? {
                Some(file) => file.tell_range(*offset, *len, tell),
                None => Ok(()),
            },
            Intent::Truncate { path, ino } => match self.file_at(path, *ino)? {
                Some(file) => file.tell_size(tell),
                None => Ok(()),
            },
            Intent::Allocate { path, ino, mode, offset, len, size } => match self.file_at(path, *ino)? {
                Some(file) => file.allocate(*mode, (*offset, *len), *size, tell),
                None => Ok(()),
            },
            Intent::Attr { path, ino, what } => self.attributes(path, *ino, *what, tell),
            Intent::Xattr { path, ino, name } => match self.object_at(path, *ino)? {
                Some((fd, _)) if object::has_few_xattrs(fd.as_fd()) => {
                    tell(xattr_change(&fd, path.clone(), name.clone(), &[]));
                    Ok(())
                }
                // They may have become too many, or be so no longer.
                Some(_) => {
                    tell(Change::of(Op::Check { paths: vec![path.clone()] }));
                    Ok(())
                }
                None => Ok(()),
            },
            Intent::Lost { ino } => {
                self.commit.slots().add_lost(*ino);
                Ok(())
            }
        }
    }

    /// The object at a path, if it is still that one.
    fn object_at(&self, path: &TreePath, ino: u64) -> Result<Option<(OwnedFd, Statx)>> {
        let Some(fd) = self.reach(path)? else { return Ok(None) };
        let stat = object::stat(fd.as_fd())?;
        Ok((stat.stx_ino == ino).then_some((fd, stat)))
    }

    fn file_at<'a>(&self, path: &'a TreePath, ino: u64) -> Result<Option<File<'a>>> {
        let Some((fd, stat)) = self.object_at(path, ino)? else { return Ok(None) };
        Ok(Some(File { fd: object::reopen(fd.as_fd(), OFlags::RDWR)?, stat, path }))
    }

    fn ino_at(&self, path: &TreePath) -> Result<Option<u64>> {
        let Some(fd) = self.reach(path)? else { return Ok(None) };
        Ok(Some(object::stat(fd.as_fd())?.stx_ino))
    }

    /// The directory that holds a name.
    fn dir_of(&self, path: &TreePath) -> Result<Dir> {
        let parent = path.parent().ok_or(Errno::INVAL)?;
        let fd = self.reach(&parent)?.ok_or(Errno::NOENT)?;
        let setgid = object::permissions(&object::stat(fd.as_fd())?) & libc::S_ISGID != 0;
        Ok(Dir::new(fd, setgid))
    }

    /// Gives what was made to its owner and records it.
    fn made(&self, path: &TreePath, caller: Caller, tell: Tell<'_>) -> Result<()> {
        let dir = self.dir_of(path)?;
        let Some(fd) = self.reach(path)? else {
            // Never made, or made and taken away again, which its directory's mtime tells.
            let (path, mtime) = (path.parent().unwrap_or_default(), mtime_after(&dir));
            tell(Change::of(Op::Attr(AttrOp::Times { path, mtime })));
            return Ok(());
        };
        if !is_new(fd.as_fd())? {
            return Ok(()); // it was there before: nothing was made
        }
        let stat = self.give_to(&dir, fd.as_fd(), caller)?;
        let (new, acls, stat) = describe(&dir, path.clone(), fd.as_fd(), stat)?;
        let node = |node| move |new| NamespaceOp::Mknod { new, node };
        let op = match object::file_type(&stat) {
            libc::S_IFREG => NamespaceOp::Create(new),
            libc::S_IFDIR => NamespaceOp::Mkdir(new),
            libc::S_IFLNK => NamespaceOp::Symlink { new, target: object::read_link(fd.as_fd())? },
            libc::S_IFIFO => node(Node::Fifo)(new),
            libc::S_IFSOCK => node(Node::Socket)(new),
            libc::S_IFCHR => node(Node::Char(object::node_device(&stat)))(new),
            _ => node(Node::Block(object::node_device(&stat)))(new),
        };
        tell(Change::with_bulk(Op::Namespace(op), Cow::Owned(acls)));
        Ok(())
    }

    fn linked(&self, from: Option<&TreePath>, to: &TreePath, ino: u64, tell: Tell<'_>) -> Result<()> {
        if self.ino_at(to)? != Some(ino) {
            return Ok(());
        }
        let Some(from) = from else {
            let paths = to.parent().into_iter().chain([to.clone()]).collect();
            tell(Change::of(Op::Check { paths }));
            return Ok(());
        };
        let parent_mtime = mtime_after(&self.dir_of(to)?);
        let op = NamespaceOp::Link { from: from.clone(), to: to.clone(), parent_mtime };
        tell(Change::of(Op::Namespace(op)));
        Ok(())
    }

    /// `left`: names that the object has left; None: it was a directory.
    fn removed(&self, path: &TreePath, ino: u64, left: Option<u32>, tell: Tell<'_>) -> Result<()> {
        if self.ino_at(path)? == Some(ino) {
            return Ok(());
        }
        let parent_mtime = mtime_after(&self.dir_of(path)?);
        let path = path.clone();
        tell(Change::of(Op::Namespace(match left {
            None => NamespaceOp::Rmdir { path, parent_mtime },
            Some(links) => NamespaceOp::Unlink { path, parent_mtime, links },
        })));
        Ok(())
    }

    fn renamed(
        &self,
        (from, to): (&TreePath, &TreePath),
        (source, target): (u64, Option<u64>),
        (exchange, links): (bool, u32),
        tell: Tell<'_>,
    ) -> Result<()> {
        if target == Some(source) || self.ino_at(to)? != Some(source) {
            return Ok(());
        }
        let mode = match target {
            Some(_) if exchange => RenameMode::Exchange,
            Some(_) => RenameMode::Replace,
            None => RenameMode::NoReplace,
        };
        let op = NamespaceOp::Rename {
            from: from.clone(),
            to: to.clone(),
            mode,
            from_parent_mtime: mtime_after(&self.dir_of(from)?),
            to_parent_mtime: mtime_after(&self.dir_of(to)?),
            links,
        };
        tell(Change::of(Op::Namespace(op)));
        Ok(())
    }

    fn attributes(&self, path: &TreePath, ino: u64, what: Attribute, tell: Tell<'_>) -> Result<()> {
        let Some((fd, stat)) = self.object_at(path, ino)? else { return Ok(()) };
        let (path, mode) = (path.clone(), object::permissions(&stat));
        let attr = |op| Change::of(Op::Attr(op));
        match what {
            Attribute::Mode => tell(attr(AttrOp::Mode { path, mode })),
            Attribute::Times => tell(attr(AttrOp::Times { path, mtime: object::mtime(&stat) })),
            Attribute::Owner => {
                let (uid, gid) = (stat.stx_uid, stat.stx_gid);
                tell(attr(AttrOp::Owner { path: path.clone(), uid, gid, mode }));
                // A slave's chown clears capabilities also where the master's was not done.
                if let Some(name) = XattrName::new(*b"security.capability") {
                    tell(xattr_change(&fd, path, name, &[]));
                }
            }
        }
        Ok(())
    }

    /// Looks for the objects that are noted as lost, and records a check of each that has a name.
    fn find_lost_before(&self, turn: &Turn<'_>) {
        let (lost, watched) = (self.commit.slots().lost(), self.commit.slots().watched());
        if lost.is_empty() && watched.is_empty() {
            return;
        }
        for (_, path) in self.walk(|ino| lost.contains(&ino) || watched.contains(&ino)) {
            let check = Change::of(Op::Check { paths: vec![path] });
            self.commit.record(turn, &check);
        }
        lost.iter().for_each(|ino| self.commit.slots().remove_lost(*ino));
        watched.iter().for_each(|ino| self.commit.slots().remove_watched(*ino));
    }
}

impl File<'_> {
    /// Records a range as it is now, and the size.
    fn tell_range(&self, offset: u64, len: u64, tell: Tell<'_>) -> Result<()> {
        let stat = object::stat(self.fd.as_fd())?;
        let (size, mtime) = (stat.stx_size, object::mtime(&stat));
        let end = offset.saturating_add(len).min(size);
        let mut at = offset;
        let mut bytes = Vec::new();
        while at < end {
            let data = self.seek(SeekFrom::Data(at), end)?;
            if data > at {
                let mode = (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE).bits();
                let (path, offset, len) = (self.path.clone(), at, data - at);
                tell(Change::of(Op::Data(DataOp::Allocate { path, mode, offset, len, size, mtime })));
            }
            at = data;
            let hole = self.seek(SeekFrom::Hole(at), end)?;
            while at < hole {
                let piece = usize::try_from(hole - at).unwrap_or(BULK_BYTES_MAX).min(BULK_BYTES_MAX);
                bytes.resize(piece, 0);
                let read = object::read_at(self.fd.as_fd(), &mut bytes, at)?;
                if read < piece {
                    return Err(Errno::IO);
                }
                let op = DataOp::Write { path: self.path.clone(), offset: at, mtime };
                tell(Change::with_bulk(Op::Data(op), Cow::Borrowed(&bytes)));
                at += read as u64;
            }
        }
        self.tell_size(tell)
    }

    /// Where the next data or hole begins, `end` at the latest.
    fn seek(&self, to: SeekFrom, end: u64) -> Result<u64> {
        match rustix::fs::seek(&self.fd, to) {
            Ok(found) => Ok(found.min(end)),
            Err(Errno::NXIO) => Ok(end),
            Err(Errno::INVAL) => Ok(match to {
                SeekFrom::Data(at) => at, // the file system knows no holes
                _ => end,
            }),
            Err(e) => Err(e),
        }
    }

    fn tell_size(&self, tell: Tell<'_>) -> Result<()> {
        let stat = object::stat(self.fd.as_fd())?;
        let (path, size, mtime) = (self.path.clone(), stat.stx_size, object::mtime(&stat));
        tell(Change::of(Op::Data(DataOp::Truncate { path, size, mtime })));
        Ok(())
    }

    /// What moves content can't be done twice: the size tells whether it was. All else is done (again), so that
    /// nothing stays in half; without room for it the size is what it was.
    fn allocate(&self, mode: u32, (offset, len): (u64, u64), before: u64, tell: Tell<'_>) -> Result<()> {
        let flags = FallocateFlags::from_bits(mode).ok_or(Errno::INVAL)?;
        if flags.intersects(FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE) {
            if self.stat.stx_size == before {
                return Ok(());
            }
        } else if let Err(e) = rustix::fs::fallocate(&self.fd, flags, offset, len) {
            tracing::debug!("do a fallocate again: {e}");
            if object::stat(self.fd.as_fd())?.stx_size > before {
                rustix::fs::ftruncate(&self.fd, before)?;
            }
            return self.tell_range(offset, len, tell);
        }
        let stat = object::stat(self.fd.as_fd())?;
        let (path, size, mtime) = (self.path.clone(), stat.stx_size, object::mtime(&stat));
        tell(Change::of(Op::Data(DataOp::Allocate { path, mode, offset, len, size, mtime })));
        Ok(())
    }
}

/// True for what has just been made: without content, without a second name.
fn is_new(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = object::stat(fd)?;
    match object::file_type(&stat) {
        libc::S_IFDIR => Ok(object::list_names(fd)?.is_empty()),
        libc::S_IFREG => Ok(stat.stx_size == 0 && stat.stx_nlink == 1),
        _ => Ok(stat.stx_nlink == 1),
    }
}

#[cfg(test)]
mod tests;
