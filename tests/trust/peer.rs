//! A peer that says whatever a test wants: frames over a socket, without a session.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tdfs_wire::Frame;
use tdfs_wire::frame::{Codec, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use tdfs_wire::message::Message;

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Peer {
    stream: TcpStream,
    sent: u64,
    got: u64,
}

impl Peer {
    pub fn dial(address: SocketAddr) -> Peer {
        Peer::of(TcpStream::connect(address).expect("connect"))
    }

    pub fn accept(listener: &TcpListener) -> Peer {
        Peer::of(listener.accept().expect("accept").0)
    }

    fn of(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        Peer { stream, sent: 0, got: 0 }
    }

    /// Sends a frame; an error means that the other side has closed.
    pub fn send_frame(&mut self, frame: &Frame) -> io::Result<()> {
        let head = frame.header(self.sent);
        self.sent += 1;
        self.send_bytes(&[&head, frame.payload()].concat())
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    pub fn send(&mut self, message: &impl Message) -> io::Result<()> {
        self.send_frame(&message.frame().expect("within the limit"))
    }

    /// A payload that no honest peer makes.
    pub fn send_raw(&mut self, kind: FrameKind, payload: Vec<u8>) -> io::Result<()> {
        self.send_frame(&Frame::new(kind, Codec::Stored, payload))
    }

    /// The next frame; an error means that the other side has closed, or says nothing.
    pub fn read(&mut self) -> io::Result<(FrameKind, Vec<u8>)> {
        let mut head = [0; FRAME_HEADER_BYTES];
        self.stream.read_exact(&mut head)?;
        let header = FrameHeader::parse(head, self.got, FRAME_BYTES_MAX).map_err(io::Error::other)?;
        self.got += 1;
        let mut payload = vec![0; header.wire_len()];
        self.stream.read_exact(&mut payload)?;
        Ok((header.kind(), header.open(payload).map_err(io::Error::other)?))
    }

    /// The next message.
    pub fn hear<M: Message>(&mut self) -> io::Result<M> {
        loop {
            if let (FrameKind::Message, payload) = self.read()? {
                return M::parse(&payload).map_err(io::Error::other);
            }
        }
    }

    /// Waits until the other side has closed.
    #[track_caller]
    pub fn assert_ends(&mut self) {
        let until = std::time::Instant::now() + PATIENCE;
        while self.read().is_ok() {
            assert!(std::time::Instant::now() < until, "the connection goes on");
        }
        let mut byte = [0];
        let ended = self.stream.read(&mut byte);
        assert!(
            !matches!(&ended, Err(e) if e.kind() == io::ErrorKind::WouldBlock),
            "nobody closed it: {ended:?}"
        );
    }
}
