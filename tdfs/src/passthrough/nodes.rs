//! Nodes: what the kernel remembers of the tree, and by which names each object is reached.
//!
//! Owned by `Passthrough`. nodeid = backing inode number, the root is 1. A node is kept while the kernel
//! remembers it or while the name of another node lies in it, so that a path can always be built. Touches
//! no file; holds one fd for each node whose last known name went, so that its number stays its own.

use parking_lot::Mutex;
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tdfs_wire::{PathError, TreePath};

/// nodeid of the root (FUSE_ROOT_ID of linux/fuse.h).
pub const ROOT: u64 = 1;

/// One name of an object: the directory's nodeid and the name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// nodeid of the directory.
    pub parent: u64,
    /// Name in it.
    pub name: Box<[u8]>,
}

/// Where an object is reached.
#[derive(Clone, Debug)]
pub enum Place {
    /// By a name, below the shared tree lock.
    Named(NodeName),
    /// By the path fd that is kept because no name is known.
    Nameless(Arc<OwnedFd>),
    /// It is the root.
    Root,
}

#[derive(Debug)]
struct Node {
    /// References the kernel holds: raised by each answer that names the node, lowered by FORGET.
    lookups: u64,
    /// Names of other nodes that lie in this one.
    children: u32,
    /// Names that are known here, the one to build paths with first. Mostly one.
    names: Vec<NodeName>,
    /// Kept from the moment the last known name went.
    path_fd: Option<Arc<OwnedFd>>,
}

/// The table of nodes.
#[derive(Default)]
pub struct Nodes {
    table: Mutex<HashMap<u64, Node>>,
}

impl Nodes {
    /// The kernel is about to be told of `ino` under this name: one more lookup.
    pub fn remember(&self, ino: u64, parent: u64, name: &[u8]) {
        if ino == ROOT {
            return;
        }
        let mut table = self.table.lock();
        let node = match table.entry(ino) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => {
                slot.insert(Node { lookups: 0, children: 0, names: Vec::with_capacity(1), path_fd: None })
            }
        };
        node.lookups += 1;
        add_name(&mut table, ino, parent, name);
    }

    /// One more lookup of a node that is there; false if it is not.
    pub fn hold(&self, ino: u64) -> bool {
        let mut table = self.table.lock();
        table.get_mut(&ino).map(|node| node.lookups += 1).is_some()
    }

    /// The kernel forgot `count` lookups. Returns true if the node is gone.
    pub fn forget(&self, ino: u64, count: u64) -> bool {
        let mut table = self.table.lock();
        let Some(node) = table.get_mut(&ino) else { return false };
        node.lookups = node.lookups.saturating_sub(count);
        drop_unused(&mut table, ino);
        !table.contains_key(&ino)
    }

    /// An object that may be known here got one more name.
    pub fn add_name(&self, ino: u64, parent: u64, name: &[u8]) {
        let mut table = self.table.lock();
        if table.contains_key(&ino) {
            add_name(&mut table, ino, parent, name);
        }
    }

    /// A name went. `path_fd` is kept if it was the last one known of a node that the kernel remembers.
    pub fn remove_name(&self, ino: u64, parent: u64, name: &[u8], path_fd: Option<OwnedFd>) {
        let mut table = self.table.lock();
        let Some(node) = table.get_mut(&ino) else { return };
        let before = node.names.len();
        node.names.retain(|known| known.parent != parent || *known.name != *name);
        let removed = node.names.len() < before;
        if node.names.is_empty() {
            node.path_fd = node.path_fd.take().or(path_fd.map(Arc::new));
        }
        drop_unused(&mut table, ino);
        if removed {
            release_child(&mut table, parent);
        }
    }

    /// A name moved.
    pub fn rename(&self, ino: u64, from: (u64, &[u8]), to: (u64, &[u8])) {
        self.add_name(ino, to.0, to.1);
        self.remove_name(ino, from.0, from.1, None);
    }

    /// Where the object is reached. ESTALE for what the kernel can't know.
    pub fn place(&self, ino: u64) -> Result<Place> {
        if ino == ROOT {
            return Ok(Place::Root);
        }
        let table = self.table.lock();
        let node = table.get(&ino).ok_or(Errno::STALE)?;
        match (node.names.first(), &node.path_fd) {
            (Some(name), _) => Ok(Place::Named(name.clone())),
            (None, Some(fd)) => Ok(Place::Nameless(fd.clone())),
            (None, None) => Err(Errno::STALE),
        }
    }

    /// How many names of the object are known here.
    pub fn names_known(&self, ino: u64) -> usize {
        self.table.lock().get(&ino).map_or(0, |node| node.names.len())
    }

    /// The path of the object, exact while its order lock and the tree lock are held; None if no name of
    /// it, or of a directory above it, is known.
    ///
    /// # Errors
    /// ENAMETOOLONG when no record can carry the path.
    pub fn path(&self, ino: u64) -> Result<Option<TreePath>> {
        let table = self.table.lock();
        let mut reversed: Vec<&[u8]> = Vec::with_capacity(16);
        let mut bytes = 0;
        let mut at = ino;
        while at != ROOT {
            let Some(name) = table.get(&at).and_then(|node| node.names.first()) else { return Ok(None) };
            bytes += name.name.len() + 1;
            if bytes > tdfs_wire::PATH_BYTES_MAX + 1 {
                return Err(Errno::NAMETOOLONG);
            }
            reversed.push(&name.name);
            at = name.parent;
        }
        reversed.reverse();
        TreePath::new(reversed.join(&b'/')).map(Some).map_err(errno_of_path)
    }

    /// How many nodes there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.table.lock().len()
    }
}

/// The errno for a path that a record can't carry.
pub fn errno_of_path(error: PathError) -> Errno {
    match error {
        PathError::TooLong => Errno::NAMETOOLONG,
        PathError::BadComponent => Errno::INVAL,
    }
}

fn add_name(table: &mut HashMap<u64, Node>, ino: u64, parent: u64, name: &[u8]) {
    let Some(node) = table.get_mut(&ino) else { return };
    if node.names.iter().any(|known| known.parent == parent && *known.name == *name) {
        return;
    }
    node.names.push(NodeName { parent, name: name.into() });
    node.path_fd = None;
    if parent != ROOT {
        // The parent is remembered by the kernel when it names a child, or has other children here.
        table
            .entry(parent)
            .or_insert(Node { lookups: 0, children: 0, names: Vec::new(), path_fd: None })
            .children += 1;
    }
}

fn release_child(table: &mut HashMap<u64, Node>, parent: u64) {
    if let Some(node) = table.get_mut(&parent) {
        node.children = node.children.saturating_sub(1);
        drop_unused(table, parent);
    }
}

/// Drops the node if nothing needs it, and then each directory above that was kept for it alone.
fn drop_unused(table: &mut HashMap<u64, Node>, ino: u64) {
    let mut waiting = vec![ino];
    while let Some(ino) = waiting.pop() {
        if table.get(&ino).is_none_or(|node| node.lookups > 0 || node.children > 0) {
            continue;
        }
        let Some(node) = table.remove(&ino) else { continue };
        for name in node.names {
            if let Some(parent) = table.get_mut(&name.parent) {
                parent.children = parent.children.saturating_sub(1);
                waiting.push(name.parent);
            }
        }
    }
}

#[cfg(test)]
mod tests;
