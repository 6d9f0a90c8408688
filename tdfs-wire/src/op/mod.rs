//! Op: one change of the tree, as a value. It states the outcome, not the request.
//!
//! Made by the master's `passthrough`, redone by the slave's `replay`; the four families keep their
//! names on the whole way. Ops name objects by path, which is exact at the LSN of their record
//! (Invariant O3). Never touches a file system.

mod attr;
mod data;
mod namespace;
pub(crate) mod sound;
mod xattr;

pub use attr::AttrOp;
pub use data::DataOp;
pub use namespace::{NamespaceOp, NewObject, Node, RenameMode};
pub use sound::{COPY_BYTES_MAX, FILE_BYTES_MAX, SYMLINK_BYTES_MAX};
pub use xattr::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrName, XattrOp, is_carried};

use crate::TreePath;
use serde::{Deserialize, Serialize};

/// One change. Its bulk data (what a write wrote, the value of an xattr) stands beside it in the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// A name came, went or moved.
    Namespace(NamespaceOp),
    /// The content of a file changed.
    Data(DataOp),
    /// Mode, owner or mtime changed.
    Attr(AttrOp),
    /// An extended attribute or ACL changed.
    Xattr(XattrOp),
    /// No change: every slave compares these paths with the master and makes them equal. The master
    /// records it where it can't say by an op what happened (DESIGN section 4).
    Check {
        /// What to compare.
        paths: Vec<TreePath>,
    },
}

impl Op {
    /// The paths it names, at most two (a check: all of its paths).
    pub fn paths(&self) -> Vec<&TreePath> {
        match self {
            Op::Namespace(op) => op.paths(),
            Op::Data(op) => op.paths(),
            Op::Attr(op) => vec![op.path()],
            Op::Xattr(op) => vec![op.path()],
            Op::Check { paths } => paths.iter().collect(),
        }
    }
}
