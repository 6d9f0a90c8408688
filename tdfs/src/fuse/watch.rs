//! Looks at the files that may be stored into unseen, and closes those that linger (`--passthrough`).
//!
//! Used by the adapter, and by the daemon before it says that all is recorded. What a look is, `passthrough/stores.rs` says;
//! what lingers, `opens.rs`. Two threads: a look can sleep in the disk, and closed files shall not wait for it.

use super::freshen::Freshen;
use super::opens::Opens;
use crate::passthrough::Passthrough;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tdfs_host::sys;

/// How often files that may be stored into unseen are looked at, and those that linger.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The kernel tells of a release before it lets go of the backing file itself.
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

/// Who has which file open, and the looks at what is stored there.
pub struct Watch {
    pub(super) opens: Opens,
    passthrough: Arc<Passthrough>,
    freshen: Arc<Freshen>,
    released: Sender<u64>,
    /// It was said that nothing can be known of who uses a file.
    is_blind: AtomicBool,
}

impl Watch {
    /// Looks at the watched files and closes those that linger, on threads of its own, until nobody needs that any more.
    pub fn start(passthrough: &Arc<Passthrough>, freshen: &Arc<Freshen>) -> io::Result<Arc<Watch>> {
        let (passthrough, freshen) = (Arc::clone(passthrough), Arc::clone(freshen));
        let (released, releases) = channel();
        let (opens, is_blind) = (Opens::new(Arc::clone(&passthrough)), AtomicBool::new(false));
        let watch = Arc::new(Watch { opens, passthrough, freshen, released, is_blind });
        let weak = Arc::downgrade(&watch);
        let work = move || {
            while let Some(watch) = weak.upgrade() {
                watch.settle();
                drop(watch);
                std::thread::sleep(WATCH_INTERVAL);
            }
        };
        std::thread::Builder::new().name("stores".into()).spawn(work)?;
        let weak = Arc::downgrade(&watch);
        std::thread::Builder::new().name("lingering".into()).spawn(move || close_all(&weak, &releases))?;
        Ok(watch)
    }

    /// A look at one file, whose node stays until it is over. None if the kernel has forgotten it already.
    pub fn look(self: &Arc<Self>, ino: u64) -> Option<Look> {
        self.passthrough.hold(ino).then(|| Look { watch: Arc::clone(self), ino })
    }

    /// Looks at all files that are watched: what was stored there before is recorded then.
    pub fn settle(self: &Arc<Self>) {
        for ino in self.opens.watched() {
            // What is closed meanwhile was looked at then.
            if let Some(look) = self.look(ino) {
                look.take();
            }
        }
    }

    /// One open of a file has ended. If it lingers now, it is closed as soon as nobody uses it.
    pub fn release(&self, ino: u64) {
        if self.opens.release(ino) {
            let _ = self.released.send(ino); // without its thread the mount is going away
        }
    }

    /// Closes a lingering file; false if somebody uses it still.
    fn close(self: &Arc<Self>, ino: u64) -> bool {
        let own = self.passthrough.open_alone(ino);
        let is_used = || own.as_ref().map_err(|e| *e).and_then(|own| sys::is_used_elsewhere(own.as_fd()));
        let Some(access) = self.opens.let_go(ino, || is_used().unwrap_or_else(|e| self.cannot_tell(e)))
        else {
            return false;
        };
        drop(own);
        if access.is_watched
            && let Some(look) = self.look(ino)
        {
            look.take();
        }
        if access.is_written {
            self.freshen.pages(ino, 0, 0);
        }
        self.opens.end(ino);
        true
    }

    /// A file is taken as used where it can't be known if it is.
    fn cannot_tell(&self, why: Errno) -> bool {
        if !self.is_blind.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "see if a file is mapped still: {why}; it is passed on as long as that can't be known"
            );
        }
        true
    }
}

/// Closes files behind their last release, until nobody needs that any more: at once, a moment later, then each second.
fn close_all(watch: &Weak<Watch>, releases: &Receiver<u64>) {
    let mut late = Vec::new();
    let mut looked = Instant::now();
    loop {
        let pause = if late.is_empty() { WATCH_INTERVAL } else { RELEASE_PAUSE };
        let first = match releases.recv_timeout(pause) {
            Ok(ino) => Some(ino),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(watch) = watch.upgrade() else { return };
        for ino in std::mem::take(&mut late) {
            watch.close(ino);
        }
        late = first.into_iter().chain(releases.try_iter()).filter(|ino| !watch.close(*ino)).collect();
        if looked.elapsed() >= WATCH_INTERVAL {
            for ino in watch.opens.lingering() {
                watch.close(ino);
            }
            looked = Instant::now();
        }
    }
}

/// See [`Watch::look`].
pub struct Look {
    watch: Arc<Watch>,
    ino: u64,
}

impl Look {
    /// Has what was stored into the file recorded.
    pub fn take(&self) {
        match self.watch.passthrough.look_for_stores(self.ino) {
            Ok(true) => self.watch.freshen.now(self.ino),
            Ok(false) => {}
            Err(e) => tracing::error!(
                "look for what was stored into inode {} through a mapping: {e}; run tdfs resync",
                self.ino
            ),
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.watch.passthrough.forget(self.ino, 1);
    }
}
