//! How long to wait before dialling again: doubling, bounded, with jitter so that many don't come at once.

use std::time::Duration;

const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// The delays of one slave.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    noise: u64,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Backoff {
        Backoff { next: DELAY_MIN, noise: seed }
    }

    /// The next delay; the one after it is twice as long.
    pub(crate) fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(DELAY_MAX);
        self.jitter(delay)
    }

    /// The longest delay.
    pub(crate) fn delay_max(&mut self) -> Duration {
        self.next = DELAY_MAX;
        self.jitter(DELAY_MAX)
    }

    /// All went well: the next delay is short again.
    pub(crate) fn reset(&mut self) {
        self.next = DELAY_MIN;
    }

    /// Between three quarters of `delay` and all of it (splitmix64).
    fn jitter(&mut self, delay: Duration) -> Duration {
        self.noise = self.noise.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.noise;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((z >> 32) % 256).expect("below 256");
        delay - delay / 1024 * part
    }
}
