//! A connection between the two daemons: bytes of whole frames, in order, as fast and as sound as faults let it be.
//!
//! Frames are numbered and checked as `tdfs_host::link` does it. Knows no session.

use std::collections::VecDeque;
use tdfs_wire::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind};
use tdfs_wire::{Frame, Lsn};

/// So many frames are on their way at most before the sender has to wait.
const ROOM: usize = 4;

/// One direction.
#[derive(Default)]
pub struct Way {
    frames: VecDeque<Vec<u8>>,
    sent: u64,
    received: u64,
}

/// A connection.
pub struct Link {
    pub down: Way,
    pub up: Way,
    /// Nothing comes through any more, and nobody is told.
    pub silent: bool,
    /// Of so many chances to bring a frame, one does.
    pub slow: usize,
    /// The ends that have not heard of its end: master, slave. None: it stands.
    pub broken: Option<[bool; 2]>,
}

impl Link {
    pub fn new(slow: usize) -> Link {
        Link { down: Way::default(), up: Way::default(), silent: false, slow, broken: None }
    }

    /// Both ends are told, each in its time; what is on its way is lost.
    pub fn cut(&mut self) {
        if self.broken.is_none() && !self.silent {
            self.broken = Some([true, true]);
        }
        (self.down.frames, self.up.frames) = (VecDeque::new(), VecDeque::new());
    }

    /// One end closes it; the other one is told.
    pub fn close(&mut self, by_master: bool) {
        self.cut();
        if let Some(untold) = &mut self.broken {
            untold[usize::from(!by_master)] = false;
        }
    }

    /// True once, if it is broken and this end was not told.
    pub fn tell_end(&mut self, master: bool) -> bool {
        let Some(untold) = &mut self.broken else { return false };
        std::mem::take(&mut untold[usize::from(!master)])
    }
}

impl Way {
    pub fn start(&mut self, frame: &Frame) {
        let mut bytes = frame.header(self.sent).to_vec();
        bytes.extend_from_slice(frame.payload());
        self.frames.push_back(bytes);
        self.sent += 1;
    }

    pub fn has_room(&self) -> bool {
        self.frames.len() < ROOM
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The next frame off it.
    pub fn take(&mut self) -> Option<Result<(FrameKind, Vec<u8>), FrameError>> {
        let bytes = self.frames.pop_front()?;
        let opened = open(&bytes, self.received);
        self.received += 1;
        Some(opened)
    }

    /// The frame in front comes twice; false if there is none.
    pub fn repeat(&mut self) -> bool {
        let front = self.frames.front().cloned();
        front.map(|front| self.frames.push_front(front)).is_some()
    }

    /// A byte of the frame in front is another one; false if there is none.
    pub fn damage(&mut self, at: usize) -> bool {
        let Some(front) = self.frames.front_mut() else { return false };
        let at = at % front.len();
        front[at] ^= 0x10;
        true
    }
}

fn open(bytes: &[u8], sequence: u64) -> Result<(FrameKind, Vec<u8>), FrameError> {
    let Some((head, payload)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(FrameError::Corrupt("short".into()));
    };
    let header = FrameHeader::parse(*head, sequence, FRAME_BYTES_MAX)?;
    Ok((header.kind(), header.open(payload.to_vec())?))
}

/// The last record of a frame of records.
pub fn last(frame: &Frame) -> Lsn {
    match frame.kind() {
        FrameKind::Records { first, count } => first.plus(u64::from(count)).prev(),
        other => panic!("not records: {other:?}"),
    }
}
