//! A slave that is killed before and after every system call of every op, and once more in the redo.
//!
//! Each life is a process of its own - this test program, run again for [`life`] alone - that ends by SIGKILL at
//! a step of `tdfs_host::step`: no destructor runs, nothing is said or written any more. The cases are in `cases`.

mod cases;
mod picture;

use super::*;
use cases::{Case, cases, intrusions};
use picture::{Picture, differences, picture};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use tdfs_host::step::points;
use tdfs_wire::message::Begin;

/// What a life is to do: its directory, its case, and its last step (0: it ends by itself).
const LIFE: &str = "TDFS_KILLS_LIFE";
/// The user of slaves without root's rights.
const NOBODY: u32 = 65534;

/// How a life went on to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    /// Of the op.
    steps: u64,
    /// How the replica stood, and how many divergences it had counted.
    standing: String,
}

/// A replica with its state through its lives.
struct Lives<'a> {
    case: &'a Case,
    dir: tempfile::TempDir,
}

impl Lives<'_> {
    fn of(case: &Case) -> Lives<'_> {
        // Some file systems shift ranges in one step; and syncs are slow on a busy disk.
        let place = if case.on_disk { std::env::temp_dir() } else { "/dev/shm".into() };
        let dir = tempfile::tempdir_in(place).unwrap();
        if case.as_nobody {
            std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Lives { case, dir }
    }

    /// One life; None if it was killed.
    fn live(&self, last: u64) -> Option<Ended> {
        let mut life = Command::new(std::env::current_exe().unwrap());
        life.args(["--exact", "replica::tests::kills::life", "--ignored", "--nocapture", "--test-threads=1"]);
        life.env(LIFE, format!("{} {} {last}", self.dir.path().display(), self.case.name));
        if self.case.as_nobody {
            life.uid(NOBODY).gid(NOBODY);
        }
        let ended = life.output().unwrap();
        let said = [ended.stdout, ended.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        if ended.status.signal() == Some(libc::SIGKILL) {
            return None;
        }
        assert!(ended.status.success(), "{}, last step {last}: {}\n{}", self.case.name, said[0], said[1]);
        let told = fs::read_to_string(self.dir.path().join("ended")).unwrap();
        let (steps, standing) = told.split_once(' ').unwrap();
        Some(Ended { steps: steps.parse().unwrap(), standing: standing.into() })
    }

    fn picture(&self) -> Picture {
        picture(&self.dir.path().join("replica"))
    }

    /// Promise P1: "a new object starts closed, 0600 or 0700, and gets its mode last".
    fn check_closed(&self, last: u64) {
        let Op::Namespace(
            NamespaceOp::Create(new) | NamespaceOp::Mkdir(new) | NamespaceOp::Mknod { new, .. },
        ) = &self.case.op.0
        else {
            return;
        };
        let Ok(found) =
            fs::symlink_metadata(self.dir.path().join("replica").join(&new.path.to_string()[1..]))
        else {
            return;
        };
        use std::os::unix::fs::MetadataExt;
        let mode = found.mode() & 0o7777;
        let whose = (found.uid(), found.gid()) == (new.uid, new.gid);
        assert!(
            mode & 0o7077 == 0 || whose && mode & 0o777 == new.mode & 0o777,
            "{}, killed at {last}: mode {mode:o} of {}",
            self.case.name,
            found.uid()
        );
    }
}

/// Kills at each step, and at steps of the redo; returns how many steps there were.
fn kill_everywhere(case: &Case, pick: &mut impl FnMut(u64) -> bool) -> u64 {
    let whole = Lives::of(case);
    let ended = whole.live(0).expect("nobody killed it");
    assert_eq!(ended.standing, case.standing, "{}", case.name);
    let left = whole.picture();
    let killed = |last| {
        let lives = Lives::of(case);
        assert_eq!(lives.live(last), None, "{}: there is a step {last}", case.name);
        lives
    };
    let goes_on = |lives: &Lives<'_>, lasts: &[u64]| {
        let again = lives.live(0).expect("nobody killed it");
        assert_eq!(again.standing, ended.standing, "{}, killed at {lasts:?}", case.name);
        if ended.standing == "equal 0" {
            let differ = differences(&lives.picture(), &left);
            assert!(differ.is_empty(), "{}, killed at {lasts:?}: {differ:#?}", case.name);
        }
    };
    // After the last step comes one more instant: it is done, and nothing noted of that.
    for last in 1..=ended.steps + 1 {
        let lives = killed(last);
        if case.intruder.is_none() {
            lives.check_closed(last);
        }
        goes_on(&lives, &[last]);
        for redo_last in (1..).take_while(|&redo_last| redo_last <= ended.steps + 12) {
            if !pick(redo_last) {
                continue;
            }
            let lives = killed(last);
            let again = lives.live(redo_last);
            goes_on(&lives, &[last, redo_last]);
            if again.is_some() {
                break; // the redo has fewer steps
            }
        }
    }
    ended.steps
}

/// Picks all pairs of kills in the long form, else a few of them.
fn pick(seed: u64) -> impl FnMut(u64) -> bool {
    let mut state = seed;
    move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::env::var_os("TDFS_LONG").is_some() || (state >> 33).is_multiple_of(16)
    }
}

fn kill_all(cases: &[Case]) {
    let seed = std::env::var("TDFS_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos()));
    println!("TDFS_SEED={seed}");
    let (next, others) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let steps = kill_everywhere(case, &mut pick(seed ^ case.steps));
            if steps != case.steps {
                others.lock().unwrap().push(format!("{}: {steps}, not {}", case.name, case.steps));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers = [0; 2].map(|_| scope.spawn(work));
        let failed = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        assert_eq!(failed, 0, "cases failed");
    });
    let others = others.into_inner().unwrap();
    assert!(others.is_empty(), "steps that the table in cases.rs does not know: {others:#?}");
}

/// DESIGN section 8: "After a kill at most that one record is in doubt. Redo: ... its later steps (owner, mode,
/// times, parents) run again." And promise P2.
#[test]
fn a_kill_at_any_step_loses_and_doubles_nothing() {
    if replay::tests::skip_without_root() {
        return;
    }
    kill_all(&cases(0));
}

/// DESIGN section 8: "A slave without root adds u+rwx to get in, works, and restores." Killed in between, too.
#[test]
fn a_kill_at_any_step_leaves_no_widened_mode() {
    if replay::tests::skip_without_root() {
        return;
    }
    kill_all(&cases(NOBODY));
}

/// Promise P6: "a replica that contradicts a record (someone wrote to it) is healed by resync of those paths, and
/// counted": once, whenever it was killed, and never is the intruder's work taken for the record's.
#[test]
fn a_kill_at_any_step_forgets_no_contradiction() {
    if replay::tests::skip_without_root() {
        return;
    }
    kill_all(&intrusions());
}

/// Not a test: one life of a slave, started by the tests above. Begins where the replica is.
#[test]
#[ignore = "run by the tests of kills, each time in a process of its own"]
fn life() {
    let Ok(told) = std::env::var(LIFE) else { return };
    let [dir, name, last] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (dir, last) = (Path::new(dir), last.parse::<u64>().unwrap());
    let user = rustix::process::geteuid().as_raw();
    let all = cases(user).into_iter().chain(intrusions());
    let case = all.into_iter().find(|case| case.name == name).expect("a case");
    let is_first = !dir.join("replica").exists();
    let last = if last == 0 { u64::MAX } else { last };
    if !is_first {
        points::kill_before(last);
    }
    let mut replica = crate::open_replica(&dir.join("replica"), &dir.join("state"), false).unwrap();
    let records = case.before.iter().chain([&case.op]).chain(&case.after);
    let op_at = case.before.len() + 1;
    let begun = if is_first { make_equal(&mut replica) } else { stream_on(&mut replica) };
    for (at, (op, bulk)) in records.enumerate().map(|(i, record)| (i + 1, record)) {
        let lsn = Lsn::new(u64::try_from(at).unwrap());
        if !begun || lsn <= replica.applied() {
            continue;
        }
        if at == op_at && is_first {
            case.intruder.iter().for_each(|intrude| intrude(&dir.join("replica")));
            replica.target.drop_all();
            points::kill_before(last);
        }
        replica
            .apply(&Record { lsn, time_ns: 0, crc: 0, op: op.clone(), owners: Owners::default(), bulk })
            .unwrap();
        if at == op_at {
            told_steps(dir, last);
        }
    }
    let standing = match replica.standing() {
        Standing::Equal { .. } => "equal",
        Standing::InDoubt { .. } => "in doubt",
        Standing::Resyncing { .. } => "resyncing",
        Standing::New => "new",
    };
    let steps = fs::read_to_string(dir.join("steps")).unwrap_or("0".into());
    fs::write(dir.join("ended"), format!("{steps} {standing} {}", replica.report().divergences)).unwrap();
    // The end of this process is not what is tested.
    points::end();
}

/// The op is done: nothing is noted of that yet.
fn told_steps(dir: &Path, last: u64) {
    let steps = points::end();
    if last == steps + 1 {
        points::kill_now();
    }
    fs::write(dir.join("steps"), steps.to_string()).unwrap();
}

fn begin(after: Lsn, plan: Plan) -> Begin {
    Begin { epoch: EPOCH, after, plan, check: false }
}

/// Makes the empty replica equal to an empty tree.
fn make_equal(replica: &mut Replica) -> bool {
    replica.begin(FILESYSTEM, &begin(Lsn::ZERO, RESYNC)).unwrap();
    let wants = replica.wants();
    let [want] = &wants[..] else { panic!("the root alone: {wants:?}") };
    let empty = replica.dir.clone();
    let (_, meta) = describe(Target::open(&empty).unwrap().root());
    let found = Found::Listing { meta, children: Vec::new(), last: true };
    replica.answer(Lsn::ZERO, &Answer { id: want.id, path: want.path.clone(), found }, b"").unwrap();
    assert!(replica.wants().is_empty());
    assert!(matches!(replica.standing(), Standing::Equal { .. }));
    true
}

/// Goes on behind what is applied; false where a resync has to come first.
fn stream_on(replica: &mut Replica) -> bool {
    let Standing::Equal { applied, .. } = replica.standing() else { return false };
    replica.begin(FILESYSTEM, &begin(applied.lsn, Plan::Stream)).unwrap();
    true
}
