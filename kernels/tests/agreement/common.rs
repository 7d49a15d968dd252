//! What the kernel tests share: instruction sets to try, repeatable numbers, and comparison.

use kernels::{Isa, Pool};

pub(crate) use crate::isas::isas;

/// All but the reference.
pub(crate) fn tuned() -> impl Iterator<Item = Isa> {
    isas().into_iter().filter(|&isa| isa != Isa::scalar())
}

/// One pool of two threads for each instruction set but the scalar one, and the scalar one alone.
pub(crate) fn pools() -> (Pool, Vec<Pool>) {
    (
        Pool::new(Isa::scalar(), 1),
        tuned().map(|isa| Pool::new(isa, 2)).collect(),
    )
}

/// What tells a zero from another, and a NaN from itself.
pub(crate) fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
}

/// Repeatable numbers from a multiplicative generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Uniform in -1 .. 1.
    pub(crate) fn float(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `count` numbers, uniform in `-size .. size`.
    pub(crate) fn floats(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.float() * size).collect()
    }
}

/// Panics unless each `got` is within `absolute + relative * |expected|` of `expected`; NaN and infinities must match.
#[track_caller]
pub(crate) fn assert_close(
    what: &str,
    got: &[f32],
    expected: &[f32],
    relative: f32,
    absolute: f32,
) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let same = got == expected || (got.is_nan() && expected.is_nan());
        let close = (got - expected).abs() <= absolute + relative * expected.abs();
        assert!(
            same || (close && expected.is_finite()),
            "{what}: element {i} is {got:e}, the reference says {expected:e}"
        );
    }
}

/// Panics unless each `got` is `expected` to the bit; one NaN is as good as another.
#[track_caller]
pub(crate) fn assert_same(what: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        assert!(
            got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan()),
            "{what}: element {i} is {got:e}, the reference says {expected:e}"
        );
    }
}
