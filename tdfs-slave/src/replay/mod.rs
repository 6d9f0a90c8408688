//! Redoes records on the replica: the outcome that the op states, exactly, one record after the other.
//!
//! Called by `replica` for each record, in LSN order. The four families have their files as everywhere.
//! Redo of the one record in doubt after a kill is harmless: a step that finds its work done compares with what
//! was foreseen before it believes it, and the later steps run again. Knows neither positions nor wants.

mod access;
mod attr;
mod data;
pub mod failure;
pub mod holes;
mod lacks;
mod namespace;
pub mod target;
mod widened;
mod xattr;

pub use access::with_access;
pub use attr::{set_mode, set_owner};
pub use failure::{Failure, Step, Trouble, at};
pub use lacks::{Lack, Lacks};
pub use target::Target;
pub use widened::Widened;
pub use xattr::set_xattr;

use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use tdfs_host::object;
use tdfs_wire::object::Owner;
use tdfs_wire::op::NamespaceOp;
use tdfs_wire::record::Owners;
use tdfs_wire::{Op, TreePath};

/// Whether a record may have been done before, wholly or in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// It is new. What [`foresee`] gave.
    First(Foreseen),
    /// It was in hand when the slave was killed. What [`foresee`] gave then.
    Redo(Foreseen),
}

/// What must be known of the replica before a record is begun, so that its redo can tell whether it was done,
/// and does not take for its own what somebody else did: the inode numbers (0: no object) at the path that
/// appears or goes, at both paths of a rename or link; the size in bytes of a file that is shifted. Else zeros.
pub type Foreseen = [u64; 2];

/// What has to be kept, with the LSN, before `op` is begun.
///
/// # Errors
/// A stall, where the replica can't be looked at.
pub fn foresee(target: &mut Target, op: &Op) -> Result<Foreseen, Failure> {
    let look = |target: &mut Target| match op {
        Op::Namespace(NamespaceOp::Rename { from, to, .. } | NamespaceOp::Link { from, to, .. }) => {
            Ok([namespace::inode_at(target, from)?, namespace::inode_at(target, to)?])
        }
        Op::Namespace(op) => op
            .paths()
            .into_iter()
            .next()
            .map_or(Ok([0, 0]), |path| namespace::inode_at(target, path).map(|inode| [inode, 0])),
        Op::Data(op) => data::size_before_shift(target, op).map(|size| [size, 0]),
        Op::Attr(_) | Op::Xattr(_) | Op::Check { .. } => Ok([0, 0]),
    };
    with_access(target, || access::objects_to_open(op), look)
}

/// Inode number and number of names of what stands at `path`; zeros where there is nothing.
///
/// # Errors
/// A stall, where the replica can't be looked at.
pub fn stands_at(target: &mut Target, path: &TreePath) -> Result<(u64, u64), Failure> {
    let way = || vec![parent_of(path)];
    with_access(target, way, |target| namespace::inode_and_links_at(target, path))
}

/// Where the replica lacks, after `op` contradicted it, the one object that `op` could not move; None where all that it
/// names may be wrong. `foreseen`: what [`foresee`] gave before.
///
/// # Errors
/// A stall, where the replica can't be looked at.
pub fn lacks_at(target: &mut Target, op: &Op, foreseen: Foreseen) -> Result<Option<TreePath>, Failure> {
    let Op::Namespace(names) = op else { return Ok(None) };
    with_access(target, || access::objects_to_open(op), |target| namespace::lacks_at(target, names, foreseen))
}

/// Does `op` in the replica. A check has nothing to do here. `owners`: whose the objects have to be.
///
/// # Errors
/// A stall or a divergence. What can't be carried is counted in `lacks` and is no failure.
pub fn apply(
    target: &mut Target,
    lacks: &mut Lacks,
    (op, owners, bulk): (&Op, Owners, &[u8]),
    pass: Pass,
) -> Result<(), Failure> {
    let once = |target: &mut Target| {
        let mut in_hand = InHand { target, lacks, owners, pass };
        match op {
            Op::Namespace(op) => in_hand.namespace(op, bulk),
            Op::Data(op) => in_hand.data(op, bulk),
            Op::Attr(op) => in_hand.attr(op),
            Op::Xattr(op) => in_hand.xattr(op, bulk),
            Op::Check { .. } => Ok(()),
        }
    };
    with_access(target, || access::objects_to_open(op), once)
}

/// One record being done.
struct InHand<'a> {
    target: &'a mut Target,
    lacks: &'a mut Lacks,
    owners: Owners,
    pass: Pass,
}

impl InHand<'_> {
    /// In a redo: true, so that what is found done is looked at before it is called a divergence.
    fn is_redo(&self) -> bool {
        matches!(self.pass, Pass::Redo(_))
    }

    /// Compares whose an object is that the op changes: who may write to a directory of the replica can put
    /// something of another user in its place, which a setuid bit, say, must not reach.
    ///
    /// # Errors
    /// A divergence, where it is somebody else's.
    fn recognise(&self, fd: BorrowedFd<'_>, path: &TreePath) -> Result<(), Failure> {
        self.belongs_to(self.owners.changed, fd, path)
    }

    fn belongs_to(&self, owner: Option<Owner>, fd: BorrowedFd<'_>, path: &TreePath) -> Result<(), Failure> {
        let Some(owner) = owner.filter(|_| !self.lacks.has(Lack::Owner)) else { return Ok(()) };
        let stat = object::stat(fd).map_err(at(Step::Names, "stat", path))?;
        if (stat.stx_uid, stat.stx_gid) == (owner.uid, owner.gid) {
            return Ok(());
        }
        Err(Failure::diverged("find the master's owner on", path, Errno::PERM))
    }

    fn foreseen(&self) -> Foreseen {
        let (Pass::First(foreseen) | Pass::Redo(foreseen)) = self.pass;
        foreseen
    }
}

/// The directory that holds `path`; the root for the root.
fn parent_of(path: &TreePath) -> TreePath {
    path.parent().unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests;
