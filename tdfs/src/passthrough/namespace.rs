//! Changes of names: mknod (and so create), mkdir, symlink, link, unlink, rmdir, rename.

use super::cache::{DataFd, Dir};
use super::nodes::{Place, errno_of_path};
use super::{Caller, Passthrough, RETRIES, Seen, inherited_acls, under_umask};
use crate::commit::{Change, Intent, Turn, crash_point};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Statx};
use rustix::io::{Errno, Result};
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tdfs_host::object;
use tdfs_wire::op::{AttrOp, NamespaceOp, NewObject, Node, Op, RenameMode, XATTR_VALUE_BYTES_MAX};
use tdfs_wire::{Time, TreePath};

/// A directory and a name in it, as a request names them.
pub type Spot<'a> = (u64, &'a [u8]);

impl Passthrough {
    /// Makes a regular file, FIFO, socket or device node. A file is kept open for the writes that follow.
    ///
    /// `mode` has the type in its S_IFMT bits (none: a regular file), `device` the number of a device node.
    pub fn mknod(&self, spot: Spot<'_>, mode: u32, umask: u32, device: u64, caller: Caller) -> Result<Seen> {
        let permissions = Mode::from_raw_mode(mode & 0o7777);
        let (kind, node) = match mode & libc::S_IFMT {
            0 | libc::S_IFREG => return self.create(spot, permissions, umask, caller),
            libc::S_IFIFO => (FileType::Fifo, Node::Fifo),
            libc::S_IFSOCK => (FileType::Socket, Node::Socket),
            libc::S_IFCHR => (FileType::CharacterDevice, Node::Char(device)),
            libc::S_IFBLK => (FileType::BlockDevice, Node::Block(device)),
            _ => return Err(Errno::INVAL),
        };
        let make = |dir: &Dir| {
            under_umask(umask, || rustix::fs::mknodat(dir, spot.1, kind, permissions, device)).map(|()| None)
        };
        let (seen, _) = self.make(spot, caller, 0, make, |new| NamespaceOp::Mknod { new, node })?;
        Ok(seen)
    }

    fn create(&self, spot: Spot<'_>, mode: Mode, umask: u32, caller: Caller) -> Result<Seen> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |dir: &Dir| under_umask(umask, || rustix::fs::openat(dir, spot.1, flags, mode)).map(Some);
        let (seen, fd) = self.make(spot, caller, 0, make, NamespaceOp::Create)?;
        self.files.put(seen.nodeid, Arc::new(DataFd { fd, writable: true }));
        Ok(seen)
    }

    /// Makes a directory.
    pub fn mkdir(&self, spot: Spot<'_>, mode: u32, umask: u32, caller: Caller) -> Result<Seen> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let make = |dir: &Dir| under_umask(umask, || rustix::fs::mkdirat(dir, spot.1, mode)).map(|()| None);
        Ok(self.make(spot, caller, 0, make, NamespaceOp::Mkdir)?.0)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, spot: Spot<'_>, target: &[u8], caller: Caller) -> Result<Seen> {
        let make = |dir: &Dir| rustix::fs::symlinkat(target, dir, spot.1).map(|()| None);
        let op = |new| NamespaceOp::Symlink { new, target: target.to_vec() };
        Ok(self.make(spot, caller, target.len(), make, op)?.0)
    }

    /// The way of every new object: made (`make` returns an fd if it has one), given to its owner, described,
    /// recorded; undone if that fails.
    fn make(
        &self,
        (parent, name): Spot<'_>,
        caller: Caller,
        extra_bytes: usize,
        make: impl FnOnce(&Dir) -> Result<Option<OwnedFd>>,
        op: impl FnOnce(NewObject) -> NamespaceOp,
    ) -> Result<(Seen, OwnedFd)> {
        let tree = self.commit.order().shared();
        let dir = self.dir(&tree, parent)?;
        let turn = tree.turn(&[self.lock_key(parent)], &[]);
        let path = self.path_of_new(parent, name)?;
        let acl_bytes = if dir.has_default_acl() { 2 * XATTR_VALUE_BYTES_MAX } else { 0 };
        let intent = Intent::Make { path: path.clone(), uid: caller.uid, gid: caller.gid };
        self.commit.change(&turn, &intent, extra_bytes + acl_bytes, || {
            let made = match make(&dir) {
                Ok(made) => made,
                Err(e) => return (Err(e), None),
            };
            crash_point("made");
            let settled = made
                .map_or_else(|| object::open_path(dir.as_fd(), name), Ok)
                .and_then(|fd| Ok((self.give_to(&dir, fd.as_fd(), caller)?, fd)))
                .and_then(|(stat, fd)| Ok((describe(&dir, path.clone(), fd.as_fd(), stat)?, fd)))
                .and_then(|((new, acls, stat), fd)| {
                    Ok((self.tell(&tree, parent, name, stat)?, fd, new, acls))
                });
            match settled {
                Ok((seen, fd, new, acls)) => {
                    let change = Change::with_bulk(Op::Namespace(op(new)), Cow::Owned(acls));
                    (Ok((seen, fd)), Some(change))
                }
                Err(e) => (Err(e), Some(undo_make(&dir, name, path))),
            }
        })
    }

    /// Sets owner and group as if the caller had made the object, and the mode again where chown(2)
    /// cleared setuid or setgid.
    pub(super) fn give_to(&self, dir: &Dir, fd: BorrowedFd<'_>, caller: Caller) -> Result<Statx> {
        let made = object::stat(fd)?;
        if self.owner.uid != 0 {
            return Ok(made);
        }
        let inherits_group = dir.setgid || made.stx_gid != self.owner.gid;
        let uid = (made.stx_uid != caller.uid).then_some(caller.uid);
        let gid = (!inherits_group && made.stx_gid != caller.gid).then_some(caller.gid);
        if uid.is_none() && gid.is_none() {
            return Ok(made);
        }
        object::set_owner(fd, uid, gid)?;
        crash_point("given to its owner");
        let given = object::stat(fd)?;
        if object::permissions(&given) == object::permissions(&made) {
            return Ok(given);
        }
        object::set_mode(fd, object::permissions(&made))?;
        crash_point("given its mode again");
        object::stat(fd)
    }

    /// The path that a new name in a directory gets. ENOENT when the directory is not in the tree any more.
    pub(super) fn path_of_new(&self, parent: u64, name: &[u8]) -> Result<TreePath> {
        let parent = self.nodes.path(parent)?.ok_or(Errno::NOENT)?;
        parent.join(name).map_err(errno_of_path)
    }

    /// Gives an object that is no directory one more name.
    pub fn link(&self, nodeid: u64, (parent, name): Spot<'_>) -> Result<Seen> {
        let tree = self.commit.order().shared();
        let dir = self.dir(&tree, parent)?;
        let turn = tree.turn(&[self.lock_key(parent)], &[nodeid]);
        let to = self.path_of_new(parent, name)?;
        let object = self.object(nodeid)?;
        let intent = Intent::Link { from: object.path.clone(), to: to.clone(), ino: nodeid };
        self.commit.change(&turn, &intent, 0, || {
            let linked = rustix::fs::linkat(
                CWD,
                object::proc_path(object.fd.as_fd()),
                &dir,
                name,
                AtFlags::SYMLINK_FOLLOW,
            )
            .and_then(|()| object::stat(object.fd.as_fd()))
            .and_then(|stat| self.tell(&tree, parent, name, stat));
            let Ok(seen) = linked else { return (linked, None) };
            let op = match (object.path, to.parent()) {
                (Some(from), _) => {
                    let parent_mtime = mtime_after(&dir);
                    Op::Namespace(NamespaceOp::Link { from, to, parent_mtime })
                }
                (None, Some(parent)) => Op::Check { paths: vec![parent, to] },
                (None, None) => Op::Check { paths: vec![to] },
            };
            (Ok(seen), Some(Change::of(op)))
        })
    }

    /// Removes a name of an object that is no directory.
    pub fn unlink(&self, (parent, name): Spot<'_>) -> Result<()> {
        let tree = self.commit.order().shared();
        let dir = self.dir(&tree, parent)?;
        let mut turn = tree.turn(&[self.lock_key(parent)], &[]);
        let stat = object::stat_at(dir.as_fd(), name)?;
        self.check_own(&stat)?;
        if object::file_type(&stat) == libc::S_IFDIR {
            return Err(Errno::ISDIR);
        }
        turn.add_others(&[stat.stx_ino]);
        let path = self.path_of_new(parent, name)?;
        let kept = self.keep_if_last(&dir, name, &stat)?;
        let links = links_left(&stat);
        let intent = Intent::Remove { path: path.clone(), ino: stat.stx_ino, directory: false, links };
        self.commit.change(&turn, &intent, 0, || {
            if let Err(e) = rustix::fs::unlinkat(&dir, name, AtFlags::empty()) {
                return (Err(e), None);
            }
            self.nodes.remove_name(stat.stx_ino, parent, name, kept);
            let op = NamespaceOp::Unlink { path, parent_mtime: mtime_after(&dir), links };
            (Ok(()), Some(Change::of(Op::Namespace(op))))
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, (parent, name): Spot<'_>) -> Result<()> {
        let tree = self.commit.order().shared();
        let dir = self.dir(&tree, parent)?;
        for _ in 0..RETRIES {
            let stat = object::stat_at(dir.as_fd(), name)?;
            self.check_own(&stat)?;
            let turn = tree.turn(&[self.lock_key(parent), stat.stx_ino], &[]);
            if object::stat_at(dir.as_fd(), name)?.stx_ino != stat.stx_ino {
                continue;
            }
            let path = self.path_of_new(parent, name)?;
            let kept = self.keep_if_last(&dir, name, &stat)?;
            let intent = Intent::Remove { path: path.clone(), ino: stat.stx_ino, directory: true, links: 0 };
            return self.commit.change(&turn, &intent, 0, || {
                if let Err(e) = rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR) {
                    return (Err(e), None);
                }
                self.nodes.remove_name(stat.stx_ino, parent, name, kept);
                let op = NamespaceOp::Rmdir { path, parent_mtime: mtime_after(&dir) };
                (Ok(()), Some(Change::of(Op::Namespace(op))))
            });
        }
        Err(Errno::STALE)
    }

    /// Moves an object, or swaps two.
    ///
    /// # Errors
    /// EINVAL for RENAME_WHITEOUT (only overlayfs asks for it), else those of renameat2(2).
    pub fn rename(&self, from: Spot<'_>, to: Spot<'_>, flags: u32) -> Result<()> {
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        {
            let tree = self.commit.order().shared();
            let dirs = (self.dir(&tree, from.0)?, self.dir(&tree, to.0)?);
            let mut turn = tree.turn(&[self.lock_key(from.0), self.lock_key(to.0)], &[]);
            let moved = Moved::look(&dirs, from, to)?;
            if !moved.has_directory() {
                let replaced = moved.target.as_ref().map_or(moved.source.stx_ino, |target| target.stx_ino);
                turn.add_others(&[moved.source.stx_ino, replaced]);
                return self.rename_locked(&turn, &dirs, &moved, flags);
            }
        }
        let tree = self.commit.order().exclusive();
        let dirs = (self.dir_locked(from.0)?, self.dir_locked(to.0)?);
        let moved = Moved::look(&dirs, from, to)?;
        self.rename_locked(&Turn::Tree(&tree), &dirs, &moved, flags)
    }

    fn rename_locked(
        &self,
        turn: &Turn<'_>,
        dirs: &(Arc<Dir>, Arc<Dir>),
        moved: &Moved<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = (moved.from, moved.to);
        self.check_own(&moved.source)?;
        moved.target.as_ref().map_or(Ok(()), |target| self.check_own(target))?;
        let from_path = self.path_of_new(from.0, from.1)?;
        let to_path = self.path_of_new(to.0, to.1)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let kept = match &moved.target {
            Some(target) if !exchange => self.keep_if_last(&dirs.1, to.1, target)?,
            _ => None,
        };
        let links = moved.target.as_ref().filter(|_| !exchange).map_or(0, links_left);
        let intent = Intent::Rename {
            from: from_path.clone(),
            to: to_path.clone(),
            source: moved.source.stx_ino,
            target: moved.target.as_ref().map(|target| target.stx_ino),
            exchange,
            links,
        };
        self.commit.change(turn, &intent, 0, || {
            if let Err(e) = rustix::fs::renameat_with(&dirs.0, from.1, &dirs.1, to.1, flags) {
                return (Err(e), None);
            }
            let source = moved.source.stx_ino;
            let mode = match &moved.target {
                Some(target) if target.stx_ino == source => return (Ok(()), None),
                Some(target) if exchange => {
                    self.nodes.rename(source, from, to);
                    self.nodes.rename(target.stx_ino, to, from);
                    RenameMode::Exchange
                }
                Some(target) => {
                    self.nodes.remove_name(target.stx_ino, to.0, to.1, kept);
                    self.nodes.rename(source, from, to);
                    RenameMode::Replace
                }
                None => {
                    self.nodes.rename(source, from, to);
                    RenameMode::NoReplace
                }
            };
            let op = NamespaceOp::Rename {
                from: from_path,
                to: to_path,
                mode,
                from_parent_mtime: mtime_after(&dirs.0),
                to_parent_mtime: mtime_after(&dirs.1),
                links,
            };
            (Ok(()), Some(Change::of(Op::Namespace(op))))
        })
    }

    /// A path fd of what `name` names if that is the last name known of a node: it keeps the inode number
    /// from being used again while the kernel still remembers it.
    fn keep_if_last(&self, dir: &Dir, name: &[u8], stat: &Statx) -> Result<Option<OwnedFd>> {
        let nodeid = self.nodeid(stat);
        let last =
            self.nodes.names_known(nodeid) == 1 && matches!(self.nodes.place(nodeid), Ok(Place::Named(_)));
        last.then(|| object::open_path(dir.as_fd(), name)).transpose()
    }
}

/// How many names an object has left that had one more when `stat` was asked, below its lock. A directory: none.
fn links_left(stat: &Statx) -> u32 {
    if object::file_type(stat) == libc::S_IFDIR { 0 } else { stat.stx_nlink.saturating_sub(1) }
}

/// What a rename is about, looked at under the directories' locks.
struct Moved<'a> {
    from: Spot<'a>,
    to: Spot<'a>,
    source: Statx,
    target: Option<Statx>,
}

impl<'a> Moved<'a> {
    fn look(dirs: &(Arc<Dir>, Arc<Dir>), from: Spot<'a>, to: Spot<'a>) -> Result<Moved<'a>> {
        let source = object::stat_at(dirs.0.as_fd(), from.1)?;
        let target = match object::stat_at(dirs.1.as_fd(), to.1) {
            Err(Errno::NOENT) => None,
            target => Some(target?),
        };
        Ok(Moved { from, to, source, target })
    }

    fn has_directory(&self) -> bool {
        let directory = |stat: &Statx| object::file_type(stat) == libc::S_IFDIR;
        directory(&self.source) || self.target.as_ref().is_some_and(directory)
    }
}

/// Describes a new object as its record tells it: the object and its inherited ACLs.
pub(super) fn describe(
    dir: &Dir,
    path: TreePath,
    fd: BorrowedFd<'_>,
    stat: Statx,
) -> Result<(NewObject, Vec<u8>, Statx)> {
    let [access, default] = if dir.has_default_acl() { inherited_acls(fd)? } else { Default::default() };
    let length = |acl: &Vec<u8>| u32::try_from(acl.len()).unwrap_or(u32::MAX);
    let new = NewObject {
        path,
        mode: object::permissions(&stat),
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: object::mtime(&stat),
        parent_mtime: dir.mtime_after_change()?,
        access_acl_bytes: length(&access),
        default_acl_bytes: length(&default),
    };
    Ok((new, [access, default].concat(), stat))
}

/// Takes a new object away again that could not be opened, given to its owner or described.
fn undo_make(dir: &Dir, name: &[u8], path: TreePath) -> Change<'static> {
    let gone = rustix::fs::unlinkat(dir, name, AtFlags::empty())
        .or_else(|_| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR));
    crash_point("taken away again");
    let parent = path.parent().unwrap_or_default();
    Change::of(match gone {
        // Its directory has another mtime.
        Ok(()) => Op::Attr(AttrOp::Times { path: parent, mtime: mtime_after(dir) }),
        Err(_) => Op::Check { paths: vec![parent, path] },
    })
}

/// The mtime that a change left on its directory. The directory is open and its inode in memory, so this
/// fails only when the file system itself is going down; the replica's mtime is then corrected by resync.
pub(super) fn mtime_after(dir: &Dir) -> Time {
    dir.mtime_after_change().unwrap_or_else(|e| {
        tracing::error!("stat of an open directory of the backing tree: {e}");
        Time::default()
    })
}
