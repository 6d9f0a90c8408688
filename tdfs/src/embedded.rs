//! Slaves inside this process: each has its replica, its relay, and a way in for the slave's task.
//!
//! Started and stopped by `daemon`; `ship` connects to them as to any other.

use crate::ship::{self, Dialled, NamedSlave, SlaveAddress};
use anyhow::Context;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tdfs_host::cli::WrongUse;
use tdfs_host::state::{self, StateDir};
use tdfs_slave::receive::{Entry, Receive};
use tdfs_slave::relay::Relay;

/// The directory of an embedded slave's replica.
pub fn path_of(address: &SlaveAddress) -> Option<&Path> {
    match address {
        SlaveAddress::Embedded(path) => Some(path),
        SlaveAddress::Network { .. } => None,
    }
}

/// All of them, by the directory of their replica.
pub struct Embedded {
    running: Mutex<HashMap<PathBuf, Running>>,
    /// The master's state directory: theirs are inside.
    state: PathBuf,
}

struct Running {
    receive: Arc<Receive>,
    relay: Arc<Relay>,
}

impl Embedded {
    /// Starts those among `slaves`; `adopt`: what lies in their directories may be made equal, whatever it is.
    ///
    /// # Errors
    /// In words for a human: a replica can't be used.
    pub fn start(slaves: &[NamedSlave], state: &StateDir, adopt: bool) -> anyhow::Result<Arc<Embedded>> {
        let embedded = Embedded { running: Mutex::default(), state: state.path().to_owned() };
        slaves
            .iter()
            .filter_map(|slave| path_of(&slave.address))
            .try_for_each(|path| embedded.add(path, adopt))?;
        Ok(Arc::new(embedded))
    }

    /// Starts one; `adopt` as above.
    ///
    /// # Errors
    /// In words for a human: the replica can't be used.
    pub fn add(&self, path: &Path, adopt: bool) -> anyhow::Result<()> {
        let name = state::default_path(state::Side::Slave, path)?;
        let name = name.file_name().context("name of an embedded slave's state")?;
        let replica = tdfs_slave::open_replica(path, &self.state.join(name), adopt)
            .map_err(|e| WrongUse(format!("the replica {} can't be used: {e:#}", path.display())))?;
        let relay = Arc::new(Relay::start(Box::new(replica)).context("start the relay")?);
        let receive = Receive::new(Arc::clone(&relay), true, Entry::Anybody);
        self.running.lock().insert(path.to_path_buf(), Running { receive, relay });
        Ok(())
    }

    /// Ends one.
    pub async fn remove(&self, path: &Path) {
        let running = self.running.lock().remove(path);
        if let Some(running) = running {
            running.stop().await;
        }
    }

    /// Connects to them.
    pub fn connector(self: &Arc<Self>) -> ship::ConnectEmbedded {
        let embedded = Arc::clone(self);
        Arc::new(move |path: &Path| {
            let receive = embedded.running.lock().get(path).map(|running| Arc::clone(&running.receive));
            Box::pin(async move {
                let receive = receive.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotFound))?;
                let (reader, writer) = receive.connect_embedded()?;
                Ok(Dialled { reader, writer, key: None })
            })
        })
    }

    /// Ends all.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running.lock());
        for running in running.into_values() {
            running.stop().await;
        }
    }
}

impl Running {
    async fn stop(self) {
        self.receive.stop().await;
        // A panic ends the process, so joining can't fail.
        let _ = tokio::task::spawn_blocking(move || drop(self.relay.stop())).await;
    }
}
