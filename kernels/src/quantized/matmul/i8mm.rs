//! `smmla`: 2 rows × 8 k with 2 tokens × 8 k; four pairs of rows and two of tokens, eight sums of integers and eight of
//! floats in registers.
//!
//! 2.5 instructions for 32 weights and a token: one is `smmla`, one is what a group costs in conversion and scaling.

use std::arch::aarch64::*;

use super::dotprod::four_scales;
use super::*;
use crate::quantized::signed;
use crate::simd::integer::I8mm;
use crate::simd::{Neon, Simd};

impl Products for I8mm {
    type Group = Half;

    #[inline(always)]
    fn unpack<F: BlockFormat>(self, from: Stored<F>, half: usize, to: &mut Self::Group) {
        let s = self.neon();
        for octet in 0..4 {
            for i in 0..2 {
                let [a, b] = signed::octet::<F>(s, from.integers, octet, half * 2 + i);
                let at = octet * 64 + i * 32;
                s.store_bytes(s.zip_first_quads(a, b), &mut to.integers, at);
                s.store_bytes(s.zip_last_quads(a, b), &mut to.integers, at + 16);
            }
        }
        unpack_scales(s, from.scales, half, to);
    }

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, w: &[Self::Group], x: &[X], half: usize, out: &mut Sums) {
        let s = self.neon();
        let mut sums = load(s, out, half);
        let mut walk = s.walk(w, x);
        while walk.next() {
            let mut dots = [[s.splat_i32(0); 2]; 4];
            let [a, b, c, d] = walk.x_four_a();
            add_octet(self, &mut dots, walk.w_four_a(), [a, b]);
            add_octet(self, &mut dots, walk.w_four_b(), [c, d]);
            let [a, b, c, d] = walk.x_four_b();
            add_octet(self, &mut dots, walk.w_four_a(), [a, b]);
            add_octet(self, &mut dots, walk.w_four_b(), [c, d]);
            let (sw, sx) = (walk.w_four_floats(), walk.x_floats());
            for ((sums, dots), sw) in sums.iter_mut().zip(dots).zip(sw) {
                for ((sum, dot), sx) in sums.iter_mut().zip(dots).zip(sx) {
                    let scale = s.mul(sw, sx);
                    *sum = s.mul_add(s.to_f32(dot), scale, *sum);
                }
            }
        }
        store(s, sums, out, half);
    }
}

/// `[k / 8][pair of rows][row % 2][k % 8]`, and each scale twice, as the sums of a pair of rows want it.
type Half = HalfGroup<16>;

#[inline(always)]
fn unpack_scales(s: Neon, scales: &Scales, half: usize, to: &mut Half) {
    for (i, scales) in s.load_f16(scales, half * 16).into_iter().enumerate() {
        s.store_f32(s.twice_first(scales), &mut to.scales, i * 8);
        s.store_f32(s.twice_last(scales), &mut to.scales, i * 8 + 4);
    }
}

/// Adds the products of 8 k: four pairs of rows, two of tokens.
#[inline(always)]
fn add_octet(s: I8mm, dots: &mut [[int32x4_t; 2]; 4], w: [int8x16_t; 4], x: [int8x16_t; 2]) {
    for (dots, w) in dots.iter_mut().zip(w) {
        dots[0] = s.smmla(dots[0], w, x[0]);
        dots[1] = s.smmla(dots[1], w, x[1]);
    }
}

/// The sums of half a tile: `[pair of rows][pair of tokens]`, each `[row % 2][token % 2]`.
type HalfSums = [[float32x4_t; 2]; 4];

#[inline(always)]
fn load(s: Neon, sums: &Sums, half: usize) -> HalfSums {
    let mut out = [[s.splat(0.0); 2]; 4];
    for (i, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let row = half * 8 + 4 * i;
        for t in 0..2 {
            let a = s.load_f32(&sums[2 * t], row);
            let b = s.load_f32(&sums[2 * t + 1], row);
            (out[0][t], out[1][t]) = (s.zip_first(a, b), s.zip_last(a, b));
        }
    }
    out
}

#[inline(always)]
fn store(s: Neon, sums: HalfSums, to: &mut Sums, half: usize) {
    for (i, [a, b]) in sums.as_chunks().0.iter().enumerate() {
        let row = half * 8 + 4 * i;
        for t in 0..2 {
            s.store_f32(s.even(a[t], b[t]), &mut to[2 * t], row);
            s.store_f32(s.odd(a[t], b[t]), &mut to[2 * t + 1], row);
        }
    }
}

impl FewTokens for I8mm {
    const AT_ONCE: usize = 4;

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, part: &Part<F>, _: usize, sums: &mut [[f32; TILE_ROWS]]) {
        match sums.len() {
            1 => few::multiply::<F, 1, 0>(self, part, sums),
            2 => few::multiply::<F, 2, 0>(self, part, sums),
            3 => few::multiply::<F, 3, 0>(self, part, sums),
            _ => few::multiply::<F, 4, 0>(self, part, sums),
        }
    }
}

impl<const T: usize> TokenSums<T, 0> for I8mm {
    /// `[pair of rows][pair of tokens]`, the second of which two tokens lack.
    type Sums = [[float32x4_t; 2]; 8];

    #[inline(always)]
    fn load(self, from: &[[f32; TILE_ROWS]; T]) -> Self::Sums {
        let mut four = [[0.0; TILE_ROWS]; PANEL];
        four[..T].copy_from_slice(from);
        let [a, b] = [0, 1].map(|half| load(self.neon(), &four, half));
        std::array::from_fn(|i| if i < 4 { a[i] } else { b[i - 4] })
    }

    #[inline(always)]
    fn add<F: BlockFormat>(
        self,
        sums: &mut Self::Sums,
        w: &F::Tile,
        sw: &Scales,
        [x, _]: [&X; FEW_PANELS],
    ) {
        let s = self.neon();
        let mut first = [s.splat_i32(0); 2];
        if F::OFFSET != 0 {
            let offset = s.splat_i8(-F::OFFSET);
            for octet in 0..4 {
                for (p, first) in first.iter_mut().enumerate().take(T.div_ceil(2)) {
                    *first = self.smmla(*first, offset, s.load_i8(&x.q[octet], 16 * p));
                }
            }
        }
        add_rows::<F, T, 0>(self, sums, first, w, sw, x);
        add_rows::<F, T, 1>(self, sums, first, w, sw, x);
        add_rows::<F, T, 2>(self, sums, first, w, sw, x);
        add_rows::<F, T, 3>(self, sums, first, w, sw, x);
    }

    #[inline(always)]
    fn store(self, sums: Self::Sums, to: &mut [[f32; TILE_ROWS]; T]) {
        let mut four = [[0.0; TILE_ROWS]; PANEL];
        for (half, sums) in sums.as_chunks().0.iter().enumerate() {
            store(self.neon(), *sums, &mut four, half);
        }
        to.copy_from_slice(&four[..T]);
    }
}

/// Adds the products of rows `4 I` on to sums of integers that begin with `first`. (A loop over `I` would not be unrolled.)
#[inline(always)]
fn add_rows<F: BlockFormat, const T: usize, const I: usize>(
    s: I8mm,
    sums: &mut [[float32x4_t; 2]; 8],
    first: [int32x4_t; 2],
    w: &F::Tile,
    sw: &Scales,
    x: &X,
) {
    let n = s.neon();
    let mut dots = [first; 2];
    for octet in 0..4 {
        let [a, b] = F::neon_octet(n, w, octet, I);
        let w = [n.zip_first_quads(a, b), n.zip_last_quads(a, b)];
        for p in 0..T.div_ceil(2) {
            let x = n.load_i8(&x.q[octet], 16 * p);
            for (dots, w) in dots.iter_mut().zip(w) {
                dots[p] = s.smmla(dots[p], w, x);
            }
        }
    }
    let sw = four_scales::<I>(n, sw);
    let sw = [n.twice_first(sw), n.twice_last(sw)];
    // Twice each, instead of offsets those of the second pair of tokens.
    let sx = [x.scale, x.offset.map(|bits| f32::from_bits(bits as u32))];
    for (r, (dots, sw)) in dots.into_iter().zip(sw).enumerate() {
        for p in 0..T.div_ceil(2) {
            let scale = n.mul(sw, n.load_f32(&sx[p], 0));
            let sum = &mut sums[2 * I + r][p];
            *sum = n.mul_add(n.to_f32(dots[p]), scale, *sum);
        }
    }
}
