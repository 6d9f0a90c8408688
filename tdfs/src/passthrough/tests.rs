//! Tests of the operations on a temporary directory, without FUSE: what they do and what they record.

use super::*;
use crate::commit::{Slots, Turn};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tdfs_host::state::StateDir;
use tdfs_wire::log::{Log, Options};
use tdfs_wire::op::{DataOp, NamespaceOp, Op, XattrOp};
use tdfs_wire::record::Record;
use tdfs_wire::{Epoch, Id, Lsn};

pub(crate) struct Served {
    pub(super) dir: tempfile::TempDir,
    _log: tempfile::TempDir,
    pub(crate) fs: Arc<Passthrough>,
}

const NOBODY: Caller = Caller { uid: 65534, gid: 65534, pid: 0 };

pub(crate) fn serve() -> Served {
    let (dir, log_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let epoch = Epoch { number: 1, id: Id::default() };
    let log = Log::create(log_dir.path(), epoch, Options::default()).unwrap();
    let root = rustix::fs::open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let state = StateDir::open(&log_dir.path().join("state")).unwrap();
    let slots = Slots::begin(&state, epoch).unwrap();
    let fs = Arc::new(Passthrough::new(root, Commit::new(Arc::new(log), slots)).unwrap());
    Served { dir, _log: log_dir, fs }
}

impl Served {
    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn create(&self, parent: u64, name: &str) -> u64 {
        let caller = self.fs.owner;
        self.fs.mknod((parent, name.as_bytes()), 0o644, 0, 0, caller).unwrap().nodeid
    }

    pub(super) fn mkdir(&self, parent: u64, name: &str) -> u64 {
        self.fs.mkdir((parent, name.as_bytes()), 0o755, 0, self.fs.owner).unwrap().nodeid
    }

    pub(crate) fn ops(&self) -> Vec<Op> {
        let log = self.fs.commit().log();
        let mut cursor = log.cursor(Lsn::ZERO).unwrap();
        let mut ops = Vec::new();
        while let Some(batch) = cursor.read(log.head(), 1 << 20).unwrap() {
            let mut bytes = &batch.bytes[..];
            while !bytes.is_empty() {
                let (record, len) = Record::parse(bytes).unwrap();
                ops.push(record.op);
                bytes = &bytes[len..];
            }
        }
        ops
    }
}

#[test]
fn a_write_is_recorded_under_the_name_the_file_has_then() {
    let served = serve();
    let dir = served.mkdir(ROOT, "a");
    let file = served.create(dir, "f");
    served.fs.rename((ROOT, b"a"), (ROOT, b"b"), 0).unwrap();
    assert_eq!(served.fs.write(file, 3, b"xyz").unwrap(), 3);
    let Some(Op::Data(DataOp::Write { path, offset: 3, mtime })) = served.ops().pop() else {
        panic!("{:?}", served.ops())
    };
    assert_eq!(path.as_bytes(), b"b/f");
    let found = std::fs::metadata(served.path().join("b/f")).unwrap();
    assert_eq!((found.mtime(), found.mtime_nsec()), (mtime.sec, i64::from(mtime.nsec)));
}

/// "A write to a file that has no link any more is not recorded." (DESIGN section 4)
#[test]
fn a_file_without_names_is_written_but_not_recorded() {
    let served = serve();
    let file = served.create(ROOT, "f");
    served.fs.unlink((ROOT, b"f")).unwrap();
    served.fs.files.remove(file);
    assert_eq!(served.fs.write(file, 0, b"still here").unwrap(), 10);
    let mut buffer = [0; 10];
    assert_eq!(served.fs.read(file, 0, &mut buffer).unwrap(), 10);
    assert_eq!(&buffer, b"still here");
    assert!(matches!(served.ops().pop(), Some(Op::Namespace(NamespaceOp::Unlink { .. }))));
}

/// "A write to a file that has links but no name known here (opened as a, a unlinked, b never looked up): a walk
/// of the tree finds a name, then the object is checked on all slaves." (DESIGN section 4)
#[test]
fn a_file_whose_names_are_unknown_is_found_and_checked() {
    let served = serve();
    let file = served.create(ROOT, "a");
    std::fs::create_dir(served.path().join("d")).unwrap();
    std::fs::hard_link(served.path().join("a"), served.path().join("d/b")).unwrap();
    served.fs.unlink((ROOT, b"a")).unwrap();
    served.fs.write(file, 0, b"x").unwrap();
    assert!(served.fs.lost().is_pending());
    let finder = std::thread::spawn({
        let fs = Arc::clone(&served.fs);
        move || fs.find_lost()
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while served.fs.lost().is_pending() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    served.fs.lost().close();
    finder.join().unwrap();
    let Some(Op::Check { paths }) = served.ops().pop() else { panic!("{:?}", served.ops()) };
    assert_eq!(paths[0].as_bytes(), b"d/b");
}

/// "A record that can't be encoded or stored must be known before the change: paths up to 16 KiB (else
/// ENAMETOOLONG)." (DESIGN section 4) tdfs.8: "Paths of more than 16 KiB can't be changed: ENAMETOOLONG."
#[test]
fn a_path_that_no_record_can_carry_is_refused_before_the_change() {
    let served = serve();
    let name = "n".repeat(255);
    let mut parent = ROOT;
    for _ in 0..64 {
        parent = served.mkdir(parent, &name);
    }
    let head = served.fs.commit().log().head();
    let refused = served.fs.mkdir((parent, b"one"), 0o755, 0, served.fs.owner);
    assert_eq!(refused.unwrap_err(), Errno::NAMETOOLONG);
    assert_eq!(served.fs.lookup(parent, b"one").unwrap_err(), Errno::NOENT);
    assert_eq!(served.fs.commit().log().head(), head);
}

#[test]
fn a_new_object_belongs_to_the_caller_with_the_mode_he_asked_for() {
    let served = serve();
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    let seen = served.fs.mknod((ROOT, b"s"), 0o4755, 0o022, 0, NOBODY).unwrap();
    assert_eq!((seen.stat.stx_uid, seen.stat.stx_gid), (NOBODY.uid, NOBODY.gid));
    assert_eq!(seen.stat.stx_mode & 0o7777, 0o4755);
    let Some(Op::Namespace(NamespaceOp::Create(new))) = served.ops().pop() else { panic!() };
    assert_eq!((new.mode, new.uid, new.gid), (0o4755, NOBODY.uid, NOBODY.gid));
}

#[test]
fn the_number_of_a_removed_object_is_not_used_again_while_it_is_remembered() {
    let served = serve();
    let first = served.create(ROOT, "f");
    served.fs.unlink((ROOT, b"f")).unwrap();
    served.fs.files.remove(first);
    for number in 0..50 {
        assert_ne!(served.create(ROOT, &format!("g{number}")), first);
    }
    served.fs.forget(first, 1);
    assert_eq!(served.fs.getattr(first).unwrap_err(), Errno::STALE);
}

/// "Every path ... is built and used under the shared tree lock, and what was opened must be the node's (dev, ino)"
/// (DESIGN section 4).
#[test]
fn another_object_at_a_node_s_name_is_not_taken_for_it() {
    let served = serve();
    let file = served.create(ROOT, "file");
    // As somebody may do who reaches below the mount.
    std::fs::write(served.path().join("other"), "other's").unwrap();
    std::fs::rename(served.path().join("other"), served.path().join("file")).unwrap();
    let before = std::fs::metadata(served.path().join("file")).unwrap().mode();
    assert_eq!(served.fs.chmod(file, 0o4711), Err(Errno::STALE));
    assert_eq!(std::fs::metadata(served.path().join("file")).unwrap().mode(), before);
    let dir = served.mkdir(ROOT, "dir");
    for (from, to) in [("dir", "away"), ("elsewhere", "dir")] {
        let _made = std::fs::create_dir(served.path().join("elsewhere"));
        std::fs::rename(served.path().join(from), served.path().join(to)).unwrap();
    }
    served.fs.dirs.remove(dir);
    let made = served.fs.mknod((dir, b"new"), 0o644, 0, 0, served.fs.owner);
    assert_eq!(made.map(drop), Err(Errno::STALE));
    assert_eq!(std::fs::read_dir(served.path().join("dir")).unwrap().count(), 0);
    assert_eq!(served.ops().len(), 2, "nothing of it is recorded");
}

/// "An operation that fails after it changed something (... chown refused after a create ...) is undone under the locks, or its
/// outcome is recorded" (DESIGN section 4).
#[test]
fn what_its_owner_can_not_be_given_is_taken_away_again() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let served = serve();
    // This thread alone may not chown(2).
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::CHOWN);
    set_capabilities(None, sets).unwrap();
    let made = served.fs.mknod((ROOT, b"file"), 0o644, 0, 0, NOBODY);
    assert_eq!(made.map(drop), Err(Errno::PERM));
    let made = served.fs.mkdir((ROOT, b"dir"), 0o755, 0, NOBODY);
    assert_eq!(made.map(drop), Err(Errno::PERM));
    assert_eq!(std::fs::read_dir(served.path()).unwrap().count(), 0);
    let ops = served.ops();
    let [Op::Attr(_), Op::Attr(_)] = &ops[..] else { panic!("the mtime of the directory: {ops:?}") };
}

#[test]
fn the_open_fds_stay_few_however_many_files_are_used() {
    let served = serve();
    let mut files = Vec::new();
    for number in 0..1000 {
        files.push(served.create(ROOT, &number.to_string()));
    }
    for file in files {
        served.fs.write(file, 0, b"x").unwrap();
    }
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 800, "{open} fds");
}

#[test]
fn an_exchange_of_directories_moves_the_paths_below_both() {
    let served = serve();
    let (a, b) = (served.mkdir(ROOT, "a"), served.mkdir(ROOT, "b"));
    let (x, y) = (served.create(a, "x"), served.create(b, "y"));
    served.fs.rename((ROOT, b"a"), (ROOT, b"b"), rustix::fs::RenameFlags::EXCHANGE.bits()).unwrap();
    let tree = served.fs.commit().order().exclusive();
    let _turn = Turn::Tree(&tree);
    assert_eq!(served.fs.nodes.path(x).unwrap().unwrap().as_bytes(), b"b/x");
    assert_eq!(served.fs.nodes.path(y).unwrap().unwrap().as_bytes(), b"a/y");
}

/// An ACL that says no more than the mode sets the mode and leaves no ACL: a record like any other, and no reason
/// to compare what lies below.
#[test]
fn an_acl_that_leaves_none_is_recorded_as_a_mode() {
    let served = serve();
    let dir = served.mkdir(ROOT, "d");
    let name = b"system.posix_acl_access";
    // acl(5) as linux/posix_acl_xattr.h has it: version 2, then {tag, permissions, id} of owner, group, others.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions) in [(1u8, 7u8), (4, 5), (0x20, 1)] {
        acl.extend_from_slice(&[tag, 0, permissions, 0, 0xff, 0xff, 0xff, 0xff]);
    }
    match served.fs.set_xattr(dir, (name, &acl), 0, served.fs.owner) {
        Err(Errno::OPNOTSUPP) => return eprintln!("SKIPPED: the file system of temporary files has no ACLs"),
        set => set.unwrap(),
    }
    let Some(Op::Xattr(XattrOp::Remove { mode, .. })) = served.ops().pop() else {
        panic!("{:?}", served.ops())
    };
    assert_eq!(mode, Some(0o751));
}
