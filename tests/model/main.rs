//! The mount beside a plain directory: random sequences of all operations by several processes end alike on both.
//!
//! After each step results, errno and the trees are compared, at the end the replica with the mount. A sequence that
//! fails is shrunk before it is told. `TDFS_SEED` and `TDFS_SEEDS` choose first sequence and number.
#![allow(clippy::unwrap_used, reason = "in a test a failure is a panic")]

mod sequence;
mod view;
mod worker;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use harness::modes::Mode;
use harness::{Cluster, ClusterBuilder, Rng};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use sequence::{Model, sequences, told};

/// How long one mode may take in the short form.
const SHORT: Duration = Duration::from_secs(6);
/// Sequences of one mode in the long form.
const LONG: u64 = 2_000;

/// DESIGN P4: "An application can't tell the mount from the backing tree: same results, same errno".
#[test]
fn in_place() {
    check(Mode::ALL[0].builder(harness::binaries!()));
}

#[test]
fn at_a_mountpoint() {
    check(Mode::ALL[1].builder(harness::binaries!()));
}

#[test]
fn passed_through_in_place() {
    check(Mode::ALL[2].builder(harness::binaries!()));
}

#[test]
fn passed_through_at_a_mountpoint() {
    check(Mode::ALL[3].builder(harness::binaries!()));
}

/// The disk's file system does more than tmpfs, and takes longer for it.
#[test]
fn on_disk() {
    check(Cluster::builder(harness::binaries!()).embedded().on_disk().elsewhere());
}

fn check(builder: ClusterBuilder) {
    let first = harness::rng::run_seed();
    let model = RefCell::new(Model::start(builder));
    let (count, began) = (wanted(), Instant::now());
    let mut done = 0;
    while count.map_or_else(|| began.elapsed() < SHORT, |count| done < count) {
        sequence(first.wrapping_add(done), &model);
        done += 1;
    }
    let model = model.into_inner();
    println!("{done} sequences, {} operations that succeeded", model.succeeded);
    assert!(model.succeeded > done * 5, "hardly anything succeeded");
    model.finish();
}

/// Does the sequence of this seed; one that fails is shrunk and told.
fn sequence(seed: u64, model: &RefCell<Model>) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &Rng::new(seed).bytes(32));
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let drawn = sequences().new_tree(&mut runner).unwrap();
    let done = runner.run_one(drawn, |steps| {
        model.borrow_mut().difference(&steps).map_or(Ok(()), |found| Err(TestCaseError::fail(found)))
    });
    match done {
        Ok(_) => (),
        Err(TestError::Fail(found, steps)) => panic!("TDFS_SEED={seed}: {found}\n{}", told(&steps)),
        Err(aborted) => panic!("TDFS_SEED={seed}: {aborted}"),
    }
}

/// None for as long as the short form takes.
fn wanted() -> Option<u64> {
    let seeds = std::env::var("TDFS_SEEDS").ok().map(|text| text.parse().unwrap());
    seeds.or_else(|| harness::long_form().then_some(LONG))
}
