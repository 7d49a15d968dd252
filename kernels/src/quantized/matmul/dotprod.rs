//! `sdot` by a broadcast quad of activations: 8 rows × 4 tokens, eight sums of integers and eight of floats in registers.
//!
//! 3.4 instructions for 32 weights and a token: two are `sdot`, one is what a group costs in conversion and scaling.

use std::arch::aarch64::*;

use super::*;
use crate::quantized::signed;
use crate::simd::integer::Dotprod;
use crate::simd::{Neon, Simd};

/// The products of two quads of 8 rows, 64 bytes of weights, with lanes `$lane` and `$next` of `$x`, of 4 tokens.
macro_rules! quads {
    ($s:ident, $dots:ident, $w:expr, $x:expr, $lane:literal, $next:literal) => {
        let [a0, a1, b0, b1] = $w;
        for (dots, x) in $dots.iter_mut().zip($x) {
            dots[0] = $s.sdot_lane::<$lane>(dots[0], a0, x);
            dots[1] = $s.sdot_lane::<$lane>(dots[1], a1, x);
        }
        for (dots, x) in $dots.iter_mut().zip($x) {
            dots[0] = $s.sdot_lane::<$next>(dots[0], b0, x);
            dots[1] = $s.sdot_lane::<$next>(dots[1], b1, x);
        }
    };
}

impl Products for Dotprod {
    type Group = HalfGroup<8>;

    #[inline(always)]
    fn unpack<F: BlockFormat>(self, from: Stored<F>, half: usize, to: &mut Self::Group) {
        let s = self.neon();
        for octet in 0..4 {
            for i in 0..2 {
                let [a, b] = signed::octet::<F>(s, from.integers, octet, half * 2 + i);
                let at = octet * 64 + i * 16;
                s.store_bytes(a, &mut to.integers, at);
                s.store_bytes(b, &mut to.integers, at + 32);
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
            let ([a0, a1, b0, b1], [c0, c1, d0, d1]) = (walk.x_four_a(), walk.x_four_b());
            let (first, second) = ([a0, b0, c0, d0], [a1, b1, c1, d1]);
            let mut dots = [[s.splat_i32(0); 2]; PANEL];
            quads!(self, dots, walk.w_four_a(), first, 0, 1);
            quads!(self, dots, walk.w_four_b(), first, 2, 3);
            quads!(self, dots, walk.w_four_a(), second, 0, 1);
            quads!(self, dots, walk.w_four_b(), second, 2, 3);
            let (sw, sx) = (walk.w_floats(), walk.x_floats_and_skip());
            add_scaled(s, &mut sums, dots, sw, sx);
        }
        store(s, sums, out, half);
    }
}

#[inline(always)]
fn unpack_scales(s: Neon, scales: &Scales, half: usize, to: &mut HalfGroup<8>) {
    let [a, b] = s.load_f16(scales, half * 16);
    s.store_f32(a, &mut to.scales, 0);
    s.store_f32(b, &mut to.scales, 4);
}

/// The sums of half a tile: `[token][4 rows]`.
type HalfSums = [[float32x4_t; 2]; PANEL];

#[inline(always)]
fn load(s: Neon, sums: &Sums, half: usize) -> HalfSums {
    let mut out = [[s.splat(0.0); 2]; PANEL];
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = [s.load_f32(sums, half * 8), s.load_f32(sums, half * 8 + 4)];
    }
    out
}

#[inline(always)]
fn store(s: Neon, sums: HalfSums, to: &mut Sums, half: usize) {
    for (sums, to) in sums.into_iter().zip(to) {
        s.store_f32(sums[0], to, half * 8);
        s.store_f32(sums[1], to, half * 8 + 4);
    }
}

/// `sum = fma(dot, s_w · s_x, sum)` of 8 rows and 4 tokens.
#[inline(always)]
fn add_scaled(
    s: Neon,
    sums: &mut HalfSums,
    dots: [[int32x4_t; 2]; PANEL],
    sw: [float32x4_t; 2],
    sx: float32x4_t,
) {
    for (i, sw) in sw.into_iter().enumerate() {
        let scales = [
            s.multiply_lane::<0>(sw, sx),
            s.multiply_lane::<1>(sw, sx),
            s.multiply_lane::<2>(sw, sx),
            s.multiply_lane::<3>(sw, sx),
        ];
        for ((sums, dots), scale) in sums.iter_mut().zip(&dots).zip(scales) {
            sums[i] = s.mul_add(s.to_f32(dots[i]), scale, sums[i]);
        }
    }
}

impl FewTokens for Dotprod {
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

impl<const T: usize> TokenSums<T, 0> for Dotprod {
    type Sums = [[float32x4_t; 4]; T];

    #[inline(always)]
    fn load(self, from: &[[f32; TILE_ROWS]; T]) -> Self::Sums {
        from.each_ref().map(|from| load_rows(self.neon(), from))
    }

    #[inline(always)]
    fn add<F: BlockFormat>(
        self,
        sums: &mut Self::Sums,
        w: &F::Tile,
        sw: &Scales,
        [x, _]: [&X; FEW_PANELS],
    ) {
        add_rows::<F, T, 0>(self, sums, w, sw, x);
        add_rows::<F, T, 1>(self, sums, w, sw, x);
        add_rows::<F, T, 2>(self, sums, w, sw, x);
        add_rows::<F, T, 3>(self, sums, w, sw, x);
    }

    #[inline(always)]
    fn store(self, sums: Self::Sums, to: &mut [[f32; TILE_ROWS]; T]) {
        for (sums, to) in sums.into_iter().zip(to) {
            store_rows(self.neon(), sums, to);
        }
    }
}

/// Adds the products of rows `4 I` on. (A loop over `I` would not be unrolled.)
#[inline(always)]
fn add_rows<F: BlockFormat, const T: usize, const I: usize>(
    s: Dotprod,
    sums: &mut [[float32x4_t; 4]; T],
    w: &F::Tile,
    sw: &Scales,
    x: &X,
) {
    let n = s.neon();
    let first = first_dots::<F>(n, x);
    let mut dots: [int32x4_t; T] = std::array::from_fn(|t| first[t]);
    add_octet::<F, T, I, 0, 1>(s, &mut dots, w, 0, x);
    add_octet::<F, T, I, 2, 3>(s, &mut dots, w, 1, x);
    add_octet::<F, T, I, 0, 1>(s, &mut dots, w, 2, x);
    add_octet::<F, T, I, 2, 3>(s, &mut dots, w, 3, x);
    let (sw, sx) = (four_scales::<I>(n, sw), n.load_f32(&x.scale, 0));
    let scales = [
        n.multiply_lane::<0>(sw, sx),
        n.multiply_lane::<1>(sw, sx),
        n.multiply_lane::<2>(sw, sx),
        n.multiply_lane::<3>(sw, sx),
    ];
    for ((sums, dot), scale) in sums.iter_mut().zip(dots).zip(scales) {
        sums[I] = n.mul_add(n.to_f32(dot), scale, sums[I]);
    }
}

/// What the dots of a panel's tokens begin with.
#[inline(always)]
fn first_dots<F: BlockFormat>(s: Neon, x: &X) -> [int32x4_t; PANEL] {
    if F::OFFSET == 0 {
        return [s.splat_i32(0); PANEL];
    }
    let first = s.load_i32(&x.offset.map(F::first_dot), 0);
    [
        s.broadcast_i32::<0>(first),
        s.broadcast_i32::<1>(first),
        s.broadcast_i32::<2>(first),
        s.broadcast_i32::<3>(first),
    ]
}

/// Adds the products of an octet of 4 rows with quads `A` and `B` of some tokens.
#[inline(always)]
fn add_octet<F: BlockFormat, const T: usize, const I: usize, const A: i32, const B: i32>(
    s: Dotprod,
    dots: &mut [int32x4_t; T],
    w: &F::Tile,
    octet: usize,
    x: &X,
) {
    let [a, b] = F::neon_octet(s.neon(), w, octet, I);
    for (dot, x) in dots.iter_mut().zip(&x.q) {
        let x = s.neon().load_i8(x, octet / 2 * 16);
        *dot = s.sdot_lane::<B>(s.sdot_lane::<A>(*dot, a, x), b, x);
    }
}

/// The scales of rows `4 I` on.
#[inline(always)]
pub(super) fn four_scales<const I: usize>(s: Neon, scales: &Scales) -> float32x4_t {
    s.load4_f16(&scales.as_chunks().0[I])
}

/// The sums of a tile and a token.
#[inline(always)]
pub(super) fn load_rows(s: Neon, from: &[f32; TILE_ROWS]) -> [float32x4_t; 4] {
    [
        s.load_f32(from, 0),
        s.load_f32(from, 4),
        s.load_f32(from, 8),
        s.load_f32(from, 12),
    ]
}

#[inline(always)]
pub(super) fn store_rows(s: Neon, sums: [float32x4_t; 4], to: &mut [f32; TILE_ROWS]) {
    for (i, sum) in sums.into_iter().enumerate() {
        s.store_f32(sum, to, 4 * i);
    }
}
