//! Random numbers that a seed decides: the same seed, the same numbers, on any machine.

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// Starts the sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Starts a sequence of its own for thread or part `number` of the same seed.
    pub fn part(seed: u64, number: u64) -> Self {
        let mut rng = Self::new(seed ^ number.wrapping_mul(0xA24B_AED4_963E_E407));
        rng.next();
        rng
    }

    /// Gives the next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "endless: an Option would only be in the way")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Gives a number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a number below 0 was asked for");
        self.next() % bound
    }

    /// Gives an index into something of `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("fit an index into usize")
    }

    /// Picks one of `all`.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.index(all.len())]
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Gives `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// The seed of this run: `TDFS_SEED` or the clock. Printed, so that a failure can be repeated.
pub fn run_seed() -> u64 {
    let seed = match std::env::var("TDFS_SEED") {
        Ok(text) => text.parse().expect("parse TDFS_SEED as a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| u64::from(since.subsec_nanos()) | (since.as_secs() << 32)),
    };
    println!("TDFS_SEED={seed}");
    seed
}
