//! LZF: one payload in, a smaller one out, or none when it does not pay.
//!
//! Called by `frame` alone. Lengths are checked there before anything is allocated here.

/// Below this many bytes a payload is stored: lzf allocates a table of 512 KiB a call (FACTS.md section 5).
const COMPRESS_BYTES_MIN: usize = 512;

/// Compresses; None when the result would not be smaller.
pub(crate) fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    lzf::compress(raw).ok().filter(|payload| payload.len() < raw.len())
}

/// Expands to exactly `raw_len` bytes (which it allocates); None when the data say otherwise.
pub(crate) fn decompress(payload: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    lzf::decompress(payload, raw_len).ok().filter(|raw| raw.len() == raw_len)
}
