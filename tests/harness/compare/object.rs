//! What is read of one object, and how the attributes of two are compared.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::Compare;

/// The xattrs that P3 names, by how they begin.
pub const XATTRS: &[&str] =
    &["user.", "trusted.", "security.capability", "system.posix_acl_access", "system.posix_acl_default"];
/// The kernel's own limits.
const XATTR_LIST_BYTES_MAX: usize = 65_536;
const XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// One object of a tree, without its content.
pub struct Object {
    /// Its inode.
    pub stat: Stat,
    /// Where a symlink points.
    pub target: Option<Vec<u8>>,
    /// Name and value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Object {
    /// Reads `name` in the directory `at`, never following a symlink.
    pub fn read(at: BorrowedFd<'_>, name: &[u8], wanted: &[&str]) -> Result<Self> {
        let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).context("stat")?;
        let mut path = format!("/proc/self/fd/{}/", at.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        let mut object = Self { stat, target: None, xattrs: read_xattrs(&path, false, wanted)? };
        if object.kind() == FileType::Symlink {
            let target = rustix::fs::readlinkat(at, name, Vec::new()).context("read symlink")?;
            object.target = Some(target.into_bytes());
        }
        Ok(object)
    }

    /// Reads the directory `at` itself.
    pub fn read_root(at: BorrowedFd<'_>, wanted: &[&str]) -> Result<Self> {
        let stat = rustix::fs::fstat(at).context("stat")?;
        let path = format!("/proc/self/fd/{}", at.as_raw_fd());
        Ok(Self { stat, target: None, xattrs: read_xattrs(path.as_bytes(), true, wanted)? })
    }

    /// Its type.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    fn mtime(&self) -> String {
        format!("{}.{:09}", self.stat.st_mtime, self.stat.st_mtime_nsec)
    }
}

fn read_xattrs(path: &[u8], follow: bool, wanted: &[&str]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = [0_u8; 1024];
    let listed = match list_xattrs(path, follow, &mut list) {
        Ok(len) => list[..len].to_vec(),
        Err(Errno::RANGE) => {
            let mut list = vec![0; XATTR_LIST_BYTES_MAX];
            let len = list_xattrs(path, follow, &mut list).context("list xattrs")?;
            list.truncate(len);
            list
        }
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).context("list xattrs"),
    };
    let mut xattrs = BTreeMap::new();
    let names = listed.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    // XFS lists ACLs once more by its own names for them.
    let wanted = |name: &&[u8]| {
        wanted.iter().any(|start| name.starts_with(start.as_bytes()))
            && !name.starts_with(b"trusted.SGI_ACL_")
    };
    for name in names.filter(wanted) {
        let mut value = vec![0; XATTR_VALUE_BYTES_MAX];
        let got = if follow {
            rustix::fs::getxattr(path, name, &mut value[..])
        } else {
            rustix::fs::lgetxattr(path, name, &mut value[..])
        };
        value.truncate(got.with_context(|| format!("get xattr {}", name.escape_ascii()))?);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

fn list_xattrs(path: &[u8], follow: bool, list: &mut [u8]) -> rustix::io::Result<usize> {
    if follow { rustix::fs::listxattr(path, list) } else { rustix::fs::llistxattr(path, list) }
}

/// Everything that differs between two objects of the same type, but for content and links.
pub fn differences(left: &Object, right: &Object, wanted: &Compare) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |what: &str, left: String, right: String| {
        if left != right {
            found.push(format!("{what}: {left} on the left, {right} on the right"));
        }
    };
    let mode = |object: &Object| format!("{:04o}", object.stat.st_mode & 0o7777);
    check("mode", mode(left), mode(right));
    if wanted.owners {
        check("uid", left.stat.st_uid.to_string(), right.stat.st_uid.to_string());
        check("gid", left.stat.st_gid.to_string(), right.stat.st_gid.to_string());
    }
    if wanted.mtimes {
        check("mtime", left.mtime(), right.mtime());
    }
    match left.kind() {
        FileType::RegularFile => {
            check("size", left.stat.st_size.to_string(), right.stat.st_size.to_string());
        }
        FileType::CharacterDevice | FileType::BlockDevice => {
            check("device number", left.stat.st_rdev.to_string(), right.stat.st_rdev.to_string());
        }
        FileType::Symlink => check("symlink target", target(left), target(right)),
        _ => {}
    }
    let names = left.xattrs.keys().chain(right.xattrs.keys().filter(|name| !left.xattrs.contains_key(*name)));
    for name in names {
        let what = format!("xattr {}", name.escape_ascii());
        check(&what, value(left, name), value(right, name));
    }
    found
}

fn target(object: &Object) -> String {
    object.target.as_deref().unwrap_or_default().escape_ascii().to_string()
}

fn value(object: &Object, name: &[u8]) -> String {
    match object.xattrs.get(name) {
        None => "none".to_owned(),
        Some(value) if value.len() <= 60 => format!("\"{}\"", value.escape_ascii()),
        Some(value) => format!("{} bytes beginning \"{}\"", value.len(), value[..60].escape_ascii()),
    }
}
