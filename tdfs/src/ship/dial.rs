//! Makes connections to network slaves, and lets only those through that have shown the right key.
//!
//! Called by a slave's task. Nothing of ours but our key is sent before the slave's key was proven, judged and, if
//! it is a new one, noted on the disk.

use super::known::{KnownSlaves, Verdict};
use super::{NamedSlave, Outlet, Parcel, Ship, SlaveAddress};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use tdfs_host::key::Fingerprint;
use tdfs_host::link::{ReadHalf, WriteHalf};
use tdfs_host::state::{StateDir, StateError};
use tdfs_host::tls::{Client, Proven, TlsError};
use tokio::net::TcpStream;

/// How network slaves are talked to.
pub struct Trust {
    /// Our side of TLS; None: plain TCP (`--insecure`).
    pub tls: Option<Client>,
    /// Only slaves whose key was given (`--strict-keys`).
    pub strict: bool,
    /// What forgets a slave's key, but for the slave: `tdfs repin -m DIR`.
    pub repin: String,
}

/// A connection that records may be sent over.
pub struct Dialled {
    /// What comes from the slave.
    pub reader: ReadHalf,
    /// What goes to it.
    pub writer: WriteHalf,
    /// The key that it has proven; None: none was asked for.
    pub key: Option<Fingerprint>,
}

/// Why there is none.
#[derive(Debug)]
pub enum DialError {
    /// It could not be made.
    Failed(String),
    /// It may not be used until a human does something.
    Refused {
        /// In words.
        why: String,
        /// It may be an attack.
        is_alarm: bool,
    },
}

impl From<io::Error> for DialError {
    fn from(e: io::Error) -> DialError {
        DialError::Failed(format!("connect: {e}"))
    }
}

/// The slaves' keys, as all tasks share them.
pub struct Keys {
    state: Arc<StateDir>,
    known: Mutex<KnownSlaves>,
}

impl Keys {
    /// Reads what is known.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn load(state: &Arc<StateDir>) -> Result<Keys, StateError> {
        Ok(Keys { known: Mutex::new(KnownSlaves::load(state)?), state: Arc::clone(state) })
    }

    /// The key that was pinned.
    pub fn get(&self, address: &SlaveAddress) -> Option<Fingerprint> {
        self.known.lock().get(address)
    }

    /// Pins a key, or (None) forgets it; when this returns, that is on the disk. False if nothing has changed.
    ///
    /// # Errors
    /// When it can't be written; nothing has changed then.
    pub fn set(&self, address: &SlaveAddress, key: Option<Fingerprint>) -> Result<bool, StateError> {
        let mut known = self.known.lock();
        let mut new = known.clone();
        if !new.set(address, key) {
            return Ok(false);
        }
        new.store(&self.state)?;
        *known = new;
        Ok(true)
    }

    fn judge(&self, outlet: &Outlet, shown: Fingerprint, trust: &Trust) -> Result<(), DialError> {
        let (address, given) = (&outlet.address, outlet.given_key);
        let verdict = self.known.lock().judge(address, given, shown, trust.strict);
        let refused = |why| Err(DialError::Refused { why, is_alarm: true });
        match verdict {
            Verdict::Known => Ok(()),
            Verdict::New => {
                if let Err(e) = self.set(address, Some(shown)) {
                    return Err(DialError::Failed(format!(
                        "its key can't be noted, so nothing is sent: {e}"
                    )));
                }
                if given.is_none() {
                    tracing::warn!("slave {address}: its key was not known: {shown} is its key from now on");
                }
                Ok(())
            }
            Verdict::NotGiven(given) => refused(format!(
                "IT SHOWS ANOTHER KEY THAN THE ONE THAT WAS GIVEN: somebody may pose as this slave. It shows {shown}, \
                 -c (or add) gave {given}: compare it with what `tdfs-slave key` says there"
            )),
            Verdict::Changed(pinned) => refused(format!(
                "ITS KEY HAS CHANGED: somebody may pose as this slave. It shows {shown} and had {pinned}: compare it \
                 with what `tdfs-slave key` says there; if it is right: {} {address}",
                trust.repin
            )),
            Verdict::Strict => Err(DialError::Refused {
                why: format!(
                    "its key was not given (--strict-keys): compare {shown} with what `tdfs-slave key` says there, and \
                     name it -c {address}#{shown}"
                ),
                is_alarm: false,
            }),
        }
    }
}

impl Ship {
    /// Forgets the key of a slave, or takes `key` for its. A connection that stands is made anew.
    ///
    /// # Errors
    /// In words: nothing was known of it, or the state can't be written.
    pub fn repin(&self, NamedSlave { address, key }: &NamedSlave) -> Result<(), String> {
        let outlet = self.outlet(address);
        if let (Some(given), Some(key)) = (outlet.as_ref().and_then(|outlet| outlet.given_key), key)
            && given != *key
        {
            return Err(format!("tdfs was started with -c {address}#{given}: start it with the other key"));
        }
        let changed = self.shared.keys.set(address, *key).map_err(|e| e.to_string())?;
        match outlet {
            Some(outlet) => outlet.put(Parcel::Repinned),
            None if !changed => return Err(format!("no key of {address} is known")),
            None => {}
        }
        Ok(())
    }
}

/// Connects to a slave on the network.
pub async fn dial(
    (outlet, keys, trust): (&Outlet, &Keys, &Trust),
    (host, port): (&str, u16),
    nodelay: bool,
) -> Result<Dialled, DialError> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(nodelay)?;
    let Some(tls) = &trust.tls else {
        let (reader, writer) = stream.into_split();
        return Ok(Dialled { reader: Box::new(reader), writer: Box::new(writer), key: None });
    };
    let Proven { reader, writer, peer } = tls.connect(stream).await.map_err(|e| match e {
        TlsError::Plain => DialError::Refused {
            why: "the slave was started with --insecure and this master was not: start tdfs-slave without it (or \
                  tdfs with it)"
                .into(),
            is_alarm: false,
        },
        TlsError::Protocol => DialError::Refused { why: e.to_string(), is_alarm: false },
        TlsError::Failed(e) => DialError::Failed(format!("connect by TLS: {e}")),
    })?;
    // A new key is written to the disk.
    tokio::task::block_in_place(|| keys.judge(outlet, peer, trust))?;
    Ok(Dialled { reader, writer, key: Some(peer) })
}
