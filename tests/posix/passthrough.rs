//! `--passthrough`: the kernel reads files itself, and what is stored past us is found.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use harness::ops::{Names, Writers};
use harness::sys::Mapping;
use harness::{Cluster, ClusterBuilder};

use crate::BINARIES;

const SIZE: usize = 300_000;

fn start() -> Cluster {
    builder().start()
}

fn builder() -> ClusterBuilder {
    Cluster::builder(BINARIES).flag("--passthrough")
}

fn to_write(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Waits until the replica of `name` holds `bytes` at `offset`, though nobody waits for it by a command.
#[track_caller]
fn arrives(cluster: &Cluster, name: &str, offset: u64, bytes: &[u8]) {
    let path = cluster.slaves[0].replica.join(name);
    harness::eventually(Duration::from_secs(20), "what was stored arrives", || {
        let mut found = vec![0; bytes.len()];
        File::open(&path).unwrap().read_exact_at(&mut found, offset).unwrap();
        found == bytes
    });
}

/// tdfs(8): "such a file is compared at fsync, at its last close, each second while it is open, and by wait".
#[test]
fn what_is_stored_past_tdfs_arrives() {
    // tmpfs does not tell of stores, the disk's file system does.
    for builder in [builder(), builder().on_disk()] {
        is_found(builder.start());
    }
}

fn is_found(cluster: Cluster) {
    let path = cluster.mount().join("file");
    fs::write(&path, vec![b'.'; SIZE]).unwrap();
    cluster.wait();
    let reading = File::open(&path).unwrap();
    let writing = to_write(&path);
    let mut mapping = Mapping::shared(&writing, SIZE).unwrap();
    mapping.store(5_000, b"while it is open");
    arrives(&cluster, "file", 5_000, b"while it is open");
    mapping.store(5_000, b"again, same page");
    arrives(&cluster, "file", 5_000, b"again, same page");
    mapping.store(200_000, b"before fsync");
    writing.sync_all().unwrap();
    cluster.wait();
    cluster.assert_equal();
    mapping.store(100_000, b"before the last close");
    writing.write_all_at(b"by write(2)", 150_000).unwrap();
    let mut seen = [0; 11];
    reading.read_exact_at(&mut seen, 150_000).unwrap();
    assert_eq!(&seen, b"by write(2)");
    drop((mapping, writing, reading));
    arrives(&cluster, "file", 100_000, b"before the last close");
    assert_eq!(&fs::read(&path).unwrap()[100_000..100_021], b"before the last close");
    cluster.finish();
}

/// tdfs(8): "never an error to an application": opens of every kind meet on one file.
#[test]
fn opens_of_every_kind_meet() {
    let cluster = start();
    let path = cluster.mount().join("file");
    fs::write(&path, vec![b'.'; SIZE]).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6_u64 {
            let path = &path;
            scope.spawn(move || {
                for round in 0..400 {
                    let at = (thread * 400 + round) * 100 % (SIZE as u64 - 100);
                    match (thread + round) % 4 {
                        0 => assert_eq!(fs::read(path).unwrap().len(), SIZE),
                        1 => to_write(path).write_all_at(b"x", at).unwrap(),
                        2 => File::options().write(true).open(path).unwrap().write_all_at(b"y", at).unwrap(),
                        _ => {
                            let mut mapping = Mapping::shared(&to_write(path), SIZE).unwrap();
                            mapping.store(usize::try_from(at).unwrap(), b"z");
                        }
                    }
                }
            });
        }
    });
    cluster.finish();
}

/// In a process of this name: the tree that it works on, and its seed.
const TREE: &str = "TDFS_TREE";

/// The same by processes, with all operations; it is this program again that they run.
#[test]
fn opens_of_several_processes_meet() {
    if let (Some(tree), Ok(seed)) = (std::env::var_os(TREE), std::env::var("TDFS_SEED")) {
        let (operations, seed) = (if harness::long_form() { 20_000 } else { 1_500 }, seed.parse().unwrap());
        Writers::start(Path::new(&tree), &Names::few(4, 2).without_mappings(), seed, 2, Some(operations))
            .join();
        return;
    }
    let seed = harness::rng::run_seed();
    for builder in [builder(), builder().on_disk()] {
        let cluster = builder.start();
        let start = |number: u64| {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args(["passthrough::opens_of_several_processes_meet", "--exact", "--nocapture"]);
            command.env(TREE, cluster.mount()).env("TDFS_SEED", seed.wrapping_add(number).to_string());
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        for mut process in (0..4).map(start).collect::<Vec<_>>() {
            assert!(process.wait().unwrap().success(), "an operation ended as none may");
        }
        cluster.wait_for(300);
        cluster.finish();
    }
}

/// What was cached before a file was passed on is not shown after it.
#[test]
fn old_pages_are_not_shown_again() {
    let cluster = start();
    let path = cluster.mount().join("file");
    fs::write(&path, vec![b'.'; SIZE]).unwrap();
    let cached = to_write(&path);
    let mut byte = [0];
    cached.read_exact_at(&mut byte, 1_000).unwrap();
    drop(cached);
    for round in 0..50_u8 {
        let reading = File::open(&path).unwrap();
        to_write(&path).write_all_at(&[round], 1_000).unwrap();
        drop(reading);
        to_write(&path).read_exact_at(&mut byte, 1_000).unwrap();
        assert_eq!(byte, [round]);
    }
    cluster.finish();
}

/// tdfs.8: `wait` "returns when every slave has applied all that was changed before": also what was stored past us and
/// whose file was closed a moment ago, or is open still.
#[test]
fn wait_waits_for_stores() {
    let cluster = start();
    let path = cluster.mount().join("file");
    fs::write(&path, vec![b'.'; SIZE]).unwrap();
    for round in 0..20_u8 {
        let reading = File::open(&path).unwrap();
        let mut mapping = Mapping::shared(&to_write(&path), SIZE).unwrap();
        let at = usize::from(round) * 5_000;
        mapping.store(at, b"stored");
        let kept = (round % 2 == 0).then_some(mapping);
        drop(reading);
        cluster.wait();
        let found = fs::read(cluster.slaves[0].replica.join("file")).unwrap();
        assert_eq!(&found[at..at + 6], b"stored", "round {round}, open: {}", kept.is_some());
    }
    cluster.finish();
}

/// What was stored in a mapping is shown by sendfile(2) a moment later, though the kernel takes that from its cache.
#[test]
fn sendfile_shows_what_was_stored() {
    let cluster = start();
    let path = cluster.mount().join("file");
    fs::write(&path, vec![b'.'; SIZE]).unwrap();
    cluster.wait();
    let reading = File::open(&path).unwrap();
    let writing = to_write(&path);
    let mut mapping = Mapping::shared(&writing, SIZE).unwrap();
    let sent = || {
        let to = tempfile::tempfile().unwrap();
        let (mut from, mut bytes) = (4_096, [0; 6]);
        rustix::fs::sendfile(&to, &writing, Some(&mut from), 6).unwrap();
        to.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    for round in 0..20 {
        let stored = format!("{round:06}");
        mapping.store(4_096, stored.as_bytes());
        harness::eventually(Duration::from_secs(5), "it is sent", || sent() == stored.as_bytes());
    }
    drop((mapping, writing, reading));
    cluster.finish();
}
