//! TLS meets plain TCP: both sides say which flag is missing where.

use std::fs;

use crate::{SOON, assert_works, cluster, count, master_says, refused, slave_says};

/// Each side's words, in each direction: (the master is insecure, what it says, what the slave says).
#[test]
fn a_flag_is_missing_on_one_side() {
    for (insecure_master, words) in [(true, "wants TLS"), (false, "was started with --insecure")] {
        let builder = cluster().expect_log(words).expect_log("--insecure");
        let mut cluster = if insecure_master {
            builder.flag("--insecure").start()
        } else {
            builder.insecure_slaves().start()
        };
        let why = refused(&cluster, 0);
        assert!(why.contains(words) && why.contains("without"), "{why}");
        harness::eventually(SOON, "the slave says so", || slave_says(&cluster, "--insecure"));
        // A few more tries add no line.
        std::thread::sleep(std::time::Duration::from_secs(12));
        let log = cluster.slaves[0].process().log().to_owned();
        for log in [cluster.master.log(), &log] {
            assert!(count(log, words) <= 1, "{}", fs::read_to_string(log).unwrap());
        }
        assert!(master_says(&cluster, words));
        assert_eq!(cluster.slave_status(0).state, "refused");
        cluster.stop();
    }
}

/// "It has to be given on both sides, and warns at each start", and both statuses show it.
#[test]
fn insecure_on_both_sides() {
    let mut cluster = cluster().insecure().start();
    assert_works(&cluster, "first");
    assert!(cluster.status().insecure && cluster.slave_status(0).fingerprint.is_none());
    assert!(cluster.run("status", &[]).1.contains("INSECURE"));
    let (_, json) = cluster.run_slave(0, "status", &["--json"]);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["insecure"], true);
    assert!(cluster.run_slave(0, "status", &[]).1.contains("INSECURE"));
    cluster.master.stop();
    cluster.start_master();
    let log = cluster.slaves[0].process().log().to_owned();
    assert_eq!((count(cluster.master.log(), "WARN"), count(&log, "WARN")), (2, 1), "at each start");
    cluster.finish();
}

/// README: "connections are TLS, always, and both sides prove a key, as with SSH". Both statuses show whom they talk to.
#[test]
fn status_shows_the_keys() {
    let cluster = cluster().start();
    assert_works(&cluster, "first");
    let status = cluster.status();
    let (_, json) = cluster.run_slave(0, "status", &["--json"]);
    let slave: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(!status.insecure && slave["insecure"] == false);
    assert_eq!(slave["master_fingerprint"], status.fingerprint.as_str());
    assert_eq!(slave["allowed"][0], status.fingerprint.as_str());
    assert_eq!(slave["fingerprint"], status.slaves[0].fingerprint.clone().unwrap());
    for (own, said) in [
        (&status.fingerprint, cluster.run("status", &[]).1),
        (&status.fingerprint, cluster.run_slave(0, "status", &[]).1),
    ] {
        assert!(said.contains(own.as_str()) && !said.contains("INSECURE"), "{said}");
    }
    cluster.finish();
}
