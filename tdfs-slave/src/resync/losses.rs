//! Names that go before their objects were compared: whose content may be wrong for it, by which other names?
//!
//! Called by `moves` and `resync` where an object is gone. Pure. A record by an unchecked name is done to whatever
//! stands there in the replica, so it can have changed what has other names there, and what has other names on
//! the master can have missed it. While the name stands, its mark says so; when it goes, this decides
//! which groups are compared once more (`groups`), as closely as it can be known: under load names go all the time.
//!
//! An untouched name that is compared later can be wrong unseen only if a touched one that went shared its
//! inode in the replica (`Groups::suspect`): nothing else can have set its mtime.

use super::frontier::{Frontier, Mark, Need, NodeId, Touch};
use tdfs_wire::TreePath;
use tdfs_wire::op::{NamespaceOp, Op, RenameMode};

/// What stood in the replica at a name that an op removes, before it was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stood {
    /// Its inode number.
    pub ino: u64,
    /// How many names it had, that one among them; 0: nothing stood there.
    pub links: u64,
}

/// What is left of an object when one of its names went.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// How many names it has on the master.
    pub there: u64,
    /// What stood at the name in the replica.
    pub here: Stood,
}

/// The name that `op` removes if it is done, unless that is a directory's.
pub fn removed_by(op: &Op) -> Option<&TreePath> {
    match op {
        Op::Namespace(NamespaceOp::Unlink { path, .. }) => Some(path),
        Op::Namespace(NamespaceOp::Rename { to, mode: RenameMode::Replace, .. }) => Some(to),
        _ => None,
    }
}

impl Frontier {
    /// The object is gone, with all that was below it.
    pub fn forget(&mut self, id: NodeId) {
        self.forget_leaving(id, None);
    }

    /// The same; `left`: what the object has besides, where that is known. What has no other name on either side
    /// can go unseen.
    pub(super) fn forget_leaving(&mut self, top: NodeId, left: Option<Left>) {
        if top == self.root() {
            return;
        }
        self.detach(top);
        for id in self.at_or_below(top) {
            let (mark, need) = (self.mark(id), self.need(id));
            let comparing = matches!(need, Some(Need::Object(_) | Need::Meta)) && self.group(id).is_some();
            let touched = matches!(mark, Mark::Unchecked(Touch::Touched | Touch::Doubted))
                || comparing
                || self.overflown()
                || self.is_missed(id)
                || self.is_compared_again_later(id);
            let left = left.filter(|_| id == top);
            match left {
                Some(left) if touched => self.lose_name(id, left),
                None if touched && self.is_partial() => self.groups.lose_sight(),
                None if touched => self.groups.lose(),
                _ => {}
            }
            self.set_need(id, None);
            self.set_mark(id, Mark::Checked);
            self.set_missed(id, false);
            if left.is_some_and(|left| left.is_nothing()) {
                self.leave_group_alone(id);
            } else {
                self.leave_group(id);
            }
            self.release(id);
        }
    }

    /// A name goes whose object was not compared to its end: which others may be concerned?
    fn lose_name(&mut self, id: NodeId, left: Left) {
        let Some(group) = self.group(id) else { return self.lose_ungrouped(Some(left)) };
        let Some(known) = self.groups.get(group) else { return };
        let others = known.names.len() as u64 - 1;
        let even = known.even && known.local == Some(left.here.ino);
        let strangers =
            left.there > others || (left.here.links > 1 && (!even || left.here.links - 1 > others));
        if others > 0 {
            self.groups.doubt(group);
        }
        match (self.is_partial(), strangers) {
            (true, true) => self.groups.lose_sight(),
            (false, true) => self.lose_ungrouped(Some(left)),
            (_, false) => {}
        }
    }

    /// The same of a name that is in no group.
    pub(super) fn lose_ungrouped(&mut self, left: Option<Left>) {
        let Some(left) = left else { return self.groups.lose() };
        if left.is_nothing() {
            return;
        }
        if self.is_partial() {
            // Its other names count as equal.
            return self.groups.lose_sight();
        }
        if left.there > 0 {
            self.groups.lose_unknown();
        }
        if left.here.links > 1 {
            self.groups.suspect(left.here.ino);
        }
    }
}

impl Left {
    /// True if the object has no other name on either side.
    fn is_nothing(&self) -> bool {
        self.there == 0 && self.here.links <= 1
    }
}
