//! One function on every element of a slice, or of two slices side by side.

use crate::Isa;
use crate::simd::{Kernel, Plain, Simd, dispatch};

/// A function of one number, as the operations on a register that it consists of.
pub(crate) trait Unary: Copy {
    /// The function; must be `#[inline(always)]`.
    fn of<S: Simd>(self, s: S, x: S::V) -> S::V;
}

/// A function of two numbers, as the operations on registers that it consists of.
pub(crate) trait Binary: Copy {
    /// The function; must be `#[inline(always)]`.
    fn of<S: Simd>(self, s: S, x: S::V, y: S::V) -> S::V;
}

/// `x = f(x)`
pub(crate) fn map<F: Unary>(isa: Isa, x: &mut [f32], f: F) {
    dispatch(isa, Map { x, f });
}

/// `x = f(x, y)`
///
/// # Panics
/// When the lengths differ.
#[track_caller]
pub(crate) fn zip<F: Binary>(isa: Isa, x: &mut [f32], y: &[f32], f: F) {
    assert_eq!(x.len(), y.len(), "two slices of one length");
    dispatch(isa, Zip { x, y, f });
}

struct Map<'a, F> {
    x: &'a mut [f32],
    f: F,
}

impl<F: Unary> Kernel for Map<'_, F> {
    type Output = ();

    fn scalar(self) {
        for x in self.x {
            *x = self.f.of(Plain, *x);
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        let mut chunks = self.x.chunks_exact_mut(S::LANES);
        for x in &mut chunks {
            let y = self.f.of(s, s.load(x));
            s.store(y, x);
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let y = self.f.of(s, s.load_tail(rest, 0.0));
            s.store_tail(y, rest);
        }
    }
}

struct Zip<'a, F> {
    x: &'a mut [f32],
    y: &'a [f32],
    f: F,
}

impl<F: Binary> Kernel for Zip<'_, F> {
    type Output = ();

    fn scalar(self) {
        for (x, &y) in self.x.iter_mut().zip(self.y) {
            *x = self.f.of(Plain, *x, y);
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) {
        let mut xs = self.x.chunks_exact_mut(S::LANES);
        let mut ys = self.y.chunks_exact(S::LANES);
        for (x, y) in (&mut xs).zip(&mut ys) {
            let z = self.f.of(s, s.load(x), s.load(y));
            s.store(z, x);
        }
        let (x, y) = (xs.into_remainder(), ys.remainder());
        if !x.is_empty() {
            let z = self.f.of(s, s.load_tail(x, 0.0), s.load_tail(y, 0.0));
            s.store_tail(z, x);
        }
    }
}
