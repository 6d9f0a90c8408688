//! Want and answer: how a slave asks for the state of an object, and how the master tells it.
//!
//! An answer is exact as of the LSN in its frame and stands in the stream at that place, so for the
//! slave it is one more thing in the order (DESIGN section 7). Layout of an answer's payload: u32 length
//! of the head, head (codec), bulk.

use crate::codec::{self, CodecError, MESSAGE_BYTES_MAX};
use crate::object::{Child, Kind, Meta};
use crate::op::{FILE_BYTES_MAX, sound};
use crate::{Frame, Lsn, Name, TreePath, frame::Codec, frame::FrameKind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Content is compared and sent in blocks of this many bytes.
pub const BLOCK_BYTES: u64 = 128 * 1024;
/// Most blocks that one want asks for.
pub const BLOCKS_MAX: usize = 8;

/// A slave's question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// Chosen by the slave, told again in the answer.
    pub id: u64,
    /// The object it is about.
    pub path: TreePath,
    /// What of it.
    pub what: Wanted,
}

/// What a want asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// The names in a directory, in the order of their bytes, and the directory's own meta.
    Listing {
        /// The names behind this one, as many as fit an answer; None: from the first on.
        after: Option<Name>,
    },
    /// The meta, and of a regular file the content from `offset` on: at most [`BLOCKS_MAX`] blocks,
    /// and holes however long.
    Object {
        /// A multiple of [`BLOCK_BYTES`].
        offset: u64,
        /// BLAKE3 of the blocks as they stand at the slave, from `offset` on, the last maybe short; those
        /// that are equal are not sent. Empty: the slave has nothing.
        hashes: Vec<[u8; 32]>,
    },
}

/// How a stretch of content stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stretch {
    /// So many bytes are as the slave has them.
    Same(u64),
    /// So many bytes are a hole.
    Hole(u64),
    /// So many bytes stand next in the answer's bulk.
    Data(u32),
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The id of the want.
    pub id: u64,
    /// The object, as asked for.
    pub path: TreePath,
    /// How it stands.
    pub found: Found,
}

/// What the master found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// There is no such object (or it is no directory where a listing was asked for).
    Gone,
    /// A directory, or a part of a large one: records may come between the parts.
    Listing {
        /// The directory itself.
        meta: Meta,
        /// Names, sorted; none is missing between the one asked for and the last of these.
        children: Vec<Child>,
        /// True if there is no name behind these.
        last: bool,
    },
    /// An object with the asked stretch of its content in order.
    Object {
        /// The object.
        meta: Meta,
        /// The master's inode number.
        ino: u64,
        /// How many names it has.
        links: u64,
        /// Content from the asked offset on.
        stretches: Vec<Stretch>,
    },
}

impl Answer {
    /// Makes the frame that carries it.
    ///
    /// # Errors
    /// When the head is over its limit.
    pub fn frame(&self, as_of: Lsn, bulk: &[u8], codec: Codec) -> Result<Frame, CodecError> {
        let head = codec::encode_message(self)?;
        let mut raw = Vec::with_capacity(4 + head.len() + bulk.len());
        raw.extend_from_slice(&u32::try_from(head.len()).expect("limited by the codec").to_le_bytes());
        raw.extend_from_slice(&head);
        raw.extend_from_slice(bulk);
        if raw.len() > crate::frame::FRAME_BYTES_MAX {
            let (len, max) = (raw.len(), crate::frame::FRAME_BYTES_MAX);
            return Err(CodecError::TooLong { what: "answer", len, max });
        }
        Ok(Frame::new(FrameKind::Answer { as_of }, codec, raw))
    }

    /// Reads an opened payload; returns the head and the bulk.
    pub fn parse(payload: &[u8]) -> Result<(Answer, &[u8]), CodecError> {
        let invalid = |why: &str| CodecError::Invalid { what: "answer", why: why.into() };
        let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(|| invalid("no length"))?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > MESSAGE_BYTES_MAX || length > rest.len() {
            return Err(invalid("its head is longer than it"));
        }
        let (head, bulk) = rest.split_at(length);
        let answer: Answer = codec::decode_message(head)?;
        let told: u64 = match &answer.found {
            Found::Object { stretches, .. } => stretches.iter().map(Stretch::bulk_len).sum(),
            Found::Gone | Found::Listing { .. } => 0,
        };
        if told != bulk.len() as u64 {
            return Err(invalid("its stretches do not add up to its bulk"));
        }
        answer.check().map_err(invalid)?;
        Ok((answer, bulk))
    }
}

impl Answer {
    fn check(&self) -> Result<(), &'static str> {
        match &self.found {
            Found::Gone => Ok(()),
            Found::Object { meta, links, .. } => {
                check_links(*links)?;
                meta.check()
            }
            Found::Listing { meta, children, last } => {
                sound::check(*last || !children.is_empty(), "a part of a listing without a name")?;
                let sorted = children.is_sorted_by(|a, b| a.name < b.name);
                sound::check(sorted, "names that are not sorted, or come twice")?;
                for child in children {
                    check_links(child.links)?;
                    child.meta.check()?;
                }
                sound::check(meta.kind == Kind::Directory, "names in what is no directory")?;
                meta.check()
            }
        }
    }
}

/// st_nlink has 32 bits.
fn check_links(links: u64) -> Result<(), &'static str> {
    sound::check(links <= u64::from(u32::MAX), "an impossible number of names")
}

impl Want {
    /// Says whether a slave can want it.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        match &self.what {
            Wanted::Listing { .. } => Ok(()),
            Wanted::Object { offset, hashes } => {
                let fits = *offset <= FILE_BYTES_MAX && offset.is_multiple_of(BLOCK_BYTES);
                sound::check(fits, "an offset where no block begins")?;
                sound::check(hashes.len() <= BLOCKS_MAX, "too many hashes")
            }
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Found::Gone => write!(f, "gone"),
            Found::Listing { children, last, .. } => write!(f, "{} names, last: {last}", children.len()),
            Found::Object { meta, ino, links, stretches } => {
                let told: u64 = stretches.iter().map(Stretch::bulk_len).sum();
                let len: u64 = stretches.iter().map(Stretch::len).sum();
                write!(f, "inode {ino}, {links} links, size {}, {told} of {len} bytes", meta.size)
            }
        }
    }
}

impl Stretch {
    /// How many bytes of the file it covers.
    pub fn len(&self) -> u64 {
        match *self {
            Stretch::Same(len) | Stretch::Hole(len) => len,
            Stretch::Data(len) => u64::from(len),
        }
    }

    /// True if it covers nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes of the bulk are its.
    pub fn bulk_len(&self) -> u64 {
        match *self {
            Stretch::Data(len) => u64::from(len),
            Stretch::Same(_) | Stretch::Hole(_) => 0,
        }
    }
}
