//! What an operator may read of a slave: the answer to `tdfs-slave status`.

use crate::relay::Facts;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use tdfs_host::key::Fingerprint;
use tdfs_wire::message::Standing;
use tdfs_wire::{Epoch, Lsn};

/// How the connection to the master stands.
#[derive(Clone, Debug, Default)]
pub struct MasterStatus {
    /// It has the replica now.
    pub connected: bool,
    /// Where the master is, or was.
    pub master: String,
    /// Its key.
    pub key: Option<Fingerprint>,
    /// The epoch of the stream.
    pub epoch: Option<Epoch>,
    /// Newest record that came.
    pub received: Lsn,
    /// Newest record of the master's log, as it said last.
    pub head: Lsn,
}

/// Who this slave is, and who may come.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Its own key.
    pub fingerprint: Fingerprint,
    /// Anybody may come.
    pub insecure: bool,
    /// Else these.
    pub allowed: Vec<Fingerprint>,
}

/// All of it. Keys may be added, none changes its meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Always `slave`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// The directory that is the replica.
    pub directory: PathBuf,
    /// streaming, catchup, resyncing, stalled, or away (no master is connected).
    pub state: String,
    /// Address of the master that is connected, or was last.
    pub master: Option<String>,
    /// The fingerprint of its key; none with --insecure.
    pub master_fingerprint: Option<Fingerprint>,
    /// The fingerprint of this slave's own key.
    pub fingerprint: Fingerprint,
    /// Masters come in plain TCP and prove nothing (--insecure).
    pub insecure: bool,
    /// The masters that are allowed.
    pub allowed: Vec<Fingerprint>,
    /// The filesystem the replica belongs to.
    pub filesystem: Option<String>,
    /// The replica's id.
    pub replica: String,
    /// Number of the epoch that the positions are in.
    pub epoch: Option<u64>,
    /// Newest record of the master, as it said last.
    pub head: u64,
    /// Newest record that came.
    pub received: u64,
    /// Newest record done in the replica.
    pub applied: u64,
    /// Newest record on the slave's disk.
    pub durable: u64,
    /// new, equal, or resyncing.
    pub standing: String,
    /// A check is going on that has found no difference so far.
    pub checking: bool,
    /// Why the next record can't be applied at present.
    pub stalled: Option<String>,
    /// The latest thing that a human may want to know of.
    pub last_error: Option<String>,
    /// How often the replica contradicted a record.
    pub divergences: u64,
    /// What can't be carried here.
    pub not_carried: Vec<String>,
}

impl Status {
    /// Puts together what relay and receive know.
    pub fn new(directory: &Path, facts: Facts, link: MasterStatus, trust: Trust) -> Status {
        let Facts { replica, applied, durable, report } = facts;
        let (standing, own_epoch) = match replica.standing {
            Standing::New => ("new", None),
            Standing::Equal { applied, .. } => ("equal", Some(applied.epoch)),
            Standing::InDoubt { since } => ("in-doubt", Some(since.epoch)),
            Standing::Resyncing { applied, .. } => ("resyncing", Some(applied.epoch)),
        };
        let state = match () {
            () if !link.connected => "away",
            () if report.stalled.is_some() => "stalled",
            () if report.resyncing => "resyncing",
            () if applied < link.head => "catchup",
            () => "streaming",
        };
        Status {
            role: "slave".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            directory: directory.to_owned(),
            state: state.into(),
            master: Some(link.master).filter(|master| !master.is_empty()),
            master_fingerprint: link.key,
            fingerprint: trust.fingerprint,
            insecure: trust.insecure,
            allowed: trust.allowed,
            filesystem: replica.filesystem.map(|id| id.to_string()),
            replica: replica.replica.to_string(),
            epoch: own_epoch.or(link.epoch).map(|epoch| epoch.number),
            head: link.head.max(applied).get(),
            received: link.received.max(applied).get(),
            applied: applied.get(),
            durable: durable.get(),
            standing: standing.into(),
            checking: report.checking,
            stalled: report.stalled,
            last_error: report.last_error,
            divergences: report.divergences,
            not_carried: replica.not_carried,
        }
    }

    /// For people.
    ///
    /// # Errors
    /// Never, but what is written to says so.
    fn write(&self, text: &mut impl fmt::Write) -> fmt::Result {
        let master = self.master.as_deref().unwrap_or("none so far");
        let its_key = self.master_fingerprint.map_or_else(String::new, |key| format!(" {key}"));
        writeln!(text, "replica      {} ({})", self.directory.display(), self.standing)?;
        writeln!(text, "key          {}", self.fingerprint)?;
        writeln!(text, "master       {master}{its_key}")?;
        if self.insecure {
            writeln!(text, "INSECURE     whoever reaches the port can write to the replica (--insecure)")?;
        } else if self.allowed.is_empty() {
            writeln!(text, "allowed      no master so far")?;
        }
        for key in &self.allowed {
            writeln!(text, "allowed      {key}")?;
        }
        writeln!(text, "state        {}{}", self.state, if self.checking { ", checking" } else { "" })?;
        let epoch = self.epoch.map_or_else(|| "-".into(), |epoch| epoch.to_string());
        writeln!(
            text,
            "position     epoch {epoch}: received {}, applied {}, durable {}",
            self.received, self.applied, self.durable
        )?;
        writeln!(text, "divergences  {}", self.divergences)?;
        if let Some(why) = self.stalled.as_ref().or(self.last_error.as_ref()) {
            writeln!(text, "last error   {why}")?;
        }
        for what in &self.not_carried {
            writeln!(text, "not carried  {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text)?;
        f.write_str(text.trim_end())?;
        f.write_char('\n')
    }
}
