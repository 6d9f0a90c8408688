//! Ops on the content of regular files: write, truncate, allocate, copy.

use crate::{Time, TreePath};
use serde::{Deserialize, Serialize};

/// A change of content. `mtime` is what it left on the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataOp {
    /// The record's bulk stands at `offset` now.
    Write {
        /// The file.
        path: TreePath,
        /// In bytes.
        offset: u64,
        /// mtime left on the file.
        mtime: Time,
    },
    /// The file has `size` bytes now.
    Truncate {
        /// The file.
        path: TreePath,
        /// In bytes.
        size: u64,
        /// mtime left on the file.
        mtime: Time,
    },
    /// fallocate(2) was done.
    Allocate {
        /// The file.
        path: TreePath,
        /// FALLOC_FL_* bits of linux/falloc.h.
        mode: u32,
        /// In bytes.
        offset: u64,
        /// In bytes.
        len: u64,
        /// Size of the file afterwards.
        size: u64,
        /// mtime left on the file.
        mtime: Time,
    },
    /// A range was copied from a file of the tree (copy_file_range(2)), maybe the same.
    Copy {
        /// Where from.
        from: TreePath,
        /// In bytes.
        from_offset: u64,
        /// Where to.
        to: TreePath,
        /// In bytes.
        to_offset: u64,
        /// How many bytes were copied; at most 64 MiB.
        len: u64,
        /// mtime left on `to`.
        mtime: Time,
    },
}

impl DataOp {
    /// The file whose content it changes.
    pub fn changed(&self) -> &TreePath {
        match self {
            DataOp::Write { path, .. } | DataOp::Truncate { path, .. } | DataOp::Allocate { path, .. } => {
                path
            }
            DataOp::Copy { to, .. } => to,
        }
    }

    /// The paths it names, one or two; the changed file is the last.
    pub fn paths(&self) -> Vec<&TreePath> {
        match self {
            DataOp::Write { path, .. } | DataOp::Truncate { path, .. } | DataOp::Allocate { path, .. } => {
                vec![path]
            }
            DataOp::Copy { from, to, .. } => vec![from, to],
        }
    }
}
