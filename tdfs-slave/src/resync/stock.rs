//! What a resync needs of a replica: a narrow view, so that the same decisions run over a tree in memory.
//!
//! Implemented by `disk` over `replay::Target`, and by the model of the tests.

use crate::replay::Failure;
use tdfs_wire::object::{Kind, Meta};
use tdfs_wire::{Name, Time, TreePath};

/// How an object of the replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// All but names and content.
    pub meta: Meta,
    /// The replica's inode number.
    pub ino: u64,
    /// How many names it has.
    pub links: u64,
    /// Its ctime.
    pub changed: Time,
}

/// The replica. A call that fails may be made again; no call follows a symlink or leaves the file system;
/// none changes the mtime of the directory it works in.
pub trait Stock {
    /// What changes from now on has this ctime or a later one.
    fn now(&self) -> Time;
    /// The names in a directory, in no order.
    fn names(&mut self, dir: &TreePath) -> Result<Vec<Name>, Failure>;
    /// How the object stands; None where there is none.
    fn look(&mut self, path: &TreePath) -> Result<Option<Standing>, Failure>;
    /// Makes an object closed: a file of 0 bytes 0600, a directory 0700, anything else at once.
    fn create(&mut self, path: &TreePath, kind: &Kind) -> Result<(), Failure>;
    /// Removes a name with all that is below it; nothing there is fine.
    fn remove(&mut self, path: &TreePath) -> Result<(), Failure>;
    /// Gives the object `from`, no directory, the further name `to`, where nothing is.
    fn link(&mut self, from: &TreePath, to: &TreePath) -> Result<(), Failure>;
    /// Gives a name that shares its inode one of its own, with the same content.
    fn split(&mut self, path: &TreePath) -> Result<(), Failure>;
    /// Sets size (of a file), owner, xattrs, mode and, last, mtime; true if anything was not so before.
    fn dress(&mut self, path: &TreePath, meta: &Meta) -> Result<bool, Failure>;
    /// Writes into a regular file.
    fn write(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<(), Failure>;
    /// Makes a range of a regular file a hole; its size stays.
    fn punch(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<(), Failure>;
    /// The hashes of the blocks of a regular file from `offset` on, as a want tells them; none for anything else.
    fn hashes(&mut self, path: &TreePath, offset: u64) -> Result<Vec<[u8; 32]>, Failure>;
    /// True if `here` is what the replica can carry of `there`.
    fn equal(&self, here: &Meta, there: &Meta) -> bool;
    /// True if objects of this kind can be made here, as far as is known.
    fn can_make(&self, kind: &Kind) -> bool;
    /// True if a range of a regular file is all these bytes, and not beyond its end.
    fn holds(&mut self, path: &TreePath, offset: u64, bytes: &[u8]) -> Result<bool, Failure>;
    /// True if a range of a regular file reads as zeros, or is beyond its end.
    fn is_zero(&mut self, path: &TreePath, offset: u64, len: u64) -> Result<bool, Failure>;
    /// True if the name may be removed with all that is below it; false: a human has to allow that first.
    fn may_remove(&mut self, path: &TreePath) -> Result<bool, Failure>;
}
