//! All slaves' positions: how far each lags, and what a restart has to know.
//!
//! Called by `ship` once a second and for `status`.

use super::{Outlet, ResyncStatus, SlaveAddress};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};
use tdfs_host::key::Fingerprint;
use tdfs_wire::log::Log;
use tdfs_wire::message::Branch;
use tdfs_wire::session::master::{Known, LastResync, StateName, View, present_lsn};
use tdfs_wire::{Epoch, Id, Lsn, Position};

/// The file in the state directory.
pub const FILE_NAME: &str = "slaves.json";
/// A slave that is no longer configured keeps its records for so long: 7 days.
const FORGET_AFTER_SECONDS: u64 = 7 * 24 * 3600;

/// What `status` tells of a slave. Keys may be added, none changes its meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlaveStatus {
    /// As given by `-c`, with its port.
    pub address: String,
    /// connecting, handshake, catchup, streaming, resyncing, stalled, refused or away.
    pub state: String,
    /// Newest record put on the connection.
    pub sent: u64,
    /// Newest record the slave took off it.
    pub received: u64,
    /// Newest record done in the replica.
    pub applied: u64,
    /// Newest record on the slave's disk.
    pub durable: u64,
    /// Records from applied to the head.
    pub lag_records: u64,
    /// Their bytes, as far as the log holds them.
    pub lag_bytes: u64,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: f64,
    /// What went wrong last, unless it is over.
    pub last_error: Option<String>,
    /// How many resyncs were begun, the first copy included.
    pub resyncs: u64,
    /// The last of them: its `cause`, and how many objects were not equal.
    pub last_resync: Option<LastResync>,
    /// How often the replica contradicted a record.
    pub divergences: u64,
    /// A check is due, or going on and has found no difference so far.
    pub checking: bool,
    /// How far the resync or the check is that goes on.
    pub resync: Option<ResyncStatus>,
    /// How far `tdfs verify` is.
    pub verify: Option<ResyncStatus>,
    /// Bytes of answers to resyncs and checks since tdfs started, as they go over the wire.
    pub answer_bytes: u64,
    /// The log alone can't bring the replica up to date, or a resync is going on.
    pub needs_resync: bool,
    /// The replica's id, once it was met.
    pub replica: Option<String>,
    /// What of names, contents and attributes it can't carry.
    pub not_carried: Vec<String>,
    /// The fingerprint of the key that it has to show; none so far, or it is inside tdfs.
    pub fingerprint: Option<Fingerprint>,
}

/// Puts together what the session and the log know.
pub fn status(outlet: &Outlet, view: View, log: &Log, key: Option<Fingerprint>) -> SlaveStatus {
    let (progress, address) = (view.progress, &outlet.address);
    let (resync, verify) = {
        let meters = outlet.meters.lock();
        (meters.resync.status(), meters.verify.status())
    };
    let lag_records = log.head().since(progress.applied);
    SlaveStatus {
        address: address.to_string(),
        state: state_word(view.state).into(),
        sent: progress.sent.get(),
        received: progress.received.get(),
        applied: progress.applied.get(),
        durable: progress.durable.get(),
        lag_records,
        lag_bytes: if lag_records == 0 { 0 } else { log.bytes_after(progress.applied) },
        lag_seconds: if lag_records == 0 { 0.0 } else { age_of(log, progress.applied.next()) },
        last_error: view.last_error,
        resyncs: view.resyncs,
        last_resync: view.last_resync,
        divergences: view.divergences,
        checking: view.checking,
        resync,
        verify,
        answer_bytes: outlet.answer_bytes.load(Ordering::Relaxed),
        needs_resync: view.needs_resync,
        replica: view.replica.map(|id| id.to_string()),
        not_carried: view.not_carried,
        fingerprint: key,
    }
}

/// The word that `status` shows.
pub fn state_word(state: StateName) -> &'static str {
    match state {
        StateName::Connecting => "connecting",
        StateName::Handshake => "handshake",
        StateName::CatchUp => "catchup",
        StateName::Streaming => "streaming",
        StateName::Resyncing => "resyncing",
        StateName::Stalled => "stalled",
        StateName::Refused => "refused",
        StateName::Away => "away",
    }
}

fn age_of(log: &Log, lsn: Lsn) -> f64 {
    let time = log.time_of(lsn.max(log.oldest())).unwrap_or_else(now_ns);
    // To the millisecond: more is noise, and the division loses nothing that way.
    let millis = (now_ns() - time).max(0) / 1_000_000;
    std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0)).as_secs_f64()
}

/// The clock: nanoseconds since 1970.
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The content of the state file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlavesFile {
    slaves: Vec<KnownSlave>,
}

/// What a restart has to know of a slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KnownSlave {
    address: String,
    replica: Option<String>,
    epoch_number: u64,
    epoch_id: String,
    durable: u64,
    needs_resync: bool,
    resyncs: u64,
    #[serde(default)]
    last_resync: Option<LastResync>,
    divergences: u64,
    /// When it was configured last: seconds since 1970.
    seen: u64,
}

impl SlavesFile {
    /// What is known of a slave; of one that was never met: nothing, so it is to be resynced.
    pub fn known(&self, address: &SlaveAddress, lineage: &[Branch]) -> Known {
        let address = address.to_string();
        let Some(known) = self.slaves.iter().find(|known| known.address == address) else {
            return Known { needs_resync: true, ..Known::default() };
        };
        let durable = known.present(lineage);
        Known {
            durable: durable.unwrap_or_default(),
            replica: known.replica.as_deref().and_then(Id::parse),
            resyncs: known.resyncs,
            last_resync: known.last_resync,
            divergences: known.divergences,
            needs_resync: known.needs_resync || durable.is_none(),
            check_due: false,
            is_covered: false,
        }
    }

    /// Where slaves that are not among `addresses` stand, those that were configured lately and need no resync.
    pub fn dropped(&self, addresses: &[SlaveAddress], lineage: &[Branch]) -> Vec<Lsn> {
        let dropped = self.slaves.iter().filter(|known| !known.is_among(addresses) && known.is_fresh());
        dropped.filter(|known| !known.needs_resync).filter_map(|known| known.present(lineage)).collect()
    }

    /// The file as it is to be now: the slaves that are configured, and from this one those that were.
    #[must_use]
    pub fn with(&self, epoch: Epoch, slaves: &[(SlaveAddress, View)]) -> SlavesFile {
        let addresses: Vec<_> = slaves.iter().map(|(address, _)| address.clone()).collect();
        let dropped = self.slaves.iter().filter(|known| !known.is_among(&addresses) && known.is_fresh());
        let present = slaves.iter().map(|(address, view)| KnownSlave {
            address: address.to_string(),
            replica: view.replica.map(|id| id.to_string()),
            epoch_number: epoch.number,
            epoch_id: epoch.id.to_string(),
            durable: view.progress.durable.get(),
            needs_resync: view.needs_resync,
            resyncs: view.resyncs,
            last_resync: view.last_resync,
            divergences: view.divergences,
            seen: now_seconds(),
        });
        SlavesFile { slaves: present.chain(dropped.cloned()).collect() }
    }

    /// Forgets a slave that is no longer configured; false if it was not known.
    pub fn forget(&mut self, address: &SlaveAddress) -> bool {
        let (address, before) = (address.to_string(), self.slaves.len());
        self.slaves.retain(|known| known.address != address);
        self.slaves.len() < before
    }

    /// True if a restart with `other` would do the same, but for keeping somewhat more of the log.
    pub fn is_near(&self, other: &SlavesFile) -> bool {
        let strip = |file: &SlavesFile| {
            let bare = |known: &KnownSlave| KnownSlave { durable: 0, seen: 0, ..known.clone() };
            file.slaves.iter().map(bare).collect::<Vec<_>>()
        };
        strip(self) == strip(other)
    }

    /// True if the two differ in no position.
    pub fn is_at(&self, other: &SlavesFile) -> bool {
        let at = |file: &SlavesFile| file.slaves.iter().map(|known| known.durable).collect::<Vec<_>>();
        at(self) == at(other)
    }
}

impl KnownSlave {
    fn present(&self, lineage: &[Branch]) -> Option<Lsn> {
        let epoch = Epoch { number: self.epoch_number, id: Id::parse(&self.epoch_id)? };
        present_lsn(lineage, Position { epoch, lsn: Lsn::new(self.durable) })
    }

    fn is_among(&self, addresses: &[SlaveAddress]) -> bool {
        addresses.iter().any(|address| address.to_string() == self.address)
    }

    fn is_fresh(&self) -> bool {
        now_seconds().saturating_sub(self.seen) < FORGET_AFTER_SECONDS
    }
}

fn now_seconds() -> u64 {
    u64::try_from(now_ns() / 1_000_000_000).unwrap_or(0)
}
