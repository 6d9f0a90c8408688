//! Hard links: which checked names are names of one object of the master.
//!
//! Kept by `frontier`. Pure. A name is in a group while it is checked (or being made so) and its object has,
//! or may have, further names on either side.
//!
//! Splitting is lazy: a checked name may share its inode with names that were not compared yet, because a
//! replica that is equal must not be changed by a check. What could go wrong meanwhile is kept track of: a
//! touched name that goes before it was compared (`lost`) makes every group be compared by hashes once more.

use super::frontier::{Frontier, NodeId};
use std::collections::{BTreeSet, HashMap};

/// What a group is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupId {
    /// The master's inode number.
    Master(u64),
    /// Nothing but the records that linked the names; the master's number was not told yet.
    Linked(u64),
}

/// The known names of one object of the master.
#[derive(Debug)]
pub struct Group {
    /// The known names; never empty.
    pub names: BTreeSet<NodeId>,
    /// How many names it has on the master: exact when told, then carried on as far as records tell.
    pub links: u64,
    /// The inode number in the replica, where known.
    pub local: Option<u64>,
    /// The value of [`Groups::lost`] when the comparison of its content began that was finished last.
    pub compared_at: u64,
    /// True once its count of links was asked for again at the end.
    pub refreshed: bool,
    /// True if it had as many names in the replica as on the master whenever it was looked at: only then can
    /// no name that is not known have missed, or done, what records did by another.
    pub even: bool,
}

/// All groups.
#[derive(Debug, Default)]
pub struct Groups {
    by_id: HashMap<GroupId, Group>,
    /// Inode number in the replica -> the master's.
    owners: HashMap<u64, u64>,
    linked_last: u64,
    /// How often a touched name went before it was compared.
    lost: u64,
    /// True if what went so may have had names that nobody knows to be names of it.
    unseen: bool,
}

impl Groups {
    /// None, but what was lost before is not forgotten.
    pub fn after(before: &Groups) -> Groups {
        Groups { lost: before.lost + 1, ..Groups::default() }
    }

    /// The group.
    pub fn get(&self, id: GroupId) -> Option<&Group> {
        self.by_id.get(&id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.by_id.get_mut(&id)
    }

    /// The names in a group.
    pub fn names(&self, id: GroupId) -> Vec<NodeId> {
        self.get(id).map_or(Vec::new(), |group| group.names.iter().copied().collect())
    }

    /// All of them.
    pub fn ids(&self) -> Vec<GroupId> {
        let mut ids: Vec<GroupId> = self.by_id.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// For names that a record linked.
    pub(super) fn new_linked(&mut self) -> GroupId {
        self.linked_last += 1;
        GroupId::Linked(self.linked_last)
    }

    /// The object of the master that the replica's inode `local` stands for, if that is known.
    pub fn owner(&self, local: u64) -> Option<u64> {
        self.owners.get(&local).copied()
    }

    /// Puts a name into a group.
    pub(super) fn enter(&mut self, name: NodeId, id: GroupId, links: u64) {
        let lost = self.lost;
        let group = self.by_id.entry(id).or_insert_with(|| Group {
            names: BTreeSet::new(),
            links,
            local: None,
            compared_at: lost,
            refreshed: false,
            even: true,
        });
        group.names.insert(name);
        group.links = links;
    }

    /// The inode `local` of the replica stands for the master's `ino` from now on.
    pub fn claim(&mut self, ino: u64, local: u64) {
        let Some(group) = self.by_id.get_mut(&GroupId::Master(ino)) else { return };
        if let Some(old) = group.local.replace(local) {
            self.owners.remove(&old);
        }
        self.owners.insert(local, ino);
    }

    /// Takes a name out of a group; one without names is forgotten. True if it is, and had
    /// not as many names in the replica as on the master.
    pub(super) fn leave(&mut self, name: NodeId, id: GroupId) -> bool {
        let Some(group) = self.by_id.get_mut(&id) else { return false };
        group.names.remove(&name);
        let uneven = group.names.is_empty() && !group.even;
        if group.names.is_empty() {
            if let Some(local) = group.local {
                self.owners.remove(&local);
            }
            self.by_id.remove(&id);
        }
        uneven
    }

    /// Another name came or went by a record.
    pub(super) fn count(&mut self, id: GroupId, came: bool) {
        if let Some(group) = self.by_id.get_mut(&id) {
            group.links = if came { group.links + 1 } else { group.links.saturating_sub(1) };
        }
    }

    /// The value that tells whether a touched name was lost since.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// A touched name went, or was parted from its inode, before it was compared.
    pub fn lose(&mut self) {
        self.lost += 1;
    }

    /// The same, of what may have names that are in no group: only comparing the whole tree finds those.
    pub fn lose_sight(&mut self) {
        self.lost += 1;
        self.unseen = true;
    }

    /// Names that nobody knows are to be looked for.
    pub(super) fn set_unseen(&mut self) {
        self.unseen = true;
    }

    /// True if sight was lost of something since this was asked last.
    pub(super) fn take_unseen(&mut self) -> bool {
        std::mem::take(&mut self.unseen)
    }

    /// True if sight was lost of something.
    pub fn is_unseen(&self) -> bool {
        self.unseen
    }
}

impl Frontier {
    /// Puts the name into a group; what records linked with it comes along.
    pub fn enter_group(&mut self, id: NodeId, group: GroupId, links: u64) {
        let names = match self.group(id) {
            Some(before @ GroupId::Linked(_)) if before != group => self.groups.names(before),
            _ => vec![id],
        };
        for id in names {
            if self.group(id).is_some_and(|before| before != group) {
                self.leave_group(id);
            }
            if let Some(node) = self.get_mut(id) {
                node.group = Some(group);
                self.groups.enter(id, group, links);
            }
        }
    }

    /// Takes the name out of its group.
    pub fn leave_group(&mut self, id: NodeId) {
        if let Some(group) = self.get_mut(id).and_then(|node| node.group.take()) {
            let uneven = self.groups.leave(id, group);
            match (uneven, self.is_partial()) {
                (true, true) => self.groups.lose_sight(),
                // Its other names are in groups, or will be compared.
                (true, false) => self.groups.lose(),
                (false, _) => {}
            }
        }
    }

    /// All groups are forgotten: nothing about hard links is in doubt.
    pub fn forget_groups(&mut self) {
        for group in self.groups.ids() {
            let names = self.groups.names(group);
            for id in names {
                self.leave_group(id);
                self.prune(id);
            }
        }
    }
}
