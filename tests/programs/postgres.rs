//! `PostgreSQL` with its data on the mount; and what a slave had at any instant is a database.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::daemon::{Daemon, end_of};
use harness::modes::Mode;
use harness::{Cluster, eventually, long_form, require};

/// It refuses to be root.
const NOBODY: u32 = 65_534;
const LIMIT: Duration = Duration::from_secs(300);
/// In each transaction of pgbench all four change alike.
const SUMS: &str = "SELECT sum(abalance) FROM pgbench_accounts; SELECT sum(tbalance) FROM pgbench_tellers;
    SELECT sum(bbalance) FROM pgbench_branches; SELECT coalesce(sum(delta), 0) FROM pgbench_history";

/// Where the programs of the newest version are; Debian has them in no PATH.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let bins = versions.filter_map(|found| found.ok().map(|found| found.path().join("bin")));
    bins.filter(|bin| bin.join("initdb").is_file() && bin.join("pgbench").is_file()).max()
}

/// A running server.
struct Server {
    bin: PathBuf,
    sockets: PathBuf,
    daemon: Daemon,
}

fn as_nobody(bin: &Path, program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(bin.join(program)).args(args);
    command.current_dir("/").env("HOME", "/nonexistent").env("LC_ALL", "C").env_remove("PGHOST");
    command
}

fn done(command: Command) -> String {
    let told = format!("{command:?}");
    let output = end_of(command, LIMIT).unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told} ended with {}: {words}", output.status);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Server {
    fn start(bin: &Path, data: &Path, home: &Path) -> Self {
        fs::create_dir(home).unwrap();
        chown(home, Some(NOBODY), Some(NOBODY)).unwrap();
        let program = bin.join("postgres");
        let mut args: Vec<OsString> =
            ["--reuid=65534", "--regid=65534", "--clear-groups"].map(OsString::from).to_vec();
        args.extend([program.into(), "-D".into(), data.into(), "-k".into(), home.into()]);
        args.extend(["-c", "listen_addresses=", "-c", "shared_buffers=16MB"].map(OsString::from));
        args.extend(["-c", "checkpoint_timeout=30s", "-c", "max_wal_size=64MB"].map(OsString::from));
        args.extend(["-c", "unix_socket_permissions=0700"].map(OsString::from));
        let daemon = Daemon::start("setpriv", &args, &home.join("log")).unwrap();
        let mut server = Self { bin: bin.to_owned(), sockets: home.to_owned(), daemon };
        eventually(Duration::from_secs(60), "the server answers", || {
            assert!(server.daemon.is_alive(), "it has ended: {}", server.daemon.log_tail());
            let asked = as_nobody(&server.bin, "pg_isready", &["-q", "-h", server.host()]).status();
            asked.is_ok_and(|status| status.success())
        });
        server
    }

    fn host(&self) -> &str {
        self.sockets.to_str().unwrap()
    }

    fn asked(&self, text: &str) -> String {
        done(as_nobody(&self.bin, "psql", &["-h", self.host(), "-d", "postgres", "-Atqc", text]))
    }

    fn bench(&self, more: &[&str]) -> Command {
        let mut command = as_nobody(&self.bin, "pgbench", &["-h", self.host(), "-n"]);
        command.args(more).arg("postgres").stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Checks what pgbench promises; gives the number of transactions.
    fn check(&self) -> u64 {
        let sums: Vec<String> = self.asked(SUMS).lines().map(str::to_owned).collect();
        assert!(sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]), "no database: {sums:?}");
        self.asked("SELECT count(*) FROM pgbench_history").parse().unwrap()
    }

    /// Stops it cleanly; then each page of it must have the checksum that it says.
    fn stop(mut self, data: &Path) {
        self.daemon.signal(rustix::process::Signal::INT);
        assert!(self.daemon.wait_end(Duration::from_secs(60)).is_some(), "it does not end");
        done(as_nobody(&self.bin, "pg_checksums", &["--check", "-D", data.to_str().unwrap()]));
    }
}

/// DESIGN P1: "names and content of a replica are at every instant those of the backing tree as it was after some
/// record of the log": so a copy of it starts as after a crash of the machine, with all that was committed by then.
#[test]
fn a_replica_is_a_database_at_every_instant() {
    let test = "a_replica_is_a_database_at_every_instant";
    let Some(bin) = programs() else {
        require(test, "/usr/lib/postgresql/bin/initdb", "postgresql");
        return;
    };
    let modes = if long_form() { &Mode::ALL[..] } else { &Mode::ALL[1..3] };
    for mode in modes {
        println!("postgres: {mode}");
        run(&bin, *mode);
    }
}

fn run(bin: &Path, mode: Mode) {
    let mut builder = Cluster::builder(harness::binaries!()).network(1);
    builder = if mode.elsewhere { builder.elsewhere() } else { builder };
    builder = if mode.passthrough { builder.flag("--passthrough") } else { builder };
    builder = if mode.compressed { builder.compressed() } else { builder };
    let mut cluster = builder.start();
    let data = cluster.mount().join("data");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    let initdb = ["-D", data.to_str().unwrap(), "-k", "-A", "trust", "-U", "nobody", "--locale=C"];
    done(as_nobody(bin, "initdb", &initdb));
    let server = Server::start(bin, &data, &cluster.tree.path().join("pg"));
    done(server.bench(&["-i", "-q"]));
    let mut before = 0;
    for round in 0..if long_form() { 10 } else { 2 } {
        cluster.wait();
        let mut load = server.bench(&["-c", "4", "-T", "600"]).spawn().unwrap();
        let asked = server.asked("SELECT count(*) FROM pgbench_history").parse::<u64>().unwrap();
        eventually(Duration::from_secs(120), "transactions are done", || {
            server.asked("SELECT count(*) FROM pgbench_history").parse::<u64>().unwrap() > asked + 200
        });
        let found = copied(&mut cluster, bin, round);
        println!("{found} transactions in the copy, {before} in the one before");
        assert!(found > before, "the slave has nothing new");
        before = found;
        end(&mut load);
        cluster.start_slave(0);
    }
    assert!(server.check() >= before);
    server.stop(&data);
    cluster.wait_for(120);
    let found = {
        let replica = cluster.slaves[0].replica.join("data");
        let place = cluster.tree.path().join("last");
        copy(&replica, &place);
        let server = Server::start(bin, &place, &cluster.tree.path().join("pg-last"));
        let found = server.check();
        server.stop(&place);
        found
    };
    assert!(found >= before);
    cluster.finish();
}

fn end(load: &mut Child) {
    load.kill().unwrap();
    load.wait().unwrap();
}

/// Kills the slave at this instant, and starts a database on a copy of what it had.
fn copied(cluster: &mut Cluster, bin: &Path, round: u32) -> u64 {
    cluster.slaves[0].process().kill();
    let place = cluster.tree.path().join(format!("copy{round}"));
    copy(&cluster.slaves[0].replica.join("data"), &place);
    // A server that runs there is the master's.
    let _ = fs::remove_file(place.join("postmaster.pid"));
    let server = Server::start(bin, &place, &cluster.tree.path().join(format!("pg{round}")));
    let found = server.check();
    server.stop(&place);
    fs::remove_dir_all(&place).unwrap();
    found
}

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    command.arg("-a").args([from, to]);
    done(command);
}
