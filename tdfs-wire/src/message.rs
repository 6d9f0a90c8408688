//! Messages: what master and slave tell each other beside records, wants' answers excepted.
//!
//! ```text
//! master                            slave
//! Hello            ------------->
//!                  <-------------   Welcome  (or Refuse)
//! Begin (or Refuse) ------------>
//! records, answers, Heartbeat,
//! Lost, Order      ------------->
//!                  <-------------   Ack, Report, Want, Finding
//! Bye              <------------>   Bye
//! ```

use crate::answer::Want;
use crate::codec::{self, CodecError};
use crate::frame::{Codec, Frame, FrameKind};
pub use crate::text::{TEXT_BYTES_MAX, TEXTS_MAX};
use crate::trail::Extent;
use crate::{Epoch, Id, Lsn, Position, TreePath};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Most epochs that a lineage tells; older ones can't be continued any more.
pub const LINEAGE_MAX: usize = 64;

/// From the master to a slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MasterMessage {
    /// Opens a connection.
    Hello(Hello),
    /// Answers `Welcome`: how it goes on.
    Begin(Begin),
    /// Each second, so that silence means something.
    Heartbeat(Heartbeat),
    /// The connection can't be used; the reason is for a human.
    Refuse(#[serde(deserialize_with = "crate::text::one")] String),
    /// The master ends on purpose.
    Bye(#[serde(deserialize_with = "crate::text::one")] String),
    /// After `Begin` with [`Plan::Patch`], before anything else: what the lost records touched.
    Lost(Lost),
    /// A human wants something of the replica; it has its place among the records.
    Order(Order),
}

/// Paths that records touched which the slave never gets, under their present names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// What has to be compared.
    pub paths: Vec<(TreePath, Extent)>,
    /// No more follow.
    pub last: bool,
}

/// What a human wants of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Compare all content by hashes and tell what differs, changing nothing; one at a time. Given again with
    /// the same id it goes on, and tells all findings again.
    Verify {
        /// Chosen by the master, told again in each finding.
        id: u64,
        /// Make equal what differs.
        repair: bool,
    },
    /// Stop the comparison with this id.
    Cancel {
        /// As in `Verify`.
        id: u64,
    },
    /// The resync that goes on may remove more than half of the replica.
    Confirm,
}

/// Who the master is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the program, for the log only.
    #[serde(deserialize_with = "crate::text::one")]
    pub software: String,
    /// The filesystem it serves.
    pub filesystem: Id,
    /// Its epochs, the present one last: each with the position where it branched off (epoch and LSN in
    /// the epoch before; None: it continues nothing that is known).
    pub lineage: Vec<Branch>,
    /// Head of the present epoch.
    pub head: Lsn,
}

/// One epoch and where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// The epoch.
    pub epoch: Epoch,
    /// Where its records continue: its LSN 0 is this position. None where that can't be known.
    pub from: Option<Position>,
}

/// How the stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The epoch that the records belong to.
    pub epoch: Epoch,
    /// The first record that will come is the one after this.
    pub after: Lsn,
    /// Whether the log is enough.
    pub plan: Plan,
    /// The whole replica is compared in the background (quick check), while it counts as equal.
    pub check: bool,
}

/// What the slave has to do beside applying records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Plan {
    /// Nothing: the log has all it lacks.
    Stream,
    /// The log has all it lacks; the resync that it was in goes on.
    Resume,
    /// Records, or what they did, are lost for it: the paths they touched ([`Lost`]) are wanted, beside what was wanted
    /// before.
    Patch,
    /// The whole replica is made equal by wants; it counts as equal again when nothing is wanted.
    Resync {
        /// Contents are compared by hashes, whatever size and mtime say.
        checksum: bool,
    },
}

/// Sign of life of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Newest record of the log.
    pub head: Lsn,
    /// Newest record that is on the master's disk, with its effect.
    pub durable: Lsn,
    /// The master's clock: nanoseconds since 1970.
    pub time_ns: i64,
}

/// From a slave to its master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlaveMessage {
    /// Answers `Hello`.
    Welcome(Welcome),
    /// How far it is; also its sign of life.
    Ack(Ack),
    /// How it stands; sent when it changed.
    Report(Report),
    /// It needs the state of an object.
    Want(Want),
    /// The connection can't be used; the reason is for a human.
    Refuse(#[serde(deserialize_with = "crate::text::one")] String),
    /// The slave ends on purpose.
    Bye(#[serde(deserialize_with = "crate::text::one")] String),
    /// What an [`Order::Verify`] found.
    Finding(Finding),
}

/// What a comparison by [`Order::Verify`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// An object is not as on the master.
    Difference {
        /// The id of the order.
        verify: u64,
        /// The object.
        path: TreePath,
        /// What of it.
        what: Difference,
    },
    /// It is over.
    Ended(Verified),
}

/// What of an object differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Difference {
    /// The replica does not have it.
    Missing,
    /// Only the replica has it.
    Extra,
    /// It is of another kind, or a symlink to elsewhere.
    Kind,
    /// Its content, or its size.
    Content,
    /// Mode, owner, mtime, xattrs or ACLs.
    Attributes,
    /// It shares its inode with other names than on the master.
    Links,
}

/// The end of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The id of the order.
    pub verify: u64,
    /// The record as of which the last object was compared.
    pub as_of: Lsn,
    /// Objects that were compared.
    pub objects: u64,
    /// Bytes of content that were compared.
    pub bytes: u64,
    /// How many objects differed; of very many only the first were told one by one.
    pub differences: u64,
}

/// Who the slave is and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Version of the program, for the log only.
    #[serde(deserialize_with = "crate::text::one")]
    pub software: String,
    /// The replica.
    pub replica: Id,
    /// How far it is.
    pub standing: Standing,
    /// Checksum of the record at its applied position, where it knows that one: a master whose record there is another
    /// one has another history (a state directory that was restored).
    pub checksum: Option<u32>,
    /// What of promise P3 its file system or its rights can't carry, in words.
    #[serde(deserialize_with = "crate::text::list")]
    pub not_carried: Vec<String>,
    /// Whether a check of it ([`Begin::check`]) was begun and not finished.
    pub check: Check,
}

/// How far a check of a replica is when a connection begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// None is going on.
    #[default]
    None,
    /// One was begun, and how far it was is lost.
    Unfinished,
    /// One goes on where it was.
    Running,
}

/// What a replica is when a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It has never had content of any master.
    New,
    /// It equals the tree of its master as of a position.
    Equal {
        /// Applied up to here.
        applied: Position,
        /// On disk up to here (same epoch).
        durable: Lsn,
    },
    /// A resync of it was not finished.
    Resyncing {
        /// Applied up to here.
        applied: Position,
        /// What was compared so far is still known: it can go on, records follow from `applied`.
        resumable: bool,
    },
    /// Its machine went down: it equaled the tree of its master as of a position, and of what later records did
    /// anything may be lost, content also at equal size and mtime.
    InDoubt {
        /// On disk up to here.
        since: Position,
    },
}

/// How far a slave is. Invariant: durable <= applied <= received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Newest record taken off the connection.
    pub received: Lsn,
    /// Newest record done in the replica.
    pub applied: Lsn,
    /// Newest record on the slave's disk, with its effect.
    pub durable: Lsn,
}

/// How a slave stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// A resync is going on: the replica is known not to be equal, or not known to be.
    pub resyncing: bool,
    /// A check is going on that has found no difference so far.
    pub checking: bool,
    /// Why the next record can't be applied at present; it is tried again.
    #[serde(deserialize_with = "crate::text::maybe")]
    pub stalled: Option<String>,
    /// How often the replica contradicted a record since the slave's state began.
    pub divergences: u64,
    /// The latest thing that a human may want to know of.
    #[serde(deserialize_with = "crate::text::maybe")]
    pub last_error: Option<String>,
    /// How many objects were not equal, in the resync that goes on or else in the last one.
    pub differences: u64,
    /// The resync, or the check, that is going on.
    pub resync: Option<ResyncProgress>,
    /// The comparison by [`Order::Verify`] that is going on.
    pub verify: Option<ResyncProgress>,
}

/// How far a comparison of the replica with the master's tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncProgress {
    /// What is being done.
    pub phase: Phase,
    /// Objects that are known to be equal since it began.
    pub objects_done: u64,
    /// Objects that are known to be needed still; more may be found.
    pub objects_left: u64,
    /// Bytes of content that were compared.
    pub bytes_done: u64,
    /// Bytes of content that are known to be needed still.
    pub bytes_left: u64,
    /// Objects that were not equal.
    pub differences: u64,
}

/// What a comparison does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Looks whether anything differs; nothing did so far.
    Checking,
    /// Makes equal what differs.
    Resyncing,
    /// Waits for [`Order::Confirm`]: it would remove more than half of the replica.
    Confirm,
    /// Waits for the resync that goes on to end.
    Waiting,
    /// Compares contents by hashes.
    Verifying,
}

/// A message of one of the two directions.
pub trait Message: Serialize + DeserializeOwned {
    /// Makes the frame that carries it.
    ///
    /// # Errors
    /// When it is over the codec's limit.
    fn frame(&self) -> Result<Frame, CodecError> {
        Ok(Frame::new(FrameKind::Message, Codec::Stored, codec::encode_message(self)?))
    }

    /// Reads an opened payload.
    fn parse(payload: &[u8]) -> Result<Self, CodecError> {
        codec::decode_message(payload)
    }
}

impl Message for MasterMessage {}
impl Message for SlaveMessage {}
