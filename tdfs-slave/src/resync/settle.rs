//! The end of a resync: are the hard links as they were told?
//!
//! Called by `resync` when nothing is needed any more. Groups of names that a touched name may have changed
//! unseen are compared by hashes once more. A group whose names can't be all accounted for makes the whole
//! tree be compared: only that finds its other names. A tree whose objects have names outside of it can
//! never be accounted for: what two comparisons in a row find alike is accepted.

use super::Resync;
use super::frontier::{Mark, Need, NodeId, Touch};
use super::groups::GroupId;
use super::stock::Stock;
use crate::replay::Failure;
use std::collections::HashMap;

/// Names known, names told, names in the replica.
type Counts = (u64, u64, u64);
/// The counts that were found not to agree, of the master's inodes.
pub(super) type Accepted = HashMap<u64, Counts>;

impl Resync {
    pub(super) fn settle<S: Stock>(&mut self, stock: &mut S) -> Result<(), Failure> {
        if self.frontier.is_partial() && self.frontier.groups.is_unseen() {
            // All of it is compared in any case: what is in doubt, with that.
            self.widen();
            return Ok(());
        }
        let mut unaccounted = Vec::new();
        for group in self.frontier.groups.ids() {
            unaccounted.extend(self.settle_group(stock, group)?);
        }
        if !self.is_idle() {
            return Ok(());
        }
        unaccounted.retain(|(ino, counts)| self.accepted.get(ino) != Some(counts));
        // What went unseen may have had names that were never compared, or count as compared.
        let unseen = self.frontier.groups.take_unseen();
        // From here on nothing is in doubt but what is wanted later.
        self.frontier.set_partial(false);
        self.frontier.forget_groups();
        self.frontier.set_partial(true);
        if unseen || !unaccounted.is_empty() {
            self.accepted.extend(unaccounted);
            self.widen();
        }
        Ok(())
    }

    /// Looks at one group; returns the counts where they don't agree.
    fn settle_group<S: Stock>(
        &mut self,
        stock: &mut S,
        id: GroupId,
    ) -> Result<Option<(u64, Counts)>, Failure> {
        let Some(group) = self.frontier.groups.get(id) else { return Ok(None) };
        let (known, links) = (group.names.len() as u64, group.links);
        let Some(&name) = group.names.first() else { return Ok(None) };
        let (lost_since, refreshed) = (self.frontier.groups.is_in_doubt(id), group.refreshed);
        let was_uneven = self.frontier.is_partial() && !group.even;
        let here = match self.frontier.path(name) {
            Some(path) => stock.look(&path)?,
            None => return Ok(None),
        };
        let Some(here) = here else {
            self.frontier.need_object(name);
            return Ok(None);
        };
        if lost_since {
            self.frontier.recompare_node(name, Touch::No);
            return Ok(None);
        }
        if !self.share_one_inode(stock, id, here.ino)? {
            return Ok(None);
        }
        if was_uneven {
            self.frontier.groups.set_unseen();
            return Ok(None);
        }
        let GroupId::Master(ino) = id else { return Ok(None) };
        if here.links == links || (!self.frontier.is_partial() && known == links) {
            return Ok(None);
        }
        if !refreshed {
            self.refresh(id, name);
            return Ok(None);
        }
        Ok(Some((ino, (known, links, here.links))))
    }

    /// True if all names of a group stand for one inode in the replica: its own, or (where that is not known)
    /// `first`. The others are compared, which gives them that one.
    fn share_one_inode<S: Stock>(&mut self, stock: &mut S, id: GroupId, first: u64) -> Result<bool, Failure> {
        let ino = self.frontier.groups.get(id).and_then(|group| group.local).unwrap_or(first);
        let mut shared = true;
        for name in self.frontier.groups.names(id) {
            let Some(path) = self.frontier.path(name) else { continue };
            if stock.look(&path)?.is_none_or(|here| here.ino != ino) {
                self.frontier.recompare_node(name, Touch::No);
                shared = false;
            }
        }
        Ok(shared)
    }

    fn refresh(&mut self, id: GroupId, name: NodeId) {
        if let Some(group) = self.frontier.groups.get_mut(id) {
            group.refreshed = true;
        }
        self.frontier.need_meta(name);
    }

    /// Begins the whole tree, whatever the scope was. Replay has set mtimes since this resync began, so what
    /// changed since is compared by hashes (rule 7).
    pub(super) fn widen(&mut self) {
        self.distrust.changed_since = match (self.distrust.changed_since, self.began) {
            (Some(since), Some(began)) => Some(since.min(began)),
            (since, began) => since.or(began),
        };
        let root = self.frontier.root();
        self.frontier.set_partial(false);
        self.frontier.strip(root);
        self.frontier.groups.take_unseen();
        self.frontier.set_mark(root, Mark::Unchecked(Touch::No));
        self.frontier.set_need(root, Some(Need::Listing));
        self.progress.widened += 1;
    }
}
