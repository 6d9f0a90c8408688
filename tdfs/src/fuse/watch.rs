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
                if look_for_stores(&passthrough, ino) {
                    freshen.now(ino);
                }
            }
            std::thread::sleep(WATCH_INTERVAL);
        }
    };
    std::thread::Builder::new().name("stores".into()).spawn(look).map(drop)
}

/// Looks at one; true if anything was stored there.
pub fn look_for_stores(passthrough: &Passthrough, ino: u64) -> bool {
    passthrough.look_for_stores(ino).unwrap_or_else(|e| {
        tracing::error!("look for what was stored into inode {ino} through a mapping: {e}; run tdfs resync");
        false
    })
}
