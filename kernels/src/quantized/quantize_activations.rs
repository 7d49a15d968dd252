//! Activations from f32 to 8 bit, group by group.

use std::cell::Cell;
use std::iter::{repeat, repeat_n};

use crate::pool::Pool;
use crate::quant::{ActivationGroup, GROUP, PANEL, Q8Activations};
use crate::simd::{Kernel, Simd, dispatch};

/// Quantises `x [tokens, cols]` into `out`: `scale = max |x| / 127` over a group, `q = round(x · 127 / max |x|)`, ties to even.
///
/// A group whose largest magnitude is below 10⁻³⁶ becomes zeros. What is not finite gives unspecified integers.
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
    assert_eq!(
        x.len(),
        tokens * cols,
        "{tokens} tokens of {cols} activations"
    );
    out.resize(pool.isa(), tokens, cols);
    let groups = cols.div_ceil(GROUP);
    if tokens == 1 {
        dispatch(
            pool.isa(),
            Token {
                x,
                token: 0,
                out: &mut out.single,
            },
        );
        return;
    }
    let interleaved = out.interleaved();
    pool.for_each_row_mut(&mut out.panels, groups, &|panel, out| {
        for token in 0..PANEL {
            let x = x
                .get((panel * PANEL + token) * cols..)
                .map_or(&[][..], |x| &x[..cols.min(x.len())]);
            dispatch(
                pool.isa(),
                Token {
                    x,
                    token,
                    out: &mut *out,
                },
            );
        }
        if interleaved {
            out.iter_mut().for_each(interleave);
        }
    });
}

thread_local! {
    /// Buffers of [`with_activations`], kept for the next call.
    static SCRATCH: Cell<Q8Activations> = Cell::default();
}

/// Hands `x`, quantised as by [`quantize_activations`], to `f`; allocates only while the thread's buffers grow.
pub(crate) fn with_activations(
    pool: &Pool,
    x: &[f32],
    tokens: usize,
    cols: usize,
    f: impl FnOnce(&Q8Activations),
) {
    let mut scratch = SCRATCH.take();
    quantize_activations(pool, x, tokens, cols, &mut scratch);
    f(&scratch);
    SCRATCH.set(scratch);
}

/// One token into its place `token` of each group; an `x` that ends early is continued with zeros.
struct Token<'a, const T: usize> {
    x: &'a [f32],
    token: usize,
    out: &'a mut [ActivationGroup<T>],
}

impl<const T: usize> Kernel for Token<'_, T> {
    type Output = ();

    #[inline(always)]
    fn scalar(self) {
        let (whole, rest) = self.x.as_chunks::<GROUP>();
        let mut last = [0.0; GROUP];
        last[..rest.len()].copy_from_slice(rest);
        let padding = repeat_n(&last, usize::from(!rest.is_empty())).chain(repeat(&[0.0; GROUP]));
        let xs = whole.iter().chain(padding);
        for (out, x) in self.out.iter_mut().zip(xs) {
            quantize_group(x, self.token, out);
        }
    }

    #[inline(always)]
    fn simd<S: Simd>(self, _: S) {
        // The same code: the compiler makes vectors of its loops of 32.
        self.scalar();
    }
}

/// Below this `127 / max` would overflow.
const SMALLEST: f32 = 1e-36;

#[inline(always)]
fn quantize_group<const T: usize>(x: &[f32; GROUP], token: usize, out: &mut ActivationGroup<T>) {
    // Magnitudes compare like their bits, and a maximum of integers has no NaN to mind.
    let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.abs().to_bits())));
    let (scale, inverse) = if largest < SMALLEST {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    };
    let mut sum = 0;
    for (q, x) in out.q[token].iter_mut().zip(x) {
        let rounded = round(x * inverse);
        *q = rounded as i8;
        sum += rounded;
    }
    out.scale[token] = scale;
    out.offset[token] = -8 * sum;
}

/// Rounds magnitudes below 2²² to the nearest integer, ties to even: the sum's last bit is worth one, and adding rounds to it.
#[inline(always)]
fn round(v: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³
    (v + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32
}

/// From `[token][k]` to `[k / 8][token][k % 8]`: a register then holds two tokens × 8 k, as `smmla` wants them.
#[inline(always)]
fn interleave(group: &mut ActivationGroup<PANEL>) {
    let q = group.q;
    for (block, out) in group.q.iter_mut().enumerate() {
        for (token, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            out.copy_from_slice(&q[token][block * 8..][..8]);
        }
    }
}
