//! What `tdfs status --json` says, as types (the keys are a contract; more may come).

use anyhow::{Context, Result};
use serde::Deserialize;

/// The answer of a master.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// `master`.
    pub role: String,
    /// The unbroken history; its form is tdfs's own.
    pub epoch: serde_json::Value,
    /// Of the master's key.
    pub fingerprint: String,
    /// Slaves on the network prove nothing.
    pub insecure: bool,
    /// LSN of the newest appended record.
    pub head: u64,
    /// Why changes are not recorded at present.
    pub last_error: Option<String>,
    /// In the order of `-c`.
    pub slaves: Vec<SlaveStatus>,
}

/// What the master knows of one slave.
#[derive(Clone, Debug, Deserialize)]
pub struct SlaveStatus {
    /// As given with `-c`.
    pub address: String,
    /// One of `STATES`.
    pub state: String,
    /// Last LSN put on the wire.
    pub sent: u64,
    /// Last LSN taken off the wire.
    pub received: u64,
    /// Last LSN done in the replica.
    pub applied: u64,
    /// Last LSN on the slave's disk.
    pub durable: u64,
    /// head - applied.
    pub lag_records: u64,
    /// The same in bytes.
    pub lag_bytes: u64,
    /// The same as age.
    pub lag_seconds: f64,
    /// Why it does not go on, or did not.
    pub last_error: Option<String>,
    /// Times that trees had to be compared.
    pub resyncs: u64,
    /// The last of them.
    pub last_resync: Option<LastResync>,
    /// Records that the replica contradicted.
    pub divergences: u64,
    /// A check that has found no difference yet is running.
    pub checking: bool,
    /// The log alone can't bring it up to date, or a resync is going on.
    pub needs_resync: bool,
    /// How far the resync or the check is.
    pub resync: Option<ResyncStatus>,
    /// How far `tdfs verify` is.
    pub verify: Option<ResyncStatus>,
    /// Bytes of answers to resyncs and checks since tdfs started.
    pub answer_bytes: u64,
    /// Of the key that it has to show.
    pub fingerprint: Option<String>,
    /// What of names, contents and attributes it can't carry.
    pub not_carried: Vec<String>,
}

/// A resync that may be over.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct LastResync {
    /// Why it was begun.
    pub cause: String,
    /// How many objects were not equal.
    pub differences: u64,
}

/// How far a comparison is.
#[derive(Clone, Debug, Deserialize)]
pub struct ResyncStatus {
    /// checking, resyncing, confirm, waiting or verifying.
    pub phase: String,
    /// Objects that were compared or made equal.
    pub objects_done: u64,
    /// Objects that are known to be needed still.
    pub objects_left: u64,
    /// Bytes of content that were compared.
    pub bytes_done: u64,
    /// Objects that were not equal.
    pub differences: u64,
}

impl SlaveStatus {
    /// True while it is compared with the master, or has to be.
    pub fn is_unsettled(&self) -> bool {
        self.needs_resync || self.checking || self.state == "resyncing"
    }

    /// The phase of the resync or the check that goes on; empty without one.
    pub fn phase(&self) -> &str {
        self.resync.as_ref().map_or("", |resync| &resync.phase)
    }
}

/// The names that are given to the states of a slave.
pub const STATES: [&str; 8] =
    ["connecting", "handshake", "catchup", "streaming", "resyncing", "stalled", "refused", "away"];

impl Status {
    /// Reads it and checks what must hold of any status.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let text = String::from_utf8_lossy(json);
        let status: Self = serde_json::from_slice(json).with_context(|| format!("parse status {text}"))?;
        anyhow::ensure!(status.role == "master", "role is {:?}, not master", status.role);
        for slave in &status.slaves {
            anyhow::ensure!(STATES.contains(&slave.state.as_str()), "unknown state {:?}", slave.state);
            let chain = slave.durable <= slave.applied && slave.applied <= slave.received;
            anyhow::ensure!(chain && slave.received <= slave.sent, "positions out of order: {slave:?}");
        }
        Ok(status)
    }
}
