//! Shows that each kind of difference is found, and nothing where there is none.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::{DIFFERENCES_MAX, compare};
use crate::TempTree;

/// Two trees that are equal in everything.
struct Trees {
    tree: TempTree,
    left: PathBuf,
    right: PathBuf,
}

impl Trees {
    fn new() -> Self {
        let tree = TempTree::new().unwrap();
        let (left, right) = (tree.dir("left").unwrap(), tree.dir("right").unwrap());
        let trees = Self { tree, left, right };
        trees.both(plant);
        trees.settle();
        trees
    }

    fn both(&self, act: impl Fn(&Path)) {
        act(&self.left);
        act(&self.right);
    }

    /// Gives everything the same time, so that only what a test changes differs.
    fn settle(&self) {
        self.both(|root| {
            for name in ["file", "sparse", "one", "two", "link", "fifo", "device", "dir/inner", "dir", "."] {
                set_mtime(&root.join(name), 1_000_000_000, 5);
            }
        });
        assert_eq!(compare(&self.left, &self.right).unwrap(), Vec::<String>::new());
    }

    /// Changes the right tree; exactly one difference that holds `expected` must come of it.
    #[track_caller]
    fn differ(&self, expected: &str, change: impl FnOnce(&Path)) {
        change(&self.right);
        let found = compare(&self.left, &self.right).unwrap();
        assert!(found.len() == 1 && found[0].contains(expected), "expected {expected:?}: {found:#?}");
    }
}

fn plant(root: &Path) {
    std::fs::write(root.join("file"), b"some content").unwrap();
    std::fs::write(root.join("one"), b"linked").unwrap();
    std::fs::hard_link(root.join("one"), root.join("two")).unwrap();
    symlink("target", root.join("link")).unwrap();
    std::fs::create_dir(root.join("dir")).unwrap();
    std::fs::write(root.join("dir/inner"), b"").unwrap();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, mode, 0).unwrap();
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, root.join("device"), FileType::CharacterDevice, mode, device).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"island", 1 << 30).unwrap();
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_missing_and_an_additional_name_are_found() {
    let trees = Trees::new();
    trees.differ("./dir/inner: missing on the right", |root| {
        std::fs::remove_file(root.join("dir/inner")).unwrap();
        set_mtime(&root.join("dir"), 1_000_000_000, 5);
    });
    let trees = Trees::new();
    trees.differ("./a\\xff: missing on the left", |root| {
        use std::os::unix::ffi::OsStrExt;
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"a\xff")), b"").unwrap();
        set_mtime(root, 1_000_000_000, 5);
    });
}

#[test]
fn another_type_is_found() {
    Trees::new().differ("./dir/inner: type: RegularFile on the left, Fifo on the right", |root| {
        std::fs::remove_file(root.join("dir/inner")).unwrap();
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::mknodat(CWD, root.join("dir/inner"), FileType::Fifo, mode, 0).unwrap();
        set_mtime(&root.join("dir"), 1_000_000_000, 5);
    });
}

#[test]
fn content_and_size_are_compared() {
    Trees::new().differ("./file: content: differs from byte 5 of 12", |root| {
        let file = File::options().write(true).open(root.join("file")).unwrap();
        file.write_all_at(b"X", 5).unwrap();
        set_mtime(&root.join("file"), 1_000_000_000, 5);
    });
    Trees::new().differ("./file: size: 12 on the left, 13 on the right", |root| {
        File::options().write(true).open(root.join("file")).unwrap().set_len(13).unwrap();
        set_mtime(&root.join("file"), 1_000_000_000, 5);
    });
    Trees::new().differ("./sparse: content: differs from byte 1073741825", |root| {
        let file = File::options().write(true).open(root.join("sparse")).unwrap();
        file.write_all_at(b"S", (1 << 30) + 1).unwrap();
        set_mtime(&root.join("sparse"), 1_000_000_000, 5);
    });
}

#[test]
fn a_filled_hole_is_found_and_an_additional_one_is_not() {
    let trees = Trees::new();
    let write_zeros = |root: &Path| {
        let file = File::options().write(true).open(root.join("sparse")).unwrap();
        file.write_all_at(&[0; 9000], 1 << 20).unwrap();
        set_mtime(&root.join("sparse"), 1_000_000_000, 5);
    };
    trees.differ("./sparse: holes: data at 1048576..1060864", write_zeros);
    let trees = Trees::new();
    write_zeros(&trees.left);
    assert_eq!(compare(&trees.left, &trees.right).unwrap(), Vec::<String>::new());
}

#[test]
fn mode_owner_and_group_are_compared() {
    Trees::new().differ("./file: mode: 0644 on the left, 4644", |root| set_mode(&root.join("file"), 0o4644));
    Trees::new().differ("./dir: mode: 0755 on the left, 1755", |root| set_mode(&root.join("dir"), 0o1755));
    Trees::new().differ(".: mode: 0755 on the left, 2755", |root| set_mode(root, 0o2755));
    Trees::new().differ("./link: uid: 0 on the left, 7", |root| {
        std::os::unix::fs::lchown(root.join("link"), Some(7), None).unwrap();
    });
    Trees::new().differ("./fifo: gid: 0 on the left, 8", |root| {
        std::os::unix::fs::lchown(root.join("fifo"), None, Some(8)).unwrap();
    });
}

#[test]
fn times_are_compared_to_the_nanosecond() {
    let expected = "mtime: 1000000000.000000005 on the left, 1000000000.000000006 on the right";
    for name in [".", "dir", "file", "link", "fifo"] {
        Trees::new().differ(expected, |root| set_mtime(&root.join(name), 1_000_000_000, 6));
    }
}

#[test]
fn targets_and_devices_are_compared() {
    Trees::new().differ("./link: symlink target: target on the left, other on the right", |root| {
        std::fs::remove_file(root.join("link")).unwrap();
        symlink("other", root.join("link")).unwrap();
        set_mtime(&root.join("link"), 1_000_000_000, 5);
        set_mtime(root, 1_000_000_000, 5);
    });
    Trees::new().differ("./device: device number", |root| {
        std::fs::remove_file(root.join("device")).unwrap();
        let (mode, device) = (Mode::from_raw_mode(0o600), rustix::fs::makedev(1, 5));
        rustix::fs::mknodat(CWD, root.join("device"), FileType::CharacterDevice, mode, device).unwrap();
        set_mtime(&root.join("device"), 1_000_000_000, 5);
        set_mtime(root, 1_000_000_000, 5);
    });
}

#[test]
fn a_split_and_a_joined_link_are_found() {
    Trees::new().differ("./two: hard links: one file with ./one on the left only", |root| {
        std::fs::remove_file(root.join("two")).unwrap();
        std::fs::write(root.join("two"), b"linked").unwrap();
        set_mtime(&root.join("two"), 1_000_000_000, 5);
        set_mtime(root, 1_000_000_000, 5);
    });
    let trees = Trees::new();
    trees.both(|root| std::fs::write(root.join("z"), b"linked").unwrap());
    trees.both(|root| set_mtime(&root.join("z"), 1_000_000_000, 5));
    trees.both(|root| set_mtime(root, 1_000_000_000, 5));
    trees.differ("./z: hard links: one file with ./one on the right only", |root| {
        std::fs::remove_file(root.join("z")).unwrap();
        std::fs::hard_link(root.join("one"), root.join("z")).unwrap();
        set_mtime(root, 1_000_000_000, 5);
    });
}

#[test]
fn xattrs_are_compared() {
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // One rwx for the owner, mask and others: version 2, then (tag, permissions, id) each.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [(1_u8, 6_u8, 255), (2, 4, 0), (4, 4, 255), (16, 4, 255), (32, 4, 255)] {
        acl.extend([tag, 0, permissions, 0, id, id, id, id]);
    }
    for (name, place) in [("user.a", "file"), ("trusted.b", "link"), ("user.c", "."), ("trusted.d", "device")]
    {
        let expected = format!("xattr {name}: none on the left, \"v\" on the right");
        Trees::new().differ(&expected, |root| set(&root.join(place), name, b"v"));
    }
    Trees::new().differ("xattr security.capability: none", |root| {
        set(&root.join("file"), "security.capability", &capability);
    });
    Trees::new().differ("xattr system.posix_acl_default: none", |root| {
        set(&root.join("dir"), "system.posix_acl_default", &acl);
    });
    let trees = Trees::new();
    trees.both(|root| set(&root.join("file"), "user.same", b"left"));
    trees.differ("xattr user.same: \"left\" on the left, \"other\"", |root| {
        set(&root.join("file"), "user.same", b"other");
    });
}

#[test]
fn the_list_is_bounded() {
    let trees = Trees::new();
    for number in 0..200 {
        std::fs::write(trees.left.join(format!("n{number}")), b"").unwrap();
    }
    assert_eq!(compare(&trees.left, &trees.right).unwrap().len(), DIFFERENCES_MAX);
}

#[test]
fn paths_beyond_path_max_are_compared() {
    let trees = Trees::new();
    for root in [&trees.left, &trees.right] {
        let open = |at: &File, name: &str| {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            File::from(rustix::fs::openat(at, name, flags, Mode::empty()).unwrap())
        };
        let mut at = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(root).unwrap();
        for _ in 0..30 {
            let name = "d".repeat(200);
            rustix::fs::mkdirat(&at, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
            at = open(&at, &name);
        }
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let text: &[u8] = if root == &trees.left { b"left" } else { b"rght" };
        let file = File::from(rustix::fs::openat(&at, "deep", flags, Mode::from_raw_mode(0o644)).unwrap());
        file.write_all_at(text, 0).unwrap();
    }
    let found =
        super::Compare { mtimes: false, ..Default::default() }.run(&trees.left, &trees.right).unwrap();
    assert!(found.len() == 1 && found[0].contains("deep (6035 bytes): content"), "{found:#?}");
}

#[test]
fn a_hundred_thousand_files_take_seconds() {
    let trees = Trees::new();
    trees.both(|root| {
        for number in 0..50_000 {
            let path = root.join(format!("dir/{number}"));
            std::fs::write(&path, [1]).unwrap();
            set_mtime(&path, 1, 1);
        }
        set_mtime(&root.join("dir"), 1, 1);
    });
    let start = Instant::now();
    assert_eq!(compare(&trees.left, &trees.right).unwrap(), Vec::<String>::new());
    assert!(start.elapsed() < Duration::from_secs(30), "took {:?}", start.elapsed());
    assert!(trees.tree.path().exists());
}
