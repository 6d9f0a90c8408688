//! Keys and fingerprints: who a daemon is, and how others name it.
//!
//! Each daemon makes an Ed25519 key at its first start and keeps it in its state directory: the file `key`, PKCS#8
//! in PEM, mode 0600. Its fingerprint is `SHA256:` and the unpadded base64 of the SHA-256 of the DER
//! SubjectPublicKeyInfo. A key that is damaged, or that others can read, is an error: never silently a new key.

use crate::state::{StateDir, StateError, check_owner};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Its name in the state directory.
pub const FILE_NAME: &str = "key";
/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 4096;
/// Letters of a line in PEM.
const PEM_LINE: usize = 64;
/// What the DER SubjectPublicKeyInfo of an Ed25519 key begins with (RFC 8410); the key's 32 bytes follow.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What a fingerprint begins with.
const PREFIX: &str = "SHA256:";
/// How often, and after how long each, a command looks again for the key that a daemon is about to make.
const LOOKS: u32 = 20;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Names a public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

/// The key of a daemon. Shows nothing of its secret.
#[derive(Clone)]
pub struct Key {
    fingerprint: Fingerprint,
    certified: Arc<CertifiedKey>,
}

impl Fingerprint {
    /// Of a public key as TLS carries it: a DER SubjectPublicKeyInfo.
    pub fn of(public: &[u8]) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, public).as_ref());
        Fingerprint(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let bytes = text.strip_prefix(PREFIX).and_then(|rest| STANDARD_NO_PAD.decode(rest).ok());
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        bytes.map(Fingerprint).ok_or_else(|| {
            format!("{text:?} is no fingerprint: give {PREFIX} and 43 letters, as `tdfs key` and `tdfs-slave key` show it")
        })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Fingerprint, String> {
        text.parse()
    }
}

impl Key {
    /// The key in a state directory that this process holds; made, and on the disk, if there is none.
    ///
    /// # Errors
    /// When it can't be read or made, is damaged, or others can read it.
    pub fn open(state: &StateDir) -> Result<Key, StateError> {
        if let Some(key) = read(state.fd(), state.path())? {
            return Ok(key);
        }
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
        let made = made.map_err(|_| io_error("make", state.path(), io::Error::other("no random numbers")))?;
        state.write_bytes(FILE_NAME, to_pem(made.as_ref()).as_bytes())?;
        Key::from_pkcs8(made.as_ref()).map_err(|why| damaged(state.path(), why))
    }

    /// What names it.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The form in which TLS wants it.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Key, String> {
        // Looks whether the public key in there is that of the secret one: a flipped bit is found.
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|e| format!("it holds no Ed25519 key ({e})"))?;
        let public = [&SPKI_HEAD[..], pair.public_key().as_ref()].concat();
        let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).map_err(|e| e.to_string())?;
        let fingerprint = Fingerprint::of(&public);
        let certified = CertifiedKey::new(vec![CertificateDer::from(public)], signing);
        Ok(Key { fingerprint, certified: Arc::new(certified) })
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.fingerprint)
    }
}

/// The fingerprint of the key in the state directory `state`, whether its daemon runs or not; both are made where
/// they are missing.
///
/// # Errors
/// As [`Key::open`].
pub fn fingerprint_at(state: &Path) -> Result<Fingerprint, StateError> {
    for look in 0.. {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(state, flags, Mode::empty()) {
            Ok(dir) => {
                if let Some(key) = read(dir.as_fd(), state)? {
                    return Ok(key.fingerprint());
                }
            }
            Err(Errno::NOENT) => {}
            Err(e) => {
                return Err(StateError::Io { action: "open", path: state.to_owned(), source: e.into() });
            }
        }
        match StateDir::open(state).and_then(|state| Key::open(&state)) {
            // A daemon that starts at this moment: it makes the key.
            Err(StateError::Locked { .. }) if look < LOOKS => std::thread::sleep(LOOK_INTERVAL),
            made => return made.map(|key| key.fingerprint()),
        }
    }
    unreachable!("the last look returns");
}

/// The key in a directory; None if there is none.
fn read(dir: BorrowedFd<'_>, shown: &Path) -> Result<Option<Key>, StateError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(dir, FILE_NAME, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(io_error("open", shown, e.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|e| io_error("look at", shown, e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(damaged(shown, "it is no regular file".into()));
    }
    check_owner(&file, &shown.join(FILE_NAME))?;
    if stat.st_mode & 0o077 != 0 {
        return Err(StateError::Exposed { path: shown.join(FILE_NAME), mode: stat.st_mode & 0o7777 });
    }
    let mut pem = Vec::new();
    let read = File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut pem);
    read.map_err(|e| io_error("read", shown, e))?;
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&pem)
        .map_err(|_| damaged(shown, "it is no private key in PEM".into()))?;
    let key = Key::from_pkcs8(pkcs8.secret_pkcs8_der()).map_err(|why| damaged(shown, why))?;
    Ok(Some(key))
}

fn to_pem(der: &[u8]) -> String {
    let letters = STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in letters.as_bytes().chunks(PEM_LINE) {
        pem.extend(line.iter().map(|letter| char::from(*letter)));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    pem
}

fn io_error(action: &'static str, dir: &Path, source: io::Error) -> StateError {
    StateError::Io { action, path: dir.join(FILE_NAME), source }
}

fn damaged(dir: &Path, why: String) -> StateError {
    StateError::Damaged { path: dir.join(FILE_NAME), why }
}

#[cfg(test)]
mod tests;
