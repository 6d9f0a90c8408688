//! What the shell of a master session says and hears: inputs, outputs, and what can be told of a slave.

use crate::answer::Want;
use crate::message::{Branch, Finding, MasterMessage, Order, ResyncProgress, SlaveMessage};
use crate::trail::Extent;
use crate::{Frame, Id, Lsn, TreePath};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What does not change while the session lives.
#[derive(Clone, Debug)]
pub struct Config {
    /// Version of the program, told to the slave for its log.
    pub software: String,
    /// The filesystem that is served.
    pub filesystem: Id,
    /// Its epochs, the present one last; never empty.
    pub lineage: Vec<Branch>,
    /// Makes the delays of this slave differ from those of others.
    pub jitter_seed: u64,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The connection that was asked for stands; it can take one frame.
    Dialled,
    /// It could not be made.
    DialFailed(String),
    /// It is gone, or brought bytes that are no frame.
    Lost(String),
    /// The peer can't be talked to until a human changes something (another protocol version).
    Refused(String),
    /// A message came.
    Received(SlaveMessage),
    /// How far the log reaches: newest record, and oldest record it still holds (head + 1: none).
    ///
    /// To be said only after all answers that were placed before `head` was read have been told
    /// ([`Input::Answered`]): their place is before any later record of their object.
    Log {
        /// Newest record.
        head: Lsn,
        /// Oldest record that can be read.
        oldest: Lsn,
    },
    /// Of what [`Output::Records`] asked for, records up to here were handed to the connection.
    Sent(Lsn),
    /// The answer to one want.
    Answered {
        /// As told by [`Output::Ask`]; answers of an earlier connection are dropped.
        connection: u64,
        /// The LSN as of which it is exact.
        as_of: Lsn,
        /// The answer.
        frame: Arc<Frame>,
    },
    /// The connection can take a frame.
    Writable,
    /// To be said right before the slave's `Welcome`.
    Met {
        /// What the log no longer holds for it, if anything; for one that is in doubt, what the log names since then,
        /// if it still does.
        trail: Option<Covered>,
        /// The record at its position is, by its checksum, another one than here.
        is_foreign: bool,
    },
    /// Records up to here, with their effect, are on the master's disk.
    MasterDurable(Lsn),
    /// A new epoch has begun: the history so far, the present epoch last, and its log.
    Lineage(Vec<Branch>),
    /// The replica has to be made equal by a resync, whatever its position.
    Resync {
        /// Compare contents by hashes, whatever size and mtime say.
        checksum: bool,
    },
    /// To be told to the slave, as soon as there is a stream. A `Verify` is told again in each stream until it
    /// ended or was cancelled.
    Order(Order),
    /// The daemon ends, for this reason.
    Stop(String),
    /// The deadline is reached.
    Tick {
        /// The clock: nanoseconds since 1970.
        time_ns: i64,
    },
}

/// Records that a slave will not get, or whose effect it may have lost, by what they touched.
#[derive(Clone, Debug, Default)]
pub struct Covered {
    /// The first of them is the one after this.
    pub after: Lsn,
    /// The last of them.
    pub up_to: Lsn,
    /// What they touched, under the names it has after the last.
    pub paths: Vec<(TreePath, Extent)>,
}

/// What the shell has to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Make a connection; say `Dialled` or `DialFailed`.
    Dial,
    /// Close the connection; nothing that comes from it later counts.
    Hangup(Hangup),
    /// Send a message.
    Send(MasterMessage),
    /// Send a part of an answer.
    SendAnswer(Arc<Frame>),
    /// Read records after `after` from the log, at most up to `up_to`, send them in one frame, say `Sent`.
    Records {
        /// The newest record that was sent.
        after: Lsn,
        /// The newest record that may be sent.
        up_to: Lsn,
    },
    /// Have a want answered; say `Answered` with the same number of the connection.
    Ask {
        /// Which connection it belongs to.
        connection: u64,
        /// The want.
        want: Want,
    },
    /// A comparison found something, or ended.
    Found(Finding),
}

/// Why the session ends a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// The peer broke the protocol: a human must look.
    Fault(String),
    /// It refuses, and will until a human does something.
    Refused(String),
    /// It is silent, or begins anew.
    Gone(String),
}

/// What the master knows of one slave. Invariant: durable <= applied <= received <= sent <= head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Newest record handed to the connection.
    pub sent: Lsn,
    /// Newest record the slave has taken off it.
    pub received: Lsn,
    /// Newest record done in the replica.
    pub applied: Lsn,
    /// Newest record on the slave's disk.
    pub durable: Lsn,
}

/// The state of a slave, by the names that `status` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateName {
    /// Dialled for the first time.
    Connecting,
    /// Connected, not agreed yet.
    Handshake,
    /// Old records are being sent.
    CatchUp,
    /// Records are sent as they are appended.
    Streaming,
    /// The replica is being made equal.
    Resyncing,
    /// The slave can't apply the next record and tries again.
    Stalled,
    /// One side refuses the other.
    Refused,
    /// Not reachable.
    Away,
}

/// What can be told of a slave.
#[derive(Clone, Debug)]
pub struct View {
    /// Its state.
    pub state: StateName,
    /// How far it is, in the present epoch.
    pub progress: Progress,
    /// The LSN after which the present connection's stream began.
    pub began_after: Option<Lsn>,
    /// Records after its applied position are of use to it, or what they touched is.
    pub continues: bool,
    /// It was met since the daemon started: its position is known.
    pub met: bool,
    /// The replica, once it was met.
    pub replica: Option<Id>,
    /// What of P3 it can't carry.
    pub not_carried: Vec<String>,
    /// What went wrong last, unless it is over.
    pub last_error: Option<String>,
    /// How many resyncs were begun (one that goes on after an interruption is the same one).
    pub resyncs: u64,
    /// The last of them.
    pub last_resync: Option<LastResync>,
    /// How often the replica contradicted a record.
    pub divergences: u64,
    /// A check is due, or going on and has found no difference so far.
    pub checking: bool,
    /// How far the resync or the check is that is going on.
    pub resync: Option<ResyncProgress>,
    /// How far the comparison by [`Order::Verify`] is.
    pub verify: Option<ResyncProgress>,
    /// The log alone can't bring it up to date, or a resync of it is going on.
    pub needs_resync: bool,
}

/// A resync, as it is told when it may be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastResync {
    /// Why it was begun.
    pub cause: Cause,
    /// How many objects were not equal. Where the master's machine went down, these were taken back.
    pub differences: u64,
}

/// Why a resync was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The replica was new.
    FirstCopy,
    /// A human asked for it.
    Asked,
    /// The log no longer had what the slave lacked.
    LogTooShort,
    /// It is not sure that the log has every change: the slave may be ahead of the master, whose tree wins.
    NewEpoch,
    /// The slave has records that the master never made: the master's state directory was restored.
    OtherHistory,
    /// The slave had made more durable than it knows of: its state directory was restored.
    SlaveRestored,
    /// The slave's machine went down.
    SlaveCrash,
    /// The check at start found a difference.
    Check,
    /// A record contradicted the replica, names of an object could not be followed, or verify repairs what it found; not
    /// counted as a resync.
    Healing,
}

impl View {
    /// Of a log that begins with `oldest`, it may lack the records after this one.
    ///
    /// One that was not met since the start may have got further than was noted of it: while it was made equal, the
    /// log went on without it.
    pub fn lacks_after(&self, oldest: Lsn) -> Lsn {
        let applied = self.progress.applied;
        if self.met { applied } else { applied.max(oldest.prev()) }
    }

    /// The same slave in an epoch that its session has not heard of: nothing is known but that it needs a resync.
    #[must_use]
    pub fn of_another_epoch(self) -> View {
        let (progress, began_after, continues, needs_resync) = (Progress::default(), None, false, true);
        View { progress, began_after, continues, needs_resync, ..self }
    }
}

/// What was known of a slave when the master last ended.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// How far it was, in the present epoch; the rest of its progress is not known.
    pub durable: Lsn,
    /// The replica.
    pub replica: Option<Id>,
    /// Resyncs begun.
    pub resyncs: u64,
    /// The last of them.
    pub last_resync: Option<LastResync>,
    /// Divergences told.
    pub divergences: u64,
    /// Whether it was marked for resync.
    pub needs_resync: bool,
    /// Whether the whole replica has to be compared: the tree may have changed unseen.
    pub check_due: bool,
    /// What the log no longer holds for it is known by its paths ([`Covered`]).
    pub is_covered: bool,
}
