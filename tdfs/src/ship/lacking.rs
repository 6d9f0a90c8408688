//! What the log no longer holds for a slave, kept by the paths that those records touched.
//!
//! Followed by `ship` before it deletes records that a slave still lacks, and durable before they are deleted:
//! on its return the slave compares those paths, and no more (DESIGN section 7, rule 10).

use super::SlaveAddress;
use anyhow::{Context, ensure};
use tdfs_host::state::{StateDir, escape};
use tdfs_wire::log::Log;
use tdfs_wire::record::Record;
use tdfs_wire::session::master::Covered;
use tdfs_wire::trail::{TRAIL_BYTES_MAX, Trail};
use tdfs_wire::{Epoch, Id, Lsn};

/// Records are read in pieces of about so many bytes.
const READ_BYTES: usize = 1 << 20;
/// Epoch number and id, first and last record.
const HEAD_BYTES: usize = 8 + 16 + 8 + 8;
/// A file that is longer is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 30;

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
    pub fn follow(&mut self, log: &Log, up_to: Lsn) -> anyhow::Result<()> {
        let mut cursor = log.cursor(self.up_to)?;
        while let Some(batch) = cursor.read(up_to, READ_BYTES)? {
            let mut rest = &batch.bytes[..];
            while !rest.is_empty() {
                let (record, len) = Record::parse(rest).context("read a record of the log")?;
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

    /// Keeps it; when this returns, it is on the disk.
    pub fn store(&self, state: &StateDir, slave: &SlaveAddress) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend_from_slice(&self.epoch.number.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.id.0);
        bytes.extend_from_slice(&self.after.get().to_le_bytes());
        bytes.extend_from_slice(&self.up_to.get().to_le_bytes());
        bytes.extend_from_slice(&self.trail.to_bytes());
        Ok(state.write_bytes(&file_name(slave), &bytes)?)
    }

    /// What was kept for a slave in this epoch.
    pub fn load(state: &StateDir, slave: &SlaveAddress, epoch: Epoch) -> Option<Lacking> {
        match Lacking::read(state, slave) {
            Ok(lacking) => lacking.filter(|lacking| lacking.epoch == epoch),
            Err(e) => {
                tracing::warn!(
                    "slave {slave}: what the log lost for it is not known ({e:#}): if it lacks that, all of it is compared"
                );
                None
            }
        }
    }

    fn read(state: &StateDir, slave: &SlaveAddress) -> anyhow::Result<Option<Lacking>> {
        let Some(bytes) = state.read_bytes(&file_name(slave), FILE_BYTES_MAX)? else { return Ok(None) };
        ensure!(bytes.len() >= HEAD_BYTES, "{} is damaged: too short", file_name(slave));
        let (head, rest) = bytes.split_at(HEAD_BYTES);
        let number = |at: usize| head[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
        let id = Id(head[8..24].try_into().context("an id has 16 bytes")?);
        let epoch = Epoch { number: number(0), id };
        let trail = Trail::from_bytes(rest, TRAIL_BYTES_MAX)?;
        Ok(Some(Lacking { epoch, after: Lsn::new(number(24)), up_to: Lsn::new(number(32)), trail }))
    }

    /// Drops what was kept for a slave.
    pub fn remove(state: &StateDir, slave: &SlaveAddress) {
        if let Err(e) = state.remove(&file_name(slave)) {
            tracing::warn!("{e}");
        }
    }
}

fn file_name(slave: &SlaveAddress) -> String {
    format!("lacking-{}", escape(std::path::Path::new(&slave.to_string())))
}
