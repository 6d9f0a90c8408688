//! Frames of records, made once and shared by all slaves.
//!
//! A frame holds whatever records are there, up to a limit: an idle link gets a record at once, a busy one
//! gets batches. A frame that is made for a slave inside the range of frames that exist ends where the next
//! of those begins, so slaves that were apart go on with the same frames.

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tdfs_wire::frame::{Codec, FrameKind};
use tdfs_wire::log::{Cursor, Log, LogError};
use tdfs_wire::{Epoch, Frame, Lsn};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OnceCell;

/// Most bytes of records in a frame before compression; a single larger record goes alone.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Most bytes of frames that are kept for other slaves, and most of those frames.
const SHARED_BYTES_MAX: usize = 16 << 20;
const SHARED_FRAMES_MAX: usize = 4096;
/// Most cursors that wait for their next use.
const CURSORS_MAX: usize = 8;
/// From so many records on, a frame is made where it can't keep other tasks of this thread waiting.
const LONG_RECORDS: u64 = 32;

/// A frame of records, made or being made.
type Slot = Arc<OnceCell<Arc<Frame>>>;

/// All frames of one log.
pub struct Frames {
    log: Arc<Log>,
    codec: Codec,
    /// More than one slave: frames are kept.
    shared: AtomicBool,
    recent: Mutex<Recent>,
    cursors: Mutex<VecDeque<Cursor>>,
}

/// Frames by their first record; the oldest made goes first.
#[derive(Default)]
struct Recent {
    /// Of this epoch.
    epoch: Option<Epoch>,
    slots: BTreeMap<Lsn, Slot>,
    made: VecDeque<(Lsn, usize)>,
    bytes: usize,
}

impl Frames {
    /// None so far.
    pub fn new(log: Arc<Log>, codec: Codec) -> Frames {
        Frames {
            log,
            codec,
            shared: AtomicBool::new(false),
            recent: Mutex::default(),
            cursors: Mutex::default(),
        }
    }

    /// Says whether there is more than one slave.
    pub fn share(&self, shared: bool) {
        self.shared.store(shared, Ordering::Relaxed);
        if !shared {
            *self.recent.lock() = Recent::default();
        }
    }

    /// The frame that begins with the record after `after` of `epoch` and ends at `up_to` at the latest.
    ///
    /// # Errors
    /// [`LogError::Over`] if it is another epoch now; when the log can't be read there.
    pub async fn after(&self, epoch: Epoch, after: Lsn, up_to: Lsn) -> Result<Arc<Frame>, LogError> {
        if self.log.epoch() != epoch {
            return Err(LogError::Over);
        }
        if !self.shared.load(Ordering::Relaxed) {
            return self.make(epoch, after, up_to);
        }
        let (slot, limit) = self.recent.lock().of(epoch).slot(after.next(), up_to);
        let frame = slot.get_or_try_init(|| async {
            let made = self.make(epoch, after, limit);
            match &made {
                Ok(frame) => self.recent.lock().made(after.next(), frame.wire_len()),
                Err(_) => drop(self.recent.lock().slots.remove(&after.next())),
            }
            made
        });
        let frame = Arc::clone(frame.await?);
        if last(&frame) <= up_to { Ok(frame) } else { self.make(epoch, after, up_to) }
    }

    /// Gives back what holds on to records at or below `floor`.
    pub fn forget(&self, floor: Lsn) {
        self.cursors.lock().retain(|cursor| cursor.position() >= floor);
    }

    fn make(&self, epoch: Epoch, after: Lsn, up_to: Lsn) -> Result<Arc<Frame>, LogError> {
        let threads = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        if up_to.since(after) >= LONG_RECORDS && matches!(threads, Ok(RuntimeFlavor::MultiThread)) {
            tokio::task::block_in_place(|| self.read(epoch, after, up_to))
        } else {
            self.read(epoch, after, up_to)
        }
    }

    fn read(&self, epoch: Epoch, after: Lsn, up_to: Lsn) -> Result<Arc<Frame>, LogError> {
        let mut cursor = self.cursor(epoch, after)?;
        let Some(batch) = cursor.read(up_to, BATCH_BYTES_MAX)? else {
            return Err(LogError::Ahead { head: self.log.head() });
        };
        {
            let mut cursors = self.cursors.lock();
            if cursors.len() >= CURSORS_MAX {
                cursors.pop_front();
            }
            cursors.push_back(cursor);
        }
        let kind = FrameKind::Records { first: batch.first, count: batch.count };
        Ok(Arc::new(Frame::new(kind, self.codec, batch.bytes)))
    }

    fn cursor(&self, epoch: Epoch, after: Lsn) -> Result<Cursor, LogError> {
        let mut cursors = self.cursors.lock();
        cursors.retain(|cursor| cursor.epoch() == epoch);
        let at = cursors.iter().position(|cursor| cursor.position() == after);
        let known = at.and_then(|at| cursors.remove(at));
        drop(cursors);
        let cursor = known.map_or_else(|| self.log.cursor(after), Ok)?;
        if cursor.epoch() == epoch { Ok(cursor) } else { Err(LogError::Over) }
    }
}

impl Recent {
    /// Without frames of any other epoch.
    fn of(&mut self, epoch: Epoch) -> &mut Recent {
        if self.epoch != Some(epoch) {
            *self = Recent { epoch: Some(epoch), ..Recent::default() };
        }
        self
    }

    /// The slot of the frame that begins with `first`, and where it has to end if it is not made yet.
    fn slot(&mut self, first: Lsn, up_to: Lsn) -> (Slot, Lsn) {
        let next = self.slots.range(first.next()..).next().map(|(begin, _)| begin.prev());
        let around = self.slots.range(..first).next_back().and_then(|(_, slot)| slot.get());
        let around = around.map(|frame| last(frame)).filter(|last| *last >= first);
        let limit = up_to.min(next.unwrap_or(up_to)).min(around.unwrap_or(up_to));
        (Arc::clone(self.slots.entry(first).or_default()), limit)
    }

    fn made(&mut self, first: Lsn, bytes: usize) {
        self.made.push_back((first, bytes));
        self.bytes += bytes;
        while self.bytes > SHARED_BYTES_MAX || self.made.len() > SHARED_FRAMES_MAX {
            let Some((first, bytes)) = self.made.pop_front() else {
                return;
            };
            self.bytes -= bytes;
            self.slots.remove(&first);
        }
    }
}

/// The last record of a frame of records.
pub fn last(frame: &Frame) -> Lsn {
    match frame.kind() {
        FrameKind::Records { first, count } => first.plus(u64::from(count)).prev(),
        FrameKind::Message | FrameKind::Answer { .. } => unreachable!("not a frame of records"),
    }
}
