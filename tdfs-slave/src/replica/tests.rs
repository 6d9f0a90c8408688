//! Tests of a replica's life: new, filled, streaming, killed, diverged, stalled, refused.

use super::*;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use tdfs_wire::answer::{Found, Stretch, Wanted};
use tdfs_wire::object::{Child, Kind};
use tdfs_wire::op::{DataOp, NamespaceOp, NewObject, RenameMode};
use tdfs_wire::trail::Extent;
use tdfs_wire::{Epoch, Name, Time, TreePath};

mod adopt;
mod kills;
mod looks;
mod sync;

const EPOCH: Epoch = Epoch { number: 1, id: Id([9; 16]) };
const FILESYSTEM: Id = Id([3; 16]);
const T: Time = Time { sec: 77, nsec: 1 };

/// A tree that answers as a master does, a replica directory and a state directory.
const RESYNC: Plan = Plan::Resync { checksum: false };

struct Scene {
    dir: tempfile::TempDir,
    lsn: u64,
}

impl Scene {
    fn new() -> Scene {
        let dir = tempfile::tempdir().unwrap();
        for name in ["master", "replica"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Scene { dir, lsn: 0 }
    }

    fn master(&self, name: &str) -> PathBuf {
        self.dir.path().join("master").join(name)
    }

    fn replica(&self, name: &str) -> PathBuf {
        self.dir.path().join("replica").join(name)
    }

    fn open(&self) -> Replica {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> anyhow::Result<Replica> {
        self.try_open_with(false)
    }

    fn try_open_with(&self, adopt: bool) -> anyhow::Result<Replica> {
        when_unlocked(|| self.open_at_once(adopt))
    }

    fn open_at_once(&self, adopt: bool) -> anyhow::Result<Replica> {
        crate::open_replica(&self.replica(""), &self.dir.path().join("state"), adopt)
    }

    fn begin(&self, plan: Plan) -> Begin {
        Begin { epoch: EPOCH, after: Lsn::new(self.lsn), plan, check: false }
    }

    /// A replica that was made equal.
    fn equal(&self) -> Replica {
        let mut replica = self.open();
        replica.begin(FILESYSTEM, &self.begin(RESYNC)).unwrap();
        self.answer_all(&mut replica);
        assert!(matches!(replica.standing(), Standing::Equal { .. }));
        replica
    }

    /// Answers wants until there are none.
    fn answer_all(&self, replica: &mut Replica) {
        loop {
            let wants = replica.wants();
            if wants.is_empty() {
                return;
            }
            for want in wants {
                let (answer, bulk) = self.answer(&want);
                replica.answer(Lsn::new(self.lsn), &answer, &bulk).unwrap();
            }
        }
    }

    fn answer(&self, want: &Want) -> (Answer, Vec<u8>) {
        let mut tree = Target::open(&self.master("")).unwrap();
        let (id, path) = (want.id, want.path.clone());
        let Ok(fd) = tree.object(&want.path) else {
            return (Answer { id, path, found: Found::Gone }, Vec::new());
        };
        let (stat, meta) = describe(fd.as_fd());
        let (found, bulk) = match &want.what {
            Wanted::Listing { .. } => {
                (Found::Listing { meta, children: children(fd.as_fd()), last: true }, Vec::new())
            }
            Wanted::Object { offset, .. } => {
                let is_file = meta.kind == Kind::File && *offset == 0 && meta.size > 0;
                let bulk =
                    if is_file { fs::read(self.master(&path.to_string()[1..])).unwrap() } else { Vec::new() };
                let len = u32::try_from(bulk.len()).unwrap();
                let stretches = if is_file { vec![Stretch::Data(len)] } else { Vec::new() };
                let (ino, links) = (stat.stx_ino, u64::from(stat.stx_nlink));
                (Found::Object { meta, ino, links, stretches }, bulk)
            }
        };
        (Answer { id, path, found }, bulk)
    }

    fn apply(&mut self, replica: &mut Replica, op: Op, bulk: &[u8]) -> Result<(), Stall> {
        let record =
            Record { lsn: Lsn::new(self.lsn + 1), time_ns: 0, crc: 0, op, owners: Owners::default(), bulk };
        replica.apply(&record)?;
        self.lsn += 1;
        Ok(())
    }
}

/// Opens a replica. Another test starts a process: until its exec that holds the locks of all replicas.
pub fn when_unlocked(open: impl Fn() -> anyhow::Result<Replica>) -> anyhow::Result<Replica> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match open() {
            Err(e) if Instant::now() < until && e.to_string().contains("process") => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
}

fn describe(fd: BorrowedFd<'_>) -> (rustix::fs::Statx, tdfs_wire::object::Meta) {
    let stat = object::stat(fd).unwrap();
    let meta = object::meta(fd, &stat).unwrap();
    (stat, meta)
}

fn children(dir: BorrowedFd<'_>) -> Vec<Child> {
    let mut names = object::list_names(dir).unwrap();
    names.sort();
    let child = |name: Vec<u8>| {
        let fd = object::open_path(dir, &name).unwrap();
        let (stat, meta) = describe(fd.as_fd());
        Child { name: Name::new(name).unwrap(), ino: stat.stx_ino, links: u64::from(stat.stx_nlink), meta }
    };
    names.into_iter().map(child).collect()
}

/// As kill -9 leaves it: nothing is said or written any more.
fn kill(mut replica: Replica) {
    replica.doubt.get_or_insert([0, 0]);
    drop(replica);
}

fn p(path: &str) -> TreePath {
    TreePath::new(path.as_bytes()).unwrap()
}

fn create(path: &str) -> Op {
    let (mtime, parent_mtime) = (T, T);
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let (access_acl_bytes, default_acl_bytes) = (0, 0);
    let path = p(path);
    let new =
        NewObject { path, mode: 0o644, uid, gid, mtime, parent_mtime, access_acl_bytes, default_acl_bytes };
    Op::Namespace(NamespaceOp::Create(new))
}

fn write(path: &str) -> Op {
    Op::Data(DataOp::Write { path: p(path), offset: 0, mtime: T })
}

fn unlink(path: &str) -> Op {
    Op::Namespace(NamespaceOp::Unlink { path: p(path), parent_mtime: T, links: 0 })
}

#[test]
fn an_empty_directory_becomes_equal_and_goes_on_after_a_clean_end() {
    let mut scene = Scene::new();
    fs::create_dir(scene.master("d")).unwrap();
    fs::write(scene.master("d/f"), "content").unwrap();
    symlink("d/f", scene.master("s")).unwrap();
    let mut replica = scene.open();
    assert_eq!(replica.standing(), Standing::New);
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    assert!(replica.report().resyncing);
    scene.answer_all(&mut replica);
    assert_eq!(fs::read(scene.replica("d/f")).unwrap(), b"content");
    scene.apply(&mut replica, create("new"), b"").unwrap();
    let id = replica.replica();
    drop(replica);
    let mut replica = scene.open();
    let applied = Position { epoch: EPOCH, lsn: Lsn::new(1) };
    assert_eq!(replica.standing(), Standing::Equal { applied, durable: Lsn::new(1) });
    assert_eq!((replica.replica(), replica.filesystem()), (id, Some(FILESYSTEM)));
    replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).unwrap();
    scene.apply(&mut replica, write("new"), b"more").unwrap();
    assert_eq!(fs::read(scene.replica("new")).unwrap(), b"more");
}

/// DESIGN section 8: "After a kill at most that one record is in doubt."
#[test]
fn the_record_in_doubt_is_redone_after_a_kill() {
    let mut scene = Scene::new();
    let mut replica = scene.equal();
    let rename = |from: &str, to: &str| {
        let (from_parent_mtime, to_parent_mtime, mode) = (T, T, RenameMode::Exchange);
        Op::Namespace(NamespaceOp::Rename {
            from: p(from),
            to: p(to),
            mode,
            from_parent_mtime,
            to_parent_mtime,
            links: 0,
        })
    };
    let ops = [create("f"), create("g"), write("f"), rename("f", "g"), rename("f", "g"), unlink("f")];
    for op in ops {
        scene.apply(&mut replica, op, b"bulk").unwrap();
        kill(replica);
        replica = scene.open();
        assert_eq!(replica.applied(), Lsn::new(scene.lsn - 1), "the last one may not have been done");
        scene.lsn -= 1;
        replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).unwrap();
        let op = match scene.lsn {
            0 => create("f"),
            1 => create("g"),
            2 => write("f"),
            3 | 4 => rename("f", "g"),
            _ => unlink("f"),
        };
        scene.apply(&mut replica, op, b"bulk").unwrap();
    }
    assert_eq!(replica.report().divergences, 0);
    assert!(!scene.replica("f").exists());
    assert_eq!(fs::read(scene.replica("g")).unwrap(), b"");
}

#[test]
fn a_directory_with_somebodys_data_is_refused() {
    let scene = Scene::new();
    fs::write(scene.replica("thesis"), "years of work").unwrap();
    let mut replica = scene.open();
    let why = replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap_err();
    assert!(why.contains("neither empty nor a replica"), "{why}");
    assert_eq!(replica.standing(), Standing::New);
    assert!(scene.replica("thesis").exists());
}

#[test]
fn another_filesystem_is_refused() {
    let scene = Scene::new();
    let mut replica = scene.equal();
    let why = replica.begin(Id([4; 16]), &scene.begin(RESYNC)).unwrap_err();
    assert!(why.contains("is a replica of filesystem"), "{why}");
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
}

#[test]
fn a_stream_that_does_not_begin_here_is_refused() {
    let scene = Scene::new();
    let mut replica = scene.equal();
    let begin = Begin { after: Lsn::new(5), ..scene.begin(Plan::Stream) };
    assert!(replica.begin(FILESYSTEM, &begin).is_err());
    // A later epoch that branched off here is the same history.
    let later = Epoch { number: 2, id: Id([8; 16]) };
    replica
        .begin(FILESYSTEM, &Begin { epoch: later, after: Lsn::ZERO, plan: Plan::Stream, check: false })
        .unwrap();
    let applied = Position { epoch: later, lsn: Lsn::ZERO };
    assert_eq!(replica.standing(), Standing::Equal { applied, durable: Lsn::ZERO });
}

#[test]
fn a_divergence_is_healed_and_counted_once() {
    let mut scene = Scene::new();
    fs::write(scene.master("f"), "the master's").unwrap();
    fs::write(scene.master("other"), "untouched").unwrap();
    let mut replica = scene.equal();
    // Somebody replaces a file by a directory.
    replica.target.drop_all();
    fs::remove_file(scene.replica("f")).unwrap();
    fs::create_dir(scene.replica("f")).unwrap();
    fs::write(scene.replica("f/in the way"), "").unwrap();
    fs::write(scene.master("f"), "MORE: master's").unwrap();
    scene.apply(&mut replica, write("f"), b"MORE").unwrap();
    let report = replica.report();
    assert!(report.resyncing && report.divergences == 1, "{report:?}");
    assert!(report.last_error.unwrap().contains("/f"));
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }));
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"MORE: master's");
    assert_eq!(replica.report().divergences, 1);
}

#[test]
fn a_check_compares_its_paths() {
    let mut scene = Scene::new();
    fs::write(scene.master("f"), "as it should be").unwrap();
    let mut replica = scene.equal();
    fs::write(scene.replica("f"), "tampered").unwrap();
    scene.apply(&mut replica, Op::Check { paths: vec![p("f")] }, b"").unwrap();
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }));
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"as it should be");
}

#[test]
fn a_resync_that_was_not_finished_is_told_after_a_kill() {
    let scene = Scene::new();
    fs::write(scene.master("f"), "x").unwrap();
    let mut replica = scene.open();
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    kill(replica);
    let mut replica = scene.open();
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }));
    assert!(replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).is_err());
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
}

/// DESIGN section 7, rule 9: the standing is "written before the first change of a resync, ..., cleared only
/// when nothing is wanted any more".
#[test]
fn a_replica_killed_with_wants_pending_is_not_equal() {
    let mut scene = Scene::new();
    for name in ["f", "g"] {
        fs::write(scene.master(name), name).unwrap();
    }
    let mut replica = scene.equal();
    for name in ["f", "g"] {
        fs::write(scene.replica(name), "tampered").unwrap();
    }
    // Before anything is asked, not to speak of changed.
    scene.apply(&mut replica, Op::Check { paths: vec![p("f"), p("g")] }, b"").unwrap();
    kill(replica);
    let mut replica = scene.open();
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }));
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    assert_eq!(replica.wants().len(), 1, "the root");
    replica.idle();
    kill(replica);
    let mut replica = scene.open();
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }), "a want is not answered");
    replica.begin(FILESYSTEM, &scene.begin(RESYNC)).unwrap();
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    assert_eq!(fs::read(scene.replica("g")).unwrap(), b"g");
}

/// The state was written in another boot, and not closed.
fn crash(scene: &Scene) {
    let path = scene.dir.path().join("state/applied");
    let (mut applied, _) = Applied::open(&path, Id([5; 16])).unwrap();
    applied.take_in_hand([0, 0]).unwrap();
}

/// DESIGN section 8: "After an OS crash of the slave ... everything since durable is in doubt"; content that is lost
/// may be so at equal size and mtime.
#[test]
fn after_an_os_crash_what_was_not_durable_is_compared_by_hashes() {
    let mut scene = Scene::new();
    fs::create_dir(scene.master("d")).unwrap();
    for name in ["kept", "d/f"] {
        fs::write(scene.master(name), b"1234").unwrap();
    }
    let mut replica = scene.equal();
    let durable = replica.applied.durable();
    scene.apply(&mut replica, create("g"), b"").unwrap();
    kill(replica);
    crash(&scene);
    let lost = scene.replica("d/f");
    let meta = fs::metadata(&lost).unwrap();
    fs::write(&lost, b"zero").unwrap();
    fs::File::options().write(true).open(&lost).unwrap().set_modified(meta.modified().unwrap()).unwrap();
    fs::remove_file(scene.replica("g")).unwrap();
    for _ in 0..2 {
        let replica = scene.open();
        let since = Position { epoch: EPOCH, lsn: durable };
        assert_eq!(replica.standing(), Standing::InDoubt { since }, "also after another start");
        assert!(replica.report().resyncing);
    }
    let mut replica = scene.open();
    assert!(replica.begin(FILESYSTEM, &scene.begin(Plan::Stream)).is_err());
    replica.begin(FILESYSTEM, &scene.begin(Plan::Patch)).unwrap();
    fs::write(scene.master("g"), b"").unwrap();
    let paths = vec![(p(""), Extent::Itself), (p("g"), Extent::All), (p("d"), Extent::All)];
    replica.lost(&Lost { paths, last: true }).unwrap();
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { applied, .. } if applied.lsn.get() == scene.lsn));
    assert_eq!(fs::read(&lost).unwrap(), b"1234");
    assert!(scene.replica("g").exists());
}

/// What is in doubt is told in several messages; if the connection is lost between them, the rest is in doubt still.
#[test]
fn what_is_in_doubt_stays_so_until_all_of_it_was_told() {
    let mut scene = Scene::new();
    let mut replica = scene.equal();
    let since = Position { epoch: EPOCH, lsn: replica.applied.durable() };
    scene.apply(&mut replica, create("f"), b"").unwrap();
    kill(replica);
    crash(&scene);
    let mut replica = scene.open();
    for _ in 0..2 {
        replica.begin(FILESYSTEM, &scene.begin(Plan::Patch)).unwrap();
        replica.lost(&Lost { paths: vec![(p("e"), Extent::All)], last: false }).unwrap();
        assert_eq!((replica.wants(), replica.standing()), (Vec::new(), Standing::InDoubt { since }));
    }
    replica.lost(&Lost { paths: vec![(p(""), Extent::Itself), (p("f"), Extent::All)], last: true }).unwrap();
    assert!(matches!(replica.standing(), Standing::Resyncing { resumable: true, .. }));
    fs::write(scene.master("f"), b"").unwrap();
    scene.answer_all(&mut replica);
    assert!(matches!(replica.standing(), Standing::Equal { applied, .. } if applied.lsn.get() == scene.lsn));
}

/// What a resync had written, and what was applied right before it, may be lost at equal size and mtime.
#[test]
fn a_resync_that_an_os_crash_ended_trusts_nothing() {
    let mut scene = Scene::new();
    let mut replica = scene.equal();
    scene.apply(&mut replica, Op::Check { paths: vec![p("")] }, b"").unwrap();
    assert!(replica.kept.began.is_some());
    kill(replica);
    crash(&scene);
    let replica = scene.open();
    assert!(matches!(replica.standing(), Standing::Resyncing { .. }));
    assert_eq!(replica.kept.began, None);
}

#[test]
fn a_second_slave_on_the_same_directory_is_refused() {
    let scene = Scene::new();
    let _replica = scene.open();
    let said = scene.open_at_once(false).err().unwrap().to_string();
    assert!(said.contains("in use"), "{said}");
    let other_state = scene.dir.path().join("other");
    let said = crate::open_replica(&scene.replica(""), &other_state, false).err().unwrap().to_string();
    assert!(said.contains("is served by another process"), "{said}");
}

#[test]
fn a_stall_is_told_and_the_record_is_tried_again() {
    let mut scene = Scene::new();
    let mut replica = scene.equal();
    scene.apply(&mut replica, create("f"), b"").unwrap();
    replica.target.drop_all();
    // A running program can't be written to.
    fs::copy("/bin/sleep", scene.replica("f")).unwrap();
    fs::set_permissions(scene.replica("f"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut program = std::process::Command::new(scene.replica("f")).arg("60").spawn().unwrap();
    let stall = scene.apply(&mut replica, write("f"), b"new").unwrap_err();
    assert!(stall.why.contains("ETXTBSY"), "{}", stall.why);
    assert!(replica.report().stalled.unwrap().contains("record 2"));
    assert_eq!(replica.applied(), Lsn::new(1));
    program.kill().unwrap();
    program.wait().unwrap();
    scene.apply(&mut replica, write("f"), b"new").unwrap();
    assert_eq!((replica.report().stalled, replica.report().divergences), (None, 0));
}

#[test]
fn what_somebody_did_shows_when_the_caches_are_a_second_old() {
    let mut scene = Scene::new();
    let mut replica = scene.equal();
    scene.apply(&mut replica, create("f"), b"").unwrap();
    fs::remove_file(scene.replica("f")).unwrap();
    replica.cached_since = Instant::now().checked_sub(CACHE_AGE_MAX).unwrap();
    replica.idle();
    fs::write(scene.master("f"), "written").unwrap();
    scene.apply(&mut replica, write("f"), b"written").unwrap();
    assert_eq!(replica.report().divergences, 1);
    scene.answer_all(&mut replica);
    assert_eq!(fs::read(scene.replica("f")).unwrap(), b"written");
}

/// Not a test: what the records of one small new file cost. Run with --release -- --ignored --nocapture.
#[test]
#[ignore = "measures; says nothing about right or wrong"]
fn measure_the_cost_of_a_record() {
    let mut scene = Scene { dir: tempfile::tempdir_in("/dev/shm").unwrap(), lsn: 0 };
    fs::create_dir(scene.dir.path().join("master")).unwrap();
    fs::create_dir(scene.dir.path().join("replica")).unwrap();
    let mut replica = scene.equal();
    let mkdir = match create("d") {
        Op::Namespace(NamespaceOp::Create(new)) => {
            Op::Namespace(NamespaceOp::Mkdir(NewObject { mode: 0o755, ..new }))
        }
        other => other,
    };
    scene.apply(&mut replica, mkdir, b"").unwrap();
    let bulk = vec![7; 4096];
    let mut spent = [Duration::ZERO; 4];
    const FILES: u32 = 20_000;
    for i in 0..FILES {
        let path = format!("d/f{i}");
        let mode = Op::Attr(AttrOp::Mode { path: p(&path), mode: 0o600 });
        let times = Op::Attr(AttrOp::Times { path: p(&path), mtime: T });
        for (op, spent) in [create(&path), write(&path), mode, times].into_iter().zip(&mut spent) {
            let began = Instant::now();
            scene.apply(&mut replica, op, &bulk).unwrap();
            *spent += began.elapsed();
        }
    }
    let each = spent.map(|spent| spent / FILES);
    println!("create {:?}, write 4 KiB {:?}, chmod {:?}, times {:?}", each[0], each[1], each[2], each[3]);
}
