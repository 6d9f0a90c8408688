//! The command lines: wrong use, status, wait, versions.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod status;
mod wrong_use;

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use harness::Binaries;
use harness::daemon::run_to_end;

const BINARIES: Binaries = harness::binaries!();
const LIMIT: Duration = Duration::from_secs(20);

/// How a program ended: exit code, what it wrote.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(program: &str, args: &[&dyn AsRef<OsStr>]) -> Ended {
    let args: Vec<OsString> = args.iter().map(|arg| to_owned(*arg)).collect();
    let output = run_to_end(program, &args, LIMIT).unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn to_owned(arg: &dyn AsRef<OsStr>) -> OsString {
    arg.as_ref().to_owned()
}

/// The contract: "Wrong use gets one clear sentence and exit code 2".
#[track_caller]
fn assert_one_sentence(ended: &Ended, code: i32) {
    let words = ended.stderr.trim_end();
    assert_eq!(ended.code, Some(code), "stderr: {words}");
    assert_eq!(words.lines().count(), 1, "not one line: {words:?}");
    assert!(words.split(' ').count() >= 4, "no sentence: {words:?}");
    assert!(!words.contains("panicked") && !words.contains("Error {"), "not for a reader: {words:?}");
}
