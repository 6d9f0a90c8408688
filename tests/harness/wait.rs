//! Waiting for something to become true, always with a deadline.

use std::time::{Duration, Instant};

/// Polls `done` until it holds; false when `limit` has passed first.
pub fn becomes_true(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Polls `done` until it holds and fails the test, naming `what`, when `limit` has passed first.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, done: impl FnMut() -> bool) {
    assert!(becomes_true(limit, done), "not within {limit:?}: {what}");
}

/// Polls `attempt` until it gives a value; None when `limit` has passed first.
pub fn first_some<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let mut found = None;
    becomes_true(limit, || {
        found = attempt();
        found.is_some()
    });
    found
}
