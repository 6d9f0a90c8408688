//! A million files: find, a resync pass and rm -rf, with bounded memory and few open files. The long form alone.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::daemon::end_of;
use harness::{Cluster, long_form};

const LIMIT: Duration = Duration::from_secs(3_600);
/// What a node may take, as DESIGN section 4 says, and what a daemon takes besides.
const NODE_BYTES: u64 = 300;
const DAEMON_BYTES: u64 = 100 << 20;
/// The hard limit of many machines.
const FDS_MAX: usize = 20_000;

fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let given = act();
    println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    given
}

fn run(program: &str, words: &[&str], place: &Path) -> usize {
    let mut command = Command::new(program);
    command.arg(place).args(words);
    let output = end_of(command, LIMIT).unwrap();
    assert!(output.status.success(), "{program} in {}: {output:?}", place.display());
    output.stdout.len()
}

/// DESIGN section 4: "Under 300 bytes a node", and no fd an inode.
#[test]
fn many_files() {
    let files: u64 = if long_form() { 1_000_000 } else { 20_000 };
    let mut cluster = Cluster::builder(harness::binaries!()).network(1).elsewhere().unready().start();
    cluster.wait_ready().unwrap();
    cluster.wait();
    let tree = cluster.mount().join("tree");
    timed("make", || {
        for number in 0..files {
            let directory = tree.join(format!("{}", number / 1_000));
            if number % 1_000 == 0 {
                fs::create_dir_all(&directory).unwrap();
            }
            File::create(directory.join(format!("file-{number}"))).unwrap();
        }
    });
    timed("wait", || cluster.wait_for(3_600));
    let told = timed("find", || run("find", &["-printf", "%m"], &tree));
    assert!(told as u64 > files * 3, "find told {told} bytes");
    timed("find again", || run("find", &["-printf", "%m"], &tree));
    usage(&cluster, files);
    let (code, words) = timed("resync", || {
        let begun = cluster.run("resync", &[]);
        cluster.wait_for(3_600);
        begun
    });
    assert_eq!(code, Some(0), "{words}");
    assert!(cluster.slave_status(0).resyncs >= 2, "nothing was resynced");
    usage(&cluster, files);
    timed("compare", || cluster.assert_equal());
    timed("rm -rf", || run("rm", &["-rf"], &tree));
    timed("wait", || cluster.wait_for(3_600));
    usage(&cluster, files);
    cluster.finish();
}

fn usage(cluster: &Cluster, files: u64) {
    let slave = cluster.slaves[0].daemon.as_ref().unwrap();
    for (name, daemon) in [("tdfs", &cluster.master), ("tdfs-slave", slave)] {
        let (memory, fds) = (daemon.memory_peak(), daemon.fd_count());
        println!("{name}: at most {} KiB, {fds} fds", memory >> 10);
        assert!(memory < DAEMON_BYTES + files * NODE_BYTES, "{name} takes {memory} bytes");
        assert!(fds < FDS_MAX, "{name} has {fds} open files");
    }
}
