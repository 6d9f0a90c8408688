//! What a comparison by `tdfs verify` has found of one slave so far.
//!
//! Filled by the slave's task, read by the daemon for the command that asks for it again and again. A command
//! that asks no more is gone: then the comparison is cancelled.

use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tdfs_wire::message::{Difference, Finding, Verified};

/// After so long without a question the comparison is cancelled.
pub const ASKED_WITHIN: Duration = Duration::from_secs(30);
/// Most findings that are kept of a slave.
pub const FOUND_MAX: usize = 10_000;
/// Most findings that are told in one answer.
const PAGE: usize = 1000;

/// One object that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The object, from the root of the tree; bytes that are no printable ASCII are escaped.
    pub path: String,
    /// missing, extra, kind, content, attributes, or links.
    pub what: String,
}

/// How the comparison with one slave stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyStatus {
    /// As given by `-c`.
    pub address: String,
    /// The slave's state, as in `status`.
    pub state: String,
    /// How far it is.
    pub progress: Option<super::ResyncStatus>,
    /// Findings from the one on that was asked for.
    pub found: Vec<Found>,
    /// Set when it is over.
    pub ended: Option<Ended>,
    /// What a human should know of the slave.
    pub last_error: Option<String>,
}

/// The end of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The record as of which the last object was compared.
    pub as_of: u64,
    /// Objects that were compared.
    pub objects: u64,
    /// Bytes of content that were compared.
    pub bytes: u64,
    /// Objects that differed; of very many only the first are told.
    pub differences: u64,
}

/// What was told of one comparison.
#[derive(Debug)]
pub struct Verify {
    id: u64,
    found: Vec<Found>,
    /// What is in `found`: a slave tells some again after a lost connection.
    told: HashSet<String>,
    ended: Option<Ended>,
    asked_at: Instant,
}

impl Verify {
    /// Of a comparison that begins.
    pub fn new(id: u64) -> Verify {
        Verify { id, found: Vec::new(), told: HashSet::new(), ended: None, asked_at: Instant::now() }
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// It is told again from the beginning.
    pub fn restart(&mut self) {
        self.found.clear();
        self.told.clear();
    }

    /// Takes in what the slave tells.
    pub fn found(&mut self, finding: &Finding) {
        match finding {
            Finding::Difference { path, what, .. } => {
                let (path, what) = (path.to_string(), word(*what).into());
                if self.found.len() < FOUND_MAX && self.told.insert(path.clone()) {
                    self.found.push(Found { path, what });
                }
            }
            Finding::Ended(Verified { as_of, objects, bytes, differences, .. }) => {
                let (as_of, objects) = (as_of.get(), *objects);
                self.ended = Some(Ended { as_of, objects, bytes: *bytes, differences: *differences });
            }
        }
    }

    /// Findings from number `from` on, and the end if all were told with them.
    pub fn since(&mut self, from: usize) -> (Vec<Found>, Option<Ended>) {
        self.asked_at = Instant::now();
        let found: Vec<Found> = self.found.iter().skip(from).take(PAGE).cloned().collect();
        let all = from + found.len() >= self.found.len();
        (found, self.ended.filter(|_| all))
    }

    /// True if nobody asks for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.asked_at.elapsed() >= ASKED_WITHIN
    }
}

fn word(what: Difference) -> &'static str {
    match what {
        Difference::Missing => "missing",
        Difference::Extra => "extra",
        Difference::Kind => "kind",
        Difference::Content => "content",
        Difference::Attributes => "attributes",
        Difference::Links => "links",
    }
}
