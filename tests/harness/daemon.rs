//! One daemon as a process: start, wait for it, stop it in every way, start it again.
//!
//! Its stderr goes to a file. A clean stop checks the exit code and that no unexpected WARN or ERROR stands
//! there. Dropping the guard kills the process; mounts are the temp tree's affair.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::first_some;
use crate::watchdog::Watchdog;

/// How long a clean stop may take: 5 s for draining, and this machine may be busy.
pub const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Where the programs under test are. A test target fills it by `harness::binaries!()`.
#[derive(Clone, Copy, Debug)]
pub struct Binaries {
    /// The master.
    pub tdfs: &'static str,
    /// The slave.
    pub slave: &'static str,
}

/// Gives the programs that cargo built for the calling test target.
#[macro_export]
macro_rules! binaries {
    () => {
        $crate::Binaries {
            tdfs: env!("CARGO_BIN_EXE_tdfs-under-test"),
            slave: env!("CARGO_BIN_EXE_tdfs-slave-under-test"),
        }
    };
}

/// A daemon that was started here.
#[derive(Debug)]
pub struct Daemon {
    program: String,
    args: Vec<OsString>,
    log: PathBuf,
    expected: Vec<String>,
    child: Option<Child>,
    watchdog: Option<Watchdog>,
}

impl Daemon {
    /// Starts `program` with `args`; its stderr is appended to `log`.
    pub fn start(program: &str, args: &[OsString], log: &Path) -> Result<Self> {
        let mut daemon = Self {
            program: program.to_owned(),
            args: args.to_vec(),
            log: log.to_owned(),
            expected: Vec::new(),
            child: None,
            watchdog: None,
        };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it with the same arguments after it has ended.
    pub fn start_again(&mut self) -> Result<()> {
        self.start_again_with(&[])
    }

    /// The same with some more arguments, for this time alone.
    pub fn start_again_with(&mut self, more: &[&str]) -> Result<()> {
        anyhow::ensure!(self.child.is_none(), "{} runs already", self.program);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).context("open log file")?;
        let mut command = command(&self.program, &self.args);
        command.args(more).env("TDFS_CRASH_FILE", self.crash_file());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.program))?;
        self.watchdog = Some(Watchdog::start(Pid::from_child(&child)));
        self.child = Some(child);
        Ok(())
    }

    /// From its next start on it lacks a capability that root has, named without `cap_`.
    pub fn without_capability(&mut self, name: &str) {
        let program = std::mem::replace(&mut self.program, "setpriv".into());
        let before = ["--bounding-set".into(), format!("-{name}").into(), program.into()];
        self.args.splice(0..0, before);
    }

    /// Replaces an argument by another, for the next start.
    pub fn replace_arg(&mut self, old: impl AsRef<OsStr>, new: impl AsRef<OsStr>) {
        for arg in self.args.iter_mut().filter(|arg| arg.as_os_str() == old.as_ref()) {
            *arg = new.as_ref().to_owned();
        }
    }

    /// A WARN or ERROR line that holds `part` does not fail the test.
    pub fn expect_log(&mut self, part: &str) {
        self.expected.push(part.to_owned());
    }

    /// Its stderr.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The file that says at which crash point the master kills itself: a number, counted down at each.
    pub fn crash_file(&self) -> PathBuf {
        self.log.with_extension("crash")
    }

    /// Its process id. Fails the test when it does not run.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("find a running daemon"))
    }

    /// True while the process lives.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// True when it was started and its end was not noticed yet.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Number of files it has open.
    pub fn fd_count(&self) -> usize {
        crate::temp_tree::fds_of(&self.pid().as_raw_pid().to_string()).len()
    }

    /// The most memory that it has had at once: bytes of `VmHWM`, 0 when it does not run.
    pub fn memory_peak(&self) -> u64 {
        let Some(child) = &self.child else { return 0 };
        let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("send a signal");
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&mut self, limit: Duration) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        let status = first_some(limit, || child.try_wait().expect("wait for the daemon"));
        if status.is_some() {
            (self.child, self.watchdog) = (None, None);
        }
        status
    }

    /// SIGTERM, exit code 0 within `limit`, and a log without surprises; fails the test otherwise.
    #[track_caller]
    pub fn stop_within(&mut self, limit: Duration) {
        self.signal(Signal::TERM);
        self.assert_ends_cleanly(limit);
    }

    /// Exit code 0 within `limit` without being asked, and a log without surprises.
    #[track_caller]
    pub fn assert_ends_cleanly(&mut self, limit: Duration) {
        let Some(status) = self.wait_end(limit) else {
            panic!("{} has not ended within {limit:?}; its log:\n{}", self.program, self.log_tail());
        };
        assert!(status.success(), "{} ended with {status}; its log:\n{}", self.program, self.log_tail());
        self.assert_log_expected();
    }

    /// `stop_within` the usual limit.
    #[track_caller]
    pub fn stop(&mut self) {
        self.stop_within(STOP_LIMIT);
    }

    /// kill -9, and waits for the end.
    pub fn kill(&mut self) {
        self.watchdog = None;
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Fails the test when the log holds a WARN or ERROR that was not listed.
    #[track_caller]
    pub fn assert_log_expected(&self) {
        let lines = crate::log_lines::unexpected(&self.log, &self.expected);
        assert!(lines.is_empty(), "unexpected in the log of {}:\n{}", self.program, lines.join("\n"));
    }

    /// The last lines of its log, for messages.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} {:?}\n{}\n---", self.program, self.args, self.log_tail());
        }
    }
}

/// A command of one of the programs, in the environment that every test uses.
pub fn command(program: &str, args: &[OsString]) -> Command {
    let mut command = Command::new(program);
    // The fail point holds writes of files whose name ends with `held-by-test`, and no others.
    command.args(args).env("NO_COLOR", "1").env("FAILPOINTS", "write-held=sleep(2000)");
    command.env_remove("XDG_STATE_HOME");
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", "info");
    }
    // A terminal's Ctrl-C is for the test, which then ends its daemons by dropping them.
    command.process_group(0);
    command
}

/// Runs one of the programs to its end; kills it and fails when that takes longer than `limit`.
pub fn run_to_end(program: &str, args: &[OsString], limit: Duration) -> Result<Output> {
    end_of(command(program, args), limit)
}

/// Runs `command` to its end with its output captured; kills it and fails after `limit`.
pub fn end_of(mut command: Command, limit: Duration) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let pid = Pid::from_child(&child);
    let (sender, receiver) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(limit);
    if output.is_err() {
        // Not reaped yet: the reader is still waiting for it, so the pid is still its own.
        let _ = kill_process(pid, Signal::KILL);
    }
    let _ = reader.join();
    output.with_context(|| format!("{command:?} has not ended within {limit:?}"))?.context("read its output")
}

#[cfg(test)]
mod tests {
    use super::{Daemon, run_to_end};
    use crate::TempTree;
    use std::ffi::OsString;
    use std::time::Duration;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A shell script in the role of a daemon; it is ready when its log says so.
    fn daemon(tree: &TempTree, script: &str) -> Daemon {
        let args: Vec<OsString> = vec!["-c".into(), script.into()];
        let daemon = Daemon::start("/bin/sh", &args, &tree.path().join("log")).unwrap();
        crate::eventually(LIMIT, "the script is ready", || daemon.log_tail().contains("ready"));
        daemon
    }

    const GOOD: &str = "trap 'exit 0' TERM; echo ready >&2; while :; do sleep 0.01; done";

    #[test]
    fn a_good_daemon_stops_and_starts_again() {
        let tree = TempTree::new().unwrap();
        let mut daemon = daemon(&tree, GOOD);
        daemon.stop_within(LIMIT);
        assert!(!daemon.is_running());
        daemon.start_again().unwrap();
        assert!(daemon.is_alive() && daemon.fd_count() >= 3);
        daemon.kill();
        assert!(!daemon.is_alive());
    }

    #[test]
    #[should_panic(expected = "ended with exit status: 3")]
    fn another_exit_code_fails_the_test() {
        let tree = TempTree::new().unwrap();
        daemon(&tree, &GOOD.replace("exit 0", "exit 3")).stop_within(LIMIT);
    }

    #[test]
    #[should_panic(expected = "unexpected in the log")]
    fn an_error_in_the_log_fails_the_test() {
        let tree = TempTree::new().unwrap();
        daemon(&tree, &format!("echo '2026 ERROR tdfs: lost' >&2; {GOOD}")).stop_within(LIMIT);
    }

    #[test]
    fn an_expected_error_does_not() {
        let tree = TempTree::new().unwrap();
        let mut daemon = daemon(&tree, &format!("echo '2026 ERROR tdfs: lost' >&2; {GOOD}"));
        daemon.expect_log("lost");
        daemon.stop_within(LIMIT);
    }

    #[test]
    fn what_does_not_end_is_killed() {
        let error = run_to_end("sleep", &["1000".into()], Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("has not ended within"), "{error:#}");
    }
}
