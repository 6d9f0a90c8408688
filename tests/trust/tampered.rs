//! A stream that somebody changes on its way: the connection ends, nothing of it is applied.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::log_lines::mentions;
use harness::ops::{Names, Writers};
use harness::proxy::{Direction, Fault};
use harness::{Cluster, eventually};

use crate::{SOON, cluster};

/// Large enough that most flips fall into its content.
const BYTES: usize = 256 * 1024;

/// A slave behind a faulty proxy. A bit that is flipped in the first bytes, before a key has proven them, may look like a
/// peer without TLS, or with another protocol in it; that is said, and tried again.
fn cluster_on_a_bad_link() -> Cluster {
    let looks_like = ["wants TLS", "was started with --insecure", "another protocol over TLS"];
    let builder = cluster().proxied(harness::rng::run_seed());
    looks_like.iter().fold(builder, |builder, part| builder.expect_log(part)).start()
}

fn resyncs(cluster: &Cluster) -> (u64, u64) {
    let slave = cluster.slave_status(0);
    (slave.resyncs, slave.divergences)
}

/// SECURITY.md: "one flipped bit ends the connection, nothing of it is applied". A file is overwritten again and again
/// with one letter a time; a reader on the replica never sees a byte that nobody wrote.
#[test]
fn any_flipped_bit_ends_the_connection_and_applies_nothing() {
    let cluster = cluster_on_a_bad_link();
    let file = fs::File::create(cluster.mount().join("letters")).unwrap();
    file.write_all_at(&vec![b'A'; BYTES], 0).unwrap();
    cluster.wait();
    let before = resyncs(&cluster);
    let proxy = cluster.slaves[0].proxy.as_ref().unwrap();
    let (done, replica) = (AtomicBool::new(false), cluster.slaves[0].replica.join("letters"));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| watch(&replica, &done));
        let rounds = if harness::long_form() { 400 } else { 12 };
        for round in 0..rounds {
            let fired = proxy.fired();
            // From the first bytes of the handshake to far behind it, and every bit.
            let (direction, after) = match round % 3 {
                0 => (Direction::ToMaster, round * 17),
                1 => (Direction::ToSlave, round * 37),
                _ => (Direction::ToSlave, 1 + round * 9_973 % (BYTES as u64)),
            };
            proxy.inject(direction, after, Fault::Flip);
            let letter = b'A' + u8::try_from(round % 26).unwrap();
            eventually(SOON, "a bit is flipped", || {
                file.write_all_at(&vec![letter; BYTES], 0).unwrap();
                proxy.fired() > fired
            });
            if round % 4 == 0 {
                proxy.cut(); // the next flip falls into a handshake
            }
        }
        cluster.wait();
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap();
    });
    let logs = [cluster.master.log(), cluster.slaves[0].daemon.as_ref().unwrap().log()];
    assert!(logs.iter().any(|log| mentions(log, &["decrypt", "alert", "corrupt"])), "nobody says why");
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

fn watch(replica: &Path, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) {
        let content = fs::read(replica).unwrap();
        let strange = content.iter().position(|byte| !byte.is_ascii_uppercase());
        assert_eq!(strange, None, "a byte that nobody wrote");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Cut, repeated, lost and changed bytes, in both directions, under load: as without TLS, no record is lost or doubled.
#[test]
fn a_storm_of_faults_over_tls() {
    let cluster = cluster_on_a_bad_link();
    fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let before = resyncs(&cluster);
    let running = Writers::start(cluster.mount(), &Names::few(12, 4), harness::rng::run_seed(), 3, None);
    let proxy = cluster.slaves[0].proxy.as_ref().unwrap();
    let faults = [Fault::Flip, Fault::Duplicate(700), Fault::Duplicate(20_000), Fault::Cut, Fault::Reset];
    proxy.inject_randomly(Direction::ToSlave, 150_000, &faults);
    proxy.inject_randomly(Direction::ToMaster, 6_000, &faults);
    let wanted = if harness::long_form() { 300 } else { 12 };
    eventually(SOON * 10, "faults", || proxy.fired() >= wanted);
    proxy.calm();
    running.stop();
    cluster.wait();
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}
