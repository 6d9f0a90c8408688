//! Who this filesystem is, and which epoch it is in: the master's own state, kept across starts.
//!
//! Called by `daemon` at start and at the end. Decides whether the directory is the one that the state belongs
//! to, and whether the log continues or a new epoch begins.

use crate::commit::{Found, Slots};
use anyhow::Context;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tdfs_host::cli::WrongUse;
use tdfs_host::root::Root;
use tdfs_host::state::StateDir;
use tdfs_wire::log::{Log, LogError, NextEpoch, Options};
use tdfs_wire::message::{Branch, LINEAGE_MAX};
use tdfs_wire::{Epoch, Id, Position};

const FILE: &str = "identity.json";
/// Below the state directory.
const LOG_DIRECTORY: &str = "log";

/// The state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    filesystem: Id,
    /// All epochs that are remembered, the present one last.
    lineage: Vec<Branch>,
    /// Boot id of the machine while the log was last open.
    boot: String,
    /// The last tdfs ended by itself, with everything on the disk.
    clean: bool,
    /// The directory that is distributed. None: a tdfs that did not note it wrote this.
    #[serde(default)]
    root: Option<Root>,
}

/// The root that this state goes on with: the one that it belongs to, or one that the user has said yes to.
pub struct Accepted {
    root: Root,
    /// It is another one than before.
    is_new: bool,
}

impl Accepted {
    /// Compares the root of `dir` with the one that the state belongs to. Changes nothing.
    ///
    /// # Errors
    /// [`WrongUse`] if it is another one, unless `new` says that this one is meant: with its disk not mounted
    /// all slaves would be made as empty as the mountpoint.
    pub fn check(state: &StateDir, dir: &Path, root: Root, new: bool) -> anyhow::Result<Accepted> {
        let stored: Option<Stored> = state.read(FILE)?;
        let is_new = stored.and_then(|stored| stored.root).is_some_and(|before| !before.is(&root));
        if is_new && !new {
            let (dir, state) = (dir.display(), state.path().display());
            return Err(WrongUse(format!(
                "{dir} is not the directory (or its disk is not mounted) which the state in {state} belongs to: \
                 mount it, or say --new to mean this one"
            ))
            .into());
        }
        if is_new {
            tracing::warn!(
                "--new: {} is another directory than before: a new epoch begins, slaves are made equal by resync",
                dir.display()
            );
        }
        Ok(Accepted { root, is_new })
    }
}

/// The filesystem's identity and its open log.
pub struct Identity {
    stored: Mutex<Stored>,
    log: Arc<Log>,
}

/// What an epoch goes on with.
type Parts = (Log, Slots);

impl Identity {
    /// Reads or makes the identity and opens the log: the same epoch goes on if every change since its beginning
    /// is surely in the log, or in hand in the slots, and the root is the same; else a new one begins.
    pub fn open(state: &StateDir, accepted: Accepted) -> anyhow::Result<(Identity, Slots)> {
        let boot = boot_id()?;
        let before: Option<Stored> = state.read(FILE)?;
        let mut stored = match before {
            Some(stored) => stored,
            None => {
                let (filesystem, lineage, boot) = (random_id()?, Vec::new(), boot.clone());
                Stored { filesystem, lineage, boot, clean: true, root: None }
            }
        };
        let before = stored.epoch().filter(|_| !accepted.is_new);
        let parts = match before {
            Some(epoch) => continued(state, epoch, stored.clean, stored.boot == boot)?,
            None => None,
        };
        let (log, slots) = match parts {
            Some(parts) => parts,
            None => {
                let epoch = stored.branch(None)?;
                // The log first: where the disk is full, the old segments may be what fills it.
                let log =
                    Log::create(&directory(state), epoch, Options::default()).context("begin the log")?;
                (log, Slots::begin(state, epoch)?)
            }
        };
        stored.boot = boot;
        stored.clean = false;
        stored.root = Some(accepted.root);
        state.write(FILE, &stored)?;
        Ok((Identity { stored: Mutex::new(stored), log: Arc::new(log) }, slots))
    }

    /// The filesystem's id.
    pub fn filesystem(&self) -> Id {
        self.stored.lock().filesystem
    }

    /// Its epochs, the present one last.
    pub fn lineage(&self) -> Vec<Branch> {
        self.stored.lock().lineage.clone()
    }

    /// Makes the log of a new epoch, and notes that epoch durably; what is left is to go over to it. A kill before
    /// that begins another one: the slots are still the old one's.
    ///
    /// # Errors
    /// When there is no room still, or the disk fails.
    pub fn prepare_epoch(&self, state: &StateDir) -> anyhow::Result<NextEpoch> {
        let mut stored = self.stored.lock().clone();
        let next = self.log.prepare(stored.branch(None)?)?;
        state.write(FILE, &stored)?;
        *self.stored.lock() = stored;
        Ok(next)
    }

    /// The log of the present epoch.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Notes durably that tdfs ended by itself; if `proven`, with every change in the log and on the disk. If
    /// not, the next start begins a new epoch.
    pub fn mark_ended(&self, state: &StateDir, proven: bool) -> anyhow::Result<()> {
        if proven {
            self.log.sync().context("sync the log")?;
        }
        let stored = self.stored.lock().clone();
        let boot = if proven { stored.boot.clone() } else { String::new() };
        state.write(FILE, &Stored { clean: proven, boot, ..stored })?;
        Ok(())
    }
}

fn directory(state: &StateDir) -> PathBuf {
    state.path().join(LOG_DIRECTORY)
}

/// Log and slots of an epoch that can go on; None, and said in a warning, if not.
///
/// # Errors
/// When a later TDFS wrote them, or they can't be read.
fn continued(state: &StateDir, epoch: Epoch, clean: bool, same_boot: bool) -> anyhow::Result<Option<Parts>> {
    let ends = |why: &str| {
        tracing::warn!("{why}: a new epoch begins, slaves are made equal by resync");
        Ok(None)
    };
    if !clean && !same_boot {
        return ends("it is not sure that the log has every change");
    }
    // After a clean end nothing was in hand, and what stands in the slots may be from before a power cut.
    let slots = match clean {
        true => Slots::begin(state, epoch)?,
        false => match Slots::resume(state, epoch)? {
            Found::Whole(slots) => slots,
            Found::Unproven(why) => return ends(&why),
        },
    };
    match Log::open(&directory(state), epoch, Options::default()) {
        Ok((log, recovered)) => {
            if recovered.cut_bytes > 0 {
                tracing::info!("cut {} bytes of an unfinished record off the log", recovered.cut_bytes);
            }
            Ok(Some((log, slots)))
        }
        Err(e @ LogError::Damaged { .. }) => ends(&e.to_string()),
        Err(e) => Err(e).context("open the log"),
    }
}

impl Stored {
    fn epoch(&self) -> Option<Epoch> {
        self.lineage.last().map(|branch| branch.epoch)
    }

    /// Begins a new epoch that continues `from`, where that is known.
    fn branch(&mut self, from: Option<Position>) -> anyhow::Result<Epoch> {
        let number = self.epoch().map_or(1, |epoch| epoch.number + 1);
        let epoch = Epoch { number, id: random_id()? };
        self.lineage.push(Branch { epoch, from });
        let surplus = self.lineage.len().saturating_sub(LINEAGE_MAX);
        self.lineage.drain(..surplus);
        Ok(epoch)
    }
}

fn boot_id() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("read the boot id")?;
    Ok(text.trim().to_owned())
}

/// 128 random bits of the kernel.
pub fn random_id() -> anyhow::Result<Id> {
    let mut id = [0u8; 16];
    let filled =
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).context("random numbers")?;
    anyhow::ensure!(filled == id.len(), "the kernel gave too few random numbers");
    Ok(Id(id))
}

#[cfg(test)]
mod tests;
