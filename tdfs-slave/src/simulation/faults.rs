//! Everything that can go wrong, each at any step.

use super::world::World;
use crate::replay::target::faults;
use crate::resync::tests::model::Tree;
use tdfs_wire::session::master::StateName;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection is reset; a frame that is half through is lost.
    Cut,
    /// The connection is slow from now on.
    Slow,
    /// Nothing comes through any more, and nobody is told.
    HalfOpen,
    /// A byte on its way to the slave becomes another one.
    DamageDown,
    /// A byte on its way to the master becomes another one.
    DamageUp,
    /// A frame comes twice.
    Repeat,
    /// The slave can't be reached for a while.
    Unreachable,
    /// kill -9 of the slave.
    KillSlave,
    /// kill -9 of the slave within an op.
    KillInOp,
    /// The slave ends and starts again.
    StopSlave,
    /// The slave's machine goes down.
    CrashSlave,
    /// The slave's disk is full for a while.
    DiskFull,
    /// kill -9 of the master.
    KillMaster,
    /// kill -9 of the master while it appends a record.
    KillInAppend,
    /// The master ends and starts again.
    StopMaster,
    /// The master's machine goes down.
    CrashMaster,
    /// The master can't read objects for a while.
    Unreadable,
    /// The disk of the master's log is full for a while, or can't be written.
    LogFails,
    /// Somebody writes to the replica.
    Tamper,
    /// A resync is asked for.
    Resync,
}

use Fault::{
    CrashMaster, CrashSlave, Cut, DamageDown, DamageUp, DiskFull, HalfOpen, KillInAppend, KillInOp,
    KillMaster, KillSlave, LogFails, Repeat, Resync, Slow, StopMaster, StopSlave, Tamper, Unreachable,
    Unreadable,
};

impl Fault {
    pub const ALL: [Fault; 20] = [
        Cut,
        Slow,
        HalfOpen,
        DamageDown,
        DamageUp,
        Repeat,
        Unreachable,
        KillSlave,
        KillInOp,
        StopSlave,
        CrashSlave,
        DiskFull,
        KillMaster,
        KillInAppend,
        StopMaster,
        CrashMaster,
        Unreadable,
        LogFails,
        Tamper,
        Resync,
    ];
    /// P2 promises that nothing is resynced for any of these.
    pub const KILLS_AND_CUTS: [Fault; 11] = [
        Cut,
        Slow,
        HalfOpen,
        DamageDown,
        DamageUp,
        Repeat,
        Unreachable,
        KillSlave,
        KillInOp,
        StopSlave,
        KillMaster,
    ];

    /// How the master's daemon ends; each has to come while changes get no records.
    pub const ENDS_OF_MASTER: [Fault; 3] = [KillMaster, StopMaster, CrashMaster];

    fn needs_link(self) -> bool {
        matches!(self, Cut | Slow | HalfOpen | DamageDown | DamageUp | Repeat)
    }

    fn needs_process(self) -> bool {
        matches!(self, KillSlave | KillInOp | StopSlave | CrashSlave | DiskFull)
    }

    /// True if it can come while the master sees the slave so.
    pub fn can_meet(self, state: StateName) -> bool {
        let connected = !matches!(state, StateName::Connecting | StateName::Refused | StateName::Away);
        !self.needs_link() || connected
    }

    /// True if it can come while the slave is so.
    pub fn can_hit(self, standing: &str) -> bool {
        match standing {
            "down" => !self.needs_link() && !self.needs_process(),
            "new" if self == Tamper => false,
            _ if self == KillInOp => standing != "new",
            _ => true,
        }
    }
}

impl World {
    /// One of `faults` happens to a slave or to the master; false if it can't happen now.
    pub fn fault(&mut self, fault: Fault, slave: usize) -> bool {
        let (state, standing) = (self.master.outlets[slave].state(), self.machines[slave].standing());
        let (up, trouble) = (self.master.is_up(), self.master.is_in_trouble());
        let link = self.master.outlets[slave].link.filter(|at| self.links[*at].broken.is_none());
        if (fault.needs_link() && (link.is_none() || standing.is_none()))
            || (fault.needs_process() && standing.is_none())
        {
            return false;
        }
        let done = match fault {
            Cut | Slow | HalfOpen | DamageDown | DamageUp | Repeat => {
                link.is_some_and(|link| self.link_fault(fault, link))
            }
            Unreachable | DiskFull | Unreadable => self.for_a_while(fault, slave),
            LogFails => up && self.log_fails.is_none() && self.for_a_while(fault, slave),
            KillSlave | KillInOp | StopSlave | CrashSlave => self.slave_ends(fault, slave),
            KillMaster | KillInAppend | StopMaster | CrashMaster => up && self.master_ends(fault),
            // What never was a replica is not made equal, whatever lies there.
            Tamper => self.expected[slave].has_position() && self.tamper(slave),
            Resync => {
                let checksum = self.dice().chance(2);
                let resync = tdfs_wire::session::master::Input::Resync { checksum };
                self.master.outlets[slave].session.handle(resync, self.now);
                up
            }
        };
        if done {
            self.faults += 1;
            self.say(|| format!("fault: {fault:?} of slave {slave}, {state:?}, {standing:?}"));
            self.coverage.fault(fault, up.then_some(state), standing);
            if trouble {
                self.coverage.fault_in_trouble(fault);
            }
        }
        done
    }

    fn link_fault(&mut self, fault: Fault, at: usize) -> bool {
        // The version of the protocol is told apart: it stands at 4.
        let byte = if self.dice().chance(4) { 4 } else { self.dice().below(1 << 16) };
        let link = &mut self.links[at];
        match fault {
            Cut => link.cut(),
            Slow => link.slow = 6,
            HalfOpen => link.silent = true,
            DamageDown => return link.down.damage(byte),
            DamageUp => return link.up.damage(byte),
            _ if byte % 2 == 0 => return link.down.repeat() || link.up.repeat(),
            _ => return link.up.repeat() || link.down.repeat(),
        }
        true
    }

    /// The step until which something lasts for a while.
    pub fn some_steps(&mut self) -> u64 {
        let most = [40, 400, 3000][self.users.dice.below(3)];
        self.step + 1 + self.users.dice.below(most) as u64
    }

    fn for_a_while(&mut self, fault: Fault, slave: usize) -> bool {
        let until = Some(self.some_steps());
        match fault {
            Unreachable => self.troubles[slave].unreachable = until,
            Unreadable => (self.unreadable, self.master.unreadable) = (until, true),
            LogFails => {
                self.log_fails = until;
                self.master.disk.fail(&mut self.users.dice);
            }
            _ => {
                // The fault is one of the thread: of one slave at a time.
                if self.machines.len() > 1 {
                    return false;
                }
                self.troubles[slave].full = until;
                let calls = u32::try_from(self.dice().below(6)).unwrap();
                faults::fail_after(Some(calls));
            }
        }
        true
    }

    fn slave_ends(&mut self, fault: Fault, slave: usize) -> bool {
        if fault == KillInOp {
            let calls = u32::try_from(self.dice().below(8)).unwrap();
            if !self.begin_op(slave, calls) {
                return false;
            }
        }
        let machine = &mut self.machines[slave];
        let links = match fault {
            KillSlave | KillInOp => machine.kill(),
            StopSlave => machine.stop(),
            _ if !machine.crashes_planned => return false,
            _ => {
                let dice = &mut self.users.dice;
                machine.crash(|| dice.chance(2))
            }
        };
        for link in links {
            self.links[link].close(false);
        }
        match fault {
            CrashSlave => self.expected[slave].crashed(),
            _ => self.expected[slave].killed(),
        }
        self.troubles[slave].down = Some(self.some_steps());
        true
    }

    /// The slave is killed within its next op; false if there is none.
    pub fn kill_at_point(&mut self, slave: usize, calls: u32) -> bool {
        self.begin_op(slave, calls) && self.slave_ends(KillSlave, slave)
    }

    /// The next op is done up to a point where the disk says no; false if there is none.
    fn begin_op(&mut self, slave: usize, calls: u32) -> bool {
        let Some(process) = &mut self.machines[slave].process else { return false };
        if process.next_op().is_none() {
            return false;
        }
        faults::fail_after(Some(calls));
        self.play(slave);
        faults::fail_after(None);
        true
    }

    fn master_ends(&mut self, fault: Fault) -> bool {
        match fault {
            StopMaster => self.master.stop(&mut self.links, &mut self.users.dice, self.now),
            KillMaster => self.master.kill(),
            CrashMaster => self.master.crash(&mut self.users.dice),
            _ => {
                let (op, bulk) = self.users.op(&self.master.tree);
                let bytes = self.dice().below(1 << 16);
                if !self.master.change_torn(op, &bulk, bytes) {
                    return false;
                }
                let step = self.step;
                self.expected.iter_mut().for_each(|expected| expected.taint(step, false));
            }
        }
        self.links.iter_mut().for_each(|link| link.close(true));
        self.master_down = Some(self.some_steps());
        true
    }

    /// Somebody does an op in the replica: by hand, as a file system does it, with times of their own.
    fn tamper(&mut self, slave: usize) -> bool {
        let here = super::tree::scan(&self.machines[slave].dir);
        let (op, bulk) = self.users.op(&here);
        let Some(op) = super::tree::as_recorded(op, &here) else { return false };
        let mut after: Tree = here;
        if after.apply(&op, &bulk).is_err() {
            return false;
        }
        super::tree::write_anew(&self.machines[slave].dir, &after);
        self.say(|| format!("tampered: {op:?}"));
        let step = self.step;
        self.expected[slave].taint(step, true);
        true
    }
}
