//! One row along k: products of 32 weights with 32 activations, the lanes of four groups then folded into one register.
//! 8-bit weights hand their signs to the activations, as one side must be unsigned.
//!
//! 22 GB/s of weights from the cache with 4 bit, 43 with 8 (one row in 16 of 4096, two threads of a shared PC).

use std::arch::x86_64::*;

use super::*;

impl FourGroups for Avx2 {
    #[inline(always)]
    fn q4(self, sums: [f32; FOUR], w: &Q4, sw: &Scales, x: &X) -> [f32; FOUR] {
        let mut dots = [self.splat_i32(0); FOUR];
        for (i, (dot, x)) in dots.iter_mut().zip(x).enumerate() {
            let w = self.split_nibbles(self.load16(w, 16 * i));
            let pairs = self.multiply_u8_i8(w, self.load_i8(&x.q[0]));
            *dot = self.multiply_i16(pairs, self.splat_i16(1));
        }
        let [a, b, c, d] = x;
        let offsets = self.four_i32([a.offset[0], b.offset[0], c.offset[0], d.offset[0]]);
        add(self, sums, self.add4_i32(fold(self, dots), offsets), sw, x)
    }

    #[inline(always)]
    fn q8(self, sums: [f32; FOUR], w: &Q8, sw: &Scales, x: &X) -> [f32; FOUR] {
        let mut dots = [self.splat_i32(0); FOUR];
        for (i, (dot, x)) in dots.iter_mut().zip(x).enumerate() {
            let w = self.load(w, 32 * i);
            let x = self.with_sign_i8(self.load_i8(&x.q[0]), w);
            let pairs = self.multiply_u8_i8(self.abs_i8(w), x);
            *dot = self.multiply_i16(pairs, self.splat_i16(1));
        }
        add(self, sums, fold(self, dots), sw, x)
    }
}

/// Adds the lanes of each register.
#[inline(always)]
fn fold(s: Avx2, lanes: [__m256i; FOUR]) -> __m128i {
    let [a, b, c, d] = lanes;
    let (ab, cd) = (s.add_neighbours_i32(a, b), s.add_neighbours_i32(c, d));
    s.add_halves_i32(s.add_neighbours_i32(ab, cd))
}

/// `sum = fma(dot, s_w · s_x, sum)` of the four groups.
#[inline(always)]
fn add(s: Avx2, sums: [f32; FOUR], dots: __m128i, sw: &Scales, x: &X) -> [f32; FOUR] {
    let [a, b, c, d] = x;
    let sx = s.four_f32([a.scale[0], b.scale[0], c.scale[0], d.scale[0]]);
    let scale = s.multiply4(s.load4_f16(sw), sx);
    s.lanes(s.multiply_add4(s.to4_f32(dots), scale, s.four_f32(sums)))
}
