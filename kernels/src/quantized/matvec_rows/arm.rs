//! One row along k: products of 16 weights with 16 activations, the lanes of four groups then folded into one register.
//! Nibbles count from 8: with `sdot` each dot begins with its offset in one lane, without it adding four at the end is cheaper.
//! Without `sdot`, 4-bit products (15 · 127) fit 16-bit sums, 8-bit ones (127 · 127) in pairs.
//!
//! 17.9 instructions for 32 weights of 4 bit and 15.3 of 8 bit, 14.1 and 12.3 with `sdot`: more than a tile takes, as each row folds sums of its own.

use std::arch::aarch64::*;

use super::*;
use crate::simd::integer::Dotprod;
use crate::simd::{Neon, Simd};

impl FourGroups for Neon {
    #[inline(always)]
    fn add<F: BlockFormat>(self, sums: Sums, w: Stored<F>, x: &X) -> Sums {
        let mut dots = [self.splat_i32(0); FOUR];
        for (dot, (w, x)) in dots.iter_mut().zip(w.integers.iter().zip(x)) {
            let [(a, xa), (b, xb)] = operands::<F>(self, w, x);
            let first = self.multiply_add_last(self.multiply_first(a, xa), a, xa);
            *dot = if F::FITS_16_BITS {
                let sum = self.multiply_add_first(first, b, xb);
                self.widen_neighbours(self.multiply_add_last(sum, b, xb))
            } else {
                let second = self.multiply_add_last(self.multiply_first(b, xb), b, xb);
                self.add_widened_neighbours(self.widen_neighbours(first), second)
            };
        }
        let first = self.four_i32(x.each_ref().map(|x| F::first_dot(x.offset[0])));
        let dots = self.add_i32(fold(self, dots), first);
        add(self, sums, dots, w.scales, x)
    }
}

impl FourGroups for Dotprod {
    #[inline(always)]
    fn add<F: BlockFormat>(self, sums: Sums, w: Stored<F>, x: &X) -> Sums {
        let s = self.neon();
        let mut dots = [s.splat_i32(0); FOUR];
        for (dot, (w, x)) in dots.iter_mut().zip(w.integers.iter().zip(x)) {
            let [(a, xa), (b, xb)] = operands::<F>(s, w, x);
            let first = s.one_lane_i32(F::first_dot(x.offset[0]));
            *dot = self.sdot(self.sdot(first, a, xa), b, xb);
        }
        add(s, sums, fold(s, dots), w.scales, x)
    }
}

/// Weights and activations, 16 of each.
type Operands = (int8x16_t, int8x16_t);

#[inline(always)]
fn operands<F: BlockFormat>(s: Neon, w: &F::Group, x: &ActivationGroup<1>) -> [Operands; 2] {
    let [a, b] = F::neon_group(s, w);
    [(a, s.load_i8(&x.q[0], 0)), (b, s.load_i8(&x.q[0], 16))]
}

/// Adds the lanes of each register.
#[inline(always)]
fn fold(s: Neon, lanes: [int32x4_t; FOUR]) -> int32x4_t {
    let [a, b, c, d] = lanes;
    s.add_neighbours_i32(s.add_neighbours_i32(a, b), s.add_neighbours_i32(c, d))
}

/// `sum = fma(dot, s_w · s_x, sum)` of the four groups.
#[inline(always)]
fn add(s: Neon, sums: Sums, dots: int32x4_t, sw: &Scales, x: &X) -> Sums {
    let sx = s.load_f32(&x.each_ref().map(|x| x.scale[0]), 0);
    let scale = s.mul(s.load4_f16(sw), sx);
    let sum = s.mul_add(s.to_f32(dots), scale, s.load_f32(&sums, 0));
    let mut sums = [0.0; FOUR];
    s.store_f32(sum, &mut sums, 0);
    sums
}
