//! One row along k: products of 16 weights with 16 activations, the lanes of four groups then folded into one register.
//! Nibbles count from 8: with `sdot` each dot begins with its offset in one lane, without it adding four at the end is cheaper.
//! Without `sdot`, 4-bit products (15 · 127) fit 16-bit sums, 8-bit ones (127 · 127) in pairs.
//!
//! 17.9 instructions for 32 weights of 4 bit and 15.3 of 8 bit, 14.1 and 12.3 with `sdot`: more than a tile takes, as each row folds sums of its own.

use std::arch::aarch64::*;

use super::*;

impl FourGroups for Neon {
    #[inline(always)]
    fn q4(self, sums: [f32; FOUR], w: &Q4, sw: &Scales, x: &X) -> [f32; FOUR] {
        let mut dots = [self.splat_i32(0); FOUR];
        for (i, (dot, x)) in dots.iter_mut().zip(x).enumerate() {
            let [(a, xa), (b, xb)] = nibbles(self, w, i, &x.q[0]);
            let sum = self.multiply_first(a, xa);
            let sum = self.multiply_add_last(sum, a, xa);
            let sum = self.multiply_add_first(sum, b, xb);
            *dot = self.widen_neighbours(self.multiply_add_last(sum, b, xb));
        }
        add(self, sums, with_offset(self, fold(self, dots), x), sw, x)
    }

    #[inline(always)]
    fn q8(self, sums: [f32; FOUR], w: &Q8, sw: &Scales, x: &X) -> [f32; FOUR] {
        let mut dots = [self.splat_i32(0); FOUR];
        for (i, (dot, x)) in dots.iter_mut().zip(x).enumerate() {
            let [(a, xa), (b, xb)] = bytes(self, w, i, &x.q[0]);
            let first = self.multiply_add_last(self.multiply_first(a, xa), a, xa);
            let second = self.multiply_add_last(self.multiply_first(b, xb), b, xb);
            *dot = self.add_widened_neighbours(self.widen_neighbours(first), second);
        }
        add(self, sums, fold(self, dots), sw, x)
    }
}

impl FourGroups for Dotprod {
    #[inline(always)]
    fn q4(self, sums: [f32; FOUR], w: &Q4, sw: &Scales, x: &X) -> [f32; FOUR] {
        let s = self.neon();
        let mut dots = [s.splat_i32(0); FOUR];
        for (i, (dot, x)) in dots.iter_mut().zip(x).enumerate() {
            let [(a, xa), (b, xb)] = nibbles(s, w, i, &x.q[0]);
            *dot = self.sdot(self.sdot(s.one_lane_i32(x.offset[0]), a, xa), b, xb);
        }
        add(s, sums, fold(s, dots), sw, x)
    }

    #[inline(always)]
    fn q8(self, sums: [f32; FOUR], w: &Q8, sw: &Scales, x: &X) -> [f32; FOUR] {
        let s = self.neon();
        let mut dots = [s.splat_i32(0); FOUR];
        for (i, (dot, x)) in dots.iter_mut().zip(x).enumerate() {
            let [(a, xa), (b, xb)] = bytes(s, w, i, &x.q[0]);
            *dot = self.sdot(self.sdot(*dot, a, xa), b, xb);
        }
        add(s, sums, fold(s, dots), sw, x)
    }
}

/// Weights and activations, 16 of each.
type Operands = (int8x16_t, int8x16_t);

/// Group `i` of `w`.
#[inline(always)]
fn nibbles(s: Neon, w: &Q4, i: usize, x: &[i8; GROUP]) -> [Operands; 2] {
    let bytes = s.load(w, 16 * i);
    let low = (s.low_nibbles(bytes), s.load_i8(x, 0));
    [low, (s.high_nibbles(bytes), s.load_i8(x, 16))]
}

/// Group `i` of `w`.
#[inline(always)]
fn bytes(s: Neon, w: &Q8, i: usize, x: &[i8; GROUP]) -> [Operands; 2] {
    let low = (s.load(w, 32 * i), s.load_i8(x, 0));
    [low, (s.load(w, 32 * i + 16), s.load_i8(x, 16))]
}

/// Adds the lanes of each register.
#[inline(always)]
fn fold(s: Neon, lanes: [int32x4_t; FOUR]) -> int32x4_t {
    let [a, b, c, d] = lanes;
    s.add_neighbours_i32(s.add_neighbours_i32(a, b), s.add_neighbours_i32(c, d))
}

/// The dots of nibbles, which count from 8.
#[inline(always)]
fn with_offset(s: Neon, dots: int32x4_t, x: &X) -> int32x4_t {
    let [a, b, c, d] = x;
    s.add_i32(
        dots,
        s.four_i32([a.offset[0], b.offset[0], c.offset[0], d.offset[0]]),
    )
}

/// `sum = fma(dot, s_w · s_x, sum)` of the four groups.
#[inline(always)]
fn add(s: Neon, sums: [f32; FOUR], dots: int32x4_t, sw: &Scales, x: &X) -> [f32; FOUR] {
    let [a, b, c, d] = x;
    let sx = s.load_f32(&[a.scale[0], b.scale[0], c.scale[0], d.scale[0]], 0);
    let scale = s.multiply(s.load4_f16(sw), sx);
    let sum = s.multiply_add(s.to_f32(dots), scale, s.load_f32(&sums, 0));
    let mut sums = [0.0; FOUR];
    s.store_f32(sum, &mut sums, 0);
    sums
}
