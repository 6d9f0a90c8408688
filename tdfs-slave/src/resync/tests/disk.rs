//! The same over real directories: a small master answers from one, `Target` is the other.

use crate::replay::{Lacks, Target};
use crate::resync::{Brake, Contradiction, Disk, Resync};
use rustix::fs::{Mode, OFlags, SeekFrom, XattrFlags};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tdfs_host::object;
use tdfs_host::state::StateDir;
use tdfs_wire::answer::{Answer, BLOCK_BYTES, BLOCKS_MAX, Found, Stretch, Want, Wanted};
use tdfs_wire::object::{Child, Kind};
use tdfs_wire::op::{NamespaceOp, Op};
use tdfs_wire::{Name, Time, TreePath};

struct Pair {
    master: tempfile::TempDir,
    replica: tempfile::TempDir,
    target: Target,
    lacks: Lacks,
    brake: Brake,
    state: Arc<StateDir>,
    _state: tempfile::TempDir,
}

fn pair() -> Pair {
    let (master, replica) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = Target::open(replica.path()).unwrap();
    let lacks = Lacks::probe(target.root());
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDir::open(&dir.path().join("state")).unwrap());
    let brake = Brake::load(Arc::clone(&state)).unwrap();
    Pair { master, replica, target, lacks, brake, state, _state: dir }
}

fn path_fd(path: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())
}

fn child(path: &Path, name: &[u8]) -> Child {
    let fd = path_fd(path).unwrap();
    let stat = object::stat(fd.as_fd()).unwrap();
    let meta = object::meta(fd.as_fd(), &stat).unwrap();
    Child { name: Name::new(name).unwrap(), ino: stat.stx_ino, links: u64::from(stat.stx_nlink), meta }
}

impl Pair {
    fn disk(&mut self) -> Disk<'_> {
        Disk { target: &mut self.target, lacks: &mut self.lacks, brake: &mut self.brake }
    }

    fn at(&self, path: &TreePath) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.master.path().join(std::ffi::OsStr::from_bytes(path.as_bytes()))
    }

    fn answer(&self, want: &Want) -> (Answer, Vec<u8>) {
        let path = self.at(&want.path);
        let mut bulk = Vec::new();
        let found = match &want.what {
            _ if path_fd(&path).is_err() => Found::Gone,
            Wanted::Listing { .. } => {
                let names = object::list_names(path_fd(&path).unwrap().as_fd()).unwrap();
                let mut children: Vec<Child> =
                    names.iter().map(|name| child(&self.at(&want.path.join(name).unwrap()), name)).collect();
                children.sort_by(|a, b| a.name.cmp(&b.name));
                Found::Listing { meta: child(&path, b"x").meta, children, last: true }
            }
            Wanted::Object { offset, hashes } => {
                let here = child(&path, b"x");
                let mut stretches = Vec::new();
                let mut at = *offset;
                while here.meta.kind == Kind::File && at < here.meta.size && stretches.len() < BLOCKS_MAX {
                    let len = BLOCK_BYTES.min(here.meta.size - at);
                    let mut block = vec![0; usize::try_from(len).unwrap()];
                    fs::File::open(&path).unwrap().read_exact_at(&mut block, at).unwrap();
                    let same = hashes.get(stretches.len()) == Some(blake3::hash(&block).as_bytes());
                    stretches.push(match block.iter().all(|&byte| byte == 0) {
                        _ if same => Stretch::Same(len),
                        true => Stretch::Hole(len),
                        false => {
                            bulk.extend_from_slice(&block);
                            Stretch::Data(u32::try_from(len).unwrap())
                        }
                    });
                    at += len;
                }
                Found::Object { meta: here.meta, ino: here.ino, links: here.links, stretches }
            }
        };
        (Answer { id: want.id, path: want.path.clone(), found }, bulk)
    }

    fn run(&mut self, resync: &mut Resync) {
        self.run_until_held(resync);
        assert!(resync.done(), "no end: {:?}", resync.progress());
    }

    fn run_until_held(&mut self, resync: &mut Resync) {
        for _ in 0..10_000 {
            let wants = resync.wants(self.disk()).unwrap();
            for want in &wants {
                let (answer, bulk) = self.answer(want);
                resync.answer(self.disk(), &answer, &bulk).unwrap();
            }
            if wants.is_empty() && (resync.done() || resync.is_held()) {
                return;
            }
        }
    }

    fn reload_brake(&mut self) {
        self.brake = Brake::load(Arc::clone(&self.state)).unwrap();
    }

    fn assert_equal(&self) {
        assert_eq!(show(self.master.path()), show(self.replica.path()));
    }
}

/// Every respect of P3, a line a path; hard links by the first name.
fn show(root: &Path) -> Vec<String> {
    let mut first = std::collections::HashMap::new();
    let mut dirs = vec![root.to_path_buf()];
    let mut lines = Vec::new();
    while let Some(dir) = dirs.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|item| item.unwrap().path()).collect();
        paths.push(dir.clone());
        paths.sort();
        for path in paths {
            let name = path.strip_prefix(root).unwrap().to_path_buf();
            let Child { ino, meta, .. } = child(&path, b"x");
            let content = if meta.kind == Kind::File {
                blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string()
            } else {
                String::new()
            };
            if meta.kind == Kind::Directory && path != dir {
                dirs.push(path);
                continue;
            }
            let group = first.entry(ino).or_insert_with(|| name.clone()).clone();
            lines.push(format!("{} = {} {meta:?} {content}", name.display(), group.display()));
        }
    }
    lines.sort();
    lines
}

fn set_mtime(path: &Path, sec: i64) {
    object::set_mtime(path_fd(path).unwrap().as_fd(), Time { sec, nsec: 123_456_789 }).unwrap();
}

fn furnish(root: &Path) {
    fs::create_dir_all(root.join("dir/deep/er")).unwrap();
    let big: Vec<u8> = (0..3_000_000u32).map(|i| u8::try_from(i / 4096 % 251).unwrap()).collect();
    fs::write(root.join("dir/big"), big).unwrap();
    fs::write(root.join("dir/small"), "small").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::hard_link(root.join("dir/small"), root.join("dir/deep/linked")).unwrap();
    symlink("nowhere/at all", root.join("dir/link")).unwrap();
    fs::hard_link(root.join("dir/link"), root.join("link too")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    rustix::fs::mknodat(
        path_fd(root).unwrap(),
        "fifo",
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fs::set_permissions(root.join("dir/small"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(root.join("dir/deep"), fs::Permissions::from_mode(0o1777)).unwrap();
    let fd = path_fd(&root.join("dir/small")).unwrap();
    object::set_xattr(fd.as_fd(), b"user.note", b"said", XattrFlags::empty()).unwrap();
    for (i, name) in ["dir/small", "dir/link", "dir/deep/er", "dir/deep", "dir", ""].iter().enumerate() {
        set_mtime(&root.join(name), 1_000_000 + i64::try_from(i).unwrap());
    }
}

#[test]
fn empty_replica_is_filled_and_then_only_checked() {
    let mut pair = pair();
    furnish(pair.master.path());
    pair.run(&mut Resync::whole());
    pair.assert_equal();
    let sparse = fs::File::open(pair.replica.path().join("sparse")).unwrap();
    assert!(sparse.metadata().unwrap().blocks() < 1000, "a hole stays a hole");
    assert!(rustix::fs::seek(&sparse, SeekFrom::Data(0)).unwrap() > 4_000_000);

    let mut check = Resync::whole();
    pair.run(&mut check);
    let progress = check.progress();
    assert_eq!((progress.differences, progress.bytes_done, progress.widened), (0, 0, 0), "{progress:?}");
}

/// DESIGN section 7: "Only blocks that differ are sent."
#[test]
fn one_changed_byte_moves_one_block() {
    let mut pair = pair();
    furnish(pair.master.path());
    pair.run(&mut Resync::whole());
    let big = fs::File::options().write(true).open(pair.master.path().join("dir/big")).unwrap();
    big.write_all_at(b"!", 1_500_000).unwrap();
    let mut resync = Resync::whole();
    pair.run(&mut resync);
    pair.assert_equal();
    assert_eq!(resync.progress().bytes_received, BLOCK_BYTES);
}

#[test]
fn damaged_replica_is_made_equal() {
    let mut pair = pair();
    furnish(pair.master.path());
    pair.run(&mut Resync::whole());
    let replica = pair.replica.path().to_path_buf();
    fs::remove_dir_all(replica.join("dir/deep")).unwrap();
    symlink("/etc", replica.join("dir/deep")).unwrap();
    fs::remove_file(replica.join("dir/link")).unwrap();
    fs::create_dir_all(replica.join("dir/link/full/of")).unwrap();
    fs::write(replica.join("dir/link/full/of/it"), "it").unwrap();
    fs::remove_file(replica.join("fifo")).unwrap();
    fs::write(replica.join("fifo"), "no fifo").unwrap();
    fs::hard_link(replica.join("dir/big"), replica.join("extra")).unwrap();
    fs::remove_file(replica.join("empty")).unwrap();
    fs::hard_link(replica.join("dir/big"), replica.join("empty")).unwrap();
    fs::set_permissions(replica.join("sparse"), fs::Permissions::from_mode(0o777)).unwrap();
    pair.target.drop_all();
    pair.run(&mut Resync::whole());
    pair.assert_equal();
    assert!(Path::new("/etc/passwd").exists(), "no symlink is followed");
}

#[test]
fn contradicted_record_is_healed_by_its_paths() {
    let mut pair = pair();
    furnish(pair.master.path());
    pair.run(&mut Resync::whole());
    fs::remove_file(pair.replica.path().join("empty")).unwrap();
    fs::rename(pair.master.path().join("empty"), pair.master.path().join("dir/moved")).unwrap();
    let path = |path: &str| TreePath::new(path.as_bytes()).unwrap();
    let op = Op::Namespace(NamespaceOp::Rename {
        from: path("empty"),
        to: path("dir/moved"),
        mode: tdfs_wire::op::RenameMode::NoReplace,
        from_parent_mtime: Time::default(),
        to_parent_mtime: Time::default(),
        links: 0,
    });
    let mut resync = Resync::paths(Vec::new());
    assert_eq!(resync.contradicted(&op, None, None), Contradiction::Divergence);
    assert!(!resync.done());
    pair.run(&mut resync);
    pair.assert_equal();
    assert_eq!(resync.progress().widened, 0);
}

/// A replica can be deeper than the slave may have files open, and its paths longer than PATH_MAX.
#[test]
fn deep_trees_are_removed() {
    let mut pair = pair();
    fs::create_dir(pair.replica.path().join("top")).unwrap();
    let mut dir = path_fd(&pair.replica.path().join("top")).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&dir, "down", Mode::from_raw_mode(0o700)).unwrap();
        dir = object::open_dir(dir.as_fd(), b"down").unwrap();
    }
    drop(dir);
    set_mtime(pair.master.path(), 1);
    pair.brake.allow().unwrap();
    pair.run(&mut Resync::whole());
    pair.assert_equal();
}

/// DESIGN section 7, Safety: "before the removal that would exceed half of the objects which a replica of over
/// 1,000 had at the resync's start, it stops".
#[test]
fn a_resync_that_would_empty_the_replica_waits_for_a_human() {
    for (objects, keeps, held) in [(1000, 0, false), (1001, 0, true), (1200, 601, false), (1200, 599, true)] {
        let mut pair = pair();
        for at in 0..objects {
            let dir = pair.replica.path().join(format!("d{}", at / 100));
            if at % 100 == 0 {
                fs::create_dir(&dir).unwrap();
            } else {
                fs::write(dir.join(format!("f{at}")), "").unwrap();
            }
            if at < keeps {
                let dir = pair.master.path().join(format!("d{}", at / 100));
                fs::create_dir_all(&dir).unwrap();
                if at % 100 != 0 {
                    fs::write(dir.join(format!("f{at}")), "").unwrap();
                }
            }
        }
        let left = |pair: &Pair| super::super::count_below(pair.target.root()).unwrap();
        assert_eq!(left(&pair), objects);
        let mut resync = Resync::whole();
        pair.run_until_held(&mut resync);
        assert_eq!(resync.is_held(), held, "{objects}, {keeps} are kept");
        if held {
            assert!(left(&pair) >= objects / 2, "{} of {objects} are left", left(&pair));
            assert!(resync.wants(pair.disk()).unwrap().is_empty(), "it waits");
            // A kill does not begin the count anew.
            pair.reload_brake();
            let mut resync = Resync::whole();
            pair.run_until_held(&mut resync);
            assert!(resync.is_held() && left(&pair) >= objects / 2 - 1);
            pair.brake.allow().unwrap();
            resync.release();
            pair.run(&mut resync);
        }
        pair.assert_equal();
    }
}

/// What is equal is not touched, also where it is a hole; else a comparison would find what it did itself.
#[test]
fn comparing_holes_by_hashes_changes_nothing() {
    let mut pair = pair();
    let sparse = fs::File::create(pair.master.path().join("sparse")).unwrap();
    sparse.write_all_at(b"start", 0).unwrap();
    sparse.write_all_at(b"end", 5_000_000).unwrap();
    pair.run(&mut Resync::whole());
    let changed = |pair: &Pair| {
        let found = fs::metadata(pair.replica.path().join("sparse")).unwrap();
        (found.ctime(), found.ctime_nsec(), found.blocks())
    };
    let before = changed(&pair);
    let mut again = Resync::whole();
    again.distrust_all();
    pair.run(&mut again);
    assert_eq!((again.progress().differences, changed(&pair)), (0, before));
    pair.assert_equal();
}

/// A hole up to the end of a file frees its last block, too.
#[test]
fn a_hole_at_the_end_takes_the_last_block() {
    let mut pair = pair();
    let path = pair.master.path().join("file");
    fs::write(&path, vec![7; 300_001]).unwrap();
    pair.run(&mut Resync::whole());
    let file = fs::File::create(&path).unwrap();
    file.write_all_at(&[7; 4096], 0).unwrap();
    file.set_len(300_001).unwrap();
    pair.run(&mut Resync::whole());
    pair.assert_equal();
    let blocks = |root: &Path| fs::metadata(root.join("file")).unwrap().blocks();
    let filled = (BLOCK_BYTES / 512, blocks(pair.replica.path()));
    assert!(filled.1 <= filled.0, "{} blocks of 512 bytes are left", filled.1);
}
