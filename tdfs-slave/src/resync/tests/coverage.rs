//! Which ops met which parts of the tree: checked, unchecked, wanted.

use crate::resync::frontier::{Frontier, Need};
use std::collections::BTreeSet;
use tdfs_wire::TreePath;
use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, Op, RenameMode, XattrOp};

/// How an exchange stands to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Checked,
    Unchecked,
    Wanted,
}

/// What was met.
#[derive(Debug, Default)]
pub struct Coverage(BTreeSet<(&'static str, Part, Part)>);

const ONE_PATH: [&str; 14] = [
    "create", "mkdir", "mknod", "symlink", "unlink", "rmdir", "write", "truncate", "allocate", "shift",
    "mode", "owner", "times", "xattr",
];
const TWO_PATHS: [&str; 5] = ["link", "rename", "rename over", "exchange", "copy"];
const PARTS: [Part; 3] = [Part::Checked, Part::Unchecked, Part::Wanted];

impl Coverage {
    /// An op is about to be replayed.
    pub fn count(&mut self, frontier: &Frontier, op: &Op) {
        let paths = op.paths();
        if let (Some(first), Some(last)) = (paths.first(), paths.last()) {
            self.0.insert((word(op), part(frontier, first), part(frontier, last)));
        }
    }

    pub fn add(&mut self, other: Coverage) {
        self.0.extend(other.0);
    }

    /// What was never met.
    pub fn missing(&self) -> Vec<String> {
        let one = ONE_PATH.iter().flat_map(|op| PARTS.map(|part| (*op, part, part)));
        let pairs = PARTS.iter().flat_map(|from| PARTS.map(|to| (*from, to)));
        let two = pairs.flat_map(|(from, to)| TWO_PATHS.map(|op| (op, from, to)));
        let missing = one.chain(two).filter(|met| !self.0.contains(met));
        missing.map(|(op, from, to)| format!("{op}: {from:?}, {to:?}")).collect()
    }
}

fn part(frontier: &Frontier, path: &TreePath) -> Part {
    let place = frontier.place(path);
    let wanted = |id| frontier.is_filling(id) || frontier.need(id) == Some(Need::Listing);
    if !place.checked {
        Part::Unchecked
    } else if place.relisting || place.node.is_some_and(wanted) {
        Part::Wanted
    } else {
        Part::Checked
    }
}

fn word(op: &Op) -> &'static str {
    match op {
        Op::Namespace(op) => match op {
            NamespaceOp::Create(_) => "create",
            NamespaceOp::Mkdir(_) => "mkdir",
            NamespaceOp::Mknod { .. } => "mknod",
            NamespaceOp::Symlink { .. } => "symlink",
            NamespaceOp::Link { .. } => "link",
            NamespaceOp::Unlink { .. } => "unlink",
            NamespaceOp::Rmdir { .. } => "rmdir",
            NamespaceOp::Rename { mode: RenameMode::Exchange, .. } => "exchange",
            NamespaceOp::Rename { mode: RenameMode::Replace, .. } => "rename over",
            NamespaceOp::Rename { mode: RenameMode::NoReplace, .. } => "rename",
        },
        Op::Data(op) => match op {
            DataOp::Write { .. } => "write",
            DataOp::Truncate { .. } => "truncate",
            DataOp::Allocate { mode, .. } if mode & 0x28 != 0 => "shift",
            DataOp::Allocate { .. } => "allocate",
            DataOp::Copy { .. } => "copy",
        },
        Op::Attr(AttrOp::Mode { .. }) => "mode",
        Op::Attr(AttrOp::Owner { .. }) => "owner",
        Op::Attr(AttrOp::Times { .. }) => "times",
        Op::Xattr(XattrOp::Set { .. } | XattrOp::Remove { .. }) => "xattr",
        Op::Check { .. } => "check",
    }
}
