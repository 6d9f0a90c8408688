//! Log sequence numbers, epochs and positions: the coordinates of the one history.
//!
//! Used everywhere. A bare `u64` never stands for one of these.

use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::fmt;

/// Log sequence number: index of a record inside its epoch. The first record is 1; 0 is "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Lsn(u64);

/// A number that no log ever comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no LSN that a log can come to")]
pub struct NoLsn(u64);

impl TryFrom<u64> for Lsn {
    type Error = NoLsn;

    /// For what comes from a peer or a disk.
    fn try_from(number: u64) -> Result<Lsn, NoLsn> {
        if number <= Lsn::MAX.0 { Ok(Lsn(number)) } else { Err(NoLsn(number)) }
    }
}

impl Lsn {
    /// The position before the first record.
    pub const ZERO: Lsn = Lsn(0);
    /// What a peer or a disk may say at most, so that counting on from it never overflows.
    pub const MAX: Lsn = Lsn(u64::MAX / 2);

    /// The LSN with this number.
    pub const fn new(number: u64) -> Lsn {
        Lsn(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The LSN of the record after this one.
    ///
    /// # Panics
    /// After 2^64 - 1 records (at a million a second: in 580,000 years).
    #[must_use]
    pub const fn next(self) -> Lsn {
        Lsn(self.0.checked_add(1).expect("LSN below 2^64"))
    }

    /// The LSN of the record before this one; the one before [`Lsn::ZERO`] is itself.
    #[must_use]
    pub const fn prev(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }

    /// The LSN `records` further on.
    #[must_use]
    pub const fn plus(self, records: u64) -> Lsn {
        Lsn(self.0.checked_add(records).expect("LSN below 2^64"))
    }

    /// How many records lie above `earlier` up to this one; 0 if it is not earlier.
    pub const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// 128 random bits that tell one filesystem, replica or epoch from every other.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// Reads what [`fmt::Display`] writes: 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Id> {
        let mut id = [0u8; 16];
        if text.len() != 32 || !text.is_ascii() {
            return None;
        }
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
        }
        Some(Id(id))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One unbroken history. A new one begins when the master can't prove continuity (DESIGN section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// 1 for the first epoch of a filesystem, then counting.
    pub number: u64,
    /// Random: two epochs that got the same number by accident are still told apart.
    pub id: Id,
}

/// A place in the history: all records of the epoch up to `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The history it is in.
    pub epoch: Epoch,
    /// The newest record that belongs to it.
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch.number, self.lsn)
    }
}

/// An instant in real time as inodes have it: seconds since 1970 (negative before) and nanoseconds on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC, rounded down.
    pub sec: i64,
    /// 0 to 999,999,999, always counted forwards: utimensat(2) takes some larger ones for words.
    #[serde(deserialize_with = "nanoseconds")]
    pub nsec: u32,
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let nsec = u32::deserialize(deserializer)?;
    if nsec < 1_000_000_000 { Ok(nsec) } else { Err(D::Error::custom(format!("{nsec} nanoseconds"))) }
}
