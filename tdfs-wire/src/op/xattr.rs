//! Ops on extended attributes and POSIX ACLs: set, remove. Also says which of them are carried.

use crate::TreePath;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;

/// Longest name of an xattr in bytes (XATTR_NAME_MAX of linux/limits.h).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Longest value of an xattr in bytes (XATTR_SIZE_MAX of linux/limits.h).
pub const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// Names under which XFS lists the two POSIX ACLs once more (fs/xfs/libxfs/xfs_da_format.h): on any other file system
/// they would be lacking, and to remove one removes the ACL.
const ACLS_OF_XFS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// True for what a replica carries (DESIGN P3): `user.`, `trusted.`, file capabilities, POSIX ACLs.
pub fn is_carried(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name.starts_with(b"trusted.") && !ACLS_OF_XFS.contains(&name)
        || name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

/// The name of an xattr that is carried: a master can't make a slave set any other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Box<[u8]>);

impl XattrName {
    /// None unless `name` is carried, 1 to 255 bytes long and without NUL.
    pub fn new(name: impl Into<Box<[u8]>>) -> Option<XattrName> {
        let name = name.into();
        let fits = name.len() <= XATTR_NAME_BYTES_MAX && !name.contains(&0) && is_carried(&name);
        fits.then_some(XattrName(name))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True for the two POSIX ACLs, whose change can change the mode.
    pub fn is_acl(&self) -> bool {
        self.0.starts_with(b"system.posix_acl_")
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl Serialize for XattrName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for XattrName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<XattrName, D::Error> {
        let bytes = crate::bytes::deserialize(deserializer)?;
        XattrName::new(bytes).ok_or_else(|| D::Error::custom("xattr that is not carried"))
    }
}

/// A change of extended attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrOp {
    /// The xattr has the record's bulk as its value now.
    Set {
        /// The object.
        path: TreePath,
        /// Which xattr.
        name: XattrName,
        /// 07777 bits afterwards, where the name is an ACL (setting one can change them).
        mode: Option<u32>,
    },
    /// The xattr is gone.
    Remove {
        /// The object.
        path: TreePath,
        /// Which xattr.
        name: XattrName,
        /// 07777 bits afterwards, where the name is an ACL.
        mode: Option<u32>,
    },
}

impl XattrOp {
    /// The object it changes.
    pub fn path(&self) -> &TreePath {
        match self {
            XattrOp::Set { path, .. } | XattrOp::Remove { path, .. } => path,
        }
    }
}
