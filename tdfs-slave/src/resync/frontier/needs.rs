//! What has to be asked about the nodes, in which order, and how far the listings are.
//!
//! Part of `frontier`. Pure.

use super::{Fill, Frontier, Listed, Mark, Need, Node, NodeId};
use tdfs_wire::Name;

impl Frontier {
    /// Sets what has to be asked; whatever was asked before is not waited for any more.
    pub fn set_need(&mut self, id: NodeId, need: Option<Need>) {
        let Some(node) = self.get_mut(id) else { return };
        let (before, asked) = (std::mem::replace(&mut node.need, need), node.asked.take());
        if need != Some(Need::Listing) {
            node.listed = None;
        }
        let queue = need.is_some() && !node.queued;
        node.queued |= queue;
        if let Some(asked) = asked {
            self.asked.remove(&asked);
        }
        if queue {
            self.queue.push(id);
        }
        let count = |need: Option<Need>| match need {
            Some(Need::Object(fill)) => (1, fill.bytes_left),
            Some(_) => (1, 0),
            None => (0, 0),
        };
        let ((was, was_bytes), (is, is_bytes)) = (count(before), count(need));
        self.needs = self.needs + is - was;
        self.bytes_left = self.bytes_left.saturating_add(is_bytes).saturating_sub(was_bytes);
    }

    /// The object is compared wholly: what it is, meta and content. What is already under way goes on.
    pub fn need_object(&mut self, id: NodeId) {
        let fill = Fill { offset: 0, again: false, lost_at: self.groups.lost(), bytes_left: 0 };
        match self.need(id) {
            Some(Need::Object(fill)) => self.compare_again(id, fill),
            Some(Need::Listing) if self.mark(id) != Mark::Checked && self.listed(id).is_none() => {}
            Some(Need::Listing | Need::Meta) | None if id == self.root => {
                self.strip(id);
                self.set_need(id, Some(Need::Listing));
            }
            Some(Need::Listing | Need::Meta) | None => {
                self.strip(id);
                self.set_need(id, Some(Need::Object(fill)));
            }
        }
    }

    /// The names in a checked directory are compared once more.
    pub fn need_names(&mut self, id: NodeId) {
        if matches!(self.need(id), None | Some(Need::Meta)) {
            self.set_need(id, Some(Need::Listing));
        } else if let Some(listed) = self.get_mut(id).and_then(|node| node.listed.as_mut()) {
            listed.again = true;
        }
    }

    /// The name up to which those in the directory were compared by a listing that goes on.
    pub fn listed(&self, id: NodeId) -> Option<&Name> {
        self.get(id)?.listed.as_ref().map(|listed| &listed.up_to)
    }

    /// The names up to `up_to` are as on the master; those behind it are asked for next.
    pub fn list_on(&mut self, id: NodeId, up_to: &Name) {
        if let Some(node) = self.get_mut(id) {
            let again = node.listed.as_ref().is_some_and(|listed| listed.again);
            node.listed = Some(Listed { up_to: up_to.clone(), again });
        }
        self.requeue(id);
    }

    /// All names are as on the master; they are compared once more where that was found to be due meanwhile.
    pub fn end_listing(&mut self, id: NodeId) {
        let again = self.get(id).and_then(|node| node.listed.as_ref()).is_some_and(|listed| listed.again);
        self.set_need(id, None);
        self.set_mark(id, Mark::Checked);
        if again {
            self.need_names(id);
        }
    }

    /// The own meta of a checked directory is compared once more.
    pub fn need_meta(&mut self, id: NodeId) {
        if self.need(id).is_none() {
            self.set_need(id, Some(Need::Meta));
        }
    }

    /// Something that could not be followed happened to the content of an object while it is compared.
    pub fn compare_again(&mut self, id: NodeId, fill: Fill) {
        let again = self.get(id).is_some_and(|node| fill.offset > 0 || node.asked.is_some());
        if let Some(Node { need: Some(Need::Object(fill)), .. }) = self.get_mut(id) {
            fill.again |= again;
        }
    }

    /// The node is asked about before all others. It may stand in the queue twice then: [`Frontier::next`] passes over
    /// what was asked.
    pub fn raise(&mut self, id: NodeId) {
        self.queue.push(id);
    }

    /// The next node to ask about; [`Frontier::ask`] has to follow.
    pub fn next(&mut self) -> Option<NodeId> {
        while let Some(id) = self.queue.pop() {
            let Some(node) = self.get_mut(id) else { continue };
            node.queued = false;
            if node.need.is_some() && node.asked.is_none() {
                return Some(id);
            }
        }
        None
    }

    /// The want `want` was sent for the node.
    pub fn ask(&mut self, id: NodeId, want: u64) {
        let lost = self.groups.lost();
        if let Some(node) = self.get_mut(id) {
            node.asked = Some(want);
            if let Some(Need::Object(fill)) = &mut node.need
                && fill.offset == 0
            {
                // The content was read just now.
                fill.lost_at = lost;
            }
            self.asked.insert(want, id);
        }
    }

    /// How many listings are asked for and not answered.
    pub fn listings_asked(&self) -> usize {
        self.asked.values().filter(|&&id| self.need(id) == Some(Need::Listing)).count()
    }

    /// The node that the want `want` is about, if it is still wanted there.
    pub fn asked_for(&self, want: u64) -> Option<NodeId> {
        self.asked.get(&want).copied()
    }

    /// The want of the node counts as never sent.
    pub fn requeue(&mut self, id: NodeId) {
        self.set_need(id, self.need(id));
    }

    /// All wants count as never sent.
    pub fn requeue_all(&mut self) {
        let asked: Vec<NodeId> = self.asked.values().copied().collect();
        asked.into_iter().for_each(|id| self.requeue(id));
    }

    pub(super) fn requeue_below(&mut self, top: NodeId) {
        let below = |id: &NodeId| {
            std::iter::successors(Some(*id), |id| self.get(*id).and_then(|node| node.parent))
                .any(|id| id == top)
        };
        let asked: Vec<NodeId> = self.asked.values().copied().filter(below).collect();
        asked.into_iter().for_each(|id| self.requeue(id));
    }
}
