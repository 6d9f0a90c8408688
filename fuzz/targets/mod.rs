//! What each fuzz target does with bytes from outside: the same for libFuzzer (this crate) and for plain `cargo test`
//! (tests/fuzz), which replays golden files and seeded mutations.
//!
//! Each asserts more than that nothing panics: what is accepted is read again as the same, is within its limits,
//! and moves a session only as its contract says.

pub mod answer;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod record;
pub mod segment;

/// A target: its name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 6] = [
    ("frame", frame::run),
    ("message", message::run),
    ("record", record::run),
    ("answer", answer::run),
    ("segment", segment::run),
    ("handshake", handshake::run),
];

/// Takes bytes apart; 0 where there are none any more.
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    pub fn u64(&mut self) -> u64 {
        let mut number = [0; 8];
        let bytes = self.take(8);
        number[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(number)
    }

    /// At most so many bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A length (u16), and so many bytes.
    pub fn string(&mut self) -> &'a [u8] {
        let len = self.u16();
        self.take(len.into())
    }
}
