//! The FUSE session: mounts, and runs fuser's workers until the mount is gone.

use super::Adapter;
use super::barrier::Barrier;
use super::mount::Mount;
use super::watch::Watch;
use crate::passthrough::Passthrough;
use anyhow::Context;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;

/// Most workers; each has a buffer of 16 MiB, of which it touches what it uses.
const WORKERS_MAX: usize = 8;

/// How many workers a session has: one a CPU, and at least two, so that an operation which sleeps in the disk
/// holds up only itself.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, WORKERS_MAX)
}

/// Mounts what `passthrough` serves and starts the workers; `passes`: `--passthrough`; the receiver hears when the session ends.
///
/// # Errors
/// When it can't be mounted, or the kernel's FUSE is too old. Then nothing is mounted.
pub fn start(
    (source, mountpoint): (&Path, &Path),
    passthrough: &Arc<Passthrough>,
    barrier: &Arc<Barrier>,
    passes: bool,
) -> anyhow::Result<(Mount, Option<Arc<Watch>>, oneshot::Receiver<()>)> {
    let notifier = Arc::new(OnceLock::new());
    let adapter = Adapter::new(Arc::clone(passthrough), Arc::clone(&notifier), Arc::clone(barrier), passes)?;
    let watch = adapter.watch();
    let (mount, fuse) = Mount::new(source, mountpoint)?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(workers());
    let session = match fuser::Session::from_fd(adapter, fuse, fuser::SessionACL::All, config) {
        Ok(session) => session,
        Err(e) => {
            mount.unmount()?;
            return Err(e).context("begin the FUSE session");
        }
    };
    let _ = notifier.set(session.notifier()); // the only one who sets it
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new().name("fuse".into()).spawn(move || {
        if let Err(e) = session.run() {
            tracing::debug!("the FUSE session ended: {e}");
        }
        let _ = end.send(()); // nobody waits any more when we end ourselves
    })?;
    Ok((mount, watch, ended))
}
