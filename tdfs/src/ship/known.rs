//! Which slave has which key: the file `known_slaves` in the state directory, `HOST:PORT SHA256:...` a line.
//!
//! Asked by `dial` right behind each handshake. A key that was met once is never replaced by itself.

use super::SlaveAddress;
use std::collections::BTreeMap;
use tdfs_host::key::Fingerprint;
use tdfs_host::state::{StateDir, StateError};

/// The file in the state directory.
const FILE_NAME: &str = "known_slaves";
/// Most bytes of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The keys that were pinned, by the address of the slave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownSlaves(BTreeMap<String, Fingerprint>);

/// What is to be made of the key that a slave has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the right one.
    Known,
    /// It is the first one, or the one that was given: to be pinned.
    New,
    /// Another one was given by `-c`.
    NotGiven(Fingerprint),
    /// Another one was pinned.
    Changed(Fingerprint),
    /// None was given (`--strict-keys`).
    Strict,
}

impl KnownSlaves {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read, or is damaged: no key is taken by guess.
    pub fn load(state: &StateDir) -> Result<KnownSlaves, StateError> {
        let text = state.read_bytes(FILE_NAME, FILE_BYTES_MAX)?.unwrap_or_default();
        parse(&text).map_err(|why| StateError::Damaged { path: state.path().join(FILE_NAME), why })
    }

    /// Writes the file; when this returns, it is on the disk.
    ///
    /// # Errors
    /// When it can't be written; what was there stays.
    pub fn store(&self, state: &StateDir) -> Result<(), StateError> {
        let text: String = self.0.iter().map(|(address, key)| format!("{address} {key}\n")).collect();
        state.write_bytes(FILE_NAME, text.as_bytes())
    }

    /// The key that was pinned.
    pub fn get(&self, address: &SlaveAddress) -> Option<Fingerprint> {
        self.0.get(&address.to_string()).copied()
    }

    /// Pins a key, or (None) forgets it; false if nothing has changed.
    pub fn set(&mut self, address: &SlaveAddress, key: Option<Fingerprint>) -> bool {
        let address = address.to_string();
        let before = match key {
            Some(key) => self.0.insert(address, key),
            None => self.0.remove(&address),
        };
        before != key
    }

    /// What is to be made of `shown`, where `given` was named by `-c`; `strict`: one has to be.
    pub fn judge(
        &self,
        address: &SlaveAddress,
        given: Option<Fingerprint>,
        shown: Fingerprint,
        strict: bool,
    ) -> Verdict {
        match (given, self.get(address)) {
            (None, _) if strict => Verdict::Strict,
            (Some(given), _) if given != shown => Verdict::NotGiven(given),
            (_, Some(pinned)) if pinned != shown => Verdict::Changed(pinned),
            (_, Some(_)) => Verdict::Known,
            (_, None) => Verdict::New,
        }
    }
}

fn parse(text: &[u8]) -> Result<KnownSlaves, String> {
    let text = std::str::from_utf8(text).map_err(|e| e.to_string())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = |line: &str| {
        let (address, key) = line.split_once(' ').ok_or_else(|| format!("no key in the line {line:?}"))?;
        Ok((address.to_owned(), key.trim().parse()?))
    };
    lines.map(line).collect::<Result<_, String>>().map(KnownSlaves)
}

#[cfg(test)]
mod tests {
    use super::{KnownSlaves, Verdict, parse};
    use tdfs_host::key::Fingerprint;
    use tdfs_host::state::StateDir;

    #[test]
    fn keys_are_judged() {
        let [a, b] = [1, 2].map(|n| Fingerprint::of(&[n]));
        let slave = "slave".parse().unwrap();
        let (empty, mut pinned) = (KnownSlaves::default(), KnownSlaves::default());
        assert!(pinned.set(&slave, Some(a)) && !pinned.set(&slave, Some(a)));
        for (known, given, shown, strict, verdict) in [
            (&empty, None, a, false, Verdict::New),
            (&empty, Some(a), a, false, Verdict::New),
            (&empty, Some(a), b, false, Verdict::NotGiven(a)),
            (&empty, Some(a), a, true, Verdict::New),
            (&empty, None, a, true, Verdict::Strict),
            (&pinned, None, a, false, Verdict::Known),
            (&pinned, Some(a), a, true, Verdict::Known),
            (&pinned, None, b, false, Verdict::Changed(a)),
            (&pinned, Some(b), b, false, Verdict::Changed(a)),
            (&pinned, Some(b), a, false, Verdict::NotGiven(b)),
            (&pinned, None, a, true, Verdict::Strict),
        ] {
            assert_eq!(known.judge(&slave, given, shown, strict), verdict);
        }
        assert!(pinned.set(&slave, None) && pinned == empty);
    }

    #[test]
    fn the_file_is_a_line_a_slave() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut known = KnownSlaves::load(&state).unwrap();
        let key = Fingerprint::of(&[1]);
        known.set(&"slave".parse().unwrap(), Some(key));
        known.set(&"[::1]:9".parse().unwrap(), Some(key));
        known.store(&state).unwrap();
        let text = std::fs::read_to_string(dir.path().join("known_slaves")).unwrap();
        assert_eq!(text, format!("[::1]:9 {key}\nslave:8337 {key}\n"));
        assert_eq!(KnownSlaves::load(&state).unwrap(), known);
        for bad in [&b"slave:8337"[..], b"slave:8337 SHA256:x", b"\xff"] {
            assert!(parse(bad).is_err());
        }
    }
}
