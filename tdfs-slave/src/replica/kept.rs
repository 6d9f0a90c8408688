//! What a replica keeps of itself in `replica.json`: whose it is, where it is, and how it stands.
//!
//! Used by `replica` alone. Each write is on the disk when it returns.

use rustix::rand::GetRandomFlags;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use tdfs_host::cli::WrongUse;
use tdfs_host::root::Root;
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
    /// The machine went down: it equaled its master's tree as of the applied position, which is the durable one, and
    /// later records may have left anything.
    InDoubt,
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
    /// The directory. None: a tdfs-slave that did not note it wrote this, or nobody did so far.
    root: Option<Root>,
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
    #[serde(default)]
    root: Option<Root>,
}

impl Kept {
    /// Of a directory that never was anybody's replica.
    fn new() -> io::Result<Kept> {
        let (replica, standing) = (random_id()?, KeptStanding::New);
        Ok(Kept {
            filesystem: None,
            replica,
            standing,
            divergences: 0,
            began: None,
            check_began: None,
            root: None,
        })
    }

    /// Reads it; where there is none, makes a new one, which [`Kept::belong_to`] will write.
    pub(super) fn load(state: &StateDir) -> anyhow::Result<Kept> {
        let Some(form) = state.read::<Form>(FILE)? else {
            return Ok(Kept::new()?);
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
            root: form.root,
        })
    }

    /// True if a directory is recorded.
    pub(super) fn has_root(&self) -> bool {
        self.root.is_some()
    }

    /// Compares the root of `dir` with the one that is recorded, and records it. With another one all begins anew:
    /// what is kept is of the old one.
    ///
    /// # Errors
    /// [`WrongUse`] if it is another one, unless `adopt` says that this one is meant; nothing was written then.
    pub(super) fn belong_to(
        &mut self,
        root: Root,
        dir: &Path,
        adopt: bool,
        state: &StateDir,
    ) -> anyhow::Result<()> {
        if self.root.as_ref() == Some(&root) {
            return Ok(());
        }
        if self.root.as_ref().is_some_and(|before| !before.is(&root)) {
            if !adopt {
                return Err(other_directory(dir, state).into());
            }
            tracing::warn!("--adopt: {} is another directory than before: it begins anew", dir.display());
            *self = Kept::new()?;
        }
        self.root = Some(root);
        Ok(self.store(state)?)
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
            root: self.root.clone(),
        };
        state.write(FILE, &form)
    }
}

/// What to say where `dir` is not the directory that is recorded.
pub(super) fn other_directory(dir: &Path, state: &StateDir) -> WrongUse {
    let (dir, state) = (dir.display(), state.path().display());
    WrongUse(format!(
        "{dir} is not the directory (or its disk is not mounted) which the state in {state} belongs to: mount it, \
         or say --adopt to have this one made equal"
    ))
}

fn random_id() -> io::Result<Id> {
    let mut id = Id::default();
    // Not from /dev/urandom: a confined slave opens nothing there.
    let mut filled = 0;
    while filled < id.0.len() {
        filled += rustix::rand::getrandom(&mut id.0[filled..], GetRandomFlags::empty())?;
    }
    Ok(id)
}

/// What identifies the present boot of this machine.
pub(super) fn boot_id() -> anyhow::Result<Id> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Id::parse(&digits).ok_or_else(|| anyhow::anyhow!("/proc/sys/kernel/random/boot_id holds no id: {text}"))
}
