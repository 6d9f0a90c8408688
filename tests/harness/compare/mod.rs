//! Compares two trees in everything that promise P3 names, and in nothing else. README: "Not carried: atime, ctime, inode
//! numbers, birth times, chattr flags."
//!
//! Left is the source, right the replica. Gives readable differences; both trees must be at rest. Walks by
//! directory fds, so that depth and path length do not matter. Never changes anything, not even atimes.

mod content;
mod links;
mod object;

#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags};

pub use content::data_extents;
use links::LinkGroups;
use object::Object;

/// Differences that are listed before the comparison ends.
pub const DIFFERENCES_MAX: usize = 50;

/// What is compared beyond names, types, content, size, mode, owner and xattrs.
#[derive(Clone, Debug)]
pub struct Compare {
    /// Modification times in ns, of directories and the root too.
    pub mtimes: bool,
    /// The right tree must not hold data where the left one has a hole.
    pub holes: bool,
    /// Names that share an inode on the left do so on the right, and no others.
    pub hard_links: bool,
    /// Owner and group.
    pub owners: bool,
    /// Only these names of xattrs, given by how they begin.
    pub xattrs: &'static [&'static str],
}

impl Default for Compare {
    fn default() -> Self {
        Self { mtimes: true, holes: true, hard_links: true, owners: true, xattrs: object::XATTRS }
    }
}

/// Compares everything of P3.
pub fn compare(left: &Path, right: &Path) -> Result<Vec<String>> {
    Compare::default().run(left, right)
}

/// Fails the test unless `compare` finds nothing.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let differences = compare(left, right).expect("compare the trees");
    assert!(differences.is_empty(), "the trees differ:\n  {}", differences.join("\n  "));
}

impl Compare {
    /// Compares; gives at most `DIFFERENCES_MAX` differences.
    pub fn run(&self, left: &Path, right: &Path) -> Result<Vec<String>> {
        let left = open_directory(CWD, left.as_os_str().as_encoded_bytes()).context("open left tree")?;
        let right = open_directory(CWD, right.as_os_str().as_encoded_bytes()).context("open right tree")?;
        let mut walk = Walk::new(self, &right)?;
        walk.roots(left, right)?;
        while walk.step()? {}
        walk.found.extend(walk.links.differences());
        walk.found.truncate(DIFFERENCES_MAX);
        Ok(walk.found)
    }
}

/// A pair of directories whose common names are being compared.
struct Pair {
    left: OwnedFd,
    right: OwnedFd,
    names: std::vec::IntoIter<Vec<u8>>,
    /// Length of the path up to and with this directory.
    path_len: usize,
}

/// The comparison under way.
struct Walk<'a> {
    wanted: &'a Compare,
    pairs: Vec<Pair>,
    path: Vec<u8>,
    links: LinkGroups,
    found: Vec<String>,
    content: content::Comparer,
}

impl<'a> Walk<'a> {
    fn new(wanted: &'a Compare, right: &OwnedFd) -> Result<Self> {
        Ok(Self {
            wanted,
            pairs: Vec::new(),
            path: Vec::new(),
            links: LinkGroups::default(),
            found: Vec::new(),
            content: content::Comparer::new(right, wanted.holes)?,
        })
    }

    fn roots(&mut self, left: OwnedFd, right: OwnedFd) -> Result<()> {
        let left_root = Object::read_root(left.as_fd(), self.wanted.xattrs).context("read left root")?;
        let right_root = Object::read_root(right.as_fd(), self.wanted.xattrs).context("read right root")?;
        self.attributes(&left_root, &right_root);
        self.enter(left, right)
    }

    /// Compares one more name; false when nothing is left.
    fn step(&mut self) -> Result<bool> {
        if self.found.len() >= DIFFERENCES_MAX {
            return Ok(false);
        }
        let Some(mut pair) = self.pairs.pop() else { return Ok(false) };
        self.path.truncate(pair.path_len);
        if let Some(name) = pair.names.next() {
            self.path.push(b'/');
            self.path.extend_from_slice(&name);
            let below = self.name(&pair, &name).with_context(|| format!("compare {}", self.shown()))?;
            self.pairs.push(pair);
            if let Some((left, right)) = below {
                self.enter(left, right)?;
            }
        }
        Ok(true)
    }

    /// Lists both directories, reports names of one side only, keeps the common ones for later.
    fn enter(&mut self, left: OwnedFd, right: OwnedFd) -> Result<()> {
        let left_names = sorted_names(&left).context("list left directory")?;
        let right_names = sorted_names(&right).context("list right directory")?;
        for name in left_names.iter().filter(|name| right_names.binary_search(name).is_err()) {
            self.missing(name, "right");
        }
        for name in right_names.iter().filter(|name| left_names.binary_search(name).is_err()) {
            self.missing(name, "left");
        }
        let mut names = left_names;
        names.retain(|name| right_names.binary_search(name).is_ok());
        self.pairs.push(Pair { left, right, names: names.into_iter(), path_len: self.path.len() });
        Ok(())
    }

    fn missing(&mut self, name: &[u8], side: &str) {
        if self.found.len() < DIFFERENCES_MAX {
            self.found.push(format!("{}/{}: missing on the {side}", self.shown(), name.escape_ascii()));
        }
    }

    /// Compares what `name` is on both sides; gives the directories when it is one on both.
    fn name(&mut self, pair: &Pair, name: &[u8]) -> Result<Option<(OwnedFd, OwnedFd)>> {
        let left = Object::read(pair.left.as_fd(), name, self.wanted.xattrs).context("read left object")?;
        let right =
            Object::read(pair.right.as_fd(), name, self.wanted.xattrs).context("read right object")?;
        if left.kind() != right.kind() {
            self.differ("type", &format!("{:?}", left.kind()), &format!("{:?}", right.kind()));
            return Ok(None);
        }
        self.attributes(&left, &right);
        match left.kind() {
            FileType::Directory => {
                let left = open_directory(pair.left.as_fd(), name).context("open left directory")?;
                let right = open_directory(pair.right.as_fd(), name).context("open right directory")?;
                return Ok(Some((left, right)));
            }
            FileType::RegularFile if left.stat.st_size == right.stat.st_size => {
                let sides =
                    content::Sides { left: (pair.left.as_fd(), &left), right: (pair.right.as_fd(), &right) };
                for difference in self.content.compare(name, &sides)? {
                    self.found.push(format!("{}: {difference}", self.shown()));
                }
            }
            _ => {}
        }
        if self.wanted.hard_links {
            self.links.note(&self.path, &left.stat, &right.stat);
        }
        Ok(None)
    }

    fn attributes(&mut self, left: &Object, right: &Object) {
        let differences = object::differences(left, right, self.wanted);
        let shown = self.shown();
        self.found.extend(differences.iter().map(|difference| format!("{shown}: {difference}")));
    }

    fn differ(&mut self, what: &str, left: &str, right: &str) {
        self.found.push(format!("{}: {what}: {left} on the left, {right} on the right", self.shown()));
    }

    fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// A path as text; the root is `.`; the middle of a very long one is left out.
fn shown(path: &[u8]) -> String {
    let text = format!(".{}", path.escape_ascii());
    if text.len() <= 300 {
        return text;
    }
    format!("{} ... {} ({} bytes)", &text[..100], &text[text.len() - 150..], path.len())
}

fn open_directory(at: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let quiet = rustix::fs::openat(at, name, flags | OFlags::NOATIME, Mode::empty());
    quiet.or_else(|_| rustix::fs::openat(at, name, flags, Mode::empty()))
}

fn sorted_names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for found in Dir::read_from(directory)? {
        let found = found?;
        let name = found.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}
