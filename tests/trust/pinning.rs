//! A master talks to the slave whose key it was given, or met first.

use std::fs;

use harness::eventually;

use crate::{SOON, assert_works, cluster, count, master_says, refused};

const CHANGED: &str = "ITS KEY HAS CHANGED";
const MET: &str = "its key was not known";

/// Another machine takes the slave's place: its key is another one.
fn change_key(cluster: &mut harness::Cluster) -> String {
    cluster.slaves[0].process().stop();
    let file = cluster.slaves[0].state.join("key");
    let old = fs::read(&file).unwrap();
    fs::rename(&file, file.with_extension("old")).unwrap();
    cluster.start_slave(0);
    assert_ne!(fs::read(&file).unwrap(), old);
    let (_, said) = cluster.run_slave(0, "key", &[]);
    said.trim().to_owned()
}

/// README: "Nobody without a key that was allowed can [...] read from a master". tdfs(8): "A slave that shows another one is refused: an error is logged, status says so, nothing is sent, and the key
/// is never replaced by itself."
#[test]
fn a_changed_key_is_refused_until_it_is_repinned() {
    let mut cluster = cluster().expect_log(CHANGED).start();
    assert_works(&cluster, "first");
    let known = cluster.paths.state.join("known_slaves");
    let pinned = fs::read_to_string(&known).unwrap();
    let key = cluster.slave_status(0).fingerprint.unwrap();
    assert_eq!(pinned, format!("{} {key}\n", cluster.slaves[0].address));
    assert_eq!(count(cluster.master.log(), MET), 1);

    let new = change_key(&mut cluster);
    fs::write(cluster.mount().join("second"), b"not for a stranger").unwrap();
    let why = refused(&cluster, 0);
    let repin = format!("repin -m {}", cluster.mount().display());
    for part in [CHANGED, &new, &key, &repin, &cluster.slaves[0].address] {
        assert!(why.contains(part), "no {part} in {why}");
    }
    // It goes on trying, and stays with what it knows: also after a new start.
    cluster.master.stop();
    cluster.start_master();
    refused(&cluster, 0);
    assert_eq!(fs::read_to_string(&known).unwrap(), pinned);
    assert!(!cluster.slaves[0].replica.join("second").exists());
    assert_eq!(count(cluster.master.log(), CHANGED), 2, "once in each run");

    let address = cluster.slaves[0].address.clone();
    let wrong = format!("{address}#{key}");
    assert_eq!(cluster.run("repin", &[&wrong]).0, Some(0));
    refused(&cluster, 0);
    assert_eq!(cluster.run("repin", &[&address]).0, Some(0));
    cluster.wait();
    assert_eq!(cluster.slave_status(0).fingerprint, Some(new));
    cluster.finish();
}

/// "With the new fingerprint behind the address [...] no other one is [taken]", and it works while tdfs does not run.
#[test]
fn repin_while_tdfs_does_not_run() {
    let mut cluster = cluster().expect_log(CHANGED).start();
    assert_works(&cluster, "first");
    let new = change_key(&mut cluster);
    cluster.master.stop();
    let address = cluster.slaves[0].address.clone();
    assert_eq!(cluster.run("repin", &[&format!("{address}#{new}")]).0, Some(0));
    let (code, said) = cluster.run("repin", &["nobody:1"]);
    assert!(code == Some(2) && said.contains("no key of nobody:1 is known"), "{said}");
    cluster.start_master();
    cluster.wait();
    cluster.finish();
}

/// A connection that stands does not outlive the pin of its key.
#[test]
fn repin_ends_the_connection() {
    let cluster = cluster().expect_log(CHANGED).start();
    assert_works(&cluster, "first");
    let (address, key) = (cluster.slaves[0].address.clone(), cluster.slave_status(0).fingerprint.unwrap());
    let other = "SHA256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ4";
    assert_eq!(cluster.run("repin", &[&format!("{address}#{other}")]).0, Some(0));
    assert!(refused(&cluster, 0).contains(&key));
    assert_eq!(cluster.run("repin", &[&address]).0, Some(0));
    assert_works(&cluster, "second");
    cluster.finish();
}

/// "Refuse slaves on the network whose key was not given", and a wrong one that was given.
#[test]
fn strict_keys() {
    let mut cluster =
        cluster().flag("--strict-keys").expect_log("was not given").expect_log("WAS GIVEN").start();
    let why = refused(&cluster, 0);
    let (_, key) = cluster.run_slave(0, "key", &[]);
    let (key, address) = (key.trim().to_owned(), cluster.slaves[0].address.clone());
    let named = format!("{address}#{key}");
    assert!(why.contains("--strict-keys") && why.contains(&named), "{why}");
    assert!(!cluster.paths.state.join("known_slaves").exists(), "nothing is pinned");
    // With the key: at the start, or by `add`.
    assert_eq!(cluster.run("forget", &[&address]).0, Some(0));
    let wrong = format!("{address}#SHA256:RFMxmM5TVbzdCTHbGPU0BFJZGpeR7VYUQBB+hQIPJJ4");
    assert_eq!(cluster.run("add", &[&wrong]).0, Some(0));
    assert!(refused(&cluster, 0).contains("ANOTHER KEY THAN THE ONE THAT WAS GIVEN"));
    assert_eq!(cluster.run("forget", &[&address]).0, Some(0));
    assert_eq!(cluster.run("add", &[&named]).0, Some(0));
    assert_works(&cluster, "first");
    cluster.master.stop();
    cluster.master.replace_arg(&address, &named);
    cluster.start_master();
    assert_works(&cluster, "second");
    assert!(!master_says(&cluster, MET), "a key that was given is no news");
    cluster.finish();
}

/// "[forget] forgets the slave's key, too."
#[test]
fn forget_forgets_the_key() {
    let cluster = cluster().start();
    assert_works(&cluster, "first");
    let address = cluster.slaves[0].address.clone();
    let known = cluster.paths.state.join("known_slaves");
    assert!(fs::read_to_string(&known).unwrap().contains(&address));
    assert_eq!(cluster.run("forget", &[&address]).0, Some(0));
    assert_eq!(fs::read_to_string(&known).unwrap(), "");
    assert_eq!(cluster.run("add", &[&address]).0, Some(0));
    eventually(SOON, "it is met again", || count(cluster.master.log(), MET) == 2);
    cluster.finish();
}

/// A damaged list of keys stops tdfs: no key is taken by guess.
#[test]
fn a_damaged_list_is_refused() {
    let mut cluster = cluster().start();
    assert_works(&cluster, "first");
    cluster.master.stop();
    let known = cluster.paths.state.join("known_slaves");
    let whole = fs::read(&known).unwrap();
    fs::write(&known, &whole[..whole.len() / 2]).unwrap();
    cluster.master.start_again().unwrap();
    let ended = cluster.master.wait_end(SOON).unwrap();
    assert!(
        !ended.success() && master_says(&cluster, "known_slaves is damaged"),
        "{}",
        cluster.master.log_tail()
    );
    fs::write(&known, &whole).unwrap();
    cluster.start_master();
    assert_works(&cluster, "second");
    cluster.finish();
}
