//! What TLS costs, beside plain TCP (`--insecure`): until a slave on the network has applied all of the work.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use crate::network::Network;
use crate::report::median;
use crate::workload::{Archive, timed};

/// Chooses all of these.
pub const NAME: &str = "tls";
/// What they do.
pub const WHAT: &str =
    "untar, writes of 4 KiB and of 1 MiB until a slave has applied them, by TLS beside --insecure";

const SMALL: (usize, usize) = (4096, 20_000);
const LARGE: (usize, usize) = (1 << 20, 400);

/// One figure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Figure {
    Untar,
    Small,
    Large,
}

impl Figure {
    const ALL: [Self; 3] = [Self::Untar, Self::Small, Self::Large];

    fn name(self) -> &'static str {
        match self {
            Self::Untar => "untar",
            Self::Small => "write-4k",
            Self::Large => "write-1m",
        }
    }

    fn run(self, tree: &Path, archive: &Archive) -> anyhow::Result<()> {
        match self {
            Self::Untar => archive.extract(tree),
            Self::Small => write(tree, SMALL),
            Self::Large => write(tree, LARGE),
        }
    }
}

fn write(tree: &Path, (bytes, count): (usize, usize)) -> anyhow::Result<()> {
    let block: Vec<u8> = (0..=250_u8).cycle().take(bytes).collect();
    let mut file = File::create(tree.join("file"))?;
    (0..count).try_for_each(|_| file.write_all(&block))?;
    Ok(())
}

/// Everything that was measured; true: by TLS.
#[derive(Default)]
pub struct Times(BTreeMap<(Figure, bool), Vec<Duration>>);

/// Measures all figures, each `rounds` times both ways, interleaved.
pub fn measure(dir: &Path, tdfs: &Path, rounds: usize) -> anyhow::Result<Times> {
    let archive = Archive::generate(&dir.join("tls-archive"))?;
    let mut times = Times::default();
    for round in 0..rounds {
        for figure in Figure::ALL {
            for turn in 0..2 {
                let tls = (round + turn) % 2 == 0;
                let taken = one(dir, tdfs, figure, tls, &archive).with_context(|| figure.name())?;
                let side = side(tls);
                eprintln!("round {} {:<12} {side:<8} {taken:.3?}", round + 1, figure.name());
                times.0.entry((figure, tls)).or_default().push(taken);
            }
        }
    }
    Ok(times)
}

fn one(dir: &Path, tdfs: &Path, figure: Figure, tls: bool, archive: &Archive) -> anyhow::Result<Duration> {
    let dir = dir.join(NAME);
    let (tree, replica) = (dir.join("tree"), dir.join("replica"));
    fs::create_dir_all(&tree)?;
    fs::create_dir_all(&replica)?;
    let network = Network { tdfs, dir: &dir, tree: &tree, replica: &replica, tls };
    let slave = network.start_slave()?;
    let master = network.start_master(&slave)?;
    let taken = timed(|| figure.run(&tree, archive).and_then(|()| network.wait()))?;
    master.stop()?;
    slave.stop()?;
    fs::remove_dir_all(&dir)?;
    Ok(taken)
}

fn side(tls: bool) -> &'static str {
    if tls { "tls" } else { "insecure" }
}

impl Times {
    /// A table of medians in milliseconds; the last column is the throughput by TLS in percent of that without.
    pub fn table(&self) -> String {
        let mut text = format!("{:<10} | {:>8} | {:>8} {:>10}", "ms", "insecure", "tls", "throughput");
        for figure in Figure::ALL {
            if let (Some(plain), Some(tls)) = (self.median(figure, false), self.median(figure, true)) {
                let percent = plain / tls * 100.0;
                let (plain, tls) = (plain * 1e3, tls * 1e3);
                let _ = write!(text, "\n{:<10} | {plain:>8.1} | {tls:>8.1} {percent:>8.0} %", figure.name());
            }
        }
        text
    }

    /// All single times in seconds, with medians.
    pub fn json(&self) -> serde_json::Value {
        let figure = |(&(figure, tls), times): (&(Figure, bool), &Vec<Duration>)| {
            json!({
                "figure": figure.name(),
                "subject": side(tls),
                "seconds": times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
                "median_seconds": median(times).as_secs_f64(),
            })
        };
        self.0.iter().map(figure).collect()
    }

    fn median(&self, figure: Figure, tls: bool) -> Option<f64> {
        self.0.get(&(figure, tls)).map(|times| median(times).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_that_of_medians() {
        let mut times = Times::default();
        times.0.insert((Figure::Untar, false), vec![Duration::from_millis(80)]);
        times.0.insert((Figure::Untar, true), vec![Duration::from_millis(100)]);
        assert!(times.table().contains("80 %"), "{}", times.table());
    }
}
