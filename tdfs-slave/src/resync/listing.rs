//! Makes a directory of the replica hold exactly the names that a listing, or a part of it, tells, each of the right
//! kind and with the right sharing of inodes.
//!
//! Called by `resync` for each part of a listing. I/O comes first and can be done again after a stall; what it
//! means for the frontier is entered at the end, at once.

use super::Resync;
use super::frontier::{Fill, Mark, Need, NodeId, Touch};
use super::groups::GroupId;
use super::stock::{Standing, Stock};
use crate::replay::Failure;
use std::collections::{HashMap, HashSet};
use tdfs_wire::object::{Child, Kind, Meta};
use tdfs_wire::{Name, TreePath};

/// How a name came to stand as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// It stood so.
    Stands,
    /// It has an inode of its own now, with the content it had.
    Split,
    /// It shares the inode of its group now.
    Linked,
    /// It is new and empty.
    Created,
}

/// What has to be right about a name before its content is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    pub path: &'a TreePath,
    pub kind: &'a Kind,
    /// The master's inode number.
    pub ino: u64,
    pub links: u64,
}

/// What a listed name needs.
enum Decision {
    /// Nothing.
    Equal,
    /// What was needed before.
    Keep,
    /// Its own meta only.
    Meta,
    /// It is a directory that was not compared.
    Dive,
    /// It is compared by its own want; `anew`: from its start.
    Fill { anew: bool, bytes: u64 },
}

/// A part of a listing.
#[derive(Clone, Copy)]
pub(super) struct FoundNames<'a> {
    /// The directory.
    pub meta: &'a Meta,
    pub children: &'a [Child],
    pub last: bool,
}

impl FoundNames<'_> {
    /// The last name that it tells anything of; None: it does of all names that there can be.
    fn up_to(&self) -> Option<&Name> {
        self.children.last().map(|child| &child.name).filter(|_| !self.last)
    }
}

impl Resync {
    /// Makes the directory equal to a part of its listing; after the last one it is checked.
    pub(super) fn make_directory_equal<S: Stock>(
        &mut self,
        stock: &mut S,
        dir: NodeId,
        path: &TreePath,
        found: FoundNames<'_>,
    ) -> Result<(), Failure> {
        let FoundNames { meta, children, .. } = found;
        let relisted = self.frontier.mark(dir) == Mark::Checked;
        self.make_directory(stock, dir, path)?;
        self.remove_extra(stock, dir, path, found)?;
        let before = self.progress.differences;
        let mut decisions = Vec::with_capacity(children.len());
        for child in children {
            match path.join(child.name.as_bytes()) {
                Ok(path) => {
                    decisions
                        .push((child.name.as_bytes(), self.compare(stock, (dir, relisted), &path, child)?));
                }
                Err(why) => tracing::warn!("a name in {path} can't be reached: {why}"),
            }
        }
        self.filling = !self.looks && self.progress.differences > before;
        match found.up_to() {
            Some(up_to) => self.frontier.list_on(dir, up_to),
            None => {
                self.progress.differences += u64::from(stock.dress(path, meta)?);
                self.frontier.end_listing(dir);
                self.progress.objects_done += 1;
            }
        }
        // The last entered is asked first: files before directories, so that little is open at a time.
        let (dirs, others): (Vec<_>, Vec<_>) =
            decisions.into_iter().rev().partition(|(_, decision)| matches!(decision, Decision::Dive));
        for (name, decision) in dirs.into_iter().chain(others) {
            self.enter(dir, name, decision);
        }
        if found.last {
            self.frontier.set_missed(dir, false);
            self.frontier.prune(dir);
        }
        Ok(())
    }

    /// Makes sure that the path is a directory; true if it had to be made.
    pub(super) fn make_directory<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        path: &TreePath,
    ) -> Result<bool, Failure> {
        match stock.look(path)? {
            Some(here) if here.meta.kind == Kind::Directory => return Ok(false),
            Some(here) => {
                self.part(stock, node, path, &here)?;
                self.remove(stock, path)?;
            }
            None => {}
        }
        stock.create(path, &Kind::Directory)?;
        self.progress.differences += 1;
        Ok(true)
    }

    fn remove_extra<S: Stock>(
        &mut self,
        stock: &mut S,
        dir: NodeId,
        path: &TreePath,
        found: FoundNames<'_>,
    ) -> Result<(), Failure> {
        let told: HashSet<&[u8]> = found.children.iter().map(|child| child.name.as_bytes()).collect();
        let (after, up_to) = (self.frontier.listed(dir).cloned(), found.up_to());
        let is_extra = |name: &[u8]| {
            after.as_ref().is_none_or(|after| *name > *after.as_bytes())
                && up_to.is_none_or(|up_to| *name <= *up_to.as_bytes())
                && !told.contains(name)
        };
        for name in stock.names(path)? {
            if is_extra(name.as_bytes())
                && let Ok(extra) = path.join(name.as_bytes())
            {
                if self.frontier.is_missed(dir) {
                    self.part_missed(stock, &extra)?;
                }
                self.remove(stock, &extra)?;
                self.progress.differences += 1;
            }
        }
        for (name, id) in self.frontier.children(dir) {
            if is_extra(&name) {
                self.frontier.forget(id);
            }
        }
        Ok(())
    }

    fn compare<S: Stock>(
        &mut self,
        stock: &mut S,
        (dir, relisted): (NodeId, bool),
        path: &TreePath,
        child: &Child,
    ) -> Result<Decision, Failure> {
        if child.meta.kind == Kind::Directory {
            return self.compare_directory(stock, (dir, relisted), path, child);
        }
        let known = self.frontier.child(dir, child.name.as_bytes());
        if relisted && known.is_none() && self.stands_as_told(stock, path, child)? {
            return Ok(Decision::Equal);
        }
        let node = self.frontier.ensure_child(dir, child.name.as_bytes());
        let identity = Identity { path, kind: &child.meta.kind, ino: child.ino, links: child.links };
        let (made, here) = match self.make_name(stock, node, identity) {
            Err(Failure::NotCarried(_)) => return Ok(Decision::Equal),
            made => made?,
        };
        let touched = !matches!(self.frontier.mark(node), Mark::Checked | Mark::Unchecked(Touch::No));
        let wanted = matches!(self.frontier.need(node), Some(Need::Object(_)));
        let fill = Decision::Fill { anew: made != Made::Stands, bytes: child.meta.size };
        Ok(match made {
            Made::Created | Made::Split => fill,
            _ if touched || wanted || self.is_distrusted(&here) => fill,
            // By another name a later record may have set the mtime of what missed an earlier one.
            _ if self.frontier.is_missed(dir) && (child.links > 1 || here.links > 1) => fill,
            // Another name of it is being compared, and with it the inode.
            Made::Linked if self.frontier.is_filling(node) => Decision::Equal,
            // It differed before: that it looks equal now may be a record's doing.
            _ if self.looks && self.frontier.need(node) == Some(Need::Meta) => Decision::Meta,
            _ if stock.equal(&here.meta, &child.meta) => Decision::Equal,
            // A look need not see the content of what differs in its meta; that was a hint (rule 3).
            Made::Stands if self.looks => Decision::Meta,
            _ => fill,
        })
    }

    fn compare_directory<S: Stock>(
        &mut self,
        stock: &mut S,
        (dir, relisted): (NodeId, bool),
        path: &TreePath,
        child: &Child,
    ) -> Result<Decision, Failure> {
        let node = self.frontier.ensure_child(dir, child.name.as_bytes());
        match self.make_directory(stock, node, path) {
            Err(Failure::NotCarried(_)) => return Ok(Decision::Equal),
            made => {
                if made? || !relisted {
                    return Ok(Decision::Dive);
                }
            }
        }
        if self.frontier.need(node).is_some() {
            return Ok(Decision::Keep);
        }
        let here = stock.look(path)?;
        let equal = here.is_some_and(|here| stock.equal(&here.meta, &child.meta));
        Ok(if equal { Decision::Keep } else { Decision::Meta })
    }

    /// In a directory whose names are compared once more, what looks equal is trusted as before. More names
    /// than on the master are no sign: whoever keeps hard links of a replica elsewhere makes them.
    fn stands_as_told<S: Stock>(
        &self,
        stock: &mut S,
        path: &TreePath,
        child: &Child,
    ) -> Result<bool, Failure> {
        let Some(here) = stock.look(path)? else { return Ok(false) };
        let doubtful = self.is_distrusted(&here) || here.links < child.links;
        Ok(!doubtful
            && self.frontier.groups.get(GroupId::Master(child.ino)).is_none()
            && stock.equal(&here.meta, &child.meta))
    }

    fn is_distrusted(&self, here: &Standing) -> bool {
        // What a name that is gone did to an inode by records shows in no mark of its other names. A name that
        // goes later does not trouble a resync: it compares them once more at its end, which a look does not.
        let may_be_lost = self.frontier.groups.is_any_suspect()
            || self.frontier.groups.is_suspect(here.ino)
            || (self.looks && here.links > 1);
        self.distrust.all
            || (may_be_lost && self.changed_meanwhile(here))
            || self.frontier.overflown()
            || self.distrust.changed_since.is_some_and(|since| here.changed >= since)
    }

    /// True if records may have changed the object since this began.
    pub(super) fn changed_meanwhile(&self, here: &Standing) -> bool {
        self.began.is_some_and(|began| here.changed >= began)
    }

    fn enter(&mut self, dir: NodeId, name: &[u8], decision: Decision) {
        let id = self.frontier.ensure_child(dir, name);
        if self.frontier.is_missed(dir) && matches!(decision, Decision::Dive | Decision::Fill { .. }) {
            self.frontier.set_missed(id, true);
        }
        match decision {
            Decision::Keep => self.frontier.prune(id),
            Decision::Meta => self.frontier.need_meta(id),
            Decision::Equal => {
                self.progress.objects_done += 1;
                self.frontier.finish(id);
            }
            Decision::Dive => {
                self.frontier.strip(id);
                self.frontier.set_need(id, Some(Need::Listing));
            }
            Decision::Fill { anew, bytes } => {
                if self.frontier.mark(id) == Mark::Checked {
                    self.frontier.set_mark(id, Mark::Unchecked(Touch::No));
                }
                let lost_at = self.frontier.groups.lost();
                let begun = matches!(self.frontier.need(id), Some(Need::Object(_)));
                if anew || !begun {
                    let fill = Fill { offset: 0, again: false, lost_at, bytes_left: bytes };
                    self.frontier.set_need(id, Some(Need::Object(fill)));
                }
            }
        }
    }

    /// Makes a name, of no directory, stand for an inode of the right kind that it shares with nothing but
    /// its group, as far as other names were compared (rule 8).
    pub(super) fn make_name<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        wanted: Identity<'_>,
    ) -> Result<(Made, Standing), Failure> {
        let Identity { path, kind, ino, links } = wanted;
        let here = stock.look(path)?;
        let group = self.shared_with(stock, node, &wanted)?;
        let made = match (&here, &group) {
            (Some(here), Some((_, group))) if here.meta.kind == *kind && here.ino == group.ino => {
                Made::Stands
            }
            (Some(here), None)
                if here.meta.kind == *kind && !self.is_wrongly_shared(node, here, (ino, links)) =>
            {
                Made::Stands
            }
            (Some(here), None) if here.meta.kind == *kind => {
                self.part(stock, node, path, here)?;
                stock.split(path)?;
                Made::Split
            }
            (here, group) => {
                if let Some(here) = here {
                    self.part(stock, node, path, here)?;
                    self.remove(stock, path)?;
                }
                match group {
                    Some((name, _)) => stock.link(name, path)?,
                    None => stock.create(path, kind)?,
                }
                if group.is_some() { Made::Linked } else { Made::Created }
            }
        };
        self.progress.differences += u64::from(made != Made::Stands);
        let here = match here {
            Some(here) if made == Made::Stands => here,
            _ => {
                stock.look(path)?.ok_or_else(|| Failure::diverged("find", path, rustix::io::Errno::NOENT))?
            }
        };
        // Once in a group it stays, until hard links are settled: what a name that is gone by now did to the
        // content may not have been compared.
        if links > 1 || here.links > 1 || self.frontier.group(node).is_some() {
            if made != Made::Stands {
                // What records linked with the name still stands for the old inode, and has what they do by it.
                for name in self.frontier.linked_with(node) {
                    self.frontier.recompare_node(name, Touch::Doubted);
                }
            }
            self.frontier.enter_group(node, GroupId::Master(ino), Some(links));
            self.frontier.groups.claim(ino, here.ino);
            if let Some(group) = self.frontier.groups.get_mut(GroupId::Master(ino)) {
                group.even &= here.links == links;
            }
        }
        Ok((made, here))
    }

    /// Another checked name of the same object, with its inode in the replica.
    fn shared_with<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        wanted: &Identity<'_>,
    ) -> Result<Option<(TreePath, Standing)>, Failure> {
        let id = GroupId::Master(wanted.ino);
        let local = self.frontier.groups.get(id).and_then(|group| group.local);
        let mut found = None;
        for name in self.frontier.groups.names(id).into_iter().filter(|&name| name != node) {
            let Some(path) = self.frontier.path(name) else { continue };
            match stock.look(&path)? {
                // Somebody gave it an inode of another object; it is not to be given to more names.
                Some(here) if self.is_owned_by_other(&here, wanted.ino) => {}
                Some(here) if here.meta.kind == *wanted.kind => {
                    let preferred = Some(here.ino) == local;
                    if preferred || found.is_none() {
                        found = Some((path, here));
                    }
                    if preferred {
                        break;
                    }
                }
                // Somebody wrote to the replica, or the number stands for another object by now.
                _ => self.frontier.need_object(name),
            }
        }
        Ok(found)
    }

    fn is_owned_by_other(&self, here: &Standing, ino: u64) -> bool {
        self.frontier.groups.owner(here.ino).is_some_and(|owner| owner != ino)
    }

    fn is_wrongly_shared(&self, node: NodeId, here: &Standing, (ino, links): (u64, u64)) -> bool {
        let owned = self.is_owned_by_other(here, ino);
        // Where not everything is compared, or was before, the other names may be of objects that count as
        // equal and must not be changed with this one.
        let healed =
            self.frontier.is_partial() || self.frontier.mark(node) == Mark::Unchecked(Touch::Doubted);
        here.links > 1 && (owned || (healed && here.links > links))
    }

    /// The name is about to be parted from its inode in the replica: if records touched that by this name,
    /// other names of it may have been changed.
    pub(super) fn part<S: Stock>(
        &mut self,
        stock: &mut S,
        node: NodeId,
        path: &TreePath,
        here: &Standing,
    ) -> Result<(), Failure> {
        match self.frontier.mark(node) {
            // Nothing is parted by a look.
            _ if self.looks => {}
            _ if self.frontier.is_missed(node) => self.part_missed(stock, path)?,
            _ if here.links < 2 => {}
            Mark::Checked => {}
            // Its other names are not compared any more, or never are where they count as equal.
            Mark::Unchecked(_) if self.frontier.is_partial() => {
                self.frontier.groups.lose_sight();
            }
            Mark::Unchecked(_) => self.frontier.groups.lose(),
        }
        Ok(())
    }

    /// What stands at `path` missed records and goes: other names of it may have missed them, too.
    fn part_missed<S: Stock>(&mut self, stock: &mut S, path: &TreePath) -> Result<(), Failure> {
        match self.stands_alone(stock, path)? {
            false if self.frontier.is_partial() => self.frontier.groups.lose_sight(),
            _ => self.frontier.groups.lose(),
        }
        Ok(())
    }

    /// True if nothing at or below `path` has a name elsewhere in the replica.
    pub(super) fn stands_alone<S: Stock>(&self, stock: &mut S, path: &TreePath) -> Result<bool, Failure> {
        let mut names_left: HashMap<u64, u64> = HashMap::new();
        let mut next = vec![path.clone()];
        while let Some(path) = next.pop() {
            match stock.look(&path)? {
                Some(here) if here.meta.kind == Kind::Directory => {
                    let names = stock.names(&path)?;
                    next.extend(names.iter().filter_map(|name| path.join(name.as_bytes()).ok()));
                }
                Some(here) if here.links > 1 => {
                    let left = names_left.entry(here.ino).or_insert(here.links);
                    *left = left.saturating_sub(1);
                }
                _ => {}
            }
        }
        Ok(names_left.values().all(|&left| left == 0))
    }
}
