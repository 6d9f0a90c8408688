//! One story for each rule of DESIGN sections 4 to 8 about order, log, sessions, positions and recovery: it fails
//! where the rule is left out. Those about what a resync does to objects are in `resync/tests/rules.rs`.

use super::faults::Fault;
use super::master::Limits;
use super::tree;
use super::world::World;
use crate::relay::Replay;
use crate::resync::tests::story::{
    chmod, copy, create, exchange, link, mkdir, p, rename, rename_over, times, unlink, write,
};
use std::time::Duration;
use tdfs_wire::message::{Plan, Standing};
use tdfs_wire::object::Kind;
use tdfs_wire::op::{XattrName, XattrOp};
use tdfs_wire::session::master::StateName;
use tdfs_wire::{Lsn, Op, TreePath};

const LARGE: Limits = Limits { segment_bytes: 1500, log_bytes: 1 << 20 };
const SMALL: Limits = Limits { segment_bytes: 1500, log_bytes: 4000 };

struct Story {
    world: World,
    _scratch: tempfile::TempDir,
}

impl Story {
    /// Slaves that are equal, of a tree that some ops have made.
    fn new(slaves: usize, limits: Limits) -> Story {
        let scratch = tempfile::Builder::new().prefix("tdfs-test.").tempdir_in("/dev/shm").unwrap();
        let mut world = World::new(7, scratch.path(), slaves, limits);
        world.machines.iter_mut().for_each(|machine| machine.crashes_planned = true);
        world.start_machines();
        world.settle();
        Story { world, _scratch: scratch }
    }

    /// The records of these ops, not sent yet.
    fn record(&mut self, ops: Vec<(Op, &[u8])>) {
        for (op, bulk) in ops {
            assert!(self.world.record(op.clone(), bulk), "{op:?}");
        }
    }

    fn changes(&mut self, count: u64) {
        let until = self.world.master.appended + count;
        while self.world.master.appended < until {
            self.world.change();
        }
    }

    /// Goes on until `is` holds.
    fn until(&mut self, what: &str, mut is: impl FnMut(&World) -> bool) {
        for _ in 0..20_000 {
            if is(&self.world) {
                return;
            }
            self.world.round();
        }
        panic!("never: {what}");
    }

    fn fault(&mut self, fault: Fault) {
        assert!(self.world.fault(fault, 0), "{fault:?}");
    }

    /// Records of the object right before and right behind the answer about it.
    fn change_around_answer(&mut self, path: &TreePath, number: u64) {
        let Ok(kind) = self.world.master.tree.get(path).map(|inode| inode.meta.kind.clone()) else {
            return assert!(self.world.answer(0));
        };
        if kind == Kind::Directory {
            let name = format!("N{number}");
            let child = path.join(name.as_bytes()).unwrap();
            self.world.record(create(child.to_string().trim_start_matches('/')), b"");
        }
        assert!(self.world.answer(0));
        let touched = times(path.to_string().trim_start_matches('/'));
        assert!(self.world.record(touched, b""));
    }

    /// The slave is down until it is told.
    fn down(&mut self, fault: Fault) {
        self.fault(fault);
        self.world.troubles[0].down = Some(u64::MAX);
    }

    fn up(&mut self) {
        self.world.troubles[0].down = Some(0);
    }

    fn standing(&self) -> Standing {
        self.world.machines[0].standing().unwrap()
    }

    fn is_equal(&self) -> bool {
        matches!(self.standing(), Standing::Equal { .. })
    }

    fn divergences(&self) -> u64 {
        self.world.machines[0].process.as_ref().unwrap().replica.report().divergences
    }

    fn resyncs(&self) -> u64 {
        self.world.master.outlets[0].view.resyncs
    }

    /// Ends the story: all is equal.
    fn settle(&mut self) {
        self.world.settle();
    }

    fn plans(&self) -> Vec<Plan> {
        self.world.plans.clone()
    }

    fn has(&self, path: &str) -> bool {
        tree::place(&self.world.machines[0].dir, &p(path)).symlink_metadata().is_ok()
    }
}

/// One op of each kind whose redo could do harm.
fn ops() -> Vec<Vec<(Op, &'static [u8])>> {
    let both = || {
        vec![(create("A"), &b""[..]), (write("A", 0), b"of A"), (create("B"), b""), (write("B", 0), b"of B")]
    };
    let then = |op: Op, bulk: &'static [u8]| {
        let mut ops = both();
        ops.push((op, bulk));
        ops
    };
    vec![
        then(create("C"), b""),
        then(mkdir("C"), b""),
        then(link("A", "C"), b""),
        then(unlink("A"), b""),
        then(rename("A", "C"), b""),
        then(rename_over("A", "B"), b""),
        then(exchange("A", "B"), b""),
        then(write("A", 2), b"more"),
        then(copy("A", "B", 3), b""),
        then(chmod("A", 0o640), b""),
    ]
}

/// P2: "A kill -9 of either daemon at any instant ...: no record is lost, doubled or reordered." Section 8: "After a
/// kill at most that one record is in doubt."
#[test]
fn a_kill_inside_of_any_op_neither_loses_nor_doubles_it() {
    for ops in ops() {
        for point in 0..8 {
            let mut story = Story::new(1, LARGE);
            story.world.only_kills = true;
            let last = story.world.master.head().plus(ops.len() as u64);
            story.record(ops.clone());
            story.until("the op is next", |world| {
                world.position(0).unwrap().lsn == last.prev()
                    && world.machines[0].process.as_ref().unwrap().next_op().is_some()
            });
            assert!(story.world.kill_at_point(0, point), "{ops:?}");
            story.settle();
            assert_eq!(
                (story.divergences(), story.resyncs()),
                (0, 1),
                "killed at {point} of {:?}",
                ops.last()
            );
        }
    }
}

/// Section 8: "with the LSN about to be applied noted first"; "exchange notes the inodes first".
#[test]
fn an_exchange_that_was_done_is_not_undone_by_its_redo() {
    let mut story = Story::new(1, LARGE);
    let last = story.world.master.head().plus(5);
    story.record(ops().swap_remove(6));
    story.until("it is done", |world| world.position(0).unwrap().lsn == last);
    story.down(Fault::KillSlave);
    story.up();
    story.settle();
    assert_eq!((story.divergences(), story.resyncs()), (0, 1));
}

/// Section 7, rule 2: "the sender puts it into that slave's stream right after n, or at its cursor if that has
/// passed n".
#[test]
fn an_answer_stands_right_behind_the_record_it_is_exact_as_of() {
    let mut story = Story::new(1, LARGE);
    for number in 0..6 {
        story.fault(Fault::Resync);
        story.until("the resync begins", |world| {
            matches!(world.machines[0].standing(), Some(Standing::Resyncing { .. }))
        });
        while !story.is_equal() {
            while let Some(path) = story.world.master.next_want(0) {
                story.change_around_answer(&path, number);
            }
            story.world.round_without_answers();
        }
    }
    story.settle();
    assert_eq!(story.divergences(), 0, "nobody wrote to the replica");
}

/// Section 7, rule 10: "an overflow keeps what was checked; only the paths of lost records are wanted again (the
/// master keeps their final names per slave, durably ...)".
#[test]
fn an_overflow_wants_only_what_lost_records_touched() {
    for killed in [false, true] {
        let mut story = Story::new(1, SMALL);
        story.down(Fault::StopSlave);
        let head = story.world.master.head();
        story.changes(80);
        story.until("the log has let go what it lacks", |world| {
            world.master.log.as_ref().unwrap().oldest() > head.next()
        });
        if killed {
            assert!(story.world.fault(Fault::KillMaster, 0));
            story.world.master_down = Some(0);
        }
        story.world.plans.clear();
        story.up();
        story.settle();
        assert_eq!(story.plans(), [Plan::Patch], "master killed: {killed}");
    }
}

/// P5 and section 6: "bounded ...: a slave that falls further behind is marked for resync, and the log goes on".
#[test]
fn a_dead_slave_is_not_noticed_by_the_other_and_the_log_stays_bounded() {
    for fault in [Fault::StopSlave, Fault::HalfOpen] {
        let mut story = Story::new(2, SMALL);
        story.fault(fault);
        story.world.troubles[0].down = story.world.troubles[0].down.map(|_| u64::MAX);
        for _ in 0..20 {
            story.changes(40);
            let asked = story.world.now;
            story.until("the other one is at the head", |world| {
                world.position(1).unwrap().lsn == world.master.head()
            });
            assert!(story.world.now - asked < Duration::from_secs(1), "the other one waited");
            story.world.let_pass(Duration::from_secs(3));
            let bytes = story.world.master.log.as_ref().unwrap().bytes();
            assert!(bytes <= SMALL.log_bytes + 3 * SMALL.segment_bytes, "{bytes} bytes are kept");
        }
        assert_eq!(story.world.connections[1], 1, "the other one lost its connection");
        story.up();
        story.settle();
    }
}

/// P6: "A record that can't be applied is never skipped: the slave stalls on it, retries, and says why".
#[test]
fn a_full_disk_stalls_the_slave_and_nothing_is_skipped() {
    let mut story = Story::new(1, LARGE);
    story.fault(Fault::DiskFull);
    story.world.troubles[0].full = Some(u64::MAX);
    crate::replay::target::faults::fail_after(Some(0));
    let before = story.world.position(0).unwrap();
    story.record(vec![(create("A"), b""), (write("A", 0), b"content"), (chmod("A", 0o600), b"")]);
    story.until("it is stalled", |world| world.master.outlets[0].state() == StateName::Stalled);
    let why = story.world.master.outlets[0].view.last_error.clone().unwrap();
    assert!(why.contains("ENOSPC"), "{why}");
    assert_eq!(story.world.position(0).unwrap(), before);
    story.settle();
    assert_eq!((story.divergences(), story.resyncs()), (0, 1));
}

/// Section 5: "a peer that is silent for 10 s is gone" and "A new authenticated connection of the same filesystem id
/// replaces the old one at once (half-open links)".
#[test]
fn a_half_open_connection_is_replaced() {
    let mut story = Story::new(1, LARGE);
    story.world.only_kills = true;
    story.fault(Fault::HalfOpen);
    let began = story.world.now;
    story.record(vec![(create("A"), b"")]);
    story.until("the record comes by another connection", |world| {
        world.position(0).unwrap().lsn == world.master.head()
    });
    let time = story.world.now - began;
    assert!(time > Duration::from_secs(8) && time < Duration::from_secs(16), "{time:?}");
    story.settle();
}

/// P2: "damaged or repeated bytes: no record is lost, doubled or reordered." What is damaged ends the connection.
#[test]
fn damaged_and_repeated_frames_end_the_connection_and_nothing_of_them_is_applied() {
    for (fault, at) in
        [(Fault::Repeat, 0), (Fault::DamageDown, 17), (Fault::DamageDown, 44), (Fault::DamageDown, 90)]
    {
        let mut story = Story::new(1, LARGE);
        story.world.only_kills = true;
        let before = story.world.connections[0];
        let head = story.world.master.head();
        story.record(vec![(create("A"), b""), (write("A", 0), b"content"), (chmod("A", 0o600), b"")]);
        story.world.master_turn(0);
        let link = story.world.master.outlets[0].link.unwrap();
        let way = &mut story.world.links[link].down;
        assert!(if fault == Fault::Repeat { way.repeat() } else { way.damage(at) }, "{fault:?}");
        let most = if fault == Fault::Repeat { story.world.master.head() } else { head };
        story.until("there is another connection", |world| {
            let lsn = world.position(0).unwrap().lsn;
            assert!(world.connections[0] > before || lsn <= most, "damaged records were applied");
            world.connections[0] > before
        });
        story.settle();
        assert_eq!((story.divergences(), story.resyncs()), (0, 1));
    }
}

/// Section 6: a new epoch begins "when the master can't prove continuity: ... OS crash since the last clean state";
/// section 8: "after an OS crash of the master those are compared by hash, because an overwrite can be lost there
/// while size and mtime stay equal".
#[test]
fn an_os_crash_of_the_master_makes_replicas_equal_by_hashes() {
    let mut story = Story::new(1, LARGE);
    story.record(vec![(create("A"), b""), (write("A", 0), b"durable.")]);
    story.settle();
    story.record(vec![(write("A", 0), b"LOST!!!!")]);
    story.until("it is replayed", |world| world.position(0).unwrap().lsn == world.master.head());
    // The content that was lost stood at the same size and mtime.
    let meta = story.world.master.tree.get(&p("A")).unwrap().meta.clone();
    assert!(story.world.fault(Fault::CrashMaster, 0));
    let number = story.world.master.tree.ino(&p("A")).unwrap();
    let inode = story.world.master.tree.inodes.get_mut(&number).unwrap();
    (inode.meta, inode.data) = (meta, b"durable.".to_vec());
    // What has a ctime of now is compared by hashes anyway.
    std::thread::sleep(Duration::from_secs(12));
    story.world.master_down = Some(0);
    story.settle();
    assert_eq!(
        story.standing(),
        Standing::Equal {
            applied: tdfs_wire::Position { epoch: story.world.master.epoch(), lsn: Lsn::ZERO },
            durable: Lsn::ZERO,
        }
    );
}

/// P8: "After an OS crash or power cut of either side the replica is made equal again by itself". Many cuts, for each
/// loses something else.
#[test]
fn an_os_crash_of_a_slave_is_made_good() {
    let mut story = Story::new(1, LARGE);
    for _ in 0..40 {
        story.changes(12);
        story.until("all is replayed", |world| world.position(0).unwrap().lsn == world.master.head());
        story.down(Fault::CrashSlave);
        story.changes(3);
        story.up();
        story.settle();
    }
}

/// Section 7, rule 9: "The replica durably keeps `equal` or `resyncing{scope}`, written before the first change of a
/// resync, told in the handshake, cleared only when nothing is wanted any more."
#[test]
fn a_resync_that_was_killed_is_known_to_be_unfinished() {
    for rounds in 1..40 {
        let mut story = Story::new(1, LARGE);
        while !story.world.fault(Fault::Tamper, 0) {}
        story.fault(Fault::Resync);
        story.until("the resync begins", |world| {
            matches!(world.machines[0].standing(), Some(Standing::Resyncing { .. }))
        });
        for _ in 1..rounds {
            story.world.step(0);
        }
        let was = story.standing();
        story.down(Fault::KillSlave);
        story.up();
        story.until("it is up", |world| world.machines[0].process.is_some());
        if matches!(was, Standing::Resyncing { .. }) {
            assert!(matches!(story.standing(), Standing::Resyncing { .. }), "killed after {rounds}");
        }
        story.settle();
    }
}

/// Section 6: "Recovery cuts a torn tail". What was done and not appended, the check at start finds.
#[test]
fn a_record_torn_by_a_kill_is_cut_and_its_change_is_found() {
    for _ in 0..20 {
        let mut story = Story::new(1, LARGE);
        while !story.world.fault(Fault::KillInAppend, 0) {}
        story.world.master_down = Some(0);
        story.settle();
        let head = story.world.master.head();
        story.changes(1);
        assert_eq!(story.world.master.head(), head.next());
        story.settle();
    }
}

/// Section 4: "If appending fails all the same (disk gone): the epoch ends there, applications go on unhindered, slaves
/// are marked for resync, a new epoch starts when there is room." Until then no replica changes, nor a resync ends.
#[test]
fn a_log_that_fails_ends_the_epoch_and_the_next_makes_all_equal() {
    let mut story = Story::new(1, LARGE);
    for round in 0..20 {
        let epoch = story.world.master.epoch();
        if round % 2 == 1 {
            story.fault(Fault::Resync);
            story.until("it begins", |world| {
                matches!(world.machines[0].standing(), Some(Standing::Resyncing { .. }))
            });
        }
        story.fault(Fault::LogFails);
        story.world.log_fails = Some(u64::MAX);
        while !story.world.master.is_in_trouble() {
            story.world.change();
        }
        (0..20).for_each(|_| _ = story.world.change());
        story.world.let_pass(Duration::from_secs(3));
        assert_eq!((story.is_equal(), story.world.position(0).unwrap().epoch), (round % 2 == 0, epoch));
        story.world.log_fails = Some(0);
        story.settle();
        assert_eq!(story.world.master.epoch().number, epoch.number + 1);
        assert_eq!(story.plans().last(), Some(&Plan::Resync { checksum: false }));
        // What was preallocated is not any more: the log can fail again.
        story.fault(Fault::StopMaster);
        story.world.master_down = Some(0);
        story.until("it is up", |world| world.master.is_up());
    }
}

/// P6: "a replica that contradicts a record (someone wrote to it) is healed by resync of those paths, and counted."
#[test]
fn what_somebody_did_to_a_replica_is_healed_and_counted() {
    let mut story = Story::new(1, LARGE);
    story.record(vec![(create("A"), b""), (write("A", 0), b"content")]);
    story.settle();
    // What it has open, it would find all the same.
    story.down(Fault::StopSlave);
    std::fs::remove_file(tree::place(&story.world.machines[0].dir, &p("A"))).unwrap();
    let step = story.world.step;
    story.world.expected[0].taint(step, true);
    story.up();
    story.record(vec![(chmod("A", 0o640), b"")]);
    story.until("it is healed", |world| {
        let here = tree::place(&world.machines[0].dir, &p("A"));
        std::fs::read(here).is_ok_and(|content| content == b"content")
            && matches!(world.machines[0].standing(), Some(Standing::Equal { .. }))
    });
    assert_eq!(story.divergences(), 1);
    assert!(story.has("A"));
    story.settle();
}

/// Section 8: "a failed syncfs never advances it"; an ack claims as durable only what a sync has reached.
#[test]
fn what_is_not_on_the_disk_is_kept_in_the_log() {
    let mut story = Story::new(1, LARGE);
    story.world.no_syncs = true;
    let durable = story.world.machines[0].synced;
    (0..30).for_each(|number| story.record(vec![(create(&format!("F{number}")), b"")]));
    story.until("all is applied", |world| world.position(0).unwrap().lsn == world.master.head());
    // A new connection is told anew how far the slave is.
    story.fault(Fault::Cut);
    story.world.let_pass(Duration::from_secs(3));
    assert_eq!(story.world.master.outlets[0].view.progress.durable, durable);
    assert!(story.world.master.log.as_ref().unwrap().oldest() <= durable.next());
    story.world.no_syncs = false;
    story.settle();
}

/// P3: what a replica can't carry is "never silently" left out: one object of another kind says nothing about all
/// others. (Seed 402 of an earlier form of this simulation.)
#[test]
fn an_xattr_of_a_record_that_does_not_fit_is_a_divergence_and_xattrs_are_still_compared() {
    let xattr = |set: bool| {
        let (path, name, mode) = (p("A"), XattrName::new(*b"user.x").unwrap(), None);
        Op::Xattr(if set { XattrOp::Set { path, name, mode } } else { XattrOp::Remove { path, name, mode } })
    };
    let mut story = Story::new(1, LARGE);
    story.record(vec![(create("A"), b""), (xattr(true), b"value")]);
    story.settle();
    story.down(Fault::StopSlave);
    let here = tree::place(&story.world.machines[0].dir, &p("A"));
    std::fs::remove_file(&here).unwrap();
    std::os::unix::fs::symlink("elsewhere", &here).unwrap();
    let step = story.world.step;
    story.world.expected[0].taint(step, true);
    story.up();
    story.record(vec![(xattr(false), b"")]);
    story.until("it is replayed", |world| {
        world.position(0).is_some_and(|position| position.lsn == world.master.head())
    });
    assert_eq!(story.divergences(), 1);
    story.settle();
    let process = story.world.machines[0].process.as_ref().unwrap();
    assert_eq!(process.replica.not_carried(), Vec::<String>::new());
}

/// P2: only kills: what was equal is not resynced. The master's file still says that it is not, for it was killed
/// before it could be written. (Seed 468 of an earlier form of this simulation.)
#[test]
fn the_log_is_kept_for_a_replica_that_has_become_equal_since_that_was_noted() {
    let mut story = Story::new(1, LARGE);
    story.world.master.save_as_resyncing(0);
    story.down(Fault::KillSlave);
    story.changes(60);
    assert!(story.world.fault(Fault::KillMaster, 0));
    story.world.master_down = Some(0);
    story.world.let_pass(Duration::from_secs(3));
    story.world.plans.clear();
    story.up();
    story.settle();
    assert_eq!(story.plans(), [Plan::Stream]);
}
