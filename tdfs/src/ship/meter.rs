//! How fast a comparison goes and how long it will take, from what a slave tells of it now and then.
//!
//! Kept by each slave's task. Pure.

use crate::status::bytes;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};
use tdfs_wire::message::{Phase, ResyncProgress};

/// The phase of a resync that waits for a human.
pub const CONFIRM: &str = "confirm";
/// Speed is that of the last while.
const WINDOW: Duration = Duration::from_secs(10);

/// What `status` tells of a resync, a check or a comparison that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResyncStatus {
    /// checking, resyncing, confirm (it waits for `tdfs resync --confirm`), waiting, or verifying.
    pub phase: String,
    /// Objects that were compared, or made equal.
    pub objects_done: u64,
    /// Objects that are known to be needed still; more may be found.
    pub objects_left: u64,
    /// Bytes of content that were compared.
    pub bytes_done: u64,
    /// Bytes of content that are known to be needed still.
    pub bytes_left: u64,
    /// Objects that were not equal.
    pub differences: u64,
    /// Objects a second, lately.
    pub objects_per_second: f64,
    /// Bytes of content a second, lately.
    pub bytes_per_second: f64,
    /// At this speed, for what is known to be needed; None: that can't be said.
    pub seconds_left: Option<f64>,
}

impl fmt::Display for ResyncStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, all) = (self.objects_done, self.objects_done + self.objects_left);
        write!(f, "{}: {done} of {all} objects", self.phase)?;
        write!(f, ", {} of {}", bytes(self.bytes_done), bytes(self.bytes_done + self.bytes_left))?;
        if self.differences > 0 {
            write!(f, ", {} differed", self.differences)?;
        }
        if let Some(left) = self.seconds_left {
            write!(f, ", {:.0} objects/s, {:.0} s left", self.objects_per_second, left)?;
        }
        Ok(())
    }
}

/// Measures one comparison.
#[derive(Debug, Default)]
pub struct Meter {
    samples: VecDeque<(Instant, ResyncProgress)>,
}

impl Meter {
    /// Takes in what was told last.
    pub fn update(&mut self, progress: Option<ResyncProgress>, now: Instant) {
        let Some(progress) = progress else { return self.samples.clear() };
        let Some((_, last)) = self.samples.back() else { return self.samples.push_back((now, progress)) };
        if *last == progress {
            return;
        }
        if last.objects_done > progress.objects_done || last.phase != progress.phase {
            self.samples.clear(); // another one
        }
        self.samples.push_back((now, progress));
        // The oldest is what the speed is measured from.
        while self.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// How it is now.
    pub fn status(&self) -> Option<ResyncStatus> {
        let ((first_at, first), (last_at, last)) = (self.samples.front()?, self.samples.back()?);
        let seconds = last_at.duration_since(*first_at).as_secs_f64();
        let speed =
            |from: u64, to: u64| if seconds > 0.0 { float(to.saturating_sub(from)) / seconds } else { 0.0 };
        let objects_per_second = speed(first.objects_done, last.objects_done);
        let bytes_per_second = speed(first.bytes_done, last.bytes_done);
        let time = |left: u64, speed: f64| match (left, speed > 0.0) {
            (0, _) => Some(0.0),
            (_, true) => Some(float(left) / speed),
            (_, false) => None,
        };
        let objects = time(last.objects_left, objects_per_second);
        let bytes = time(last.bytes_left, bytes_per_second);
        Some(ResyncStatus {
            phase: word(last.phase).into(),
            objects_done: last.objects_done,
            objects_left: last.objects_left,
            bytes_done: last.bytes_done,
            bytes_left: last.bytes_left,
            differences: last.differences,
            objects_per_second,
            bytes_per_second,
            seconds_left: objects.zip(bytes).map(|(a, b)| a.max(b)),
        })
    }
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Checking => "checking",
        Phase::Resyncing => "resyncing",
        Phase::Confirm => CONFIRM,
        Phase::Waiting => "waiting",
        Phase::Verifying => "verifying",
    }
}

#[expect(clippy::cast_precision_loss, reason = "a speed, for people")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(objects_done: u64, objects_left: u64) -> Option<ResyncProgress> {
        let phase = Phase::Resyncing;
        Some(ResyncProgress {
            phase,
            objects_done,
            objects_left,
            bytes_done: objects_done * 100,
            bytes_left: objects_left * 100,
            differences: 0,
        })
    }

    #[test]
    fn speed_is_that_of_the_last_while() {
        let (start, mut meter) = (Instant::now(), Meter::default());
        assert_eq!(meter.status(), None);
        meter.update(progress(0, 100), start);
        assert_eq!(meter.status().unwrap().seconds_left, None, "nothing to measure by");
        for second in 1..=30 {
            let done = if second <= 15 { second } else { 15 + (second - 15) * 10 };
            meter.update(progress(done, 200 - done), start + Duration::from_secs(second));
        }
        let status = meter.status().unwrap();
        assert!((status.objects_per_second - 10.0).abs() < 0.01, "{status:?}");
        assert!((status.seconds_left.unwrap() - 3.5).abs() < 0.01, "{status:?}");
        meter.update(None, start + Duration::from_secs(31));
        assert_eq!(meter.status(), None);
    }
}
