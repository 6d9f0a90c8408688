//! Which masters are allowed: their fingerprints, in the file `allowed_masters` of the state directory, one a line.
//!
//! Asked by `receive` for each connection, changed by commands. What `--allow` gives is allowed while this process
//! runs and stands in no file: who takes the flag away takes the permission away.

use parking_lot::Mutex;
use std::sync::Arc;
use tdfs_host::key::Fingerprint;
use tdfs_host::state::{StateDir, StateError};
use tokio::sync::watch;

/// The file in the state directory.
pub const FILE_NAME: &str = "allowed_masters";
/// Most bytes of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// All of them.
#[derive(Debug)]
pub struct Allowed {
    state: Arc<StateDir>,
    lists: Mutex<Lists>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Lists {
    kept: Vec<Fingerprint>,
    given: Vec<Fingerprint>,
}

impl Allowed {
    /// Those in the file of a state directory, and those `given` by `--allow`.
    ///
    /// # Errors
    /// When the file can't be read, or is damaged: nobody is allowed by guess.
    pub fn open(state: Arc<StateDir>, given: &[Fingerprint]) -> Result<Allowed, StateError> {
        let text = state.read_bytes(FILE_NAME, FILE_BYTES_MAX)?.unwrap_or_default();
        let kept =
            parse(&text).map_err(|why| StateError::Damaged { path: state.path().join(FILE_NAME), why })?;
        let lists = Mutex::new(Lists { kept, given: given.to_vec() });
        Ok(Allowed { state, lists, changed: watch::Sender::new(()) })
    }

    /// True if that one is allowed.
    pub fn contains(&self, master: Fingerprint) -> bool {
        let lists = self.lists.lock();
        lists.kept.contains(&master) || lists.given.contains(&master)
    }

    /// All of them.
    pub fn list(&self) -> Vec<Fingerprint> {
        let lists = self.lists.lock();
        let mut all = [&lists.kept[..], &lists.given].concat();
        all.sort();
        all.dedup();
        all
    }

    /// Allows one; when this returns, that is on the disk.
    ///
    /// # Errors
    /// When it can't be written; nothing has changed then.
    pub fn allow(&self, master: Fingerprint) -> Result<(), StateError> {
        let mut lists = self.lists.lock();
        if !lists.kept.contains(&master) {
            let kept = [&lists.kept[..], &[master]].concat();
            self.write(&kept)?;
            lists.kept = kept;
        }
        Ok(())
    }

    /// Allows one no longer; false if it was not allowed. The disk is written first; its connection ends.
    ///
    /// # Errors
    /// When it can't be written; it is not allowed while this process runs all the same.
    pub fn disallow(&self, master: Fingerprint) -> Result<bool, StateError> {
        let mut lists = self.lists.lock();
        let before = lists.kept.len() + lists.given.len();
        let was_kept = lists.kept.contains(&master);
        lists.kept.retain(|other| *other != master);
        lists.given.retain(|other| *other != master);
        let was_allowed = lists.kept.len() + lists.given.len() < before;
        let written = if was_kept { self.write(&lists.kept) } else { Ok(()) };
        drop(lists);
        self.changed.send_replace(());
        written.map(|()| was_allowed)
    }

    /// Waits until that one is not allowed.
    pub async fn revoked(&self, master: Fingerprint) {
        let mut changed = self.changed.subscribe();
        while self.contains(master) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn write(&self, kept: &[Fingerprint]) -> Result<(), StateError> {
        let text: String = kept.iter().map(|master| format!("{master}\n")).collect();
        self.state.write_bytes(FILE_NAME, text.as_bytes())
    }
}

fn parse(text: &[u8]) -> Result<Vec<Fingerprint>, String> {
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::{Allowed, FILE_NAME};
    use std::sync::Arc;
    use std::time::Duration;
    use tdfs_host::key::Fingerprint;
    use tdfs_host::state::StateDir;

    #[test]
    fn the_list_is_kept_and_what_is_given_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(dir.path()).unwrap());
        let [a, b, c] = [1, 2, 3].map(|n| Fingerprint::of(&[n]));
        let allowed = Allowed::open(Arc::clone(&state), &[c]).unwrap();
        allowed.allow(a).unwrap();
        allowed.allow(b).unwrap();
        allowed.allow(a).unwrap();
        assert_eq!(allowed.list().len(), 3);
        assert!(allowed.disallow(b).unwrap() && !allowed.disallow(b).unwrap());
        let again = Allowed::open(Arc::clone(&state), &[]).unwrap();
        assert_eq!(again.list(), [a]);
        assert!(allowed.contains(c) && !again.contains(c) && !again.contains(b));
        assert!(allowed.disallow(c).unwrap() && !allowed.contains(c));
        std::fs::write(dir.path().join(FILE_NAME), "SHA256:x\n").unwrap();
        assert!(Allowed::open(state, &[]).unwrap_err().to_string().contains("is damaged"));
    }

    #[test]
    fn a_connection_hears_that_it_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = Allowed::open(Arc::new(StateDir::open(dir.path()).unwrap()), &[]).unwrap();
        let [a, b] = [1, 2].map(|n| Fingerprint::of(&[n]));
        allowed.allow(a).unwrap();
        allowed.allow(b).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let soon = async |allowed: &Allowed| {
                tokio::time::timeout(Duration::from_millis(20), allowed.revoked(a)).await.is_ok()
            };
            assert!(!soon(&allowed).await);
            allowed.disallow(b).unwrap();
            assert!(!soon(&allowed).await);
            let (revoked, ()) = tokio::join!(soon(&allowed), async {
                allowed.disallow(a).unwrap();
            });
            assert!(revoked && soon(&allowed).await);
        });
    }
}
