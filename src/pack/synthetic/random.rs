//! Reproducible random numbers, a sequence of its own for every tensor.

/// SplitMix64.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence of this seed and purpose.
    pub(super) fn new(seed: u64, purpose: &str) -> Random {
        // FNV-1a: names that differ in one digit give unrelated sequences, once mixed.
        let hash = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let mut random = Random(seed ^ hash);
        Random(random.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is small beside 2⁶⁴.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A nearly normal number of mean 0 and variance 1: the sum of four 16-bit numbers has both, but no far tails.
    pub(super) fn normal(&mut self) -> f32 {
        let word = self.next();
        let sum: u64 = (0..4).map(|i| (word >> (16 * i)) & 0xffff).sum();
        // Each has mean 65535/2 and variance (2³² − 1)/12.
        const DEVIATION: f32 = 37_837.2;
        (sum as f32 - 131_070.0) / DEVIATION
    }
}
