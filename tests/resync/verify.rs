//! `tdfs verify`: contents by hashes, what its exit codes say, and that it never raises a false alarm.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::daemon::run_to_end;
use harness::ops::Writers;
use serde_json::Value;

use crate::{BINARIES, FOUND, cluster, trees};

/// Flips a byte in the middle and puts the mtime back: the quick check can't see that.
fn flip(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let found = file.metadata().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, found.len() / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 0x55], found.len() / 2).unwrap();
    file.set_modified(found.modified().unwrap()).unwrap();
}

/// The paths that `verify --json` names, sorted, with what it says of them.
fn named(words: &str) -> (Value, Vec<(String, String)>) {
    let told: Value = serde_json::from_str(words).unwrap_or_else(|error| panic!("{error} in {words}"));
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let found =
        told["slaves"].as_array().unwrap().iter().flat_map(|slave| slave["found"].as_array().unwrap());
    let mut found: Vec<_> = found.map(|one| (text(one, "path"), text(one, "what"))).collect();
    found.sort();
    (told, found)
}

/// `tdfs verify --help`: "contents by hashes: 0 equal, 1 not, 2 could not". tdfs.8: "Nothing is changed without --repair, which
/// makes equal what differs."
#[test]
fn verify_finds_and_repair_mends() {
    let cluster = cluster()
        .network(1)
        .expect_log(FOUND)
        .prepare(|paths| trees::plant(&paths.backing, (1_500, 16 << 20), 5))
        .start();
    cluster.wait();
    let (code, words) = cluster.run("verify", &[]);
    assert_eq!(code, Some(0), "{words}");
    let replica = cluster.slaves[0].replica.clone();
    let all = trees::walk(&replica);
    let mut flipped: Vec<PathBuf> = Vec::new();
    for (path, found) in &all {
        use std::os::unix::fs::MetadataExt;
        if found.is_file() && found.nlink() == 1 && found.len() > 100 && flipped.len() < 25 {
            flip(&replica.join(path));
            flipped.push(path.clone());
        }
    }
    flipped.sort();
    let wanted: Vec<(String, String)> =
        flipped.iter().map(|path| (format!("/{}", path.display()), "content".to_owned())).collect();
    let resyncs = cluster.slave_status(0).resyncs;
    let (code, words) = cluster.run("verify", &["--json"]);
    let (told, found) = named(&words);
    assert_eq!((code, &found), (Some(1), &wanted), "{words}");
    assert_eq!((&told["equal"], &told["slaves"][0]["differences"]), (&false.into(), &25.into()));
    let (code, words) = cluster.run("verify", &["-c", &cluster.slaves[0].address]);
    assert_eq!(code, Some(1), "verify alone mends nothing: {words}");
    for (path, what) in &wanted {
        assert!(words.contains(&format!(": {path}: {what}\n")), "{path} is not listed in {words}");
    }
    assert_eq!(cluster.slave_status(0).resyncs, resyncs, "looking is no resync");
    let (code, words) = cluster.run("verify", &["--repair"]);
    assert_eq!(code, Some(1), "they did differ: {words}");
    let (code, words) = cluster.run("verify", &[]);
    assert_eq!(code, Some(0), "{words}");
    cluster.finish();
}

/// What differs in other ways than content is found, too, and told by its kind.
#[test]
fn verify_tells_what_differs() {
    let cluster = cluster().network(1).expect_log(FOUND).start();
    for name in ["missing", "kind", "attributes", "one", "two"] {
        fs::write(cluster.mount().join(name), name).unwrap();
    }
    fs::hard_link(cluster.mount().join("one"), cluster.mount().join("other")).unwrap();
    cluster.wait();
    let replica = &cluster.slaves[0].replica;
    fs::remove_file(replica.join("missing")).unwrap();
    fs::write(replica.join("extra"), b"of nobody").unwrap();
    fs::remove_file(replica.join("kind")).unwrap();
    fs::create_dir(replica.join("kind")).unwrap();
    fs::set_permissions(replica.join("attributes"), std::os::unix::fs::PermissionsExt::from_mode(0o611))
        .unwrap();
    fs::remove_file(replica.join("other")).unwrap();
    fs::write(replica.join("other"), b"one").unwrap();
    let (code, words) = cluster.run("verify", &["--json"]);
    let (_, found) = named(&words);
    let has = |path: &str, what: &str| found.contains(&(format!("/{path}"), what.to_owned()));
    for (path, what) in
        [("missing", "missing"), ("extra", "extra"), ("kind", "kind"), ("attributes", "attributes")]
    {
        assert!(has(path, what), "{path}: {what} is not in {found:?}");
    }
    assert!(has("other", "links") || has("one", "links"), "{found:?}");
    assert!(!found.iter().any(|one| one.0 == "/two"), "{found:?}");
    assert_eq!(code, Some(1), "{words}");
    assert_eq!(cluster.run("verify", &["--repair"]).0, Some(1));
    cluster.finish();
}

/// DESIGN section 7, rule 2: "An answer is exact as of the log's head n at that moment": so what applications
/// change while replicas are compared is never told as a difference.
#[test]
fn verify_under_load_raises_no_false_alarm() {
    let seed = harness::rng::run_seed();
    let count = 2_000;
    let cluster =
        cluster().network(1).prepare(|paths| trees::plant(&paths.backing, (2_000, 16 << 20), 6)).start();
    cluster.wait();
    let writers = Writers::start(cluster.mount(), &trees::names(cluster.mount(), count), seed, 4, None);
    let begin = Instant::now();
    let limit = Duration::from_secs(if harness::long_form() { 600 } else { 12 });
    let mut rounds = 0;
    while rounds < 3 || begin.elapsed() < limit {
        let (code, words) = cluster.run("verify", &[]);
        assert_eq!(code, Some(0), "round {rounds}: {words}\n{:?}", cluster.slave_status(0));
        rounds += 1;
        if rounds >= 3 && begin.elapsed() >= limit {
            break;
        }
    }
    let status = cluster.slave_status(0);
    let changes = writers.stop();
    println!("verify under load: {rounds} rounds in {:.1?}, {changes} changes", begin.elapsed());
    assert_eq!((status.divergences, status.resyncs), (0, 1), "{status:?}");
    cluster.finish();
}

/// `tdfs verify --help`: "2 could not": no tdfs, an unknown slave, a slave that stays away.
#[test]
fn verify_that_can_not() {
    let mut cluster = cluster().network(1).start();
    fs::write(cluster.mount().join("file"), b"content").unwrap();
    cluster.wait();
    let (code, words) = cluster.run("verify", &["-c", "127.0.0.1:1"]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("127.0.0.1:1"), "{words}");
    cluster.slaves[0].process().stop();
    let begin = Instant::now();
    let (code, words) = cluster.run("verify", &[]);
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains(&cluster.slaves[0].address), "{words}");
    assert!(begin.elapsed() < Duration::from_secs(60), "gave up only after {:?}", begin.elapsed());
    cluster.start_slave(0);
    cluster.wait();
    assert_eq!(cluster.run("verify", &[]).0, Some(0));
    cluster.master.stop();
    let (code, words) = cluster.run("verify", &[]);
    assert_eq!((code, words.trim().lines().count()), (Some(2), 1), "{words}");
    cluster.start_master();
    let args: Vec<std::ffi::OsString> =
        vec!["verify".into(), "-m".into(), cluster.tree.path().join("log").into()];
    let output = run_to_end(BINARIES.tdfs, &args, Duration::from_secs(60)).unwrap();
    assert_eq!(output.status.code(), Some(2), "a directory that no tdfs serves");
    cluster.finish();
}
