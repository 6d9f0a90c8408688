//! The manners of a daemon: its log on stderr, and how it is told to end.

use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;
use std::io::{self, IsTerminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Sends the program's log to stderr; `RUST_LOG` says how much of it (default: info). Only the first call
/// has an effect.
pub fn init_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .with_target(false);
    if log.try_init().is_err() {
        tracing::debug!("the log was set up before");
    }
}

/// Limits and umask that the process was started with must not change what is done to a tree.
pub fn prepare_process() {
    rustix::process::umask(rustix::fs::Mode::empty());
    for (resource, name) in [(Resource::Fsize, "file size"), (Resource::Nofile, "open files")] {
        let limit = rustix::process::getrlimit(resource);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(e) = rustix::process::setrlimit(resource, raised) {
            tracing::warn!("raise the limit of {name}: {e}");
        }
    }
}

/// Has the kernel write no core file of this process: its memory holds a key, and what passes through. A limit of 1
/// is less than any core, and makes Linux leave out handlers of core_pattern too, which do not heed 0 (core(5)).
///
/// # Errors
/// When the kernel refuses.
pub fn leave_no_core_file() -> io::Result<()> {
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    match rustix::process::setrlimit(Resource::Core, limit) {
        // A limit that is 0 already can't be raised: there are no files then, and handlers may be called.
        Err(rustix::io::Errno::PERM) => Ok(()),
        done => Ok(done?),
    }
}

/// Gives up the right to write beyond quotas: applications reach the disk through this process, and are to get
/// EDQUOT as without it. To be called before threads are started, after limits were raised.
///
/// # Errors
/// When the kernel refuses.
pub fn respect_quotas() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(CapabilitySet::SYS_RESOURCE);
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Takes SIGXFSZ over, to do nothing: a file over the limit is an error to report, not the end.
///
/// # Errors
/// When the kernel refuses.
pub fn ignore_size_limit() -> io::Result<Signal> {
    signal(SignalKind::from_raw(libc::SIGXFSZ))
}

/// SIGTERM and SIGINT: the first one asks the daemon to end, the second one ends it at once.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes the signals over; to be called on the runtime, early: what comes later is remembered.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the first signal and returns its name. From then on a second one ends the process with
    /// exit code 130, as long as the runtime runs.
    pub async fn first(mut self) -> &'static str {
        let name = self.any().await;
        tokio::spawn(async move {
            let name = self.any().await;
            tracing::warn!("second signal ({name}): ending at once");
            std::process::exit(130);
        });
        name
    }

    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
