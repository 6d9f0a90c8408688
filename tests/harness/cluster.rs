//! A master with its slaves, all below one temp directory.
//!
//! `ClusterBuilder` says what it looks like; `Cluster` is the running thing. The parts are public: scenarios
//! stop, kill and start them as they like.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::compare::Compare;
use crate::daemon::{Binaries, Daemon, run_to_end};
use crate::proxy::Proxy;
use crate::status::{SlaveStatus, Status};
use crate::temp_tree::{TempTree, mount_at};
use crate::wait::becomes_true;

/// How long a daemon may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(120);
/// `tdfs wait --timeout`, in seconds.
const WAIT_SECONDS: u32 = 60;

/// Kind of a slave and what stands between it and the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlaveKind {
    Network {
        proxy_seed: Option<u64>,
        starts_later: bool,
    },
    /// A daemon that the master's command line does not name.
    Apart,
    Embedded,
}

/// Whom the slaves let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Master,
    Nobody,
    Anybody,
}

/// What a cluster looks like; `start` makes it.
#[derive(Debug)]
pub struct ClusterBuilder {
    binaries: Binaries,
    slaves: Vec<SlaveKind>,
    flags: Vec<OsString>,
    slave_flags: Vec<OsString>,
    insecure: bool,
    entry: Entry,
    elsewhere: bool,
    on_disk: bool,
    long_paths: bool,
    wait_until_ready: bool,
    expected: Vec<String>,
    prepare: Vec<fn(&ClusterPaths)>,
}

/// Where the parts of a cluster lie.
#[derive(Clone, Debug)]
pub struct ClusterPaths {
    /// DIR: the directory that is distributed.
    pub backing: PathBuf,
    /// Where applications work: DIR itself or MOUNTPOINT.
    pub mount: PathBuf,
    /// The replicas, in the order of `-c`.
    pub replicas: Vec<PathBuf>,
    /// The master's state directory.
    pub state: PathBuf,
}

/// One slave with its replica.
#[derive(Debug)]
pub struct Slave {
    /// As given with `-c`.
    pub address: String,
    /// Its tree.
    pub replica: PathBuf,
    /// Its state directory (an embedded one keeps its state in the master's).
    pub state: PathBuf,
    /// Its process; none for an embedded slave or one that starts later.
    pub daemon: Option<Daemon>,
    /// What breaks its link.
    pub proxy: Option<Proxy>,
    args: Vec<OsString>,
    log: PathBuf,
}

/// A running master with its slaves.
#[derive(Debug)]
pub struct Cluster {
    /// The master's process.
    pub master: Daemon,
    /// The slaves, in the order of `-c`.
    pub slaves: Vec<Slave>,
    /// Where everything lies.
    pub paths: ClusterPaths,
    binaries: Binaries,
    /// Last, so that the daemons are gone before their directories.
    pub tree: TempTree,
}

impl ClusterBuilder {
    /// One network slave, in place, on tmpfs.
    pub fn new(binaries: Binaries) -> Self {
        Self {
            binaries,
            slaves: Vec::new(),
            flags: Vec::new(),
            slave_flags: Vec::new(),
            insecure: false,
            entry: Entry::Master,
            elsewhere: false,
            on_disk: false,
            long_paths: false,
            wait_until_ready: true,
            expected: Vec::new(),
            prepare: Vec::new(),
        }
    }

    /// Adds `count` slaves that are daemons of their own.
    #[must_use]
    pub fn network(mut self, count: usize) -> Self {
        let slave = SlaveKind::Network { proxy_seed: None, starts_later: false };
        self.slaves.extend(std::iter::repeat_n(slave, count));
        self
    }

    /// Adds a slave behind a faulty proxy.
    #[must_use]
    pub fn proxied(mut self, seed: u64) -> Self {
        self.slaves.push(SlaveKind::Network { proxy_seed: Some(seed), starts_later: false });
        self
    }

    /// Adds a slave that the scenario starts itself, later.
    #[must_use]
    pub fn later(mut self) -> Self {
        self.slaves.push(SlaveKind::Network { proxy_seed: None, starts_later: true });
        self
    }

    /// Adds a slave that runs, and that the master is not told of at its start.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.slaves.push(SlaveKind::Apart);
        self
    }

    /// Adds an embedded slave.
    #[must_use]
    pub fn embedded(mut self) -> Self {
        self.slaves.push(SlaveKind::Embedded);
        self
    }

    /// Adds a flag of the master.
    #[must_use]
    pub fn flag(mut self, flag: impl Into<OsString>) -> Self {
        self.flags.push(flag.into());
        self
    }

    /// Adds a flag of every slave that is a daemon.
    #[must_use]
    pub fn slave_flag(mut self, flag: impl Into<OsString>) -> Self {
        self.slave_flags.push(flag.into());
        self
    }

    /// Plain TCP: for tests that look at frames on the wire, or damage them.
    #[must_use]
    pub fn insecure(mut self) -> Self {
        self.insecure = true;
        self.insecure_slaves()
    }

    /// Only the slaves speak plain TCP.
    #[must_use]
    pub fn insecure_slaves(mut self) -> Self {
        self.entry = Entry::Anybody;
        self
    }

    /// The slaves allow no master.
    #[must_use]
    pub fn nobody_allowed(mut self) -> Self {
        self.entry = Entry::Nobody;
        self
    }

    /// `-z 1`.
    #[must_use]
    pub fn compressed(self) -> Self {
        self.flag("-z").flag("1")
    }

    /// Mounts at a MOUNTPOINT and not over DIR.
    #[must_use]
    pub fn elsewhere(mut self) -> Self {
        self.elsewhere = true;
        self
    }

    /// Uses the disk and not tmpfs.
    #[must_use]
    pub fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// Puts everything below a long path: longer than the address of a socket may be.
    #[must_use]
    pub fn long_paths(mut self) -> Self {
        self.long_paths = true;
        self
    }

    /// Does not wait until the mount is there.
    #[must_use]
    pub fn unready(mut self) -> Self {
        self.wait_until_ready = false;
        self
    }

    /// A WARN or ERROR line of any daemon that holds `part` does not fail the test.
    #[must_use]
    pub fn expect_log(mut self, part: &str) -> Self {
        self.expected.push(part.to_owned());
        self
    }

    /// Runs `act` on the directories before anything is started.
    #[must_use]
    pub fn prepare(mut self, act: fn(&ClusterPaths)) -> Self {
        self.prepare.push(act);
        self
    }

    /// Makes the directories, starts the slaves, then the master, and waits until they are ready.
    #[track_caller]
    pub fn start(self) -> Cluster {
        self.try_start().expect("start the cluster")
    }

    fn try_start(mut self) -> Result<Cluster> {
        if self.slaves.is_empty() {
            self = self.network(1);
        }
        let tree = if self.on_disk { TempTree::on_disk()? } else { TempTree::new()? };
        let home = if self.long_paths { tree.dir(&"p".repeat(200))? } else { tree.path().to_owned() };
        let paths = self.make_directories(&home)?;
        for prepare in &self.prepare {
            prepare(&paths);
        }
        let entry = self.entry_args(&paths)?;
        let mut slaves = Vec::new();
        for (kind, replica) in self.slaves.iter().zip(&paths.replicas) {
            slaves.push(self.make_slave(*kind, replica, &home, &entry)?);
        }
        for (slave, kind) in slaves.iter_mut().zip(&self.slaves) {
            if matches!(kind, SlaveKind::Network { starts_later: false, .. } | SlaveKind::Apart) {
                slave.start(self.binaries, &self.expected)?;
            }
        }
        let args = self.master_args(&paths, &slaves);
        let mut master = Daemon::start(self.binaries.tdfs, &args, &home.join("log/master"))?;
        self.expected.iter().for_each(|part| master.expect_log(part));
        let mut cluster = Cluster { master, slaves, paths, binaries: self.binaries, tree };
        if self.wait_until_ready {
            cluster.wait_ready()?;
        }
        Ok(cluster)
    }

    fn make_directories(&self, home: &Path) -> Result<ClusterPaths> {
        let make = |name: &str| {
            let dir = home.join(name);
            std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            anyhow::Ok(dir)
        };
        make("log")?;
        make("state")?;
        let backing = make("a")?;
        let mount = if self.elsewhere { make("m")? } else { backing.clone() };
        let mut replicas = Vec::new();
        for (number, kind) in self.slaves.iter().enumerate() {
            let name = format!("b{number}");
            // tdfs makes an embedded slave's directory if it is missing: so it is.
            let embedded = *kind == SlaveKind::Embedded;
            replicas.push(if embedded { home.join(name) } else { make(&name)? });
        }
        Ok(ClusterPaths { backing, mount, replicas, state: home.join("state/master") })
    }

    /// What lets the master in.
    fn entry_args(&self, paths: &ClusterPaths) -> Result<Vec<OsString>> {
        match self.entry {
            Entry::Nobody => Ok(Vec::new()),
            Entry::Anybody => Ok(vec!["--insecure".into()]),
            Entry::Master if self.slaves.iter().all(|kind| *kind == SlaveKind::Embedded) => Ok(Vec::new()),
            Entry::Master => {
                let key = key_of(self.binaries.tdfs, &paths.backing, &paths.state)?;
                Ok(vec!["--allow".into(), key.into()])
            }
        }
    }

    fn make_slave(&self, kind: SlaveKind, replica: &Path, home: &Path, entry: &[OsString]) -> Result<Slave> {
        let name = replica.file_name().context("name the replica")?.to_owned();
        let state = home.join("state").join(&name);
        let mut slave = Slave {
            address: replica.display().to_string(),
            replica: replica.to_owned(),
            state: state.clone(),
            daemon: None,
            proxy: None,
            args: Vec::new(),
            log: home.join("log").join(&name),
        };
        let proxy_seed = match kind {
            SlaveKind::Network { proxy_seed, .. } => Some(proxy_seed),
            SlaveKind::Apart => Some(None),
            SlaveKind::Embedded => None,
        };
        if let Some(proxy_seed) = proxy_seed {
            let listen = free_address()?;
            slave.proxy = proxy_seed.map(|seed| Proxy::start(listen, seed)).transpose()?;
            slave.address = slave.proxy.as_ref().map_or(listen, Proxy::address).to_string();
            slave.args = vec!["-m".into(), replica.into(), "-l".into(), listen.to_string().into()];
            slave.args.extend(["--state".into(), state.into()]);
            slave.args.extend(entry.iter().cloned());
            slave.args.extend(self.slave_flags.iter().cloned());
        }
        Ok(slave)
    }

    fn master_args(&self, paths: &ClusterPaths, slaves: &[Slave]) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["-m".into(), (&paths.backing).into()];
        let told = slaves.iter().zip(&self.slaves).filter(|(_, kind)| **kind != SlaveKind::Apart);
        for (slave, _) in told {
            args.extend(["-c".into(), (&slave.address).into()]);
        }
        args.extend(["--state".into(), (&paths.state).into()]);
        if self.insecure {
            args.push("--insecure".into());
        }
        args.extend(self.flags.iter().cloned());
        if self.elsewhere {
            args.push((&paths.mount).into());
        }
        args
    }
}

/// What `tdfs key` (or `tdfs-slave key`) says.
pub fn key_of(program: &str, dir: &Path, state: &Path) -> Result<String> {
    let args: Vec<OsString> = vec!["key".into(), "-m".into(), dir.into(), "--state".into(), state.into()];
    let output = run_to_end(program, &args, READY_LIMIT)?;
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "key ended with {}: {words}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// An address of this machine that nothing listens on.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("bind a free port")?;
    listener.local_addr().context("read the free port")
}

impl Slave {
    /// Starts the daemon (again) and waits until it answers.
    pub fn start(&mut self, binaries: Binaries, expected: &[String]) -> Result<()> {
        match &mut self.daemon {
            Some(daemon) => daemon.start_again()?,
            None => {
                let mut daemon = Daemon::start(binaries.slave, &self.args, &self.log)?;
                expected.iter().for_each(|part| daemon.expect_log(part));
                self.daemon = Some(daemon);
            }
        }
        let ask: Vec<OsString> = status_args(&self.replica, &self.state);
        let daemon = self.daemon.as_mut().context("find the slave's process")?;
        let answered = becomes_true(READY_LIMIT, || {
            !daemon.is_alive()
                || run_to_end(binaries.slave, &ask, READY_LIMIT).is_ok_and(|output| output.status.success())
        });
        anyhow::ensure!(answered && daemon.is_alive(), "slave is not ready; its log:\n{}", daemon.log_tail());
        Ok(())
    }

    /// Its process. Fails the test for an embedded slave.
    #[track_caller]
    pub fn process(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("find the slave's process")
    }
}

fn status_args(dir: &Path, state: &Path) -> Vec<OsString> {
    vec!["status".into(), "-m".into(), dir.into(), "--state".into(), state.into(), "--json".into()]
}

impl Cluster {
    /// Says what a cluster looks like.
    pub fn builder(binaries: Binaries) -> ClusterBuilder {
        ClusterBuilder::new(binaries)
    }

    /// The directory in which applications work.
    pub fn mount(&self) -> &Path {
        &self.paths.mount
    }

    /// Waits until the mount is there and the master answers.
    pub fn wait_ready(&mut self) -> Result<()> {
        let place = self.paths.mount.clone();
        let ready = becomes_true(READY_LIMIT, || {
            !self.master.is_alive()
                || (mount_at(&place).is_some_and(|mount| mount.kind.starts_with("fuse"))
                    && self.try_status().is_ok())
        });
        let log = self.master.log_tail();
        anyhow::ensure!(ready && self.master.is_alive(), "master is not ready; its log:\n{log}");
        Ok(())
    }

    /// What `tdfs status --json` says now.
    pub fn try_status(&self) -> Result<Status> {
        let args = status_args(&self.paths.backing, &self.paths.state);
        let output = run_to_end(self.binaries.tdfs, &args, READY_LIMIT)?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "status ended with {}: {words}", output.status);
        Status::parse(&output.stdout)
    }

    /// The same; fails the test when there is no answer.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.try_status().expect("read the status")
    }

    /// What the master says of slave `number`.
    #[track_caller]
    pub fn slave_status(&self, number: usize) -> SlaveStatus {
        let address = &self.slaves[number].address;
        let status = self.status();
        let found = status.slaves.iter().find(|slave| slave.address == *address);
        found.unwrap_or_else(|| panic!("{address} is not in {status:?}")).clone()
    }

    /// Runs `tdfs WORD` on this master with more words behind it: its exit code and all it said.
    pub fn run(&self, word: &str, more: &[&str]) -> (Option<i32>, String) {
        self.run_within(word, more, COMMAND_LIMIT)
    }

    /// The same, killed after `limit`.
    pub fn run_within(&self, word: &str, more: &[&str], limit: Duration) -> (Option<i32>, String) {
        let mut args: Vec<OsString> = vec![word.into(), "-m".into(), (&self.paths.backing).into()];
        args.extend(["--state".into(), (&self.paths.state).into()]);
        args.extend(more.iter().map(Into::into));
        let output = run_to_end(self.binaries.tdfs, &args, limit).expect("run a command of tdfs");
        let words = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&words).into_owned())
    }

    /// Runs `tdfs-slave WORD` on slave `number` with more words behind it: its exit code and all it said.
    pub fn run_slave(&self, number: usize, word: &str, more: &[&str]) -> (Option<i32>, String) {
        let slave = &self.slaves[number];
        let mut args: Vec<OsString> = vec![word.into(), "-m".into(), (&slave.replica).into()];
        args.extend(["--state".into(), (&slave.state).into()]);
        args.extend(more.iter().map(Into::into));
        let output =
            run_to_end(self.binaries.slave, &args, COMMAND_LIMIT).expect("run a command of tdfs-slave");
        let words = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&words).into_owned())
    }

    /// `tdfs wait` with this timeout in seconds: its exit code and its words.
    pub fn wait_code(&self, seconds: u32) -> (Option<i32>, String) {
        let limit = Duration::from_secs(u64::from(seconds) + 20);
        self.run_within("wait", &["--timeout", &seconds.to_string()], limit)
    }

    /// Waits until every slave has applied the head and is equal; fails the test when that does not come.
    #[track_caller]
    pub fn wait(&self) {
        self.wait_for(WAIT_SECONDS);
    }

    /// The same with another timeout.
    #[track_caller]
    pub fn wait_for(&self, seconds: u32) {
        let (code, words) = self.wait_code(seconds);
        let status = self.try_status();
        assert_eq!(code, Some(0), "tdfs wait said: {words}; status: {status:?}");
    }

    /// Fails the test unless every replica equals the mount in everything that P3 promises.
    #[track_caller]
    pub fn assert_equal(&self) {
        for slave in &self.slaves {
            self.assert_equal_to(&slave.replica);
        }
    }

    /// The same for one replica.
    #[track_caller]
    pub fn assert_equal_to(&self, replica: &Path) {
        let differences = Compare::default().run(&self.paths.mount, replica).expect("compare the trees");
        let count = differences.len();
        let list = differences.join("\n  ");
        assert!(differences.is_empty(), "{} differs from the mount ({count}):\n  {list}", replica.display());
    }

    /// Starts slave `number` (again).
    #[track_caller]
    pub fn start_slave(&mut self, number: usize) {
        self.slaves[number].start(self.binaries, &[]).expect("start the slave");
    }

    /// Starts the master again and waits until it is ready.
    #[track_caller]
    pub fn start_master(&mut self) {
        self.master.start_again().expect("start the master again");
        self.wait_ready().expect("wait for the master");
    }

    /// A WARN or ERROR line of any daemon that holds `part` does not fail the test from here on.
    pub fn expect_log(&mut self, part: &str) {
        self.master.expect_log(part);
        self.slaves.iter_mut().filter_map(|slave| slave.daemon.as_mut()).for_each(|daemon| {
            daemon.expect_log(part);
        });
    }

    /// The usual end: wait, compare, then `stop`.
    #[track_caller]
    pub fn finish(mut self) {
        self.wait();
        self.assert_equal();
        self.stop();
    }

    /// Stops everything cleanly and checks that nothing is left behind.
    #[track_caller]
    pub fn stop(&mut self) {
        if self.master.is_running() {
            self.master.stop();
        }
        for slave in &mut self.slaves {
            slave.proxy = None;
            if let Some(daemon) = slave.daemon.as_mut().filter(|daemon| daemon.is_running()) {
                daemon.stop();
            }
        }
        self.tree.assert_no_leaks();
    }
}
