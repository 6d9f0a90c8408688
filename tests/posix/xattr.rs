//! Extended attributes: user, trusted, capabilities, ACLs.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use harness::Caller;
use rustix::fs::{
    XattrFlags, fgetxattr, fsetxattr, getxattr, lgetxattr, listxattr, listxattr_query, lremovexattr,
    lsetxattr, removexattr, setxattr,
};
use rustix::io::Errno;

use crate::{checks, run};

#[test]
fn xattr() {
    run(checks![
        set_get_list_remove,
        names_that_are_roots,
        create_and_replace,
        sizes_and_short_buffers,
        large_values,
        on_every_type,
        file_capabilities,
        access_acl_follows_the_mode,
        default_acl_is_inherited,
        wrong_names,
        through_an_open_file,
    ]);
}

const NONE: XattrFlags = XattrFlags::empty();

fn get(path: &Path, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; 65_536];
    let len = lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

fn list(path: &Path) -> Vec<String> {
    let mut names = vec![0; 65_536];
    let len = listxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.retain(|name| name.starts_with("user.") || name.starts_with("trusted."));
    names.sort();
    names
}

fn set_get_list_remove(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"content").unwrap();
    setxattr(&path, "user.one", b"1", NONE).unwrap();
    setxattr(&path, "user.two", b"\0binary\xff", NONE).unwrap();
    setxattr(&path, "trusted.three", b"", NONE).unwrap();
    assert_eq!(get(&path, "user.two").unwrap(), b"\0binary\xff");
    assert_eq!(get(&path, "trusted.three").unwrap(), b"");
    assert_eq!(list(&path), ["trusted.three", "user.one", "user.two"]);
    removexattr(&path, "user.one").unwrap();
    assert_eq!(removexattr(&path, "user.one"), Err(Errno::NODATA));
    assert_eq!(get(&path, "user.one"), Err(Errno::NODATA));
    assert_eq!(list(&path), ["trusted.three", "user.two"]);
    setxattr(&path, "user.two", b"changed", NONE).unwrap();
    assert_eq!(get(&path, "user.two").unwrap(), b"changed");
    // The content's time does not move.
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(77);
    File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    setxattr(&path, "user.four", b"4", NONE).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
}

/// xattr(7): trusted.* is visible to processes with CAP_SYS_ADMIN alone, and its size with it.
fn names_that_are_roots(dir: &Path) {
    fs::write(dir.join("file"), b"").unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    for path in [dir.join("file"), dir.join("sub")] {
        for name in ["trusted.first", "user.one", "trusted.second", "user.two"] {
            setxattr(&path, name, b"1", NONE).unwrap();
        }
        Caller::nobody().run(|| {
            assert_eq!(list(&path), ["user.one", "user.two"]);
            let whole = listxattr(&path, &mut [0; 999][..]).unwrap();
            assert_eq!(listxattr_query(&path), Ok(whole));
            assert_eq!(listxattr(&path, &mut vec![0; whole][..]), Ok(whole));
            assert_eq!(listxattr(&path, &mut vec![0; whole - 1][..]), Err(Errno::RANGE));
        });
        assert_eq!(list(&path), ["trusted.first", "trusted.second", "user.one", "user.two"]);
    }
}

fn create_and_replace(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"").unwrap();
    assert_eq!(setxattr(&path, "user.a", b"1", XattrFlags::REPLACE), Err(Errno::NODATA));
    setxattr(&path, "user.a", b"1", XattrFlags::CREATE).unwrap();
    assert_eq!(setxattr(&path, "user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
    setxattr(&path, "user.a", b"3", XattrFlags::REPLACE).unwrap();
    assert_eq!(get(&path, "user.a").unwrap(), b"3");
}

fn sizes_and_short_buffers(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"").unwrap();
    let before = listxattr_query(&path).unwrap();
    setxattr(&path, "user.a", b"12345", NONE).unwrap();
    assert_eq!(rustix::fs::getxattr_query(&path, "user.a"), Ok(5));
    assert_eq!(listxattr_query(&path), Ok(before + "user.a\0".len()));
    assert_eq!(getxattr(&path, "user.a", &mut [0; 4][..]), Err(Errno::RANGE));
    assert_eq!(listxattr(&path, &mut [0; 3][..]), Err(Errno::RANGE));
}

fn large_values(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"").unwrap();
    let value = harness::Rng::new(3).bytes(60_000);
    setxattr(&path, "user.large", &value, NONE).unwrap();
    assert!(get(&path, "user.large").unwrap() == value);
    assert_eq!(setxattr(&path, "user.larger", &vec![0; 65_537], NONE), Err(Errno::TOOBIG));
    for number in 0..60 {
        setxattr(&path, format!("user.many.{number}"), &[number; 100], NONE).unwrap();
    }
    assert_eq!(list(&path).len(), 61);
    let longest = format!("user.{}", "n".repeat(250));
    setxattr(&path, longest.as_str(), b"x", NONE).unwrap();
    assert_eq!(setxattr(&path, format!("{longest}n"), b"x", NONE), Err(Errno::RANGE));
}

fn on_every_type(dir: &Path) {
    fs::create_dir(dir.join("directory")).unwrap();
    symlink("nowhere", dir.join("link")).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, dir.join("fifo"), kind, mode, 0).unwrap();
    for name in ["directory", "link", "fifo"] {
        lsetxattr(dir.join(name), "trusted.t", name.as_bytes(), NONE).unwrap();
        assert_eq!(get(&dir.join(name), "trusted.t").unwrap(), name.as_bytes());
    }
    setxattr(dir.join("directory"), "user.u", b"on a directory", NONE).unwrap();
    // user. belongs to files and directories alone.
    assert_eq!(lsetxattr(dir.join("link"), "user.u", b"x", NONE), Err(Errno::PERM));
    assert_eq!(lsetxattr(dir.join("fifo"), "user.u", b"x", NONE), Err(Errno::PERM));
    lremovexattr(dir.join("link"), "trusted.t").unwrap();
    assert_eq!(get(&dir.join("link"), "trusted.t"), Err(Errno::NODATA));
}

/// cap_net_bind_service=ep, version 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The kernel takes file capabilities away when the content or the owner changes.
fn file_capabilities(dir: &Path) {
    for name in ["kept", "written", "chowned"] {
        fs::write(dir.join(name), b"program").unwrap();
        setxattr(dir.join(name), "security.capability", &CAPABILITY, NONE).unwrap();
        assert_eq!(get(&dir.join(name), "security.capability").unwrap(), CAPABILITY);
    }
    fs::write(dir.join("written"), b"another").unwrap();
    assert_eq!(get(&dir.join("written"), "security.capability"), Err(Errno::NODATA));
    std::os::unix::fs::chown(dir.join("chowned"), Some(12), None).unwrap();
    assert_eq!(get(&dir.join("chowned"), "security.capability"), Err(Errno::NODATA));
}

/// Version 2, then tag, permissions, id of each: owner, user 1000, group, mask, others.
fn acl(owner: u8, user: u8, group: u8, mask: u8, others: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1, owner, u32::MAX),
        (2, user, 1000),
        (4, group, u32::MAX),
        (16, mask, u32::MAX),
        (32, others, u32::MAX),
    ] {
        bytes.extend([tag, 0, permissions, 0]);
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn access_acl_follows_the_mode(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"").unwrap();
    setxattr(&path, ACCESS, &acl(6, 7, 4, 6, 0), NONE).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o660);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o641)).unwrap();
    assert_eq!(get(&path, ACCESS).unwrap(), acl(6, 7, 4, 4, 1));
    fs::write(dir.join("plain"), b"").unwrap();
    setxattr(dir.join("plain"), ACCESS, &acl(6, 7, 4, 7, 4), NONE).unwrap();
    removexattr(dir.join("plain"), ACCESS).unwrap();
    assert_eq!(get(&dir.join("plain"), ACCESS), Err(Errno::NODATA));
}

/// DESIGN section 4: "The outcome, not the request: final mode after umask/ACL/setgid inheritance".
fn default_acl_is_inherited(dir: &Path) {
    let top = dir.join("top");
    fs::create_dir(&top).unwrap();
    setxattr(&top, DEFAULT, &acl(7, 6, 5, 7, 0), NONE).unwrap();
    fs::write(top.join("file"), b"").unwrap();
    assert_eq!(get(&top.join("file"), ACCESS).unwrap(), acl(6, 6, 5, 6, 0));
    assert_eq!(fs::metadata(top.join("file")).unwrap().mode() & 0o7777, 0o660);
    fs::create_dir(top.join("sub")).unwrap();
    assert_eq!(get(&top.join("sub"), DEFAULT).unwrap(), acl(7, 6, 5, 7, 0));
    assert_eq!(get(&top.join("sub"), ACCESS).unwrap(), acl(7, 6, 5, 7, 0));
    fs::create_dir_all(top.join("sub/deeper")).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, top.join("sub/deeper/fifo"), kind, mode, 0).unwrap();
    assert_eq!(get(&top.join("sub/deeper/fifo"), ACCESS).unwrap(), acl(6, 6, 5, 6, 0));
    removexattr(&top, DEFAULT).unwrap();
    fs::write(top.join("without"), b"").unwrap();
    assert_eq!(get(&top.join("without"), ACCESS), Err(Errno::NODATA));
}

fn wrong_names(dir: &Path) {
    let path = dir.join("file");
    fs::write(&path, b"").unwrap();
    assert_eq!(setxattr(&path, "nonsense.a", b"x", NONE), Err(Errno::OPNOTSUPP));
    assert_eq!(setxattr(&path, "", b"x", NONE), Err(Errno::RANGE));
    assert_eq!(setxattr(dir.join("missing"), "user.a", b"x", NONE), Err(Errno::NOENT));
}

fn through_an_open_file(dir: &Path) {
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(dir.join("file")).unwrap();
    fs::rename(dir.join("file"), dir.join("moved")).unwrap();
    fsetxattr(&file, "user.by.fd", b"v", NONE).unwrap();
    let mut value = [0; 8];
    assert_eq!(fgetxattr(&file, "user.by.fd", &mut value[..]), Ok(1));
    assert_eq!(get(&dir.join("moved"), "user.by.fd").unwrap(), b"v");
    fs::remove_file(dir.join("moved")).unwrap();
    fsetxattr(&file, "user.by.fd", b"without a name", NONE).unwrap();
}
