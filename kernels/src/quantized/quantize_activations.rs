//! Activations from f32 to 8 bit, group by group.
//!
//! 74 to 79 instructions for 32 numbers on ARM.

use std::cell::Cell;

use crate::clip::Bounds;
use crate::isa::Isa;
use crate::map::Unary;
use crate::pool::Pool;
use crate::quant::{ActivationGroup, GROUP, PANEL, Q8Activations};
#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
use crate::simd::integer::{IntegerKernel, dispatch_integer, each_with};
use crate::simd::{Plain, Simd};

/// Quantises `x [tokens, cols]` into `out`: `scale = max |x| / 127` over a group, `q = round(x · 127 / max |x|)`, ties to even.
///
/// A group whose largest magnitude is below 10⁻³⁶ becomes zeros. A NaN makes its group's scale NaN, and so the results.
/// Several tokens are shared out over the pool.
///
/// # Panics
/// When `x` is not `tokens × cols` long.
pub fn quantize_activations(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    cols: usize,
    out: &mut Q8Activations,
) {
    quantize_within(pool, x, tokens, cols, Bounds::NONE, out);
}

/// [`quantize_activations`] of what [`Bounds::clamp`] makes of `x`, in one pass.
///
/// # Panics
/// As there.
pub fn quantize_within(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    cols: usize,
    bounds: Bounds,
    out: &mut Q8Activations,
) {
    assert_eq!(
        x.len(),
        tokens * cols,
        "{tokens} tokens of {cols} activations"
    );
    out.resize(pool.isa(), tokens, cols);
    let groups = cols.div_ceil(GROUP);
    if tokens == 1 {
        dispatch_integer(
            pool.isa(),
            Token {
                x,
                bounds,
                token: 0,
                out: &mut out.single,
            },
        );
        return;
    }
    let interleaved = out.interleaved();
    pool.for_each_row_mut(&mut out.panels, groups, &|panel, out| {
        quantize_panel(
            pool.isa(),
            &x[panel * PANEL * cols..],
            cols,
            bounds,
            interleaved,
            out,
        );
    });
}

/// The first rows of `x`, as many as a panel has; where there are fewer, it is filled up with zeros.
pub(crate) fn quantize_panel(
    isa: Isa,
    x: &[f32],
    cols: usize,
    bounds: Bounds,
    interleaved: bool,
    out: &mut [ActivationGroup<PANEL>],
) {
    for token in 0..PANEL {
        let x = x
            .get(token * cols..)
            .map_or(&[][..], |x| &x[..cols.min(x.len())]);
        let token = Token {
            x,
            bounds,
            token,
            out: &mut *out,
        };
        dispatch_integer(isa, token);
    }
    if interleaved {
        out.iter_mut().for_each(interleave);
    }
}

thread_local! {
    /// Buffers of [`with_activations`], kept for the next call.
    static SCRATCH: Cell<Q8Activations> = Cell::default();
}

/// Hands `x`, quantised as by [`quantize_within`], to `f`; allocates only while the thread's buffers grow.
pub(crate) fn with_activations(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    cols: usize,
    bounds: Bounds,
    f: impl FnOnce(&Q8Activations),
) {
    let mut scratch = SCRATCH.take();
    quantize_within(pool, x, tokens, cols, bounds, &mut scratch);
    f(&scratch);
    SCRATCH.set(scratch);
}

/// One token into its place `token` of each group; an `x` that ends early is continued with zeros.
struct Token<'a, const T: usize> {
    x: &'a [f32],
    bounds: Bounds,
    token: usize,
    out: &'a mut [ActivationGroup<T>],
}

/// Below this `127 / max` would overflow.
const SMALLEST: f32 = 1e-36;

/// The passes over a group; the methods of vectors must be `#[inline(always)]`.
trait Group: Copy {
    /// Its instructions for floats.
    type Floats: Simd;
    /// The token of these.
    fn floats(self) -> Self::Floats;
    /// The largest magnitude, NaN if there is one: magnitudes compare like their bits.
    fn largest(self, x: &[f32; GROUP]) -> f32;
    /// Writes `q = round(x · inverse)`, ties to even, and returns their sum.
    fn round(self, x: &[f32; GROUP], inverse: f32, q: &mut [i8; GROUP]) -> i32;
}

impl<const T: usize> IntegerKernel for Token<'_, T> {
    fn scalar(self) {
        self.each(Scalar);
    }

    each_with!(neon, avx2);
}

impl<const T: usize> Token<'_, T> {
    #[inline(always)]
    fn each(self, s: impl Group) {
        if self.bounds.is_none() {
            self.walk::<false>(s);
        } else {
            self.walk::<true>(s);
        }
    }

    #[inline(always)]
    fn walk<const CLIPPED: bool>(self, s: impl Group) {
        let (whole, rest) = self.x.as_chunks::<GROUP>();
        let mut last = [0.0; GROUP];
        last[..rest.len()].copy_from_slice(rest);
        if CLIPPED {
            // Zeros that continue it stay zeros.
            last = clamp(s.floats(), &last, self.bounds);
            last[rest.len()..].fill(0.0);
        }
        for (group, out) in self.out.iter_mut().enumerate() {
            let clipped;
            let x = match whole.get(group) {
                Some(x) if CLIPPED => {
                    clipped = clamp(s.floats(), x, self.bounds);
                    &clipped
                }
                Some(x) => x,
                None if group == whole.len() => &last,
                None => &[0.0; GROUP],
            };
            let largest = s.largest(x);
            let (scale, inverse) = if largest < SMALLEST {
                (0.0, 0.0)
            } else {
                (largest / 127.0, 127.0 / largest)
            };
            out.scale[self.token] = scale;
            out.offset[self.token] = -8 * s.round(x, inverse, &mut out.q[self.token]);
        }
    }
}

/// What [`Bounds::clamp`] makes of a group.
#[inline(always)]
fn clamp<S: Simd>(s: S, x: &[f32; GROUP], bounds: Bounds) -> [f32; GROUP] {
    let mut out = *x;
    for out in out.chunks_exact_mut(S::LANES) {
        s.store(bounds.of(s, s.load(out)), out);
    }
    out
}

/// The reference.
#[derive(Clone, Copy)]
struct Scalar;

impl Group for Scalar {
    type Floats = Plain;

    fn floats(self) -> Plain {
        Plain
    }

    fn largest(self, x: &[f32; GROUP]) -> f32 {
        f32::from_bits(x.iter().fold(0, |most, x| most.max(x.abs().to_bits())))
    }

    fn round(self, x: &[f32; GROUP], inverse: f32, q: &mut [i8; GROUP]) -> i32 {
        for (q, x) in q.iter_mut().zip(x) {
            *q = (x * inverse).round_ties_even() as i8;
        }
        q.iter().map(|&q| i32::from(q)).sum()
    }
}

#[cfg(target_arch = "aarch64")]
impl Group for Neon {
    type Floats = Self;

    #[inline(always)]
    fn floats(self) -> Self {
        self
    }

    #[inline(always)]
    fn largest(self, x: &[f32; GROUP]) -> f32 {
        let mut most = self.magnitude_bits(self.load_f32(x, 0));
        for at in (4..GROUP).step_by(4) {
            most = self.larger_u32(most, self.magnitude_bits(self.load_f32(x, at)));
        }
        f32::from_bits(self.largest_u32(most))
    }

    #[inline(always)]
    fn round(self, x: &[f32; GROUP], inverse: f32, q: &mut [i8; GROUP]) -> i32 {
        let mut sum = 0;
        for half in [0, 16] {
            let mut rounded = [self.splat_i32(0); 4];
            for (i, rounded) in rounded.iter_mut().enumerate() {
                let x = self.load_f32(x, half + 4 * i);
                *rounded = self.round_to_i32(self.multiply_by(x, inverse));
            }
            let narrow = self.narrow(rounded);
            self.store_i8(narrow, q, half);
            sum += self.sum_i8(narrow);
        }
        sum
    }
}

#[cfg(target_arch = "x86_64")]
impl Group for Avx2 {
    type Floats = Self;

    #[inline(always)]
    fn floats(self) -> Self {
        self
    }

    #[inline(always)]
    fn largest(self, x: &[f32; GROUP]) -> f32 {
        let mut most = self.magnitude_bits(self.load_f32(x, 0));
        for at in (8..GROUP).step_by(8) {
            most = self.larger_u32(most, self.magnitude_bits(self.load_f32(x, at)));
        }
        f32::from_bits(self.largest_u32(most))
    }

    #[inline(always)]
    fn round(self, x: &[f32; GROUP], inverse: f32, q: &mut [i8; GROUP]) -> i32 {
        let mut rounded = [self.splat_i32(0); 4];
        for (i, rounded) in rounded.iter_mut().enumerate() {
            let x = self.mul(self.load_f32(x, 8 * i), self.splat(inverse));
            *rounded = self.round_to_i32(x);
        }
        let narrow = self.narrow(rounded);
        self.store_i8(narrow, q);
        self.sum_i8(narrow)
    }
}

/// From `[token][k]` to `[k / 8][token][k % 8]`: a register then holds two tokens × 8 k, as `smmla` wants them. Its sums are
/// those of two tokens in turn, so the scales are doubled in pairs, the second of which takes the place of the offsets.
#[inline(always)]
fn interleave(group: &mut ActivationGroup<PANEL>) {
    let q = group.q;
    for (block, out) in group.q.iter_mut().enumerate() {
        for (token, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            out.copy_from_slice(&q[token][block * 8..][..8]);
        }
    }
    let [a, b, c, d] = group.scale;
    group.scale = [a, b, a, b];
    group.offset = [c, d, c, d].map(|scale| scale.to_bits() as i32);
}
