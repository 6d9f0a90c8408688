//! What an object of a tree is and how it stands: the facts of promise P3 that two ends compare.
//!
//! Used by answers and by whoever makes two objects equal. Never touches a file system.

use crate::op::sound;
use crate::op::{FILE_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XattrName};
use crate::{Name, Time};
use serde::{Deserialize, Serialize};

/// The type of an object, with what can't change while it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(#[serde(with = "crate::bytes")] Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device, by its number (dev_t as Linux encodes it in 64 bits).
    Char(u64),
    /// A block device, by its number.
    Block(u64),
}

/// User and group that an object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// All of an object but its names and content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// 07777 bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its mtime.
    pub mtime: Time,
    /// Bytes of content; 0 for what is no regular file.
    pub size: u64,
    /// Its carried xattrs and ACLs, sorted by name.
    pub xattrs: Vec<Xattr>,
}

impl Meta {
    /// Whose it is.
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, gid: self.gid }
    }

    /// Says whether an object can be so.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        sound::check_mode(self.mode)?;
        sound::check_owner(self.uid, self.gid)?;
        sound::check(self.size <= FILE_BYTES_MAX, "a file that is too large")?;
        let small = |xattr: &Xattr| xattr.value.len() <= XATTR_VALUE_BYTES_MAX;
        sound::check(self.xattrs.iter().all(small), "an xattr that is too large")?;
        let sorted = self.xattrs.is_sorted_by(|a, b| a.name < b.name);
        sound::check(sorted, "xattrs that are not sorted")?;
        if let Kind::Symlink(target) = &self.kind { sound::check_target(target) } else { Ok(()) }
    }
}

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Xattr {
    /// Its name.
    pub name: XattrName,
    /// Its value, at most 64 KiB.
    #[serde(with = "crate::bytes")]
    pub value: Vec<u8>,
}

/// One name of a listed directory. Name, kind and inode are exact; the meta is a hint: it was read
/// without the child's own lock (DESIGN section 7, rule 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Child {
    /// Its name in the directory.
    pub name: Name,
    /// The master's inode number: equal numbers are names of one object.
    pub ino: u64,
    /// How many names it has in all.
    pub links: u64,
    /// How it stood.
    pub meta: Meta,
}
