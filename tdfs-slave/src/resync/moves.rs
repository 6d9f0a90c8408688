//! How records move the frontier: marks, needs and link groups go where the objects go.
//!
//! Called by `resync` for each op after it was done in the replica, or was found to contradict it. Pure.
//! The marks mirror the master's names, so they follow an op even where the replica could not (an object
//! that is missing in an unchecked part).

use super::Contradiction;
use super::frontier::{Fill, Frontier, Mark, Need, NodeId, Touch};
use super::losses::{Left, Stood};
use tdfs_wire::op::{DataOp, NamespaceOp, Op, RenameMode};
use tdfs_wire::trail::Extent;
use tdfs_wire::{TreePath, op::NewObject};

/// FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE of linux/falloc.h: they move bytes.
const SHIFTING: u32 = 0x08 | 0x20;

impl Frontier {
    /// `path` is compared: at once if the directory that holds it is checked, else when that is.
    pub fn want(&mut self, path: &TreePath) {
        if self.place(path).checked {
            self.doubt(path, false);
        } else {
            self.set_touch(path, Touch::Touched);
        }
    }

    /// Records never came that touched `path`, and nothing else is wrong with it.
    pub fn miss(&mut self, path: &TreePath, extent: Extent) {
        match (self.place(path).checked, extent) {
            (true, Extent::Itself) => {
                let id = self.ensure(path);
                self.need_meta(id);
                self.set_missed(id, true);
            }
            (true, Extent::All) => {
                let id = self.ensure(path);
                self.need_object(id);
                self.set_missed(id, true);
            }
            // Its meta will be compared in any case; but it may go before, and have other names.
            (false, _) => self.touched(path, false),
        }
    }

    /// Moves the marks as `op` moved the objects. `stood`: what it removed in the replica, where that is known.
    pub fn follow(&mut self, op: &Op, stood: Option<Stood>) {
        match op {
            Op::Namespace(op) => self.follow_names(op, stood),
            Op::Data(DataOp::Copy { from, to, .. }) => self.copied(from, to),
            Op::Data(DataOp::Allocate { path, mode, .. }) => self.touched(path, mode & SHIFTING != 0),
            Op::Data(DataOp::Write { path, .. } | DataOp::Truncate { path, .. }) => self.touched(path, false),
            Op::Attr(op) => self.touched(op.path(), false),
            Op::Xattr(op) => self.touched(op.path(), false),
            Op::Check { paths } => paths.iter().for_each(|path| self.want(path)),
        }
    }

    fn follow_names(&mut self, op: &NamespaceOp, stood: Option<Stood>) {
        match op {
            NamespaceOp::Create(new) | NamespaceOp::Mkdir(new) => self.born(new),
            NamespaceOp::Mknod { new, .. } | NamespaceOp::Symlink { new, .. } => self.born(new),
            NamespaceOp::Link { from, to, .. } => self.linked(from, to),
            NamespaceOp::Unlink { path, links, .. } => self.went(path, left(*links, stood)),
            NamespaceOp::Rmdir { path, .. } => self.went(path, None),
            NamespaceOp::Rename { from, to, mode: RenameMode::Exchange, .. } => self.exchanged(from, to),
            NamespaceOp::Rename { from, to, links, .. } => self.renamed(from, to, left(*links, stood)),
        }
    }

    /// Follows an op that the replica contradicted, and wants what it named (rules 5 and 6).
    /// `stood` as for [`Frontier::follow`]: it stands still. `lacks_at` as for [`super::Resync::contradicted`].
    pub fn contradicted(
        &mut self,
        op: &Op,
        stood: Option<Stood>,
        lacks_at: Option<&TreePath>,
    ) -> Contradiction {
        let mut paths: Vec<TreePath> = op.paths().into_iter().cloned().collect();
        paths.retain(|path| self.place(path).checked);
        // With something unfinished among what it names, it had to be expected.
        let is_data = !matches!(op, Op::Namespace(_));
        let in_doubt = |path: &TreePath| self.is_content_in_doubt() || !self.has_all_names(path);
        let expected = paths.len() < op.paths().len()
            || paths.iter().any(|path| self.is_unfinished(path))
            || (is_data && paths.iter().any(in_doubt));
        if let Op::Namespace(NamespaceOp::Rename { from, to, .. }) = op
            && lacks_at.is_none()
            && [from, to].iter().any(|path| self.place(path).node.is_some())
        {
            // The marks move, but what was touched in the replica stays where it is.
            self.groups.lose();
        }
        self.follow(op, stood.filter(|stood| stood.links == 0));
        if paths.is_empty() {
            self.missed(op);
            return Contradiction::Forgiven;
        }
        for path in &paths {
            let place = self.place(path);
            if !place.checked {
                continue;
            }
            match op {
                // What stood at the other name was moved here with its marks.
                _ if lacks_at.is_some_and(|lacks_at| lacks_at != path) => {}
                Op::Namespace(op) if is_gone(op, path) => {
                    // What it was is elsewhere or nowhere; only what stands here has to go.
                    let id = self.ensure(path);
                    self.need_object(id);
                }
                Op::Namespace(_) => self.doubt(path, false),
                _ => self.doubt(path, expected),
            }
            if let Some(parent) = path.parent().map(|parent| self.ensure(&parent)) {
                match (expected, op) {
                    (false, _) => self.need_names(parent),
                    (true, _) if lacks_at.is_some() => self.prune(parent),
                    (true, Op::Namespace(_)) => self.need_meta(parent),
                    (true, _) => self.prune(parent),
                }
            }
        }
        if expected { Contradiction::Forgiven } else { Contradiction::Divergence }
    }

    /// The replica would not have a record on this name. `known`: what it is, is not in question.
    fn doubt(&mut self, path: &TreePath, known: bool) {
        let id = self.ensure(path);
        let was_checked = self.mark(id) == Mark::Checked && !self.is_filling(id);
        if known {
            self.recompare_node(id, Touch::Doubted)
        } else {
            self.need_object(id)
        }
        // Further names of it may have missed what the record says.
        match self.mark(id) {
            Mark::Unchecked(_) if was_checked => self.set_mark(id, Mark::Unchecked(Touch::Doubted)),
            Mark::Unchecked(Touch::No | Touch::Fresh) => self.set_mark(id, Mark::Unchecked(Touch::Touched)),
            _ => {}
        }
    }

    /// A record could not be done on these unchecked names: what stands there is not what it made.
    fn missed(&mut self, op: &Op) {
        let path = match op {
            Op::Namespace(NamespaceOp::Unlink { .. } | NamespaceOp::Rmdir { .. }) | Op::Check { .. } => {
                return;
            }
            op => op.paths().pop(),
        };
        let doubted = |path: &&TreePath| {
            self.place(path).node.is_some_and(|id| self.mark(id) == Mark::Unchecked(Touch::Doubted))
        };
        if let Some(path) = path.filter(|path| !doubted(path)) {
            self.set_touch(path, Touch::Touched);
        }
    }

    fn is_unfinished(&self, path: &TreePath) -> bool {
        let place = self.place(path);
        let own = place.node.and_then(|id| self.need(id));
        // A directory with something unfinished in it may hold other names than on the master.
        let unfinished = |id: NodeId| {
            self.is_filling(id) || !self.children(id).is_empty() || self.is_compared_again_later(id)
        };
        place.relisting || own == Some(Need::Listing) || place.node.is_some_and(unfinished)
    }

    /// True if all names are checked that the object has; where nothing else is known it has one.
    fn has_all_names(&self, path: &TreePath) -> bool {
        let group = self.place(path).node.and_then(|id| self.group(id));
        let group = group.and_then(|group| self.groups.get(group));
        group.is_none_or(|group| group.links <= group.names.len() as u64)
    }

    /// True if a touched name that went may have changed the object.
    pub(super) fn is_compared_again_later(&self, id: NodeId) -> bool {
        self.group(id).is_some_and(|group| self.groups.is_in_doubt(group))
    }

    /// True if the object's content and kind are the master's.
    fn is_sound(&self, path: &TreePath) -> bool {
        let place = self.place(path);
        let doubtful = |id: NodeId| {
            self.mark(id) != Mark::Checked || self.is_filling(id) || self.is_compared_again_later(id)
        };
        place.checked && !place.relisting && !place.node.is_some_and(doubtful)
    }

    fn born(&mut self, new: &NewObject) {
        let place = self.place(&new.path);
        if let Some(id) = place.node {
            self.forget(id);
        }
        if !place.checked {
            self.set_touch(&new.path, Touch::Fresh);
        }
    }

    fn went(&mut self, path: &TreePath, left: Option<Left>) {
        let place = self.place(path);
        match place.node {
            Some(id) => {
                if let Some(group) = self.group(id) {
                    self.groups.count(group, false);
                }
                self.forget_leaving(id, left);
            }
            None if self.overflown() && !place.checked => self.lose_ungrouped(left),
            None => {}
        }
    }

    fn renamed(&mut self, from: &TreePath, to: &TreePath, over: Option<Left>) {
        let place = self.place(from);
        if let Some(id) = place.node {
            self.detach(id);
        }
        self.went(to, over);
        self.arrive(place.node, place.checked && !place.relisting, place.checked, to);
    }

    fn exchanged(&mut self, a: &TreePath, b: &TreePath) {
        let (place_a, place_b) = (self.place(a), self.place(b));
        for id in [place_a.node, place_b.node].into_iter().flatten() {
            self.detach(id);
        }
        self.arrive(place_a.node, place_a.checked && !place_a.relisting, place_a.checked, b);
        self.arrive(place_b.node, place_b.checked && !place_b.relisting, place_b.checked, a);
    }

    /// What had the (detached) node, if any, is at `to` now.
    fn arrive(&mut self, node: Option<NodeId>, sound: bool, was_checked: bool, to: &TreePath) {
        let checked = self.place(to).checked;
        if let Some(id) = node {
            self.attach(id, to);
            if was_checked && !checked {
                self.strip(id);
            }
        }
        if checked && !sound {
            let id = self.ensure(to);
            match self.mark(id) {
                // From an unchecked part: what touched it is kept, nothing else is known of it.
                Mark::Unchecked(_) if !was_checked => self.set_need(id, Some(Need::Object(self.new_fill()))),
                _ => self.need_object(id),
            }
        }
        if let Some(id) = node {
            self.prune(id);
        }
    }

    fn new_fill(&self) -> Fill {
        Fill { offset: 0, again: false, lost_at: self.groups.lost(), bytes_left: 0 }
    }

    fn linked(&mut self, from: &TreePath, to: &TreePath) {
        let (source, sound) = (self.place(from), self.is_sound(from));
        let mut group = source.node.and_then(|id| self.group(id));
        if let Some(group) = group {
            self.groups.count(group, true);
        }
        if let Some(id) = self.place(to).node {
            self.forget(id);
        }
        let checked = self.place(to).checked;
        if source.checked && group.is_none() {
            // Also where the target is not checked: by that name it may miss a record.
            let (id, new) = (self.ensure(from), self.groups.new_linked());
            self.enter_group(id, new, None);
            group = Some(new);
        }
        if checked && let Some(group) = group {
            let id = self.ensure(to);
            self.enter_group(id, group, None);
        }
        match (checked, sound) {
            (true, false) => self.recompare(to),
            (false, false) => self.set_touch(to, Touch::Touched),
            (_, true) => {}
        }
        if !source.checked && source.node.is_some_and(|id| self.mark(id) == Mark::Unchecked(Touch::Fresh)) {
            // Its inode has another name from now on.
            self.set_touch(from, Touch::Touched);
        }
    }

    fn copied(&mut self, from: &TreePath, to: &TreePath) {
        // By a name that is not checked a record may have missed the object.
        let sound = self.is_sound(from) && self.has_all_names(from);
        if from != to && sound {
            self.touched(to, false);
        } else if sound {
            // Within one sound file: nothing can be wrong.
        } else if self.place(to).checked {
            self.recompare(to);
        } else {
            self.touched(to, true);
        }
    }

    /// The content of an object is compared, by hashes; what it is, is known.
    pub fn recompare(&mut self, path: &TreePath) {
        let id = self.ensure(path);
        self.recompare_node(id, Touch::Doubted);
    }

    /// See [`Frontier::recompare`]; `touch` is what is known of what happened to it.
    pub fn recompare_node(&mut self, id: NodeId, touch: Touch) {
        match self.need(id) {
            Some(Need::Object(fill)) => self.compare_again(id, fill),
            Some(Need::Listing) => {}
            Some(Need::Meta) | None => {
                if self.partial_stranger(id) {
                    self.groups.lose_sight();
                }
                self.set_mark(id, Mark::Unchecked(touch));
                self.set_need(id, Some(Need::Object(self.new_fill())));
            }
        }
    }

    /// True for what counts as equal without ever having been compared: it may have names in no group.
    fn partial_stranger(&self, id: NodeId) -> bool {
        self.is_partial() && self.group(id).is_none() && self.mark(id) == Mark::Checked
    }

    /// A record changed the object; `shifting`: in a way that does not depend on the record alone.
    fn touched(&mut self, path: &TreePath, shifting: bool) {
        let place = self.place(path);
        if !place.checked {
            if place.node.is_none_or(|id| self.mark(id) == Mark::Unchecked(Touch::No)) {
                self.set_touch(path, Touch::Touched);
            }
            return;
        }
        if !shifting {
            return;
        }
        let is_stranger = self.is_partial() && place.node.is_none_or(|id| self.group(id).is_none());
        if is_stranger || !self.has_all_names(path) {
            self.groups.shift();
        }
        let Some(id) = place.node else { return };
        let names = self.group(id).map_or(vec![id], |group| self.groups.names(group));
        for name in names {
            if let Some(Need::Object(fill)) = self.need(name) {
                self.compare_again(name, fill);
            }
        }
    }
}

fn left(there: u32, stood: Option<Stood>) -> Option<Left> {
    stood.map(|here| Left { there: there.into(), here })
}

/// True if the master has nothing at `path` after `op`.
fn is_gone(op: &NamespaceOp, path: &TreePath) -> bool {
    match op {
        NamespaceOp::Unlink { .. } | NamespaceOp::Rmdir { .. } => true,
        NamespaceOp::Rename { from, mode, .. } => from == path && *mode != RenameMode::Exchange,
        _ => false,
    }
}
