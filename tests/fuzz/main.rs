//! The fuzz targets (fuzz/targets) over the golden files and seeded mutations of them.
//!
//! The short form of `cargo fuzz`, on stable: CONTRIBUTING.md names both. `TDFS_CORPUS=DIR` writes the seeds for the
//! long form.

#[path = "../golden/files.rs"]
#[expect(dead_code, reason = "reads the files alone")]
mod files;
mod mutate;
mod seeds;
#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use harness::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};
use targets::{ALL, Target};

/// What all of it may take of memory: no length in a few bytes makes anything large.
const MEMORY_KIB_MAX: u64 = 96 * 1024;

/// How long each target is mutated.
fn time_each() -> Duration {
    Duration::from_secs(if harness::long_form() { 120 } else { 2 })
}

#[test]
fn each_target_bears_its_seeds_and_what_is_made_of_them() {
    let before = peak_kib();
    let seed = harness::rng::run_seed();
    for target @ (name, run) in ALL {
        let seeds = seeds::of(name);
        assert!(!seeds.is_empty(), "{name} has no golden file");
        if let Some(dir) = std::env::var_os("TDFS_CORPUS") {
            write_corpus(&Path::new(&dir).join(name), &seeds);
        }
        seeds.iter().for_each(|bytes| run(bytes));
        let rounds = mutate_for(time_each(), target, &seeds, seed);
        println!("{name}: {} seeds, {rounds} mutations", seeds.len());
        assert!(rounds > 1000, "{name}: only {rounds} mutations were tried");
    }
    let grown = peak_kib() - before;
    assert!(grown < MEMORY_KIB_MAX, "{grown} KiB of memory for a few bytes");
}

fn mutate_for(time: Duration, (name, run): Target, seeds: &[Vec<u8>], seed: u64) -> u64 {
    let until = Instant::now() + time;
    let mut rounds = 0;
    while Instant::now() < until {
        let mut rng = Rng::part(seed, rounds);
        let bytes = mutate::mutate(&mut rng, seeds);
        if catch_unwind(AssertUnwindSafe(|| run(&bytes))).is_err() {
            let shown = bytes.escape_ascii();
            panic!("{name}, mutation {rounds} of TDFS_SEED={seed}: b\"{shown}\"");
        }
        rounds += 1;
    }
    rounds
}

fn write_corpus(dir: &Path, seeds: &[Vec<u8>]) {
    std::fs::create_dir_all(dir).expect("make the directory of a corpus");
    for (number, bytes) in seeds.iter().enumerate() {
        std::fs::write(dir.join(format!("golden-{number:03}")), bytes).expect("write a seed");
    }
}

/// The most memory this process had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line VmHWM");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number of KiB")
}
