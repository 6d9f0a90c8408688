//! statfs(2) tells of the file system below.

use std::fs::File;
use std::path::Path;

use rustix::fs::statvfs;

use crate::{checks, run};

#[test]
fn statfs() {
    run(checks![room_and_limits, syncing_succeeds]);
}

fn room_and_limits(dir: &Path) {
    let room = statvfs(dir).unwrap();
    let below = statvfs("/dev/shm").unwrap();
    assert_eq!((room.f_blocks * room.f_frsize, room.f_namemax), (below.f_blocks * below.f_frsize, 255));
    assert!(room.f_bavail <= room.f_blocks && room.f_files > 0);
}

fn syncing_succeeds(dir: &Path) {
    let file = File::create(dir.join("file")).unwrap();
    std::io::Write::write_all(&mut &file, b"x").unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(dir).unwrap().sync_all().unwrap();
    rustix::fs::syncfs(&file).unwrap();
}
