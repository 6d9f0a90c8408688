//! pjdfstest: 398 cases of what POSIX says of names, rights, times and errno.
//!
//! The cases that remount their file system read-only run by themselves, after the others: some of those leave a file
//! open, and then nothing can be remounted, on no file system.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use harness::daemon::end_of;
use harness::{Cluster, TempTree};

use crate::fsx::compare;
use crate::known::{Known, Outcome};
use crate::tools;
use harness::modes::Mode;

/// It takes 3 s on ext4 and 5 s through bindfs.
const LIMIT: Duration = Duration::from_secs(180);
/// Fewer would mean that its output was not understood.
const CASES_MIN: usize = 398;
/// Those of them that remount.
const REMOUNT: &str = "erofs";
const REMOUNT_CASES_MIN: usize = 13;
/// A list longer than this is no list of exceptions any more.
const FAILING_MAX: usize = 10;

const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}

[settings]
naptime = 0.01
allow_remount = REMOUNT

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// The program, and where it finds what it needs.
#[derive(Debug)]
pub struct Pjdfstest {
    program: PathBuf,
    home: PathBuf,
    other: TempTree,
}

/// What becomes of the files that the cases made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// The suite removes them.
    Removed,
    /// They stay, for a comparison.
    Kept,
}

impl Pjdfstest {
    /// None after saying that `test` is skipped. `home` lies outside the tested file system; `other` is a directory of
    /// another file system than the tested one.
    #[track_caller]
    pub fn new(test: &str, home: &Path, other: TempTree) -> Option<Self> {
        let program = tools::require(test, "pjdfstest", "0.2.2")?;
        // mount(8) hands a remount of a FUSE type to the file system's program; the kernel does it by itself.
        let mount = harness::programs::find("mount").expect("find mount(8)");
        let bin = home.join("bin");
        std::fs::create_dir(&bin).expect("make a directory for a program");
        let script = format!("#!/bin/sh\nexec {} -i \"$@\"\n", mount.display());
        std::fs::write(bin.join("mount"), script).expect("write a program");
        std::fs::set_permissions(bin.join("mount"), Permissions::from_mode(0o755))
            .expect("make it a program");
        Some(Self { program, home: home.to_owned(), other })
    }

    /// Runs all cases in `place`.
    pub fn run(&self, place: &Path, leftover: Leftover) -> Outcome {
        let mut outcome = parse(&self.end(place, None, leftover), CASES_MIN);
        let remounting = parse(&self.end(place, Some(REMOUNT), Leftover::Removed), REMOUNT_CASES_MIN);
        outcome.replace(remounting);
        outcome
    }

    fn end(&self, place: &Path, only: Option<&str>, leftover: Leftover) -> Output {
        let config = self.home.join("pjdfstest.toml");
        let text = CONFIG.replace("REMOUNT", if only.is_some() { "true" } else { "false" });
        std::fs::write(&config, text).expect("write the configuration");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(&self.program);
        command.current_dir(place).env_remove("RUST_BACKTRACE");
        command.env("PATH", format!("{}:{path}", self.home.join("bin").display()));
        command.arg("-c").arg(&config).arg("-p").arg(place).arg("-s").arg(self.other.path()).args(only);
        std::thread::scope(|scope| {
            let run = || {
                if leftover == Leftover::Kept {
                    harness::sys::forbid_unlinkat().expect("keep what the cases leave");
                }
                end_of(command, LIMIT).expect("run pjdfstest")
            };
            scope.spawn(run).join().expect("run pjdfstest on a thread of its own")
        })
    }
}

/// tdfs.8: "An application can't tell the mount from the backing tree".
#[test]
fn pjdfstest_passes_through_the_mount() {
    passes("pjdfstest_passes_through_the_mount", Mode::ALL[0]);
}

/// The same where the kernel reads files itself.
#[test]
fn pjdfstest_passes_with_passthrough() {
    passes("pjdfstest_passes_with_passthrough", Mode::ALL[2]);
}

/// On the disk: a second file system is needed for the EXDEV cases.
fn passes(test: &str, mode: Mode) {
    let cluster: Cluster = mode.builder(harness::binaries!()).on_disk().start();
    let other = TempTree::new().expect("make a directory on another filesystem");
    let Some(suite) = Pjdfstest::new(test, cluster.tree.path(), other) else { return };
    let outcome = suite.run(cluster.mount(), Leftover::Kept);
    let known = Known::of("pjdfstest");
    assert!(known.failing.len() <= FAILING_MAX, "KNOWN.md lists {} failing cases", known.failing.len());
    let differences = known.differences(&outcome);
    assert!(differences.is_empty(), "pjdfstest:\n  {}", differences.join("\n  "));
    assert_leftover(cluster.mount());
    compare(&cluster);
    cluster.finish();
}

/// Without this the comparison would have nothing to compare.
pub fn assert_leftover(place: &Path) {
    let base = std::fs::read_dir(place).expect("list the mount").flatten().map(|entry| entry.path());
    let cases = base.filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().count();
    assert!(cases >= CASES_MIN / 2, "only {cases} directories are left of all cases");
}

/// What the program reported; fails the test if that can't be all.
fn parse(output: &Output, cases_min: usize) -> Outcome {
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = read(&text);
    let cases = outcome.passed.len() + outcome.failed.len() + outcome.skipped.len();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(cases >= cases_min, "only {cases} cases; pjdfstest ended with {}: {said}\n{text}", output.status);
    let summary = format!("{} failed, {} skipped", outcome.failed.len(), outcome.skipped.len());
    assert!(text.contains(&summary), "{summary} were read, and pjdfstest says otherwise:\n{text}");
    outcome
}

/// Lines are `CASE  ok`, or `CASE  FAILED` and `CASE  skipped` with a reason in the next line.
fn read(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((case, word)) = line.split_once(char::is_whitespace) else { continue };
        let mut reason = || lines.peek().map_or("", |next| next.trim()).to_owned();
        match word.trim() {
            "ok" => drop(outcome.passed.insert(case.to_owned())),
            "FAILED" => drop(outcome.failed.insert(case.to_owned(), reason())),
            "skipped" => drop(outcome.skipped.insert(case.to_owned(), reason())),
            _ => {}
        }
    }
    outcome
}

#[test]
fn output_is_understood() {
    let text = "unlink::fifo      ok\nunlink::socket     FAILED\n\tTimes did not change\nBacktrace:\n   0: main\n\n\
        open::erofs    skipped\n\tNo remount\n\nSummary: 1 failed, 1 skipped, 1 passed";
    let outcome = read(text);
    assert!(outcome.passed.iter().eq(["unlink::fifo"]));
    assert_eq!(outcome.failed["unlink::socket"], "Times did not change");
    assert_eq!(outcome.skipped["open::erofs"], "No remount");
}
