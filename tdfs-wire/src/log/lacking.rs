//! What the log has to keep for the slaves, and what is kept instead of records that it can't keep.
//!
//! Called by `ship` once a second, before it deletes anything. Decides; reads the log, but deletes and stores
//! nothing itself. What is deleted that a slave still lacks is known by the paths it touched, durably before it
//! is deleted: on its return the slave compares those paths, and no more (DESIGN section 7, rule 10).

use super::{Log, LogError};
use crate::codec::CodecError;
use crate::message::{Standing, Welcome};
use crate::record::{Record, RecordError};
use crate::session::master::{Covered, Input, View};
use crate::trail::{TRAIL_BYTES_MAX, Trail};
use crate::{Epoch, Id, Lsn};

/// Records are read in pieces of about so many bytes.
const READ_BYTES: usize = 1 << 20;
/// Epoch number and id, first and last record.
const HEAD_BYTES: usize = 8 + 16 + 8 + 8;

/// The records that may be deleted, and who is left behind by that.
#[derive(Debug, PartialEq, Eq)]
pub struct Retention {
    /// Records up to here are needed by nobody.
    pub floor: Lsn,
    /// Slaves (by index) that are not connected and lose records they have not applied: to be resynced.
    pub left_behind: Vec<usize>,
}

/// Says what can be deleted. `oldest`: where the log begins, `floor_within`: where a log that keeps its bound would begin; `views`: all
/// slaves; `dropped`: positions that are kept for slaves no longer configured.
pub fn retention(
    head: Lsn,
    (oldest, floor_within): (Lsn, Lsn),
    views: &[View],
    dropped: &[Lsn],
) -> Retention {
    let mut floor = dropped.iter().copied().min().unwrap_or(head);
    let mut left_behind = Vec::new();
    for (i, view) in views.iter().enumerate() {
        let held = match view.began_after {
            // While it is connected, all that was not made durable since the stream began is kept.
            Some(after) if view.needs_resync => view.progress.durable.max(after),
            Some(_) => view.progress.durable,
            None if !view.continues => continue,
            None if view.lacks_after(oldest) < floor_within => {
                left_behind.push(i);
                continue;
            }
            // What it was left behind by is known by its paths; the log goes on without it.
            None if view.needs_resync && view.lacks_after(oldest).next() < oldest => continue,
            None if view.needs_resync => view.lacks_after(oldest),
            None => view.progress.durable,
        };
        floor = floor.min(held);
    }
    Retention { floor: floor.max(floor_within), left_behind }
}

/// The records that one slave lacks and the log does not hold.
#[derive(Clone, Debug)]
pub struct Lacking {
    epoch: Epoch,
    after: Lsn,
    up_to: Lsn,
    trail: Trail,
}

impl Lacking {
    /// Of a slave that has applied the records up to `after`; none so far.
    pub fn new(epoch: Epoch, after: Lsn) -> Lacking {
        Lacking { epoch, after, up_to: after, trail: Trail::new(TRAIL_BYTES_MAX) }
    }

    /// The last record that is covered.
    pub fn up_to(&self) -> Lsn {
        self.up_to
    }

    /// Follows the log up to record `up_to`.
    ///
    /// # Errors
    /// When the log can't be read there; then it covers what it covered before.
    pub fn follow(&mut self, log: &Log, up_to: Lsn) -> Result<(), LackingError> {
        let mut cursor = log.cursor(self.up_to)?;
        while let Some(batch) = cursor.read(up_to, READ_BYTES)? {
            let mut rest = &batch.bytes[..];
            while !rest.is_empty() {
                let (record, len) = Record::parse(rest)?;
                self.trail.follow(&record.op);
                rest = &rest[len..];
            }
            self.up_to = batch.last();
        }
        Ok(())
    }

    /// As the session has to know it.
    pub fn covered(&self) -> Covered {
        Covered { after: self.after, up_to: self.up_to, paths: self.trail.paths() }
    }

    /// The epoch that its records belong to.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All of it as bytes, to be kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(&self.epoch.number.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.id.0);
        bytes.extend_from_slice(&self.after.get().to_le_bytes());
        bytes.extend_from_slice(&self.up_to.get().to_le_bytes());
        bytes.extend_from_slice(&self.trail.to_bytes());
        bytes
    }

    /// Reads what [`Lacking::to_bytes`] made.
    ///
    /// # Errors
    /// When the bytes are none of it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Lacking, CodecError> {
        let short = || CodecError::Invalid { what: "lacking", why: "too short".into() };
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or_else(short)?;
        let number = |at: usize| head[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let id = Id(head[8..24].try_into().map_err(|_| short())?);
        let epoch = Epoch { number: number(0), id };
        let trail = Trail::from_bytes(rest, TRAIL_BYTES_MAX)?;
        let lsn = |at| {
            Lsn::try_from(number(at)).map_err(|e| CodecError::Invalid { what: "lacking", why: e.to_string() })
        };
        Ok(Lacking { epoch, after: lsn(24)?, up_to: lsn(32)?, trail })
    }
}

/// Why records that are about to be deleted can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum LackingError {
    /// They can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What was read is no record.
    #[error("read a record of the log: {0}")]
    Record(#[from] RecordError),
}

/// What becomes of what is kept for a slave when the records up to some LSN are about to be deleted.
#[derive(Debug)]
pub enum Cover {
    /// It stays as it is.
    Same,
    /// This is to be stored before they are deleted.
    Keep(Lacking),
    /// It is of no use any more, or nothing can be known of what the slave lacks: then all of it is compared.
    Drop,
}

/// Makes sure that what is deleted up to `floor` is known by the paths it touched, for a slave that lacks it.
/// `before`: what is kept for it so far.
///
/// # Errors
/// When the log can't be read; what was kept for it is of no use then.
pub fn cover(before: Option<&Lacking>, view: &View, log: &Log, floor: Lsn) -> Result<Cover, LackingError> {
    let applied = view.lacks_after(log.oldest());
    if !view.continues || applied >= floor {
        let equal = !view.needs_resync && view.began_after.is_some();
        let is_over = before.is_some_and(|lacking| equal && view.progress.durable >= lacking.up_to());
        return Ok(if is_over { Cover::Drop } else { Cover::Same });
    }
    // What it has applied meanwhile, it has by its own resync. Records behind what is covered can be gone too:
    // they were deleted while it was connected, and where the master was killed then, it knows no later position.
    let is_of_use = |lacking: &&Lacking| applied <= lacking.up_to() && log.oldest() <= lacking.up_to().next();
    let before = before.filter(is_of_use);
    if before.is_none() && log.oldest() > applied.next() {
        return Ok(Cover::Drop); // nothing can be known any more of what it lacks
    }
    let mut now = before.cloned().unwrap_or_else(|| Lacking::new(log.epoch(), applied));
    now.follow(log, floor)?;
    Ok(if before.is_some_and(|before| before.up_to() == now.up_to()) {
        Cover::Same
    } else {
        Cover::Keep(now)
    })
}

/// What a session has to know of its slave, which has just said this; `lacking`: what is kept for it. Reads what the log
/// has since the last sync of a slave whose machine went down.
pub fn meet(log: &Log, lacking: Option<&Lacking>, welcome: &Welcome) -> Input {
    let trail = match welcome.standing {
        Standing::InDoubt { since } => {
            let mut lost = Lacking::new(since.epoch, since.lsn);
            let is_ours = since.epoch == log.epoch();
            // Where the log no longer has it, all of the replica is compared.
            (is_ours && lost.follow(log, log.head()).is_ok()).then(|| lost.covered())
        }
        _ => lacking.map(Lacking::covered),
    };
    Input::Met { trail, is_foreign: is_foreign(log, welcome) }
}

/// True if the log has another record where the slave says that it is. Of one that is not held nothing can be said.
fn is_foreign(log: &Log, welcome: &Welcome) -> bool {
    let (Standing::Equal { applied, .. } | Standing::Resyncing { applied, .. }) = welcome.standing else {
        return false;
    };
    let Some(theirs) = welcome.checksum.filter(|_| applied.epoch == log.epoch()) else { return false };
    log.checksum_of(applied.lsn).is_some_and(|ours| ours != theirs)
}
