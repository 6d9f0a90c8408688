//! Directories of the machine beside trees in memory: read, compared, written anew, answered from.

use crate::resync::tests::model::{Inode, Tree};
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, OFlags};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use tdfs_host::object;
use tdfs_wire::answer::{Answer, Found, Stretch, Want, Wanted};
use tdfs_wire::object::{Child, Kind, Meta};
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, NewObject, Node, Op, XattrOp};
use tdfs_wire::{Name, TreePath};

const ROOT: u64 = 1;

/// What `op` becomes so that any file system can do it, and as the master records it; None: nothing does.
pub fn as_recorded(op: Op, tree: &Tree) -> Option<Op> {
    let kind = |path: &TreePath| tree.get(path).ok().map(|inode| inode.meta.kind.clone());
    let plain = |new: NewObject| NewObject { uid: 0, gid: 0, ..new };
    match op {
        Op::Namespace(NamespaceOp::Symlink { new, target }) => {
            let new = NewObject { mode: 0o777, ..plain(new) };
            Some(Op::Namespace(NamespaceOp::Symlink { new, target }))
        }
        Op::Namespace(NamespaceOp::Mknod { new, .. }) => {
            Some(Op::Namespace(NamespaceOp::Mknod { new: plain(new), node: Node::Fifo }))
        }
        Op::Namespace(NamespaceOp::Create(new)) => Some(Op::Namespace(NamespaceOp::Create(plain(new)))),
        Op::Namespace(NamespaceOp::Mkdir(new)) => Some(Op::Namespace(NamespaceOp::Mkdir(plain(new)))),
        Op::Namespace(NamespaceOp::Rename { ref from, ref to, .. }) if tree.ino(from) == tree.ino(to) => None,
        Op::Attr(AttrOp::Mode { ref path, .. } | AttrOp::Owner { ref path, .. }) => {
            (!matches!(kind(path)?, Kind::Symlink(_))).then_some(op)
        }
        Op::Xattr(XattrOp::Set { ref path, .. }) => {
            matches!(kind(path)?, Kind::File | Kind::Directory).then_some(op)
        }
        Op::Xattr(XattrOp::Remove { ref path, .. }) => {
            // What changed nothing is not recorded.
            (!tree.get(path).ok()?.meta.xattrs.is_empty()).then_some(op)
        }
        other => Some(other),
    }
}

/// The size that an allocation left stands in its record.
pub fn with_outcome(mut op: Op, tree: &Tree) -> Op {
    if let Op::Data(DataOp::Allocate { path, size, .. }) = &mut op {
        *size = tree.get(path).map_or(0, |inode| inode.data.len() as u64);
    }
    op
}

/// True if `op` moves what lies behind a range of a file.
pub fn shifts(op: &Op) -> bool {
    let modes = FallocateFlags::COLLAPSE_RANGE | FallocateFlags::INSERT_RANGE;
    matches!(op, Op::Data(DataOp::Allocate { mode, .. }) if mode & modes.bits() != 0)
}

/// Where a path lies on the machine.
pub fn place(root: &Path, path: &TreePath) -> PathBuf {
    path.components().fold(root.to_path_buf(), |dir, name| dir.join(std::str::from_utf8(name).unwrap()))
}

/// Reads a directory whole.
pub fn scan(root: &Path) -> Tree {
    // What an op makes in it gets other numbers.
    let mut tree = Tree::new(1_000_000, 1);
    let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let stat = object::stat(fd.as_fd()).unwrap();
    let meta = object::meta(fd.as_fd(), &stat).unwrap();
    let mut found = HashMap::new();
    let children = scan_children(fd.as_fd(), &mut tree, &mut found);
    tree.inodes.insert(ROOT, inode(meta, Vec::new(), children));
    tree
}

fn inode(meta: Meta, data: Vec<u8>, children: BTreeMap<Vec<u8>, u64>) -> Inode {
    Inode { meta: Meta { size: 0, ..meta }, data, children, links: 1, changed: 0 }
}

fn scan_children(
    dir: BorrowedFd<'_>,
    tree: &mut Tree,
    found: &mut HashMap<u64, u64>,
) -> BTreeMap<Vec<u8>, u64> {
    let mut children = BTreeMap::new();
    for name in object::list_names(dir).unwrap() {
        let object::Looked { stat, meta, .. } = object::look_at(dir, &name).unwrap();
        let next = found.len() as u64 + 2;
        let number = *found.entry(stat.stx_ino).or_insert(next);
        children.insert(name.clone(), number);
        if number < next {
            tree.inodes.get_mut(&number).unwrap().links += 1;
            continue;
        }
        let (mut data, mut below) = (Vec::new(), BTreeMap::new());
        match meta.kind {
            Kind::File if meta.size > 0 => {
                let fd = object::open_path(dir, &name).unwrap();
                let file = object::reopen(fd.as_fd(), OFlags::RDONLY).unwrap();
                data = vec![0; usize::try_from(meta.size).unwrap()];
                assert_eq!(object::read_at(file.as_fd(), &mut data, 0).unwrap(), data.len());
            }
            Kind::Directory => {
                let fd = object::open_dir(dir, &name).unwrap();
                below = scan_children(fd.as_fd(), tree, found);
            }
            _ => {}
        }
        tree.inodes.insert(number, inode(meta, data, below));
    }
    children
}

/// What of the objects at `paths`, and of their parents, is not as in `tree`: cheap, after each record.
pub fn differs(root: &Path, tree: &Tree, paths: &[&TreePath]) -> Option<String> {
    let parents: Vec<TreePath> = paths.iter().filter_map(|path| path.parent()).collect();
    let all = paths.iter().copied().chain(&parents);
    all.filter_map(|path| differs_at(root, tree, path).map(|what| format!("{path}: {what}"))).next()
}

fn differs_at(root: &Path, tree: &Tree, path: &TreePath) -> Option<String> {
    let (there, here) = (tree.get(path), fs::symlink_metadata(place(root, path)));
    let (there, here) = match (there, here) {
        (Err(_), Err(_)) => return None,
        (Ok(_), Err(e)) => return Some(format!("missing: {e}")),
        (Err(_), Ok(_)) => return Some("should not be there".into()),
        (Ok(there), Ok(here)) => (there, here),
    };
    if let Kind::Symlink(target) = &there.meta.kind {
        let is = fs::read_link(place(root, path)).ok();
        return (is.as_deref() != Some(Path::new(std::str::from_utf8(target).unwrap())))
            .then(|| format!("points to {is:?}"));
    }
    let (meta, data) = (&there.meta, &there.data);
    let told = (meta.mode, meta.uid, meta.gid, meta.mtime.sec);
    let is = (here.mode() & 0o7777, here.uid(), here.gid(), here.mtime());
    if told != is {
        return Some(format!("mode, owner, mtime {is:?}, not {told:?}"));
    }
    let is_dir = meta.kind == Kind::Directory;
    if is_dir != here.is_dir() || (meta.kind == Kind::File) != here.is_file() {
        return Some(format!("kind {:?}", here.file_type()));
    }
    let content = if here.is_file() { fs::read(place(root, path)).unwrap() } else { Vec::new() };
    (content != *data).then(|| format!("content {content:?}, not {data:?}"))
}

/// Makes the directory hold `tree` and nothing else; the directory itself stays the same one.
pub fn write_anew(root: &Path, tree: &Tree) {
    for entry in fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => fs::remove_dir_all(entry.path()).unwrap(),
            false => fs::remove_file(entry.path()).unwrap(),
        }
    }
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut paths = tree.paths();
    for path in &paths {
        let (at, number) = (place(root, path), tree.ino(path).unwrap());
        match first.get(&number) {
            Some(other) => fs::hard_link(other, &at).unwrap(),
            None => {
                make(&at, &tree.inodes[&number]);
                first.insert(number, at);
            }
        }
    }
    paths.push(TreePath::root());
    for path in paths.iter().rev() {
        dress(&place(root, path), &tree.get(path).unwrap().meta);
    }
    dress(root, &tree.inodes[&ROOT].meta);
}

fn make(at: &Path, inode: &Inode) {
    match &inode.meta.kind {
        Kind::File => fs::write(at, &inode.data).unwrap(),
        Kind::Directory => fs::create_dir(at).unwrap(),
        Kind::Symlink(target) => symlink(std::str::from_utf8(target).unwrap(), at).unwrap(),
        _ => rustix::fs::mknodat(CWD, at, FileType::Fifo, Mode::from_bits_retain(0o600), 0).unwrap(),
    }
}

fn dress(at: &Path, meta: &Meta) {
    let fd = rustix::fs::open(at, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
    object::set_owner(fd.as_fd(), Some(meta.uid), Some(meta.gid)).unwrap();
    if !matches!(meta.kind, Kind::Symlink(_)) {
        object::set_mode(fd.as_fd(), meta.mode).unwrap();
    }
    let here = object::xattrs(fd.as_fd()).map_or_else(|_| Vec::new(), |xattrs| xattrs.carried);
    for xattr in here {
        object::remove_xattr(fd.as_fd(), xattr.name.as_bytes()).unwrap();
    }
    for xattr in &meta.xattrs {
        let flags = rustix::fs::XattrFlags::empty();
        object::set_xattr(fd.as_fd(), xattr.name.as_bytes(), &xattr.value, flags).unwrap();
    }
    object::set_mtime(fd.as_fd(), meta.mtime).unwrap();
}

/// The master's answer to a want, as of now; with at most `names` names of a directory.
pub fn answer(tree: &Tree, want: &Want, names: usize) -> (Answer, Vec<u8>) {
    let (found, bulk) = found(tree, want, names);
    (Answer { id: want.id, path: want.path.clone(), found }, bulk)
}

fn found(tree: &Tree, want: &Want, names_max: usize) -> (Found, Vec<u8>) {
    let Some(here) = tree.standing(&want.path) else { return (Found::Gone, Vec::new()) };
    let inode = tree.get(&want.path).unwrap();
    match &want.what {
        Wanted::Listing { .. } if here.meta.kind != Kind::Directory => (Found::Gone, Vec::new()),
        Wanted::Listing { after } => {
            let child = |name: &Vec<u8>| {
                let at = tree.standing(&want.path.join(name).unwrap()).unwrap();
                Child { name: Name::new(&name[..]).unwrap(), ino: at.ino, links: at.links, meta: at.meta }
            };
            let is_behind = |name: &&Vec<u8>| after.as_ref().is_none_or(|after| name[..] > *after.as_bytes());
            let names: Vec<&Vec<u8>> = inode.children.keys().filter(is_behind).collect();
            let fit = names.len().min(names_max);
            let children = names[..fit].iter().copied().map(child).collect();
            (Found::Listing { meta: here.meta, children, last: fit == names.len() }, Vec::new())
        }
        Wanted::Object { offset, hashes } => {
            let rest = inode.data.get(usize::try_from(*offset).unwrap()..).unwrap_or_default();
            let (mut stretches, mut bulk) = (Vec::new(), Vec::new());
            if hashes.first().is_some_and(|hash| blake3::hash(rest).as_bytes() == hash) && !rest.is_empty() {
                stretches.push(Stretch::Same(rest.len() as u64));
            } else if !rest.is_empty() {
                stretches.push(Stretch::Data(u32::try_from(rest.len()).unwrap()));
                bulk.extend_from_slice(rest);
            }
            (Found::Object { meta: here.meta, ino: here.ino, links: here.links, stretches }, bulk)
        }
    }
}

/// What an OS crash may leave of a tree that was `synced` before it became `now`: of each object, either. Content
/// can be lost where size and mtime stay.
pub fn mixed(synced: &Tree, now: &Tree, mut chance: impl FnMut() -> bool) -> Tree {
    let mut mixed = if chance() { now.clone() } else { synced.clone() };
    let paths: Vec<TreePath> = mixed.paths();
    for path in paths {
        let (Ok(before), Ok(after)) = (synced.get(&path).cloned(), now.get(&path).cloned()) else {
            // It came or went since: it may be there or not.
            if synced.get(&path).is_err() != now.get(&path).is_err() && chance() {
                let _gone_before = mixed.remove_all(&path).is_ok();
            }
            continue;
        };
        if before.meta.kind != after.meta.kind || before.meta.kind == Kind::Directory {
            continue;
        }
        let Ok(number) = mixed.ino(&path) else { continue };
        let Some(inode) = mixed.inodes.get_mut(&number) else { continue };
        inode.meta = if chance() { before.meta } else { after.meta.clone() };
        inode.data = if chance() { before.data } else { after.data };
        let len = usize::try_from(after.meta.size).unwrap_or(0).max(inode.data.len());
        inode.data.resize(len, 0);
    }
    mixed
}
