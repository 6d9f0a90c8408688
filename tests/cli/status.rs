//! `status`, `wait` and `--version`.

use std::fs;

use harness::status::STATES;
use harness::{Cluster, TempTree, eventually};

use crate::{BINARIES, LIMIT, assert_one_sentence, run};

#[test]
fn version() {
    for program in [BINARIES.tdfs, BINARIES.slave] {
        let ended = run(program, &[&"--version"]);
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.starts_with("tdfs"), "{}", ended.stdout);
        assert!(ended.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", ended.stdout);
    }
}

#[test]
fn help_names_the_flags() {
    let help = run(BINARIES.tdfs, &[&"--help"]);
    assert_eq!(help.code, Some(0));
    let flags = "-m -c -z -n --state --log-max --skip-mounts --new --adopt --insecure MOUNTPOINT";
    for flag in flags.split(' ') {
        assert!(help.stdout.contains(flag), "no {flag} in {}", help.stdout);
    }
    let help = run(BINARIES.slave, &[&"--help"]);
    for flag in ["-m", "-l", "-n", "--state", "--adopt", "--insecure"] {
        assert!(help.stdout.contains(flag), "no {flag} in {}", help.stdout);
    }
}

/// The contract: `wait` gives "2 when tdfs isn't running".
#[test]
fn nothing_runs() {
    let tree = TempTree::new().unwrap();
    let (dir, state) = (tree.dir("a").unwrap(), tree.path().join("state"));
    let ended = run(BINARIES.tdfs, &[&"wait", &"-m", &dir, &"--state", &state, &"--timeout", &"1"]);
    assert_one_sentence(&ended, 2);
    for program in [BINARIES.tdfs, BINARIES.slave] {
        let ended = run(program, &[&"status", &"-m", &dir, &"--state", &state, &"--json"]);
        assert_ne!(ended.code, Some(0));
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{}", ended.stderr);
    }
    assert!(!state.exists(), "asking makes nothing");
}

/// The same when it ran and has ended, by SIGTERM and by kill -9.
#[test]
fn nothing_runs_any_more() {
    let mut cluster = Cluster::builder(BINARIES).network(1).start();
    cluster.wait();
    cluster.master.stop();
    assert_eq!(cluster.wait_code(1).0, Some(2));
    cluster.start_master();
    cluster.wait();
    cluster.master.kill();
    assert_eq!(cluster.wait_code(1).0, Some(2));
}

#[test]
fn status_tells_of_every_slave() {
    let mut cluster = Cluster::builder(BINARIES).network(1).embedded().later().start();
    for number in 0..20 {
        fs::write(cluster.mount().join(format!("file{number}")), b"content").unwrap();
    }
    let caught_up =
        || cluster.status().slaves.iter().take(2).all(|slave| slave.state == "streaming" && !slave.checking);
    eventually(LIMIT, "two slaves stream", caught_up);
    let reached =
        || cluster.status().slaves.iter().take(2).all(|slave| slave.durable == cluster.status().head);
    eventually(LIMIT, "two slaves are durable", reached);
    let status = cluster.status();
    let addresses: Vec<_> = status.slaves.iter().map(|slave| slave.address.clone()).collect();
    assert_eq!(addresses, cluster.slaves.iter().map(|slave| slave.address.clone()).collect::<Vec<_>>());
    assert!(status.head >= 40);
    for slave in &status.slaves[..2] {
        assert_eq!((slave.applied, slave.sent, slave.received), (status.head, status.head, status.head));
        assert_eq!((slave.lag_records, slave.lag_bytes, slave.divergences), (0, 0, 0));
        assert!(slave.lag_seconds < 5.0 && STATES.contains(&slave.state.as_str()));
    }
    let away = &status.slaves[2];
    assert!(["away", "connecting"].contains(&away.state.as_str()), "{away:?}");
    assert_eq!((away.applied, away.lag_records), (0, status.head));
    // The text form is for people, and names the same slaves.
    let ended =
        run(BINARIES.tdfs, &[&"status", &"-m", &cluster.paths.backing, &"--state", &cluster.paths.state]);
    assert_eq!(ended.code, Some(0));
    assert!(addresses.iter().all(|address| ended.stdout.contains(address)), "{}", ended.stdout);
    cluster.start_slave(2);
    cluster.finish();
}

#[test]
fn slave_status() {
    let cluster = Cluster::builder(BINARIES).network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    cluster.wait();
    let slave = &cluster.slaves[0];
    let ended = run(BINARIES.slave, &[&"status", &"-m", &slave.replica, &"--state", &slave.state, &"--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let status: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(status["role"], "slave");
    assert_eq!(status["applied"].as_u64(), Some(cluster.status().head));
    let ended = run(BINARIES.slave, &[&"status", &"-m", &slave.replica, &"--state", &slave.state]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    cluster.finish();
}

/// The contract: "1 at the timeout (none: waits for ever), naming the slave and its lag".
#[test]
fn wait_names_who_lags() {
    let mut cluster = Cluster::builder(BINARIES).network(1).later().start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    let start = std::time::Instant::now();
    let (code, words) = cluster.wait_code(2);
    assert_eq!(code, Some(1), "{words}");
    assert!(start.elapsed() >= std::time::Duration::from_secs(2));
    assert!(words.contains(&cluster.slaves[1].address), "{words}");
    assert!(!words.contains(&cluster.slaves[0].address), "{words}");
    let lag = cluster.slave_status(1).lag_records.to_string();
    assert!(words.contains(&lag), "no lag of {lag} in {words}");
    cluster.start_slave(1);
    cluster.wait();
    assert_eq!(fs::read(cluster.slaves[1].replica.join("file")).unwrap(), b"content");
    cluster.finish();
}

/// DESIGN section 6: the state directory is "never inside the tree".
#[test]
fn state_is_outside_the_tree() {
    let mut cluster = Cluster::builder(BINARIES).network(1).start();
    let state = cluster.paths.state.clone();
    cluster.wait();
    assert!(fs::read_dir(&state).unwrap().count() > 0, "the state lies where --state says");
    assert_eq!(fs::read_dir(cluster.mount()).unwrap().count(), 0, "and not in the tree");
    assert_eq!(fs::read_dir(&cluster.slaves[0].replica).unwrap().count(), 0, "nor in the replica");
    cluster.stop();
}

/// The address of a UNIX socket holds 107 bytes; a state directory's path may be much longer.
#[test]
fn long_paths_are_no_obstacle() {
    let cluster = Cluster::builder(BINARIES).long_paths().network(1).embedded().start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    cluster.finish();
}
