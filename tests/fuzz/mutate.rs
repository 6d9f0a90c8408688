//! Makes one input of others: flips, inserts, removes, repeats, and puts numbers where lengths may be.

use harness::Rng;

/// Numbers at the edges of what is counted.
const NUMBERS: [u64; 12] =
    [0, 1, 7, 255, 4096, 65_535, 65_536, 1 << 20, u32::MAX as u64, i64::MAX as u64, u64::MAX - 1, u64::MAX];

/// An input with one to six changes.
pub fn mutate(rng: &mut Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = rng.pick(seeds).clone();
    for _ in 0..=rng.below(6) {
        let at = rng.index(bytes.len() + 1);
        match rng.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            1 if at < bytes.len() => bytes[at] = rng.next().to_le_bytes()[0],
            2 => write_number(rng, &mut bytes, at),
            3 => bytes.truncate(at),
            4 => {
                let len = rng.index(24);
                let more = rng.bytes(len);
                bytes.splice(at..at, more);
            }
            5 => {
                let end = at + rng.index(bytes.len() - at + 1);
                bytes.drain(at..end);
            }
            6 => {
                let end = at + rng.index(bytes.len() - at + 1);
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let other = rng.pick(seeds);
                let from = rng.index(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

fn write_number(rng: &mut Rng, bytes: &mut [u8], at: usize) {
    let number = rng.pick(&NUMBERS).to_le_bytes();
    let len = [1, 2, 4, 8][rng.index(4)].min(bytes.len() - at);
    bytes[at..at + len].copy_from_slice(&number[..len]);
}
