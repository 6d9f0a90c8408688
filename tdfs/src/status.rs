//! What an operator may read: the answer to `tdfs status`, as JSON and for people.

use crate::ship::SlaveStatus;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use tdfs_host::key::Fingerprint;
use tdfs_wire::session::master::{Cause, LastResync};

/// All of it. Keys may be added, none changes its meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Always `master`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// The directory that is distributed.
    pub directory: PathBuf,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// The filesystem's id.
    pub filesystem: String,
    /// The fingerprint of this master's key.
    pub fingerprint: Fingerprint,
    /// Slaves on the network are talked to in plain TCP and prove nothing (--insecure).
    pub insecure: bool,
    /// `none` or `lzf`.
    pub codec: String,
    /// Number of the present epoch.
    pub epoch: u64,
    /// Newest record of the log.
    pub head: u64,
    /// Why changes are not recorded at present: the log can't be written, all slaves need a resync.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Who could reach below the mount when it was made; what they write there is not seen.
    pub below_mount: Vec<String>,
    /// All slaves.
    pub slaves: Vec<SlaveStatus>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "directory   {}", self.directory.display())?;
        writeln!(f, "mountpoint  {}", self.mountpoint.display())?;
        writeln!(f, "position    record {} of epoch {}", self.head, self.epoch)?;
        writeln!(f, "key         {}", self.fingerprint)?;
        if self.insecure {
            writeln!(
                f,
                "INSECURE    slaves on the network are asked for no key, all goes in plain TCP (--insecure)"
            )?;
        }
        if let Some(why) = &self.last_error {
            writeln!(f, "error       {why}")?;
        }
        for who in &self.below_mount {
            writeln!(f, "below the mount: {who}")?;
        }
        let mut rows = vec![HEADS.map(String::from)];
        rows.extend(self.slaves.iter().map(row));
        writeln!(f)?;
        table(f, &rows)?;
        for slave in &self.slaves {
            for progress in slave.resync.iter().chain(&slave.verify) {
                writeln!(f, "{}: {progress}", slave.address)?;
            }
            if let Some(last) = slave.last_resync.filter(|_| slave.resync.is_none()) {
                writeln!(f, "{}: last resync: {}", slave.address, last_resync(last))?;
            }
            if let Some(why) = &slave.last_error {
                writeln!(f, "{}: {why}", slave.address)?;
            }
            if let Some(key) = slave.fingerprint {
                writeln!(f, "{}: key {key}", slave.address)?;
            }
            for what in &slave.not_carried {
                writeln!(f, "{}: not carried: {what}", slave.address)?;
            }
        }
        Ok(())
    }
}

const HEADS: [&str; 6] = ["SLAVE", "STATE", "APPLIED", "DURABLE", "LAG", "RESYNCS"];

fn row(slave: &SlaveStatus) -> [String; 6] {
    let lag = match slave.lag_records {
        0 => "none".into(),
        records => {
            format!("{records} records, {}, {:.1} s", bytes(slave.lag_bytes), slave.lag_seconds)
        }
    };
    let state = if slave.checking { format!("{}, checking", slave.state) } else { slave.state.clone() };
    let (applied, durable) = (slave.applied.to_string(), slave.durable.to_string());
    [slave.address.clone(), state, applied, durable, lag, slave.resyncs.to_string()]
}

fn last_resync(LastResync { cause, differences }: LastResync) -> String {
    let why = match cause {
        Cause::FirstCopy => "the first copy",
        Cause::Asked => "asked for",
        Cause::LogTooShort => "the log no longer had what it lacked",
        Cause::NewEpoch => "a new epoch: what it had beyond the master's tree was taken back",
        Cause::OtherHistory => "it had records that this master never made",
        Cause::SlaveRestored => "it no longer knew what it had made durable",
        Cause::SlaveCrash => "its machine had gone down",
        Cause::Check => "found by the check",
        Cause::Healing => "some of it did not fit a record, or was found by verify",
    };
    format!("{why}; {differences} objects were not equal")
}

fn table(f: &mut fmt::Formatter<'_>, rows: &[[String; 6]]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEADS.len()).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ")?;
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Bytes with a unit that fits, one digit after the point.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_fitting_units() {
        for (number, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_600_000, "1.5 MiB")] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes(5000 << 40), "5000.0 TiB");
    }
}
