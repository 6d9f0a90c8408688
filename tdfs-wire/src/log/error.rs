//! What can go wrong with the log, by what the caller has to do about it.
//!
//! Made by all of `log`; told to commit, ship and daemon. Never logged here.

use crate::Lsn;
use crate::version::LOG;
use std::io;

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The storage refused; nothing has changed (a record that was begun has been taken back).
    #[error("{action} log segment {file}: {source}")]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// The segment's file name (or `.` for their directory).
        file: String,
        /// The storage's answer.
        source: io::Error,
    },
    /// What is stored is not a log without holes. The history can't be continued: begin a new epoch.
    #[error("log segment {file} is damaged at byte {offset}: {why}")]
    Damaged {
        /// The segment's file name (or `.` where none is to blame).
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// A segment was written by a later TDFS. Nothing was touched.
    #[error(
        "log segment {file} has layout version {theirs}, this program knows {LOG}: it was written by a later TDFS; install that version again, or use another state directory"
    )]
    Version {
        /// The segment's file name.
        file: String,
        /// Its version.
        theirs: u16,
    },
    /// The records after that position are no longer held.
    #[error("the log begins at LSN {oldest}")]
    Gone {
        /// The first LSN that is held.
        oldest: Lsn,
    },
    /// The epoch has ended: its records are of no use any more, another one begins.
    #[error("the epoch has ended")]
    Over,
    /// That position lies in the future.
    #[error("the log ends at LSN {head}")]
    Ahead {
        /// The newest record.
        head: Lsn,
    },
    /// An earlier failure could not be taken back: this log accepts no record any more. End the epoch.
    #[error("the log is broken by an earlier failure")]
    Broken,
}

impl LogError {
    /// True if the storage is full (or over quota): the same can succeed later.
    pub fn is_no_space(&self) -> bool {
        matches!(self, LogError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// For `map_err`: puts verb and file to an error of the storage.
pub(super) fn io_error(action: &'static str, file: &str) -> impl FnOnce(io::Error) -> LogError {
    move |source| LogError::Io { action, file: file.to_owned(), source }
}
