//! Links that are cut, reset, damaged, repeated and silent, all at once or for long.
//!
//! `tests/replicate/links.rs` has each fault by itself; here they come in storms, bytes are counted, and silence
//! is timed.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use harness::log_lines::mentions;
use harness::ops::{Names, Writers};
use harness::proxy::{Direction, Fault, Proxy};
use harness::{Cluster, ClusterBuilder, Rng};
use rustix::process::Signal;

use crate::{SOON, cluster, repairs};

/// DESIGN section 5: "a peer that is silent for 10 s is gone"; threefold for a busy machine.
const SILENCE_NOTICED: Duration = Duration::from_secs(30);
/// What either side says of bytes that are not what was sent.
const DAMAGED: [&str; 6] = ["orrupt", "hecksum", "amaged", "frame", "alformed", "nothing of it is applied"];

/// Slaves behind a proxy each, with a first change that has arrived.
fn behind_proxies(slaves: u64) -> Cluster {
    begin(cluster(), slaves)
}

fn begin(builder: ClusterBuilder, slaves: u64) -> Cluster {
    let builder = (0..slaves).fold(builder, |builder, seed| builder.proxied(seed));
    let builder = DAMAGED.iter().fold(builder, |builder, part| builder.expect_log(part));
    let cluster = builder.start();
    std::fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    cluster
}

fn proxy(cluster: &Cluster, slave: usize) -> &Proxy {
    cluster.slaves[slave].proxy.as_ref().unwrap()
}

/// DESIGN P2: "a cut link, damaged or repeated bytes: no record is lost, doubled or reordered." Any bit may flip,
/// both ways: the connection ends, that is logged, nothing wrong is applied, and it goes on by itself.
#[test]
fn a_storm_of_faults() {
    let cluster = begin(cluster().insecure(), 2); // by TLS, damage would not reach the frames
    let before = repairs(&cluster);
    let running = Writers::start(cluster.mount(), &Names::few(12, 4), harness::rng::run_seed(), 3, None);
    let all =
        [Fault::Flip, Fault::Flip, Fault::Duplicate(700), Fault::Duplicate(20_000), Fault::Cut, Fault::Reset];
    // One slave's link is damaged alone, the other's in every way; the faults of the way back are rare ones.
    for (slave, faults) in [&all[..1], &all[..]].into_iter().enumerate() {
        proxy(&cluster, slave).inject_randomly(Direction::ToSlave, 150_000, faults);
        proxy(&cluster, slave).inject_randomly(Direction::ToMaster, 3_000, faults);
    }
    let wanted = if harness::long_form() { 300 } else { 12 };
    let fired = || [0, 1].map(|slave| proxy(&cluster, slave).fired());
    harness::eventually(SOON * 20, "faults", || fired().iter().all(|fired| *fired >= wanted));
    println!("{:?} faults", fired());
    [0, 1].into_iter().for_each(|slave| proxy(&cluster, slave).calm());
    running.stop();
    cluster.wait();
    for slave in &cluster.slaves {
        let logs = [cluster.master.log(), slave.daemon.as_ref().unwrap().log()];
        assert!(logs.iter().any(|log| mentions(log, &DAMAGED)), "nobody says that bytes were damaged");
    }
    assert_eq!(repairs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

/// P2, for a link that only trickles and is late: nothing but lag comes of it.
#[test]
fn slow_and_late_and_cut() {
    let cluster = behind_proxies(1);
    let before = repairs(&cluster);
    let link = proxy(&cluster, 0);
    link.delay(Duration::from_millis(20));
    link.limit_rate(Some(300_000));
    let running = Writers::start(cluster.mount(), &Names::few(8, 3), harness::rng::run_seed(), 2, Some(400));
    for _ in 0..3 {
        let applied = cluster.slave_status(0).applied;
        harness::eventually(SOON, "it applies", || cluster.slave_status(0).applied > applied + 20);
        // In the middle of a frame: at this rate a frame is nearly always on its way.
        link.inject(Direction::ToSlave, 5_000, Fault::Reset);
    }
    running.join();
    link.limit_rate(None);
    cluster.wait();
    assert_eq!(repairs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

/// tdfs.8: "away (it can't be reached)"; DESIGN section 5: "A new authenticated connection of the same filesystem id
/// replaces the old one at once (half-open links)." and "a peer that is silent for 10 s is gone". Three slaves
/// fall silent at once: the link of one lets nothing through, one is stopped (SIGSTOP), and a cut loses what is on
/// its way to the third, whose master must not wait at all. All go on from the log.
#[test]
fn silence_is_noticed_by_the_master() {
    let mut cluster = behind_proxies(3);
    let before = repairs(&cluster);
    let begin = Instant::now();
    proxy(&cluster, 0).stall(true);
    cluster.slaves[1].process().signal(Signal::STOP);
    proxy(&cluster, 2).cut();
    std::fs::write(cluster.mount().join("meanwhile"), vec![7; 300_000]).unwrap();
    let head = cluster.status().head;
    harness::eventually(Duration::from_secs(9), "the one that was cut goes on", || {
        cluster.slave_status(2).applied >= head
    });
    let gone =
        |slave| ["away", "connecting", "handshake"].contains(&cluster.slave_status(slave).state.as_str());
    harness::eventually(SILENCE_NOTICED, "silence is noticed", || gone(0) && gone(1));
    println!("noticed after {:.1?}", begin.elapsed());
    proxy(&cluster, 0).stall(false);
    cluster.slaves[1].process().signal(Signal::CONT);
    cluster.wait();
    assert_eq!(repairs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

/// The same the other way: a master that is stopped is given up by its slave, and replaced when it is back.
#[test]
fn silence_is_noticed_by_the_slave() {
    let cluster = behind_proxies(1);
    let before = repairs(&cluster);
    let log = cluster.slaves[0].daemon.as_ref().unwrap().log().to_owned();
    let begin = Instant::now();
    cluster.master.signal(Signal::STOP);
    let noticed =
        harness::wait::becomes_true(SILENCE_NOTICED, || mentions(&log, &["silent", "connection lost"]));
    println!("noticed after {:.1?}", begin.elapsed());
    cluster.master.signal(Signal::CONT);
    assert!(noticed, "the slave still waits for a silent master");
    std::fs::write(cluster.mount().join("afterwards"), b"2").unwrap();
    cluster.wait();
    assert_eq!(repairs(&cluster), before, "the log did it, not a resync");
    cluster.finish();
}

/// README: "one that was away gets what it missed from the log": on going on, only records after the slave's position
/// cross the wire. Counted at the proxy: 20 cuts cost next to nothing, and what was written while the link was
/// away crosses once.
#[test]
fn only_what_is_missing_crosses_the_wire() {
    let cluster = behind_proxies(1);
    let link = proxy(&cluster, 0);
    let bytes = Rng::new(3).bytes(1 << 20);
    for number in 0..8 {
        std::fs::write(cluster.mount().join(format!("old{number}")), &bytes).unwrap();
    }
    cluster.wait();
    let streams = || cluster.slave_status(0).state == "streaming";
    for _ in 0..4 {
        let before = link.forwarded(Direction::ToSlave);
        link.cut();
        // One small record tells that the next connection works.
        std::fs::write(cluster.mount().join("small"), b"x").unwrap();
        cluster.wait();
        harness::eventually(SOON, "it streams", streams);
        let crossed = link.forwarded(Direction::ToSlave) - before;
        assert!(crossed < 20_000, "{crossed} B crossed after a cut that cost nothing");
    }
    link.stall(true);
    link.cut();
    for number in 0..3 {
        std::fs::write(cluster.mount().join(format!("new{number}")), &bytes).unwrap();
    }
    let before = link.forwarded(Direction::ToSlave);
    link.stall(false);
    cluster.wait();
    let crossed = link.forwarded(Direction::ToSlave) - before;
    println!("{crossed} B crossed for 3 MiB of records");
    // Once, with what may have been sent into the connection that was cut.
    assert!((3 << 20..4 << 20).contains(&crossed), "{crossed} B crossed for 3 MiB of records");
    cluster.finish();
}

/// DESIGN section 5: "The master dials [...], with backoff, for ever": the times between two attempts grow, up to about
/// 5 s, and are not all alike.
#[test]
fn dialling_again_backs_off() {
    let mut cluster = behind_proxies(1);
    let address: std::net::SocketAddr = cluster.slaves[0].address.parse().unwrap();
    // What listens instead of the proxy turns everybody away and notes when.
    cluster.slaves[0].proxy = None;
    let listener = TcpListener::bind(address).unwrap();
    let attempts: Vec<Instant> = (0..6).map(|_| listener.accept().map(|_| Instant::now()).unwrap()).collect();
    let pauses: Vec<Duration> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    println!("pauses {pauses:.1?}");
    assert!(pauses[0] >= Duration::from_millis(70), "dialled again at once: {pauses:?}");
    assert!(pauses[4] > pauses[1] * 3, "the pauses do not grow: {pauses:?}");
    assert!(pauses.iter().all(|pause| *pause < Duration::from_secs(30)), "{pauses:?}");
    let twice = |pair: &[Duration]| pair[1].as_millis() == pair[0].as_millis() * 2;
    assert!(!pauses.windows(2).all(twice), "no jitter: {pauses:?}");
    drop(listener);
    cluster.stop();
}
