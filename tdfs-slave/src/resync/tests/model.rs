//! A tree in memory that does ops as a file system would, and shows itself as a replica to a resync.

use crate::replay::{Failure, Trouble};
use crate::resync::stock::{Standing, Stock};
use rustix::io::Errno;
use std::collections::BTreeMap;
use tdfs_wire::object::{Kind, Meta, Xattr};
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, NewObject, Node, Op, RenameMode, XattrOp};
use tdfs_wire::{Name, Time, TreePath};

/// Blocks of the model are small, so that files of many blocks are cheap.
pub const BLOCK: usize = 4;
pub const BLOCKS: usize = 2;
const ROOT: u64 = 1;

#[derive(Clone, Debug)]
pub struct Inode {
    pub meta: Meta,
    pub data: Vec<u8>,
    pub children: BTreeMap<Vec<u8>, u64>,
    pub links: u64,
    /// Its ctime.
    pub changed: i64,
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub inodes: BTreeMap<u64, Inode>,
    free: Vec<u64>,
    next: u64,
    now: i64,
    /// After so many more calls one stalls.
    pub stall_in: Option<u32>,
}

type Done<T = ()> = Result<T, Errno>;

pub fn time(now: i64) -> Time {
    Time { sec: now, nsec: 0 }
}

impl Tree {
    /// `first` inode number and clock keep the numbers of two trees apart.
    pub fn new(first: u64, now: i64) -> Tree {
        let root = Inode::new(Kind::Directory, 0o755, time(now));
        Tree { inodes: BTreeMap::from([(ROOT, root)]), free: Vec::new(), next: first, now, stall_in: None }
    }

    /// The same tree with other inode numbers and another clock.
    pub fn twin(&self, first: u64, now: i64) -> Tree {
        let shift = |ino: u64| if ino == ROOT { ROOT } else { ino + first };
        let mut twin = Tree::new(self.next + first, now);
        twin.inodes = self.inodes.iter().map(|(ino, inode)| (shift(*ino), inode.clone())).collect();
        for inode in twin.inodes.values_mut() {
            inode.children.values_mut().for_each(|ino| *ino = shift(*ino));
        }
        twin
    }

    /// What changes from now on has a later ctime.
    pub fn present(&self) -> Time {
        time(self.now)
    }

    fn tick(&mut self) -> Time {
        self.now += 1;
        time(self.now)
    }

    pub fn ino(&self, path: &TreePath) -> Done<u64> {
        path.components().try_fold(ROOT, |dir, name| {
            let dir = &self.inodes[&dir];
            if dir.meta.kind != Kind::Directory {
                return Err(Errno::NOTDIR);
            }
            dir.children.get(name).copied().ok_or(Errno::NOENT)
        })
    }

    pub fn get(&self, path: &TreePath) -> Done<&Inode> {
        Ok(&self.inodes[&self.ino(path)?])
    }

    fn get_mut(&mut self, path: &TreePath) -> Done<&mut Inode> {
        let ino = self.ino(path)?;
        self.now += 1;
        let inode = self.inodes.get_mut(&ino).unwrap();
        inode.changed = self.now;
        Ok(inode)
    }

    fn file(&mut self, path: &TreePath) -> Done<&mut Inode> {
        if self.get(path)?.meta.kind == Kind::File { self.get_mut(path) } else { Err(Errno::INVAL) }
    }

    fn dir_of(&mut self, path: &TreePath) -> Done<(&mut Inode, Vec<u8>)> {
        let (parent, name) = path.split().ok_or(Errno::INVAL)?;
        let name = name.to_vec();
        if self.get(&parent)?.meta.kind != Kind::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok((self.get_mut(&parent)?, name))
    }

    /// All paths but the root, each after its parent.
    pub fn paths(&self) -> Vec<TreePath> {
        let mut paths = vec![TreePath::root()];
        let mut next = 0;
        while next < paths.len() {
            let path = paths[next].clone();
            let names: Vec<_> = self.get(&path).unwrap().children.keys().cloned().collect();
            paths.extend(names.iter().map(|name| path.join(name).unwrap()));
            next += 1;
        }
        paths.split_off(1)
    }

    fn add(&mut self, path: &TreePath, inode: Inode) -> Done {
        if self.dir_of(path)?.0.children.contains_key(path.split().ok_or(Errno::INVAL)?.1) {
            return Err(Errno::EXIST);
        }
        let inode = Inode { changed: self.now, ..inode };
        let ino = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let (dir, name) = self.dir_of(path)?;
        dir.children.insert(name, ino);
        self.inodes.insert(ino, inode);
        Ok(())
    }

    fn drop_name(&mut self, path: &TreePath) -> Done {
        let ino = self.ino(path)?;
        let (dir, name) = self.dir_of(path)?;
        dir.children.remove(&name);
        let changed = self.now;
        let inode = self.inodes.get_mut(&ino).unwrap();
        (inode.links, inode.changed) = (inode.links - 1, changed);
        if inode.links == 0 {
            self.inodes.remove(&ino);
            self.free.push(ino);
        }
        Ok(())
    }

    pub fn remove_all(&mut self, path: &TreePath) -> Done {
        let names: Vec<_> = match self.get(path) {
            Ok(inode) => inode.children.keys().cloned().collect(),
            Err(_) => return Ok(()),
        };
        for name in names {
            self.remove_all(&path.join(&name).unwrap())?;
        }
        self.drop_name(path)
    }

    fn touch_dir(&mut self, path: &TreePath, mtime: Time) {
        let parent = path.parent().unwrap();
        self.get_mut(&parent).unwrap().meta.mtime = mtime;
    }

    /// Does an op, whole or not at all.
    pub fn apply(&mut self, op: &Op, bulk: &[u8]) -> Done {
        match op {
            Op::Namespace(op) => self.apply_names(op),
            Op::Data(op) => self.apply_data(op, bulk),
            Op::Attr(op) => {
                let inode = self.get_mut(op.path())?;
                match *op {
                    AttrOp::Mode { mode, .. } => inode.meta.mode = mode,
                    AttrOp::Owner { uid, gid, mode, .. } => {
                        (inode.meta.uid, inode.meta.gid, inode.meta.mode) = (uid, gid, mode);
                    }
                    AttrOp::Times { mtime, .. } => inode.meta.mtime = mtime,
                }
                Ok(())
            }
            Op::Xattr(op) => {
                let inode = self.get_mut(op.path())?;
                let (XattrOp::Set { name, .. } | XattrOp::Remove { name, .. }) = op;
                inode.meta.xattrs.retain(|xattr| xattr.name != *name);
                if let XattrOp::Set { .. } = op {
                    inode.meta.xattrs.push(Xattr { name: name.clone(), value: bulk.to_vec() });
                    inode.meta.xattrs.sort();
                }
                Ok(())
            }
            Op::Check { .. } => Ok(()),
        }
    }

    /// Does an op as replay does it: of an exchange that lacks one of its two objects, the other is moved all the same.
    /// The error is where that one is missing now.
    pub fn replay(&mut self, op: &Op, bulk: &[u8]) -> Result<(), Option<TreePath>> {
        let done = self.apply(op, bulk);
        if let Op::Namespace(NamespaceOp::Rename {
            from, to, mode, from_parent_mtime, to_parent_mtime, ..
        }) = op
            && (done.is_err(), *mode) == (true, RenameMode::Exchange)
        {
            let lacks_at = if self.get(from).is_ok() { from } else { to };
            let has = if lacks_at == from { to } else { from };
            self.rename(lacks_at, has, RenameMode::NoReplace).map_err(|_| None)?;
            self.touch_dir(from, *from_parent_mtime);
            self.touch_dir(to, *to_parent_mtime);
            return Err(Some(lacks_at.clone()));
        }
        done.map_err(|_| None)
    }

    fn apply_names(&mut self, op: &NamespaceOp) -> Done {
        let mut make = |new: &NewObject, kind: Kind| {
            self.add(&new.path, Inode::new(kind, new.mode, new.mtime))?;
            self.touch_dir(&new.path, new.parent_mtime);
            Ok(())
        };
        match op {
            NamespaceOp::Create(new) => make(new, Kind::File),
            NamespaceOp::Mkdir(new) => make(new, Kind::Directory),
            NamespaceOp::Mknod { new, node: Node::Char(device) } => make(new, Kind::Char(*device)),
            NamespaceOp::Mknod { new, .. } => make(new, Kind::Fifo),
            NamespaceOp::Symlink { new, target } => make(new, Kind::Symlink(target.clone())),
            NamespaceOp::Link { from, to, parent_mtime } => {
                self.link_name(from, to)?;
                self.touch_dir(to, *parent_mtime);
                Ok(())
            }
            NamespaceOp::Unlink { path, parent_mtime, .. } => {
                if self.get(path)?.meta.kind == Kind::Directory {
                    return Err(Errno::ISDIR);
                }
                self.drop_name(path)?;
                self.touch_dir(path, *parent_mtime);
                Ok(())
            }
            NamespaceOp::Rmdir { path, parent_mtime } => {
                let inode = self.get(path)?;
                if inode.meta.kind != Kind::Directory {
                    return Err(Errno::NOTDIR);
                }
                if !inode.children.is_empty() {
                    return Err(Errno::NOTEMPTY);
                }
                self.drop_name(path)?;
                self.touch_dir(path, *parent_mtime);
                Ok(())
            }
            NamespaceOp::Rename { from, to, mode, from_parent_mtime, to_parent_mtime, .. } => {
                self.rename(from, to, *mode)?;
                self.touch_dir(from, *from_parent_mtime);
                self.touch_dir(to, *to_parent_mtime);
                Ok(())
            }
        }
    }

    fn link_name(&mut self, from: &TreePath, to: &TreePath) -> Done {
        let ino = self.ino(from)?;
        if self.inodes[&ino].meta.kind == Kind::Directory {
            return Err(Errno::ISDIR);
        }
        let (dir, name) = self.dir_of(to)?;
        if dir.children.contains_key(&name) {
            return Err(Errno::EXIST);
        }
        dir.children.insert(name, ino);
        let changed = self.now;
        let inode = self.inodes.get_mut(&ino).unwrap();
        (inode.links, inode.changed) = (inode.links + 1, changed);
        Ok(())
    }

    fn rename(&mut self, from: &TreePath, to: &TreePath, mode: RenameMode) -> Done {
        if to.is_at_or_below(from) || from.is_at_or_below(to) {
            return Err(Errno::INVAL);
        }
        let (source, target) = (self.ino(from)?, self.ino(to));
        self.dir_of(to)?;
        match (mode, target) {
            (RenameMode::Exchange, target) => {
                let target = target?;
                for (path, ino) in [(from, target), (to, source)] {
                    let (dir, name) = self.dir_of(path)?;
                    dir.children.insert(name, ino);
                }
                return Ok(());
            }
            (RenameMode::NoReplace, Ok(_)) => return Err(Errno::EXIST),
            (RenameMode::Replace, Ok(target)) => {
                let is_dir = |ino: u64| self.inodes[&ino].meta.kind == Kind::Directory;
                match (is_dir(source), is_dir(target)) {
                    _ if source == target => return Err(Errno::INVAL),
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (true, true) if !self.inodes[&target].children.is_empty() => return Err(Errno::NOTEMPTY),
                    _ => self.drop_name(to)?,
                }
            }
            (_, Err(Errno::NOENT)) => {}
            (_, Err(errno)) => return Err(errno),
        }
        let (dir, name) = self.dir_of(from)?;
        dir.children.remove(&name);
        let (dir, name) = self.dir_of(to)?;
        dir.children.insert(name, source);
        Ok(())
    }

    fn apply_data(&mut self, op: &DataOp, bulk: &[u8]) -> Done {
        match *op {
            DataOp::Write { ref path, offset, mtime } => {
                let inode = self.file(path)?;
                inode.put(offset as usize, bulk);
                inode.meta.mtime = mtime;
            }
            DataOp::Truncate { ref path, size, mtime } => {
                let inode = self.file(path)?;
                inode.data.resize(size as usize, 0);
                inode.meta.mtime = mtime;
            }
            DataOp::Allocate { ref path, mode, offset, len, size, mtime } => {
                let (from, to) = (offset as usize, (offset + len) as usize);
                let here = self.get(path)?.data.len();
                if (mode == 0x08 && to > here) || (mode == 0x20 && from > here) {
                    return Err(Errno::INVAL);
                }
                let inode = self.file(path)?;
                match mode {
                    0x08 => drop(inode.data.drain(from..to)),
                    0x20 => drop(inode.data.splice(from..from, vec![0; to - from])),
                    0 => {}
                    _ => {
                        let end = to.min(inode.data.len());
                        inode.data[from.min(end)..end].fill(0);
                    }
                }
                if mode != 0x03 {
                    inode.data.resize((size as usize).max(inode.data.len()), 0);
                }
                inode.meta.mtime = mtime;
            }
            DataOp::Copy { ref from, from_offset, ref to, to_offset, len, mtime } => {
                let source = &self.get(from)?.data;
                let (start, end) = (from_offset as usize, (from_offset + len) as usize);
                let bytes = source.get(start..end).ok_or(Errno::INVAL)?.to_vec();
                // copy_file_range(2) refuses ranges of one file that overlap.
                if self.ino(from)? == self.ino(to)? && from_offset.abs_diff(to_offset) < len {
                    return Err(Errno::INVAL);
                }
                let inode = self.file(to)?;
                inode.put(to_offset as usize, &bytes);
                inode.meta.mtime = mtime;
            }
        }
        Ok(())
    }

    /// Every respect in which trees are compared, as text: one line a path; hard links by the first name.
    pub fn show(&self) -> String {
        let mut first: BTreeMap<u64, TreePath> = BTreeMap::new();
        let mut lines = Vec::new();
        let mut paths = self.paths();
        paths.push(TreePath::root());
        paths.sort();
        for path in paths {
            let ino = self.ino(&path).unwrap();
            let inode = &self.inodes[&ino];
            let name = first.entry(ino).or_insert_with(|| path.clone());
            let same = if *name == path { String::new() } else { format!(" = {name}") };
            let Meta { kind, mode, uid, mtime, xattrs, .. } = &inode.meta;
            lines.push(format!(
                "{path}{same} {kind:?} {mode:o} {uid} {} {:?} {xattrs:?}",
                mtime.sec, inode.data
            ));
        }
        lines.join("\n")
    }

    /// True if both trees show the same, but for ctimes and the numbers of inodes.
    pub fn same(&self, other: &Tree) -> bool {
        let (mut there, mut pairs) = (BTreeMap::new(), vec![(ROOT, ROOT)]);
        let mut known = BTreeMap::new();
        while let Some((a, b)) = pairs.pop() {
            match (known.insert(a, b), there.insert(b, a)) {
                (Some(before), Some(_)) if before == b => continue,
                (None, None) => {}
                _ => return false,
            }
            let (Some(a), Some(b)) = (self.inodes.get(&a), other.inodes.get(&b)) else { return false };
            if a.meta != b.meta || a.data != b.data || !a.children.keys().eq(b.children.keys()) {
                return false;
            }
            pairs.extend(a.children.values().copied().zip(b.children.values().copied()));
        }
        true
    }

    pub fn hashes_of(data: &[u8], offset: u64) -> Vec<[u8; 32]> {
        let rest = data.get(offset as usize..).unwrap_or_default();
        rest.chunks(BLOCK).take(BLOCKS).map(hash).collect()
    }

    pub fn standing(&self, path: &TreePath) -> Option<Standing> {
        let ino = self.ino(path).ok()?;
        let inode = &self.inodes[&ino];
        let links = if inode.meta.kind == Kind::Directory { 2 } else { inode.links };
        let size = inode.data.len() as u64;
        Some(Standing { meta: Meta { size, ..inode.meta.clone() }, ino, links, changed: time(inode.changed) })
    }

    fn may_stall(&mut self, path: &TreePath) -> Result<(), Failure> {
        match &mut self.stall_in {
            Some(0) => {
                self.stall_in = None;
                Err(Failure::Stall(Trouble { doing: "test", path: path.clone(), errno: Errno::NOSPC }))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

pub fn hash(block: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..block.len()].copy_from_slice(block);
    hash[31] = block.len() as u8;
    hash
}

impl Inode {
    fn new(kind: Kind, mode: u32, mtime: Time) -> Inode {
        let meta = Meta { kind, mode, uid: 0, gid: 0, mtime, size: 0, xattrs: Vec::new() };
        Inode { meta, data: Vec::new(), children: BTreeMap::new(), links: 1, changed: 0 }
    }

    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        if self.data.len() < offset + bytes.len() {
            self.data.resize(offset + bytes.len(), 0);
        }
        self.data[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

fn at(path: &TreePath) -> impl Fn(Errno) -> Failure + '_ {
    |errno| Failure::diverged("test", path, errno)
}

impl Stock for Tree {
    fn now(&self) -> Time {
        time(self.now)
    }

    fn names(&mut self, dir: &TreePath) -> Result<Vec<Name>, Failure> {
        self.may_stall(dir)?;
        let inode = self.get(dir).map_err(at(dir))?;
        Ok(inode.children.keys().map(|name| Name::new(&name[..]).unwrap()).collect())
    }

    fn look(&mut self, path: &TreePath) -> Result<Option<Standing>, Failure> {
        self.may_stall(path)?;
        Ok(self.standing(path))
    }

    fn create(&mut self, path: &TreePath, kind: &Kind) -> Result<(), Failure> {
        self.may_stall(path)?;
        let mode = if *kind == Kind::Directory { 0o700 } else { 0o600 };
        let now = self.tick();
        self.add(path, Inode::new(kind.clone(), mode, now)).map_err(at(path))
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), Failure> {
        self.may_stall(path)?;
        self.remove_all(path).map_err(at(path))
    }

    fn link(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Failure> {
        self.may_stall(to)?;
        self.link_name(from, to).map_err(at(to))
    }

    fn split(&mut self, path: &TreePath) -> Result<(), Failure> {
        self.may_stall(path)?;
        let now = self.tick();
        let old = self.get(path).map_err(at(path))?.clone();
        self.drop_name(path).map_err(at(path))?;
        let new = Inode { data: old.data, ..Inode::new(old.meta.kind, 0o600, now) };
        self.add(path, new).map_err(at(path))
    }

    fn dress(&mut self, path: &TreePath, meta: &Meta) -> Result<bool, Failure> {
        self.may_stall(path)?;
        let inode = self.get_mut(path).map_err(at(path))?;
        let changed = inode.meta != Meta { size: 0, ..meta.clone() };
        inode.data.resize(meta.size as usize, 0);
        inode.meta = Meta { size: 0, ..meta.clone() };
        Ok(changed)
    }

    fn write(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.may_stall(path)?;
        let now = self.tick();
        let inode = self.file(path).map_err(at(path))?;
        inode.put(offset as usize, bytes);
        inode.meta.mtime = now;
        Ok(())
    }

    fn punch(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<(), Failure> {
        self.may_stall(path)?;
        let now = self.tick();
        let inode = self.file(path).map_err(at(path))?;
        let end = ((offset + len) as usize).min(inode.data.len());
        inode.data[(offset as usize).min(end)..end].fill(0);
        inode.meta.mtime = now;
        Ok(())
    }

    fn hashes(&mut self, path: &TreePath, offset: u64) -> Result<Vec<[u8; 32]>, Failure> {
        Ok(self.get(path).map_or(Vec::new(), |inode| Tree::hashes_of(&inode.data, offset)))
    }

    fn equal(&self, here: &Meta, there: &Meta) -> bool {
        here == there
    }

    fn can_make(&self, _: &Kind) -> bool {
        true
    }

    fn holds(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<bool, Failure> {
        self.may_stall(path)?;
        let data = &self.get(path).map_err(at(path))?.data;
        Ok(data.get(offset as usize..offset as usize + bytes.len()) == Some(bytes))
    }

    fn is_zero(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<bool, Failure> {
        self.may_stall(path)?;
        let data = &self.get(path).map_err(at(path))?.data;
        Ok(data.iter().skip(offset as usize).take(len as usize).all(|&byte| byte == 0))
    }

    fn may_remove(&mut self, _: &TreePath) -> Result<bool, Failure> {
        Ok(true)
    }
}
