//! What making a replica equal costs, beside rsync to an rsync daemon that does the same: the initial copy, and
//! finding out that nothing changed. Both over TCP on the loopback, to a second directory of the same tmpfs.
//!
//! The time of tdfs is from the start of the master until `tdfs wait` returns: mounting, connecting and
//! knowing that the replica is equal are in it. The slave and the rsync daemon run already.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use crate::network::{Network, free_port};
use crate::report::median;
use crate::subject::{Daemon, Ready};
use crate::workload::{make_mixed_tree, make_tree, run, timed};

/// One figure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// The initial copy.
    Copy,
    /// The check of a tree that is equal.
    Check,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Copy, Self::Check];

    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Check => "check",
        }
    }

    /// What it does, for a reader of the table.
    pub fn what(self) -> &'static str {
        match self {
            Self::Copy => "initial copy of 10,000 files, 230 MB, beside rsync -aHAX",
            Self::Check => "check of 100,000 equal files in 1,000 directories, beside rsync -a",
        }
    }

    fn make_tree(self, root: &Path) -> anyhow::Result<()> {
        match self {
            Self::Copy => make_mixed_tree(root),
            Self::Check => make_tree(root, 1_000, 100),
        }
    }

    fn rsync_options(self) -> &'static str {
        match self {
            Self::Copy => "-aHAX",
            Self::Check => "-a",
        }
    }
}

/// Who does it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Rsync,
    Tdfs,
}

impl Side {
    const ALL: [Self; 2] = [Self::Rsync, Self::Tdfs];

    fn name(self) -> &'static str {
        match self {
            Self::Rsync => "rsync",
            Self::Tdfs => "tdfs",
        }
    }
}

/// Everything that was measured.
#[derive(Default)]
pub struct Times(BTreeMap<(Figure, Side), Vec<Duration>>);

/// Measures `figures`, each `rounds` times on both sides, interleaved. `tdfs` stands beside its tdfs-slave.
pub fn measure(dir: &Path, tdfs: &Path, figures: &[Figure], rounds: usize) -> anyhow::Result<Times> {
    let mut times = Times::default();
    for figure in figures {
        let bench = Bench { figure: *figure, dir: dir.join(figure.name()), tdfs };
        fs::create_dir(&bench.dir)?;
        bench.figure.make_tree(&bench.tree())?;
        if bench.figure == Figure::Check {
            for side in Side::ALL {
                bench.run(side)?;
            }
        }
        for round in 0..rounds {
            for turn in 0..Side::ALL.len() {
                let side = Side::ALL[(round + turn) % Side::ALL.len()];
                let taken =
                    bench.run(side).with_context(|| format!("{} by {}", figure.name(), side.name()))?;
                eprintln!("round {} {:<12} {:<8} {taken:.3?}", round + 1, figure.name(), side.name());
                times.0.entry((*figure, side)).or_default().push(taken);
            }
        }
        fs::remove_dir_all(&bench.dir)?;
    }
    Ok(times)
}

/// One figure's tree, with the replicas and states of both sides.
struct Bench<'a> {
    figure: Figure,
    dir: PathBuf,
    tdfs: &'a Path,
}

impl Bench<'_> {
    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// One run of one side. A copy begins with nothing, a check with what the last run left.
    fn run(&self, side: Side) -> anyhow::Result<Duration> {
        let replica = self.dir.join(format!("replica-{}", side.name()));
        if self.figure == Figure::Copy {
            for left in [&replica, &self.dir.join("state-master"), &self.dir.join("state-slave")] {
                match fs::remove_dir_all(left) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        fs::create_dir_all(&replica)?;
        let taken = match side {
            Side::Rsync => self.rsync(&replica),
            Side::Tdfs => self.tdfs(&replica),
        }?;
        self.insist_on_equal(&replica)?;
        Ok(taken)
    }

    fn tdfs(&self, replica: &Path) -> anyhow::Result<Duration> {
        let tree = self.tree();
        // As rsync: plain TCP.
        let network = Network { tdfs: self.tdfs, dir: &self.dir, tree: &tree, replica, tls: false };
        let slave = network.start_slave()?;
        let mut master = None;
        let taken = timed(|| {
            master = Some(network.start_master(&slave)?);
            Ok(())
        })?;
        master.map_or(Ok(()), Daemon::stop)?;
        slave.stop()?;
        Ok(taken)
    }

    fn rsync(&self, replica: &Path) -> anyhow::Result<Duration> {
        let port = free_port()?;
        let config = self.dir.join("rsyncd.conf");
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let text = format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\nmunge symlinks = no\nuid = {uid}\ngid = {gid}\n\
             [replica]\npath = {}\nread only = no\n",
            replica.display()
        );
        fs::write(&config, text)?;
        let mut daemon = Command::new("rsync");
        daemon.args(["--daemon", "--no-detach", "--config"]).arg(&config);
        // Dropped, which kills it: it has no clean end.
        let _daemon = Daemon::start(daemon, Ready::Listens(port), self.dir.join("rsyncd.log"))?;
        let mut rsync = Command::new("rsync");
        rsync.arg(self.figure.rsync_options()).arg(self.tree().join(""));
        rsync.arg(format!("rsync://127.0.0.1:{port}/replica/"));
        timed(|| run(&mut rsync))
    }

    /// A side that left something out would be fast.
    fn insist_on_equal(&self, replica: &Path) -> anyhow::Result<()> {
        let mut rsync = Command::new("rsync");
        rsync.args(["-aHAX", "--delete", "--dry-run", "--itemize-changes"]);
        let found = rsync.arg(self.tree().join("")).arg(replica.join("")).output().context("run rsync")?;
        let said = String::from_utf8_lossy(&found.stdout);
        ensure!(found.status.success() && said.is_empty(), "the replica is not equal: {said}");
        Ok(())
    }
}

/// True if there is an rsync to compare with.
pub fn has_rsync() -> bool {
    Command::new("rsync").arg("--version").stdout(Stdio::null()).status().is_ok()
}

impl Times {
    /// The figures in which tdfs takes more than `limit` times what rsync takes.
    pub fn over(&self, limit: f64) -> Vec<(&'static str, f64)> {
        let ratios = Figure::ALL.into_iter().filter_map(|figure| Some((figure.name(), self.ratio(figure)?)));
        ratios.filter(|(_, ratio)| *ratio > limit).collect()
    }

    /// A table of medians in milliseconds.
    pub fn table(&self) -> String {
        let mut text = format!("{:<10} | {:>8} | {:>8} {:>8}", "ms", "rsync", "tdfs", "/rsync");
        for figure in Figure::ALL {
            let ms = |side| self.median(figure, side).map(|taken| taken.as_secs_f64() * 1e3);
            if let (Some(rsync), Some(tdfs)) = (ms(Side::Rsync), ms(Side::Tdfs)) {
                let ratio = tdfs / rsync;
                let _ = write!(text, "\n{:<10} | {rsync:>8.1} | {tdfs:>8.1} {ratio:>8.2}", figure.name());
            }
        }
        text
    }

    /// All single times in seconds, with medians and ratios.
    pub fn json(&self) -> serde_json::Value {
        let figure = |(&(figure, side), times): (&(Figure, Side), &Vec<Duration>)| {
            json!({
                "figure": figure.name(),
                "what": figure.what(),
                "subject": side.name(),
                "seconds": times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
                "median_seconds": median(times).as_secs_f64(),
                "to_rsync": self.ratio(figure).filter(|_| side == Side::Tdfs),
            })
        };
        self.0.iter().map(figure).collect()
    }

    fn median(&self, figure: Figure, side: Side) -> Option<Duration> {
        self.0.get(&(figure, side)).map(|times| median(times))
    }

    fn ratio(&self, figure: Figure) -> Option<f64> {
        let rsync = self.median(figure, Side::Rsync)?.as_secs_f64();
        Some(self.median(figure, Side::Tdfs)?.as_secs_f64() / rsync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tdfs_is_held_to_the_limit_beside_rsync() {
        let mut times = Times::default();
        for (side, ms) in [(Side::Rsync, 100), (Side::Tdfs, 110)] {
            times.0.insert((Figure::Copy, side), vec![Duration::from_millis(ms)]);
        }
        assert_eq!(times.over(1.05).len(), 1);
        assert!(times.over(1.15).is_empty());
        assert!(times.table().contains("1.10"));
    }
}
