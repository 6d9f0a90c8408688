//! The check at start: whoever changed the directory while tdfs was not mounted over it is found out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use harness::ops::{Names, Writers};
use rustix::fs::XattrFlags;

use crate::{FOUND, SOON, cluster, trees, until_settled};

/// Objects for `meddle`, among others.
fn plant(root: &Path) {
    trees::plant(root, (1_200, 8 << 20), 11);
    fs::create_dir_all(root.join("dir/below")).unwrap();
    for name in
        ["content", "size", "gone", "to-dir", "to-link", "mode", "owner", "xattr", "renamed", "dir/in"]
    {
        fs::write(root.join(name), format!("{name} as it was")).unwrap();
    }
    fs::write(root.join("one"), vec![7; 300_000]).unwrap();
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    fs::hard_link(root.join("one"), root.join("dir/three")).unwrap();
    symlink("content", root.join("link")).unwrap();
    fs::write(root.join("dir/below/deep"), b"deep").unwrap();
}

/// Everything that can happen to a tree that nobody watches.
fn meddle(root: &Path) {
    fs::write(root.join("content"), b"content is other").unwrap();
    fs::write(root.join("size"), b"longer than it was before").unwrap();
    fs::remove_file(root.join("gone")).unwrap();
    fs::write(root.join("new"), b"new").unwrap();
    fs::create_dir_all(root.join("newdir/deep")).unwrap();
    fs::write(root.join("newdir/deep/file"), b"new, too").unwrap();
    fs::remove_file(root.join("to-dir")).unwrap();
    fs::create_dir(root.join("to-dir")).unwrap();
    fs::write(root.join("to-dir/inside"), b"inside").unwrap();
    fs::remove_file(root.join("to-link")).unwrap();
    symlink("elsewhere", root.join("to-link")).unwrap();
    fs::remove_dir_all(root.join("dir/below")).unwrap();
    fs::write(root.join("dir/below"), b"was a directory").unwrap();
    fs::set_permissions(root.join("mode"), PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(root.join("owner"), Some(12), Some(34)).unwrap();
    rustix::fs::setxattr(root.join("xattr"), "user.new", b"value", XattrFlags::empty()).unwrap();
    fs::rename(root.join("renamed"), root.join("dir/renamed")).unwrap();
    // In a hard link group: the content by one name, the group itself by another.
    File::options().write(true).open(root.join("two")).unwrap().write_all_at(b"other", 150_000).unwrap();
    fs::remove_file(root.join("dir/three")).unwrap();
    fs::hard_link(root.join("one"), root.join("four")).unwrap();
    fs::remove_file(root.join("link")).unwrap();
    symlink("size", root.join("link")).unwrap();
}

/// DESIGN section 7: "the check at start (did someone write to the tree while tdfs was not mounted?)": what it
/// finds is made equal by one resync, while records go on. README: "What changes in the directory while tdfs is not
/// mounted over it reaches the slaves by the check at the next start, in no order." tdfs-slave.8: "what differs is logged
/// and made equal".
#[test]
fn what_changed_unseen_is_found_and_healed() {
    let mut cluster =
        cluster().network(1).embedded().expect_log(FOUND).prepare(|paths| plant(&paths.backing)).start();
    cluster.wait();
    cluster.master.stop();
    meddle(&cluster.paths.backing);
    cluster.start_master();
    let writers = Writers::start(cluster.mount(), &Names::few(12, 4), harness::rng::run_seed(), 2, None);
    harness::eventually(SOON, "both are compared", || {
        cluster.status().slaves.iter().all(|slave| slave.resyncs == 2 && !slave.is_unsettled())
    });
    writers.stop();
    cluster.wait();
    for slave in cluster.status().slaves {
        assert_eq!((slave.resyncs, slave.divergences), (2, 0), "one resync for all of it: {slave:?}");
    }
    cluster.finish();
}

/// `tdfs --help`, --no-check: "Do not compare the slaves with the directory at the start"; verify finds it then.
#[test]
fn no_check_leaves_it() {
    let mut cluster = cluster()
        .network(1)
        .flag("--no-check")
        .expect_log(FOUND)
        .prepare(|paths| plant(&paths.backing))
        .start();
    cluster.wait();
    cluster.master.stop();
    meddle(&cluster.paths.backing);
    cluster.start_master();
    fs::write(cluster.mount().join("after"), b"the start").unwrap();
    cluster.wait();
    let status = cluster.slave_status(0);
    assert_eq!((status.resyncs, status.answer_bytes), (1, 0), "nothing was compared: {status:?}");
    let (code, words) = cluster.run("verify", &[]);
    assert_eq!(code, Some(1), "{words}");
    for path in
        ["content", "size", "gone", "new", "newdir", "to-dir", "to-link", "mode", "owner", "xattr", "four"]
    {
        assert!(words.contains(&format!(": /{path}: ")), "{path} is not listed in {words}");
    }
    assert_eq!(cluster.run("verify", &["--repair"]).0, Some(1));
    cluster.finish();
}

/// tdfs.8: "each slave checks its replica in the background, while it counts as equal and gets records."
/// DESIGN section 5: "a check that has found no difference yet is no state of its own but a mark": a replica
/// that is equal is not touched, and its state is never resyncing.
#[test]
fn an_equal_replica_is_not_touched() {
    let mut cluster = cluster().network(1).prepare(|paths| plant(&paths.backing)).start();
    cluster.wait();
    cluster.master.stop();
    let before = trees::ctimes(&cluster.slaves[0].replica);
    cluster.start_master();
    let mut states = BTreeSet::new();
    harness::eventually(SOON, "it is compared", || {
        let status = cluster.slave_status(0);
        let settled = !status.is_unsettled();
        states.insert(status.state);
        settled
    });
    assert!(!states.contains("resyncing"), "{states:?}");
    assert_eq!(before, trees::ctimes(&cluster.slaves[0].replica));
    let status = cluster.slave_status(0);
    assert_eq!((status.resyncs, status.divergences), (1, 0), "{status:?}");
    assert!(status.answer_bytes > 0, "it was compared: {status:?}");
    let told = fs::read_to_string(cluster.slaves[0].process().log()).unwrap();
    assert!(told.contains("was checked: "), "{told}");
    cluster.finish();
}

/// The same while records stream: what they change is no difference, and P1 goes on to hold.
#[test]
fn a_check_under_load_finds_nothing() {
    let count = 6_000;
    let mut cluster =
        cluster().network(1).prepare(|paths| trees::plant(&paths.backing, (6_000, 16 << 20), 12)).start();
    cluster.wait();
    let seed = harness::rng::run_seed();
    for round in 0..if harness::long_form() { 20 } else { 2 } {
        cluster.master.stop();
        cluster.start_master();
        let names = trees::names(cluster.mount(), count);
        let writers = Writers::start(cluster.mount(), &names, seed + round, 4, None);
        until_settled(&cluster, 0);
        let changes = writers.stop();
        cluster.wait();
        let status = cluster.slave_status(0);
        println!("check under load: {changes} changes meanwhile");
        assert_eq!((status.resyncs, status.divergences), (1, 0), "round {round}: {status:?}");
    }
    cluster.finish();
}
