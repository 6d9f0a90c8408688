//! The frontier of a resync: what of the tree was compared already, and what is still needed.
//!
//! A trie by path components that holds only what is unfinished: a name that is absent below a checked
//! directory is checked with all that is below it, and a name that is absent below an unchecked one is
//! unchecked and untouched. A large directory is checked name by name, in the order of their bytes: below a listing that
//! goes on, `listed` says how far. Used by `resync`, followed through records by `moves`. Pure.
//!
//! Invariants: only a node without unchecked ancestors has a need or was asked for; the root always stands.

mod needs;

use super::groups::{GroupId, Groups};
use std::collections::BTreeMap;
use tdfs_wire::{Name, TreePath};

/// Most touched names that are remembered; beyond that every file counts as touched.
pub const TOUCHED_MAX: usize = 1 << 18;

/// Most nodes that records and lost paths may make, which need no such object to be there; with more the whole tree is
/// compared, and they are let go.
pub const STRAYS_MAX: usize = 1 << 19;

/// A node of the trie; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    slot: u32,
    turn: u32,
}

/// What records did to an unchecked object since the check began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Nothing that is known.
    No,
    /// A record made it, so it shares its inode with nothing.
    Fresh,
    /// It was changed: its mtime says nothing about its content (DESIGN section 7, rule 7).
    Touched,
    /// It was checked already, and then something happened to it that could not be followed.
    Doubted,
}

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is as on the master; of a directory: its names and its own meta are.
    Checked,
    /// It may be anything; of a directory: all below it, too.
    Unchecked(Touch),
}

/// Where the comparison of an object's content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The content below this is as on the master.
    pub offset: u64,
    /// Something that could not be followed happened to it: compare once more from the start.
    pub again: bool,
    /// [`Groups::lost`] when it began.
    pub lost_at: u64,
    /// How many bytes are left as far as is known.
    pub bytes_left: u64,
}

/// What has to be asked about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Its own meta only; it is checked in all else.
    Meta,
    /// The names in it. With [`Mark::Checked`] only the names: what is checked below it stays so.
    Listing,
    /// What it is at all, with its meta and content.
    Object(Fill),
}

/// How far the listing of a directory is.
#[derive(Clone, Debug)]
struct Listed {
    /// The names up to this one, in the order of bytes, are as on the master.
    up_to: Name,
    /// Something happened to them that could not be followed: they are compared once more when the rest is.
    again: bool,
}

/// A path as the trie sees it.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// True if all directories above it are checked: records must apply there.
    pub checked: bool,
    /// True if the names of the directory that holds it are about to be listed again.
    pub relisting: bool,
    /// Its node.
    pub node: Option<NodeId>,
}

/// One object that is not finished.
#[derive(Debug)]
pub struct Node {
    parent: Option<NodeId>,
    name: Box<[u8]>,
    children: BTreeMap<Box<[u8]>, NodeId>,
    /// What is known of it.
    pub mark: Mark,
    /// What has to be asked.
    need: Option<Need>,
    /// Of a directory that is being listed: how far.
    listed: Option<Listed>,
    /// The id of the want that was sent.
    asked: Option<u64>,
    /// The group of names that it is in.
    pub(super) group: Option<GroupId>,
    queued: bool,
    /// Records by this name never came, and it was not compared since.
    missed: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Frontier {
    slots: Vec<(u32, Option<Node>)>,
    free: Vec<u32>,
    root: NodeId,
    queue: Vec<NodeId>,
    asked: BTreeMap<u64, NodeId>,
    needs: u64,
    bytes_left: u64,
    touched: usize,
    /// How many nodes are marked so.
    missed: usize,
    overflown: bool,
    /// How many nodes were made for what no listing has told.
    strays: usize,
    /// True while objects count as equal that were never compared: an object may have names among them.
    partial: bool,
    /// The known hard links.
    pub groups: Groups,
}

impl Frontier {
    /// With nothing checked, or everything.
    pub fn new(checked: bool) -> Frontier {
        let root = NodeId { slot: 0, turn: 0 };
        let mark = if checked { Mark::Checked } else { Mark::Unchecked(Touch::No) };
        let mut frontier = Frontier {
            slots: vec![(0, Some(Node::new(None, Box::default(), mark)))],
            free: Vec::new(),
            root,
            queue: Vec::new(),
            asked: BTreeMap::new(),
            needs: 0,
            bytes_left: 0,
            touched: 0,
            missed: 0,
            overflown: false,
            strays: 0,
            partial: checked,
            groups: Groups::default(),
        };
        if !checked {
            frontier.set_need(root, Some(Need::Listing));
        }
        frontier
    }

    /// True while objects count as equal that were never compared.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// All that is checked now counts as equal, or nothing does.
    pub fn set_partial(&mut self, partial: bool) {
        self.partial = partial;
    }

    /// The node of the root.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The node, unless it is gone.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        let (turn, node) = self.slots.get(id.slot as usize)?;
        if *turn == id.turn { node.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        let (turn, node) = self.slots.get_mut(id.slot as usize)?;
        if *turn == id.turn { node.as_mut() } else { None }
    }

    /// What has to be asked about the node.
    pub fn need(&self, id: NodeId) -> Option<Need> {
        self.get(id).and_then(|node| node.need)
    }

    /// What is known of the node.
    pub fn mark(&self, id: NodeId) -> Mark {
        self.get(id).map_or(Mark::Checked, |node| node.mark)
    }

    /// The group that the node is in.
    pub fn group(&self, id: NodeId) -> Option<GroupId> {
        self.get(id).and_then(|node| node.group)
    }

    /// The node of `name` in the directory `dir`.
    pub fn child(&self, dir: NodeId, name: &[u8]) -> Option<NodeId> {
        self.get(dir)?.children.get(name).copied()
    }

    /// All nodes right below `dir`, with their names.
    pub fn children(&self, dir: NodeId) -> Vec<(Box<[u8]>, NodeId)> {
        let Some(node) = self.get(dir) else { return Vec::new() };
        node.children.iter().map(|(name, id)| (name.clone(), *id)).collect()
    }

    /// How many objects are needed, and how many bytes of them as far as is known.
    pub fn open(&self) -> (u64, u64) {
        (self.needs, self.bytes_left)
    }

    /// True if too many names were touched to be remembered.
    pub fn overflown(&self) -> bool {
        self.overflown
    }

    /// The path of a node; None if it is longer than a path can be.
    pub fn path(&self, id: NodeId) -> Option<TreePath> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = self.get(id)?;
        while let Some(parent) = at.parent {
            names.push(&at.name);
            at = self.get(parent)?;
        }
        names.reverse();
        TreePath::new(names.join(&b'/')).ok()
    }

    /// How `path` stands.
    pub fn place(&self, path: &TreePath) -> Place {
        let mut place = Place { checked: true, relisting: false, node: Some(self.root) };
        for name in path.components() {
            let Some(node) = place.node.and_then(|id| self.get(id)) else {
                return Place { relisting: false, node: None, ..place };
            };
            place.checked &= node.is_checked_for(name);
            place.relisting = node.is_to_list(name);
            place.node = node.children.get(name).copied();
        }
        place
    }

    /// The node of `path`, made with those above it where they are missing.
    pub fn ensure(&mut self, path: &TreePath) -> NodeId {
        path.components().fold(self.root, |dir, name| self.ensure_child(dir, name))
    }

    /// The node of `name` in `dir`, made where it is missing.
    pub fn ensure_child(&mut self, dir: NodeId, name: &[u8]) -> NodeId {
        if let Some(id) = self.child(dir, name) {
            return id;
        }
        let checked = self.get(dir).is_none_or(|dir| dir.is_checked_for(name));
        let mark = if checked { Mark::Checked } else { Mark::Unchecked(Touch::No) };
        let node = Node::new(Some(dir), name.into(), mark);
        let id = match self.free.pop() {
            Some(slot) => NodeId { slot, turn: self.slots[slot as usize].0 },
            None => {
                self.slots.push((0, None));
                let slot = u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 nodes");
                NodeId { slot, turn: 0 }
            }
        };
        self.slots[id.slot as usize].1 = Some(node);
        if let Some(dir) = self.get_mut(dir) {
            dir.children.insert(name.into(), id);
        }
        id
    }

    /// Nothing has to be asked any more: the object is as on the master.
    pub fn finish(&mut self, id: NodeId) {
        self.set_need(id, None);
        self.set_mark(id, Mark::Checked);
        self.set_missed(id, false);
        self.prune(id);
    }

    /// Records by this name never came, or it was compared since.
    pub fn set_missed(&mut self, id: NodeId, missed: bool) {
        let Some(node) = self.get_mut(id) else { return };
        let before = std::mem::replace(&mut node.missed, missed);
        self.missed = self.missed + usize::from(missed) - usize::from(before);
    }

    /// True if the content of any object, by whatever name, may not be what records expect.
    pub fn is_content_in_doubt(&self) -> bool {
        self.missed > 0 || self.groups.is_unseen()
    }

    /// What the node, and what is below it, missed was done to no other name.
    pub fn forgive_missed(&mut self, top: NodeId) {
        for id in self.at_or_below(top) {
            self.set_missed(id, false);
        }
        self.groups.lose();
    }

    /// See [`Frontier::set_missed`].
    pub fn is_missed(&self, id: NodeId) -> bool {
        self.get(id).is_some_and(|node| node.missed)
    }

    /// Sets what is known of the node.
    pub fn set_mark(&mut self, id: NodeId, mark: Mark) {
        let touches = |mark: Mark| usize::from(!matches!(mark, Mark::Checked | Mark::Unchecked(Touch::No)));
        let Some(node) = self.get_mut(id) else { return };
        let before = std::mem::replace(&mut node.mark, mark);
        self.touched = self.touched + touches(mark) - touches(before);
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Notes nodes that were made since there were `before` of them; when they are too many, nothing is known any
    /// more, of no object: all are compared by hashes. True if so.
    pub fn bound_strays(&mut self, before: usize) -> bool {
        self.strays += self.nodes().saturating_sub(before);
        let full = self.is_full();
        if full {
            let groups = Groups::after(&self.groups);
            *self = Frontier { overflown: true, groups, ..Frontier::new(false) };
        }
        full
    }

    fn is_full(&self) -> bool {
        self.strays >= STRAYS_MAX && self.nodes() >= STRAYS_MAX
    }

    /// A record touched an unchecked object.
    pub fn set_touch(&mut self, path: &TreePath, touch: Touch) {
        if self.touched >= TOUCHED_MAX {
            self.overflown = true;
            return;
        }
        let id = self.ensure(path);
        self.set_mark(id, Mark::Unchecked(touch));
    }

    /// Takes the node out of the trie with all that is below it. [`Frontier::attach`] has to follow.
    pub fn detach(&mut self, id: NodeId) {
        self.requeue_below(id);
        let Some(node) = self.get_mut(id) else { return };
        let (parent, name) = (node.parent.take(), std::mem::take(&mut node.name));
        if let Some(dir) = parent.and_then(|parent| self.get_mut(parent)) {
            dir.children.remove(&name);
        }
        if let Some(parent) = parent {
            self.prune(parent);
        }
    }

    /// Puts a detached node in as `path`, where none is.
    pub fn attach(&mut self, id: NodeId, path: &TreePath) {
        let Some((parent, name)) = path.split() else { return };
        let dir = self.ensure(&parent);
        if let Some(dir) = self.get_mut(dir) {
            dir.children.insert(name.into(), id);
        }
        if let Some(node) = self.get_mut(id) {
            (node.parent, node.name) = (Some(dir), name.into());
        }
    }

    /// Nothing is known any more of the object and of what is below it, but what touched it.
    pub fn strip(&mut self, top: NodeId) {
        let mut below = self.at_or_below(top);
        below.reverse();
        let mut linked = Vec::new();
        for id in below {
            let touch = match (self.mark(id), self.need(id)) {
                (Mark::Unchecked(Touch::Doubted), _) => Touch::Doubted,
                (_, Some(Need::Object(_) | Need::Meta)) => Touch::Touched,
                (Mark::Checked, _) if self.is_compared_again_later(id) => Touch::Touched,
                (Mark::Unchecked(touch), _) => touch,
                (Mark::Checked, _) => Touch::No,
            };
            self.set_need(id, None);
            linked.extend(self.linked_with(id));
            self.leave_group(id);
            self.set_mark(id, Mark::Unchecked(touch));
        }
        // The name may be found to be of another object, and take the inode with it. Nobody would know that a name which
        // stays behind has it, too: which object that is of is not known.
        for id in linked {
            if self.group(id).is_some() {
                self.recompare_node(id, Touch::Doubted);
            }
        }
        for id in self.at_or_below(top).into_iter().rev().filter(|&id| id != top) {
            self.prune(id);
        }
    }

    /// The node and all below it, each after the one above it.
    pub(super) fn at_or_below(&self, top: NodeId) -> Vec<NodeId> {
        let mut found = vec![top];
        let mut next = 0;
        while let Some(&id) = found.get(next) {
            found.extend(self.get(id).into_iter().flat_map(|node| node.children.values().copied()));
            next += 1;
        }
        found
    }

    /// Lets go of the node, and of those above it, that say nothing any more.
    pub fn prune(&mut self, id: NodeId) {
        let mut at = id;
        while let Some(node) = self.get(at) {
            let above = node.parent.and_then(|parent| self.get(parent));
            let Some((parent, above)) = node.parent.zip(above) else { return };
            let is_checked = above.is_checked_for(&node.name);
            let says_nothing = match node.mark {
                Mark::Checked => is_checked,
                Mark::Unchecked(touch) => touch == Touch::No && !is_checked,
            };
            let is_needed = node.missed || node.need.is_some() || node.group.is_some();
            if !says_nothing || is_needed || !node.children.is_empty() {
                return;
            }
            let name = node.name.clone();
            self.release(at);
            if let Some(above) = self.get_mut(parent) {
                above.children.remove(&name);
            }
            at = parent;
        }
    }

    pub(super) fn release(&mut self, id: NodeId) {
        if let Some((turn, node)) = self.slots.get_mut(id.slot as usize) {
            *turn += 1;
            *node = None;
            self.free.push(id.slot);
        }
    }

    /// True if the content of the node's object is being compared, by this or by another name.
    pub fn is_filling(&self, id: NodeId) -> bool {
        let own = |id: NodeId| matches!(self.need(id), Some(Need::Object(_)));
        let group = self.group(id).and_then(|group| self.groups.get(group));
        own(id) || group.is_some_and(|group| group.names.iter().any(|&name| own(name)))
    }
}

impl Node {
    fn new(parent: Option<NodeId>, name: Box<[u8]>, mark: Mark) -> Node {
        let children = BTreeMap::new();
        Node {
            parent,
            name,
            children,
            mark,
            need: None,
            listed: None,
            asked: None,
            group: None,
            queued: false,
            missed: false,
        }
    }

    /// True if a name in this directory is checked that says nothing else itself.
    fn is_checked_for(&self, name: &[u8]) -> bool {
        self.mark == Mark::Checked
            || self.listed.as_ref().is_some_and(|listed| *name <= *listed.up_to.as_bytes())
    }

    /// True if a listing is to come that tells of `name`.
    fn is_to_list(&self, name: &[u8]) -> bool {
        let is_behind = |listed: &Listed| listed.again || *name > *listed.up_to.as_bytes();
        self.need == Some(Need::Listing) && self.listed.as_ref().is_none_or(is_behind)
    }
}
