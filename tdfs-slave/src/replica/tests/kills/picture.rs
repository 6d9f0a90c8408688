//! All that promise P3 names of a tree, to be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use tdfs_host::object;
use tdfs_wire::object::Meta;

/// Of each path: the path that its object was met by first, what it is, its content's CRC and where it has data.
pub(super) type Picture = BTreeMap<PathBuf, (PathBuf, Meta, u32, Vec<u64>)>;

/// What differs, for a human.
pub(super) fn differences(left: &Picture, right: &Picture) -> Vec<String> {
    let all: BTreeSet<&PathBuf> = left.keys().chain(right.keys()).collect();
    let differ = all.into_iter().filter(|path| left.get(*path) != right.get(*path));
    differ.map(|path| format!("{path:?}: {:?}, not {:?}", left.get(path), right.get(path))).collect()
}

/// The tree below `root`, with the root.
pub(super) fn picture(root: &Path) -> Picture {
    let (mut picture, mut first) = (Picture::new(), BTreeMap::new());
    draw(root, Path::new(""), &mut picture, &mut first);
    picture
}

fn draw(root: &Path, below: &Path, picture: &mut Picture, first: &mut BTreeMap<u64, PathBuf>) {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW;
    let fd = rustix::fs::open(root.join(below), flags, rustix::fs::Mode::empty()).unwrap();
    let stat = object::stat(fd.as_fd()).unwrap();
    let meta = object::meta(fd.as_fd(), &stat).unwrap();
    let (content, data) = match object::file_type(&stat) {
        libc::S_IFREG => {
            (crc32c::crc32c(&std::fs::read(root.join(below)).unwrap()), data_in(fd.as_fd(), stat.stx_size))
        }
        _ => Default::default(),
    };
    if object::file_type(&stat) == libc::S_IFDIR {
        let mut names = object::list_names(fd.as_fd()).unwrap();
        names.sort();
        for name in names {
            draw(root, &below.join(String::from_utf8(name).unwrap()), picture, first);
        }
    }
    let group = first.entry(stat.stx_ino).or_insert_with(|| below.into()).clone();
    picture.insert(below.into(), (group, meta, content, data));
}

/// Where data begins and ends.
fn data_in(fd: BorrowedFd<'_>, size: u64) -> Vec<u64> {
    let file = object::reopen(fd, rustix::fs::OFlags::RDONLY).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < size
        && let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at))
    {
        at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data)).unwrap();
        found.extend([data, at]);
    }
    found
}
