//! The next epoch in the place of the present one, while cursors read and changes wait.
//!
//! When the log could not take a record, `commit` ends the epoch, and the daemon has the next one begin: the old
//! segments are of no use then, and go first. Slow work is done before, by [`Log::prepare`]; [`Log::begin_epoch`] only
//! swaps.

use super::recovery;
use super::{Log, LogError, Shared};
use crate::record::RECORD_BYTES_MAX;
use crate::{Epoch, Lsn};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the log holds at one moment, of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The epoch.
    pub epoch: Epoch,
    /// The newest record.
    pub head: Lsn,
    /// The first record that is held; `head + 1` if none is.
    pub oldest: Lsn,
}

/// An empty log of a later epoch, on disk, with room for a record.
pub struct NextEpoch(Arc<Shared>);

impl Log {
    /// Epoch, head and begin, which belong together.
    pub fn extent(&self) -> Extent {
        let shared = self.shared();
        let head = shared.head();
        Extent { epoch: shared.epoch, head, oldest: shared.oldest() }
    }

    /// Ends the epoch: a change is about to be seen of which no record tells. From now on cursors read nothing more, and
    /// the state of an object is as of no record: it is no answer.
    pub fn end_epoch(&self) {
        self.shared().is_over.store(true, Ordering::Release);
    }

    /// Removes all segments, so that their space can be used, and makes the first one of `epoch`, with room for a
    /// record of any size. Until [`Log::begin_epoch`] the log is the old one, which nobody may append to any more, and
    /// whose cursors read nothing more.
    ///
    /// # Errors
    /// When the storage refuses, say because it is full still: try again.
    pub fn prepare(&self, epoch: Epoch) -> Result<NextEpoch, LogError> {
        let present = self.shared();
        let (storage, options) = (Arc::clone(&present.storage), present.options);
        present.is_over.store(true, Ordering::Release);
        let mut retaining = self.retaining.lock();
        retaining.clear();
        recovery::remove_all(&*storage)?;
        let parts = recovery::begin(&*storage, epoch, options)?;
        let next = Arc::new(Shared::new(storage, epoch, options, parts));
        drop(Arc::clone(&next).reserve(RECORD_BYTES_MAX)?);
        Ok(NextEpoch(next))
    }

    /// True from [`Log::end_epoch`] or [`Log::prepare`] on until the next epoch begins.
    pub fn is_over(&self) -> bool {
        self.shared().is_over.load(Ordering::Acquire)
    }

    /// Goes over to what was prepared. Nobody may hold a reservation or be about to append: the caller keeps all
    /// changes off.
    pub fn begin_epoch(&self, next: NextEpoch) {
        *self.shared.write() = next.0;
    }
}
