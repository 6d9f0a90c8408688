//! Tests of what identifies a root: on a disk and on tmpfs, and where another file system is mounted over it.

use super::*;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::path::Path;

/// One directory on the disk, one on tmpfs.
fn homes() -> Vec<tempfile::TempDir> {
    ["/tmp", "/dev/shm"].map(|home| tempfile::tempdir_in(home).unwrap()).into()
}

fn of(path: &Path) -> Root {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    Root::of(fd.as_fd()).unwrap()
}

/// As it comes back from a state file.
fn kept(root: &Root) -> Root {
    serde_json::from_str(&serde_json::to_string(root).unwrap()).unwrap()
}

/// Something mounted, for as long as this lives.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        unmount(self.0, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_directory_stays_the_same_when_it_is_opened_again_filled_or_renamed() {
    for home in homes() {
        let (here, there) = (home.path().join("here"), home.path().join("there"));
        fs::create_dir(&here).unwrap();
        let before = kept(&of(&here));
        fs::write(here.join("file"), "content").unwrap();
        assert!(before.is(&of(&here)));
        fs::rename(&here, &there).unwrap();
        assert!(before.is(&of(&there)));
        let open = fs::File::open(&there).unwrap();
        assert!(before.is(&Root::of(open.as_fd()).unwrap()), "whatever fd names it");
    }
}

#[test]
fn another_directory_differs() {
    let homes = homes();
    for home in &homes {
        let (here, there) = (home.path().join("here"), home.path().join("there"));
        fs::create_dir(&here).unwrap();
        fs::create_dir(&there).unwrap();
        let before = kept(&of(&here));
        assert!(!before.is(&of(&there)) && !before.is(&of(home.path())));
        fs::remove_dir(&here).unwrap();
        fs::create_dir(&here).unwrap();
        assert!(!before.is(&of(&here)), "removed and made again, maybe with the same inode number");
    }
    assert!(!of(homes[0].path()).is(&of(homes[1].path())), "on another file system");
}

#[test]
fn a_file_system_mounted_over_it_differs_and_gives_it_back() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can mount");
    }
    for home in homes() {
        let before = kept(&of(home.path()));
        for _ in 0..2 {
            mount("none", home.path(), "tmpfs", MountFlags::empty(), None).unwrap();
            let mounted = Mounted(home.path());
            let over = kept(&of(home.path()));
            assert!(!before.is(&over));
            drop(mounted);
            assert!(before.is(&of(home.path())));
            mount("none", home.path(), "tmpfs", MountFlags::empty(), None).unwrap();
            let _mounted = Mounted(home.path());
            assert!(!over.is(&of(home.path())), "two tmpfs, whose roots have the same inode number");
        }
    }
}

/// /proc has neither UUID nor handles: the second forms do.
#[test]
fn a_file_system_that_tells_little_is_told_apart_all_the_same() {
    let proc = of(Path::new("/proc"));
    assert!(proc.is(&kept(&of(Path::new("/proc")))));
    assert!(!proc.is(&of(Path::new("/"))) && !proc.is(&of(Path::new("/proc/self"))));
}

/// A kernel before 6.9 tells no UUID; after an upgrade it does.
#[test]
fn what_only_one_of_both_knows_makes_no_difference() {
    let home = tempfile::tempdir().unwrap();
    let now = of(home.path());
    let older = Root { uuid: None, handle: None, ..now.clone() };
    assert!(older.is(&now) && now.is(&older));
    assert!(!older.is(&Root { inode: now.inode + 1, ..now.clone() }));
    assert!(!older.is(&Root { fsid: "0".into(), ..now.clone() }));
    assert!(!now.is(&Root { uuid: Some("0".into()), ..now.clone() }));
}
