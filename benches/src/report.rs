//! Collects the times and prints medians and ratios, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use crate::fds;
use crate::resync;
use crate::subject::Subject;
use crate::tls;
use crate::workload::Workload;

/// Everything that was measured.
pub struct Report {
    subjects: Vec<Subject>,
    times: BTreeMap<(Workload, Subject), Vec<Duration>>,
    /// The most files tdfs had open in the fd check.
    pub fds: Option<usize>,
    /// The resyncs.
    pub resync: Option<resync::Times>,
    /// TLS beside plain TCP.
    pub tls: Option<tls::Times>,
}

impl Report {
    /// An empty report of these subjects.
    pub fn new(subjects: &[Subject]) -> Self {
        Self { subjects: subjects.to_vec(), times: BTreeMap::new(), fds: None, resync: None, tls: None }
    }

    /// Takes in one time.
    pub fn add(&mut self, workload: Workload, subject: Subject, taken: Duration) {
        self.times.entry((workload, subject)).or_default().push(taken);
    }

    /// The figures in which a form of tdfs takes more than `limit` times what bindfs, or rsync, takes.
    pub fn over(&self, limit: f64) -> Vec<(String, f64)> {
        let tdfs = self.subjects.iter().filter(|subject| subject.is_tdfs());
        let mut over = Vec::new();
        for subject in tdfs {
            for workload in Workload::ALL {
                if let Some(ratio) = self.ratio(workload, *subject, Subject::Bindfs).filter(|r| *r > limit) {
                    over.push((format!("{} on {}", workload.name(), subject.name()), ratio));
                }
            }
        }
        for (name, ratio) in self.resync.iter().flat_map(|resync| resync.over(limit)) {
            over.push((format!("{name}, beside rsync"), ratio));
        }
        over
    }

    /// A table of medians in milliseconds, each with its ratio to native and to bindfs.
    pub fn table(&self) -> String {
        let mut text = if self.times.is_empty() { String::new() } else { self.mounts_table() };
        if let Some(open) = self.fds {
            let _ = write!(text, "\n{}: {open}", fds::WHAT);
        }
        if let Some(resync) = &self.resync {
            let _ = write!(text, "\n{}", resync.table());
        }
        if let Some(tls) = &self.tls {
            let _ = write!(text, "\n{}", tls.table());
        }
        text.trim_start().to_owned()
    }

    fn mounts_table(&self) -> String {
        let mut text = format!("{:<10}", "ms");
        for subject in &self.subjects {
            let _ = write!(text, " | {:>8} {:>8} {:>8}", subject.name(), "/native", "/bindfs");
        }
        for workload in Workload::ALL.into_iter().filter(|w| self.subjects.iter().any(|s| self.has(*w, *s))) {
            let _ = write!(text, "\n{:<10}", workload.name());
            for subject in &self.subjects {
                let ms = self.median(workload, *subject).map(|taken| taken.as_secs_f64() * 1e3);
                let native = self.ratio(workload, *subject, Subject::Native);
                let bindfs = self.ratio(workload, *subject, Subject::Bindfs);
                let _ = write!(text, " | {:>8} {:>8} {:>8}", cell(ms, 1), cell(native, 2), cell(bindfs, 2));
            }
        }
        text
    }

    /// All single times in seconds, with medians and ratios.
    pub fn json(&self) -> String {
        let figures: Vec<_> = self
            .times
            .iter()
            .map(|((workload, subject), times)| {
                json!({
                    "figure": workload.name(),
                    "what": workload.what(),
                    "subject": subject.name(),
                    "seconds": times.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
                    "median_seconds": median(times).as_secs_f64(),
                    "to_native": self.ratio(*workload, *subject, Subject::Native),
                    "to_bindfs": self.ratio(*workload, *subject, Subject::Bindfs),
                })
            })
            .collect();
        format!(
            "{:#}",
            json!({
                "figures": figures,
                "resync": self.resync.as_ref().map(resync::Times::json),
                "tls": self.tls.as_ref().map(tls::Times::json),
                "fds_max": self.fds,
            })
        )
    }

    fn has(&self, workload: Workload, subject: Subject) -> bool {
        self.times.contains_key(&(workload, subject))
    }

    fn median(&self, workload: Workload, subject: Subject) -> Option<Duration> {
        self.times.get(&(workload, subject)).map(|times| median(times))
    }

    fn ratio(&self, workload: Workload, subject: Subject, to: Subject) -> Option<f64> {
        let to = self.median(workload, to)?.as_secs_f64();
        Some(self.median(workload, subject)?.as_secs_f64() / to)
    }
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The middle one, or the mean of the two middle ones; zero of nothing.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => Duration::ZERO,
        (n, middle) if n % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_outliers_and_halves_an_even_number() {
        let ms = Duration::from_millis;
        assert_eq!(median(&[ms(5), ms(900), ms(3)]), ms(5));
        assert_eq!(median(&[ms(4), ms(900), ms(2), ms(6)]), ms(5));
    }

    #[test]
    fn ratios_are_those_of_medians_and_only_tdfs_is_held_to_the_limit() {
        let mut report = Report::new(&[Subject::Native, Subject::Bindfs, Subject::Tdfs]);
        for (subject, ms) in [(Subject::Native, 10), (Subject::Bindfs, 100), (Subject::Tdfs, 120)] {
            report.add(Workload::Write, subject, Duration::from_millis(ms));
        }
        let over = report.over(1.05);
        assert_eq!(over.len(), 1);
        assert!((over[0].1 - 1.2).abs() < 1e-9);
        assert!(report.over(1.25).is_empty());
        assert!(report.table().contains("1.20"));
    }
}
