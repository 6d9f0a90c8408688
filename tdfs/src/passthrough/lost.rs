//! Lost objects: changed through the mount while they had names, but none that is known here (opened as
//! `a`, `a` unlinked, `b` never looked up). No record can name them, so a walk of the backing tree finds a
//! name, and a check of that path is recorded. Until then no slave counts as equal. Their numbers stand in the slot
//! file, so a kill -9 forgets none: the next start looks for them before it mounts.

use super::Passthrough;
use crate::commit::{Change, Intent, Turn};
use parking_lot::{Condvar, Mutex};
use rustix::fs::{OFlags, Statx};
use rustix::io::{Errno, Result};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdfs_host::object;
use tdfs_wire::{Op, TreePath};

/// Pause between two walks for an object that was not found because it was renamed meanwhile.
const WALK_PAUSE: Duration = Duration::from_millis(200);

/// The objects that are being looked for. Each is kept open, so that its inode number stays its own.
#[derive(Default)]
pub struct Lost {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: BTreeMap<u64, OwnedFd>,
    closed: bool,
}

impl Lost {
    /// True while an object is being looked for.
    pub fn is_pending(&self) -> bool {
        !self.state.lock().wanted.is_empty()
    }

    /// Waits until nothing is looked for, at most so long; true if that was so.
    pub fn wait_until_found(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        let mut state = self.state.lock();
        while !state.wanted.is_empty() && !state.closed {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.wanted.is_empty()
    }

    /// Ends [`Passthrough::find_lost`].
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_wanted(&self, ino: u64) -> bool {
        self.state.lock().wanted.contains_key(&ino)
    }
}

impl Passthrough {
    /// Notes the object as lost if it is in a directory, but no name of it is known here.
    pub(super) fn note_if_lost(&self, nodeid: u64, fd: BorrowedFd<'_>, stat: &Statx) {
        let directory = object::file_type(stat) == libc::S_IFDIR;
        if stat.stx_nlink == 0 || directory || self.nodes.names_known(nodeid) > 0 {
            return;
        }
        match rustix::io::fcntl_dupfd_cloexec(fd, 0) {
            Ok(fd) => {
                self.commit.slots().add_lost(stat.stx_ino);
                self.lost.state.lock().wanted.insert(stat.stx_ino, fd);
                self.lost.changed.notify_all();
            }
            Err(e) => tracing::error!(
                "inode {} changed, no name of it is known, and it can't be looked for: {e}; run tdfs resync",
                stat.stx_ino
            ),
        }
    }

    /// Looks for lost objects until [`Lost::close`]; a thread of its own runs it.
    pub fn find_lost(&self) {
        loop {
            let mut state = self.lost.state.lock();
            while state.wanted.is_empty() && !state.closed {
                self.lost.changed.wait(&mut state);
            }
            if state.closed {
                return;
            }
            drop(state);
            for (ino, path) in self.walk(|ino| self.lost.is_wanted(ino)) {
                if let Err(e) = self.record_check(ino, &path) {
                    tracing::error!("record a check of {path}, changed without a known name: {e}");
                }
            }
            let mut state = self.lost.state.lock();
            state.wanted.retain(|ino, fd| {
                let there = object::stat(fd.as_fd()).is_ok_and(|stat| stat.stx_nlink > 0);
                if !there {
                    self.commit.slots().remove_lost(*ino);
                }
                there
            });
            self.lost.changed.notify_all();
            if !state.wanted.is_empty() {
                self.lost.changed.wait_for(&mut state, WALK_PAUSE);
            }
        }
    }

    /// Records a check of the object under its path, if that is still its path.
    fn record_check(&self, ino: u64, path: &TreePath) -> Result<()> {
        let tree = self.commit.order().exclusive();
        if self.resolve(path)?.is_none_or(|stat| stat.stx_ino != ino) {
            return Ok(()); // renamed meanwhile: the next walk finds it
        }
        let check = Change::of(Op::Check { paths: vec![path.clone()] });
        self.commit
            .change(&Turn::Tree(&tree), &Intent::Nothing, path.as_bytes().len(), || (Ok(()), Some(check)))?;
        self.commit.slots().remove_lost(ino);
        self.lost.state.lock().wanted.remove(&ino);
        Ok(())
    }

    /// What a path names at the moment; None for nothing.
    fn resolve(&self, path: &TreePath) -> Result<Option<Statx>> {
        self.reach(path)?.map(|fd| object::stat(fd.as_fd())).transpose()
    }

    /// A path fd of what a path names at the moment; None for nothing.
    pub(super) fn reach(&self, path: &TreePath) -> Result<Option<OwnedFd>> {
        let mut at = object::reopen(self.root.as_fd(), OFlags::PATH | OFlags::DIRECTORY)?;
        for name in path.components() {
            at = match object::open_path(at.as_fd(), name) {
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                next => next?,
            };
        }
        Ok(Some(at))
    }

    /// Walks the backing tree and returns a path of each wanted object that it comes by.
    pub(super) fn walk(&self, is_wanted: impl Fn(u64) -> bool) -> Vec<(u64, TreePath)> {
        let mut found = Vec::new();
        let Ok(root) = object::reopen(self.root.as_fd(), OFlags::PATH | OFlags::DIRECTORY) else {
            return found;
        };
        let root = Arc::new(root);
        let mut waiting: Vec<(Arc<OwnedFd>, TreePath)> = vec![(root, TreePath::root())];
        while let Some((parent, path)) = waiting.pop() {
            let name = path.split().map(|(_, name)| name.to_vec());
            let dir = match &name {
                Some(name) => match object::open_dir(parent.as_fd(), name) {
                    Ok(dir) => Arc::new(dir),
                    Err(_) => continue, // gone or moved meanwhile
                },
                None => parent,
            };
            for name in object::list_names(dir.as_fd()).unwrap_or_default() {
                let (Ok(stat), Ok(path)) = (object::stat_at(dir.as_fd(), &name), path.join(&name)) else {
                    continue;
                };
                if self.is_foreign(&stat) {
                    continue; // there others have the same inode numbers
                }
                if object::file_type(&stat) == libc::S_IFDIR {
                    waiting.push((dir.clone(), path));
                } else if is_wanted(stat.stx_ino) {
                    found.push((stat.stx_ino, path));
                }
            }
        }
        found
    }
}
