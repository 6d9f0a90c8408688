//! Trail: what a slave that missed a run of records, or may have lost their effect in a crash, has to compare, under
//! the names at the end of the run.
//!
//! Followed by the master where its log no longer holds what a slave needs (DESIGN section 7, rule 10), and for a
//! replica in doubt (section 8); pure.
//! A trie by components. Where a name came, went or moved, nothing is known of what a slave has there, so the
//! name counts with all that is below it, and what was kept below it before is let go: a rename of a directory
//! costs no more than one of a file. Names that are gone stay in: the slave has them still. Where an object was changed
//! by a name that is gone, and has names left that nobody told, the root is kept: any name may be one of them. Bounded:
//! beyond its limit the directories that hold most are kept instead of what is in them, in the end the root.

use crate::codec::CodecError;
use crate::op::{DataOp, NamespaceOp, RenameMode};
use crate::{Op, TreePath};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most bytes that a trail takes in memory, if nothing else is asked for.
pub const TRAIL_BYTES_MAX: usize = 64 << 20;
/// What a name costs in memory besides its bytes, as an estimate: its node and its place among the children.
const NODE_BYTES: usize = 160;
const ROOT: usize = 0;

/// How much of an object has to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Extent {
    /// Its own meta; all else is as it was.
    Itself,
    /// Everything: what it is at all, its content, what is below it.
    All,
}

/// What the run did to the object that a name stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Deed {
    /// Nothing but moving it.
    #[default]
    None,
    /// Made it: all its names came in the run, and are in.
    Made,
    /// Changed it, or what it did is not known: it may have names that are not in.
    Changed,
}

/// The names that a run of records touched; see the head of this file.
#[derive(Clone, Debug)]
pub struct Trail {
    nodes: Vec<Node>,
    free: Vec<usize>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// None: only names below it are in.
    extent: Option<Extent>,
    deed: Deed,
    /// Empty where `extent` is all.
    children: BTreeMap<Box<[u8]>, usize>,
}

impl Trail {
    /// An empty one that takes about `bytes_max` bytes of memory at most.
    pub fn new(bytes_max: usize) -> Trail {
        Trail { nodes: vec![Node::default()], free: Vec::new(), bytes: 0, bytes_max }
    }

    /// True if nothing was touched.
    pub fn is_empty(&self) -> bool {
        self.nodes[ROOT].extent.is_none() && self.nodes[ROOT].children.is_empty()
    }

    /// About how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what a slave that misses this op has to compare.
    pub fn follow(&mut self, op: &Op) {
        match op {
            Op::Namespace(op) => self.follow_name(op),
            // The source of a copy did not change.
            Op::Data(DataOp::Copy { to, .. }) => self.change(to, Extent::All),
            Op::Data(op) => op.paths().into_iter().for_each(|path| self.change(path, Extent::All)),
            Op::Attr(op) => self.change(op.path(), Extent::Itself),
            Op::Xattr(op) => self.change(op.path(), Extent::Itself),
            Op::Check { paths } => paths.iter().for_each(|path| self.change(path, Extent::All)),
        }
    }

    fn follow_name(&mut self, op: &NamespaceOp) {
        let deeds: Vec<Deed> = op.paths().into_iter().map(|path| self.deed(path)).collect();
        for path in op.paths() {
            match op {
                // It is one object with `to` and says so only if it is asked; and what comes by `to` before that
                // is there can't be seen by its own mtime.
                NamespaceOp::Link { from, .. } if from == path => self.add(from, Extent::All),
                _ => self.add_name(path),
            }
        }
        match op {
            NamespaceOp::Create(new)
            | NamespaceOp::Mkdir(new)
            | NamespaceOp::Mknod { new, .. }
            | NamespaceOp::Symlink { new, .. } => self.set_deed(&new.path, Deed::Made),
            NamespaceOp::Link { to, .. } => self.set_deed(to, deeds[0]),
            NamespaceOp::Unlink { path, links, .. } => self.gone(path, deeds[0], *links),
            NamespaceOp::Rmdir { path, .. } => self.gone(path, deeds[0], 0),
            NamespaceOp::Rename { from, to, mode, links, .. } => {
                let exchange = *mode == RenameMode::Exchange;
                self.set_deed(from, if exchange { deeds[1] } else { Deed::None });
                self.gone(to, deeds[1], if exchange { 0 } else { *links });
                self.set_deed(to, deeds[0]);
            }
        }
    }

    /// Content or attributes of an object changed.
    fn change(&mut self, path: &TreePath, extent: Extent) {
        let deed = if self.deed(path) == Deed::Made { Deed::Made } else { Deed::Changed };
        self.add(path, extent);
        self.set_deed(path, deed);
    }

    /// `path` does not name any more what it did, to which `deed` was done and which has `links` names left.
    fn gone(&mut self, path: &TreePath, deed: Deed, links: u32) {
        if deed == Deed::Changed && links > 0 {
            self.add(&TreePath::root(), Extent::All);
        }
        self.set_deed(path, Deed::None);
    }

    /// What was done to what `path` names.
    fn deed(&self, path: &TreePath) -> Deed {
        let mut at = ROOT;
        for name in path.components() {
            let node = &self.nodes[at];
            match node.children.get(name) {
                Some(&child) => at = child,
                None if node.extent == Some(Extent::All) => return Deed::Changed, // not known any more
                None => return Deed::None,
            }
        }
        self.nodes[at].deed
    }

    /// Notes what was done to what `path` names, where that is kept by its own name.
    fn set_deed(&mut self, path: &TreePath, deed: Deed) {
        let mut names = path.components();
        let at = names.try_fold(ROOT, |at, name| self.nodes[at].children.get(name).copied());
        if let Some(at) = at {
            self.nodes[at].deed = deed;
        }
    }

    /// A name came, went or moved: its directory has another mtime.
    fn add_name(&mut self, path: &TreePath) {
        if let Some(parent) = path.parent() {
            self.add(&parent, Extent::Itself);
        }
        self.add(path, Extent::All);
    }

    /// Adds a path.
    fn add(&mut self, path: &TreePath, extent: Extent) {
        let mut at = ROOT;
        for name in path.components() {
            if self.nodes[at].extent == Some(Extent::All) {
                return;
            }
            at = match self.nodes[at].children.get(name) {
                Some(&child) => child,
                None => self.add_child(at, name),
            };
        }
        if self.nodes[at].extent < Some(extent) {
            self.nodes[at].extent = Some(extent);
        }
        if extent == Extent::All {
            self.release_below(at);
        }
        if self.bytes > self.bytes_max {
            self.widen();
        }
    }

    fn add_child(&mut self, dir: usize, name: &[u8]) -> usize {
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        });
        self.nodes[dir].children.insert(name.into(), child);
        self.bytes += NODE_BYTES + name.len();
        child
    }

    fn release_below(&mut self, top: usize) {
        let mut tops = vec![top];
        while let Some(at) = tops.pop() {
            for (name, child) in std::mem::take(&mut self.nodes[at].children) {
                self.bytes -= NODE_BYTES + name.len();
                tops.push(child);
            }
            if at != top {
                self.nodes[at] = Node::default();
                self.free.push(at);
            }
        }
    }

    /// Keeps directories instead of what is in them, those that hold most first, until a quarter is free.
    fn widen(&mut self) {
        let enough = self.bytes_max / 4 * 3;
        while self.bytes > enough {
            let mut lowest = self.lowest_directories();
            lowest.sort_unstable_by(|a, b| b.cmp(a));
            if lowest.is_empty() {
                return;
            }
            for (_, dir) in lowest {
                if self.bytes <= enough {
                    return;
                }
                self.nodes[dir].extent = Some(Extent::All);
                self.release_below(dir);
            }
        }
    }

    /// The nodes that have children, but no grandchildren, with the bytes that these take.
    fn lowest_directories(&self) -> Vec<(usize, usize)> {
        let (mut found, mut next) = (Vec::new(), vec![ROOT]);
        while let Some(at) = next.pop() {
            let children = &self.nodes[at].children;
            let is_leaf = |child: &usize| self.nodes[*child].children.is_empty();
            if !children.is_empty() && children.values().all(is_leaf) {
                found.push((children.keys().map(|name| NODE_BYTES + name.len()).sum(), at));
            }
            next.extend(children.values().copied());
        }
        found
    }

    /// What has to be compared, in the order of a walk; nothing below a path that counts with all below it.
    pub fn paths(&self) -> Vec<(TreePath, Extent)> {
        let mut found = Vec::new();
        let mut next = vec![(TreePath::root(), ROOT)];
        while let Some((path, at)) = next.pop() {
            let Node { extent, children, .. } = &self.nodes[at];
            for (name, &child) in children.iter().rev() {
                match path.join(name) {
                    Ok(path) => next.push((path, child)),
                    Err(why) => unreachable!("a path that was added is a path: {why}"),
                }
            }
            if let Some(extent) = extent {
                found.push((path, *extent));
            }
        }
        found
    }

    /// All of it as bytes, to be kept: of each path how many bytes it begins with of the one before it
    /// (u16), its extent (u8), the length of the rest (u16) and the rest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (mut bytes, mut before) = (Vec::new(), TreePath::root());
        for (path, extent) in self.paths() {
            let pairs = path.as_bytes().iter().zip(before.as_bytes());
            let shared = pairs.take_while(|(a, b)| a == b).count();
            let rest = &path.as_bytes()[shared..];
            bytes.extend_from_slice(&length(shared));
            bytes.push(u8::from(extent == Extent::All));
            bytes.extend_from_slice(&length(rest.len()));
            bytes.extend_from_slice(rest);
            before = path;
        }
        bytes
    }

    /// Reads what [`Trail::to_bytes`] made.
    ///
    /// # Errors
    /// When the bytes are none of a trail.
    pub fn from_bytes(mut bytes: &[u8], bytes_max: usize) -> Result<Trail, CodecError> {
        let (mut trail, mut before) = (Trail::new(bytes_max), TreePath::root());
        while !bytes.is_empty() {
            let (path, extent, left) = parse(bytes, &before)?;
            trail.change(&path, extent); // what was done there is not kept
            (before, bytes) = (path, left);
        }
        Ok(trail)
    }
}

fn length(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("a path is at most 16 KiB long").to_le_bytes()
}

/// Reads one path and its extent; returns what is left.
fn parse<'a>(bytes: &'a [u8], before: &TreePath) -> Result<(TreePath, Extent, &'a [u8]), CodecError> {
    let invalid = |why: String| CodecError::Invalid { what: "trail", why };
    let (&[s0, s1, extent, l0, l1], rest) =
        bytes.split_first_chunk::<5>().ok_or_else(|| invalid("it ends within a length".into()))?;
    let (shared, len) =
        (usize::from(u16::from_le_bytes([s0, s1])), usize::from(u16::from_le_bytes([l0, l1])));
    let extent = match extent {
        0 => Extent::Itself,
        1 => Extent::All,
        other => return Err(invalid(format!("{other} is no extent"))),
    };
    let begin = before.as_bytes().get(..shared).ok_or_else(|| invalid("it refers beyond a path".into()))?;
    let (end, left) = rest.split_at_checked(len).ok_or_else(|| invalid("it ends within a path".into()))?;
    let path = TreePath::new([begin, end].concat()).map_err(|why| invalid(why.to_string()))?;
    Ok((path, extent, left))
}

#[cfg(test)]
mod tests;
