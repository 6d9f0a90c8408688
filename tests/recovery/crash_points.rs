//! The master is killed at each crash point of each operation: before and after every system call that changes the
//! tree, and before and after the append. Slaves notice nothing but a lost connection.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use harness::{Caller, Cluster};
use rustix::fs::{CWD, FallocateFlags, FileType, Mode, RenameFlags, XattrFlags};

use crate::{SOON, cluster};

/// One operation: what has to be there, what is done, and how many crash points it visits.
struct Case {
    name: &'static str,
    points: u64,
    prepare: fn(&Path),
    act: fn(&Path) -> std::io::Result<()>,
}

const CASES: &[Case] = &[
    case("create", 4, |_| {}, |dir| File::create_new(dir.join("new")).map(drop)),
    // By another user: made, then given to him.
    case("mkdir", 5, opened, |dir| as_nobody(|| fs::create_dir(dir.join("new")))),
    // chown(2) takes the setuid bit away again.
    case("mknod", 6, opened, |dir| as_nobody(|| make_node(&dir.join("new")))),
    case("symlink", 4, |_| {}, |dir| symlink("target", dir.join("new"))),
    case("link", 3, file, |dir| fs::hard_link(dir.join("file"), dir.join("new"))),
    case("unlink", 3, file, |dir| fs::remove_file(dir.join("file"))),
    case("rmdir", 3, two, |dir| fs::remove_dir(dir.join("dir/empty"))),
    case("rename", 3, file, |dir| fs::rename(dir.join("file"), dir.join("new"))),
    case("rename over another", 3, two, |dir| fs::rename(dir.join("file"), dir.join("other"))),
    case("rename a directory", 3, two, |dir| fs::rename(dir.join("dir"), dir.join("new"))),
    case("exchange", 3, two, |dir| {
        let (from, to) = (dir.join("file"), dir.join("dir"));
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE)?)
    }),
    case("write", 3, file, |dir| open(dir)?.write_all_at(&[7; 5000], 9000)),
    case("copy", 3, two, |dir| {
        let (from, to) = (File::open(dir.join("other"))?, open(dir)?);
        Ok(rustix::fs::copy_file_range(from, None, to, None, 100_000).map(drop)?)
    }),
    case("truncate", 3, file, |dir| open(dir)?.set_len(700)),
    case("allocate", 3, file, |dir| allocate(dir, FallocateFlags::empty(), 0, 50_000)),
    case("punch", 3, file, |dir| {
        allocate(dir, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 1000, 9000)
    }),
    case("chmod", 3, file, |dir| fs::set_permissions(dir.join("file"), fs::Permissions::from_mode(0o4711))),
    case("chown", 3, file, |dir| chown(dir.join("file"), Some(65534), Some(65534))),
    case("times", 3, file, |dir| open(dir)?.set_modified(std::time::UNIX_EPOCH)),
    case("set an xattr", 3, file, |dir| {
        Ok(rustix::fs::setxattr(dir.join("file"), "user.new", b"value", XattrFlags::empty())?)
    }),
    case("remove an xattr", 3, file, |dir| Ok(rustix::fs::removexattr(dir.join("file"), "user.old")?)),
];

const fn case(
    name: &'static str,
    points: u64,
    prepare: fn(&Path),
    act: fn(&Path) -> std::io::Result<()>,
) -> Case {
    Case { name, points, prepare, act }
}

fn opened(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}

fn as_nobody(act: impl FnOnce() -> std::io::Result<()> + Send) -> std::io::Result<()> {
    Caller::nobody().run(act)
}

fn make_node(path: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::mknodat(CWD, path, FileType::RegularFile, Mode::from_raw_mode(0o4755), 0)?)
}

fn file(dir: &Path) {
    fs::write(dir.join("file"), [3; 20_000]).unwrap();
    rustix::fs::setxattr(dir.join("file"), "user.old", b"value", XattrFlags::empty()).unwrap();
}

fn two(dir: &Path) {
    file(dir);
    fs::write(dir.join("other"), vec![4; 90_000]).unwrap();
    fs::create_dir_all(dir.join("dir/empty")).unwrap();
}

fn open(dir: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).open(dir.join("file"))
}

fn allocate(dir: &Path, mode: FallocateFlags, offset: u64, len: u64) -> std::io::Result<()> {
    Ok(rustix::fs::fallocate(open(dir)?, mode, offset, len)?)
}

/// A cluster whose first copy is over, and known to be also after a kill: counters are saved once a second.
fn settled() -> Cluster {
    let cluster = cluster().network(1).flag("--no-check").start();
    fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let saved = || fs::read_to_string(cluster.paths.state.join("slaves.json")).unwrap_or_default();
    harness::eventually(SOON, "the first copy is noted", || {
        saved().contains("\"resyncs\": 1") && saved().contains("\"needs_resync\": false")
    });
    cluster
}

/// What no kill may change.
fn standing(cluster: &Cluster) -> (serde_json::Value, u64, u64) {
    let (status, slave) = (cluster.status(), cluster.slave_status(0));
    (status.epoch, slave.resyncs, slave.divergences)
}

/// Does the operation with the master set to die at its crash point `number`; false if there is none.
fn dies_at(cluster: &mut Cluster, case: &Case, number: u64) -> bool {
    let dir = cluster.mount().join(format!("{} {number}", case.name));
    fs::create_dir(&dir).unwrap();
    (case.prepare)(&dir);
    let counting = cluster.master.crash_file();
    fs::write(&counting, number.to_string()).unwrap();
    let done = (case.act)(&dir);
    if let Ok(left) = fs::read_to_string(&counting) {
        fs::remove_file(&counting).unwrap();
        done.unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let visited = number - left.trim().parse::<u64>().unwrap();
        assert_eq!(visited, case.points, "{}: a system call without a crash point?", case.name);
        return false;
    }
    let status = cluster.master.wait_end(SOON).expect("the master kills itself");
    assert!(!status.success(), "{}: {status}", case.name);
    true
}

/// DESIGN section 4: "kill -9 between doing and appending must lose nothing"; P2: "a kill -9 of either daemon at any
/// instant [...]: no record is lost, doubled or reordered". tdfs.8: a start "also records what became of the changes that were
/// in hand; slaves are not compared for that", and "what was about to be done, so that a kill -9 loses nothing".
#[test]
fn no_crash_point_loses_a_change() {
    let mut cluster = settled();
    let before = standing(&cluster);
    for case in CASES {
        for number in 1.. {
            if !dies_at(&mut cluster, case, number) {
                break;
            }
            cluster.start_master();
            cluster.wait();
            cluster.assert_equal();
            assert_eq!(standing(&cluster), before, "{} at crash point {number}", case.name);
        }
    }
    cluster.finish();
}

/// As above, where the start that finds out what happened is killed, too.
#[test]
fn a_kill_while_it_is_found_out_loses_nothing_either() {
    let mut cluster = settled();
    let before = standing(&cluster);
    let case = case("copy", 3, two, CASES.iter().find(|case| case.name == "copy").unwrap().act);
    assert!(dies_at(&mut cluster, &case, 2));
    // At each of the two records that tell the range, and behind them.
    for _ in 0..3 {
        fs::write(cluster.master.crash_file(), "1").unwrap();
        cluster.master.start_again().unwrap();
        assert!(cluster.master.wait_end(SOON).is_some(), "the master kills itself");
    }
    fs::write(cluster.master.crash_file(), "2").unwrap();
    cluster.master.start_again().unwrap();
    assert!(cluster.master.wait_end(SOON).is_some(), "the master kills itself");
    cluster.start_master();
    cluster.wait();
    cluster.assert_equal();
    assert_eq!(standing(&cluster), before);
    cluster.finish();
}

/// DESIGN section 4, of a write to a file that has links but no name known here: "the inode is noted durably, a walk of
/// the tree finds a name, then the object is checked on all slaves".
#[test]
fn a_kill_forgets_no_lost_object() {
    let mut cluster = settled();
    for number in 1..=3 {
        let name = |of: &str| cluster.mount().join(format!("{of}{number}"));
        fs::write(name("known"), [1; 10_000]).unwrap();
        fs::hard_link(name("known"), name("unknown")).unwrap();
        cluster.wait();
        let (known, unknown) = (name("known"), name("unknown"));
        // A tdfs that has never been asked for the second name.
        cluster.master.stop();
        cluster.start_master();
        let open = File::options().write(true).open(&known).unwrap();
        fs::remove_file(&known).unwrap();
        cluster.wait();
        fs::write(cluster.master.crash_file(), number.to_string()).unwrap();
        assert!(open.write_all_at(&[2; 10_000], 0).is_err());
        assert!(cluster.master.wait_end(SOON).is_some(), "the master kills itself");
        cluster.start_master();
        cluster.wait();
        cluster.assert_equal();
        assert_eq!(fs::read(unknown).unwrap()[0], if number == 1 { 1 } else { 2 });
    }
    cluster.finish();
}
