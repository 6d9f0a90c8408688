//! Frames over a byte stream: reads whole ones, writes whole ones, counts both directions.
//!
//! Generic over the stream: TCP, TLS, a pipe inside the process. Knows no message and no session.

use std::borrow::Borrow;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use tdfs_wire::Frame;
use tdfs_wire::frame::{
    FRAME_BYTES_MAX, FRAME_BYTES_MAX_HANDSHAKE, FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Small frames are taken from a buffer of so many bytes; a system call each would cost more than they do.
const READ_BYTES: usize = 64 * 1024;
/// No further frame goes along with others that are so many bytes.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// A stream's reading half.
pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// A stream's writing half.
pub type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// Why no frame can be read any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection is gone.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The peer closed it, between two frames.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer closed it in the middle of a frame.
    #[error("the connection ends in the middle of a frame")]
    CutOff,
    /// What came is not the frame that has to come.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// How much of a frame is there.
#[derive(Debug)]
enum Partial {
    Header { bytes: [u8; FRAME_HEADER_BYTES], filled: usize },
    Payload { header: FrameHeader, bytes: Vec<u8>, filled: usize },
}

const NOTHING: Partial = Partial::Header { bytes: [0; FRAME_HEADER_BYTES], filled: 0 };

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: BufReader<R>,
    sequence: u64,
    bytes_max: usize,
    partial: Partial,
    moved: bool,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// A reader that accepts small frames only, until [`FrameReader::handshake_done`].
    pub fn new(stream: R) -> FrameReader<R> {
        FrameReader {
            stream: BufReader::with_capacity(READ_BYTES, stream),
            sequence: 0,
            bytes_max: FRAME_BYTES_MAX_HANDSHAKE,
            partial: NOTHING,
            moved: false,
        }
    }

    /// True if bytes came since this was last asked.
    pub fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Accepts frames of every size from now on.
    pub fn handshake_done(&mut self) {
        self.bytes_max = FRAME_BYTES_MAX;
    }

    /// Reads the next frame; its payload is checked and uncompressed.
    ///
    /// Dropping the future loses nothing: the next call goes on where it was.
    ///
    /// # Errors
    /// When the connection is gone or brings something else; it can't be used any more then.
    pub async fn read(&mut self) -> Result<(FrameKind, Vec<u8>), LinkError> {
        loop {
            match &mut self.partial {
                Partial::Header { bytes, filled } if *filled < bytes.len() => {
                    let got = some(&mut self.stream, &mut bytes[*filled..]).await?;
                    match (got, *filled) {
                        (0, 0) => return Err(LinkError::Closed),
                        (0, _) => return Err(LinkError::CutOff),
                        _ => (*filled, self.moved) = (*filled + got, true),
                    }
                }
                Partial::Header { bytes, .. } => {
                    let header = FrameHeader::parse(*bytes, self.sequence, self.bytes_max)?;
                    let bytes = vec![0; header.wire_len()];
                    self.partial = Partial::Payload { header, bytes, filled: 0 };
                }
                Partial::Payload { bytes, filled, .. } if *filled < bytes.len() => {
                    match some(&mut self.stream, &mut bytes[*filled..]).await? {
                        0 => return Err(LinkError::CutOff),
                        got => (*filled, self.moved) = (*filled + got, true),
                    }
                }
                Partial::Payload { .. } => return self.open(),
            }
        }
    }

    fn open(&mut self) -> Result<(FrameKind, Vec<u8>), LinkError> {
        let Partial::Payload { header, bytes, .. } = std::mem::replace(&mut self.partial, NOTHING) else {
            unreachable!("called with a whole payload");
        };
        self.sequence += 1;
        Ok((header.kind(), header.open(bytes)?))
    }
}

/// Reads what is there; 0: the peer has closed. TLS calls it an error where that was not announced, which means
/// nothing here: frames say themselves whether they are whole.
async fn some(stream: &mut (impl AsyncRead + Unpin), into: &mut [u8]) -> io::Result<usize> {
    match stream.read(into).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        got => got,
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    sequence: u64,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer for a new connection.
    pub fn new(stream: W) -> FrameWriter<W> {
        FrameWriter { stream, sequence: 0 }
    }

    /// Writes one frame whole; see [`FrameWriter::write_all`].
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        self.write_all(std::slice::from_ref(frame)).await
    }

    /// Writes frames whole, with as few system calls as the connection allows. If the future is dropped
    /// before it is done, the connection can't be used any more.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn write_all(&mut self, frames: &[impl Borrow<Frame>]) -> io::Result<()> {
        let mut headers = Vec::with_capacity(frames.len());
        for frame in frames {
            headers.push(frame.borrow().header(self.sequence));
            self.sequence += 1;
        }
        let pairs = headers.iter().zip(frames).map(|(header, frame)| [&header[..], frame.borrow().payload()]);
        let mut parts: Vec<IoSlice<'_>> = pairs.flatten().map(IoSlice::new).collect();
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, 0); // leaves out what is empty at the begin
        while !left.is_empty() {
            let wrote = self.stream.write_vectored(left).await?;
            if wrote == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, wrote);
        }
        self.stream.flush().await
    }

    /// Tells the peer that nothing more comes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// A write that is on its way; gives the writer back.
type Write<W> = Pin<Box<dyn Future<Output = (FrameWriter<W>, io::Result<()>)> + Send>>;

/// Writes frames beside other work: for the shell of a session, which selects over this and its other
/// inputs. A peer that does not read blocks only the write. Small frames that are ready at once are written
/// at once: a system call and a wake-up of the peer for each would cost more than all else.
pub struct FrameSender<W> {
    state: Sending<W>,
    gathered: Vec<Arc<Frame>>,
}

enum Sending<W> {
    Idle(FrameWriter<W>),
    Busy(Write<W>),
    Gone,
}

impl<W: AsyncWrite + Send + Unpin + 'static> FrameSender<W> {
    /// A sender for a new connection.
    pub fn new(stream: W) -> FrameSender<W> {
        FrameSender { state: Sending::Idle(FrameWriter::new(stream)), gathered: Vec::new() }
    }

    /// True while another frame may go along with those that [`FrameSender::done`] has not begun to write.
    pub fn has_room(&self) -> bool {
        let bytes = |frame: &Arc<Frame>| FRAME_HEADER_BYTES + frame.payload().len();
        matches!(self.state, Sending::Idle(_))
            && self.gathered.iter().map(bytes).sum::<usize>() < GATHERED_BYTES_MAX
    }

    /// True if all frames that were taken are written.
    pub fn is_done(&self) -> bool {
        matches!(self.state, Sending::Idle(_)) && self.gathered.is_empty()
    }

    /// Takes a frame to write: where there is room, and one more, for which a permit was given when there was.
    ///
    /// # Panics
    /// When it is yet another one.
    pub fn start(&mut self, frame: Arc<Frame>) {
        let waits = matches!(self.state, Sending::Busy(_)) && self.gathered.is_empty();
        assert!(self.has_room() || waits, "a frame was begun before the one before it was done");
        self.gathered.push(frame);
    }

    /// Waits until the frames are written that were taken before a write began; for ever when there are none.
    /// What was taken meanwhile is for the next call. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn done(&mut self) -> io::Result<()> {
        if !self.gathered.is_empty() && matches!(self.state, Sending::Idle(_)) {
            let Sending::Idle(mut writer) = std::mem::replace(&mut self.state, Sending::Gone) else {
                unreachable!("it was idle a moment ago");
            };
            let frames = std::mem::take(&mut self.gathered);
            self.state = Sending::Busy(Box::pin(async move {
                let done = writer.write_all(&frames).await;
                (writer, done)
            }));
        }
        let Sending::Busy(write) = &mut self.state else {
            return std::future::pending().await;
        };
        let (writer, done) = write.as_mut().await;
        self.state = Sending::Idle(writer);
        done
    }
}

#[cfg(test)]
mod tests;
