//! Masters are allowed on the slave, and nobody else gets in.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use harness::cluster::key_of;
use harness::{Daemon, TempTree, eventually};

use crate::{
    ASKS, NOT_ALLOWED, SOON, assert_works, binaries, cluster, count, master_key, master_says, refused,
    slave_says, strangers,
};

/// README: "Nobody without a key that was allowed can write to a slave". tdfs-slave(8): "A master that is not allowed is told so, with the command that allows it, and both logs name that
/// command".
#[test]
fn a_master_that_is_not_allowed_is_told_how_to_be() {
    let mut cluster = strangers().start();
    fs::write(cluster.mount().join("secret"), b"not for this one").unwrap();
    let why = refused(&cluster, 0);
    let key = master_key(&cluster);
    let command = format!("tdfs-slave allow -m {}", cluster.slaves[0].replica.display());
    let state = format!("--state {}", cluster.slaves[0].state.display());
    for part in [&command, &state, &key] {
        assert!(why.contains(part.as_str()), "no {part} in {why}");
        assert!(master_says(&cluster, part) && slave_says(&cluster, part), "no log says {part}");
    }
    assert_eq!(fs::read_dir(&cluster.slaves[0].replica).unwrap().count(), 0);
    // The words of that command, as they are.
    let words = why[why.find("allow -m").unwrap()..].to_owned();
    let words: Vec<&str> = words.split(' ').collect();
    let (code, said) = cluster.run_slave(0, words[0], &[words[words.len() - 1]]);
    assert_eq!(code, Some(0), "{said}");
    assert_works(&cluster, "goes on by itself");
    let log = cluster.slaves[0].process().log().to_owned();
    assert_eq!(count(&log, ASKS), 1, "at most once a minute");
    assert_eq!(count(cluster.master.log(), NOT_ALLOWED), 1, "once until it changes");
    cluster.finish();
}

/// "`disallow` [...]: Allows it no longer [...]; its connection ends at once."
#[test]
fn a_master_is_disallowed_while_it_streams() {
    let mut cluster =
        cluster().expect_log("no longer allowed").expect_log(ASKS).expect_log(NOT_ALLOWED).start();
    assert_works(&cluster, "first");
    let key = master_key(&cluster);
    let list = cluster.run_slave(0, "allowed", &[]);
    assert_eq!(list, (Some(0), format!("{key}\n")), "--allow counts");
    assert_eq!(cluster.run_slave(0, "disallow", &[&key]).0, Some(0));
    assert_eq!(cluster.run_slave(0, "allowed", &[]).1, "");
    fs::write(cluster.mount().join("second"), b"2").unwrap();
    refused(&cluster, 0);
    assert!(!cluster.slaves[0].replica.join("second").exists());
    let (code, said) = cluster.run_slave(0, "disallow", &[&key]);
    assert!(code == Some(2) && said.contains("is not allowed anyway"), "{said}");
    assert_eq!(cluster.run_slave(0, "allow", &[&key]).0, Some(0));
    cluster.wait();
    // What `allow` said is kept, also for a start without --allow.
    cluster.slaves[0].process().stop();
    cluster.slaves[0].process().replace_arg("--allow", "--listen");
    cluster.slaves[0].process().replace_arg(&key, "127.0.0.1:0");
    assert_eq!(cluster.run_slave(0, "allowed", &[]).1, format!("{key}\n"));
    cluster.stop();
}

/// "These work while the slave runs, and while it does not."
#[test]
fn masters_are_allowed_before_the_slave_ever_ran() {
    let mut cluster = strangers().later().start();
    let key = master_key(&cluster);
    let other = "SHA256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ4";
    let its_key = cluster.run_slave(0, "key", &[]);
    assert_eq!(its_key.0, Some(0));
    assert_eq!(cluster.run_slave(0, "allow", &[&key]).0, Some(0));
    assert_eq!(cluster.run_slave(0, "allow", &[other]).0, Some(0));
    assert_eq!(cluster.run_slave(0, "disallow", &[other]).0, Some(0));
    cluster.start_slave(0);
    assert_works(&cluster, "file");
    let slave = &cluster.slaves[0];
    assert_eq!(key_of(binaries().slave, &slave.replica, &slave.state).unwrap(), its_key.1.trim());
    assert_eq!(cluster.slave_status(0).fingerprint.as_deref(), Some(its_key.1.trim()));
    cluster.finish();
}

/// "One replica has one master. A second one that is allowed is refused while the replica belongs to another filesystem".
#[test]
fn a_second_allowed_master_is_refused() {
    let cluster = cluster().expect_log("belongs to").start();
    assert_works(&cluster, "first");
    let tree = TempTree::new().unwrap();
    let (other, state) = (tree.dir("other").unwrap(), tree.path().join("state"));
    let key = key_of(binaries().tdfs, &other, &state).unwrap();
    assert_eq!(cluster.run_slave(0, "allow", &[&key]).0, Some(0));
    let mut second = start_master(&other, &state, &cluster.slaves[0].address, &tree);
    second.expect_log("belongs to");
    eventually(SOON, "it is refused", || second.log_tail().contains("belongs to"));
    assert_works(&cluster, "the first one goes on");
    second.stop();
    cluster.finish();
}

/// README: "A slave's key can't be used to pose as a master." Who breaks into one slave has its key, and the master has
/// pinned it: to another slave it is nobody's.
#[test]
fn a_slaves_key_is_no_masters() {
    let cluster = cluster().network(2).expect_log(ASKS).start();
    assert_works(&cluster, "first");
    let tree = TempTree::new().unwrap();
    let (other, state) = (tree.dir("other").unwrap(), tree.path().join("state"));
    let thiefs = key_of(binaries().tdfs, &other, &state).unwrap();
    fs::copy(cluster.slaves[0].state.join("key"), state.join("key")).unwrap();
    let stolen = key_of(binaries().tdfs, &other, &state).unwrap();
    assert!(stolen != thiefs && Some(&stolen) == cluster.slave_status(0).fingerprint.as_ref());
    let mut thief = start_master(&other, &state, &cluster.slaves[1].address, &tree);
    thief.expect_log(NOT_ALLOWED);
    eventually(SOON, "it is refused", || thief.log_tail().contains(NOT_ALLOWED));
    assert_works(&cluster, "the master goes on");
    thief.stop();
    cluster.finish();
}

fn start_master(dir: &Path, state: &Path, slave: &str, tree: &TempTree) -> Daemon {
    let args: [&dyn AsRef<OsStr>; 6] = [&"-m", &dir, &"-c", &slave, &"--state", &state];
    let args: Vec<OsString> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
    Daemon::start(binaries().tdfs, &args, &tree.path().join("log")).unwrap()
}

/// "A malformed fingerprint is wrong use, exit 2, one sentence."
#[test]
fn malformed_fingerprints() {
    let cluster = cluster().start();
    for bad in
        ["x", "SHA256:", "SHA256:abc", "MD5:0123", "sha256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ4"]
    {
        let slave = format!("slave#{bad}");
        for (code, said) in [
            cluster.run_slave(0, "allow", &[bad]),
            cluster.run_slave(0, "disallow", &[bad]),
            cluster.run("add", &[&slave]),
            cluster.run("repin", &[&slave]),
        ] {
            assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
            assert!(said.contains("is no fingerprint"), "{said}");
        }
    }
    cluster.finish();
}
