//! `tdfs verify`: has replicas compared, shows how far that is, tells what differs.
//!
//! Called by `commands`. Asks the running tdfs again and again; when it ends early, tdfs gives up by itself.

use super::{ASK_MAX, not_running, state_path, told_addresses};
use crate::args::Of;
use crate::ship::{Ended, Found, VerifyStatus};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tdfs_host::control::{self, AskError, Request};

/// How often it asks.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
/// The first comparisons are over soon.
const ASK_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// A slave may be without a connection for so long.
const AWAY_MAX: Duration = Duration::from_secs(15);

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All replicas are equal.
    Equal,
    /// Some are not (or were not, with repair).
    Different,
}

/// One slave's comparison as far as it was told.
struct Slave {
    address: String,
    found: Vec<Found>,
    ended: Option<Ended>,
    away_since: Option<Instant>,
}

/// Runs it to its end; prints the findings as they come, or all as JSON.
pub fn run(of: &Of, slaves: &[String], repair: bool, json: bool) -> anyhow::Result<Outcome> {
    let state = state_path(of)?;
    let request = Request::Verify { slaves: told_addresses(slaves)?, repair };
    let begun = control::ask(&state, &request, Some(ASK_MAX)).map_err(|e| not_running(of, e.into()))?;
    let id = begun["id"].as_u64().context("tdfs answered without the comparison's id")?;
    let names = begun["slaves"].as_array().context("tdfs answered without the slaves")?;
    let new = |name: &Value| Slave {
        address: name.as_str().unwrap_or_default().to_owned(),
        found: Vec::new(),
        ended: None,
        away_since: None,
    };
    let mut asked = Asked { state, id, bar: bar(), quiet: json, slaves: names.iter().map(new).collect() };
    let done = asked.until_ended();
    asked.bar.finish_and_clear();
    done?;
    if json {
        println!("{}", serde_json::to_string_pretty(&asked.as_json(repair))?);
    } else {
        asked.slaves.iter().for_each(|slave| slave.print_end(repair));
    }
    let equal = asked.slaves.iter().all(|slave| slave.ended.is_some_and(|ended| ended.differences == 0));
    Ok(if equal { Outcome::Equal } else { Outcome::Different })
}

/// A comparison that goes on.
struct Asked {
    state: PathBuf,
    id: u64,
    bar: ProgressBar,
    quiet: bool,
    slaves: Vec<Slave>,
}

impl Asked {
    fn until_ended(&mut self) -> anyhow::Result<()> {
        let mut pause = ASK_INTERVAL_MIN;
        loop {
            let mut shown = Vec::new();
            for slave in self.slaves.iter_mut().filter(|slave| slave.ended.is_none()) {
                let status = ask(&self.state, self.id, slave)?;
                let found = slave.take(status, &mut shown)?;
                if !self.quiet {
                    let address = &slave.address;
                    let lines: Vec<_> =
                        found.iter().map(|one| format!("{address}: {}: {}\n", one.path, one.what)).collect();
                    self.bar.suspend(|| std::io::stdout().write_all(lines.concat().as_bytes()))?;
                }
            }
            if self.slaves.iter().all(|slave| slave.ended.is_some()) {
                return Ok(());
            }
            if !shown.is_empty() {
                self.bar.set_message(shown.join("; "));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(ASK_INTERVAL);
        }
    }

    fn as_json(&self, repair: bool) -> Value {
        let one = |slave: &Slave| {
            let ended = slave.ended.unwrap_or(Ended { as_of: 0, objects: 0, bytes: 0, differences: 0 });
            json!({
                "address": slave.address,
                "equal": ended.differences == 0,
                "as_of": ended.as_of,
                "objects": ended.objects,
                "bytes": ended.bytes,
                "differences": ended.differences,
                "found": slave.found,
                "repaired": repair && ended.differences > 0,
            })
        };
        let slaves: Vec<Value> = self.slaves.iter().map(one).collect();
        let equal = self.slaves.iter().all(|slave| slave.ended.is_some_and(|ended| ended.differences == 0));
        json!({ "equal": equal, "slaves": slaves })
    }
}

impl Slave {
    /// Takes in how it stands; returns what is new, and adds how far it is to `shown`.
    fn take(&mut self, status: VerifyStatus, shown: &mut Vec<String>) -> anyhow::Result<Vec<Found>> {
        let connected = !matches!(status.state.as_str(), "away" | "connecting" | "handshake" | "refused");
        let since = *self.away_since.get_or_insert_with(Instant::now);
        if connected {
            self.away_since = None;
        } else if since.elapsed() >= AWAY_MAX {
            let why = status.last_error.map_or(String::new(), |why| format!(": {why}"));
            bail!("{} can't be compared, it is {}{why}", self.address, status.state);
        }
        if let Some(progress) = &status.progress {
            shown.push(format!("{}: {progress}", self.address));
        }
        self.found.extend(status.found.iter().cloned());
        self.ended = status.ended;
        Ok(status.found)
    }

    fn print_end(&self, repair: bool) {
        let Some(ended) = self.ended else { return };
        let bytes = crate::status::bytes(ended.bytes);
        let said = match (ended.differences, repair) {
            (0, _) => "equal".into(),
            (count, false) => format!("{count} objects differ"),
            (count, true) => format!("{count} objects differed and were made equal"),
        };
        let (address, objects, as_of) = (&self.address, ended.objects, ended.as_of);
        println!("{address}: {said} ({objects} objects, {bytes}, as of record {as_of})");
    }
}

fn ask(state: &Path, id: u64, slave: &Slave) -> anyhow::Result<VerifyStatus> {
    let request = Request::Verified { id, slave: slave.address.clone(), from: slave.found.len() };
    match control::ask(state, &request, Some(ASK_MAX)) {
        Ok(status) => serde_json::from_value(status).context("read what tdfs answered"),
        Err(AskError::NotRunning) => bail!("tdfs has ended meanwhile"),
        Err(e) => Err(e.into()),
    }
}

/// Shows a line on stderr, if that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
