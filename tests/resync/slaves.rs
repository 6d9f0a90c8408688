//! Slaves that come and go while tdfs is mounted.

use std::fs;

use harness::ops::{Names, Writers};

use crate::{SOON, cluster, trees, until_settled};

/// `tdfs add --help`: "Mirror to one more slave, until tdfs ends", with all that is there already.
#[test]
fn slaves_are_added_while_mounted() {
    let cluster = cluster()
        .network(1)
        .apart()
        .prepare(|paths| trees::plant(&paths.backing, (1_000, 8 << 20), 21))
        .start();
    let writers = Writers::start(cluster.mount(), &Names::few(12, 4), harness::rng::run_seed(), 2, None);
    let late = cluster.tree.path().join("late");
    let (late_word, address) = (late.display().to_string(), cluster.slaves[1].address.clone());
    for slave in [&address, &late_word] {
        let (code, words) = cluster.run("add", &[slave]);
        assert_eq!(code, Some(0), "{words}");
    }
    let all = || cluster.status().slaves.iter().map(|slave| slave.address.clone()).collect::<Vec<_>>();
    assert_eq!(all(), [cluster.slaves[0].address.clone(), address.clone(), late_word.clone()]);
    harness::eventually(SOON, "all apply", || {
        cluster.status().slaves.iter().all(|slave| !slave.is_unsettled() && slave.applied > 300)
    });
    writers.stop();
    cluster.wait();
    cluster.assert_equal_to(&late);
    cluster.finish();
}

/// `tdfs --help`: "Exit codes: [...] 2 wrong use", in words.
#[test]
fn unknown_and_known_slaves_are_refused() {
    let mut cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    cluster.wait();
    let address = cluster.slaves[0].address.clone();
    let inside = cluster.paths.backing.join("inside").display().to_string();
    for (word, more) in [
        ("add", vec![address.as_str()]),
        ("add", vec![inside.as_str()]),
        ("add", vec!["not an address:99999999"]),
        ("add", vec![]),
        ("forget", vec!["127.0.0.1:1"]),
        ("forget", vec!["/no/such/replica"]),
        ("resync", vec!["-c", "127.0.0.1:1"]),
        ("verify", vec!["-c", "127.0.0.1:1"]),
    ] {
        let (code, words) = cluster.run(word, &more);
        assert_eq!(code, Some(2), "{word} {more:?}: {words}");
        assert!(words.starts_with("tdfs: ") && words.trim().lines().count() == 1, "{word} {more:?}: {words}");
    }
    assert_eq!(cluster.status().slaves.len(), 1);
    cluster.master.stop();
    for (word, more) in [("add", "127.0.0.1:1"), ("forget", address.as_str())] {
        let (code, words) = cluster.run(word, &[more]);
        assert_eq!(code, Some(2), "{word} without a tdfs: {words}");
    }
    cluster.start_master();
    cluster.finish();
}

/// `tdfs forget --help`: "Mirror to a slave no longer, and keep no log for it"; when it comes again it is made equal.
#[test]
fn a_forgotten_slave_comes_again() {
    let cluster = cluster()
        .network(2)
        .embedded()
        .prepare(|paths| trees::plant(&paths.backing, (500, 4 << 20), 22))
        .start();
    cluster.wait();
    let gone = [cluster.slaves[1].address.clone(), cluster.slaves[2].address.clone()];
    for slave in &gone {
        let (code, words) = cluster.run("forget", &[slave]);
        assert_eq!(code, Some(0), "{words}");
    }
    assert_eq!(cluster.status().slaves.len(), 1);
    // Now, not at the end: a kill must not make it known again.
    let kept = fs::read_to_string(cluster.paths.state.join("slaves.json")).unwrap();
    assert!(gone.iter().all(|slave| !kept.contains(slave)), "{kept}");
    for number in 0..50 {
        fs::write(cluster.mount().join(format!("while away {number}")), vec![number; 5_000]).unwrap();
    }
    fs::remove_dir_all(cluster.mount().join("d0/e1")).unwrap();
    fs::rename(cluster.mount().join("d0/e2"), cluster.mount().join("moved")).unwrap();
    cluster.wait();
    assert!(!cluster.slaves[1].replica.join("moved").exists(), "it got nothing more");
    assert!(!cluster.slaves[2].replica.join("moved").exists(), "it got nothing more");
    for slave in &gone {
        let (code, words) = cluster.run("forget", &[slave]);
        assert_eq!(code, Some(2), "it is forgotten: {words}");
        let (code, words) = cluster.run("add", &[slave]);
        assert_eq!(code, Some(0), "{words}");
    }
    until_settled(&cluster, 1);
    until_settled(&cluster, 2);
    cluster.finish();
}
