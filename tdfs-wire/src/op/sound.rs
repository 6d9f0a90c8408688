//! What an op of any master satisfies: an op that does not is damaged, or made to do harm.
//!
//! Called where records are read. Paths, names of xattrs and times are checked by their types.

use super::{AttrOp, DataOp, NamespaceOp, NewObject, Op, XATTR_VALUE_BYTES_MAX, XattrOp};
use crate::TreePath;

/// Most bytes that one op copies; a longer copy_file_range(2) returns a short count.
pub const COPY_BYTES_MAX: u64 = 64 << 20;
/// Longest target of a symlink, in bytes (PATH_MAX of linux/limits.h, without its NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// Largest size of a file (loff_t).
pub const FILE_BYTES_MAX: u64 = i64::MAX.cast_unsigned();
/// All bits of a mode that chmod(2) takes.
pub const MODE_BITS: u32 = 0o7777;

type Sound = Result<(), &'static str>;

impl Op {
    /// Says whether a master can have made it, with so many bytes of bulk.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, bulk_len: usize) -> Sound {
        let bulk_fits = match self {
            Op::Namespace(op) => op.acl_bytes() == bulk_len as u64,
            Op::Data(DataOp::Write { .. }) => true,
            Op::Xattr(XattrOp::Set { .. }) => bulk_len <= XATTR_VALUE_BYTES_MAX,
            Op::Data(_) | Op::Attr(_) | Op::Xattr(_) | Op::Check { .. } => bulk_len == 0,
        };
        check(bulk_fits, "bulk that does not belong to its op")?;
        match self {
            Op::Namespace(op) => op.check(),
            Op::Data(op) => op.check(bulk_len as u64),
            Op::Attr(AttrOp::Mode { mode, .. }) => check_mode(*mode),
            Op::Attr(AttrOp::Owner { uid, gid, mode, .. }) => {
                check_mode(*mode)?;
                check_owner(*uid, *gid)
            }
            Op::Xattr(XattrOp::Set { mode, .. } | XattrOp::Remove { mode, .. }) => {
                mode.map_or(Ok(()), check_mode)
            }
            Op::Attr(AttrOp::Times { .. }) | Op::Check { .. } => Ok(()),
        }
    }
}

impl NamespaceOp {
    fn check(&self) -> Sound {
        let is_named = |path: &&TreePath| !path.is_root();
        check(self.paths().iter().all(is_named), "a name for the root")?;
        match self {
            NamespaceOp::Create(new) | NamespaceOp::Mkdir(new) | NamespaceOp::Mknod { new, .. } => {
                new.check()
            }
            NamespaceOp::Symlink { new, target } => {
                new.check()?;
                check_target(target)
            }
            NamespaceOp::Link { .. }
            | NamespaceOp::Unlink { .. }
            | NamespaceOp::Rmdir { .. }
            | NamespaceOp::Rename { .. } => Ok(()),
        }
    }

    fn acl_bytes(&self) -> u64 {
        match self {
            NamespaceOp::Create(new)
            | NamespaceOp::Mkdir(new)
            | NamespaceOp::Mknod { new, .. }
            | NamespaceOp::Symlink { new, .. } => {
                u64::from(new.access_acl_bytes) + u64::from(new.default_acl_bytes)
            }
            NamespaceOp::Link { .. }
            | NamespaceOp::Unlink { .. }
            | NamespaceOp::Rmdir { .. }
            | NamespaceOp::Rename { .. } => 0,
        }
    }
}

impl NewObject {
    fn check(&self) -> Sound {
        check_mode(self.mode)?;
        check_owner(self.uid, self.gid)
    }
}

impl DataOp {
    fn check(&self, bulk_len: u64) -> Sound {
        let is_within = |offset: u64, len: u64| {
            check(offset.checked_add(len).is_some_and(|end| end <= FILE_BYTES_MAX), "a range beyond any file")
        };
        match *self {
            DataOp::Write { offset, .. } => is_within(offset, bulk_len),
            DataOp::Truncate { size, .. } => is_within(size, 0),
            DataOp::Allocate { offset, len, size, .. } => {
                is_within(offset, len)?;
                is_within(size, 0)
            }
            DataOp::Copy { from_offset, to_offset, len, .. } => {
                check(len <= COPY_BYTES_MAX, "a copy of too many bytes")?;
                is_within(from_offset, len)?;
                is_within(to_offset, len)
            }
        }
    }
}

/// Says whether a symlink can have this target.
pub(crate) fn check_target(target: &[u8]) -> Sound {
    let fits = (1..=SYMLINK_BYTES_MAX).contains(&target.len()) && !target.contains(&0);
    check(fits, "a symlink with an impossible target")
}

/// Says whether an object can have this mode.
pub(crate) fn check_mode(mode: u32) -> Sound {
    check(mode & !MODE_BITS == 0, "a mode with other bits than 07777")
}

/// chown(2) takes all ones for "leave it".
pub(crate) fn check_owner(uid: u32, gid: u32) -> Sound {
    check(uid != u32::MAX && gid != u32::MAX, "an owner that is none")
}

pub(crate) fn check(holds: bool, what: &'static str) -> Sound {
    if holds { Ok(()) } else { Err(what) }
}
