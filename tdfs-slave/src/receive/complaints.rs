//! What was logged about peers that are turned away: the same is not said again, and nobody can fill the log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Of so many peers the last complaint is remembered.
const PEERS_MAX: usize = 256;
/// A peer with something new to complain about is not named again before so long.
const PEER_INTERVAL: Duration = Duration::from_secs(10);
/// Most lines in a [`WINDOW`], whoever they are about.
const LINES_MAX: usize = 60;
const WINDOW: Duration = Duration::from_secs(60);

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: HashMap<String, Said>,
    window: Option<(Instant, usize)>,
}

#[derive(Debug)]
struct Said {
    why: String,
    at: Instant,
}

impl Complaints {
    /// True if `why` is to be logged of that peer now: it is not what was said last (or that was `again` ago).
    pub(super) fn is_due(&mut self, who: &str, why: &str, again: Option<Duration>, now: Instant) -> bool {
        if let Some(said) = self.said.get(who) {
            let age = now.saturating_duration_since(said.at);
            let is_same = said.why == why;
            if (is_same && again.is_none_or(|again| age < again)) || (!is_same && age < PEER_INTERVAL) {
                return false;
            }
        }
        let (began, lines) = self.window.filter(|(began, _)| now < *began + WINDOW).unwrap_or((now, 0));
        self.window = Some((began, (lines + 1).min(LINES_MAX + 1)));
        if lines == LINES_MAX {
            tracing::warn!("more peers are turned away than can be named (RUST_LOG=debug names them all)");
        }
        if lines >= LINES_MAX {
            return false;
        }
        if self.said.len() >= PEERS_MAX
            && !self.said.contains_key(who)
            && let Some(oldest) = self.said.iter().min_by_key(|(_, said)| said.at).map(|(who, _)| who.clone())
        {
            self.said.remove(&oldest);
        }
        self.said.insert(who.to_owned(), Said { why: why.to_owned(), at: now });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Complaints, LINES_MAX, PEER_INTERVAL, PEERS_MAX, WINDOW};
    use std::time::{Duration, Instant};

    #[test]
    fn the_same_is_not_said_again() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        let minute = Duration::from_secs(60);
        assert!(complaints.is_due("a", "x", None, start));
        assert!(!complaints.is_due("a", "x", None, start + 9 * minute));
        assert!(complaints.is_due("a", "x", Some(minute), start + 9 * minute), "once a minute");
        assert!(!complaints.is_due("a", "x", Some(minute), start + 10 * minute - Duration::from_secs(1)));
        let start = start + 20 * minute;
        assert!(complaints.is_due("a", "y", None, start));
        assert!(!complaints.is_due("a", "x", None, start + Duration::from_secs(1)), "who says this and that");
        assert!(complaints.is_due("a", "x", None, start + PEER_INTERVAL));
    }

    #[test]
    fn many_peers_fill_neither_the_log_nor_the_memory() {
        let (mut complaints, start) = (Complaints::default(), Instant::now());
        let mut said = 0;
        for peer in 0..10_000_u32 {
            let now = start + WINDOW / 10_000 * peer;
            said += usize::from(complaints.is_due(&peer.to_string(), "x", None, now));
        }
        assert_eq!(said, LINES_MAX);
        for minute in 1..20 {
            for peer in 0..1000 {
                complaints.is_due(&format!("{minute}.{peer}"), "x", None, start + WINDOW * minute);
            }
        }
        assert_eq!(complaints.said.len(), PEERS_MAX);
    }
}
