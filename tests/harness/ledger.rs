//! A SQLite database in WAL mode that commits numbered rows, one after the other, as fast as it can. The newest are kept,
//! so that a long test does not come to a standstill over a large database.
//!
//! The work of the sqlite3 program: a process of its own, which a mount that loses its daemon may end by
//! SIGBUS (WAL mode maps a file). Knows which commits were answered. Also reads a copy of such a database.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::daemon::end_of;

/// How long a query of a small database may take on a busy machine.
const QUERY_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
/// Checkpoints come often, so that kills meet them too.
const BEGIN: &str = "PRAGMA busy_timeout=10000; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; \
    PRAGMA wal_autocheckpoint=60; \
    CREATE TABLE IF NOT EXISTS commits(number INTEGER PRIMARY KEY, filler BLOB);\n";
/// So many commits are kept.
const KEPT: u64 = 1_000;
/// Files of a database: itself, its log, the index of that.
const FILES: [&str; 3] = ["", "-wal", "-shm"];

/// The name of the database below the root of a tree.
pub const DATABASE: &str = "ledger.sqlite";

/// A running writer of commits.
#[derive(Debug)]
pub struct Ledger {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Ledger {
    /// Opens the database below `root`, makes it if it is missing, and goes on behind commit `last`.
    pub fn start(root: &Path, last: u64) -> Result<Self> {
        let mut command = Command::new("stdbuf");
        // After an error it would go on without a word, and we would wait for one.
        command.args(["-oL", "sqlite3", "-batch", "-bail"]).arg(root.join(DATABASE));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("start sqlite3")?;
        let input = child.stdin.take().context("take its stdin")?;
        let output = BufReader::new(child.stdout.take().context("take its stdout")?);
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(last)));
        let told = (Arc::clone(&stop), Arc::clone(&answered));
        let writer = std::thread::spawn(move || {
            commit_until(child, (input, output), &told.0, &told.1);
        });
        Ok(Self { stop, answered, writer: Some(writer) })
    }

    /// The newest commit that was answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Ends it; gives the newest commit that was answered.
    pub fn stop(mut self) -> u64 {
        self.end();
        self.answered()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(writer) = self.writer.take() {
            // A panic in there was printed already.
            let _ = writer.join();
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.end();
    }
}

/// Commits until it is told to stop or sqlite3 says something else than the number, as without its mount.
fn commit_until(
    mut child: Child,
    (mut input, mut output): (ChildStdin, BufReader<ChildStdout>),
    stop: &AtomicBool,
    answered: &AtomicU64,
) {
    let begun = input.write_all(BEGIN.as_bytes()).is_ok();
    // Timeout, mode and checkpoint are said back.
    let begun = begun && (0..3).all(|_| output.read_line(&mut String::new()).is_ok_and(|len| len > 0));
    while begun && !stop.load(Ordering::SeqCst) {
        let number = answered.load(Ordering::SeqCst) + 1;
        let row = format!(
            "BEGIN; INSERT OR IGNORE INTO commits VALUES({number}, randomblob({})); \
             DELETE FROM commits WHERE number <= {}; COMMIT; SELECT max(number) FROM commits;\n",
            100 + number % 3000,
            number.saturating_sub(KEPT)
        );
        let mut line = String::new();
        let said = input.write_all(row.as_bytes()).and_then(|()| output.read_line(&mut line));
        if said.is_err() || line.trim().parse() != Ok(number) {
            break;
        }
        answered.store(number, Ordering::SeqCst);
    }
    drop(input);
    // It may hang in a mount that is going: its end is waited for without a limit, as by the kernel.
    let _ = child.kill();
    let _ = child.wait();
}

/// Copies the database below `root` aside, and gives the newest commit of the copy; 0 where it is not yet made.
///
/// # Errors
/// When it is damaged, or when its commits are not the last ones of a prefix.
pub fn newest_commit(root: &Path) -> Result<u64> {
    let aside = tempfile::tempdir().context("make a directory for the copy")?;
    for end in FILES {
        let name = format!("{DATABASE}{end}");
        match std::fs::copy(root.join(&name), aside.path().join(&name)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("copy the database"),
        }
    }
    let copy = aside.path().join(DATABASE);
    let integrity = query(&copy, "PRAGMA integrity_check")?;
    ensure!(integrity == "ok", "PRAGMA integrity_check says {integrity}");
    if query(&copy, "SELECT count(*) FROM sqlite_master WHERE name='commits'")? == "0" {
        return Ok(0);
    }
    let said = query(&copy, "SELECT count(*), coalesce(max(number), 0) FROM commits")?;
    let (count, newest) = said.split_once('|').context("read count and newest commit")?;
    let (count, newest): (u64, u64) = (count.parse()?, newest.parse().context("read the newest commit")?);
    ensure!(count == newest.min(KEPT), "{count} commits, and the newest is {newest}: no prefix");
    Ok(newest)
}

fn query(database: &Path, sql: &str) -> Result<String> {
    let mut command = Command::new("sqlite3");
    command.arg("-batch").arg(database).arg(sql);
    let output = end_of(command, QUERY_LIMIT)?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "sqlite3 ended with {}: {words}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{DATABASE, Ledger, newest_commit, query};
    use crate::TempTree;

    /// Commits are counted, found again, gone on with, and a hole among them is found.
    #[test]
    fn a_prefix_is_told_from_a_hole() {
        if !crate::require("a_prefix_is_told_from_a_hole", "sqlite3", "sqlite3") {
            return;
        }
        let tree = TempTree::new().unwrap();
        assert_eq!(newest_commit(tree.path()).unwrap(), 0);
        for _ in 0..2 {
            let last = newest_commit(tree.path()).unwrap();
            let ledger = Ledger::start(tree.path(), last).unwrap();
            crate::eventually(super::QUERY_LIMIT, "it commits", || ledger.answered() > last + 20);
            let last = ledger.stop();
            assert_eq!(newest_commit(tree.path()).unwrap(), last);
        }
        query(
            &tree.path().join(DATABASE),
            "DELETE FROM commits WHERE number = 7 + (SELECT min(number) FROM commits)",
        )
        .unwrap();
        assert!(newest_commit(tree.path()).unwrap_err().to_string().contains("no prefix"));
    }
}
