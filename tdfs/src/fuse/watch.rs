//! Looks at the files that may be stored into unseen, as long as they are open so (`--passthrough`).
//!
//! Started by the adapter. What a look is, `passthrough/stores.rs` says.

use super::freshen::Freshen;
use super::opens::Opens;
use crate::passthrough::Passthrough;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often files that may be stored into unseen are looked at while they are open.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at the watched files until nobody needs that any more.
pub fn watch(opens: Weak<Opens>, passthrough: Arc<Passthrough>, freshen: Arc<Freshen>) -> io::Result<()> {
    let look = move || {
        while let Some(watched) = opens.upgrade().map(|opens| opens.watched()) {
            for ino in watched {
                // What is gone already is looked at by its release.
                if Look::at(&passthrough, ino).is_some_and(|look| look.finds_stores()) {
                    freshen.now(ino);
                }
            }
            std::thread::sleep(WATCH_INTERVAL);
        }
    };
    std::thread::Builder::new().name("stores".into()).spawn(look).map(drop)
}

/// A look at one file, whose node stays until it is over: the kernel may forget it as soon as its release is answered.
pub struct Look {
    passthrough: Arc<Passthrough>,
    ino: u64,
}

impl Look {
    /// None if the kernel has forgotten the file.
    pub fn at(passthrough: &Arc<Passthrough>, ino: u64) -> Option<Look> {
        passthrough.hold(ino).then(|| Look { passthrough: Arc::clone(passthrough), ino })
    }

    /// True if anything was stored there.
    pub fn finds_stores(&self) -> bool {
        let ino = self.ino;
        self.passthrough.look_for_stores(ino).unwrap_or_else(|e| {
            tracing::error!(
                "look for what was stored into inode {ino} through a mapping: {e}; run tdfs resync"
            );
            false
        })
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        self.passthrough.forget(self.ino, 1);
    }
}
