//! Masters are allowed on the slave, and nobody else gets in.

use std::fs;

use harness::cluster::key_of;
use harness::{TempTree, eventually};

use crate::{
    ASKS, NOT_ALLOWED, SOON, assert_works, binaries, cluster, count, master_key, master_says, refused,
    slave_says, strangers,
};

/// tdfs-slave(8): "A master that is not allowed is told so, with the command that allows it, and both logs name that
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
    let args = ["-m", "-c", "--state"].map(std::ffi::OsString::from);
    let values = [other.clone().into(), (&cluster.slaves[0].address).into(), state.into()];
    let args: Vec<_> = args.into_iter().zip(values).flat_map(|(flag, value)| [flag, value]).collect();
    let mut second = harness::Daemon::start(binaries().tdfs, &args, &tree.path().join("log")).unwrap();
    second.expect_log("belongs to");
    eventually(SOON, "it is refused", || second.log_tail().contains("belongs to"));
    assert_works(&cluster, "the first one goes on");
    second.stop();
    cluster.finish();
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
