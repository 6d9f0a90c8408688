//! A master and a slave as two processes that talk over the loopback.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::subject::{Daemon, Ready, wait_until_equal};

/// Where the two live, and how they talk.
pub struct Network<'a> {
    /// The program, its tdfs-slave beside it.
    pub tdfs: &'a Path,
    /// Logs and states lie here.
    pub dir: &'a Path,
    /// The directory that is distributed.
    pub tree: &'a Path,
    /// The replica.
    pub replica: &'a Path,
    /// By TLS, or in plain TCP.
    pub tls: bool,
}

/// A slave that waits for its master.
pub struct Listening {
    daemon: Daemon,
    address: String,
}

impl Network<'_> {
    /// The master's state directory.
    pub fn master_state(&self) -> PathBuf {
        self.dir.join("state-master")
    }

    /// The slave's state directory.
    pub fn slave_state(&self) -> PathBuf {
        self.dir.join("state-slave")
    }

    /// Starts the slave; it allows the master.
    pub fn start_slave(&self) -> anyhow::Result<Listening> {
        let port = free_port()?;
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(self.tdfs.with_file_name("tdfs-slave"));
        command.args(["-l", &address, "-m"]).arg(self.replica).arg("--state").arg(self.slave_state());
        if self.tls {
            command.arg("--allow").arg(self.master_key()?);
        } else {
            command.arg("--insecure");
        }
        let daemon = Daemon::start(command, Ready::Listens(port), self.dir.join("slave.log"))?;
        Ok(Listening { daemon, address })
    }

    /// Starts the master and waits until the slave's replica is equal.
    pub fn start_master(&self, slave: &Listening) -> anyhow::Result<Daemon> {
        let mut command = Command::new(self.tdfs);
        command.args(["-c", &slave.address, "-m"]).arg(self.tree).arg("--state").arg(self.master_state());
        if !self.tls {
            command.arg("--insecure");
        }
        let master = Daemon::start(command, Ready::Mounted(self.tree.into()), self.dir.join("tdfs.log"))?;
        self.wait()?;
        Ok(master)
    }

    /// Waits until the slave has applied all.
    pub fn wait(&self) -> anyhow::Result<()> {
        wait_until_equal(self.tdfs, self.tree, &self.master_state())
    }

    fn master_key(&self) -> anyhow::Result<String> {
        let mut command = Command::new(self.tdfs);
        command.args(["key", "-m"]).arg(self.tree).arg("--state").arg(self.master_state());
        let said = command.output().context("run tdfs key")?;
        ensure!(said.status.success(), "tdfs key: {}", String::from_utf8_lossy(&said.stderr));
        Ok(String::from_utf8(said.stdout)?.trim().to_owned())
    }
}

impl Listening {
    /// Stops it as a user would.
    pub fn stop(self) -> anyhow::Result<()> {
        self.daemon.stop()
    }
}

/// A port that nothing listens on.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
