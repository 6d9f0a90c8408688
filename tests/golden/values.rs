//! Fixed parts of the values: no two fields beside each other look alike, so that a swap shows.

use tdfs_wire::object::{Kind, Meta, Xattr};
use tdfs_wire::op::XattrName;
use tdfs_wire::{Epoch, Id, Lsn, Position, Time, TreePath};

pub fn path(text: &str) -> TreePath {
    TreePath::new(text.as_bytes()).expect("a path")
}

pub fn xattr_name(text: &str) -> XattrName {
    XattrName::new(text.as_bytes()).expect("a carried xattr")
}

/// Before 1970, to show how the sign goes.
pub const MTIME: Time = Time { sec: -2, nsec: 999_999_998 };
pub const PARENT_MTIME: Time = Time { sec: 1_700_000_000, nsec: 123_456_789 };
pub const OTHER_MTIME: Time = Time { sec: 1_800_000_000, nsec: 5 };

pub const LSN: Lsn = Lsn::new(0x0102_0304_0506_0708);
pub const TIME_NS: i64 = 1_700_000_000_123_456_789;

pub fn id(first: u8) -> Id {
    let mut id = Id::default();
    (first..).zip(&mut id.0).for_each(|(number, byte)| *byte = number);
    id
}

pub fn epoch() -> Epoch {
    Epoch { number: 3, id: id(0xa0) }
}

pub fn position() -> Position {
    Position { epoch: Epoch { number: 2, id: id(0xb0) }, lsn: Lsn::new(77) }
}

pub fn meta(kind: Kind) -> Meta {
    let xattrs = vec![
        Xattr { name: xattr_name("system.posix_acl_access"), value: vec![2, 0, 0, 0] },
        Xattr { name: xattr_name("user.empty"), value: vec![] },
    ];
    Meta { kind, mode: 0o2750, uid: 1000, gid: 1001, mtime: MTIME, size: 4097, xattrs }
}

/// Bytes that show themselves (or how they begin) as text.
#[derive(PartialEq, Eq)]
pub struct Bulk(pub Vec<u8>);

impl std::fmt::Debug for Bulk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.get(..64) {
            Some(begin) => write!(f, "{} bytes:\"{}...\"", self.0.len(), begin.escape_ascii()),
            None => write!(f, "{} bytes:\"{}\"", self.0.len(), self.0.escape_ascii()),
        }
    }
}
