//! Slots: the changes in hand, in a small file that is mapped, so that a kill -9 loses none of their records.
//!
//! `commit` notes an [`Intent`] before it changes the tree and clears the slot after the record is appended; neither
//! is a system call. The next start finds in [`Slots::unfinished`] what was in between. Knows nothing of the tree.
//!
//! ```text
//!    0  u64      magic "TDSL", version of state files (version.rs), 0
//!    8  [u8;16]  id of the epoch
//!   24  u64      CRC-32C of bytes 0..24
//!   32  u64      not 0: a change has no record, so the epoch is over
//!   64  [u64;56] inode numbers of lost objects, 0 for none
//!  512  u64      so many files are watched for which there is no room behind it
//!  520  [u64;447] inode numbers of files that are watched (passthrough/stores.rs), 0 for none
//! 4096  slots of 36,864 bytes: u64 length and CRC-32C (0: free), u64 LSN of the head, intent
//! ```
//! All little-endian. **Why no kill tears it.** The file is mapped shared, so a store is in the page cache as soon as the
//! thread has done it; a kill stops a thread between two instructions, all before it done and none after, whatever
//! order other CPUs see. So only the compiler could reorder. A slot is set by one store of its first word (release:
//! not before the intent), and a compiler fence keeps it before the system calls of the change. It is cleared by
//! one store after the append, again with release. A power cut can leave anything; then the epoch ends by the boot id.

use super::Intent;
use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use tdfs_host::state::{StateDir, StateError};
use tdfs_host::sys::MappedWords;
use tdfs_wire::codec::{self, OP_BYTES_MAX};
use tdfs_wire::version::STATE;
use tdfs_wire::{Epoch, Lsn};

const FILE: &str = "slots";
const MAGIC: u64 = u32::from_le_bytes(*b"TDSL") as u64;
/// So many changes can be in hand at a time; a further one waits. There are fewer workers.
const COUNT: usize = 32;
const HEAD_BYTES: usize = 4096;
/// An intent with two paths of 16 KiB and the name of an xattr fits in.
const SLOT_BYTES: usize = 36_864;
const FILE_BYTES: usize = HEAD_BYTES + COUNT * SLOT_BYTES;
const _: () = assert!(2 * tdfs_wire::PATH_BYTES_MAX + 1024 < SLOT_BYTES && SLOT_BYTES < OP_BYTES_MAX);

const WORD: usize = 8;
const OVER: usize = 4;
const LOST: usize = 8;
const LOST_COUNT: usize = 56;
const CROWDED: usize = LOST + LOST_COUNT;
const WATCHED: usize = CROWDED + 1;
const WATCHED_COUNT: usize = HEAD_BYTES / WORD - WATCHED;

/// What the slots of the last run say.
pub enum Found {
    /// Every change is in the log but for those in [`Slots::unfinished`].
    Whole(Slots),
    /// A change may be missing, for this reason: a new epoch has to begin.
    Unproven(String),
}

/// A change that was in hand when tdfs was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// What was about to be done.
    pub intent: Intent,
    /// The head of the log when it was noted: its record comes later.
    pub head: Lsn,
    slot: usize,
}

/// The slots of one epoch.
pub struct Slots {
    mapped: MappedWords,
    free: Mutex<Vec<usize>>,
    freed: Condvar,
}

/// A slot that is set. Dropped when the change is recorded, it clears it.
#[must_use]
pub struct Noted<'a> {
    slots: &'a Slots,
    slot: Option<usize>,
}

impl Slots {
    /// Begins anew for `epoch`: nothing is in hand, nothing is lost.
    ///
    /// # Errors
    /// When the file can't be written: it takes 1.2 MiB of the disk.
    pub fn begin(state: &StateDir, epoch: Epoch) -> Result<Slots, StateError> {
        check_version(state)?;
        let mut bytes = vec![0; FILE_BYTES];
        for (at, word) in header(epoch).iter().enumerate() {
            bytes[at * WORD..][..WORD].copy_from_slice(&word.to_le_bytes());
        }
        state.write_bytes(FILE, &bytes)?;
        Ok(Slots::map(state)?.with_free())
    }

    /// Goes on with what the last run of this epoch has left.
    ///
    /// # Errors
    /// When a later TDFS wrote it, or it can't be read.
    pub fn resume(state: &StateDir, epoch: Epoch) -> Result<Found, StateError> {
        if let Some(why) = check_version(state)? {
            return Ok(Found::Unproven(why));
        }
        let slots = Slots::map(state)?;
        let words = slots.mapped.words();
        if header(epoch)
            .iter()
            .zip(words)
            .any(|(own, found)| u64::to_le(*own) != found.load(Ordering::Relaxed))
        {
            return Ok(Found::Unproven("the slots are damaged, or of another epoch".into()));
        }
        if slots.word(OVER) != 0 {
            return Ok(Found::Unproven("changes could not be recorded".into()));
        }
        if slots.word(CROWDED) != 0 {
            return Ok(Found::Unproven("more files could be stored into unseen than can be noted".into()));
        }
        Ok(match slots.unfinished() {
            Ok(_) => Found::Whole(slots.with_free()),
            Err(why) => Found::Unproven(why),
        })
    }

    fn map(state: &StateDir) -> Result<Slots, StateError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mapped = rustix::fs::openat(state.fd(), FILE, flags, Mode::empty())
            .and_then(|file| MappedWords::map(std::os::fd::AsFd::as_fd(&file), FILE_BYTES / WORD));
        let fail = |e: rustix::io::Errno| StateError::Io {
            action: "map",
            path: state.path().join(FILE),
            source: e.into(),
        };
        let mapped = mapped.map_err(fail)?;
        Ok(Slots { mapped, free: Mutex::default(), freed: Condvar::new() })
    }

    fn with_free(self) -> Slots {
        let free = (0..COUNT).filter(|slot| self.word(begin_of(*slot)) == 0).collect();
        Slots { free: Mutex::new(free), ..self }
    }

    /// Notes what is about to be done; `head` is the head of the log, read while the order locks of the change
    /// are held. Waits while all slots are taken: who has one waits for nobody.
    pub fn note(&self, intent: &Intent, head: Lsn) -> Noted<'_> {
        if *intent == Intent::Nothing {
            return Noted { slots: self, slot: None };
        }
        let bytes = codec::encode_op(intent).expect("an intent with paths of at most 16 KiB");
        let slot = {
            let mut free = self.free.lock();
            loop {
                match free.pop() {
                    Some(slot) => break slot,
                    None => self.freed.wait(&mut free),
                }
            }
        };
        let begin = begin_of(slot);
        let words = self.mapped.words();
        store(&words[begin + 1], head.get(), Ordering::Relaxed);
        for (at, piece) in bytes.chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word[..piece.len()].copy_from_slice(piece);
            store(&words[begin + 2 + at], u64::from_le_bytes(word), Ordering::Relaxed);
        }
        store(&words[begin], seal(&bytes, head), Ordering::Release);
        compiler_fence(Ordering::SeqCst); // nothing of the change comes before
        Noted { slots: self, slot: Some(slot) }
    }

    /// The changes that were in hand when the last run was killed, in any order: no two of them conflict.
    ///
    /// # Errors
    /// In words, when a slot is damaged.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, String> {
        let read = |slot| self.read(slot).transpose();
        (0..COUNT).filter_map(read).collect()
    }

    fn read(&self, slot: usize) -> Result<Option<Unfinished>, String> {
        let begin = begin_of(slot);
        let sealed = self.word(begin);
        if sealed == 0 {
            return Ok(None);
        }
        let damaged = |why: String| format!("slot {slot} is damaged: {why}");
        let len = usize::try_from(sealed >> 32).unwrap_or(usize::MAX);
        if len > SLOT_BYTES - 2 * WORD {
            return Err(damaged(format!("{len} bytes do not fit in")));
        }
        let words = (0..len.div_ceil(WORD)).map(|at| self.word(begin + 2 + at));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(len);
        let head = Lsn::new(self.word(begin + 1));
        if seal(&bytes, head) != sealed {
            return Err(damaged("checksum".into()));
        }
        let intent = codec::decode_op(&bytes).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Unfinished { intent, head, slot }))
    }

    /// Clears the slot of a change that is recorded now.
    pub fn finished(&self, unfinished: &Unfinished) {
        self.clear(unfinished.slot);
    }

    fn clear(&self, slot: usize) {
        store(&self.mapped.words()[begin_of(slot)], 0, Ordering::Release);
        self.free.lock().push(slot);
        self.freed.notify_one();
    }

    /// Notes that a change has happened of which no record will tell: from now on the epoch can't be continued.
    pub fn end_epoch(&self) {
        store(&self.mapped.words()[OVER], 1, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
    }

    /// Goes over to the next epoch. Nothing is in hand: the tree lock is held exclusively.
    pub fn begin_epoch(&self, epoch: Epoch) {
        let words = self.mapped.words();
        // A kill in the midst of it leaves a header that is of no epoch: another one begins then.
        for (word, value) in words.iter().zip(header(epoch)) {
            store(word, value, Ordering::Release);
        }
        words[OVER..LOST + LOST_COUNT].iter().for_each(|word| store(word, 0, Ordering::Release));
    }

    /// Notes an object that was changed while no name of it is known. One too many ends the epoch at a kill.
    pub fn add_lost(&self, ino: u64) {
        let mut lost = self.lost_words().iter();
        if self.lost().contains(&ino) {
            return;
        }
        let free = |word: &&AtomicU64| {
            word.compare_exchange(0, u64::to_le(ino), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if lost.find(free).is_none() {
            self.end_epoch();
        }
    }

    /// Notes that an object was found, and its check recorded.
    pub fn remove_lost(&self, ino: u64) {
        for word in self.lost_words() {
            // It may not be in this one: then there is nothing to do.
            let _ = word.compare_exchange(u64::to_le(ino), 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The objects that are noted as lost.
    pub fn lost(&self) -> Vec<u64> {
        let all = self.lost_words().iter().map(|word| u64::from_le(word.load(Ordering::Acquire)));
        all.filter(|ino| *ino != 0).collect()
    }

    /// Notes a file that may be stored into unseen. One too many ends the epoch at a kill. Nobody else notes or removes
    /// one meanwhile.
    pub fn add_watched(&self, ino: u64) {
        match self.watched_words().iter().find(|word| word.load(Ordering::Relaxed) == 0) {
            Some(word) => store(word, ino, Ordering::Release),
            None => self.set_crowded(self.word(CROWDED) + 1),
        }
        compiler_fence(Ordering::SeqCst); // nothing of what is done with the file comes before
    }

    /// Notes that a file of [`Slots::add_watched`] can't be stored into unseen any more.
    pub fn remove_watched(&self, ino: u64) {
        match self.watched_words().iter().find(|word| word.load(Ordering::Relaxed) == u64::to_le(ino)) {
            Some(word) => store(word, 0, Ordering::Release),
            None => self.set_crowded(self.word(CROWDED).saturating_sub(1)),
        }
    }

    /// The files that are noted so.
    pub fn watched(&self) -> Vec<u64> {
        let all = self.watched_words().iter().map(|word| u64::from_le(word.load(Ordering::Acquire)));
        all.filter(|ino| *ino != 0).collect()
    }

    fn set_crowded(&self, count: u64) {
        store(&self.mapped.words()[CROWDED], count, Ordering::Release);
    }

    fn watched_words(&self) -> &[AtomicU64] {
        &self.mapped.words()[WATCHED..WATCHED + WATCHED_COUNT]
    }

    fn lost_words(&self) -> &[AtomicU64] {
        &self.mapped.words()[LOST..LOST + LOST_COUNT]
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le(self.mapped.words()[at].load(Ordering::Acquire))
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.slots.clear(slot);
        }
    }
}

fn begin_of(slot: usize) -> usize {
    (HEAD_BYTES + slot * SLOT_BYTES) / WORD
}

fn store(word: &AtomicU64, value: u64, order: Ordering) {
    word.store(value.to_le(), order);
}

/// The first word of a slot that is set: never 0, for no intent is empty.
fn seal(bytes: &[u8], head: Lsn) -> u64 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(bytes), &head.get().to_le_bytes());
    (bytes.len() as u64) << 32 | u64::from(crc)
}

/// The first words of the file.
fn header(epoch: Epoch) -> [u64; 4] {
    let id = u128::from_le_bytes(epoch.id.0);
    let low = u64::try_from(id & u128::from(u64::MAX)).unwrap_or_default();
    let high = u64::try_from(id >> 64).unwrap_or_default();
    let first = MAGIC | u64::from(STATE) << 32;
    let bytes: Vec<u8> = [first, low, high].iter().flat_map(|word| word.to_le_bytes()).collect();
    [first, low, high, u64::from(crc32c::crc32c(&bytes))]
}

/// Refuses what a later TDFS wrote; says what is wrong with what is no slot file at all.
fn check_version(state: &StateDir) -> Result<Option<String>, StateError> {
    let bytes = match state.read_bytes(FILE, FILE_BYTES as u64) {
        Err(StateError::Damaged { why, .. }) => return Ok(Some(why)),
        other => other?,
    };
    let Some(bytes) = bytes else { return Ok(Some("there are no slots".into())) };
    let first = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let version = u16::try_from(first >> 32 & 0xffff).unwrap_or(0);
    if first & 0xffff_ffff == MAGIC && version > STATE {
        return Err(StateError::Newer { path: state.path().join(FILE), theirs: version.into() });
    }
    Ok((bytes.len() != FILE_BYTES).then(|| "the slot file is too short".into()))
}

#[cfg(test)]
mod tests;
