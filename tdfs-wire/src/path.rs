//! Paths of objects, relative to the root of a tree, as bytes; and names in a directory.
//!
//! A value of these types is always safe to use below a root: whatever came from a peer or a disk has
//! passed [`TreePath::new`] when it was decoded. Never touches a file system.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;

/// Longest path that a record can carry, in bytes; longer ones are refused with ENAMETOOLONG before the change.
pub const PATH_BYTES_MAX: usize = 16 * 1024;
/// Longest name in a directory, in bytes (NAME_MAX of linux/limits.h).
pub const NAME_BYTES_MAX: usize = 255;

/// A path relative to the root of the tree. The root itself is the empty path.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Box<[u8]>);

/// Why bytes are no path of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Over [`PATH_BYTES_MAX`], or a component over [`NAME_BYTES_MAX`].
    #[error("path or name too long")]
    TooLong,
    /// An empty component, `.`, `..`, or a NUL byte.
    #[error("path has an empty, dot or NUL component")]
    BadComponent,
}

/// Says whether `name` can be one component of a path.
pub fn check_name(name: &[u8]) -> Result<(), PathError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|&b| b == 0 || b == b'/') {
        return Err(PathError::BadComponent);
    }
    Ok(())
}

impl TreePath {
    /// The root of the tree.
    pub fn root() -> TreePath {
        TreePath::default()
    }

    /// Checks `bytes` and makes them a path.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<TreePath, PathError> {
        let bytes = bytes.into();
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if !bytes.is_empty() {
            bytes.split(|&b| b == b'/').try_for_each(check_name)?;
        }
        Ok(TreePath(bytes))
    }

    /// The path of `name` inside the directory that this path names.
    pub fn join(&self, name: &[u8]) -> Result<TreePath, PathError> {
        check_name(name)?;
        if self.is_root() {
            return Ok(TreePath(name.into()));
        }
        let len = self.0.len() + 1 + name.len();
        if len > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        Ok(TreePath(bytes.into()))
    }

    /// True for the root of the tree.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The directory that holds it and its name there; None for the root.
    pub fn split(&self) -> Option<(TreePath, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => (TreePath(self.0[..slash].into()), &self.0[slash + 1..]),
            None => (TreePath::root(), &self.0),
        })
    }

    /// The directory that holds it; None for the root.
    pub fn parent(&self) -> Option<TreePath> {
        self.split().map(|(parent, _)| parent)
    }

    /// Its components from the root downwards; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|component| !component.is_empty())
    }

    /// True if it is `ancestor` or lies below it.
    pub fn is_at_or_below(&self, ancestor: &TreePath) -> bool {
        ancestor.is_root()
            || (self.0.starts_with(&ancestor.0)
                && (self.0.len() == ancestor.0.len() || self.0[ancestor.0.len()] == b'/'))
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TreePath, D::Error> {
        TreePath::new(crate::bytes::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A name in one directory: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks `bytes` and makes them a name.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Name, PathError> {
        let bytes = bytes.into();
        check_name(&bytes)?;
        Ok(Name(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::bytes::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        Name::new(crate::bytes::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
