//! Frame: header + checksum + payload; the unit on a TCP connection.
//!
//! ```text
//!  0  [u8;4]  "TDFS"
//!  4  u16     protocol version (version.rs)
//!  6  u8      kind: 1 message, 2 records, 3 answer
//!  7  u8      codec: 0 stored, 1 LZF
//!  8  u32     length of the payload before compression
//! 12  u32     length of the payload on the wire
//! 16  u64     sequence number of the frame in its direction of this connection, from 0
//! 24  u64     records: LSN of the first; answer: the LSN it is exact as of; else 0
//! 32  u32     records: how many; else 0
//! 36  u32     CRC-32C of bytes 0..36, continued over the payload as on the wire
//! 40  payload
//! ```
//! All little-endian. The sequence number makes a repeated or missing stretch of bytes visible; what it
//! can't see (somebody in the middle who makes frames of his own) is the business of TLS.
//! Reads and writes no socket.

use crate::compress;
use crate::version::PROTOCOL;
use crate::{Lsn, record::RECORD_BYTES_MAX};

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 40;
/// Most payload bytes of a frame before compression: the largest record, or a batch of that size.
pub const FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + 4096;
/// Most payload bytes of a frame before the handshake is done.
pub const FRAME_BYTES_MAX_HANDSHAKE: usize = 64 * 1024;

const MAGIC: [u8; 4] = *b"TDFS";

/// What a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// One message (`message.rs`).
    Message,
    /// Records one after the other, their LSNs without holes.
    Records {
        /// LSN of the first.
        first: Lsn,
        /// How many.
        count: u32,
    },
    /// The answer to a want (`answer.rs`).
    Answer {
        /// The LSN as of which it is exact.
        as_of: Lsn,
    },
}

/// How a payload stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Stored,
    /// LZF; only where it got smaller.
    Lzf,
}

/// A frame that is ready to be sent on any number of connections, but for its sequence number.
#[derive(Clone, Debug)]
pub struct Frame {
    kind: FrameKind,
    codec: Codec,
    raw_len: usize,
    payload: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer speaks another version of the protocol.
    #[error(
        "the peer speaks TDFS protocol {theirs}, this is protocol {PROTOCOL}: install the same version on both sides"
    )]
    Version {
        /// The peer's version.
        theirs: u16,
    },
    /// Not a frame, or not the one that has to follow.
    #[error("damaged frame: {0}")]
    Corrupt(String),
}

impl Frame {
    /// Makes a frame of `raw`; compresses it when `codec` says so and it gets smaller.
    ///
    /// # Panics
    /// When `raw` is over [`FRAME_BYTES_MAX`]: makers of payloads stay below it.
    pub fn new(kind: FrameKind, codec: Codec, raw: Vec<u8>) -> Frame {
        assert!(raw.len() <= FRAME_BYTES_MAX, "a frame of {} bytes", raw.len());
        let raw_len = raw.len();
        let compressed = if codec == Codec::Lzf { compress::compress(&raw) } else { None };
        match compressed {
            Some(payload) => Frame { kind, codec: Codec::Lzf, raw_len, payload },
            None => Frame { kind, codec: Codec::Stored, raw_len, payload: raw },
        }
    }

    /// What its payload is.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Its payload as it goes over the wire.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Bytes on the wire, header included.
    pub fn wire_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.payload.len()
    }

    /// The header for the frame that goes out as number `sequence` of its connection.
    pub fn header(&self, sequence: u64) -> [u8; FRAME_HEADER_BYTES] {
        let (kind, lsn, count) = match self.kind {
            FrameKind::Message => (1, Lsn::ZERO, 0),
            FrameKind::Records { first, count } => (2, first, count),
            FrameKind::Answer { as_of } => (3, as_of, 0),
        };
        let length = |len: usize| u32::try_from(len).expect("FRAME_BYTES_MAX is below 4 GiB").to_le_bytes();
        let mut head = [0; FRAME_HEADER_BYTES];
        head[0..4].copy_from_slice(&MAGIC);
        head[4..6].copy_from_slice(&PROTOCOL.to_le_bytes());
        head[6] = kind;
        head[7] = u8::from(self.codec == Codec::Lzf);
        head[8..12].copy_from_slice(&length(self.raw_len));
        head[12..16].copy_from_slice(&length(self.payload.len()));
        head[16..24].copy_from_slice(&sequence.to_le_bytes());
        head[24..32].copy_from_slice(&lsn.get().to_le_bytes());
        head[32..36].copy_from_slice(&count.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..36]), &self.payload);
        head[36..40].copy_from_slice(&crc.to_le_bytes());
        head
    }
}

/// A parsed header; its checksum is compared when the payload is there.
#[derive(Clone, Debug)]
pub struct FrameHeader {
    bytes: [u8; FRAME_HEADER_BYTES],
    kind: FrameKind,
    codec: Codec,
    raw_len: usize,
    wire_len: usize,
}

impl FrameHeader {
    /// Reads a header and checks every field that can be checked without the payload.
    ///
    /// `sequence` is the number that has to come; `bytes_max` bounds both lengths.
    pub fn parse(
        bytes: [u8; FRAME_HEADER_BYTES],
        sequence: u64,
        bytes_max: usize,
    ) -> Result<FrameHeader, FrameError> {
        let corrupt = |why: String| Err(FrameError::Corrupt(why));
        if bytes[0..4] != MAGIC {
            return corrupt("does not begin with TDFS".into());
        }
        let theirs = u16::from_le_bytes([bytes[4], bytes[5]]);
        if theirs != PROTOCOL {
            return Err(FrameError::Version { theirs });
        }
        let (raw_len, wire_len) = (u32_at(&bytes, 8) as usize, u32_at(&bytes, 12) as usize);
        if raw_len > bytes_max || wire_len > raw_len {
            return corrupt(format!("lengths {raw_len} and {wire_len}, at most {bytes_max} fit"));
        }
        let codec = match bytes[7] {
            0 if raw_len == wire_len => Codec::Stored,
            1 if wire_len < raw_len => Codec::Lzf,
            other => return corrupt(format!("codec {other} with lengths {raw_len} and {wire_len}")),
        };
        if u64_at(&bytes, 16) != sequence {
            return corrupt(format!("number {} where {sequence} has to come", u64_at(&bytes, 16)));
        }
        let lsn = Lsn::try_from(u64_at(&bytes, 24)).map_err(|e| FrameError::Corrupt(e.to_string()))?;
        let count = u32_at(&bytes, 32);
        let kind = match bytes[6] {
            1 if count == 0 && lsn == Lsn::ZERO => FrameKind::Message,
            2 if count > 0 && lsn > Lsn::ZERO => FrameKind::Records { first: lsn, count },
            3 if count == 0 => FrameKind::Answer { as_of: lsn },
            other => return corrupt(format!("kind {other}, LSN {lsn}, {count} records")),
        };
        Ok(FrameHeader { bytes, kind, codec, raw_len, wire_len })
    }

    /// What the payload is.
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// Bytes of the payload that follow on the wire.
    pub fn wire_len(&self) -> usize {
        self.wire_len
    }

    /// Compares the checksum and undoes the compression.
    pub fn open(&self, payload: Vec<u8>) -> Result<Vec<u8>, FrameError> {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.bytes[..36]), &payload);
        if payload.len() != self.wire_len || crc != u32_at(&self.bytes, 36) {
            return Err(FrameError::Corrupt("checksum differs".into()));
        }
        match self.codec {
            Codec::Stored => Ok(payload),
            Codec::Lzf => compress::decompress(&payload, self.raw_len)
                .ok_or_else(|| FrameError::Corrupt("LZF data does not expand to its length".into())),
        }
    }
}

fn u32_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
