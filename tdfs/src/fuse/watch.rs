//! Looks at the files that may be stored into unseen, as long as they are open so (`--passthrough`).
//!
//! Used by the adapter, and by the daemon before it says that all is recorded. What a look is, `passthrough/stores.rs` says.

use super::freshen::Freshen;
use super::opens::Opens;
use crate::passthrough::Passthrough;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often files that may be stored into unseen are looked at while they are open.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Who has which file open, and the looks at what is stored there.
pub struct Watch {
    pub(super) opens: Opens,
    passthrough: Arc<Passthrough>,
    freshen: Arc<Freshen>,
}

impl Watch {
    /// Looks at the watched files, on a thread of its own, until nobody needs that any more.
    pub fn start(passthrough: &Arc<Passthrough>, freshen: &Arc<Freshen>) -> io::Result<Arc<Watch>> {
        let (passthrough, freshen) = (Arc::clone(passthrough), Arc::clone(freshen));
        let watch = Arc::new(Watch { opens: Opens::default(), passthrough, freshen });
        let weak = Arc::downgrade(&watch);
        let work = move || {
            while let Some(watch) = weak.upgrade() {
                watch.look_at_all();
                drop(watch);
                std::thread::sleep(WATCH_INTERVAL);
            }
        };
        std::thread::Builder::new().name("stores".into()).spawn(work)?;
        Ok(watch)
    }

    /// A look at one file, whose node stays until it is over: the kernel may forget it as soon as its release is answered.
    /// None if the kernel has forgotten it already.
    pub fn look(self: &Arc<Self>, ino: u64) -> Option<Look> {
        self.passthrough.hold(ino).then(|| Look { watch: Arc::clone(self), ino })
    }

    /// Looks at all files that are open so, and waits for those that were; false if that took too long.
    pub fn settle(self: &Arc<Self>, at_most: Duration) -> bool {
        self.look_at_all();
        self.opens.wait_until_ended(at_most)
    }

    fn look_at_all(self: &Arc<Self>) {
        for ino in self.opens.watched() {
            // What is gone already is looked at by its release.
            if let Some(look) = self.look(ino) {
                look.take();
            }
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

    /// The same behind the file's last release: the kernel's old pages go, too.
    pub fn end(&self, is_watched: bool) {
        if is_watched {
            self.take();
            self.watch.passthrough.forget_stores(self.ino);
        }
        self.watch.freshen.pages(self.ino, 0, 0);
        self.watch.opens.end(self.ino);
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.watch.passthrough.forget(self.ino, 1);
    }
}
