//! Sums over a slice, in the order that [`partial_sums`] defines: the same on every instruction set.
//!
//! 23 instructions for 32 numbers on ARM for a dot product, 48 for mean and deviation.

use crate::Isa;
use crate::simd::partial_sums::{self, BLOCK, MAX_REGISTERS, Partial, WAYS, registers};
use crate::simd::{Kernel, Simd, dispatch};

/// `sum_i a_i b_i`
///
/// # Panics
/// When the lengths differ.
pub fn dot(isa: Isa, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "two slices of one length");
    dispatch(isa, Dot { a, b })
}

/// `sum_i x_i`
pub fn sum(isa: Isa, x: &[f32]) -> f32 {
    dispatch(isa, SquaresAround { x, center: None })
}

/// The mean `m = sum x / n` and the population standard deviation `sqrt(sum (x - m)^2 / n)`; zeros for an empty slice.
pub fn mean_and_deviation(isa: Isa, x: &[f32]) -> (f32, f32) {
    let (mean, variance) = mean_and_variance(isa, x);
    (mean, variance.sqrt())
}

/// The mean `m = sum x / n` and the population variance `sum (x - m)^2 / n`; zeros for an empty slice.
pub fn mean_and_variance(isa: Isa, x: &[f32]) -> (f32, f32) {
    if x.is_empty() {
        return (0.0, 0.0);
    }
    let n = x.len() as f32;
    let mean = sum(isa, x) / n;
    let squares = dispatch(
        isa,
        SquaresAround {
            x,
            center: Some(mean),
        },
    );
    (mean, squares / n)
}

struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;

    fn scalar(self) -> f32 {
        partial_sums::plain_dot(self.a, self.b)
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) -> f32 {
        partial_sums::dot(s, self.a, self.b)
    }
}

/// The plain sum, or the sum of squared distances from a center.
struct SquaresAround<'a> {
    x: &'a [f32],
    center: Option<f32>,
}

impl Kernel for SquaresAround<'_> {
    type Output = f32;

    fn scalar(self) -> f32 {
        partial_sums::plain(self.x.len(), |sum, k| match self.center {
            None => sum + self.x[k],
            Some(center) => {
                let distance = self.x[k] - center;
                distance.mul_add(distance, sum)
            }
        })
    }

    #[inline(always)]
    fn simd<S: Simd>(self, s: S) -> f32 {
        // What continues the last step must add nothing.
        let fill = self.center.unwrap_or(0.0);
        let mut sum = 0.0;
        for x in self.x.chunks(BLOCK) {
            let mut partial = [s.splat(0.0); MAX_REGISTERS];
            let (steps, rest) = x.as_chunks::<WAYS>();
            for x in steps {
                self.step(s, &mut partial, x);
            }
            if !rest.is_empty() {
                self.step(s, &mut partial, &partial_sums::last_step(rest, fill));
            }
            sum += partial_sums::total(s, partial);
        }
        sum
    }
}

impl SquaresAround<'_> {
    #[inline(always)]
    fn step<S: Simd>(&self, s: S, partial: &mut Partial<S>, x: &[f32; WAYS]) {
        for (i, sum) in partial[..registers::<S>()].iter_mut().enumerate() {
            let x = s.load(&x[i * S::LANES..]);
            *sum = match self.center {
                None => s.add(*sum, x),
                Some(center) => {
                    let distance = s.sub(x, s.splat(center));
                    s.mul_add(distance, distance, *sum)
                }
            };
        }
    }
}
