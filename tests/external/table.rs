//! The table of README.md: each suite on each backing file system, by itself and through the mount in each mode.
//!
//! `TDFS_TABLE=write` writes it, `TDFS_LONG=1` has fsx do what it does in the long form.

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;

use harness::crash_disk::in_own_mounts;
use harness::temp_tree::unmount_below;
use harness::{Cluster, TempTree, long_form};

use crate::fsx::{Fsx, compare};
use crate::known::{Known, Outcome};
use crate::pjdfstest::{Leftover, Pjdfstest, assert_leftover};
use harness::modes::{Backing, Mode};

const TEST: &str = "suites_pass_on_every_file_system";
/// What stands above the table in README.md; it goes on to the end.
const HEADING: &str = "## The table\n";
/// Seeds of fsx on one file system, in each mode.
const SEEDS: u64 = 20;

/// What both suites reported at one place.
struct Reports {
    pjdfstest: Outcome,
    fsx: Outcome,
}

/// tdfs.8: "An application can't tell the mount from the backing tree". DESIGN P3: the replica is equal in all that is
/// promised after each suite, and after each seed of fsx.
#[test]
fn suites_pass_on_every_file_system() {
    let writes = std::env::var("TDFS_TABLE").is_ok_and(|mode| mode == "write");
    if !writes && !long_form() {
        return;
    }
    let needed = [("mkfs.ext4", "e2fsprogs"), ("mkfs.xfs", "xfsprogs"), ("mkfs.btrfs", "btrfs-progs")];
    if !needed.iter().all(|(program, package)| harness::require(TEST, program, package)) {
        return;
    }
    in_own_mounts("table::suites_pass_on_every_file_system", || {
        let (mut lines, mut worse) = (String::new(), Vec::new());
        for backing in Backing::ALL {
            let Some(plain) = on_the_plain(backing) else { return };
            for mode in Mode::ALL {
                let Some(mount) = through_the_mount(backing, mode) else { return };
                for (suite, plain, mount) in
                    [("pjdfstest", &plain.pjdfstest, &mount.pjdfstest), ("fsx", &plain.fsx, &mount.fsx)]
                {
                    let name = backing.name();
                    let line =
                        format!("| {suite} | {name} | {mode} | {} | {} |", counts(plain), counts(mount));
                    println!("{line}");
                    writeln!(lines, "{line}").expect("write to a string");
                    let found = Known::of(suite).worse(plain, mount).into_iter();
                    worse.extend(found.map(|said| format!("{suite}, {name}, {mode}: {said}")));
                }
            }
        }
        if writes {
            write(&lines);
        }
        assert!(worse.is_empty(), "worse than the backing file system:\n  {}", worse.join("\n  "));
    });
}

fn counts(outcome: &Outcome) -> String {
    format!("{} / {} / {}", outcome.passed.len(), outcome.failed.len(), outcome.skipped.len())
}

/// Each file system has seeds of its own.
fn seeds(backing: Backing) -> RangeInclusive<u64> {
    let before = Backing::ALL.iter().position(|other| *other == backing).expect("find the file system");
    let first = u64::try_from(before).expect("count file systems") * SEEDS + 1;
    first..=first + SEEDS - 1
}

fn operations() -> u64 {
    if long_form() { 20_000 } else { 2_000 }
}

/// The suites with what they need beside a tested file system.
fn suites(home: &Path) -> Option<(Pjdfstest, Fsx)> {
    let other = TempTree::new().expect("make a directory on another file system");
    Some((Pjdfstest::new(TEST, home, other)?, Fsx::new(TEST, home, operations())?))
}

fn on_the_plain(backing: Backing) -> Option<Reports> {
    let tree = TempTree::new().expect("make a temp directory");
    let place = tree.path().join("plain");
    backing.make(tree.path(), &[&place]);
    let (pjdfstest, fsx) = suites(tree.path())?;
    let pjdfstest = pjdfstest.run(&place, Leftover::Removed);
    Some(Reports { pjdfstest, fsx: fsx.run(&place, seeds(backing), false, || ()) })
}

fn through_the_mount(backing: Backing, mode: Mode) -> Option<Reports> {
    let mut cluster: Cluster = mode.builder(harness::binaries!()).prepare(backing.prepare()).start();
    let (pjdfstest, fsx) = suites(cluster.tree.path())?;
    let pjdfstest = pjdfstest.run(cluster.mount(), Leftover::Kept);
    assert_leftover(cluster.mount());
    compare(&cluster);
    let fsx = fsx.run(cluster.mount(), seeds(backing), mode.passthrough, || compare(&cluster));
    cluster.master.stop();
    unmount_below(cluster.tree.path());
    cluster.stop();
    Some(Reports { pjdfstest, fsx })
}

/// Puts the table into README.md, with the date and the kernel.
fn write(lines: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("external/README.md");
    let text = std::fs::read_to_string(&path).expect("read README.md");
    let (before, _) = text.split_once(HEADING).expect("find the table's heading in README.md");
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().expect("ask for the date").stdout;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's release");
    let text = format!(
        "{before}{HEADING}\n{}, Linux {}. fsx: {SEEDS} seeds of {} operations on each file system.\n\n\
        | suite | file system | mode | by itself: passed / failed / skipped | on the mount |\n|---|---|---|---|---|\n{lines}",
        String::from_utf8_lossy(&date).trim(),
        kernel.trim(),
        operations(),
    );
    std::fs::write(path, text).expect("write README.md");
}
