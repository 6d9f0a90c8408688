//! Makes one object equal to an answer about it: kind, content in blocks, meta, mtime last.
//!
//! Called by `resync`. Between two answers about a file records apply to it as it stands, which is why each
//! answer has its place in the stream. Can be done again after a stall.

use super::Resync;
use super::frontier::{Fill, Mark, Need, NodeId, Touch};
use super::groups::GroupId;
use super::listing::{Identity, Made};
use super::stock::{Standing, Stock};
use crate::replay::Failure;
use tdfs_wire::TreePath;
use tdfs_wire::answer::{BLOCK_BYTES, Stretch};
use tdfs_wire::object::{Kind, Meta};

/// The offset of a want that asks for no content, only for the meta: no file reaches it.
pub const BEYOND: u64 = (1 << 62) / BLOCK_BYTES * BLOCK_BYTES;

/// What an answer tells of an object.
#[derive(Clone, Copy)]
pub(super) struct FoundObject<'a> {
    pub meta: &'a Meta,
    pub ino: u64,
    pub links: u64,
    pub stretches: &'a [Stretch],
    pub bulk: &'a [u8],
}

impl Resync {
    /// Makes the object equal, or its next blocks.
    pub(super) fn make_object_equal<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        path: &TreePath,
        found: &FoundObject<'_>,
    ) -> Result<(), Failure> {
        if found.meta.kind == Kind::Directory {
            return self.make_directory_known(stock, node, path, found.meta);
        }
        let (group, before) = (GroupId::Master(found.ino), self.progress.differences);
        let done = self.make_file_equal(stock, node, path, found);
        if self.frontier.is_partial() && self.progress.differences > before {
            let known = self.frontier.groups.get(group).map_or(1, |group| group.names.len() as u64);
            // The answer is done with: what can't be seen now counts as shared.
            let links = stock.look(path).map_or(u64::MAX, |here| here.map_or(0, |here| here.links));
            if links > known {
                // Other names of the inode, which count as equal, were changed with it.
                self.frontier.groups.lose_sight();
            }
        }
        done
    }

    fn make_file_equal<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        path: &TreePath,
        found: &FoundObject<'_>,
    ) -> Result<(), Failure> {
        let identity = Identity { path, kind: &found.meta.kind, ino: found.ino, links: found.links };
        let Some(Need::Object(mut fill)) = self.frontier.need(node) else {
            let same = stock.look(path)?.filter(|here| here.meta.kind == found.meta.kind);
            // In a look its size and mtime stand for its content; but a record since, by whatever name, may have
            // set them (rule 7). Where they differ all the same, the content counts as differing.
            let is_stale = |here: &Standing| {
                let same = (here.meta.size, here.meta.mtime) == (found.meta.size, found.meta.mtime);
                self.looks && self.changed_meanwhile(here) && same
            };
            if same.is_none_or(|here| is_stale(&here)) {
                self.frontier.need_object(node);
                return Ok(());
            }
            let made = self.make_name(stock, node, identity)?;
            self.frontier.groups.set_exact(GroupId::Master(found.ino));
            return match made {
                (Made::Stands, _) => self.finish_object(stock, node, path, found),
                _ => {
                    self.frontier.recompare_node(node, Touch::No);
                    Ok(())
                }
            };
        };
        let group = GroupId::Master(found.ino);
        let is_grouped = self.frontier.group(node) == Some(group);
        let (made, here) = self.make_name(stock, node, identity)?;
        self.frontier.groups.set_exact(group);
        // Since the content was read, names that nobody knew to be of the inode may have changed it and gone; and it
        // may be of a group only now, or of none.
        fill.again |= (!is_grouped && self.frontier.groups.is_lost_since(here.ino, fill.lost_at))
            || (found.links > 1 && self.frontier.groups.is_shifted_since(fill.lost_at));
        let builds_on_content =
            fill.offset > 0 || found.stretches.iter().any(|stretch| matches!(stretch, Stretch::Same(_)));
        if made != Made::Stands && builds_on_content {
            // The answer tells a difference from what does not stand here any more; an inode that was shared
            // may have been changed by its other name since it was hashed.
            self.frontier.set_need(node, Some(Need::Object(Fill { offset: 0, ..fill })));
            return Ok(());
        }
        if found.meta.kind == Kind::File {
            let end = self.fill(stock, path, (fill.offset, here.meta.size), found)?;
            self.progress.bytes_done = self.progress.bytes_done.saturating_add(end - fill.offset);
            if end < found.meta.size && end > fill.offset {
                let fill = Fill { offset: end, bytes_left: found.meta.size - end, ..fill };
                self.frontier.set_need(node, Some(Need::Object(fill)));
                return Ok(());
            }
            if end < found.meta.size {
                tracing::debug!("the answer about {path} says nothing; asked again");
                self.frontier.requeue(node);
                return Ok(());
            }
        }
        if let Some(group) = self.frontier.groups.get_mut(group).filter(|_| !fill.again) {
            group.compared_at = group.compared_at.max(fill.lost_at);
        }
        if fill.again {
            self.progress.differences += u64::from(stock.dress(path, found.meta)?);
            let lost_at = self.frontier.groups.lost();
            let fill = Fill { offset: 0, again: false, lost_at, bytes_left: found.meta.size };
            self.frontier.set_need(node, Some(Need::Object(fill)));
            return Ok(());
        }
        self.finish_object(stock, node, path, found)
    }

    fn finish_object<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        path: &TreePath,
        found: &FoundObject<'_>,
    ) -> Result<(), Failure> {
        self.progress.differences += u64::from(stock.dress(path, found.meta)?);
        self.progress.objects_done += 1;
        self.frontier.finish(node);
        Ok(())
    }

    fn make_directory_known<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        path: &TreePath,
        meta: &Meta,
    ) -> Result<(), Failure> {
        let made = self.make_directory(stock, node, path)?;
        if self.frontier.need(node) == Some(Need::Meta) && !made {
            self.progress.differences += u64::from(stock.dress(path, meta)?);
            self.frontier.finish(node);
            return Ok(());
        }
        // It was a name of something else, in a record that never came.
        self.frontier.leave_group(node);
        if self.frontier.mark(node) == Mark::Checked {
            self.frontier.strip(node);
        } else {
            self.frontier.set_mark(node, Mark::Unchecked(Touch::No));
        }
        self.frontier.set_need(node, Some(Need::Listing));
        Ok(())
    }

    /// Does the stretches; returns where they end.
    fn fill<S: Stock>(
        &mut self,
        stock: &mut S,
        path: &TreePath,
        (offset, size): (u64, u64),
        found: &FoundObject<'_>,
    ) -> Result<u64, Failure> {
        let (mut at, mut bulk) = (offset, found.bulk);
        for stretch in found.stretches {
            // Not further than the file: lengths are the master's word, and must not overflow.
            let len = stretch.len().min(found.meta.size.saturating_sub(at));
            match stretch {
                Stretch::Same(_) => {}
                Stretch::Hole(_) if at >= size => {}
                // A block is freed as a whole only: what is behind the end is cut off with it.
                Stretch::Hole(_) if at + len == found.meta.size => {
                    let end = found.meta.size.checked_next_multiple_of(BLOCK_BYTES);
                    stock.punch(path, at, end.map_or(len, |end| end - at))?;
                }
                Stretch::Hole(_) => stock.punch(path, at, len)?,
                Stretch::Data(told) => {
                    let (bytes, rest) = bulk.split_at((*told as usize).min(bulk.len()));
                    bulk = rest;
                    let bytes = &bytes[..bytes.len().min(usize::try_from(len).unwrap_or(usize::MAX))];
                    stock.write(path, at, bytes)?;
                    self.progress.bytes_received += bytes.len() as u64;
                    self.progress.differences += u64::from(!bytes.is_empty());
                }
            }
            at += len;
        }
        Ok(at)
    }
}
