//! Where a kill can fall: a system call that changes a tree, or what a daemon keeps of it, is one step.
//!
//! `object`, `state` and the slave's `replay` and `applied` make those calls through [`step`] (tidy looks). With
//! the feature `failpoints` a test ends its process before any of them, and has a call fail; without the feature
//! nothing of this is left. Decides nothing.

use std::path::Path;

/// Makes `call`: one system call that changes something.
#[inline]
pub fn step<T>(call: impl FnOnce() -> T) -> T {
    #[cfg(feature = "failpoints")]
    points::pass();
    call()
}

/// How many of `len` bytes one call may move. All of them; few where a test wants to kill inside of a long call.
#[inline]
pub fn at_once(len: usize) -> usize {
    #[cfg(feature = "failpoints")]
    let len = points::at_once(len);
    len
}

/// What a test has the call `name` of the daemon do whose state is in `state`: fail once with the errno in the file
/// `fail-NAME` there, or hang where that says so.
///
/// # Errors
/// That.
#[inline]
pub fn failing(state: &Path, name: &str) -> rustix::io::Result<()> {
    #[cfg(feature = "failpoints")]
    points::failing(state, name)?;
    let _ = (state, name);
    Ok(())
}

/// Has a test find out what this process can open: the path in the file `try-outside` of the state is opened to read,
/// and a file beside it is made; the errnos (0: done) go to the file `tried-outside`.
#[inline]
pub fn try_outside(state: &Path) {
    #[cfg(feature = "failpoints")]
    points::try_outside(state);
    let _ = state;
}

/// What tests do at the steps of one thread.
#[cfg(feature = "failpoints")]
pub mod points {
    use rustix::io::Errno;
    use rustix::process::{Signal, getpid, kill_process};
    use std::cell::Cell;
    use std::path::Path;
    use std::time::Duration;

    /// In a thread that counts its steps one call moves at most so many bytes.
    const PIECE_BYTES: usize = 4096;
    /// A call that hangs does so for this long: longer than any test waits.
    const HANG: Duration = Duration::from_secs(300);

    thread_local! {
        /// Steps since they are counted, and the one that is not done any more. None: nobody counts.
        static COUNTED: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
    }

    /// From now on the steps of this thread are counted, from 1, and the process ends by SIGKILL before step `last`.
    pub fn kill_before(last: u64) {
        COUNTED.set(Some((0, last)));
    }

    /// Counts no more; returns how many steps there were.
    pub fn end() -> u64 {
        COUNTED.take().map_or(0, |(steps, _)| steps)
    }

    pub(super) fn pass() {
        let Some((steps, last)) = COUNTED.get() else { return };
        COUNTED.set(Some((steps + 1, last)));
        if steps + 1 == last {
            kill_now();
        }
    }

    /// Ends the process as kill -9 does: nothing is said or written any more.
    pub fn kill_now() {
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }

    pub(super) fn at_once(len: usize) -> usize {
        if COUNTED.get().is_some() { len.min(PIECE_BYTES) } else { len }
    }

    pub(super) fn try_outside(state: &Path) {
        let asked = state.join("try-outside");
        let Ok(path) = std::fs::read_to_string(&asked) else { return };
        let _ = std::fs::remove_file(asked);
        let errno =
            |done: std::io::Result<std::fs::File>| done.err().map_or(0, |e| e.raw_os_error().unwrap_or(-1));
        let read = errno(std::fs::File::open(&path));
        let made = errno(std::fs::File::create_new(format!("{path}.made")));
        let _ = std::fs::write(state.join("tried-outside"), format!("{read} {made}"));
    }

    pub(super) fn failing(state: &Path, name: &str) -> rustix::io::Result<()> {
        let file = state.join(format!("fail-{name}"));
        let Ok(errno) = std::fs::read_to_string(&file) else { return Ok(()) };
        let _ = std::fs::remove_file(file);
        if errno == "hang" {
            std::thread::sleep(HANG);
            return Ok(());
        }
        Err(Errno::from_raw_os_error(errno.trim().parse().unwrap_or(libc::EIO)))
    }
}
