//! Hard links: which checked names are names of one object of the master.
//!
//! Kept by `frontier`. Pure. A name is in a group while it is checked (or being made so) and its object has,
//! or may have, further names on either side.
//!
//! Splitting is lazy: a checked name may share its inode with names that were not compared yet, because a
//! replica that is equal must not be changed by a check. What could go wrong meanwhile is kept track of: a
//! touched name that goes before it was compared (`lost`) makes the groups that may be of its object be compared
//! by hashes once more. Which these are has to be known closely: under load names go all the time, and where each
//! of them doubted every group a resync would have no end.

use super::frontier::{Frontier, NodeId};
use std::collections::{BTreeSet, HashMap};

/// Most inodes of the replica that are remembered because they lost a touched name.
const SUSPECTS_MAX: usize = 1 << 18;

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
    /// The value of [`Groups::lost`] when something happened to its content that could not be followed.
    doubted_at: u64,
    /// How much of `Groups::lost_of_unknown` is in that already, or did not concern it.
    seen: u64,
    /// `links` was told by an answer about the object itself, after which records count; in a listing it is a hint.
    exact: bool,
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
    /// The value of `lost` when any group may have been concerned.
    lost_of_any: u64,
    /// The value of `lost` when it was an object of the master with a name that is not known to be of a group.
    lost_of_unknown: u64,
    /// The value of `lost` when bytes were moved in an object by a name without all its others.
    shifted: u64,
    /// Inodes of the replica that lost such a name, with the value of `lost` when they did last.
    suspects: HashMap<u64, u64>,
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

    /// Puts a name into a group. `told`: how many names the object has; None: a record linked it, that is counted.
    pub(super) fn enter(&mut self, name: NodeId, id: GroupId, told: Option<u64>) {
        let lost = self.lost;
        self.by_id.entry(id).or_insert_with(|| Group {
            names: BTreeSet::new(),
            links: told.unwrap_or(2),
            local: None,
            compared_at: lost,
            doubted_at: 0,
            seen: self.lost_of_unknown,
            exact: false,
            refreshed: false,
            even: true,
        });
        self.change(id, |group| {
            group.names.insert(name);
            if let Some(links) = told {
                (group.links, group.exact) = (links, false);
            }
        });
    }

    /// The group's count of names is exact from now on.
    pub(super) fn set_exact(&mut self, id: GroupId) {
        self.change(id, |group| group.exact = true);
    }

    /// Changes what is known of a group's names. What concerned it while they were not all known goes on to.
    fn change(&mut self, id: GroupId, change: impl FnOnce(&mut Group)) {
        let Some(group) = self.by_id.get_mut(&id) else { return };
        group.doubted_at = group.doubted_at.max(group.lost_unknown(self.lost_of_unknown));
        group.seen = self.lost_of_unknown;
        change(group);
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
        self.change(id, |group| {
            group.names.remove(&name);
        });
        let Some(group) = self.get(id) else { return false };
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
        self.change(id, |group| {
            group.links = if came { group.links + 1 } else { group.links.saturating_sub(1) };
        });
    }

    /// True if the content of the group's object has to be compared once more.
    pub fn is_in_doubt(&self, id: GroupId) -> bool {
        self.get(id).is_some_and(|group| {
            let unknown = group.lost_unknown(self.lost_of_unknown);
            group.compared_at < group.doubted_at.max(self.lost_of_any).max(unknown)
        })
    }

    /// Something happened to the content of the group's object that could not be followed.
    pub fn doubt(&mut self, id: GroupId) {
        self.lost += 1;
        if let Some(group) = self.by_id.get_mut(&id) {
            group.doubted_at = self.lost;
        }
    }

    /// A touched name went whose object has, on the master, names that are not known.
    pub fn lose_unknown(&mut self) {
        self.lost += 1;
        self.lost_of_unknown = self.lost;
    }

    /// A touched name of an inode of the replica went that has others there.
    pub fn suspect(&mut self, local: u64) {
        if let Some(ino) = self.owner(local) {
            self.doubt(GroupId::Master(ino));
        }
        if self.suspects.len() < SUSPECTS_MAX {
            self.lost += 1;
            self.suspects.insert(local, self.lost);
        } else {
            self.lose();
        }
    }

    /// A record moved bytes in the content of an object that has, or may have, names that are not known to be of it.
    pub(super) fn shift(&mut self) {
        self.lost += 1;
        self.shifted = self.lost;
    }

    /// True if what was read of the inode `local` of the replica when `lost` was `since` may have changed unseen, and
    /// no group of the name that it was read by could tell.
    pub(super) fn is_lost_since(&self, local: u64, since: u64) -> bool {
        since < self.lost_of_any || self.suspects.get(&local).is_some_and(|&lost| since < lost)
    }

    /// True if bytes may have been moved since then in an object with several names.
    pub(super) fn is_shifted_since(&self, since: u64) -> bool {
        since < self.shifted
    }

    /// True if records may have changed the inode `local` of the replica by a name that is gone.
    pub fn is_suspect(&self, local: u64) -> bool {
        self.suspects.contains_key(&local)
    }

    /// True if that may be so of any that changed meanwhile.
    pub fn is_any_suspect(&self) -> bool {
        self.lost_of_any > 0
    }

    /// The value that tells whether a touched name was lost since.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// A touched name went, or was parted from its inode, before it was compared; nothing else is known.
    pub fn lose(&mut self) {
        self.lost += 1;
        self.lost_of_any = self.lost;
    }

    /// The same, of what may have names that are in no group: only comparing the whole tree finds those.
    pub fn lose_sight(&mut self) {
        self.lose();
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

impl Group {
    /// The part of `lost` that may have concerned it since it was looked at last: where not all its names are known.
    fn lost_unknown(&self, lost: u64) -> u64 {
        if self.is_complete() || lost == self.seen { 0 } else { lost }
    }

    /// True if all names are in it that the object has on the master.
    fn is_complete(&self) -> bool {
        self.exact && self.names.len() as u64 >= self.links
    }
}

impl Frontier {
    /// Puts the name into a group; what records linked with it comes along.
    /// `told` as for [`Groups::enter`].
    pub fn enter_group(&mut self, id: NodeId, group: GroupId, told: Option<u64>) {
        let names = match self.group(id) {
            Some(before @ GroupId::Linked(_)) if before != group => self.groups.names(before),
            _ => vec![id],
        };
        // What may have happened to the content by other names is known of the group that is left.
        let before = self.group(id).filter(|before| *before != group);
        let doubted = before.is_some_and(|before| self.groups.is_in_doubt(before));
        for id in names {
            if self.group(id).is_some_and(|before| before != group) {
                self.leave_group(id);
            }
            if let Some(node) = self.get_mut(id) {
                node.group = Some(group);
                self.groups.enter(id, group, told);
            }
        }
        if doubted {
            self.groups.doubt(group);
        }
    }

    /// The other names that records linked with this one, while it is not known of which object they are.
    pub(super) fn linked_with(&self, id: NodeId) -> Vec<NodeId> {
        let Some(group @ GroupId::Linked(_)) = self.group(id) else { return Vec::new() };
        self.groups.names(group).into_iter().filter(|&name| name != id).collect()
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

    /// The same of a name that was the last of its object on both sides.
    pub fn leave_group_alone(&mut self, id: NodeId) {
        if let Some(group) = self.get_mut(id).and_then(|node| node.group.take()) {
            self.groups.leave(id, group);
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
