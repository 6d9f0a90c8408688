//! What a mount costs: TDFS with one slave attached, beside the backing tree itself and Debian's bindfs.
//!
//! One command: `cargo run --release -p tdfs-benches`. All subjects do the same work in the same round, in an
//! order that turns with each round, because these machines are noisy: only ratios within one run mean much.
//! Works on tmpfs in a directory of its own and writes nothing into the source tree.

mod fds;
mod report;
mod subject;
mod workload;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;

use crate::report::Report;
use crate::subject::{Place, Subject};
use crate::workload::{Archive, Workload};

/// More open files than this while 100,000 files are looked at means one fd an inode somewhere.
const FDS_MAX: usize = 1_000;

/// What the user may choose.
#[derive(Parser)]
#[command(version, about = "Compares TDFS with bindfs and the backing tree itself")]
struct Args {
    /// How often each figure is measured; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure only these figures (see --list); may be given more than once.
    #[arg(long, value_name = "FIGURE")]
    only: Vec<String>,
    /// Measure only these subjects: native, bindfs, tdfs, tdfs-z1.
    #[arg(long, value_name = "SUBJECT")]
    subject: Vec<String>,
    /// List the figures and end.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// End with 1 if a figure of tdfs is above this many times bindfs.
    #[arg(long, value_name = "RATIO")]
    limit: Option<f64>,
    /// A directory on tmpfs to work below.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The tdfs to measure, instead of the one built from this workspace.
    #[arg(long, value_name = "PROGRAM")]
    tdfs: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.list {
        Workload::ALL.iter().for_each(|w| println!("{:<12} {}", w.name(), w.what()));
        println!("{:<12} {}", fds::NAME, fds::WHAT);
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let subjects = chosen_subjects(&args)?;
    let (workloads, with_fds) = chosen_workloads(&args)?;
    let tdfs = match subjects.iter().any(Subject::is_tdfs) || with_fds {
        true => Some(tdfs_program(&args)?),
        false => None,
    };
    let dir = tempfile::Builder::new().prefix("tdfs-benches-").tempdir_in(&args.dir)?;
    let place = Place { dir: dir.path().to_path_buf(), tdfs };

    let mut report = Report::new(&subjects);
    measure(&place, &subjects, &workloads, args.rounds, &mut report)?;
    if with_fds {
        report.fds = Some(fds::most_open(&place)?);
    }
    println!("{}", if args.json { report.json() } else { report.table() });
    verdict(&report, args.limit)
}

/// Every figure of every subject, `rounds` times, interleaved.
fn measure(
    place: &Place,
    subjects: &[Subject],
    workloads: &[Workload],
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let archive = Archive::generate(&place.dir.join("archive"))?;
    for round in 0..rounds {
        for workload in workloads {
            for turn in 0..subjects.len() {
                let subject = subjects[(round + turn) % subjects.len()];
                let taken = one(place, subject, *workload, &archive)
                    .with_context(|| format!("{} on {}", workload.name(), subject.name()))?;
                eprintln!("round {} {:<12} {:<8} {taken:.3?}", round + 1, workload.name(), subject.name());
                report.add(*workload, subject, taken);
            }
        }
    }
    Ok(())
}

/// One figure of one subject, on a tree and a mount made for it and removed after it.
fn one(place: &Place, subject: Subject, workload: Workload, archive: &Archive) -> anyhow::Result<Duration> {
    let backing = place.fresh()?;
    workload.prepare(&backing)?;
    let mounted = subject.mount(place)?;
    let taken = workload.run(mounted.path(), archive)?;
    mounted.unmount()?;
    Ok(taken)
}

fn chosen_subjects(args: &Args) -> anyhow::Result<Vec<Subject>> {
    let mut chosen = Vec::new();
    for subject in Subject::ALL {
        if !args.subject.is_empty() && !args.subject.iter().any(|name| name == subject.name()) {
            continue;
        }
        match subject.missing() {
            Some(package) => eprintln!("SKIPPED: {} (apt-get install {package})", subject.name()),
            None => chosen.push(subject),
        }
    }
    ensure!(!chosen.is_empty(), "no subject of that name: {:?}", args.subject);
    Ok(chosen)
}

fn chosen_workloads(args: &Args) -> anyhow::Result<(Vec<Workload>, bool)> {
    if args.only.is_empty() {
        return Ok((Workload::ALL.to_vec(), true));
    }
    let mut chosen = Vec::new();
    let mut with_fds = false;
    for name in &args.only {
        match Workload::ALL.iter().find(|workload| workload.name() == name) {
            Some(workload) => chosen.push(*workload),
            None if name == fds::NAME => with_fds = true,
            None => bail!("no figure is called {name}; --list names them"),
        }
    }
    Ok((chosen, with_fds))
}

/// The tdfs of this workspace, built here: `cargo run` builds the package it runs and no other.
fn tdfs_program(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(program) = &args.tdfs {
        return Ok(program.clone());
    }
    ensure!(!cfg!(debug_assertions), "an unoptimised build measures nothing: use cargo run --release");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "tdfs", "--manifest-path", manifest])
        .status()
        .context("run cargo to build tdfs")?;
    ensure!(status.success(), "tdfs does not build");
    Ok(std::env::current_exe()?.with_file_name("tdfs"))
}

fn verdict(report: &Report, limit: Option<f64>) -> anyhow::Result<ExitCode> {
    let mut good = true;
    if let Some(fds) = report.fds.filter(|fds| *fds > FDS_MAX) {
        eprintln!("tdfs had {fds} files open, more than {FDS_MAX}");
        good = false;
    }
    if let Some(limit) = limit {
        for (name, ratio) in report.over(limit) {
            eprintln!("{name}: {ratio:.2} times bindfs, more than {limit}");
            good = false;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
