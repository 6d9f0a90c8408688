//! Record: op + LSN + time, as bytes. The same bytes stand in the log and in a frame.
//!
//! ```text
//!  0  u32  length of the whole record, this field included
//!  4  u32  CRC-32C of op, owners and bulk, continued over bytes 8..32
//!  8  u64  LSN
//! 16  i64  when it was appended: nanoseconds since 1970
//! 24  u32  length of the op with its owners
//! 28  u32  length of the bulk
//! 32  op, owners (codec), then bulk (raw)
//! ```
//! All little-endian. The checksum covers the payload first, so that it can be made before the LSN is
//! known and outside the log's lock.

use crate::codec::{self, CodecError, OP_BYTES_MAX};
use crate::object::Owner;
use crate::op::sound;
use crate::{Lsn, Op};
use serde::{Deserialize, Serialize};

/// Bytes before the op.
pub const RECORD_HEADER_BYTES: usize = 32;
/// Most bulk bytes of one record: one FUSE write, the largest bulk there is.
pub const BULK_BYTES_MAX: usize = 1 << 20;
/// Most bytes of one record.
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + OP_BYTES_MAX + BULK_BYTES_MAX;

/// Whose the objects were before the op, as far as the master knows: what stands in their place in a replica and
/// belongs to somebody else was put there, and is not to be changed nor read for its sake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// The owner of the object whose content, attribute or xattr the op changes.
    pub changed: Option<Owner>,
    /// The owner of the file that it copies from.
    pub read: Option<Owner>,
}

impl Owners {
    /// Says whether a master can have told them.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), &'static str> {
        let mut told = self.changed.iter().chain(&self.read);
        told.try_for_each(|owner| sound::check_owner(owner.uid, owner.gid))
    }
}

/// One change with its place in the history. The bulk is borrowed from where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place.
    pub lsn: Lsn,
    /// When it was appended: nanoseconds since 1970, by the master's clock.
    pub time_ns: i64,
    /// Its checksum: of two histories that went apart, their records at one place tell.
    pub crc: u32,
    /// What changed.
    pub op: Op,
    /// Whose it was.
    pub owners: Owners,
    /// The data of a write, the value of an xattr, inherited ACLs; else empty.
    pub bulk: &'a [u8],
}

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// More bytes are needed; not wrong so far.
    #[error("record is not complete")]
    Incomplete,
    /// It can't become a record whatever follows.
    #[error("record is damaged: {0}")]
    Corrupt(String),
}

/// An encoded record that waits for its LSN: all but the bulk, and the checksum so far.
#[derive(Debug)]
pub struct Draft<'a> {
    head: Vec<u8>,
    bulk: &'a [u8],
    payload_crc: u32,
}

impl<'a> Draft<'a> {
    /// Encodes `op`, which tells of no owners.
    ///
    /// # Errors
    /// Those of [`Draft::owned`].
    pub fn new(op: &Op, bulk: &'a [u8]) -> Result<Draft<'a>, CodecError> {
        Draft::owned(op, Owners::default(), bulk)
    }

    /// Encodes `op` with the owners of what it changes.
    ///
    /// # Errors
    /// When op or bulk is over its limit; the caller has ruled that out before the change
    /// (paths of at most 16 KiB, writes of at most 1 MiB).
    pub fn owned(op: &Op, owners: Owners, bulk: &'a [u8]) -> Result<Draft<'a>, CodecError> {
        if bulk.len() > BULK_BYTES_MAX {
            return Err(CodecError::TooLong { what: "bulk", len: bulk.len(), max: BULK_BYTES_MAX });
        }
        let op = codec::encode_op(&(op, owners))?;
        let mut head = vec![0; RECORD_HEADER_BYTES];
        head.extend_from_slice(&op);
        let len = head.len() + bulk.len();
        put_u32(&mut head, 0, len);
        put_u32(&mut head, 24, op.len());
        put_u32(&mut head, 28, bulk.len());
        let payload_crc = crc32c::crc32c_append(crc32c::crc32c(&op), bulk);
        Ok(Draft { head, bulk, payload_crc })
    }

    /// Bytes of the whole record.
    pub fn len(&self) -> usize {
        self.head.len() + self.bulk.len()
    }

    /// Never true; a record has a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Gives it its place; returns its two parts, to be written one after the other.
    pub fn place(&mut self, lsn: Lsn, time_ns: i64) -> [&[u8]; 2] {
        self.head[8..16].copy_from_slice(&lsn.get().to_le_bytes());
        self.head[16..24].copy_from_slice(&time_ns.to_le_bytes());
        let crc = crc32c::crc32c_append(self.payload_crc, &self.head[8..RECORD_HEADER_BYTES]);
        self.head[4..8].copy_from_slice(&crc.to_le_bytes());
        [&self.head, self.bulk]
    }
}

/// Where a record lies, and which one it is, without decoding its op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the whole record; at most [`RECORD_BYTES_MAX`].
    pub len: usize,
    /// Checksum as stated.
    pub crc: u32,
    /// Its place.
    pub lsn: Lsn,
    /// When it was appended: nanoseconds since 1970.
    pub time_ns: i64,
    op_len: usize,
}

impl RecordHeader {
    /// Reads the header at the start of `bytes`, which need not hold the whole record.
    pub fn parse(bytes: &[u8]) -> Result<RecordHeader, RecordError> {
        let Some(head) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
            return Err(RecordError::Incomplete);
        };
        let (len, op_len, bulk_len) = (get_u32(head, 0), get_u32(head, 24), get_u32(head, 28));
        if op_len > OP_BYTES_MAX
            || bulk_len > BULK_BYTES_MAX
            || len != RECORD_HEADER_BYTES + op_len + bulk_len
        {
            return Err(RecordError::Corrupt(format!(
                "lengths {len}, {op_len}, {bulk_len} contradict each other"
            )));
        }
        Ok(RecordHeader {
            len,
            crc: u32::from_le_bytes([head[4], head[5], head[6], head[7]]),
            lsn: Lsn::try_from(get_u64(head, 8)).map_err(|e| RecordError::Corrupt(e.to_string()))?,
            time_ns: i64::from_le_bytes(get_u64(head, 16).to_le_bytes()),
            op_len,
        })
    }

    /// Takes the whole record at the start of `bytes` after comparing its checksum.
    pub fn parse_whole(bytes: &[u8]) -> Result<(RecordHeader, &[u8]), RecordError> {
        let header = RecordHeader::parse(bytes)?;
        let Some(whole) = bytes.get(..header.len) else {
            return Err(RecordError::Incomplete);
        };
        let payload = crc32c::crc32c(&whole[RECORD_HEADER_BYTES..]);
        if crc32c::crc32c_append(payload, &whole[8..RECORD_HEADER_BYTES]) != header.crc {
            return Err(RecordError::Corrupt(format!("checksum of the record that says LSN {}", header.lsn)));
        }
        Ok((header, whole))
    }
}

impl<'a> Record<'a> {
    /// Decodes the record at the start of `bytes`; returns it and its length.
    pub fn parse(bytes: &'a [u8]) -> Result<(Record<'a>, usize), RecordError> {
        let (header, whole) = RecordHeader::parse_whole(bytes)?;
        let (op, bulk) = whole[RECORD_HEADER_BYTES..].split_at(header.op_len);
        let (op, owners): (Op, Owners) =
            codec::decode_op(op).map_err(|e| RecordError::Corrupt(e.to_string()))?;
        op.check(bulk.len()).and(owners.check()).map_err(|why| RecordError::Corrupt(why.into()))?;
        let (lsn, time_ns, crc) = (header.lsn, header.time_ns, header.crc);
        Ok((Record { lsn, time_ns, crc, op, owners, bulk }, header.len))
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: usize) {
    let value = u32::try_from(value).expect("lengths in a record are below 4 GiB");
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get_u32(bytes: &[u8; RECORD_HEADER_BYTES], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn get_u64(bytes: &[u8; RECORD_HEADER_BYTES], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests;
