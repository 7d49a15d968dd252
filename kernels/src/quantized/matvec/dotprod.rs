//! `sdot` by a broadcast quad of activations: a register of weights is 4 rows × 4 k, four registers the 16 rows of a tile.
//! Nibbles go in unsigned; the sums begin with −8 Σ x instead.
//!
//! 6.5 instructions for 32 weights of 4 bit, 5.1 of 8 bit.

use std::arch::aarch64::*;

use super::*;

/// One quad of activations (lane `$lane` of `$x`) with 64 bytes of weights, those of rows `4 $i` on being `$w`.
macro_rules! quad {
    ($s:ident, $dots:ident, $x:expr, $lane:literal, $i:ident => $w:expr) => {
        for ($i, dot) in $dots.iter_mut().enumerate() {
            *dot = $s.sdot_lane::<$lane>(*dot, $w, $x);
        }
    };
}

impl TileSums for Dotprod {
    #[inline(always)]
    fn q4(self, w: &[Q4], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
        q4(self, w, sw, x)
    }

    #[inline(always)]
    fn q8(self, w: &[Q8], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
        q8(self, w, sw, x)
    }
}

#[inline(always)]
fn q4(s: Dotprod, w: &[Q4], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
    let mut sums = [s.neon().splat_f32(0.0); 4];
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let xs = activations(s, x);
        let mut dots = [s.neon().splat_i32(x.offset[0]); 4];
        quad!(s, dots, xs[0], 0, i => s.neon().low_nibbles(s.neon().load(w, 16 * i)));
        quad!(s, dots, xs[0], 1, i => s.neon().high_nibbles(s.neon().load(w, 16 * i)));
        quad!(s, dots, xs[0], 2, i => s
            .neon()
            .low_nibbles(s.neon().load(w, 64 + 16 * i)));
        quad!(s, dots, xs[0], 3, i => s
            .neon()
            .high_nibbles(s.neon().load(w, 64 + 16 * i)));
        quad!(s, dots, xs[1], 0, i => s
            .neon()
            .low_nibbles(s.neon().load(w, 128 + 16 * i)));
        quad!(s, dots, xs[1], 1, i => s
            .neon()
            .high_nibbles(s.neon().load(w, 128 + 16 * i)));
        quad!(s, dots, xs[1], 2, i => s
            .neon()
            .low_nibbles(s.neon().load(w, 192 + 16 * i)));
        quad!(s, dots, xs[1], 3, i => s
            .neon()
            .high_nibbles(s.neon().load(w, 192 + 16 * i)));
        add_scaled(s.neon(), &mut sums, dots, sw, x.scale[0]);
    }
    rows(s.neon(), sums)
}

#[inline(always)]
fn q8(s: Dotprod, w: &[Q8], sw: &[Scales], x: &[X]) -> [f32; TILE_ROWS] {
    let mut sums = [s.neon().splat_f32(0.0); 4];
    for ((w, sw), x) in w.iter().zip(sw).zip(x) {
        let xs = activations(s, x);
        let mut dots = [s.neon().splat_i32(0); 4];
        quad!(s, dots, xs[0], 0, i => s.neon().load(w, 16 * i));
        quad!(s, dots, xs[0], 1, i => s.neon().load(w, 64 + 16 * i));
        quad!(s, dots, xs[0], 2, i => s.neon().load(w, 128 + 16 * i));
        quad!(s, dots, xs[0], 3, i => s.neon().load(w, 192 + 16 * i));
        quad!(s, dots, xs[1], 0, i => s.neon().load(w, 256 + 16 * i));
        quad!(s, dots, xs[1], 1, i => s.neon().load(w, 320 + 16 * i));
        quad!(s, dots, xs[1], 2, i => s.neon().load(w, 384 + 16 * i));
        quad!(s, dots, xs[1], 3, i => s.neon().load(w, 448 + 16 * i));
        add_scaled(s.neon(), &mut sums, dots, sw, x.scale[0]);
    }
    rows(s.neon(), sums)
}

#[inline(always)]
fn activations(s: Dotprod, x: &X) -> [int8x16_t; 2] {
    [s.neon().load_i8(&x.q[0], 0), s.neon().load_i8(&x.q[0], 16)]
}

/// `sum = fma(dot, s_w · s_x, sum)` of the 16 rows.
#[inline(always)]
pub(super) fn add_scaled(
    s: Neon,
    sums: &mut [float32x4_t; 4],
    dots: [int32x4_t; 4],
    sw: &Scales,
    sx: f32,
) {
    let [sw0, sw1] = s.load_f16(sw, 0);
    let [sw2, sw3] = s.load_f16(sw, 16);
    for ((sum, dot), sw) in sums.iter_mut().zip(dots).zip([sw0, sw1, sw2, sw3]) {
        *sum = s.multiply_add(s.to_f32(dot), s.multiply_by(sw, sx), *sum);
    }
}

/// The sums of the 16 rows.
#[inline(always)]
pub(super) fn rows(s: Neon, sums: [float32x4_t; 4]) -> [f32; TILE_ROWS] {
    let mut rows = [0.0; TILE_ROWS];
    for (i, sum) in sums.into_iter().enumerate() {
        s.store_f32(sum, &mut rows, 4 * i);
    }
    rows
}
