//! The way in: what a connection has to prove before its first frame is read, and how one is turned away.
//!
//! Called by `receive` for each connection that was accepted, within its bounds of time and number.

use super::{Peer, Receive};
use crate::allowed::Allowed;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdfs_host::key::Fingerprint;
use tdfs_host::link::{FrameWriter, ReadHalf, WriteHalf};
use tdfs_host::tls::{Proven, Server, TlsError, UNPROVEN_BYTES_MAX, speaks_tls};
use tdfs_wire::message::{Message, SlaveMessage};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// At most so often the same master's wish to be allowed is logged.
const ASKED_INTERVAL: Duration = Duration::from_secs(60);
/// How long a peer that was turned away may take to close the connection.
const GO_MAX: Duration = Duration::from_secs(2);

/// Who may come in.
pub enum Entry {
    /// Masters that prove a key which was allowed.
    Allowed {
        /// Our side of TLS.
        tls: Server,
        /// Their fingerprints.
        allowed: Arc<Allowed>,
        /// What allows one, but for its fingerprint: `tdfs-slave allow -m DIR`.
        command: String,
    },
    /// Whoever can reach the port, in plain TCP (`--insecure`); for an embedded slave: nobody comes by a port.
    Anybody,
}

/// A connection that may say something.
pub(super) struct Admitted {
    pub(super) reader: ReadHalf,
    pub(super) writer: WriteHalf,
    pub(super) key: Option<Fingerprint>,
}

impl Receive {
    /// Finds out who is there; None: it was turned away.
    pub(super) async fn admit(&self, stream: TcpStream, peer: &Peer) -> Option<Admitted> {
        match self.prove(stream, peer).await {
            Ok(admitted) => admitted,
            Err(e) => {
                tracing::debug!("connection from {}: {e}", peer.name);
                None
            }
        }
    }

    async fn prove(&self, stream: TcpStream, peer: &Peer) -> Result<Option<Admitted>, TlsError> {
        let is_tls = speaks_tls(&stream).await?;
        match (&self.entry, is_tls) {
            (Entry::Anybody, false) => {
                let (reader, writer) = stream.into_split();
                let (reader, writer): (ReadHalf, WriteHalf) = (Box::new(reader), Box::new(writer));
                Ok(Some(Admitted { reader, writer, key: None }))
            }
            (Entry::Anybody, true) => {
                self.turn_plain_away(stream, peer, SPEAKS_TLS).await?;
                Ok(None)
            }
            (Entry::Allowed { .. }, false) => {
                self.turn_plain_away(stream, peer, SPEAKS_PLAIN).await?;
                Ok(None)
            }
            (Entry::Allowed { tls, allowed, command }, true) => {
                let Proven { reader, writer, peer: key } = match tls.accept(stream).await {
                    Err(TlsError::Protocol) => {
                        self.complain(peer, &TlsError::Protocol.to_string());
                        return Ok(None);
                    }
                    met => met?,
                };
                if allowed.contains(key) {
                    return Ok(Some(Admitted { reader, writer, key: Some(key) }));
                }
                self.tell_of_wish(peer, key, command);
                let why = format!("this master's key is not allowed; on the slave run: {command} {key}");
                turn_away(reader, writer, why).await?;
                Ok(None)
            }
        }
    }

    async fn turn_plain_away(&self, stream: TcpStream, peer: &Peer, why: &str) -> io::Result<()> {
        self.complain(peer, why);
        let (reader, writer) = stream.into_split();
        turn_away(Box::new(reader), Box::new(writer), why.to_owned()).await
    }

    fn tell_of_wish(&self, peer: &Peer, key: Fingerprint, command: &str) {
        let wish = format!("a master that is not allowed asks to be; if it is yours: {command} {key}");
        let due =
            self.complaints.lock().is_due(&key.to_string(), &wish, Some(ASKED_INTERVAL), Instant::now());
        if due {
            tracing::warn!("{}: {wish}", peer.name);
        }
    }
}

const SPEAKS_TLS: &str = "the master speaks TLS and this slave was started with --insecure: start tdfs-slave without \
                          it (or tdfs with it)";
const SPEAKS_PLAIN: &str = "this slave wants TLS and what comes is none: if that is a tdfs that was started with \
                            --insecure, start it without (or tdfs-slave with it)";

/// Tells a peer why it is turned away, and sees to it that it hears that: if bytes of its are left unread, the
/// connection ends by a reset, which may overtake the words.
async fn turn_away(reader: ReadHalf, writer: WriteHalf, why: String) -> io::Result<()> {
    let frame = SlaveMessage::Refuse(why).frame().map_err(io::Error::other)?;
    let mut writer = FrameWriter::new(writer);
    writer.write(&frame).await?;
    writer.shutdown().await?;
    let (mut rest, mut nowhere) = (reader.take(UNPROVEN_BYTES_MAX), tokio::io::sink());
    let read = tokio::io::copy(&mut rest, &mut nowhere);
    // What it does after that is its own affair.
    let _ = tokio::time::timeout(GO_MAX, read).await;
    Ok(())
}
