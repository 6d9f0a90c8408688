//! Tests of reading the mount table.

use super::*;

#[test]
fn escapes_in_mountinfo_are_undone() {
    let line = br"36 35 98:0 /mnt1 /mnt\0402\134x rw,noatime master:1 - fuse.tdfs tdfs:/data rw,user_id=0";
    let mount = parse_mount(line).unwrap();
    assert_eq!(mount.mountpoint, PathBuf::from(r"/mnt 2\x"));
    assert_eq!((mount.device.as_str(), mount.fstype.as_str()), ("98:0", FSTYPE));
}

#[test]
fn a_short_line_is_no_mount() {
    assert_eq!(parse_mount(b"36 35 98:0"), None);
}
