//! A replica that is only looked at: what a resync would change is noted instead.
//!
//! Put around the real stock by `resync` for a check and for verify. Where an object is not as it should be,
//! it says NotCarried, and the exchange goes on without that object.

use super::stock::{Standing, Stock};
use crate::replay::{Failure, Trouble};
use rustix::io::Errno;
use tdfs_wire::message::Difference;
use tdfs_wire::object::{Kind, Meta};
use tdfs_wire::{Name, Time, TreePath};

/// What was found to differ, one line an object unless records come between.
#[derive(Debug, Default)]
pub struct Noted {
    /// Found and not taken yet, in the order of finding.
    pub found: Vec<(TreePath, Difference)>,
    /// The object that was noted last: one line an object is enough.
    last: Option<TreePath>,
}

impl Noted {
    /// A record came: what stands at a path may be another object now.
    pub fn names_changed(&mut self) {
        self.last = None;
    }

    fn note(&mut self, path: &TreePath, what: Difference) {
        if self.last.as_ref() == Some(path) {
            return;
        }
        self.last = Some(path.clone());
        self.found.push((path.clone(), what));
    }

    /// What was removed is about to be made again, as something else.
    fn note_made(&mut self, path: &TreePath, instead: Difference) {
        match self.found.last_mut() {
            Some((last, what)) if last == path && *what == Difference::Extra => *what = instead,
            _ => self.note(path, Difference::Missing),
        }
    }
}

/// The replica, and what was found of it.
pub(super) struct Watch<'a, S> {
    pub stock: &'a mut S,
    pub noted: &'a mut Noted,
    /// The content of the object is not compared: its size and mtime stand for it.
    pub quick: bool,
}

impl<S: Stock> Stock for Watch<'_, S> {
    fn now(&self) -> Time {
        self.stock.now()
    }

    fn names(&mut self, dir: &TreePath) -> Result<Vec<Name>, Failure> {
        self.stock.names(dir)
    }

    fn look(&mut self, path: &TreePath) -> Result<Option<Standing>, Failure> {
        self.stock.look(path)
    }

    fn create(&mut self, path: &TreePath, kind: &Kind) -> Result<(), Failure> {
        if self.stock.can_make(kind) {
            self.noted.note_made(path, Difference::Kind);
        }
        Err(left_as_it_is(path))
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), Failure> {
        if self.stock.look(path)?.is_some() {
            self.noted.note(path, Difference::Extra);
        }
        Ok(())
    }

    fn link(&mut self, _: &TreePath, to: &TreePath) -> Result<(), Failure> {
        self.noted.note_made(to, Difference::Links);
        Err(left_as_it_is(to))
    }

    fn split(&mut self, path: &TreePath) -> Result<(), Failure> {
        self.noted.note(path, Difference::Links);
        Err(left_as_it_is(path))
    }

    fn dress(&mut self, path: &TreePath, meta: &Meta) -> Result<bool, Failure> {
        let Some(here) = self.stock.look(path)? else {
            self.noted.note(path, Difference::Missing);
            return Ok(false);
        };
        let other_content = here.meta.size != meta.size || (self.quick && here.meta.mtime != meta.mtime);
        if here.meta.kind == Kind::File && other_content {
            // Of a file that is too long, too: what is beyond the end would be content once the file grows.
            self.noted.note(path, Difference::Content);
        } else if !self.stock.equal(&here.meta, meta) {
            self.noted.note(path, Difference::Attributes);
        }
        Ok(false)
    }

    fn write(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<(), Failure> {
        if !self.stock.holds(path, offset, bytes)? {
            self.noted.note(path, Difference::Content);
        }
        Ok(())
    }

    fn punch(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<(), Failure> {
        if !self.stock.is_zero(path, offset, len)? {
            self.noted.note(path, Difference::Content);
        }
        Ok(())
    }

    fn hashes(&mut self, path: &TreePath, offset: u64) -> Result<Vec<[u8; 32]>, Failure> {
        self.stock.hashes(path, offset)
    }

    fn equal(&self, here: &Meta, there: &Meta) -> bool {
        self.stock.equal(here, there)
    }

    fn can_make(&self, kind: &Kind) -> bool {
        self.stock.can_make(kind)
    }

    fn holds(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<bool, Failure> {
        self.stock.holds(path, offset, bytes)
    }

    fn is_zero(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<bool, Failure> {
        self.stock.is_zero(path, offset, len)
    }

    fn may_remove(&mut self, _: &TreePath) -> Result<bool, Failure> {
        Ok(true)
    }
}

fn left_as_it_is(path: &TreePath) -> Failure {
    Failure::NotCarried(Trouble { doing: "look at", path: path.clone(), errno: Errno::NOENT })
}
