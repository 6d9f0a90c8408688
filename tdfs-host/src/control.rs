//! The control socket: how commands such as `tdfs status` talk to the running daemon.
//!
//! One line of JSON asks, one line of JSON answers, then the connection ends. The socket lies in the state
//! directory; only its owner and root are answered.

use crate::state::StateDir;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Its name in the state directory.
pub const SOCKET_NAME: &str = "control.sock";
/// Most bytes of a request.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long a peer may take to send its request or to take the answer.
const PEER_MAX: Duration = Duration::from_secs(10);
/// Most requests at once; more wait.
const REQUESTS_MAX: usize = 8;
/// Longest path that fits into a socket address.
const ADDRESS_BYTES_MAX: usize = 107;

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Request {
    /// How all stands.
    Status,
    /// Write dirty mapped pages out through the mount, then how all stands (a master's only).
    Sync,
    /// Make slaves equal by a resync (a master's only).
    Resync {
        /// As given by `-c`; none: all.
        slaves: Vec<String>,
        /// Compare contents by hashes.
        checksum: bool,
        /// It may remove more than half of a replica.
        confirm: bool,
    },
    /// Compare replicas by hashes; answers with the id of the comparison (a master's only).
    Verify {
        /// As given by `-c`; none: all.
        slaves: Vec<String>,
        /// Make equal what differs.
        repair: bool,
    },
    /// How a comparison stands with one slave.
    Verified {
        /// The comparison.
        id: u64,
        /// As given by `-c`.
        slave: String,
        /// Findings from this number on.
        from: usize,
    },
    /// Stop a comparison.
    CancelVerify {
        /// The comparison.
        id: u64,
    },
    /// Mirror to one more slave (a master's only).
    Add {
        /// As for `-c`.
        slave: String,
    },
    /// Mirror to a slave no longer, and keep nothing for it (a master's only).
    Forget {
        /// As for `-c`.
        slave: String,
    },
    /// Forget a slave's key, or take another one for its (a master's only).
    Repin {
        /// As for `-c`, with `#` and the key if there is one.
        slave: String,
    },
    /// Allow a master (a slave's only).
    Allow {
        /// Its fingerprint.
        master: String,
    },
    /// Allow a master no longer (a slave's only).
    Disallow {
        /// Its fingerprint.
        master: String,
    },
    /// Which masters are allowed (a slave's only).
    Allowed,
}

/// What the daemon answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done; what was asked for.
    Ok(Value),
    /// It was not done, for this reason.
    Error(String),
}

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no daemon is running for this directory")]
    NotRunning,
    /// The daemon could not do it.
    #[error("{0}")]
    Refused(String),
    /// The connection failed.
    #[error("talk to the daemon: {0}")]
    Io(#[from] io::Error),
}

/// A bound control socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
}

impl Control {
    /// Binds the socket in a state directory that this process holds (so an old socket is a dead one).
    ///
    /// # Errors
    /// When it can't be bound.
    pub fn bind(state: &StateDir) -> io::Result<Control> {
        let address = address(state.path(), state.fd());
        match std::fs::remove_file(&address) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        // Until its mode is set, the directory's 0700 protects it, and the check of each peer does anyway.
        let listener = UnixListener::bind(&address)?;
        std::fs::set_permissions(&address, Permissions::from_mode(0o600))?;
        Ok(Control { listener })
    }

    /// Answers requests until the future is dropped.
    pub async fn serve<F, Fut>(self, answer: F)
    where
        F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(REQUESTS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        if let Err(e) = serve_one(stream, answer).await {
                            tracing::debug!("control socket: {e}");
                        }
                        drop(place);
                    });
                }
                Err(e) => {
                    tracing::warn!("accept on the control socket: {e}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn serve_one<F, Fut>(stream: UnixStream, answer: F) -> io::Result<()>
where
    F: Fn(Request) -> Fut,
    Fut: Future<Output = Answer>,
{
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = tokio::io::BufReader::new(reader.take(REQUEST_BYTES_MAX));
    tokio::time::timeout(PEER_MAX, reader.read_until(b'\n', &mut line)).await??;
    let answer = match serde_json::from_slice(&line) {
        Ok(request) => answer(request).await,
        Err(e) => Answer::Error(format!("not a request that this version knows: {e}")),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    tokio::time::timeout(PEER_MAX, writer.write_all(&line)).await?
}

/// Asks the daemon that holds the state directory `state`; waits at most `timeout` for its answer (None: as
/// long as it takes).
///
/// # Errors
/// [`AskError::NotRunning`] if there is none.
pub fn ask(state: &Path, request: &Request, timeout: Option<Duration>) -> Result<Value, AskError> {
    let absent = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning,
        _ => AskError::Io(e),
    };
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let dir: OwnedFd = rustix::fs::open(state, flags, Mode::empty()).map_err(|e| absent(e.into()))?;
    let address = address(state, rustix::fd::AsFd::as_fd(&dir));
    let mut stream = std::os::unix::net::UnixStream::connect(address).map_err(absent)?;
    stream.set_read_timeout(timeout)?;
    stream.set_write_timeout(Some(PEER_MAX))?;
    let mut line = serde_json::to_vec(request).map_err(io::Error::from)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut answer)?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Ok(value)) => Ok(value),
        Ok(Answer::Error(why)) => Err(AskError::Refused(why)),
        Err(_) if answer.is_empty() => Err(AskError::NotRunning),
        Err(e) => Err(AskError::Io(e.into())),
    }
}

/// The socket's path, or a short way to it where that is too long for an address.
fn address(state: &Path, dir: BorrowedFd<'_>) -> PathBuf {
    let path = state.join(SOCKET_NAME);
    if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return path;
    }
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", dir.as_raw_fd()))
}

#[cfg(test)]
mod tests;
