//! What has to hold after every step, whatever happened.

use super::machine::Played;
use super::tree;
use super::world::World;
use crate::relay::Replay;
use tdfs_wire::message::{Plan, Standing};
use tdfs_wire::session::master::Progress;
use tdfs_wire::{Lsn, Position};

/// One applied record in so many is followed by a look at the whole replica; the others by a look at what it names.
const WHOLE_ONE_IN: usize = 24;

/// What is known of one replica that it can't tell itself. Numbers are steps.
#[derive(Debug, Default)]
pub struct Expected {
    /// Since then it may differ without being at fault: somebody wrote to it, or the master's tree changed unseen.
    tainted: Option<u64>,
    tampered: bool,
    /// The check that goes on, or the last one, began then.
    check: Option<u64>,
    checked: Option<u64>,
    /// The resync of everything that goes on began then.
    whole: Option<u64>,
    /// The replica said that it is equal, when it was looked at last.
    equal: bool,
    last: Option<Position>,
    divergences: u64,
    /// The last record that shifts, and was begun.
    shift: Option<Lsn>,
}

impl Expected {
    pub fn taint(&mut self, step: u64, by_hand: bool) {
        self.tainted = Some(step);
        self.tampered |= by_hand;
    }

    pub fn is_tainted(&self) -> bool {
        self.tainted.is_some()
    }

    pub fn is_tampered(&self) -> bool {
        self.tampered && self.tainted.is_some()
    }

    /// A file system in memory does not shift at once. So a redo, after a stall or a kill, can't know how far the shift
    /// came, and gives the file up to be healed, as a divergence.
    pub fn note_shift(&mut self, begun: Option<Lsn>) {
        self.shift = begun.or(self.shift);
    }

    pub fn has_position(&self) -> bool {
        self.last.is_some()
    }

    /// The process is gone: what it compared is lost.
    pub fn killed(&mut self) {
        (self.check, self.checked, self.whole) = (None, None, None);
    }

    /// The machine went down: it may be anywhere before.
    pub fn crashed(&mut self) {
        self.killed();
        (self.last, self.equal, self.shift) = (None, false, None);
    }
}

impl World {
    /// A process has started.
    pub fn started(&mut self, slave: usize) {
        let (now, expected) = (self.position(slave), &mut self.expected[slave]);
        if let (Some(before), Some(now)) = (expected.last, now) {
            assert_eq!(before.epoch, now.epoch, "the epoch of slave {slave}");
            // Of the last record it can't know whether it was done.
            assert!(before.lsn <= now.lsn.next(), "slave {slave} was at {before} and starts at {now}");
        }
        expected.last = now;
        expected.equal = matches!(self.machines[slave].standing(), Some(Standing::Equal { .. }));
    }

    /// Looks at a replica after one step of it.
    pub fn observe(&mut self, slave: usize, played: &Played) {
        let equal = matches!(self.machines[slave].standing(), Some(Standing::Equal { .. }));
        let reset = matches!(played, Played::Began(_) | Played::Other);
        self.machines[slave].played(reset, equal && !self.expected[slave].equal);
        let Some(process) = &self.machines[slave].process else { return };
        let (standing, report) = (process.replica.standing(), process.report());
        let (step, now) = (self.step, self.position(slave));
        let expected = &mut self.expected[slave];
        if let (Some(before), Some(now)) = (expected.last, now) {
            assert!(
                before.epoch != now.epoch || before.lsn <= now.lsn,
                "slave {slave} went from {before} to {now}"
            );
        }
        if let (Some(before), Some(now), Played::Applied(lsn, _)) = (expected.last, now, played) {
            assert_eq!(
                (before.lsn.next(), *lsn),
                (now.lsn, now.lsn),
                "slave {slave}: one record after the other"
            );
        }
        expected.last = now;
        if let Played::Began(begin) = played {
            if matches!(begin.plan, Plan::Resync { .. }) {
                (expected.whole, expected.check, expected.shift) = (Some(step), None, None);
            }
            if begin.check {
                expected.check = Some(step);
            }
        }
        if let (Some(check), false) = (expected.check, report.checking) {
            (expected.checked, expected.check) = (Some(check), None);
        }
        let was = std::mem::replace(&mut expected.equal, matches!(standing, Standing::Equal { .. }));
        let compared = expected.whole.max(expected.checked);
        let mut found_equal = expected.equal && !was;
        if expected.equal && expected.tainted.is_some() && compared > expected.tainted {
            (expected.tainted, expected.tampered, found_equal) = (None, false, true);
        }
        if expected.equal {
            expected.whole = None;
        }
        let diverged = report.divergences > std::mem::replace(&mut expected.divergences, report.divergences);
        let shifts_again = matches!(played, Played::Applied(lsn, _) if expected.shift == Some(*lsn));
        let excused = expected.tainted.is_some() || shifts_again;
        assert!(!diverged || excused, "slave {slave}: nobody wrote to it: {report:?}");
        if expected.equal && expected.tainted.is_none() {
            self.assert_prefix(slave, played, found_equal);
        }
    }

    /// P1: a replica that is not being made equal is the tree as it was after its applied record.
    fn assert_prefix(&mut self, slave: usize, played: &Played, whole: bool) {
        let is_applied = matches!(played, Played::Applied(..));
        if whole || (is_applied && self.dice().chance(WHOLE_ONE_IN)) {
            return self.assert_equal(slave, "P1");
        }
        let (Some(position), Played::Applied(_, paths)) = (self.position(slave), played) else { return };
        let tree = self.master.tree_at(position).expect("a record of the master's");
        let paths: Vec<_> = paths.iter().collect();
        if let Some(what) = tree::differs(&self.machines[slave].dir, tree, &paths) {
            panic!("P1: slave {slave} at {position}: {what}");
        }
    }

    /// All of the replica is as the tree was at its applied position.
    pub fn assert_equal(&self, slave: usize, when: &str) {
        let position = self.position(slave).expect("it has a position");
        let tree = self.master.tree_at(position).unwrap_or_else(|| panic!("no tree at {position}"));
        let here = tree::scan(&self.machines[slave].dir);
        if !tree.same(&here) {
            let (there, here) = (tree.show(), here.show());
            panic!("{when}: slave {slave} at {position}:\n{}", lines_that_differ(&there, &here));
        }
    }

    /// durable <= applied <= received <= sent <= head, and no claim beyond what is.
    pub fn assert_chain(&self) {
        let head = self.master.head();
        for (slave, outlet) in self.master.outlets.iter().enumerate() {
            assert!(outlet.faults.is_empty(), "the master calls slave {slave} wrong: {:?}", outlet.faults);
            // A session that has not heard of the new epoch is about to end its connection.
            let is_of_old = outlet.epoch != self.master.epoch();
            if !self.master.is_up() || !outlet.session.is_streaming() || is_of_old {
                continue;
            }
            let Progress { sent, received, applied, durable } = outlet.session.progress();
            let chain = durable <= applied && applied <= received && received <= sent && sent <= head;
            assert!(chain, "slave {slave}: {:?}, head {head}", outlet.session.progress());
            // Else its position is about to be another one.
            let streams =
                self.machines[slave].process.as_ref().is_some_and(|one| one.streams_from(outlet.link));
            if let (true, Some(Standing::Equal { applied: here, .. })) =
                (streams, self.machines[slave].standing())
            {
                assert!(applied <= here.lsn, "slave {slave} is told to be at {applied}, is at {here}");
                let synced = self.machines[slave].synced;
                assert!(
                    durable <= synced,
                    "slave {slave} is told to be durable at {durable}, is at {synced}"
                );
            }
        }
    }

    /// P6: what the master says of its slaves. A slave that counts as equal has the tree as it is now, whether the log
    /// tells of it or not; one that is in another epoch needs a resync.
    pub fn assert_told(&self) {
        if !self.master.is_up() {
            return;
        }
        let present = Position { epoch: self.master.epoch(), lsn: self.master.head() };
        for slave in 0..self.machines.len() {
            if self.counts_as_equal(slave) {
                let recorded = self.master.tree_at(present).expect("the head's tree");
                assert!(recorded.same(&self.master.tree), "slave {slave} counts as equal at {present}");
            }
            if let Some(here) = self.position(slave)
                && here.epoch != present.epoch
            {
                assert!(self.master.status(slave).needs_resync, "slave {slave} is at {here}, not {present}");
            }
        }
    }

    /// What a slave lacks is in the log, or covered, or it is marked. Where covering it failed, its next handshake tells.
    pub fn assert_kept(&self) {
        let Some(log) = &self.master.log else { return };
        for (slave, outlet) in self.master.outlets.iter().enumerate() {
            let Some(Standing::Equal { applied, .. }) = self.machines[slave].standing() else { continue };
            if applied.epoch != self.master.epoch() || applied.lsn.next() >= log.oldest() {
                continue;
            }
            let covered =
                outlet.lacking.as_ref().is_some_and(|lacking| lacking.up_to().next() >= log.oldest());
            assert!(
                covered || outlet.uncovered || outlet.view.needs_resync,
                "slave {slave} is at {applied}, the log begins at {}, and nobody knows",
                log.oldest()
            );
        }
    }
}

fn lines_that_differ(there: &str, here: &str) -> String {
    let (master, replica): (Vec<_>, Vec<_>) = (there.lines().collect(), here.lines().collect());
    let only = |a: &[&str], b: &[&str], who: &str| {
        let lines = a.iter().filter(|line| !b.contains(line)).map(|line| format!("{who}: {line}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    format!("{}\n{}", only(&master, &replica, "master "), only(&replica, &master, "replica"))
}
