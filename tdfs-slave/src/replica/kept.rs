//! What a replica keeps of itself in `replica.json`: whose it is and how it stands.
//!
//! Used by `replica` alone. Each write is on the disk when it returns.

use serde::{Deserialize, Serialize};
use std::io::{self, Read};
use tdfs_host::state::{StateDir, StateError};
use tdfs_wire::Id;

const FILE: &str = "replica.json";

/// How a replica stands, as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum KeptStanding {
    /// It has never had content of any master.
    New,
    /// It equals its master's tree as of the applied position.
    Equal,
    /// A resync was begun and not finished.
    Resyncing,
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The filesystem that it is a replica of.
    pub(super) filesystem: Option<Id>,
    /// The replica's own id.
    pub(super) replica: Id,
    /// How it stands.
    pub(super) standing: KeptStanding,
    /// How often it contradicted a record.
    pub(super) divergences: u64,
    /// While it stands at Resyncing: when that began, in seconds since 1970 by the clock of its ctimes. None: its
    /// content is under suspicion as a whole.
    pub(super) began: Option<i64>,
    /// While a check of it is going on: when that began, by the same clock.
    pub(super) check_began: Option<i64>,
}

/// Its form in JSON: ids as people read them.
#[derive(Serialize, Deserialize)]
struct Form {
    filesystem: Option<String>,
    replica: String,
    standing: KeptStanding,
    divergences: u64,
    began: Option<i64>,
    #[serde(default)]
    check_began: Option<i64>,
}

impl Kept {
    /// Reads it; makes and writes a new one where there is none.
    pub(super) fn load(state: &StateDir) -> anyhow::Result<Kept> {
        let Some(form) = state.read::<Form>(FILE)? else {
            let (replica, standing) = (random_id()?, KeptStanding::New);
            let kept =
                Kept { filesystem: None, replica, standing, divergences: 0, began: None, check_began: None };
            kept.store(state)?;
            return Ok(kept);
        };
        let id = |text: &str| {
            let damaged =
                || anyhow::anyhow!("{} is damaged: no id: {text}", state.path().join(FILE).display());
            Id::parse(text).ok_or_else(damaged)
        };
        Ok(Kept {
            filesystem: form.filesystem.as_deref().map(id).transpose()?,
            replica: id(&form.replica)?,
            standing: form.standing,
            divergences: form.divergences,
            began: form.began,
            check_began: form.check_began,
        })
    }

    /// Writes it.
    pub(super) fn store(&self, state: &StateDir) -> Result<(), StateError> {
        let form = Form {
            filesystem: self.filesystem.map(|id| id.to_string()),
            replica: self.replica.to_string(),
            standing: self.standing,
            divergences: self.divergences,
            began: self.began,
            check_began: self.check_began,
        };
        state.write(FILE, &form)
    }
}

fn random_id() -> io::Result<Id> {
    let mut id = Id::default();
    std::fs::File::open("/dev/urandom")?.read_exact(&mut id.0)?;
    Ok(id)
}

/// What identifies the present boot of this machine.
pub(super) fn boot_id() -> anyhow::Result<Id> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Id::parse(&digits).ok_or_else(|| anyhow::anyhow!("/proc/sys/kernel/random/boot_id holds no id: {text}"))
}
