//! Retention: deletes what no slave needs any more, and says what a bound would cost.
//!
//! Called by the daemon: `retain` with the lowest LSN that all slaves have made durable; `floor_within` to
//! find the slaves that fall out of a log of limited size. Never touches the active segment.

use super::error::io_error;
use super::{Log, LogError};
use crate::Lsn;

impl Log {
    /// Deletes the sealed segments that hold only records up to `floor`, oldest first.
    ///
    /// # Errors
    /// When the storage refuses; what could not be deleted is no longer held all the same, and is tried
    /// again by the next call.
    pub fn retain(&self, floor: Lsn) -> Result<(), LogError> {
        // Names are removed outside of the segments' lock (it takes milliseconds) and strictly in order:
        // what a kill leaves behind has no hole.
        let mut doomed = self.retaining.lock();
        let shared = self.shared();
        {
            let mut segments = shared.segments.write();
            while segments.len() > 1 && segments[0].last() <= floor {
                doomed.extend(segments.pop_front().map(|segment| segment.name.clone()));
            }
        }
        while let Some(name) = doomed.front() {
            shared.storage.remove(name).map_err(io_error("remove", name))?;
            doomed.pop_front();
        }
        Ok(())
    }

    /// The last record that [`Log::retain`] would delete with this floor; `oldest - 1` if none.
    pub fn deletable(&self, floor: Lsn) -> Lsn {
        let shared = self.shared();
        let segments = shared.segments.read();
        let sealed = segments.iter().take(segments.len().saturating_sub(1));
        let doomed = sealed.take_while(|segment| segment.last() <= floor).last();
        doomed.map_or_else(
            || segments.front().map_or(Lsn::ZERO, |segment| segment.first.prev()),
            |segment| segment.last(),
        )
    }

    /// The lowest floor for [`Log::retain`] that leaves at most `bytes_max` bytes; `oldest - 1` if no more than
    /// that is held. A slave that has not got all records up to it can't be served from a log of that
    /// size. The active segment always stays, so the result can leave more.
    pub fn floor_within(&self, bytes_max: u64) -> Lsn {
        let shared = self.shared();
        let segments = shared.segments.read();
        let mut bytes: u64 = segments.iter().map(|segment| segment.end()).sum();
        let mut floor = segments.front().map_or(Lsn::ZERO, |segment| segment.first.prev());
        for segment in segments.iter().take(segments.len().saturating_sub(1)) {
            if bytes <= bytes_max {
                break;
            }
            bytes -= segment.end();
            floor = segment.last();
        }
        floor
    }
}
