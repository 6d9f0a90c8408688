//! Ops on names: create, mkdir, mknod, symlink, link, unlink, rmdir, rename.

use crate::{Time, TreePath};
use serde::{Deserialize, Serialize};

/// What all new objects have in common: the outcome on the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewObject {
    /// Its path.
    pub path: TreePath,
    /// Permission bits with setuid, setgid and sticky (07777), after umask, ACL and setgid inheritance.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its own mtime.
    pub mtime: Time,
    /// The mtime that its birth left on its directory.
    pub parent_mtime: Time,
    /// Bytes of its inherited access ACL, first in the record's bulk; 0 for none.
    pub access_acl_bytes: u32,
    /// Bytes of its inherited default ACL, next in the bulk; 0 for none.
    pub default_acl_bytes: u32,
}

/// What kind of node mknod(2) made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, by its number (dev_t as Linux encodes it in 64 bits).
    Char(u64),
    /// A block device, by its number.
    Block(u64),
}

/// Flags of renameat2(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// An existing target is replaced.
    Replace,
    /// There was no target (RENAME_NOREPLACE, or plain where the target did not exist).
    NoReplace,
    /// Both names swap their objects (RENAME_EXCHANGE).
    Exchange,
}

/// A change of names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceOp {
    /// An empty regular file came.
    Create(NewObject),
    /// A directory came.
    Mkdir(NewObject),
    /// A FIFO, socket or device node came.
    Mknod {
        /// The object.
        new: NewObject,
        /// Which kind.
        node: Node,
    },
    /// A symbolic link came.
    Symlink {
        /// The object (its mode says nothing).
        new: NewObject,
        /// What it points to, 1 to 4095 bytes.
        #[serde(with = "crate::bytes")]
        target: Vec<u8>,
    },
    /// A further name for an object that is no directory.
    Link {
        /// A name it had before.
        from: TreePath,
        /// The new name.
        to: TreePath,
        /// mtime left on the directory of `to`.
        parent_mtime: Time,
    },
    /// A name of an object that is no directory went.
    Unlink {
        /// The name.
        path: TreePath,
        /// mtime left on its directory.
        parent_mtime: Time,
        /// Names that the object has left.
        links: u32,
    },
    /// An empty directory went.
    Rmdir {
        /// Its path.
        path: TreePath,
        /// mtime left on the directory that held it.
        parent_mtime: Time,
    },
    /// An object moved, or two swapped.
    Rename {
        /// Old path.
        from: TreePath,
        /// New path.
        to: TreePath,
        /// What happened to an object at `to`.
        mode: RenameMode,
        /// mtime left on the directory of `from`.
        from_parent_mtime: Time,
        /// mtime left on the directory of `to`.
        to_parent_mtime: Time,
        /// Names that an object which was replaced has left; else 0.
        links: u32,
    },
}

impl NamespaceOp {
    /// The paths it names, one or two.
    pub fn paths(&self) -> Vec<&TreePath> {
        match self {
            NamespaceOp::Create(new) | NamespaceOp::Mkdir(new) => vec![&new.path],
            NamespaceOp::Mknod { new, .. } | NamespaceOp::Symlink { new, .. } => vec![&new.path],
            NamespaceOp::Unlink { path, .. } | NamespaceOp::Rmdir { path, .. } => vec![path],
            NamespaceOp::Link { from, to, .. } | NamespaceOp::Rename { from, to, .. } => vec![from, to],
        }
    }
}
