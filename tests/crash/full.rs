//! Operations that fail half way: a backing tree without space, and changes that are refused.
//!
//! What an application is told is its affair; the replica, which has all the space it wants, must equal what the
//! failed operation has left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use harness::cluster::ClusterPaths;
use harness::ops::{Names, Performer, generate};
use harness::{Caller, Cluster, Compare, Rng, require};
use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{cluster, repairs};

/// What `O_DIRECT` wants offsets, lengths and memory to be multiples of.
const BLOCK: usize = 4096;

/// A backing tree of 4 MiB.
fn small_tmpfs(paths: &ClusterPaths) {
    let options = Some(c"size=4m");
    mount("none", &paths.backing, "tmpfs", MountFlags::empty(), options).unwrap();
}

/// The same on ext4, in a file: there a failed fallocate(2) leaves a file that has grown.
fn small_ext4(paths: &ClusterPaths) {
    ext4_of_blocks(paths, "4096");
}

/// Of blocks that are smaller than the replica's.
fn ext4_of_small_blocks(paths: &ClusterPaths) {
    ext4_of_blocks(paths, "1024");
}

fn ext4_of_blocks(paths: &ClusterPaths, bytes: &str) {
    let image = paths.backing.with_file_name("image");
    File::create(&image).unwrap().set_len(6 << 20).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    let options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-N", "4000", "-b", bytes];
    run(Command::new("mkfs.ext4").args(options).arg(&image));
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&paths.backing));
    // It can't be removed while it is mounted.
    fs::remove_dir(paths.backing.join("lost+found")).unwrap();
}

/// The tests' own mount must be gone before the look at what was left behind.
fn finish(mut cluster: Cluster) {
    cluster.master.stop();
    unmount(&cluster.paths.backing, UnmountFlags::empty()).unwrap();
    cluster.stop();
}

/// Writes until there is no space; gives the bytes that were taken.
fn fill(path: &Path, piece: usize) -> u64 {
    let file = File::options().create(true).append(true).open(path).unwrap();
    let bytes = Rng::new(9).bytes(piece);
    loop {
        // rustix, because std writes on after a short write, and then tells the error alone.
        match rustix::io::write(&file, &bytes) {
            Ok(0) => panic!("write(2) took nothing"),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, Errno::NOSPC);
                return file.metadata().unwrap().len();
            }
        }
    }
}

/// The same past the page cache; `len` is a multiple of a block.
fn fill_directly(path: &Path, len: usize) -> u64 {
    let flags = OFlags::DIRECT | OFlags::WRONLY | OFlags::CREATE;
    let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).unwrap());
    let bytes = vec![7; len + BLOCK];
    let start = bytes.as_ptr().align_offset(BLOCK);
    loop {
        match rustix::io::write(&file, &bytes[start..start + len]) {
            Ok(0) => panic!("write(2) took nothing"),
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error, Errno::NOSPC);
                return file.metadata().unwrap().len();
            }
        }
    }
}

/// The backing tree itself is compared: of an operation that failed the kernel takes no new mtime to know, so
/// the mount may show the old one.
fn equal(cluster: &Cluster, what: &str) {
    println!("{what}");
    cluster.wait();
    assert_same(cluster, true);
}

fn assert_same(cluster: &Cluster, holes: bool) {
    let compare = Compare { holes, ..Compare::default() };
    let differences = compare.run(&cluster.paths.backing, &cluster.slaves[0].replica).unwrap();
    assert!(differences.is_empty(), "the trees differ:\n  {}", differences.join("\n  "));
}

/// DESIGN section 4: "An operation that fails after it changed something (fallocate that ran out of space but grew the
/// file, chown refused after a create, half a SETATTR) is undone under the locks, or its outcome is recorded; the
/// application gets its errno."
fn without_space(cluster: Cluster, holes: bool) {
    cluster.wait();
    let before = repairs(&cluster);
    let mount = cluster.mount().to_owned();
    assert!(fill_directly(&mount.join("full"), 75 * BLOCK) > 1 << 20);
    equal(&cluster, "short direct writes");
    fs::remove_file(mount.join("full")).unwrap();
    // Pieces of no round size: the last write is a short one.
    assert!(fill(&mount.join("full"), 300_001) > 1 << 20);
    equal(&cluster, "short writes");
    let refused = fs::write(mount.join("another"), vec![1; 100_000]).unwrap_err();
    assert_eq!(Errno::from_io_error(&refused), Some(Errno::NOSPC));
    equal(&cluster, "a new file that can't be filled");
    File::options().write(true).open(mount.join("full")).unwrap().set_len(1 << 20).unwrap();
    for flags in [FallocateFlags::empty(), FallocateFlags::KEEP_SIZE] {
        reserve(&cluster, flags);
    }
    let (from, to) = (File::open(mount.join("full")).unwrap(), File::create(mount.join("copy")).unwrap());
    // The source once more and again, until it ends without space.
    let copied = (0..40).find_map(|number: u64| {
        let (mut from_at, mut to_at) = (0, number << 20);
        rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), 1 << 20).err()
    });
    assert_eq!(copied, Some(Errno::NOSPC));
    to.set_len(1 << 20).unwrap();
    equal(&cluster, "copies");
    // Names need space too, at least on ext4: as many as there is room for.
    let name = |number| mount.join(format!("{number} {}", "n".repeat(200)));
    let made = (0..20_000).find(|number| {
        let made = std::os::unix::fs::symlink("t".repeat(900), name(*number));
        made.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::NOSPC))
    });
    let made = made.expect("find no space for a symlink");
    assert!(made > 0);
    equal(&cluster, &format!("{made} names"));
    (0..made).for_each(|number| fs::remove_file(name(number)).unwrap());
    // Everything at once, around the bound.
    let len = fill(&mount.join("full"), 50_000);
    File::options().write(true).open(mount.join("full")).unwrap().set_len(len - 300_000).unwrap();
    let failed = everything(&mount);
    println!("{failed} operations found no space");
    assert!(failed > 0);
    println!("all kinds of operations");
    cluster.wait();
    assert_same(&cluster, holes);
    let after = repairs(&cluster);
    assert_eq!(after, before, "the log did it, not a resync");
    finish(cluster);
}

/// A reservation that can't be made, in a file with some content.
fn reserve(cluster: &Cluster, flags: FallocateFlags) {
    let name = cluster.mount().join(format!("reserved {flags:?}"));
    let file = File::create(&name).unwrap();
    file.write_all_at(b"some", 10).unwrap();
    match fallocate(&file, flags, 0, 64 << 20) {
        Err(error) => assert!(matches!(error, Errno::NOSPC | Errno::OPNOTSUPP), "{error}"),
        Ok(()) => panic!("64 MiB were reserved in a small file system"),
    }
    equal(cluster, &format!("fallocate {flags:?}"));
    // ext4 keeps what it had reserved, beyond the end of the file too.
    fs::remove_file(name).unwrap();
}

/// Operations of every kind; gives how many ended for want of space.
fn everything(mount: &Path) -> u64 {
    let (names, mut rng) = (Names::few(40, 4), Rng::new(harness::rng::run_seed()));
    names.plant(mount).unwrap();
    let mut performer = Performer::new(mount);
    let mut failed = 0;
    for _ in 0..1_500 {
        let op = generate(&mut rng, &names.clone().without_mappings(), 0);
        if let Err(error) = performer.perform(&op, &mut rng) {
            let errno = error.downcast_ref::<std::io::Error>().and_then(Errno::from_io_error);
            assert_eq!(errno, Some(Errno::NOSPC), "{error:#}");
            failed += 1;
        }
    }
    failed
}

#[test]
fn no_space_on_tmpfs() {
    without_space(cluster().network(1).elsewhere().prepare(small_tmpfs).start(), true);
}

#[test]
fn no_space_on_ext4() {
    if require("no_space_on_ext4", "mkfs.ext4", "e2fsprogs") {
        without_space(cluster().network(1).elsewhere().prepare(small_ext4).start(), true);
    }
}

/// The replica can't have holes of less than its own blocks: what is left of a block that is cut off holds zeros.
#[test]
fn no_space_on_ext4_of_small_blocks() {
    if require("no_space_on_ext4_of_small_blocks", "mkfs.ext4", "e2fsprogs") {
        without_space(cluster().network(1).elsewhere().prepare(ext4_of_small_blocks).start(), false);
    }
}

/// The same sentence of DESIGN for `FALLOC_FL_ZERO_RANGE`: on ext4 it has overwritten what was there when it finds no
/// space, and made the file longer.
#[test]
fn no_space_to_zero_a_range_on_ext4() {
    if require("no_space_to_zero_a_range_on_ext4", "mkfs.ext4", "e2fsprogs") {
        let cluster = cluster().network(1).elsewhere().prepare(small_ext4).start();
        reserve(&cluster, FallocateFlags::ZERO_RANGE);
        finish(cluster);
    }
}

/// The same for changes that the kernel refuses to somebody: nothing, or what was done of it, is recorded.
#[test]
fn refused_changes_leave_equal_replicas() {
    let cluster = cluster().network(1).start();
    cluster.wait();
    let before = repairs(&cluster);
    let mount = cluster.mount().to_owned();
    fs::write(mount.join("roots"), b"root's").unwrap();
    let shared = mount.join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    fs::write(shared.join("roots"), b"root's").unwrap();
    let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap();
    Caller::nobody().run(|| {
        let own = shared.join("own");
        fs::write(&own, b"own").unwrap();
        assert_eq!(errno(std::os::unix::fs::chown(&own, Some(0), None).unwrap_err()), Errno::PERM);
        assert_eq!(
            errno(std::os::unix::fs::chown(mount.join("roots"), Some(65534), None).unwrap_err()),
            Errno::PERM
        );
        assert_eq!(errno(fs::write(mount.join("roots"), b"mine").unwrap_err()), Errno::ACCESS);
        assert_eq!(errno(fs::remove_file(shared.join("roots")).unwrap_err()), Errno::PERM);
        assert_eq!(errno(fs::rename(shared.join("roots"), shared.join("mine")).unwrap_err()), Errno::PERM);
        assert_eq!(errno(fs::rename(&own, mount.join("elsewhere")).unwrap_err()), Errno::ACCESS);
        assert_eq!(errno(fs::create_dir(mount.join("new")).unwrap_err()), Errno::ACCESS);
    });
    cluster.wait();
    assert_eq!(repairs(&cluster), before);
    cluster.finish();
}

/// "chown refused after a create [...] is undone under the locks": by a quota, or here, for not every kernel has those,
/// because tdfs itself may not.
#[test]
fn what_can_not_be_given_to_its_owner_is_taken_away_again() {
    let mut cluster = cluster().network(1).start();
    let open = |path: &Path| {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    };
    open(&cluster.mount().join("shared"));
    fs::write(cluster.mount().join("roots"), b"root's").unwrap();
    cluster.wait();
    cluster.master.stop();
    cluster.master.without_capability("chown");
    cluster.start_master();
    cluster.wait();
    let before = repairs(&cluster);
    let shared = cluster.mount().join("shared");
    let refused = |done: std::io::Result<()>| {
        assert_eq!(done.unwrap_err().raw_os_error(), Some(Errno::PERM.raw_os_error()))
    };
    Caller::nobody().run(|| {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        refused(fs::write(shared.join("file"), b"content"));
        refused(fs::create_dir(shared.join("dir")));
        refused(std::os::unix::fs::symlink("target", shared.join("symlink")));
        refused(mknodat(CWD, shared.join("fifo"), FileType::Fifo, Mode::RWXU, 0).map_err(Into::into));
    });
    refused(std::os::unix::fs::chown(cluster.mount().join("roots"), Some(7), Some(7)));
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
    // They have come and gone in the directory, whose mtime tells it.
    equal(&cluster, "refused owners");
    fs::write(shared.join("roots"), b"goes on").unwrap();
    cluster.wait();
    assert_eq!(repairs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}
