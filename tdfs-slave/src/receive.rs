//! The slave's side of its connections: takes them in, drives a session over each, feeds the relay.
//!
//! Called by the daemon for a listener, and by tdfs for an embedded slave. One connection at a time has the
//! replica; a newly greeted one of the same filesystem takes it over. Decides nothing about the protocol:
//! that is `tdfs_wire::session::slave`.

mod complaints;
mod connection;
mod entry;
mod lobby;

pub use entry::Entry;

use crate::relay::Relay;
use crate::status::MasterStatus;
use complaints::Complaints;
use connection::Connection;
use entry::Admitted;
use lobby::{Lobby, Place, Who};
use parking_lot::Mutex;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tdfs_host::key::Fingerprint;
use tdfs_host::link::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes that the pipe of an embedded slave holds in each direction.
const PIPE_BYTES: usize = 1 << 20;
/// How long connections may take to say that the slave ends.
const STOP_MAX: Duration = Duration::from_millis(700);
/// How long a peer may take to prove its key, or to hear that it is turned away.
const ENTER_MAX: Duration = Duration::from_secs(10);

/// Takes connections in.
pub struct Receive {
    relay: Arc<Relay>,
    nodelay: bool,
    entry: Entry,
    /// Connections of which nothing is known.
    strangers: Lobby,
    /// Those of allowed masters that have not been greeted yet: strangers can't send them away.
    masters: Lobby,
    status: Mutex<MasterStatus>,
    complaints: Mutex<Complaints>,
    stopping: watch::Sender<bool>,
}

/// A bound port, to be listened on by a runtime.
pub struct Listener(std::net::TcpListener);

impl Listener {
    /// To be called on the runtime.
    ///
    /// # Errors
    /// When the runtime can't have it.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.0.set_nonblocking(true)?;
        TcpListener::from_std(self.0)
    }
}

/// Binds the first of the addresses that this machine has: before there is a runtime, and while low ports may be bound.
///
/// # Errors
/// The last address's, when none can be listened on.
pub fn bind(addresses: &[SocketAddr]) -> anyhow::Result<Listener> {
    let mut error = anyhow::anyhow!("no address to listen on");
    for address in addresses {
        match std::net::TcpListener::bind(address) {
            Ok(listener) => return Ok(Listener(listener)),
            Err(e) => error = anyhow::Error::from(e).context(format!("listen on {address}")),
        }
    }
    Err(error)
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// For a human.
    pub name: String,
    /// For limits; None: inside this process.
    pub address: Option<IpAddr>,
    /// The key that it has proven; None: none was asked for.
    pub key: Option<Fingerprint>,
}

impl Receive {
    /// Makes one for a replica. `nodelay`: small frames are sent at once.
    pub fn new(relay: Arc<Relay>, nodelay: bool, entry: Entry) -> Arc<Receive> {
        Arc::new(Receive {
            relay,
            nodelay,
            entry,
            strangers: Lobby::default(),
            masters: Lobby::default(),
            status: Mutex::default(),
            complaints: Mutex::default(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Takes in what comes to a listener, until [`Receive::stop`].
    pub async fn listen(self: Arc<Self>, listener: TcpListener) {
        let mut stopping = self.stopping.subscribe();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopping.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    self.accepted(stream, address);
                }
                // Out of descriptors, or a connection that was gone before it was taken in.
                Err(e) => {
                    tracing::debug!("accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn accepted(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        if let Err(e) = stream.set_nodelay(self.nodelay) {
            tracing::debug!("{address}: set TCP_NODELAY: {e}");
        }
        let place = self.strangers.enter(Who::Stranger(address.ip()));
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let mut peer = Peer { name: address.to_string(), address: Some(address.ip()), key: None };
            let admitted = tokio::select! {
                admitted = tokio::time::timeout(ENTER_MAX, this.admit(stream, &peer)) => admitted,
                () = place.sent_away() => Ok(None),
            };
            let Ok(Some(Admitted { reader, writer, key })) = admitted else { return };
            peer.key = key;
            let place = key.map_or(place, |key| this.masters.enter(Who::Master(key)));
            this.serve(reader, writer, peer, Some(place)).await;
        });
    }

    /// A connection from inside this process: returns the master's halves of it.
    pub fn connect_embedded(self: &Arc<Self>) -> io::Result<(ReadHalf, WriteHalf)> {
        if *self.stopping.borrow() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (masters, slaves) = tokio::io::duplex(PIPE_BYTES);
        let (reader, writer) = tokio::io::split(slaves);
        let this = Arc::clone(self);
        let peer = Peer { name: "this process".into(), address: None, key: None };
        tokio::spawn(async move { this.serve(Box::new(reader), Box::new(writer), peer, None).await });
        let (reader, writer) = tokio::io::split(masters);
        Ok((Box::new(reader), Box::new(writer)))
    }

    /// Serves one connection to its end. `place`: its place among those that have not been greeted yet.
    pub async fn serve(&self, reader: ReadHalf, writer: WriteHalf, peer: Peer, place: Option<Place>) {
        let stopping = self.stopping.subscribe();
        if *stopping.borrow() {
            return;
        }
        Connection::new(self, reader, writer, peer, place, stopping).run().await;
    }

    /// How the connection to the master stands.
    pub fn status(&self) -> MasterStatus {
        self.status.lock().clone()
    }

    /// Ends: tells the master, closes what is open, accepts no more. The relay is stopped by its owner.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        // What does not end in time ends with the process.
        let _ = tokio::time::timeout(STOP_MAX, self.stopping.closed()).await;
    }

    /// Says what a human must do something about; once per peer until it says something else.
    fn complain(&self, peer: &Peer, why: &str) {
        let who = peer.address.map_or_else(|| peer.name.clone(), |address| address.to_string());
        if self.complaints.lock().is_due(&who, why, None, Instant::now()) {
            tracing::warn!("master at {}: {why}", peer.name);
        } else {
            tracing::debug!("master at {}: {why}", peer.name);
        }
    }

    /// Waits until a master with that key is not allowed any more.
    async fn revoked(&self, key: Option<Fingerprint>) {
        match (&self.entry, key) {
            (Entry::Allowed { allowed, .. }, Some(key)) => allowed.revoked(key).await,
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
