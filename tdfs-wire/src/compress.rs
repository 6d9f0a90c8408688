//! LZF: one payload in, a smaller one out, or none when it does not pay.
//!
//! Called by `frame` alone. Lengths are checked there before anything is allocated here.
//!
//! What is compressed is the payload followed by zeros, one for each 16 bytes of it and 64 more. lzf 1.0.0
//! writes into a buffer as long as its input, and where data that can't be compressed fill it to the last
//! byte just when a repetition begins, it writes one byte beyond and panics, which ends the daemon. Literals
//! cost 33 bytes for 32, so with the zeros behind them the buffer can't fill up before they begin; and they
//! shrink to next to nothing.

/// Below this many bytes a payload is stored: lzf allocates a table of 512 KiB a call (FACTS.md section 5).
const COMPRESS_BYTES_MIN: usize = 512;

/// Compresses; None when the result would not be smaller.
pub(crate) fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < COMPRESS_BYTES_MIN {
        return None;
    }
    let mut padded = Vec::with_capacity(padded_len(raw.len()));
    padded.extend_from_slice(raw);
    padded.resize(padded_len(raw.len()), 0);
    lzf::compress(&padded).ok().filter(|payload| payload.len() < raw.len())
}

/// Expands to exactly `raw_len` bytes (of which it allocates a little more); None when the data say otherwise.
pub(crate) fn decompress(payload: &[u8], raw_len: usize) -> Option<Vec<u8>> {
    let padded_len = padded_len(raw_len);
    let mut raw = lzf::decompress(payload, padded_len).ok().filter(|raw| raw.len() == padded_len)?;
    raw.truncate(raw_len);
    Some(raw)
}

fn padded_len(raw_len: usize) -> usize {
    raw_len + raw_len / 16 + 64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that are alike on every machine (xorshift64*).
    fn random(state: &mut u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Data that can't be compressed, with a repetition where lzf's buffer would be full: 46 of 200,000 such
    /// inputs made lzf 1.0.0 panic without the zeros.
    #[test]
    fn a_repetition_after_random_data_is_no_trouble() {
        let seeds = std::env::var("TDFS_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(20_000);
        for seed in 1..=seeds {
            let mut state = seed;
            let len = 512 + random(&mut state) % 3000;
            let mut data: Vec<u8> = (0..len).map(|_| random(&mut state).to_le_bytes()[0]).collect();
            let from = usize::try_from(random(&mut state) % (len / 2)).unwrap();
            let count = usize::try_from(3 + random(&mut state) % 6).unwrap();
            let back = usize::try_from(random(&mut state) % (len / 20)).unwrap() + count;
            let to = data.len() - back;
            data.copy_within(from..from + count, to);
            if let Some(payload) = compress(&data) {
                assert_eq!(decompress(&payload, data.len()).as_deref(), Some(&data[..]), "seed {seed}");
            }
        }
    }

    #[test]
    fn what_can_be_compressed_comes_back() {
        for len in [512, 513, 4096, 1 << 20] {
            let data: Vec<u8> = (0..len).map(|at| u8::try_from(at / 7 % 50).unwrap()).collect();
            let payload = compress(&data).expect("it repeats");
            assert!(payload.len() < data.len());
            assert_eq!(decompress(&payload, len).as_deref(), Some(&data[..]));
            assert_eq!(decompress(&payload, len - 20), None);
        }
    }
}
