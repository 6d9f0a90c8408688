//! System calls that need `unsafe`: the only module of the workspace where it compiles.
#![allow(unsafe_code)]

use rustix::io::Result;
use rustix::thread::UnshareFlags;

/// Gives the calling thread a umask and working directory of its own (unshare(2), CLONE_FS), so that it
/// can create objects under a caller's umask without a race with other threads.
pub fn unshare_umask() -> Result<()> {
    // SAFETY: CLONE_FS separates umask, root and working directory; no fd or memory of others changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }
}
