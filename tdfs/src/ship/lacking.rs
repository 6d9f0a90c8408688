//! What the log no longer holds for a slave, as a file in the state directory.
//!
//! Used by `ship` before it deletes records that a slave still lacks; what is in it, `tdfs_wire::log` decides.

use super::SlaveAddress;
use tdfs_host::state::{StateDir, StateError, escape};
use tdfs_wire::Epoch;
use tdfs_wire::log::Lacking;

/// A file that is longer is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Keeps it; when this returns, it is on the disk.
pub fn store(lacking: &Lacking, state: &StateDir, slave: &SlaveAddress) -> Result<(), StateError> {
    state.write_bytes(&file_name(slave), &lacking.to_bytes())
}

/// What was kept for a slave in this epoch.
pub fn load(state: &StateDir, slave: &SlaveAddress, epoch: Epoch) -> Option<Lacking> {
    match read(state, slave) {
        Ok(lacking) => lacking.filter(|lacking| lacking.epoch() == epoch),
        Err(e) => {
            tracing::warn!(
                "slave {slave}: what the log lost for it is not known ({e:#}): if it lacks that, all of it is compared"
            );
            None
        }
    }
}

fn read(state: &StateDir, slave: &SlaveAddress) -> anyhow::Result<Option<Lacking>> {
    let bytes = state.read_bytes(&file_name(slave), FILE_BYTES_MAX)?;
    Ok(bytes.map(|bytes| Lacking::from_bytes(&bytes)).transpose()?)
}

/// Drops what was kept for a slave.
pub fn remove(state: &StateDir, slave: &SlaveAddress) {
    if let Err(e) = state.remove(&file_name(slave)) {
        tracing::warn!("{e}");
    }
}

fn file_name(slave: &SlaveAddress) -> String {
    format!("lacking-{}", escape(std::path::Path::new(&slave.to_string())))
}
