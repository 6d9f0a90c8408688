//! Makes the replica durable, and remembers that this failed: also for the process that comes after a kill.
//!
//! Used by `replica` on the replay thread and, through the relay, on the one that syncs. A failed sync is never
//! made good by a later one: the kernel drops what it could not write and says so once. What follows from
//! that, `replica` decides.

use crate::applied::Durable;
use parking_lot::Mutex;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tdfs_host::state::{StateDir, StateError};
use tdfs_host::step::failing;
use tdfs_wire::Lsn;
use tracing::warn;

/// It is there while a sync has failed and nothing was done about that.
const FILE: &str = "sync-failed";

/// What another thread needs to make the replica durable. Its fd also holds the replica's lock.
#[derive(Clone)]
pub(super) struct Sync {
    root: Arc<OwnedFd>,
    pub(super) durable: Durable,
    state: Arc<StateDir>,
    failed: Arc<AtomicBool>,
    /// One sync at a time: the kernel tells one of two that something was lost.
    running: Arc<Mutex<()>>,
}

impl Sync {
    /// # Errors
    /// When the state can't be read.
    pub(super) fn new(root: OwnedFd, durable: Durable, state: &Arc<StateDir>) -> Result<Sync, StateError> {
        let failed = state.read_bytes(FILE, u64::MAX >> 1)?.is_some();
        let failed = Arc::new(AtomicBool::new(failed));
        let (root, state) = (Arc::new(root), Arc::clone(state));
        Ok(Sync { root, durable, state, failed, running: Arc::default() })
    }

    /// Makes durable what is applied now; returns how far the replica is durable.
    ///
    /// # Errors
    /// Those of syncfs(2), noted durably: from then on nothing becomes durable before [`Sync::forget_failure`].
    pub(super) fn run(&self) -> io::Result<Lsn> {
        let _running = self.running.lock();
        let position = self.durable.applied();
        let synced = failing(self.state.path(), "syncfs").and_then(|()| rustix::fs::syncfs(&self.root));
        if let Err(errno) = synced {
            self.failed.store(true, Ordering::Release);
            if let Err(e) = self.state.write_bytes(FILE, errno.to_string().as_bytes()) {
                warn!("note that a sync failed: {e}"); // known as long as this process lives
            }
            return Err(errno.into());
        }
        if self.has_failed() {
            return Err(io::Error::other("an earlier sync failed"));
        }
        self.durable.advance(position)
    }

    /// True if a sync failed, in this process or one before.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The replica is durably marked for a comparison of all of it: later syncs count again.
    ///
    /// # Errors
    /// When the note can't be removed: then the failure is remembered.
    pub(super) fn forget_failure(&self) -> Result<(), StateError> {
        self.state.remove(FILE)?;
        self.failed.store(false, Ordering::Release);
        Ok(())
    }
}
