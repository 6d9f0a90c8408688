//! The one place that knows bincode: fixed integers, little-endian, a limit, and nothing left over.
//!
//! Called by `record`, `message` and `answer`, and by the master for its slots. Bulk data never passes through here (FACTS.md 1.3: without
//! a limit a nine-byte input makes bincode allocate until the process aborts).

use serde::{Serialize, de::DeserializeOwned};

/// Most bytes an encoded op may have: two paths, a symlink target and the fixed fields fit in.
pub const OP_BYTES_MAX: usize = 65_536;
/// Most bytes an encoded message or the head of an answer may have.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Why bytes could not be decoded (or, never in practice, a value not encoded).
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not a value of the expected type.
    #[error("not a valid {what}: {why}")]
    Invalid {
        /// What was expected.
        what: &'static str,
        /// The decoder's words.
        why: String,
    },
    /// A value was followed by bytes that do not belong to it.
    #[error("{left} bytes too many after a {what}")]
    LeftOver {
        /// What was decoded.
        what: &'static str,
        /// How many bytes were left.
        left: usize,
    },
    /// The encoded form is longer than its limit.
    #[error("a {what} of {len} bytes is over the limit of {max}")]
    TooLong {
        /// What was encoded.
        what: &'static str,
        /// Its encoded length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
}

/// Encodes an op, or what the master notes before one (limit [`OP_BYTES_MAX`]).
///
/// # Errors
/// When it is over the limit.
pub fn encode_op<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode(value, "op", OP_BYTES_MAX)
}

/// Decodes what [`encode_op`] made, all of `bytes`.
///
/// # Errors
/// When it is anything else.
pub fn decode_op<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::legacy().with_limit::<OP_BYTES_MAX>();
    whole("op", bytes.len(), bincode::serde::decode_from_slice(bytes, config))
}

/// Encodes a message (limit [`MESSAGE_BYTES_MAX`]).
pub(crate) fn encode_message<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    encode(value, "message", MESSAGE_BYTES_MAX)
}

/// Decodes a message, all of `bytes`.
pub(crate) fn decode_message<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::legacy().with_limit::<MESSAGE_BYTES_MAX>();
    whole("message", bytes.len(), bincode::serde::decode_from_slice(bytes, config))
}

fn encode<T: Serialize>(value: &T, what: &'static str, max: usize) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, bincode::config::legacy())
        .map_err(|e| CodecError::Invalid { what, why: e.to_string() })?;
    if bytes.len() > max {
        return Err(CodecError::TooLong { what, len: bytes.len(), max });
    }
    Ok(bytes)
}

fn whole<T>(
    what: &'static str,
    len: usize,
    decoded: Result<(T, usize), bincode::error::DecodeError>,
) -> Result<T, CodecError> {
    let (value, used) = decoded.map_err(|e| CodecError::Invalid { what, why: e.to_string() })?;
    if used != len {
        return Err(CodecError::LeftOver { what, left: len - used });
    }
    Ok(value)
}
