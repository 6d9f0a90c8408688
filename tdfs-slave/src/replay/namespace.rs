//! Redoes changes of names: create, mkdir, mknod, symlink, link, unlink, rmdir, rename.
//!
//! Called by `replay::apply`. A new object starts closed (0600 or 0700), then gets owner, ACLs, mode and its
//! own mtime; the mtimes of parents come last. Only a redo believes that something was done before, and only
//! where what is there fits what was foreseen.

use super::failure::{Failure, Step, at};
use super::{Foreseen, InHand, Lack, Target, set_mode, set_owner, set_xattr};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Statx};
use rustix::io::{Errno, Result as SysResult};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tdfs_host::object;
use tdfs_host::step::step;
use tdfs_wire::object::Kind;
use tdfs_wire::op::{NamespaceOp, NewObject, Node, RenameMode};
use tdfs_wire::{Time, TreePath};

type Done = Result<(), Failure>;

/// The inode number of the object `path`; 0 where nothing can be reached by that name.
///
/// # Errors
/// A stall.
pub(super) fn inode_at(target: &mut Target, path: &TreePath) -> Result<u64, Failure> {
    inode_and_links_at(target, path).map(|(inode, _)| inode)
}

/// The same, and how many names it has; zeros for no object.
pub(super) fn inode_and_links_at(target: &mut Target, path: &TreePath) -> Result<(u64, u64), Failure> {
    let looked = target.parent(path).and_then(|(parent, name)| object::stat_at(parent.as_fd(), name));
    match looked.map_err(at(Step::Names, "look at", path)) {
        Err(Failure::Divergence(_)) => Ok((0, 0)),
        looked => looked.map(|stat| (stat.stx_ino, stat.stx_nlink.into())),
    }
}

/// Where, after an exchange that lacked one object, the master has what the replica lacks, if the other one was moved.
///
/// # Errors
/// A stall.
pub(super) fn lacks_at(
    target: &mut Target,
    op: &NamespaceOp,
    foreseen: Foreseen,
) -> Result<Option<TreePath>, Failure> {
    let NamespaceOp::Rename { from, to, mode, .. } = op else { return Ok(None) };
    let there = match lacking_end(foreseen, *mode) {
        Some(0) => to,
        Some(_) => from,
        None => return Ok(None),
    };
    let now = [inode_at(target, from)?, inode_at(target, to)?];
    Ok((now == [foreseen[1], foreseen[0]]).then(|| there.clone()))
}

impl InHand<'_> {
    /// Does a change of names.
    pub(super) fn namespace(&mut self, op: &NamespaceOp, bulk: &[u8]) -> Done {
        match op {
            NamespaceOp::Create(new) => self.create(new, bulk),
            NamespaceOp::Mkdir(new) => self.mkdir(new, bulk),
            NamespaceOp::Mknod { new, node } => self.mknod(new, *node, bulk),
            NamespaceOp::Symlink { new, target } => self.symlink(new, target),
            NamespaceOp::Link { from, to, parent_mtime } => self.link(from, to, *parent_mtime),
            NamespaceOp::Unlink { path, parent_mtime, .. } => {
                self.remove(path, AtFlags::empty(), *parent_mtime)
            }
            NamespaceOp::Rmdir { path, parent_mtime } => self.remove(path, AtFlags::REMOVEDIR, *parent_mtime),
            NamespaceOp::Rename { from, to, mode, from_parent_mtime, to_parent_mtime, .. } => {
                let mtimes = [*from_parent_mtime, *to_parent_mtime];
                self.rename([from, to], *mode, mtimes)
            }
        }
    }

    fn create(&mut self, new: &NewObject, bulk: &[u8]) -> Done {
        let (parent, name) = self.parent(&new.path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match step(|| rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))) {
            Ok(file) => self.target.keep_file(&new.path, file),
            Err(Errno::EXIST) if self.is_redo() => {
                let (fd, stat) = self.made_before(&new.path, &Kind::File)?;
                if stat.stx_size != 0 || stat.stx_nlink != 1 {
                    return Err(Failure::diverged("create", &new.path, Errno::EXIST));
                }
                fd // its final mode may keep even its owner from opening it
            }
            Err(errno) => return Err(at(Step::Names, "create", &new.path)(errno)),
        };
        self.finish_new(file.as_fd(), new, bulk, &Kind::File)?;
        self.touch(&parent, &new.path, new.parent_mtime)
    }

    fn mkdir(&mut self, new: &NewObject, bulk: &[u8]) -> Done {
        let (parent, name) = self.parent(&new.path)?;
        let made = step(|| rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)));
        let fd = self.new_object(&new.path, &Kind::Directory, Step::Names, made)?;
        if self.is_redo() {
            let names = object::list_names(fd.as_fd()).map_err(at(Step::Names, "list", &new.path))?;
            if !names.is_empty() {
                return Err(Failure::diverged("make directory", &new.path, Errno::EXIST));
            }
        }
        self.finish_new(fd.as_fd(), new, bulk, &Kind::Directory)?;
        self.touch(&parent, &new.path, new.parent_mtime)
    }

    fn mknod(&mut self, new: &NewObject, node: Node, bulk: &[u8]) -> Done {
        let (parent, name) = self.parent(&new.path)?;
        let (file_type, device, kind) = match node {
            Node::Fifo => (FileType::Fifo, 0, Kind::Fifo),
            Node::Socket => (FileType::Socket, 0, Kind::Socket),
            Node::Char(device) => (FileType::CharacterDevice, device, Kind::Char(device)),
            Node::Block(device) => (FileType::BlockDevice, device, Kind::Block(device)),
        };
        let made = step(|| rustix::fs::mknodat(&parent, name, file_type, Mode::from_raw_mode(0o600), device));
        match self.new_object(&new.path, &kind, Step::Node, made) {
            Ok(fd) => self.finish_new(fd.as_fd(), new, bulk, &kind)?,
            Err(Failure::NotCarried(trouble)) => {
                let is_device = matches!(node, Node::Char(_) | Node::Block(_));
                self.lacks.note(if is_device { Lack::Device } else { Lack::Special }, &trouble);
            }
            Err(failure) => return Err(failure),
        }
        self.touch(&parent, &new.path, new.parent_mtime)
    }

    fn symlink(&mut self, new: &NewObject, content: &[u8]) -> Done {
        let (parent, name) = self.parent(&new.path)?;
        let kind = Kind::Symlink(content.to_vec());
        let made = step(|| rustix::fs::symlinkat(content, &parent, name));
        let fd = self.new_object(&new.path, &kind, Step::Names, made)?;
        self.finish_new(fd.as_fd(), new, &[], &kind)?;
        self.touch(&parent, &new.path, new.parent_mtime)
    }

    /// A path fd of what `made` made; in a redo also of what was made before, if it is of that kind.
    fn new_object(
        &mut self,
        path: &TreePath,
        kind: &Kind,
        step: Step,
        made: SysResult<()>,
    ) -> Result<Arc<OwnedFd>, Failure> {
        match made {
            Ok(()) => self.object(path),
            Err(Errno::EXIST) if self.is_redo() => Ok(self.made_before(path, kind)?.0),
            Err(errno) => Err(at(step, "make", path)(errno)),
        }
    }

    /// Looks whether the object that is there can be the one that the record in doubt made.
    fn made_before(&mut self, path: &TreePath, kind: &Kind) -> Result<(Arc<OwnedFd>, Statx), Failure> {
        if self.foreseen()[0] != 0 {
            return Err(Failure::diverged("make", path, Errno::EXIST));
        }
        let fd = self.object(path)?;
        let stat = object::stat(fd.as_fd()).map_err(at(Step::Names, "stat", path))?;
        let found = object::kind(fd.as_fd(), &stat).map_err(at(Step::Names, "read", path))?;
        if found == *kind { Ok((fd, stat)) } else { Err(Failure::diverged("make", path, Errno::EXIST)) }
    }

    /// Owner, ACLs, mode and mtime of an object that was just made.
    fn finish_new(&mut self, fd: BorrowedFd<'_>, new: &NewObject, bulk: &[u8], kind: &Kind) -> Done {
        let lacks = &mut *self.lacks;
        set_owner(lacks, fd, &new.path, (new.uid, new.gid))?;
        let (access, default) = acls(new, bulk)?;
        for (name, acl) in [(&b"system.posix_acl_access"[..], access), (b"system.posix_acl_default", default)]
        {
            if !acl.is_empty() {
                set_xattr(lacks, fd, &new.path, (name, acl))?;
            }
        }
        if !matches!(kind, Kind::Symlink(_)) {
            set_mode(lacks, fd, &new.path, (new.mode, *kind == Kind::Directory))?;
        }
        object::set_mtime(fd, new.mtime).map_err(at(Step::Times, "set mtime of", &new.path))
    }

    fn link(&mut self, from: &TreePath, to: &TreePath, parent_mtime: Time) -> Done {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        match step(|| rustix::fs::linkat(&from_parent, from_name, &to_parent, to_name, AtFlags::empty())) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.is_redo() => {
                let now = inode_at(self.target, to)?;
                if self.foreseen() != [now, 0] {
                    return Err(Failure::diverged("link", to, Errno::EXIST));
                }
            }
            Err(Errno::PERM) if self.is_directory(from) => {
                return Err(Failure::diverged("link", from, Errno::ISDIR));
            }
            Err(errno) => return Err(at(Step::Names, "link", to)(errno)),
        }
        self.touch(&to_parent, to, parent_mtime)
    }

    fn is_directory(&mut self, path: &TreePath) -> bool {
        self.target.dir(path).is_ok()
    }

    /// Unlink or rmdir.
    fn remove(&mut self, path: &TreePath, flags: AtFlags, parent_mtime: Time) -> Done {
        let (parent, name) = self.parent(path)?;
        if flags.contains(AtFlags::REMOVEDIR) {
            self.target.drop_at_or_below(path);
        } else {
            self.target.drop_file(path);
        }
        if !self.removed_before(path)? {
            step(|| rustix::fs::unlinkat(&parent, name, flags)).map_err(at(Step::Names, "remove", path))?;
        }
        self.touch(&parent, path, parent_mtime)
    }

    /// In a redo: true if what was foreseen there is gone.
    fn removed_before(&mut self, path: &TreePath) -> Result<bool, Failure> {
        if !self.is_redo() {
            return Ok(false);
        }
        match (self.foreseen()[0], inode_at(self.target, path)?) {
            (0, _) => Err(Failure::diverged("remove", path, Errno::NOENT)),
            (_, 0) => Ok(true),
            (before, now) if before == now => Ok(false),
            _ => Err(Failure::diverged("remove", path, Errno::EXIST)),
        }
    }

    fn rename(&mut self, paths: [&TreePath; 2], mode: RenameMode, mtimes: [Time; 2]) -> Done {
        let [from, to] = paths;
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        self.target.drop_at_or_below(from);
        self.target.drop_at_or_below(to);
        self.check_two_objects(to, mode)?;
        let mut ends = [(from_parent.as_fd(), from_name), (to_parent.as_fd(), to_name)];
        let lacking = lacking_end(self.foreseen(), mode);
        if lacking == Some(0) {
            ends.reverse();
        }
        let [source, target] = ends;
        if !self.renamed_before(paths, mode)? {
            let mode = if lacking.is_some() { RenameMode::NoReplace } else { mode };
            let named = if mode == RenameMode::NoReplace { to } else { from };
            rename_at(source, target, mode).map_err(at(Step::Names, "rename", named))?;
        }
        self.touch(&from_parent, from, mtimes[0])?;
        self.touch(&to_parent, to, mtimes[1])?;
        match lacking {
            Some(end) => Err(Failure::diverged("exchange", paths[end], Errno::NOENT)),
            None => Ok(()),
        }
    }

    /// rename(2) between two names of one object does nothing and says so to nobody; on the master they were two.
    fn check_two_objects(&self, to: &TreePath, mode: RenameMode) -> Result<(), Failure> {
        let [from_inode, to_inode] = self.foreseen();
        if mode == RenameMode::Replace && from_inode != 0 && from_inode == to_inode {
            return Err(Failure::diverged("rename over another name of the same object", to, Errno::EXIST));
        }
        Ok(())
    }

    /// In a redo: true if the inodes stand as they do after the rename.
    fn renamed_before(&mut self, [from, to]: [&TreePath; 2], mode: RenameMode) -> Result<bool, Failure> {
        if !self.is_redo() {
            return Ok(false);
        }
        let [from_before, to_before] = self.foreseen();
        let now = [inode_at(self.target, from)?, inode_at(self.target, to)?];
        let after = if mode == RenameMode::Exchange { [to_before, from_before] } else { [0, from_before] };
        let moves = from_before != 0 || lacking_end(self.foreseen(), mode).is_some();
        if moves && now == after {
            return Ok(true);
        }
        if now == [from_before, to_before] {
            return Ok(false);
        }
        Err(Failure::diverged("rename", from, Errno::NOENT))
    }

    pub(super) fn parent<'p>(&mut self, path: &'p TreePath) -> Result<(Arc<OwnedFd>, &'p [u8]), Failure> {
        self.target.parent(path).map_err(at(Step::Names, "reach the directory of", path))
    }

    pub(super) fn object(&mut self, path: &TreePath) -> Result<Arc<OwnedFd>, Failure> {
        self.target.object(path).map_err(at(Step::Names, "reach", path))
    }

    /// Sets the mtime of the directory that holds `path`.
    fn touch(&self, parent: &OwnedFd, path: &TreePath, mtime: Time) -> Done {
        let set = object::set_mtime(parent.as_fd(), mtime);
        set.map_err(at(Step::Times, "set mtime of the directory of", path))
    }
}

/// The two ACLs at the start of a new object's bulk.
fn acls<'b>(new: &NewObject, bulk: &'b [u8]) -> Result<(&'b [u8], &'b [u8]), Failure> {
    let short = || Failure::diverged("read the ACLs of", &new.path, Errno::INVAL);
    let (access, rest) = bulk.split_at_checked(new.access_acl_bytes as usize).ok_or_else(short)?;
    let default = rest.get(..new.default_acl_bytes as usize).ok_or_else(short)?;
    Ok((access, default))
}

/// Which of the two names of an exchange, 0 or 1, stands for nothing while the other stands for something. That is a
/// divergence; but what stands at the other name is moved, so that what the master has there is not sent again.
fn lacking_end(foreseen: Foreseen, mode: RenameMode) -> Option<usize> {
    match (mode, foreseen) {
        (_, [0, 0]) => None,
        (RenameMode::Exchange, [0, _]) => Some(0),
        (RenameMode::Exchange, [_, 0]) => Some(1),
        _ => None,
    }
}

type Place<'a> = (BorrowedFd<'a>, &'a [u8]);

fn rename_at(from: Place<'_>, to: Place<'_>, mode: RenameMode) -> SysResult<()> {
    let flags = match mode {
        RenameMode::Replace => RenameFlags::empty(),
        RenameMode::NoReplace => RenameFlags::NOREPLACE,
        RenameMode::Exchange => RenameFlags::EXCHANGE,
    };
    match step(|| rustix::fs::renameat_with(from.0, from.1, to.0, to.1, flags)) {
        // File systems that don't know the flag say EINVAL; nobody else makes names here meanwhile.
        Err(Errno::INVAL) if mode == RenameMode::NoReplace => match object::stat_at(to.0, to.1) {
            Err(Errno::NOENT) => step(|| rustix::fs::renameat(from.0, from.1, to.0, to.1)),
            Err(errno) => Err(errno),
            Ok(_) => Err(Errno::EXIST),
        },
        done => done,
    }
}
