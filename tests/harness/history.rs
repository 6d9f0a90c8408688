//! Reads the log that a master left in its state directory, and nothing of it may be missing.
//!
//! For a master that does not run: the segments are copied and opened as a master does at its start, which
//! checks every record. Never changes the state itself.

use std::path::Path;

use anyhow::{Context, Result};
use tdfs_wire::log::{Log, Options, SEGMENT_HEADER_BYTES, SegmentHeader};

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Number and id of the epoch.
    pub epoch: String,
    /// LSN of the oldest record that is held.
    pub oldest: u64,
    /// LSN of the newest record. From `oldest` on none is missing.
    pub head: u64,
}

impl History {
    /// Reads the log below the master's state directory `state`.
    ///
    /// # Errors
    /// When LSNs have a hole or anything is damaged; a torn tail is cut off, as by a master.
    pub fn read(state: &Path) -> Result<Self> {
        let copy = tempfile::tempdir().context("make a directory for the log")?;
        let mut newest: Option<SegmentHeader> = None;
        for file in std::fs::read_dir(state.join("log")).context("list the log")? {
            let file = file.context("list the log")?;
            let bytes = std::fs::read(file.path()).context("read a segment")?;
            std::fs::write(copy.path().join(file.file_name()), &bytes).context("copy a segment")?;
            let Some(header) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else { continue };
            let header = SegmentHeader::parse(header, &file.file_name().to_string_lossy())?;
            if newest.as_ref().is_none_or(|newest| newest.epoch.number < header.epoch.number) {
                newest = Some(header);
            }
        }
        let epoch = newest.context("find a segment")?.epoch;
        let (_, found) = Log::open(copy.path(), epoch, Options::default()).context("open the log")?;
        Ok(Self { epoch: format!("{epoch:?}"), oldest: found.oldest.get(), head: found.head.get() })
    }

    /// Fails the test unless this is what `before` has become: the same epoch, gone on without a gap.
    #[track_caller]
    pub fn assert_continues(&self, before: &Self) {
        assert_eq!(self.epoch, before.epoch, "another epoch was begun");
        assert!(self.head >= before.head, "records are gone: {before:?}, then {self:?}");
    }
}
