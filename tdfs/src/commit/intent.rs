//! Intent: what a change is about to do, noted in a slot before it is done.
//!
//! Made by `passthrough`, kept by `slots`, read at the next start by `passthrough/unfinished`. Says which objects to
//! look at afterwards, not what they will be: that is read from the tree. Touches nothing itself.

use serde::{Deserialize, Serialize};
use tdfs_wire::op::{AttrOp, NamespaceOp, XattrName};
use tdfs_wire::{Op, TreePath};

/// Inode numbers are those before the change, paths as its record will have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// Nothing that a replica has: no slot is needed.
    Nothing,
    /// An object is to be made where the kernel knows that there is none, for this owner.
    Make {
        /// Its path.
        path: TreePath,
        /// Who asked.
        uid: u32,
        /// Who asked.
        gid: u32,
    },
    /// An object is to get one more name.
    Link {
        /// A name that it has, if one is known.
        from: Option<TreePath>,
        /// The new one.
        to: TreePath,
        /// The object.
        ino: u64,
    },
    /// A name of an object is to go.
    Remove {
        /// The name.
        path: TreePath,
        /// The object.
        ino: u64,
        /// It is a directory.
        directory: bool,
        /// Names that it has left then.
        links: u32,
    },
    /// An object is to move, or two to swap.
    Rename {
        /// Old path.
        from: TreePath,
        /// New path.
        to: TreePath,
        /// What moves.
        source: u64,
        /// What lies at the new path.
        target: Option<u64>,
        /// They swap.
        exchange: bool,
        /// Names that a replaced object has left then.
        links: u32,
    },
    /// Bytes of a file are to be written or copied.
    Content {
        /// The file.
        path: TreePath,
        /// The file.
        ino: u64,
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
    },
    /// The size of a file is to be set.
    Truncate {
        /// The file.
        path: TreePath,
        /// The file.
        ino: u64,
    },
    /// fallocate(2) of a file.
    Allocate {
        /// The file.
        path: TreePath,
        /// The file.
        ino: u64,
        /// FALLOC_FL_* bits.
        mode: u32,
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
        /// Size of the file before, in bytes.
        size: u64,
    },
    /// An attribute is to be set.
    Attr {
        /// The object.
        path: TreePath,
        /// The object.
        ino: u64,
        /// Which.
        what: Attribute,
    },
    /// An xattr or ACL is to be set or removed.
    Xattr {
        /// The object.
        path: TreePath,
        /// The object.
        ino: u64,
        /// Which.
        name: XattrName,
    },
    /// An object of which no name is known is to be changed.
    Lost {
        /// The object.
        ino: u64,
    },
}

/// An attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attribute {
    /// The permission bits.
    Mode,
    /// Owner and group.
    Owner,
    /// The mtime.
    Times,
}

impl Intent {
    /// `of` the path of the object, or [`Intent::Lost`] where none is known.
    pub fn of(path: Option<&TreePath>, ino: u64, of: impl FnOnce(TreePath) -> Intent) -> Intent {
        path.map_or(Intent::Lost { ino }, |path| of(path.clone()))
    }

    /// The paths it names, which are those of its record.
    pub fn paths(&self) -> Vec<&TreePath> {
        match self {
            Intent::Nothing | Intent::Lost { .. } => Vec::new(),
            Intent::Make { path, .. }
            | Intent::Remove { path, .. }
            | Intent::Content { path, .. }
            | Intent::Truncate { path, .. }
            | Intent::Allocate { path, .. }
            | Intent::Attr { path, .. }
            | Intent::Xattr { path, .. } => vec![path],
            Intent::Link { from, to, .. } => from.iter().chain([to]).collect(),
            Intent::Rename { from, to, .. } => vec![from, to],
        }
    }

    /// Upper bound of what paths and names add to the record. What undoes or checks names the parent, too.
    pub fn record_bytes(&self) -> usize {
        let name = if let Intent::Xattr { name, .. } = self { name.as_bytes().len() } else { 0 };
        name + self.paths().iter().map(|path| 2 * path.as_bytes().len()).sum::<usize>()
    }

    /// True if `op`, recorded after the intent was noted, is its outcome. The order locks were held from before
    /// the one until after the other, so an op of that kind on that object can't be another change's.
    ///
    /// Never true of what is recorded by its present values: to record them once more is harmless, and they can
    /// be several records, of which a kill lets only some come.
    pub fn is_answered_by(&self, op: &Op) -> bool {
        match (self, op) {
            (Intent::Content { .. } | Intent::Truncate { .. }, _) => false,
            (Intent::Attr { .. } | Intent::Xattr { .. }, _) => false,
            (_, Op::Check { paths }) => self.paths().last().is_some_and(|path| paths.contains(path)),
            (Intent::Make { path, .. }, Op::Namespace(op)) => made(op) == Some(path),
            // It was made and taken away again.
            (Intent::Make { path, .. }, Op::Attr(AttrOp::Times { path: parent, .. })) => {
                path.parent().as_ref() == Some(parent)
            }
            (Intent::Link { to, .. }, Op::Namespace(NamespaceOp::Link { to: linked, .. })) => linked == to,
            (Intent::Remove { path, .. }, Op::Namespace(op)) => removed(op) == Some(path),
            (
                Intent::Rename { from, to, .. },
                Op::Namespace(NamespaceOp::Rename { from: old, to: new, .. }),
            ) => (old, new) == (from, to),
            (Intent::Allocate { path, .. }, Op::Data(op)) => op.changed() == path,
            _ => false,
        }
    }
}

fn made(op: &NamespaceOp) -> Option<&TreePath> {
    match op {
        NamespaceOp::Create(new) | NamespaceOp::Mkdir(new) => Some(&new.path),
        NamespaceOp::Mknod { new, .. } | NamespaceOp::Symlink { new, .. } => Some(&new.path),
        NamespaceOp::Link { .. }
        | NamespaceOp::Unlink { .. }
        | NamespaceOp::Rmdir { .. }
        | NamespaceOp::Rename { .. } => None,
    }
}

fn removed(op: &NamespaceOp) -> Option<&TreePath> {
    match op {
        NamespaceOp::Unlink { path, .. } | NamespaceOp::Rmdir { path, .. } => Some(path),
        _ => None,
    }
}
