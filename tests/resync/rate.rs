//! `--resync-rate`: a resync leaves room for others, and records do not wait behind it.

use std::fs;
use std::time::{Duration, Instant};

use crate::{SOON, cluster};

/// Bytes a second.
const RATE: u64 = 4 << 20;
/// Bytes of the tree.
const BYTES: u64 = 24 << 20;
/// How long a record may take to the replica meanwhile; a tenth of it is usual.
const LAG_MAX: Duration = Duration::from_secs(3);

/// `tdfs --help`: "Most bytes a second that a resync may compare or send for each slave".
#[test]
fn the_rate_is_kept_and_records_do_not_wait() {
    let cluster = cluster()
        .network(1)
        .flag("--resync-rate")
        .flag(RATE.to_string())
        .prepare(|paths| {
            let mut rng = harness::Rng::new(3);
            for number in 0..BYTES >> 20 {
                fs::write(paths.backing.join(format!("file{number}")), rng.bytes(1 << 20)).unwrap();
            }
        })
        .start();
    let (begin, replica) = (Instant::now(), cluster.slaves[0].replica.clone());
    fs::create_dir(cluster.mount().join("live")).unwrap();
    let (mut worst, mut rounds) = (Duration::ZERO, 0);
    let mut took = None;
    while took.is_none() {
        let marker = format!("live/{rounds}");
        let written = Instant::now();
        fs::write(cluster.mount().join(&marker), b"live").unwrap();
        harness::eventually(SOON, "a record arrives", || replica.join(&marker).exists());
        worst = worst.max(written.elapsed());
        rounds += 1;
        took = (!cluster.slave_status(0).is_unsettled()).then(|| begin.elapsed());
        assert!(begin.elapsed() < SOON * 2, "it never ends: {:?}", cluster.slave_status(0));
    }
    let took = took.unwrap();
    let least = Duration::from_secs(BYTES / RATE).mul_f64(0.6);
    println!(
        "rate: {BYTES} bytes at {RATE}/s took {took:.1?}, at least {least:.1?}; {rounds} records, worst {worst:.2?}"
    );
    assert!(took >= least, "{took:?}");
    assert!(rounds > 3 && worst < LAG_MAX, "{rounds} records, the worst took {worst:?}");
    cluster.finish();
}
