//! What was met over a run: which fault in which state, which op, which plan.

use super::faults::Fault;
use std::collections::BTreeMap;
use tdfs_wire::Op;
use tdfs_wire::message::{Plan, Standing};
use tdfs_wire::session::master::StateName;

/// The words of what was met, with how often.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<String, u64>);

const STATES: [StateName; 8] = [
    StateName::Connecting,
    StateName::Handshake,
    StateName::CatchUp,
    StateName::Streaming,
    StateName::Resyncing,
    StateName::Stalled,
    StateName::Refused,
    StateName::Away,
];
const STANDINGS: [&str; 4] = ["down", "new", "equal", "resyncing"];
const PLANS: [&str; 4] = ["stream", "resume", "patch", "resync"];

impl Coverage {
    fn count(&mut self, word: String) {
        *self.0.entry(word).or_default() += 1;
    }

    pub fn op(&mut self, op: &Op) {
        self.count(format!("op {}", word(op)));
    }

    pub fn plan(&mut self, plan: Plan) {
        let word = match plan {
            Plan::Stream => PLANS[0],
            Plan::Resume => PLANS[1],
            Plan::Patch => PLANS[2],
            Plan::Resync { .. } => PLANS[3],
        };
        self.count(format!("plan {word}"));
    }

    /// A fault came while the master saw a slave in `state`, and the slave was so itself.
    pub fn fault(&mut self, fault: Fault, state: Option<StateName>, standing: Option<Standing>) {
        if let Some(state) = state {
            self.count(format!("{fault:?} while {state:?}"));
        }
        let standing = match standing {
            None => STANDINGS[0],
            Some(Standing::New) => STANDINGS[1],
            Some(Standing::Equal { .. }) => STANDINGS[2],
            Some(Standing::Resyncing { .. } | Standing::InDoubt { .. }) => STANDINGS[3],
        };
        self.count(format!("{fault:?} of a slave that is {standing}"));
    }

    /// A fault came while changes got no records.
    pub fn fault_in_trouble(&mut self, fault: Fault) {
        self.count(in_trouble(fault));
    }

    /// A new epoch began in the place of one whose log failed.
    pub fn epoch(&mut self) {
        self.count(EPOCH.into());
    }

    pub fn add(&mut self, other: Coverage) {
        for (word, count) in other.0 {
            *self.0.entry(word).or_default() += count;
        }
    }

    /// What was never met.
    pub fn missing(&self) -> Vec<String> {
        let pairs = Fault::ALL.iter().flat_map(|fault| {
            let states = STATES.iter().filter(|state| fault.can_meet(**state));
            let standings = STANDINGS.iter().filter(|standing| fault.can_hit(standing));
            let states = states.map(move |state| format!("{fault:?} while {state:?}"));
            states.chain(standings.map(move |standing| format!("{fault:?} of a slave that is {standing}")))
        });
        let ops = OPS.iter().map(|op| format!("op {op}"));
        let plans = PLANS.iter().map(|plan| format!("plan {plan}"));
        let ends = Fault::ENDS_OF_MASTER.iter().map(|fault| in_trouble(*fault));
        let ends = ends.chain([EPOCH.to_owned()]);
        pairs.chain(ops).chain(plans).chain(ends).filter(|word| !self.0.contains_key(word)).collect()
    }

    /// The words that were met most rarely.
    pub fn rarest(&self) -> Vec<(u64, &str)> {
        let mut all: Vec<_> = self.0.iter().map(|(word, count)| (*count, &word[..])).collect();
        all.sort_unstable();
        all.truncate(8);
        all
    }
}

const EPOCH: &str = "a new epoch in place";

fn in_trouble(fault: Fault) -> String {
    format!("{fault:?} while changes get no records")
}

const OPS: [&str; 19] = [
    "create",
    "mkdir",
    "mknod",
    "symlink",
    "link",
    "unlink",
    "rmdir",
    "rename",
    "exchange",
    "write",
    "truncate",
    "allocate",
    "copy",
    "mode",
    "owner",
    "times",
    "set xattr",
    "remove xattr",
    "check",
];

fn word(op: &Op) -> &'static str {
    use tdfs_wire::op::{AttrOp, DataOp, NamespaceOp, RenameMode, XattrOp};
    match op {
        Op::Namespace(NamespaceOp::Create(_)) => OPS[0],
        Op::Namespace(NamespaceOp::Mkdir(_)) => OPS[1],
        Op::Namespace(NamespaceOp::Mknod { .. }) => OPS[2],
        Op::Namespace(NamespaceOp::Symlink { .. }) => OPS[3],
        Op::Namespace(NamespaceOp::Link { .. }) => OPS[4],
        Op::Namespace(NamespaceOp::Unlink { .. }) => OPS[5],
        Op::Namespace(NamespaceOp::Rmdir { .. }) => OPS[6],
        Op::Namespace(NamespaceOp::Rename { mode: RenameMode::Exchange, .. }) => OPS[8],
        Op::Namespace(NamespaceOp::Rename { .. }) => OPS[7],
        Op::Data(DataOp::Write { .. }) => OPS[9],
        Op::Data(DataOp::Truncate { .. }) => OPS[10],
        Op::Data(DataOp::Allocate { .. }) => OPS[11],
        Op::Data(DataOp::Copy { .. }) => OPS[12],
        Op::Attr(AttrOp::Mode { .. }) => OPS[13],
        Op::Attr(AttrOp::Owner { .. }) => OPS[14],
        Op::Attr(AttrOp::Times { .. }) => OPS[15],
        Op::Xattr(XattrOp::Set { .. }) => OPS[16],
        Op::Xattr(XattrOp::Remove { .. }) => OPS[17],
        Op::Check { .. } => OPS[18],
    }
}
