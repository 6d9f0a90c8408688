//! The replica on disk, as a resync sees it.
//!
//! Everything goes through `replay::Target`: below the root, never through a symlink. What is mounted inside
//! the replica is a stall, not to be removed. Tells the target of each name it removes.

use super::brake::{Brake, count_below};
use super::stock::{Standing, Stock};
use crate::replay::{
    Failure, Lack, Lacks, Step, Target, Trouble, at, holes, set_mode, set_owner, set_xattr, with_access,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::{Errno, Result as SysResult};
use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};
use tdfs_host::object::{self, read_at, write_all_at};
use tdfs_wire::answer::{BLOCK_BYTES, BLOCKS_MAX};
use tdfs_wire::object::{Kind, Meta, Xattr};
use tdfs_wire::op::XattrName;
use tdfs_wire::{Name, Time, TreePath};

/// How far the kernel's clock for ctimes may lag behind, and a clock step between two instants.
const CLOCK_SLACK_SECONDS: i64 = 10;
const BLOCK: usize = 128 * 1024;
const _: () = assert!(BLOCK as u64 == BLOCK_BYTES);

/// The replica, with what it can't carry and what may be removed of it.
pub struct Disk<'a> {
    /// The tree.
    pub target: &'a mut Target,
    /// What it can't carry.
    pub lacks: &'a mut Lacks,
    /// Counts removals.
    pub brake: &'a mut Brake,
}

impl Stock for Disk<'_> {
    fn now(&self) -> Time {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { sec: i64::try_from(now.as_secs()).unwrap_or(i64::MAX) - CLOCK_SLACK_SECONDS, nsec: 0 }
    }

    fn names(&mut self, dir: &TreePath) -> Result<Vec<Name>, Failure> {
        let names = opening(self.target, dir, |target| {
            let fd = target.dir(dir).map_err(stop("list", dir))?;
            object::list_names(fd.as_fd()).map_err(stop("list", dir))
        })?;
        Ok(names.into_iter().filter_map(|name| Name::new(name).ok()).collect())
    }

    fn look(&mut self, path: &TreePath) -> Result<Option<Standing>, Failure> {
        reaching(self.target, path, |target| {
            let seen = match target.parent(path) {
                _ if path.is_root() => standing(target.root()),
                Ok((dir, name)) => {
                    object::look_at(dir.as_fd(), name).map(|seen| stands((seen.stat, seen.meta)))
                }
                Err(errno) => Err(errno),
            };
            match seen {
                Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
                seen => seen.map(Some).map_err(stop("look at", path)),
            }
        })
    }

    fn create(&mut self, path: &TreePath, kind: &Kind) -> Result<(), Failure> {
        let made = reaching(self.target, path, |target| create(target, path, kind));
        if let Err(Failure::NotCarried(trouble)) = &made {
            let is_device = matches!(kind, Kind::Char(_) | Kind::Block(_));
            self.lacks.note(if is_device { Lack::Device } else { Lack::Special }, trouble);
        }
        made
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), Failure> {
        self.target.drop_at_or_below(path);
        reaching(self.target, path, |target| {
            let (parent, name) = match target.parent(path) {
                Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                parent => parent.map_err(stop("reach the directory of", path))?,
            };
            let mtime = mtime_of(parent.as_fd()).map_err(stop("stat the directory of", path))?;
            remove_tree(parent.as_fd(), name).map_err(stop("remove", path))?;
            object::set_mtime(parent.as_fd(), mtime).map_err(at(
                Step::Times,
                "set mtime of the directory of",
                path,
            ))
        })
    }

    fn link(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Failure> {
        let ways = || vec![parent_of(from), parent_of(to)];
        with_access(self.target, ways, |target| {
            let (from_dir, from_name) = target.parent(from).map_err(stop("reach the directory of", from))?;
            in_parent(target, to, |to_dir, to_name| {
                rustix::fs::linkat(&from_dir, from_name, to_dir, to_name, AtFlags::empty())
            })
        })
    }

    fn split(&mut self, path: &TreePath) -> Result<(), Failure> {
        let Some(here) = self.look(path)? else { return Err(Failure::diverged("split", path, Errno::NOENT)) };
        if here.meta.kind != Kind::File {
            self.remove(path)?;
            return self.create(path, &here.meta.kind);
        }
        let old = opening(self.target, path, |target| target.file_to_read(path).map_err(stop("open", path)))?;
        self.remove(path)?;
        self.create(path, &Kind::File)?;
        let new = self.target.file(path).map_err(stop("open", path))?;
        holes::copy_to_new(old.as_fd(), new.as_fd(), here.meta.size).map_err(at(Step::Content, "copy", path))
    }

    fn dress(&mut self, path: &TreePath, meta: &Meta) -> Result<bool, Failure> {
        let look = |target: &mut Target| match target.attributes(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Failure::diverged("find", path, Errno::NOENT)),
            fd => standing(fd.map_err(stop("reach", path))?.as_fd()).map_err(stop("look at", path)),
        };
        let mut here = reaching(self.target, path, look)?.meta;
        let resized = meta.kind == Kind::File && here.size != meta.size;
        if resized {
            opening(self.target, path, |target| {
                let file = target.file(path).map_err(stop("open", path))?;
                rustix::fs::ftruncate(&file, meta.size).map_err(at(Step::Content, "truncate", path))
            })?;
            // It can have taken capabilities with it.
            here = reaching(self.target, path, look)?.meta;
        } else if self.equal(&here, meta) {
            return Ok(false);
        }
        let lacks = &mut *self.lacks;
        reaching(self.target, path, |target| dress(target, lacks, path, (&here, meta)))?;
        Ok(true)
    }

    fn write(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        opening(self.target, path, |target| {
            let file = target.file(path).map_err(stop("open", path))?;
            write_all_at(file.as_fd(), bytes, offset).map_err(at(Step::Content, "write", path))
        })
    }

    fn punch(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<(), Failure> {
        opening(self.target, path, |target| {
            let file = target.file(path).map_err(stop("open", path))?;
            // What is equal must not look different: its mtime would change.
            holes::punch(file.as_fd(), offset, len).map_err(at(Step::Content, "punch a hole into", path))
        })
    }

    fn hashes(&mut self, path: &TreePath, offset: u64) -> Result<Vec<[u8; 32]>, Failure> {
        let stat = |target: &mut Target| match target.parent(path) {
            Err(errno) => Err(errno),
            Ok((dir, name)) => object::stat_at(dir.as_fd(), name),
        };
        let empty = reaching(self.target, path, |target| match stat(target) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => Ok(true),
            stat => stat
                .map(|stat| object::file_type(&stat) != libc::S_IFREG || stat.stx_size <= offset)
                .map_err(stop("look at", path)),
        })?;
        if empty {
            return Ok(Vec::new());
        }
        opening(self.target, path, |target| {
            let file = target.file_to_read(path).map_err(stop("open", path))?;
            hash_blocks(file.as_fd(), offset).map_err(at(Step::Content, "read", path))
        })
    }

    fn equal(&self, here: &Meta, there: &Meta) -> bool {
        let is_directory = there.kind == Kind::Directory;
        let mode =
            matches!(there.kind, Kind::Symlink(_)) || here.mode == self.lacks.mode(there.mode, is_directory);
        let owner = self.lacks.has(Lack::Owner) || (here.uid, here.gid) == (there.uid, there.gid);
        here.kind == there.kind
            && here.size == there.size
            && here.mtime == there.mtime
            && mode
            && owner
            && self.equal_xattrs(&here.xattrs, &there.xattrs)
    }

    fn can_make(&self, kind: &Kind) -> bool {
        let lack = match kind {
            Kind::Char(_) | Kind::Block(_) => Lack::Device,
            Kind::Fifo | Kind::Socket => Lack::Special,
            Kind::File | Kind::Directory | Kind::Symlink(_) => return true,
        };
        !self.lacks.has(lack)
    }

    fn holds(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<bool, Failure> {
        opening(self.target, path, |target| {
            let file = target.file_to_read(path).map_err(stop("open", path))?;
            let mut here = vec![0; bytes.len()];
            let read = read_at(file.as_fd(), &mut here, offset).map_err(at(Step::Content, "read", path))?;
            Ok(here[..read] == *bytes)
        })
    }

    fn is_zero(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<bool, Failure> {
        opening(self.target, path, |target| {
            let file = target.file_to_read(path).map_err(stop("open", path))?;
            holes::reads_as_zeros(file.as_fd(), offset, offset.saturating_add(len)).map_err(at(
                Step::Content,
                "read",
                path,
            ))
        })
    }

    fn may_remove(&mut self, path: &TreePath) -> Result<bool, Failure> {
        let below = opening(self.target, path, |target| match target.dir(path) {
            Ok(dir) => count_below(dir.as_fd()).map_err(stop("count what is in", path)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(0), // nothing, or no directory
            Err(errno) => Err(stop("reach", path)(errno)),
        })?;
        let Disk { target, brake, .. } = self;
        let total = || count_below(target.root()).map_err(io::Error::from);
        brake.may_remove(below + 1, total).map_err(|e| {
            let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
            Failure::Stall(Trouble { doing: "count what is to be removed of", path: path.clone(), errno })
        })
    }
}

impl Disk<'_> {
    fn equal_xattrs(&self, here: &[Xattr], there: &[Xattr]) -> bool {
        if here == there {
            return true;
        }
        let has = |name: &XattrName| here.iter().any(|xattr| xattr.name == *name);
        let carried = |xattr: &&Xattr| {
            let too_large = self.lacks.has(Lack::LargeXattr) && !has(&xattr.name);
            !too_large && !self.lacks.has(Lack::of_xattr(xattr.name.as_bytes()))
        };
        here.iter().filter(carried).eq(there.iter().filter(carried))
    }
}

/// Does `act`, with the way to `path` and it opened where the slave is not root and has no access.
fn opening<T>(
    target: &mut Target,
    path: &TreePath,
    act: impl FnMut(&mut Target) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with_access(target, || vec![path.clone()], act)
}

/// As [`opening`], the way to `path` only: for what does not need the object itself open.
fn reaching<T>(
    target: &mut Target,
    path: &TreePath,
    act: impl FnMut(&mut Target) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with_access(target, || vec![parent_of(path)], act)
}

/// As [`at`], but what is mounted in the replica is not the slave's to remove: a human has to look.
fn stop(doing: &'static str, path: &TreePath) -> impl Fn(Errno) -> Failure {
    move |errno| match errno {
        Errno::XDEV | Errno::BUSY => Failure::Stall(Trouble { doing, path: path.clone(), errno }),
        _ => at(Step::Names, doing, path)(errno),
    }
}

fn parent_of(path: &TreePath) -> TreePath {
    path.parent().unwrap_or_default()
}

fn mtime_of(fd: BorrowedFd<'_>) -> SysResult<Time> {
    Ok(object::mtime(&object::stat(fd)?))
}

fn standing(fd: BorrowedFd<'_>) -> SysResult<Standing> {
    let stat = object::stat(fd)?;
    let meta = object::meta(fd, &stat)?;
    Ok(stands((stat, meta)))
}

fn stands((stat, meta): (Statx, Meta)) -> Standing {
    let changed = Time { sec: stat.stx_ctime.tv_sec, nsec: stat.stx_ctime.tv_nsec };
    Standing { meta, ino: stat.stx_ino, links: u64::from(stat.stx_nlink), changed }
}

/// Does `act` in the directory that holds `path`, and puts back the mtime that it had.
fn in_parent<T>(
    target: &mut Target,
    path: &TreePath,
    act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> SysResult<T>,
) -> Result<T, Failure> {
    let (dir, name) = target.parent(path).map_err(stop("reach the directory of", path))?;
    let mtime = mtime_of(dir.as_fd()).map_err(stop("stat the directory of", path))?;
    let done = act(dir.as_fd(), name).map_err(stop("make", path))?;
    object::set_mtime(dir.as_fd(), mtime).map_err(at(Step::Times, "set mtime of the directory of", path))?;
    Ok(done)
}

fn create(target: &mut Target, path: &TreePath, kind: &Kind) -> Result<(), Failure> {
    let (file_type, device) = match kind {
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |dir: BorrowedFd<'_>, name: &[u8]| {
                rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600))
            };
            let file = in_parent(target, path, open)?;
            target.keep_file(path, file);
            return Ok(());
        }
        Kind::Directory => {
            let mode = Mode::from_raw_mode(0o700);
            return in_parent(target, path, |dir, name| rustix::fs::mkdirat(dir, name, mode));
        }
        Kind::Symlink(to) => {
            return in_parent(target, path, |dir, name| rustix::fs::symlinkat(&to[..], dir, name));
        }
        Kind::Fifo => (FileType::Fifo, 0),
        Kind::Socket => (FileType::Socket, 0),
        Kind::Char(device) => (FileType::CharacterDevice, *device),
        Kind::Block(device) => (FileType::BlockDevice, *device),
    };
    let mode = Mode::from_raw_mode(0o600);
    let made =
        in_parent(target, path, |dir, name| Ok(rustix::fs::mknodat(dir, name, file_type, mode, device)))?;
    made.map_err(at(Step::Node, "make", path))
}

/// Owner, xattrs, mode, and last the mtime, of an object that stands as `before`.
fn dress(
    target: &mut Target,
    lacks: &mut Lacks,
    path: &TreePath,
    (before, meta): (&Meta, &Meta),
) -> Result<(), Failure> {
    let fd = target.attributes(path).map_err(stop("reach", path))?;
    let fd = fd.as_fd();
    let mut here = Cow::Borrowed(&before.xattrs);
    if (before.uid, before.gid) != (meta.uid, meta.gid) {
        set_owner(lacks, fd, path, (meta.uid, meta.gid))?;
        // chown(2) can have taken some.
        here = Cow::Owned(object::xattrs(fd).map_err(stop("list the xattrs of", path))?.carried);
    }
    for extra in here.iter().filter(|here| meta.xattrs.iter().all(|there| there.name != here.name)) {
        match object::remove_xattr(fd, extra.name.as_bytes()) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => {
                let failure = at(Step::Xattr, "remove an xattr of", path)(errno);
                lacks.forgive(Lack::of_xattr(extra.name.as_bytes()), failure)?;
            }
        }
    }
    for xattr in meta.xattrs.iter().filter(|xattr| !here.contains(xattr)) {
        set_xattr(lacks, fd, path, (xattr.name.as_bytes(), &xattr.value))?;
    }
    if !matches!(meta.kind, Kind::Symlink(_)) {
        set_mode(lacks, fd, path, (meta.mode, meta.kind == Kind::Directory))?;
    }
    object::set_mtime(fd, meta.mtime).map_err(at(Step::Times, "set mtime of", path))
}

fn hash_blocks(file: BorrowedFd<'_>, offset: u64) -> SysResult<Vec<[u8; 32]>> {
    let mut buffer = vec![0; BLOCK];
    let mut hashes = Vec::with_capacity(BLOCKS_MAX);
    for block in 0..BLOCKS_MAX as u64 {
        let read = read_at(file, &mut buffer, offset + block * BLOCK_BYTES)?;
        if read > 0 {
            hashes.push(*blake3::hash(&buffer[..read]).as_bytes());
        }
        if read < BLOCK {
            break;
        }
    }
    Ok(hashes)
}

/// One directory on the way down of a removal.
struct Level {
    name: Vec<u8>,
    ino: u64,
    subdirs: Vec<Vec<u8>>,
}

/// Removes a name with all below it. Holds one directory open at a time: a tree can be deeper than the
/// process may have files open.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> SysResult<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        done => return done,
    }
    let (mut dir, level) = enter(parent, name)?;
    let mut levels = vec![level];
    while let Some(level) = levels.last_mut() {
        if let Some(next) = level.subdirs.pop() {
            let (below, level) = enter(dir.as_fd(), &next)?;
            dir = below;
            levels.push(level);
            continue;
        }
        let Some(empty) = levels.pop() else { break };
        let Some(above) = levels.last() else {
            drop(dir);
            return rustix::fs::unlinkat(parent, &empty.name[..], AtFlags::REMOVEDIR);
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = rustix::fs::openat(&dir, c"..", flags, Mode::empty())?;
        if object::stat(dir.as_fd())?.stx_ino != above.ino {
            // Somebody moved it while it was being removed.
            return Err(Errno::NOTEMPTY);
        }
        rustix::fs::unlinkat(&dir, &empty.name[..], AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Opens a directory that is to be removed, and removes all in it that is no directory.
fn enter(parent: BorrowedFd<'_>, name: &[u8]) -> SysResult<(OwnedFd, Level)> {
    let dir = object::open_dir(parent, name)?;
    let ino = object::stat(dir.as_fd())?.stx_ino;
    let names = match object::list_names(dir.as_fd()) {
        Err(Errno::ACCESS) => {
            object::set_mode(dir.as_fd(), 0o700)?;
            object::list_names(dir.as_fd())
        }
        names => names,
    }?;
    let mut subdirs = Vec::new();
    for inner in names {
        match unlink_opening(dir.as_fd(), &inner) {
            Err(Errno::ISDIR) => subdirs.push(inner),
            Err(Errno::NOENT) => {}
            done => done?,
        }
    }
    Ok((dir, Level { name: name.to_vec(), ino, subdirs }))
}

fn unlink_opening(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ACCESS) => {
            object::set_mode(dir, 0o700)?;
            rustix::fs::unlinkat(dir, name, AtFlags::empty())
        }
        done => done,
    }
}
