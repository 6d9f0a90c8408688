//! Tests of what is found out about changes that a kill left without a record: each intent, with the change not
//! done, done, and half done.

use super::super::tests::{Served, serve};
use super::super::{ROOT, SetTime, SetTimes};
use super::*;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use tdfs_wire::Lsn;

fn path(name: &str) -> TreePath {
    TreePath::new(name.as_bytes()).unwrap()
}

/// A kill after `act`, which began as `intent` says: returns what the next start records.
fn killed(served: &Served, intent: &Intent, act: impl FnOnce()) -> Vec<Op> {
    let commit = served.fs.commit();
    let before = served.ops().len();
    std::mem::forget(commit.slots().note(intent, commit.log().head()));
    act();
    served.fs.finish_unfinished().unwrap();
    assert_eq!(commit.slots().unfinished().unwrap(), []);
    let ops = served.ops().split_off(before);
    served.fs.finish_unfinished().unwrap();
    assert_eq!(served.ops().len(), before + ops.len(), "once is enough");
    ops
}

fn ino(served: &Served, name: &str) -> u64 {
    fs::symlink_metadata(served.path().join(name)).unwrap().ino()
}

fn mtime(served: &Served, name: &str) -> tdfs_wire::Time {
    let meta = fs::symlink_metadata(served.path().join(name)).unwrap();
    tdfs_wire::Time { sec: meta.mtime(), nsec: u32::try_from(meta.mtime_nsec()).unwrap() }
}

fn make(name: &str, caller: Caller) -> Intent {
    Intent::Make { path: path(name), uid: caller.uid, gid: caller.gid }
}

/// DESIGN section 4: "At the next start the master looks at each slot that is set, finds out what happened, and
/// appends that". Not made: only the directory's mtime is told, for it may have been made and taken away.
#[test]
fn what_was_not_made_is_not_recorded() {
    let served = serve();
    let dir = served.mkdir(ROOT, "d");
    let ops = killed(&served, &make("d/f", served.fs.owner), || {});
    let Op::Attr(AttrOp::Times { path: told, mtime: time }) = &ops[..][0] else { panic!("{ops:?}") };
    assert_eq!((ops.len(), told, *time), (1, &path("d"), mtime(&served, "d")));
    served.create(dir, "g");
}

/// All kinds of objects, with present attributes; half made ones get their owner.
#[test]
fn what_was_made_gets_its_owner_and_its_record() {
    let served = serve();
    let root = served.path().to_owned();
    let owner = Caller { uid: 1234, gid: 1235, pid: 0 };
    let owner = if rustix::process::geteuid().is_root() { owner } else { served.fs.owner };
    let at = |name: &str| root.join(name);
    let node = |name: &str, kind: rustix::fs::FileType| {
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, rustix::fs::Mode::from_raw_mode(0o600), 0)
            .unwrap();
    };
    let ops: Vec<Op> = [
        killed(&served, &make("file", owner), || fs::write(at("file"), "").unwrap()),
        killed(&served, &make("dir", owner), || fs::create_dir(at("dir")).unwrap()),
        killed(&served, &make("link", owner), || symlink("target", at("link")).unwrap()),
        killed(&served, &make("fifo", owner), || node("fifo", rustix::fs::FileType::Fifo)),
        killed(&served, &make("sock", owner), || node("sock", rustix::fs::FileType::Socket)),
    ]
    .concat();
    assert_eq!(ops.len(), 5, "{ops:?}");
    for (op, name) in ops.iter().zip(["file", "dir", "link", "fifo", "sock"]) {
        let Op::Namespace(op) = op else { panic!("{op:?}") };
        let (new, right) = match op {
            NamespaceOp::Create(new) => (new, name == "file"),
            NamespaceOp::Mkdir(new) => (new, name == "dir"),
            NamespaceOp::Symlink { new, target } => (new, name == "link" && target == b"target"),
            NamespaceOp::Mknod { new, node: Node::Fifo } => (new, name == "fifo"),
            NamespaceOp::Mknod { new, node: Node::Socket } => (new, name == "sock"),
            other => panic!("{other:?}"),
        };
        let stat = fs::symlink_metadata(at(name)).unwrap();
        assert!(right && new.path == path(name), "{op:?}");
        assert_eq!((new.uid, new.gid), (owner.uid, owner.gid));
        assert_eq!((stat.uid(), stat.gid()), (owner.uid, owner.gid));
        assert_eq!((new.mode, new.mtime), (stat.mode() & 0o7777, mtime(&served, name)));
    }
}

/// The kernel knew that there was nothing; somebody below the mount did not ask it. His file stays as it is.
#[test]
fn what_was_there_before_is_not_taken_for_new() {
    let served = serve();
    fs::write(served.path().join("f"), "somebody's").unwrap();
    fs::create_dir_all(served.path().join("d/e")).unwrap();
    for name in ["f", "d"] {
        assert_eq!(killed(&served, &make(name, Caller { uid: 1, gid: 1, pid: 0 }), || {}), []);
    }
    assert_eq!(fs::read(served.path().join("f")).unwrap(), b"somebody's");
}

/// What was recorded before the kill is not recorded again: a slave would not find what to remove.
#[test]
fn what_is_in_the_log_already_is_not_recorded_again() {
    let served = serve();
    let dir = served.mkdir(ROOT, "d");
    let file = served.create(dir, "f");
    let remove = Intent::Remove { path: path("d/f"), ino: file, directory: false, links: 0 };
    let ops = killed(&served, &remove, || served.fs.unlink((dir, b"f")).unwrap());
    assert_eq!(ops.len(), 1, "{ops:?}");
    let ops = killed(&served, &make("d/g", served.fs.owner), || {
        served.create(dir, "g");
    });
    assert_eq!(ops.len(), 1, "{ops:?}");
    served.create(dir, "a");
    let (source, target) = (ino(&served, "d/a"), Some(ino(&served, "d/g")));
    let rename =
        Intent::Rename { from: path("d/a"), to: path("d/g"), source, target, exchange: false, links: 0 };
    let ops = killed(&served, &rename, || served.fs.rename((dir, b"a"), (dir, b"g"), 0).unwrap());
    assert_eq!(ops.len(), 1, "{ops:?}");
    let link = Intent::Link { from: Some(path("d/g")), to: path("d/l"), ino: source };
    let ops = killed(&served, &link, || assert!(served.fs.link(source, (dir, b"l")).is_ok()));
    assert_eq!(ops.len(), 1, "{ops:?}");
    let range = super::super::Range { offset: 0, len: 4096 };
    served.fs.write(source, 0, &[1; 8192]).unwrap();
    let collapse = 0x08;
    let intent =
        Intent::Allocate { path: path("d/g"), ino: source, mode: collapse, offset: 0, len: 4096, size: 8192 };
    let act = || served.fs.allocate(source, range, collapse);
    let mut done = Ok(());
    let ops = killed(&served, &intent, || done = act());
    assert_eq!(ops.len(), usize::from(done.is_ok()), "{done:?} {ops:?}");
}

#[test]
fn names_that_went_are_recorded_and_names_that_stay_are_not() {
    let served = serve();
    let (file, dir) = (served.create(ROOT, "f"), served.mkdir(ROOT, "d"));
    let unlink = Intent::Remove { path: path("f"), ino: file, directory: false, links: 0 };
    let rmdir = Intent::Remove { path: path("d"), ino: dir, directory: true, links: 0 };
    assert_eq!([killed(&served, &unlink, || {}), killed(&served, &rmdir, || {})].concat(), []);
    let ops = killed(&served, &unlink, || fs::remove_file(served.path().join("f")).unwrap());
    let parent_mtime = mtime(&served, "");
    assert_eq!(ops, [Op::Namespace(NamespaceOp::Unlink { path: path("f"), parent_mtime, links: 0 })]);
    let ops = killed(&served, &rmdir, || fs::remove_dir(served.path().join("d")).unwrap());
    let parent_mtime = mtime(&served, "");
    assert_eq!(ops, [Op::Namespace(NamespaceOp::Rmdir { path: path("d"), parent_mtime })]);
}

#[test]
fn links_and_renames_are_told_by_the_inodes() {
    let served = serve();
    let root = served.path().to_owned();
    let (a, b) = (served.create(ROOT, "a"), served.create(ROOT, "b"));
    let link = Intent::Link { from: Some(path("a")), to: path("l"), ino: a };
    assert_eq!(killed(&served, &link, || {}), []);
    let ops = killed(&served, &link, || fs::hard_link(root.join("a"), root.join("l")).unwrap());
    assert!(matches!(&ops[..], [Op::Namespace(NamespaceOp::Link { to, .. })] if *to == path("l")), "{ops:?}");
    let unknown = Intent::Link { from: None, to: path("l"), ino: a };
    let ops = killed(&served, &unknown, || {});
    assert_eq!(ops, [Op::Check { paths: vec![TreePath::root(), path("l")] }]);

    let rename = |from: &str, to: &str, (source, target), exchange| Intent::Rename {
        from: path(from),
        to: path(to),
        source,
        target,
        exchange,
        links: 0,
    };
    let mode_of = |ops: &[Op]| match ops {
        [] => None,
        [Op::Namespace(NamespaceOp::Rename { mode, from_parent_mtime, .. })] => {
            assert_eq!(*from_parent_mtime, mtime(&served, ""));
            Some(*mode)
        }
        other => panic!("{other:?}"),
    };
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let exchange =
        || rustix::fs::renameat_with(rustix::fs::CWD, root.join("a"), rustix::fs::CWD, root.join("b"), flags);
    let swap = rename("a", "b", (a, Some(b)), true);
    assert_eq!(mode_of(&killed(&served, &swap, || {})), None);
    assert_eq!(mode_of(&killed(&served, &swap, || exchange().unwrap())), Some(RenameMode::Exchange));
    // Now `a` is the second file, `b` the first.
    let replace = rename("a", "b", (b, Some(a)), false);
    assert_eq!(mode_of(&killed(&served, &replace, || {})), None);
    let ops = killed(&served, &replace, || fs::rename(root.join("a"), root.join("b")).unwrap());
    assert_eq!(mode_of(&ops), Some(RenameMode::Replace));
    let plain = rename("b", "c", (b, None), false);
    assert_eq!(mode_of(&killed(&served, &plain, || {})), None);
    let ops = killed(&served, &plain, || fs::rename(root.join("b"), root.join("c")).unwrap());
    assert_eq!(mode_of(&ops), Some(RenameMode::NoReplace));
    // Two names of one file: rename(2) does nothing.
    fs::hard_link(root.join("c"), root.join("d")).unwrap();
    let nothing = rename("c", "d", (b, Some(b)), false);
    assert_eq!(mode_of(&killed(&served, &nothing, || {})), None);
}

fn bytes_of(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

/// The content of a file as ops make it, from what a replica had.
fn replayed(served: &Served, before: usize, mut content: Vec<u8>) -> Vec<u8> {
    let log = served.fs.commit().log();
    let mut cursor = log.cursor(Lsn::new(before as u64)).unwrap();
    while let Some(batch) = cursor.read(log.head(), 8 << 20).unwrap() {
        let mut bytes = &batch.bytes[..];
        while !bytes.is_empty() {
            let (record, len) = tdfs_wire::record::Record::parse(bytes).unwrap();
            match record.op {
                Op::Data(DataOp::Write { offset, .. }) => {
                    let at = bytes_of(offset);
                    let end = at + record.bulk.len();
                    content.resize(content.len().max(end), 0);
                    content[at..end].copy_from_slice(record.bulk);
                }
                Op::Data(DataOp::Truncate { size, .. }) => content.resize(bytes_of(size), 0),
                Op::Data(DataOp::Allocate { mode: 3, offset, len, .. }) => {
                    let end = (offset + len).min(content.len() as u64);
                    content[bytes_of(offset)..bytes_of(end)].fill(0);
                }
                other => panic!("{other:?}"),
            }
            bytes = &bytes[len..];
        }
    }
    content
}

/// "for a write: the range's present bytes" (DESIGN section 4), also where they are more than a record holds, and
/// where holes are among them.
#[test]
fn a_range_is_told_as_it_is_now() {
    for (offset, len, written) in [
        (5u64, 100u64, 0usize), // nothing was written
        (5, 100, 100),
        (5, 100, 30),                   // half of it
        (10_000, 3_000_000, 3_000_000), // several records, and the file grows
        (10_000, 3_000_000, 1_500_000), // half, and it grows
        (40_000_000, 1_000, 1_000),     // a hole before it
        (1_000, 30_000_000, 0),         // a copy that was long and did not begin
    ] {
        let served = serve();
        let file = served.create(ROOT, "f");
        served.fs.write(file, 0, &[7; 20_000]).unwrap();
        let (before, old) = (served.ops().len(), fs::read(served.path().join("f")).unwrap());
        let intent = Intent::Content { path: path("f"), ino: file, offset, len };
        let backing = fs::File::options().write(true).open(served.path().join("f")).unwrap();
        let ops = killed(&served, &intent, || backing.write_all_at(&vec![9; written], offset).unwrap());
        let Some(Op::Data(DataOp::Truncate { mtime: time, .. })) = ops.last() else { panic!("{ops:?}") };
        assert_eq!(*time, mtime(&served, "f"));
        let now = fs::read(served.path().join("f")).unwrap();
        // The killed helper ran twice over the log; what matters is the end.
        assert!(replayed(&served, before, old) == now, "offset {offset}, {written} of {len} bytes");
    }
}

/// P3: "holes stay holes", also where the copy left one.
#[test]
fn holes_of_a_range_are_told_as_holes() {
    let served = serve();
    let file = served.create(ROOT, "f");
    served.fs.write(file, 0, &[7; 4096]).unwrap();
    let backing = fs::File::options().write(true).open(served.path().join("f")).unwrap();
    let intent = Intent::Content { path: path("f"), ino: file, offset: 0, len: 40 << 20 };
    let ops = killed(&served, &intent, || backing.write_all_at(&[9; 4096], 32 << 20).unwrap());
    let bulk = served.fs.commit().log().bytes_after(Lsn::new(2));
    let holes = ops.iter().filter(|op| matches!(op, Op::Data(DataOp::Allocate { mode: 3, .. }))).count();
    assert!(holes == 1 && bulk < 1 << 20, "{holes} holes, {bulk} bytes");
}

#[test]
fn sizes_are_told_as_they_are() {
    let served = serve();
    let file = served.create(ROOT, "f");
    served.fs.write(file, 0, &[7; 100]).unwrap();
    let backing = fs::File::options().write(true).open(served.path().join("f")).unwrap();
    let intent = Intent::Truncate { path: path("f"), ino: file };
    for size in [100, 10, 5_000] {
        let ops = killed(&served, &intent, || backing.set_len(size).unwrap());
        let mtime = mtime(&served, "f");
        assert_eq!(ops, [Op::Data(DataOp::Truncate { path: path("f"), size, mtime })]);
    }
}

/// What moves content is told by the size; all else is done again.
#[test]
fn an_allocation_is_finished() {
    let served = serve();
    let file = served.create(ROOT, "f");
    served.fs.write(file, 0, &[7; 16384]).unwrap();
    let backing = fs::File::options().write(true).open(served.path().join("f")).unwrap();
    let allocate = |mode: FallocateFlags, offset, len| rustix::fs::fallocate(&backing, mode, offset, len);
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let intent = |mode: FallocateFlags, offset, len, size| Intent::Allocate {
        path: path("f"),
        ino: file,
        mode: mode.bits(),
        offset,
        len,
        size,
    };
    // Half punched: the rest is punched now.
    let ops = killed(&served, &intent(punch, 0, 8192, 16384), || allocate(punch, 0, 4096).unwrap());
    assert!(
        matches!(&ops[..], [Op::Data(DataOp::Allocate { mode: 3, offset: 0, len: 8192, size: 16384, .. })]),
        "{ops:?}"
    );
    let content = fs::read(served.path().join("f")).unwrap();
    assert!(content[..8192].iter().all(|byte| *byte == 0) && content[8192..].iter().all(|byte| *byte == 7));
    // Not begun: done.
    let ops = killed(&served, &intent(FallocateFlags::empty(), 0, 20_000, 16384), || {});
    assert!(matches!(&ops[..], [Op::Data(DataOp::Allocate { mode: 0, size: 20_000, .. })]), "{ops:?}");
    // Without room the file is as long as it was.
    let ops = killed(&served, &intent(FallocateFlags::empty(), 0, 1 << 60, 20_000), || {
        backing.set_len(30_000).unwrap()
    });
    assert!(matches!(ops.last(), Some(Op::Data(DataOp::Truncate { size: 20_000, .. }))), "{ops:?}");
    backing.set_len(16384).unwrap();
    for (flag, size) in [(FallocateFlags::COLLAPSE_RANGE, 12288), (FallocateFlags::INSERT_RANGE, 16384)] {
        let before = fs::metadata(served.path().join("f")).unwrap().len();
        assert_eq!(killed(&served, &intent(flag, 4096, 4096, before), || {}), []);
        if allocate(flag, 4096, 4096).is_err() {
            return eprintln!("SKIPPED: the file system can't move content");
        }
        let ops = killed(&served, &intent(flag, 4096, 4096, before), || {});
        assert!(
            matches!(&ops[..], [Op::Data(DataOp::Allocate { size: told, .. })] if *told == size),
            "{ops:?}"
        );
    }
}

#[test]
fn attributes_are_told_as_they_are() {
    let served = serve();
    let file = served.create(ROOT, "f");
    let at = served.path().join("f");
    let intent = |what| Intent::Attr { path: path("f"), ino: file, what };
    let ops = killed(&served, &intent(Attribute::Mode), || {
        fs::set_permissions(&at, fs::Permissions::from_mode(0o751)).unwrap();
    });
    assert_eq!(ops, [Op::Attr(AttrOp::Mode { path: path("f"), mode: 0o751 })]);
    let to = SetTime::To(tdfs_wire::Time { sec: 77, nsec: 5 });
    let ops = killed(&served, &intent(Attribute::Times), || {
        let file = fs::File::open(&at).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(77, 5)).unwrap();
    });
    let SetTime::To(time) = to else { unreachable!() };
    assert_eq!(ops, [Op::Attr(AttrOp::Times { path: path("f"), mtime: time })]);
    served.fs.set_times(file, SetTimes { atime: None, mtime: Some(to) }).unwrap();
    let ops = killed(&served, &intent(Attribute::Owner), || {});
    let stat = fs::metadata(&at).unwrap();
    let owner = AttrOp::Owner { path: path("f"), uid: stat.uid(), gid: stat.gid(), mode: 0o751 };
    assert!(matches!(&ops[..], [Op::Attr(told), Op::Xattr(_)] if *told == owner), "{ops:?}");
}

#[test]
fn xattrs_are_told_as_they_are() {
    let served = serve();
    let file = served.create(ROOT, "f");
    let name = XattrName::new(*b"user.x").unwrap();
    let open = fs::File::options().write(true).open(served.path().join("f")).unwrap();
    let set =
        |value: &[u8]| object::set_xattr(open.as_fd(), b"user.x", value, rustix::fs::XattrFlags::empty());
    if set(b"old") == Err(Errno::OPNOTSUPP) {
        return eprintln!("SKIPPED: the file system of temporary files has no xattrs");
    }
    let intent = Intent::Xattr { path: path("f"), ino: file, name: name.clone() };
    let ops = killed(&served, &intent, || set(b"new").unwrap());
    assert_eq!(
        ops,
        [Op::Xattr(tdfs_wire::op::XattrOp::Set { path: path("f"), name: name.clone(), mode: None })]
    );
    let ops = killed(&served, &intent, || object::remove_xattr(open.as_fd(), b"user.x").unwrap());
    assert_eq!(ops, [Op::Xattr(tdfs_wire::op::XattrOp::Remove { path: path("f"), name, mode: None })]);
}

/// DESIGN section 4, of what has links but no known name: "the inode is noted durably, a walk of the tree finds a
/// name, then the object is checked on all slaves".
#[test]
fn what_was_lost_is_looked_for() {
    let served = serve();
    let dir = served.mkdir(ROOT, "d");
    let file = served.create(dir, "f");
    let ops = killed(&served, &Intent::Lost { ino: file }, || {});
    assert_eq!(ops, [Op::Check { paths: vec![path("d/f")] }]);
    assert_eq!(served.fs.commit().slots().lost(), Vec::<u64>::new());
    // One that has no name any more is nobody's.
    assert_eq!(killed(&served, &Intent::Lost { ino: u64::MAX }, || {}), []);
}
