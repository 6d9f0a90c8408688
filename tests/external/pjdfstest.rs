//! pjdfstest: 398 cases of what POSIX says of names, rights, times and errno.

use std::process::{Command, Output};
use std::time::Duration;

use harness::daemon::end_of;
use harness::{Cluster, TempTree};

use crate::known::{Known, Outcome};
use crate::tools;

const VERSION: &str = "0.2.2";
/// It takes 3 s on ext4 and 5 s through bindfs.
const LIMIT: Duration = Duration::from_secs(180);
/// Fewer would mean that its output was not understood.
const CASES_MIN: usize = 398;
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
allow_remount = false

[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// tdfs.8: "An application can't tell the mount from the backing tree".
#[test]
fn pjdfstest_passes_through_the_mount() {
    let Some(program) = tools::require("pjdfstest_passes_through_the_mount", "pjdfstest", VERSION) else {
        return;
    };
    // On the disk: tmpfs has no LINK_MAX, and a second filesystem is needed for the EXDEV cases.
    let cluster = Cluster::builder(harness::binaries!()).embedded().on_disk().start();
    let other = TempTree::new().expect("make a directory on another filesystem");
    let config = cluster.tree.path().join("pjdfstest.toml");
    std::fs::write(&config, CONFIG).expect("write the configuration");
    let mut command = Command::new(program);
    command.current_dir(cluster.mount()).env_remove("RUST_BACKTRACE");
    command.arg("-c").arg(&config).arg("-p").arg(cluster.mount()).arg("-s").arg(other.path());
    let output = end_of(command, LIMIT).expect("run pjdfstest");

    let outcome = parse(&output);
    let known = Known::of("pjdfstest");
    assert!(known.failing.len() <= FAILING_MAX, "KNOWN.md lists {} failing cases", known.failing.len());
    let differences = known.differences(&outcome);
    assert!(differences.is_empty(), "pjdfstest:\n  {}", differences.join("\n  "));
    cluster.finish();
}

/// What the program reported; fails the test if that can't be the whole suite.
fn parse(output: &Output) -> Outcome {
    let text = String::from_utf8_lossy(&output.stdout);
    let outcome = read(&text);
    let cases = outcome.passed.len() + outcome.failed.len() + outcome.skipped.len();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(cases >= CASES_MIN, "only {cases} cases; pjdfstest ended with {}: {said}\n{text}", output.status);
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
