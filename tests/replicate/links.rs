//! Bad links: cut, reset, half-open, slow, and links that change what they carry.

use std::fs;
use std::time::Duration;

use harness::log_lines::mentions;
use harness::proxy::{Direction, Fault, Proxy};
use harness::{Cluster, ClusterBuilder};

use crate::{SOON, cluster, resyncs, writers};

/// A cluster whose only link goes through a proxy; its first change has arrived.
fn behind_a_proxy() -> Cluster {
    begin(cluster().proxied(harness::rng::run_seed()).compressed())
}

/// The same in plain TCP: damage reaches the frames.
fn behind_a_damaging_proxy() -> Cluster {
    let builder = cluster().proxied(harness::rng::run_seed()).compressed().insecure();
    let expected = ["orrupt", "hecksum", "amaged", "frame", "alformed"];
    begin(expected.iter().fold(builder, |builder, part| builder.expect_log(part)))
}

fn begin(builder: ClusterBuilder) -> Cluster {
    let cluster = builder.start();
    fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    cluster
}

fn proxy(cluster: &Cluster) -> &Proxy {
    cluster.slaves[0].proxy.as_ref().unwrap()
}

/// DESIGN P2: "a cut link [...]: no record is lost, doubled or reordered."
#[test]
fn cut_links() {
    let cluster = behind_a_proxy();
    let before = resyncs(&cluster);
    let running = writers(&cluster);
    let proxy = proxy(&cluster);
    proxy.inject_randomly(Direction::ToSlave, 1_000_000, &[Fault::Cut, Fault::Reset]);
    proxy.inject_randomly(Direction::ToMaster, 20_000, &[Fault::Cut]);
    harness::eventually(Duration::from_secs(60), "a dozen cuts", || proxy.fired() >= 12);
    proxy.calm();
    running.stop();
    cluster.wait();
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

/// The contract: "Bad bytes on the wire: a clear error in the log, the connection ends, nothing is applied."
#[test]
fn damaged_bytes() {
    let words = ["corrupt", "checksum", "damaged", "bad frame", "malformed"];
    // Which end finds it, and in which words of these, is the daemons' affair; that they say it is checked.
    let cluster = behind_a_damaging_proxy();
    let before = resyncs(&cluster);
    let running = writers(&cluster);
    let proxy = proxy(&cluster);
    for round in 0..6 {
        let fired = proxy.fired();
        proxy.inject(Direction::ToSlave, 10_000 + round * 777, Fault::Flip);
        harness::eventually(SOON, "a byte changes", || proxy.fired() > fired);
        let applied = cluster.slave_status(0).applied;
        harness::eventually(SOON, "it goes on", || cluster.slave_status(0).applied > applied + 20);
    }
    proxy.inject(Direction::ToMaster, 10, Fault::Flip);
    harness::eventually(SOON, "a byte of the way back changes", || proxy.fired() >= 7);
    running.stop();
    cluster.wait();
    let logs = [cluster.master.log(), cluster.slaves[0].daemon.as_ref().unwrap().log()];
    assert!(logs.iter().any(|log| mentions(log, &words)), "no log says what happened");
    assert_eq!(resyncs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

/// DESIGN P2: "repeated bytes: no record is lost, doubled or reordered."
#[test]
fn repeated_bytes() {
    let cluster = behind_a_damaging_proxy();
    let running = writers(&cluster);
    let proxy = proxy(&cluster);
    for round in 0..5 {
        let fired = proxy.fired();
        proxy.inject(Direction::ToSlave, 20_000 + round * 1_001, Fault::Duplicate(5_000));
        harness::eventually(SOON, "bytes come twice", || proxy.fired() > fired);
        let applied = cluster.slave_status(0).applied;
        harness::eventually(SOON, "it goes on", || cluster.slave_status(0).applied > applied + 20);
    }
    running.stop();
    cluster.finish();
}

/// DESIGN section 5: "a peer that is silent for 10 s is gone", and what came meanwhile is not lost.
#[test]
fn half_open_link() {
    let cluster = behind_a_proxy();
    let before = resyncs(&cluster);
    proxy(&cluster).stall(true);
    fs::write(cluster.mount().join("meanwhile"), vec![7; 100_000]).unwrap();
    let gone = || ["away", "connecting", "handshake"].contains(&cluster.slave_status(0).state.as_str());
    harness::eventually(Duration::from_secs(25), "the silent slave is given up", gone);
    proxy(&cluster).cut();
    proxy(&cluster).calm();
    cluster.wait();
    assert_eq!(resyncs(&cluster), before);
    cluster.finish();
}

/// A long way off is no reason to be anything but late.
#[test]
fn delayed_link() {
    let cluster = behind_a_proxy();
    proxy(&cluster).delay(Duration::from_millis(30));
    let running = writers(&cluster);
    harness::eventually(SOON, "it applies", || cluster.slave_status(0).applied > 500);
    running.stop();
    cluster.finish();
}

/// Something that speaks no TDFS is turned away, and costs nothing.
#[test]
fn strangers_at_the_port() {
    use std::io::Write;
    // Random bytes may begin as a TLS handshake does, or as a frame.
    for builder in [cluster().expect_log("wants TLS"), cluster().insecure().expect_log("speaks TLS")] {
        let cluster = builder.network(1).expect_log("frame").expect_log("orrupt").start();
        fs::write(cluster.mount().join("first"), b"1").unwrap();
        cluster.wait();
        let address = cluster.slaves[0].address.clone();
        let mut rng = harness::Rng::new(harness::rng::run_seed());
        for len in [0, 1, 100, 70_000] {
            let mut stranger = std::net::TcpStream::connect(&address).unwrap();
            // It may be closed while we send.
            let _ = stranger.write_all(&rng.bytes(len));
            let _ = stranger.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
        fs::write(cluster.mount().join("second"), b"2").unwrap();
        cluster.finish();
    }
}
