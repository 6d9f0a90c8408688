//! The slave's side of its connections: takes them in, drives a session over each, feeds the relay.
//!
//! Called by the daemon for a listener, and by tdfs for an embedded slave. One connection at a time has the
//! replica; a newly greeted one of the same filesystem takes it over. Decides nothing about the protocol:
//! that is `tdfs_wire::session::slave`.

mod connection;
mod lobby;

use crate::relay::Relay;
use crate::status::MasterStatus;
use connection::Connection;
use lobby::{Lobby, Place};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tdfs_host::link::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes that the pipe of an embedded slave holds in each direction.
const PIPE_BYTES: usize = 1 << 20;
/// How long connections may take to say that the slave ends.
const STOP_MAX: Duration = Duration::from_millis(700);
/// Of so many peers the last complaint is remembered.
const COMPLAINTS_MAX: usize = 256;

/// Takes connections in.
pub struct Receive {
    relay: Arc<Relay>,
    nodelay: bool,
    lobby: Lobby,
    status: Mutex<MasterStatus>,
    complaints: Mutex<HashMap<String, String>>,
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
}

impl Receive {
    /// Makes one for a replica. `nodelay`: small frames are sent at once.
    pub fn new(relay: Arc<Relay>, nodelay: bool) -> Arc<Receive> {
        Arc::new(Receive {
            relay,
            nodelay,
            lobby: Lobby::default(),
            status: Mutex::new(MasterStatus::default()),
            complaints: Mutex::new(HashMap::new()),
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
                    let peer = Peer { name: address.to_string(), address: Some(address.ip()) };
                    self.accepted(stream, peer);
                }
                // Out of descriptors, or a connection that was gone before it was taken in.
                Err(e) => {
                    tracing::debug!("accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn accepted(self: &Arc<Self>, stream: TcpStream, peer: Peer) {
        if let Err(e) = stream.set_nodelay(self.nodelay) {
            tracing::debug!("{}: set TCP_NODELAY: {e}", peer.name);
        }
        let place = peer.address.map(|address| self.lobby.enter(address));
        let (reader, writer) = stream.into_split();
        let this = Arc::clone(self);
        tokio::spawn(async move { this.serve(Box::new(reader), Box::new(writer), peer, place).await });
    }

    /// A connection from inside this process: returns the master's halves of it.
    pub fn connect_embedded(self: &Arc<Self>) -> io::Result<(ReadHalf, WriteHalf)> {
        if *self.stopping.borrow() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (masters, slaves) = tokio::io::duplex(PIPE_BYTES);
        let (reader, writer) = tokio::io::split(slaves);
        let this = Arc::clone(self);
        let peer = Peer { name: "this process".into(), address: None };
        tokio::spawn(async move { this.serve(Box::new(reader), Box::new(writer), peer, None).await });
        let (reader, writer) = tokio::io::split(masters);
        Ok((Box::new(reader), Box::new(writer)))
    }

    /// Serves one connection to its end. `place`: its place among those that have not been greeted yet.
    pub async fn serve(&self, reader: ReadHalf, writer: WriteHalf, peer: Peer, place: Option<Place>) {
        let stopping = self.stopping.subscribe();
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
        let mut complaints = self.complaints.lock();
        if complaints.len() >= COMPLAINTS_MAX {
            complaints.clear();
        }
        if complaints.insert(who, why.to_owned()).as_deref() == Some(why) {
            tracing::debug!("master at {}: {why}", peer.name);
        } else {
            tracing::warn!("master at {}: {why}", peer.name);
        }
    }
}

#[cfg(test)]
mod tests;
