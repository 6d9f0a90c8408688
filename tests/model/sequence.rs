//! Runs a sequence on the mount and on a plain directory side by side.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::ops::{HeldOp, Op, generate};
use harness::{Cluster, ClusterBuilder, Compare, Rng};
use proptest::prelude::{Strategy, any};

use crate::view::{Depth, View, Wanted};
use crate::worker::{self, WORKERS, Worker};

const STEPS_MAX: usize = 60;
/// In this time the kernel shows the times that are.
const FRESH: Duration = Duration::from_secs(2);

/// One operation: who does it, and the seed that it is drawn from.
#[derive(Clone, Debug)]
pub struct Step {
    who: usize,
    seed: u64,
    kind: Kind,
}

/// What a sequence has, or what of it is compared beyond the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Stores through mappings: when they move times is the kernel's choice.
    Mapped,
    /// Times: each step waits for another tick of the clock that they are taken from.
    Timed,
}

impl Step {
    fn op(&self) -> Op {
        generate(&mut Rng::new(self.seed), &worker::names(self.kind == Kind::Mapped), self.who as u64)
    }
}

/// All sequences. Every second one has stores through mappings. One that fails is made short by leaving out steps.
pub fn sequences() -> impl Strategy<Value = Vec<Step>> {
    let kind = proptest::sample::select(&[Kind::Mapped, Kind::Timed]).no_shrink();
    let steps = proptest::collection::vec((0..WORKERS, any::<u64>()).no_shrink(), 1..=STEPS_MAX);
    (kind, steps)
        .prop_map(|(kind, steps)| steps.into_iter().map(|(who, seed)| Step { who, seed, kind }).collect())
}

/// It as text, a step a line.
pub fn told(steps: &[Step]) -> String {
    let lines = steps.iter().map(|step| format!("    process {}: {:?}", step.who, step.op()));
    lines.collect::<Vec<_>>().join("\n")
}

/// Both trees and those who act on them.
pub struct Model {
    cluster: Cluster,
    plain: PathBuf,
    workers: Vec<Worker>,
    number: u64,
    /// Operations that gave no errno so far.
    pub succeeded: u64,
}

impl Model {
    /// Starts a cluster and the workers.
    pub fn start(builder: ClusterBuilder) -> Self {
        let cluster = builder.start();
        let plain = cluster.tree.dir("plain").unwrap();
        let workers = (0..WORKERS).map(|who| Worker::start(who, &plain, cluster.mount())).collect();
        Self { cluster, plain, workers, number: 0, succeeded: 0 }
    }

    /// Does these steps from empty trees; gives the first difference.
    pub fn difference(&mut self, steps: &[Step]) -> Option<String> {
        self.number += 1;
        let name = format!("q{}", self.number);
        let mapped = steps.first().is_some_and(|step| step.kind == Kind::Mapped);
        for root in [&self.plain, self.cluster.mount()] {
            plant(&root.join(&name), mapped);
        }
        for worker in &mut self.workers {
            worker.begin(&name, mapped);
        }
        let found = self.steps(&name, steps).or_else(|| self.replica(&name));
        for worker in &mut self.workers {
            worker.begin("none", false);
        }
        for root in [&self.plain, self.cluster.mount()] {
            fs::remove_dir_all(root.join(&name)).unwrap();
        }
        found
    }

    fn steps(&mut self, name: &str, steps: &[Step]) -> Option<String> {
        let roots = [self.plain.join(name), self.cluster.mount().join(name)];
        let mut wanted = Wanted { depth: Depth::Content, capabilities: true };
        let mut before = roots.each_ref().map(|root| View::of(root, wanted));
        for (number, step) in steps.iter().enumerate() {
            if step.kind == Kind::Timed {
                next_tick();
            }
            let outcomes = self.workers[step.who].step(step.seed);
            self.succeeded += u64::from(outcomes.plain.starts_with("ok"));
            let at = || format!("step {number}, process {}: {:?}", step.who, step.op());
            if outcomes.plain != outcomes.mount {
                return Some(format!("{} gave: {} | {}", at(), outcomes.plain, outcomes.mount));
            }
            // The kernel's FUSE takes a capability away before it knows whether fallocate(2) will fail.
            let is_allocate = matches!(step.op(), Op::Allocate(..) | Op::Held(HeldOp::Allocate(..)));
            wanted.capabilities &= !is_allocate || outcomes.plain.starts_with("ok");
            // At times nobody looks, so that nothing is made fresh by looking.
            let is_last = number + 1 == steps.len();
            wanted.depth = match step.seed % 4 {
                _ if is_last => Depth::Content,
                0 => continue,
                1 => Depth::Content,
                _ => Depth::Attributes,
            };
            let mut now = roots.each_ref().map(|root| View::of(root, wanted));
            let [plain, mount] = &now;
            let found = plain.difference(mount).or_else(|| {
                (step.kind == Kind::Timed).then(|| self.times(name, &mut now, &before, wanted))?
            });
            if let Some(found) = found {
                return Some(format!("{} left {found}", at()));
            }
            before = now;
        }
        None
    }

    /// A look by somebody else at the same moment (at what others hold open, say) can have the kernel show former times until
    /// tdfs tells it once more.
    fn times(&self, name: &str, now: &mut [View; 2], before: &[View; 2], wanted: Wanted) -> Option<String> {
        let mut found = self.times_now(name, now, before);
        let deadline = Instant::now() + FRESH;
        while found.is_some() && Instant::now() < deadline {
            std::thread::sleep(FRESH / 20);
            now[1] = View::of(&self.cluster.mount().join(name), wanted);
            found = self.times_now(name, now, before);
        }
        found
    }

    fn times_now(&self, name: &str, now: &[View; 2], before: &[View; 2]) -> Option<String> {
        let backing = self.cluster.paths.backing.join(name);
        if backing != self.cluster.mount().join(name) {
            let below = View::of(&backing, Wanted { depth: Depth::Attributes, capabilities: true });
            if let Some(found) = now[1].inexact(&below) {
                return Some(format!("and below the mount: {found}"));
            }
        }
        View::times_differ([&now[0], &now[1]], [&before[0], &before[1]])
    }

    fn replica(&self, name: &str) -> Option<String> {
        let (code, words) = self.cluster.wait_code(60);
        if code != Some(0) {
            return Some(format!("tdfs wait said {words}"));
        }
        let replica = self.cluster.slaves[0].replica.join(name);
        let found = Compare::default().run(&self.cluster.mount().join(name), &replica).unwrap();
        (!found.is_empty()).then(|| format!("the replica differs: {}", found.join("; ")))
    }

    /// Compares everything once more and stops.
    pub fn finish(self) {
        drop(self.workers);
        self.cluster.finish();
    }
}

fn plant(root: &Path, mapped: bool) {
    fs::create_dir(root).unwrap();
    worker::names(mapped).plant(root).unwrap();
    let open_to_all = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    open_to_all(root);
    for found in fs::read_dir(root).unwrap() {
        open_to_all(&found.unwrap().path());
    }
}

/// Waits until the clock that file systems take times from has moved.
fn next_tick() {
    let now = || rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    let before = now();
    while now() == before {
        std::thread::sleep(Duration::from_micros(500));
    }
}
