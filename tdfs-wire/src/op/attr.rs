//! Ops on attributes: mode, owner, times.

use crate::{Time, TreePath};
use serde::{Deserialize, Serialize};

/// A change of attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttrOp {
    /// The permission bits are these now.
    Mode {
        /// The object.
        path: TreePath,
        /// 07777 bits.
        mode: u32,
    },
    /// Owner and group are these now. chown(2) may have cleared setuid and setgid: `mode` tells.
    Owner {
        /// The object.
        path: TreePath,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// 07777 bits afterwards.
        mode: u32,
    },
    /// The mtime is this now.
    Times {
        /// The object.
        path: TreePath,
        /// Its mtime.
        mtime: Time,
    },
}

impl AttrOp {
    /// The object it changes.
    pub fn path(&self) -> &TreePath {
        match self {
            AttrOp::Mode { path, .. } | AttrOp::Owner { path, .. } | AttrOp::Times { path, .. } => path,
        }
    }
}
