//! The commands to a running tdfs: they ask it over its control socket.
//!
//! Called by `daemon` for the command line; never touches the mount.

mod verify;

use crate::args::Of;
use crate::ship::{KnownSlaves, NamedSlave, SlaveAddress, SlaveStatus};
use crate::status::Status;
use anyhow::Context;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tdfs_host::cli::{self, WRONG_USE, WrongUse};
use tdfs_host::control::{self, AskError, Request};
use tdfs_host::key;
use tdfs_host::state;

/// How long tdfs may take to answer.
const ASK_MAX: Duration = Duration::from_secs(10);
/// How often `wait` looks: each time after this part of the time it has waited so far, within these limits.
const LOOK_PART: u32 = 32;
const LOOK_MIN: Duration = Duration::from_millis(2);
const LOOK_MAX: Duration = Duration::from_millis(100);

/// `tdfs status`.
pub fn status(of: &Of, json: bool) -> anyhow::Result<()> {
    let status = ask(&state_path(of)?, &Request::Status, Some(ASK_MAX)).map_err(|e| not_running(of, e))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{status}");
    }
    Ok(())
}

/// `tdfs wait`: 0 when every slave has applied what was changed before the call; 1 at the timeout; 2 when tdfs
/// does not run.
pub fn wait(of: &Of, timeout: Option<Duration>) -> ExitCode {
    cli::exit("tdfs", wait_until(of, timeout.map(|timeout| Instant::now() + timeout)))
}

/// `tdfs verify`: 0 when all replicas are equal; 1 when some are not; 2 when that could not be found out.
pub fn verify(of: &Of, slaves: &[String], repair: bool, json: bool) -> ExitCode {
    match verify::run(of, slaves, repair, json) {
        Ok(verify::Outcome::Equal) => ExitCode::SUCCESS,
        Ok(verify::Outcome::Different) => ExitCode::from(cli::FAILED),
        Err(e) => {
            eprintln!("tdfs: {e:#}");
            ExitCode::from(WRONG_USE)
        }
    }
}

/// `tdfs resync`.
pub fn resync(of: &Of, slaves: &[String], checksum: bool, confirm: bool) -> anyhow::Result<()> {
    tell(of, &Request::Resync { slaves: told_addresses(slaves)?, checksum, confirm })
}

/// `tdfs add`.
pub fn add(of: &Of, slave: &str) -> anyhow::Result<()> {
    tell(of, &Request::Add { slave: named(slave)?.to_string() })
}

/// `tdfs forget`.
pub fn forget(of: &Of, slave: &str) -> anyhow::Result<()> {
    tell(of, &Request::Forget { slave: address(slave)?.to_string() })
}

/// `tdfs key`.
pub fn key(of: &Of) -> anyhow::Result<()> {
    println!("{}", key::fingerprint_at(&state_path(of)?).map_err(|e| WrongUse(e.to_string()))?);
    Ok(())
}

/// `tdfs repin`.
pub fn repin(of: &Of, slave: &str) -> anyhow::Result<()> {
    let slave = named(slave)?;
    if let SlaveAddress::Embedded(path) = &slave.address {
        let shown = path.display();
        return Err(WrongUse(format!(
            "{shown} is a slave inside tdfs and has no key: name one on the network"
        ))
        .into());
    }
    cli::ask_or_do(&state_path(of)?, &Request::Repin { slave: slave.to_string() }, |state| {
        let mut known = KnownSlaves::load(&state)?;
        if known.set(&slave.address, slave.key) {
            known.store(&state)?;
        } else if slave.key.is_none() {
            return Err(WrongUse(format!("no key of {} is known", slave.address)).into());
        }
        Ok(Value::Null)
    })?;
    Ok(())
}

/// A slave as a user names it; a path is made absolute.
pub fn named(text: &str) -> Result<NamedSlave, WrongUse> {
    let mut named: NamedSlave = text.parse().map_err(WrongUse)?;
    if let SlaveAddress::Embedded(path) = &mut named.address {
        *path = cli::absolute_to_make(path)?;
    }
    Ok(named)
}

/// Its address alone.
fn address(text: &str) -> Result<SlaveAddress, WrongUse> {
    Ok(named(text)?.address)
}

fn told_addresses(slaves: &[String]) -> Result<Vec<String>, WrongUse> {
    slaves.iter().map(|slave| Ok(address(slave)?.to_string())).collect()
}

/// Has a running tdfs do something that it may refuse.
fn tell(of: &Of, request: &Request) -> anyhow::Result<()> {
    match control::ask(&state_path(of)?, request, Some(ASK_MAX)) {
        Ok(_) => Ok(()),
        Err(AskError::Refused(why)) => Err(WrongUse(why).into()),
        Err(e) => Err(not_running(of, e.into())),
    }
}

fn wait_until(of: &Of, deadline: Option<Instant>) -> anyhow::Result<()> {
    let state = state_path(of)?;
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now()).max(LOOK_MIN);
    let asked = match ask(&state, &Request::Sync, deadline.map(left)) {
        Err(Unanswered::Late) => anyhow::bail!("the mount could not be synced in time"),
        asked => asked.map_err(|e| not_running(of, e))?,
    };
    let (epoch, head) = (asked.epoch, asked.head);
    let mut now = asked;
    let began = Instant::now();
    loop {
        // In a later epoch the head of an earlier one is reached when the slaves are equal again.
        let head = if now.epoch == epoch { head } else { 0 };
        let Some(behind) = now.slaves.iter().find(|slave| is_behind(slave, head)) else { return Ok(()) };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            anyhow::bail!("{}", describe(behind));
        }
        std::thread::sleep((began.elapsed() / LOOK_PART).clamp(LOOK_MIN, LOOK_MAX));
        now = ask(&state, &Request::Status, Some(ASK_MAX)).map_err(|e| not_running(of, e))?;
    }
}

fn is_behind(slave: &SlaveStatus, head: u64) -> bool {
    slave.applied < head || slave.needs_resync || slave.checking || slave.state == "resyncing"
}

fn describe(slave: &SlaveStatus) -> String {
    let lag = format!(
        "lags by {} records, {} bytes, {:.1} s",
        slave.lag_records, slave.lag_bytes, slave.lag_seconds
    );
    let why = slave.last_error.as_ref().map_or(String::new(), |why| format!(": {why}"));
    let checking = if slave.checking { ", checking" } else { "" };
    format!("{} is {}{checking} and {lag}{why}", slave.address, slave.state)
}

/// Why there is no answer.
enum Unanswered {
    NotRunning,
    Late,
    Other(anyhow::Error),
}

impl From<AskError> for Unanswered {
    fn from(e: AskError) -> Unanswered {
        match e {
            AskError::NotRunning => Unanswered::NotRunning,
            AskError::Io(e)
                if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) =>
            {
                Unanswered::Late
            }
            e => Unanswered::Other(e.into()),
        }
    }
}

fn ask(state: &std::path::Path, request: &Request, timeout: Option<Duration>) -> Result<Status, Unanswered> {
    let status = control::ask(state, request, timeout)?;
    serde_json::from_value(status).context("read the daemon's status").map_err(Unanswered::Other)
}

fn not_running(of: &Of, unanswered: Unanswered) -> anyhow::Error {
    let directory = of.directory.display();
    match unanswered {
        Unanswered::NotRunning => WrongUse(format!(
            "no tdfs runs for {directory}: start it, or give its state directory with --state"
        ))
        .into(),
        Unanswered::Late => anyhow::anyhow!("the tdfs of {directory} does not answer"),
        Unanswered::Other(e) => e,
    }
}

fn state_path(of: &Of) -> anyhow::Result<PathBuf> {
    match &of.state {
        Some(path) => Ok(cli::absolute_to_make(path)?),
        None => state::default_path(state::Side::Master, &cli::absolute(&of.directory)?)
            .context("no default state directory: give one with --state"),
    }
}
