//! Connections that have not been greeted yet: few at once, few of one peer; above that the oldest goes.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use tdfs_host::key::Fingerprint;
use tokio::sync::Notify;

/// Most of them at once.
const PLACES_MAX: usize = 64;
/// Most of them of one peer.
const PLACES_PER_PEER_MAX: usize = 8;

/// Who is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// All that comes from one address.
    Stranger(IpAddr),
    /// All that has proven one key.
    Master(Fingerprint),
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    who: Who,
    out: Arc<Notify>,
}

/// One of them; dropped when it is greeted or gone.
#[derive(Debug)]
pub struct Place {
    waiting: Arc<Mutex<VecDeque<Waiting>>>,
    out: Arc<Notify>,
}

impl Lobby {
    /// Takes a place; sends the oldest away where there are too many.
    pub(super) fn enter(&self, who: Who) -> Place {
        let out = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        let same = waiting.iter().filter(|one| one.who == who).count();
        let gone = if same >= PLACES_PER_PEER_MAX {
            waiting.iter().position(|one| one.who == who)
        } else {
            (waiting.len() >= PLACES_MAX).then_some(0)
        };
        if let Some(one) = gone.and_then(|at| waiting.remove(at)) {
            one.out.notify_one();
        }
        waiting.push_back(Waiting { who, out: Arc::clone(&out) });
        Place { waiting: Arc::clone(&self.waiting), out }
    }
}

impl Place {
    /// Waits until a newer one needs the place.
    pub(super) async fn sent_away(&self) {
        self.out.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.lock().retain(|one| !Arc::ptr_eq(&one.out, &self.out));
    }
}

#[cfg(test)]
mod tests {
    use super::{Lobby, Who};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    #[test]
    fn the_oldest_goes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let lobby = Lobby::default();
            let address = |n: u8| Who::Stranger(IpAddr::V4(Ipv4Addr::new(127, 0, 0, n)));
            let mut places: Vec<_> = (0..8).map(|_| lobby.enter(address(1))).collect();
            let others: Vec<_> = (0..7).flat_map(|n| (0..8).map(move |_| n)).collect();
            places.extend(others.iter().map(|n| lobby.enter(address(n + 2))));
            let away = async |at: usize, places: &[super::Place]| {
                tokio::time::timeout(Duration::from_millis(5), places[at].sent_away()).await.is_ok()
            };
            assert!(!away(0, &places).await);
            places.push(lobby.enter(address(2)));
            assert!(!away(0, &places).await && away(8, &places).await, "the oldest of that address");
            places.push(lobby.enter(address(99)));
            assert!(away(0, &places).await, "the oldest of all");
            drop(places);
            assert!(lobby.waiting.lock().is_empty());
        });
    }
}
