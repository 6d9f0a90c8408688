//! The durable applied position: what is done in the replica, what is in hand, what an ack may claim.
//!
//! Owned by `replica`; one small file in the slave's state directory. One pwrite a record: noting that n is
//! in hand says that n - 1 is applied. Two slots in turn, each with a checksum, so that neither kill -9 nor a
//! torn sector loses the position. Never touches the replica.
//!
//! ```text
//!    0  "TDFSAPPL", u16 version
//!  512  slot of even sequence numbers      1024  slot of odd ones
//!       u64 sequence, u64 epoch number, 16 bytes epoch id, u64 applied, u64 in hand (0: none),
//!       u64 inode at `from`, u64 inode at `to`, 16 bytes boot id, u32 closed (1: yes),
//!       u32 checksum of the applied record and u32 whether it is known (1: yes), u32 CRC-32C
//! 1536  durable mark, even                 2048  durable mark, odd
//!       u64 sequence, 16 bytes epoch id, u64 durable, u32 CRC-32C
//! ```
//! All little-endian. The durable marks are written by the thread that syncs, the slots by replay.

use crate::replay::Foreseen;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use tdfs_host::step::step;
use tdfs_wire::version::STATE;
use tdfs_wire::{Epoch, Id, Lsn, Position};

/// The epoch of a replica that has never been given one.
pub const NO_EPOCH: Epoch = Epoch { number: 0, id: Id([0; 16]) };

const MAGIC: &[u8; 8] = b"TDFSAPPL";
const SLOTS: [u64; 2] = [512, 1024];
const DURABLE_MARKS: [u64; 2] = [1536, 2048];
const SLOT_BYTES: usize = 96;
const MARK_BYTES: usize = 36;

/// What the file said when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noted {
    /// Done in the replica up to here.
    pub applied: Lsn,
    /// The history that it belongs to.
    pub epoch: Epoch,
    /// The record after that may have been begun: what was foreseen of it.
    pub doubt: Option<Foreseen>,
    /// On disk up to here.
    pub durable: Lsn,
    /// The boot in which it was written.
    pub boot: Id,
    /// The slave ended on purpose, with everything on disk.
    pub closed: bool,
}

/// The open file.
///
/// Invariant: durable <= applied, in one epoch.
#[derive(Debug)]
pub struct Applied {
    file: Arc<File>,
    slot: Slot,
    marks: Arc<Mutex<Marks>>,
}

/// A part of [`Applied`] for the thread that syncs.
#[derive(Clone, Debug)]
pub struct Durable {
    file: Arc<File>,
    marks: Arc<Mutex<Marks>>,
}

/// How far replay and sync are; the lock is held for one small pwrite at most.
#[derive(Debug)]
struct Marks {
    epoch: Epoch,
    applied: Lsn,
    /// Of the record `applied`, where that is known.
    checksum: Option<u32>,
    durable: Lsn,
    sequence: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    sequence: u64,
    epoch: Epoch,
    applied: Lsn,
    in_hand: Lsn,
    foreseen: Foreseen,
    boot: Id,
    closed: bool,
    checksum: Option<u32>,
}

impl Applied {
    /// Opens the file `path` or makes it; `boot` identifies the present boot of the machine.
    ///
    /// # Errors
    /// I/O errors; `InvalidData`, in words, for a file of a newer version or one that is damaged.
    pub fn open(path: &Path, boot: Id) -> io::Result<(Applied, Noted)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let (slot, (mark_sequence, mark_epoch, durable)) = if file.metadata()?.len() == 0 {
            step(|| file.write_all_at(&header(), 0))?;
            (Slot::EMPTY, (0, Id::default(), Lsn::ZERO))
        } else {
            check_header(&file, path)?;
            (newest_slot(&file, path)?, newest_mark(&file)?)
        };
        let durable = if mark_epoch == slot.epoch.id { durable.min(slot.applied) } else { Lsn::ZERO };
        let noted = Noted {
            applied: slot.applied,
            epoch: slot.epoch,
            doubt: (slot.in_hand > slot.applied).then_some(slot.foreseen),
            durable,
            boot: slot.boot,
            closed: slot.closed,
        };
        let Slot { epoch, applied, checksum, .. } = slot;
        let marks = Marks { epoch, applied, checksum, durable, sequence: mark_sequence };
        let slot = Slot { boot, closed: false, ..slot };
        Ok((Applied { file: Arc::new(file), slot, marks: Arc::new(Mutex::new(marks)) }, noted))
    }

    /// Done in the replica up to here.
    pub fn position(&self) -> Position {
        let marks = self.marks.lock();
        Position { epoch: marks.epoch, lsn: marks.applied }
    }

    /// Checksum of the record that was applied last, where that is known.
    pub fn checksum(&self) -> Option<u32> {
        self.marks.lock().checksum
    }

    /// On disk up to here.
    pub fn durable(&self) -> Lsn {
        self.marks.lock().durable
    }

    /// Starts over at `position`, durably: nothing is in hand, and what lies below matters no more.
    pub fn reset(&mut self, position: Position) -> io::Result<()> {
        self.slot = Slot {
            epoch: position.epoch,
            applied: position.lsn,
            in_hand: Lsn::ZERO,
            foreseen: [0, 0],
            checksum: None,
            ..self.slot
        };
        {
            let mut marks = self.marks.lock();
            marks.checksum = None;
            (marks.epoch, marks.applied, marks.durable) = (position.epoch, position.lsn, position.lsn);
            marks.write(&self.file)?;
        }
        self.write_slot()?;
        self.file.sync_data()
    }

    /// Notes durably that the replica is in use: after a power cut it must not look closed. To be called before
    /// the first change; what is in doubt stays so.
    pub fn mark_open(&mut self) -> io::Result<()> {
        self.write_slot()?;
        self.file.sync_data()
    }

    /// Notes that the record after the applied one is in hand, with what was foreseen of it.
    pub fn take_in_hand(&mut self, foreseen: Foreseen) -> io::Result<()> {
        (self.slot.applied, self.slot.checksum) = self.last();
        self.slot.in_hand = self.slot.applied.next();
        self.slot.foreseen = foreseen;
        self.write_slot()
    }

    /// The record in hand, which has this checksum, is done. Written with the next one, or by [`Applied::settle`].
    pub fn done(&mut self, checksum: u32) {
        let mut marks = self.marks.lock();
        (marks.applied, marks.checksum) = (marks.applied.next(), Some(checksum));
    }

    fn last(&self) -> (Lsn, Option<u32>) {
        let marks = self.marks.lock();
        (marks.applied, marks.checksum)
    }

    /// Writes the position where nothing is in hand: no record is in doubt after a kill.
    pub fn settle(&mut self) -> io::Result<()> {
        let (applied, checksum) = self.last();
        if self.slot.in_hand == Lsn::ZERO && self.slot.applied == applied {
            return Ok(());
        }
        (self.slot.applied, self.slot.checksum, self.slot.in_hand) = (applied, checksum, Lsn::ZERO);
        self.write_slot()
    }

    /// Marks the end on purpose; only after a sync of the replica for which [`Durable::advance`] was told.
    pub fn close(&mut self) -> io::Result<()> {
        self.settle()?;
        let marks = self.marks.lock();
        self.slot.closed = marks.durable == marks.applied;
        drop(marks);
        self.write_slot()?;
        self.file.sync_data()
    }

    /// The part for the thread that syncs.
    pub fn for_sync(&self) -> Durable {
        Durable { file: Arc::clone(&self.file), marks: Arc::clone(&self.marks) }
    }

    fn write_slot(&mut self) -> io::Result<()> {
        self.slot.sequence += 1;
        let at = SLOTS[usize::from(self.slot.sequence % 2 == 1)];
        step(|| self.file.write_all_at(&self.slot.to_bytes(), at))
    }
}

impl Durable {
    /// Where replay is now: what a sync that starts now makes durable.
    pub fn applied(&self) -> Position {
        let marks = self.marks.lock();
        Position { epoch: marks.epoch, lsn: marks.applied }
    }

    /// A sync of the replica that started when `synced` was applied has succeeded: notes it on disk, and
    /// returns how far the replica is durable.
    pub fn advance(&self, synced: Position) -> io::Result<Lsn> {
        let before = {
            let mut marks = self.marks.lock();
            if marks.epoch != synced.epoch || synced.lsn <= marks.durable {
                return Ok(marks.durable);
            }
            let before = marks.durable;
            marks.durable = synced.lsn;
            let written = marks.write(&self.file);
            // Not to be claimed before it is on disk.
            marks.durable = before;
            written?;
            before
        };
        self.file.sync_data()?;
        let mut marks = self.marks.lock();
        if marks.epoch == synced.epoch && marks.durable == before {
            marks.durable = synced.lsn;
        }
        Ok(marks.durable)
    }
}

impl Marks {
    fn write(&mut self, file: &File) -> io::Result<()> {
        self.sequence += 1;
        let mut bytes = Vec::with_capacity(MARK_BYTES);
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.epoch.id.0);
        bytes.extend(self.durable.get().to_le_bytes());
        seal(&mut bytes);
        step(|| file.write_all_at(&bytes, DURABLE_MARKS[usize::from(self.sequence % 2 == 1)]))
    }
}

impl Slot {
    const EMPTY: Slot = Slot {
        sequence: 0,
        epoch: NO_EPOCH,
        applied: Lsn::ZERO,
        in_hand: Lsn::ZERO,
        foreseen: [0, 0],
        boot: Id([0; 16]),
        closed: false,
        checksum: None,
    };

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend(self.epoch.number.to_le_bytes());
        bytes.extend(self.epoch.id.0);
        bytes.extend(self.applied.get().to_le_bytes());
        bytes.extend(self.in_hand.get().to_le_bytes());
        bytes.extend(self.foreseen[0].to_le_bytes());
        bytes.extend(self.foreseen[1].to_le_bytes());
        bytes.extend(self.boot.0);
        bytes.extend(u32::from(self.closed).to_le_bytes());
        bytes.extend(self.checksum.unwrap_or_default().to_le_bytes());
        bytes.extend(u32::from(self.checksum.is_some()).to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> Option<Slot> {
        is_sealed(bytes).then(|| Slot {
            sequence: u64_at(bytes, 0),
            epoch: Epoch { number: u64_at(bytes, 8), id: id_at(bytes, 16) },
            applied: Lsn::new(u64_at(bytes, 32)),
            in_hand: Lsn::new(u64_at(bytes, 40)),
            foreseen: [u64_at(bytes, 48), u64_at(bytes, 56)],
            boot: id_at(bytes, 64),
            closed: bytes[80] == 1,
            checksum: (bytes[88] == 1)
                .then(|| u32::from_le_bytes([bytes[84], bytes[85], bytes[86], bytes[87]])),
        })
    }
}

fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(STATE.to_le_bytes());
    bytes
}

fn check_header(file: &File, path: &Path) -> io::Result<()> {
    let mut bytes = [0; 10];
    let read = file.read_at(&mut bytes, 0)?;
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    let invalid = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if read < bytes.len() || &bytes[..8] != MAGIC {
        return invalid(format!("{} is no file of a TDFS slave's state", path.display()));
    }
    if version > STATE {
        let path = path.display();
        return invalid(format!(
            "{path} was written by a newer TDFS (state version {version}, this program knows {STATE}): install that one"
        ));
    }
    Ok(())
}

/// The valid slot that was written last; a file whose making was interrupted has none yet.
fn newest_slot(file: &File, path: &Path) -> io::Result<Slot> {
    if file.metadata()?.len() <= SLOTS[0] {
        return Ok(Slot::EMPTY);
    }
    let mut found = Vec::new();
    for at in SLOTS {
        let mut bytes = [0; SLOT_BYTES];
        if file.read_exact_at(&mut bytes, at).is_ok() {
            found.extend(Slot::from_bytes(&bytes));
        }
    }
    let newest = found.into_iter().max_by_key(|slot| slot.sequence);
    newest.ok_or_else(|| {
        let why = format!("{} is damaged: none of its positions has a right checksum", path.display());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// The durable mark that was written last: its sequence number, epoch and LSN. None is the same as 0.
fn newest_mark(file: &File) -> io::Result<(u64, Id, Lsn)> {
    let mut newest = (0, Id::default(), Lsn::ZERO);
    for at in DURABLE_MARKS {
        let mut bytes = [0; MARK_BYTES];
        match file.read_exact_at(&mut bytes, at) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => continue,
            read => read?,
        }
        if is_sealed(&bytes) && u64_at(&bytes, 0) > newest.0 {
            newest = (u64_at(&bytes, 0), id_at(&bytes, 8), Lsn::new(u64_at(&bytes, 24)));
        }
    }
    Ok(newest)
}

fn seal(bytes: &mut Vec<u8>) {
    let crc = crc32c::crc32c(bytes);
    bytes.extend(crc.to_le_bytes());
}

fn is_sealed(bytes: &[u8]) -> bool {
    let (body, crc) = bytes.split_at(bytes.len() - 4);
    crc32c::crc32c(body).to_le_bytes() == crc
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn id_at(bytes: &[u8], at: usize) -> Id {
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[at..at + 16]);
    Id(id)
}

#[cfg(test)]
mod tests;
