//! Ends a daemon that lives too long, so that a hanging mount fails a test and not the whole run.
//!
//! A caller of a mount whose daemon hangs can't be ended; when the daemon is killed it gets an error.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than any test, short enough for somebody who waits.
fn limit() -> Duration {
    Duration::from_secs(if crate::long_form() { 7_200 } else { 600 })
}

/// Watches one process until it is dropped, which must be before that process is reaped or right after.
#[derive(Debug)]
pub struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    /// Starts to watch `pid`.
    pub fn start(pid: Pid) -> Self {
        let (sender, receiver) = channel::<()>();
        std::thread::spawn(move || {
            if receiver.recv_timeout(limit()) == Err(RecvTimeoutError::Timeout) {
                eprintln!(
                    "killing {} after {:?}; its threads:\n{}",
                    pid.as_raw_pid(),
                    limit(),
                    threads_of(pid)
                );
                // It may have ended in this moment.
                let _ = kill_process(pid, Signal::KILL);
            }
        });
        Self { _alive: sender }
    }
}

/// Where each thread of a process stands in the kernel.
fn threads_of(pid: Pid) -> String {
    let mut told = String::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).into_iter().flatten().flatten()
    {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stack: Vec<String> = read("stack").lines().take(6).map(str::to_owned).collect();
        told += &format!("  {}: {}\n", read("comm").trim(), stack.join(" < "));
    }
    told
}
