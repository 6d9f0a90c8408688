//! The commands: they ask the running daemon, or do their work in its state directory where none runs.
//!
//! Called by `daemon` for the command line.

use crate::allowed::Allowed;
use crate::args::Of;
use crate::checks::Places;
use crate::status::Status;
use anyhow::Context;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tdfs_host::cli::{self, WrongUse};
use tdfs_host::control::{self, Request};
use tdfs_host::key::{self, Fingerprint};
use tdfs_host::state::StateDir;

/// How long the daemon may take to answer a command.
const ASK_MAX: Duration = Duration::from_secs(10);

/// `tdfs-slave status`.
pub fn status(of: &Of, json: bool) -> anyhow::Result<()> {
    let places = Places::named(of)?;
    let value = control::ask(&places.state, &Request::Status, Some(ASK_MAX))
        .with_context(|| format!("no status of {}", places.directory.display()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print!("{}", serde_json::from_value::<Status>(value).context("read the daemon's status")?);
    }
    Ok(())
}

/// `tdfs-slave key`.
pub fn key(of: &Of) -> anyhow::Result<()> {
    let places = Places::named(of)?;
    println!("{}", key::fingerprint_at(&places.state).map_err(|e| WrongUse(e.to_string()))?);
    Ok(())
}

/// `tdfs-slave allow`.
pub fn allow(of: &Of, master: Fingerprint) -> anyhow::Result<()> {
    let by_hand = |allowed: &Allowed| Ok(allowed.allow(master).map(|()| Value::Null)?);
    change(of, &Request::Allow { master: master.to_string() }, by_hand)?;
    Ok(())
}

/// `tdfs-slave disallow`.
pub fn disallow(of: &Of, master: Fingerprint) -> anyhow::Result<()> {
    let by_hand = |allowed: &Allowed| match allowed.disallow(master)? {
        true => Ok(Value::Null),
        false => Err(not_allowed(master).into()),
    };
    change(of, &Request::Disallow { master: master.to_string() }, by_hand)?;
    Ok(())
}

/// `tdfs-slave allowed`.
pub fn allowed(of: &Of) -> anyhow::Result<()> {
    let list = change(of, &Request::Allowed, |allowed| Ok(serde_json::to_value(allowed.list())?))?;
    let list: Vec<Fingerprint> = serde_json::from_value(list).context("read the daemon's answer")?;
    list.iter().for_each(|master| println!("{master}"));
    Ok(())
}

/// What is said of a master that was never allowed.
pub fn not_allowed(master: Fingerprint) -> WrongUse {
    WrongUse(format!("{master} is not allowed anyway: `tdfs-slave allowed` lists those that are"))
}

fn change(
    of: &Of,
    request: &Request,
    by_hand: impl FnOnce(&Allowed) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let places = Places::named(of)?;
    cli::ask_or_do(&places.state, request, |state: StateDir| by_hand(&Allowed::open(Arc::new(state), &[])?))
}
