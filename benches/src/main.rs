//! What a mount costs: TDFS with one slave attached, beside the backing tree itself and Debian's bindfs. And what
//! making a replica equal costs, beside rsync, and what TLS costs.
//!
//! One command: `cargo run --release -p tdfs-benches`. All subjects do the same work in the same round, in an
//! order that turns with each round, because these machines are noisy: only ratios within one run mean much.
//! Works on tmpfs in a directory of its own and writes nothing into the source tree.

mod fds;
mod network;
mod report;
mod resync;
mod subject;
mod tls;
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
#[command(version, about = "Compares TDFS with bindfs, the backing tree itself, and rsync")]
struct Args {
    /// How often each figure is measured; the table shows medians.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure only these figures (see --list); may be given more than once.
    #[arg(long, value_name = "FIGURE")]
    only: Vec<String>,
    /// Measure only these subjects: native, bindfs, tdfs, tdfs-z1. Not for copy, check and tls.
    #[arg(long, value_name = "SUBJECT")]
    subject: Vec<String>,
    /// List the figures and end.
    #[arg(long)]
    list: bool,
    /// Print the result as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// End with 1 if a figure of tdfs is above this many times bindfs, or rsync for copy and check.
    #[arg(long, value_name = "RATIO")]
    limit: Option<f64>,
    /// A directory on tmpfs to work below.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// The tdfs to measure, with tdfs-slave beside it, instead of those built from this workspace.
    #[arg(long, value_name = "PROGRAM")]
    tdfs: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.list {
        Workload::ALL.iter().for_each(|w| println!("{:<12} {}", w.name(), w.what()));
        println!("{:<12} {}", fds::NAME, fds::WHAT);
        resync::Figure::ALL.iter().for_each(|f| println!("{:<12} {}", f.name(), f.what()));
        println!("{:<12} {}", tls::NAME, tls::WHAT);
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    let subjects = chosen_subjects(&args)?;
    let Chosen { workloads, with_fds, resyncs, with_tls } = chosen_figures(&args)?;
    let with_tdfs = with_fds || with_tls || !resyncs.is_empty() || subjects.iter().any(Subject::is_tdfs);
    let tdfs = match with_tdfs {
        true => Some(tdfs_program(&args)?),
        false => None,
    };
    let dir = tempfile::Builder::new().prefix("tdfs-benches-").tempdir_in(&args.dir)?;
    let place = Place { dir: dir.path().to_path_buf(), tdfs };

    let mut report = Report::new(&subjects);
    if !workloads.is_empty() {
        measure(&place, &subjects, &workloads, args.rounds, &mut report)?;
    }
    if with_fds {
        report.fds = Some(fds::most_open(&place)?);
    }
    if let Some(tdfs) = place.tdfs.as_ref().filter(|_| !resyncs.is_empty()) {
        report.resync = Some(resync::measure(&place.dir, tdfs, &resyncs, args.rounds)?);
    }
    if let Some(tdfs) = place.tdfs.as_ref().filter(|_| with_tls) {
        report.tls = Some(tls::measure(&place.dir, tdfs, args.rounds)?);
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

/// What is measured.
#[derive(Default)]
struct Chosen {
    workloads: Vec<Workload>,
    with_fds: bool,
    resyncs: Vec<resync::Figure>,
    with_tls: bool,
}

fn chosen_figures(args: &Args) -> anyhow::Result<Chosen> {
    let mut chosen = Chosen::default();
    if args.only.is_empty() {
        let (workloads, resyncs) = (Workload::ALL.to_vec(), resync::Figure::ALL.to_vec());
        chosen = Chosen { workloads, with_fds: true, resyncs, with_tls: true };
    }
    for name in &args.only {
        if let Some(workload) = Workload::ALL.iter().find(|workload| workload.name() == name) {
            chosen.workloads.push(*workload);
        } else if let Some(figure) = resync::Figure::ALL.iter().find(|figure| figure.name() == name) {
            chosen.resyncs.push(*figure);
        } else if name == fds::NAME {
            chosen.with_fds = true;
        } else if name == tls::NAME {
            chosen.with_tls = true;
        } else {
            bail!("no figure is called {name}; --list names them");
        }
    }
    if !chosen.resyncs.is_empty() && !resync::has_rsync() {
        eprintln!("SKIPPED: copy, check (apt-get install rsync)");
        chosen.resyncs.clear();
    }
    Ok(chosen)
}

/// The tdfs of this workspace, built here: `cargo run` builds the package it runs and no other.
fn tdfs_program(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(program) = &args.tdfs {
        return Ok(program.clone());
    }
    ensure!(!cfg!(debug_assertions), "an unoptimised build measures nothing: use cargo run --release");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "tdfs", "--package", "tdfs-slave"])
        .args(["--manifest-path", manifest])
        .status()
        .context("run cargo to build tdfs and tdfs-slave")?;
    ensure!(status.success(), "tdfs or tdfs-slave does not build");
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
            eprintln!("{name}: {ratio:.2} times as much, more than {limit}");
            good = false;
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
