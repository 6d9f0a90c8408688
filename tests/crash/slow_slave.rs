//! Slaves that stand still: the master, the other slave and the memory of all do not notice.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Cluster, Rng};
use rustix::process::Signal;

use crate::{SOON, cluster};

/// `--log-max`: two segments.
const LOG_BYTES_MAX: u64 = 32 << 20;
/// The active segment, and the one that the bound falls into.
const LOG_BYTES_MORE: u64 = 32 << 20;
/// Of master and slaves; buffers for links, segments and programs together need a tenth.
const MEMORY_BYTES_MAX: u64 = 200 << 20;
const WRITES: usize = 4_000;

/// The one that is well, the one that is stopped, the one whose link lets nothing through.
const WELL: usize = 0;
const STOPPED: usize = 1;
const CUT_OFF: usize = 2;

#[derive(Clone, Copy, Debug)]
struct Latency {
    median: Duration,
    p99: Duration,
}

/// DESIGN P5: "A slow, dead or full slave blocks neither the master nor another slave." tdfs.8: "Most bytes of log that
/// are kept for slaves that are behind [...]. A slave that falls further behind is made equal by a resync of what
/// the lost records touched when it is back."
#[test]
fn slaves_that_stand_still_cost_nobody_anything() {
    let flag = format!("--log-max={LOG_BYTES_MAX}");
    let mut cluster = cluster().network(2).proxied(1).flag(flag).expect_log("--log-max").start();
    std::fs::write(cluster.mount().join("first"), b"1").unwrap();
    cluster.wait();
    let before = cluster.status().slaves;
    write_some(cluster.mount(), 500); // warm
    let calm = write_some(cluster.mount(), WRITES);
    let calm_lag = catch_up(&cluster);
    cluster.slaves[STOPPED].process().signal(Signal::STOP);
    cluster.slaves[CUT_OFF].proxy.as_ref().unwrap().stall(true);
    let alone = write_some(cluster.mount(), WRITES);
    let alone_lag = catch_up(&cluster);
    println!("all well: {calm:?}, the slave is at the head {calm_lag:?} later");
    println!("two stand still: {alone:?}, the other is at the head {alone_lag:?} later");
    assert!(alone.median < calm.median * 4 + Duration::from_millis(1), "{calm:?}, then {alone:?}");
    assert!(alone.p99 < calm.p99 * 8 + Duration::from_millis(50), "{calm:?}, then {alone:?}");
    assert!(alone_lag < calm_lag * 8 + Duration::from_secs(3), "{calm_lag:?}, then {alone_lag:?}");
    overflow(&cluster);
    let lost = cluster.status().slaves;
    assert!(lost[STOPPED].needs_resync && lost[CUT_OFF].needs_resync && !lost[WELL].needs_resync, "{lost:?}");
    // Their bytes are told as far as the log holds them, and it is kept for the one that is well alone now.
    let lag = (lost[STOPPED].lag_records, lost[CUT_OFF].lag_records);
    assert!(lag.0 > LOG_BYTES_MAX >> 20 && lag.1 > LOG_BYTES_MAX >> 20, "records of 1 MiB: {lost:?}");
    cluster.slaves[STOPPED].process().signal(Signal::CONT);
    cluster.slaves[CUT_OFF].proxy.as_ref().unwrap().stall(false);
    let resynced = |slave: usize| cluster.slave_status(slave).resyncs > before[slave].resyncs;
    harness::eventually(SOON, "both are resynced", || resynced(STOPPED) && resynced(CUT_OFF));
    cluster.wait();
    let after = cluster.status().slaves;
    for (slave, resyncs) in [(WELL, 0), (STOPPED, 1), (CUT_OFF, 1)] {
        assert_eq!(after[slave].resyncs, before[slave].resyncs + resyncs, "{:?}", after[slave]);
        assert_eq!(after[slave].divergences, 0, "{:?}", after[slave]);
    }
    assert_memory(&cluster);
    cluster.finish();
}

/// So many writes of 4 KiB at random places of a few files, one after the other.
fn write_some(root: &Path, count: usize) -> Latency {
    let mut rng = Rng::new(7);
    let bytes = rng.bytes(4096);
    let files: Vec<File> =
        (0..8).map(|number| File::create(root.join(format!("w{number}"))).unwrap()).collect();
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let (file, offset) = (rng.pick(&files), rng.below(64) * 4096);
            let begin = Instant::now();
            file.write_all_at(&bytes, offset).unwrap();
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    Latency { median: times[count / 2], p99: times[count * 99 / 100] }
}

/// How long the slave that is well needs to be at the head.
fn catch_up(cluster: &Cluster) -> Duration {
    let (begin, head) = (Instant::now(), cluster.status().head);
    harness::eventually(SOON, "it is at the head", || cluster.slave_status(WELL).applied >= head);
    begin.elapsed()
}

/// Writes four times what the log may hold; it grows to its bound and no further.
fn overflow(cluster: &Cluster) {
    let file = File::create(cluster.mount().join("much")).unwrap();
    let bytes = Rng::new(5).bytes(1 << 20);
    let mut peak = 0;
    for number in 0..(LOG_BYTES_MAX * 4) >> 20 {
        file.write_all_at(&bytes, (number % 3) << 20).unwrap();
        peak = peak.max(log_bytes(cluster));
        // The bound is looked at once a second, and the log is also kept for the one that is well.
        if number % 16 == 15 {
            let bounded = || log_bytes(cluster) <= LOG_BYTES_MAX + LOG_BYTES_MORE;
            harness::eventually(SOON, "what is beyond the bound is deleted", bounded);
        }
    }
    println!("the log had at most {} MiB", peak >> 20);
    assert!(peak > LOG_BYTES_MAX / 2, "only {peak} B of log were kept");
    let marked = |slave: usize| cluster.slave_status(slave).needs_resync;
    harness::eventually(SOON, "both are marked for resync", || marked(STOPPED) && marked(CUT_OFF));
}

/// Bytes of the segments; one may go while it is looked at.
fn log_bytes(cluster: &Cluster) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = std::fs::read_dir(cluster.paths.state.join("log")).unwrap();
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.blocks() * 512)).sum()
}

fn assert_memory(cluster: &Cluster) {
    let slaves = cluster.slaves.iter().filter_map(|slave| slave.daemon.as_ref());
    let peaks: Vec<u64> =
        [&cluster.master].into_iter().chain(slaves).map(harness::Daemon::memory_peak).collect();
    println!(
        "most memory of master and slaves: {:?} MiB",
        peaks.iter().map(|peak| peak >> 20).collect::<Vec<_>>()
    );
    assert!(peaks.iter().all(|peak| *peak > 0 && *peak < MEMORY_BYTES_MAX), "{peaks:?} B");
}
