//! ARMv8.0: widening products of 2 rows × 4 k with a quad of activations; all 16 rows and two tokens at a time, so that a
//! register of weights is used twice and a broadcast quad eight times. 4-bit products (8 · 127) of the whole group fit 16-bit
//! sums, 8-bit ones (127 · 127) only in pairs.
//!
//! 7.3 instructions for 32 weights of 4 bit and a token, 10.3 of 8 bit.

use std::arch::aarch64::*;

use super::dotprod::{load_rows, store_rows};
use super::*;
use crate::quantized::signed;
use crate::simd::{Neon, Simd};

impl Products for Neon {
    type Group = WholeGroup;

    #[inline(always)]
    fn unpack<F: BlockFormat>(self, from: Stored<F>, _: usize, to: &mut Self::Group) {
        for octet in 0..4 {
            for i in 0..4 {
                let [a, b] = signed::octet::<F>(self, from.integers, octet, i);
                let at = octet * 128 + i * 16;
                self.store_bytes(a, &mut to.integers, at);
                self.store_bytes(b, &mut to.integers, at + 64);
            }
        }
        unpack_scales(self, from.scales, to);
    }

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, w: &[Self::Group], x: &[X], _: usize, out: &mut Sums) {
        for (pair, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let mut sums = load(self, out);
            for (w, x) in w.iter().zip(x) {
                let q = &x.q.as_chunks::<2>().0[pair];
                let scale = &x.scale.as_chunks::<2>().0[pair];
                if F::FITS_16_BITS {
                    add_small(self, w, q, scale, &mut sums);
                } else {
                    add_bytes::<0>(self, w, q, scale, &mut sums);
                    add_bytes::<1>(self, w, q, scale, &mut sums);
                    add_bytes::<2>(self, w, q, scale, &mut sums);
                    add_bytes::<3>(self, w, q, scale, &mut sums);
                }
            }
            store(self, sums, out);
        }
    }
}

#[inline(always)]
fn unpack_scales(s: Neon, scales: &Scales, to: &mut WholeGroup) {
    for half in 0..2 {
        let [a, b] = s.load_f16(scales, half * 16);
        s.store_f32(a, &mut to.scales, half * 8);
        s.store_f32(b, &mut to.scales, half * 8 + 4);
    }
}

/// Quad `$quad` of one token's activations in all lanes.
macro_rules! quad {
    ($s:ident, $x:expr, $quad:literal, $lane:literal) => {
        $s.broadcast_quad::<$lane>($s.load_i8($x, $quad / 4 * 16))
    };
}

/// Adds the products of one quad to the 16-bit sums of two tokens: `[token][2 rows]`.
macro_rules! add_quad {
    ($s:ident, $halves:ident, $w:ident, $x:ident, $quad:literal, $lane:literal) => {
        let (x0, x1) = (
            quad!($s, &$x[0], $quad, $lane),
            quad!($s, &$x[1], $quad, $lane),
        );
        for i in 0..4 {
            let w = $s.load_bytes($w, $quad * 64 + i * 16);
            $halves[0][2 * i] = $s.multiply_add_first($halves[0][2 * i], w, x0);
            $halves[0][2 * i + 1] = $s.multiply_add_last($halves[0][2 * i + 1], w, x0);
            $halves[1][2 * i] = $s.multiply_add_first($halves[1][2 * i], w, x1);
            $halves[1][2 * i + 1] = $s.multiply_add_last($halves[1][2 * i + 1], w, x1);
        }
    };
}

/// The activations of a group of two tokens.
type Pair = [[i8; GROUP]; 2];
/// The sums of a tile and two tokens.
type PairSums = [[float32x4_t; 4]; 2];

/// Adds the products of a group.
#[inline(always)]
fn add_small(s: Neon, w: &WholeGroup, x: &Pair, sx: &[f32; 2], sums: &mut PairSums) {
    let (w, sw) = (&w.integers, &w.scales);
    let mut halves = [[s.splat_i16(0); 8]; 2];
    add_quad!(s, halves, w, x, 0, 0);
    add_quad!(s, halves, w, x, 1, 1);
    add_quad!(s, halves, w, x, 2, 2);
    add_quad!(s, halves, w, x, 3, 3);
    add_quad!(s, halves, w, x, 4, 0);
    add_quad!(s, halves, w, x, 5, 1);
    add_quad!(s, halves, w, x, 6, 2);
    add_quad!(s, halves, w, x, 7, 3);
    for i in 0..4 {
        let sw = s.load_f32(sw, 4 * i);
        for t in 0..2 {
            let halves = s.add_neighbours_i16(halves[t][2 * i], halves[t][2 * i + 1]);
            let dot = s.to_f32(s.widen_neighbours(halves));
            sums[t][i] = s.mul_add(dot, s.multiply_by(sw, sx[t]), sums[t][i]);
        }
    }
}

/// The products of two quads of 4 rows, as 32-bit sums of 2 rows × 2 neighbours, added to `$dots`.
macro_rules! add_quads {
    ($s:ident, $dots:ident, $w:ident, $x:ident, $i:ident, $a:literal, $b:literal, $lane:literal, $next:literal) => {
        let a = $s.load_bytes($w, $a * 64 + $i * 16);
        let b = $s.load_bytes($w, $b * 64 + $i * 16);
        for t in 0..2 {
            let (xa, xb) = (quad!($s, &$x[t], $a, $lane), quad!($s, &$x[t], $b, $next));
            let first = $s.multiply_add_first($s.multiply_first(a, xa), b, xb);
            let last = $s.multiply_add_last($s.multiply_last(a, xa), b, xb);
            $dots[t][0] = $s.add_widened_neighbours($dots[t][0], first);
            $dots[t][1] = $s.add_widened_neighbours($dots[t][1], last);
        }
    };
}

/// Adds the products of rows `4 I` on. (A loop over `I` would not be unrolled.)
#[inline(always)]
fn add_bytes<const I: usize>(
    s: Neon,
    w: &WholeGroup,
    x: &Pair,
    sx: &[f32; 2],
    sums: &mut PairSums,
) {
    let (w, sw) = (&w.integers, &w.scales);
    let mut dots = [[s.splat_i32(0); 2]; 2];
    add_quads!(s, dots, w, x, I, 0, 1, 0, 1);
    add_quads!(s, dots, w, x, I, 2, 3, 2, 3);
    add_quads!(s, dots, w, x, I, 4, 5, 0, 1);
    add_quads!(s, dots, w, x, I, 6, 7, 2, 3);
    let sw = s.load_f32(sw, 4 * I);
    for t in 0..2 {
        let dot = s.to_f32(s.add_neighbours_i32(dots[t][0], dots[t][1]));
        sums[t][I] = s.mul_add(dot, s.multiply_by(sw, sx[t]), sums[t][I]);
    }
}

#[inline(always)]
fn load(s: Neon, sums: &[[f32; TILE_ROWS]; 2]) -> PairSums {
    let mut out = [[s.splat(0.0); 4]; 2];
    for (out, sums) in out.iter_mut().zip(sums) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = s.load_f32(sums, 4 * i);
        }
    }
    out
}

#[inline(always)]
fn store(s: Neon, sums: PairSums, to: &mut [[f32; TILE_ROWS]; 2]) {
    for (sums, to) in sums.into_iter().zip(to) {
        for (i, sum) in sums.into_iter().enumerate() {
            s.store_f32(sum, to, 4 * i);
        }
    }
}

impl FewTokens for Neon {
    const AT_ONCE: usize = 2;

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, part: &Part<F>, lane: usize, sums: &mut [[f32; TILE_ROWS]]) {
        match (sums.len(), lane) {
            (1, 0) => few::multiply::<F, 1, 0>(self, part, sums),
            (1, _) => few::multiply::<F, 1, 2>(self, part, sums),
            (_, 0) => few::multiply::<F, 2, 0>(self, part, sums),
            _ => few::multiply::<F, 2, 2>(self, part, sums),
        }
    }
}

impl<const T: usize, const LANE: usize> TokenSums<T, LANE> for Neon {
    type Sums = [[float32x4_t; 4]; T];

    #[inline(always)]
    fn load(self, from: &[[f32; TILE_ROWS]; T]) -> Self::Sums {
        from.each_ref().map(|from| load_rows(self, from))
    }

    #[inline(always)]
    fn add<F: BlockFormat>(
        self,
        sums: &mut Self::Sums,
        w: &F::Tile,
        sw: &Scales,
        [x, _]: [&X; FEW_PANELS],
    ) {
        let q = std::array::from_fn(|t| &x.q[LANE + t]);
        let dots = if F::FITS_16_BITS {
            let first = std::array::from_fn(|t| F::first_dot(x.offset[LANE + t]));
            small_dots::<F, T>(self, w, q, first)
        } else {
            let [a, b] = byte_dots::<F, T, 0>(self, w, q);
            let [c, d] = byte_dots::<F, T, 2>(self, w, q);
            [a, b, c, d]
        };
        let [sw0, sw1] = self.load_f16(sw, 0);
        let [sw2, sw3] = self.load_f16(sw, 16);
        for (i, (dots, sw)) in dots.into_iter().zip([sw0, sw1, sw2, sw3]).enumerate() {
            for (t, dot) in dots.into_iter().enumerate() {
                let scale = self.multiply_by(sw, x.scale[LANE + t]);
                sums[t][i] = self.mul_add(self.to_f32(dot), scale, sums[t][i]);
            }
        }
    }

    #[inline(always)]
    fn store(self, sums: Self::Sums, to: &mut [[f32; TILE_ROWS]; T]) {
        for (sums, to) in sums.into_iter().zip(to) {
            store_rows(self, sums, to);
        }
    }
}

/// Quads of some tokens' activations, each in all lanes: those of octet `OCTET`.
#[inline(always)]
fn octet_quads<const T: usize, const OCTET: usize>(
    s: Neon,
    x: [&[i8; GROUP]; T],
) -> [[int8x16_t; 2]; T] {
    x.map(|x| {
        let x = s.load_i8(x, OCTET / 2 * 16);
        if OCTET.is_multiple_of(2) {
            [s.broadcast_quad::<0>(x), s.broadcast_quad::<1>(x)]
        } else {
            [s.broadcast_quad::<2>(x), s.broadcast_quad::<3>(x)]
        }
    })
}

/// The dots of a group, those of 4 rows after the others.
#[inline(always)]
fn small_dots<F: BlockFormat, const T: usize>(
    s: Neon,
    w: &F::Tile,
    x: [&[i8; GROUP]; T],
    first: [i32; T],
) -> [[int32x4_t; T]; 4] {
    let mut halves = [[[s.splat_i16(0); 2]; 4]; T];
    add_small_octet::<F, T, 0>(s, &mut halves, w, x);
    add_small_octet::<F, T, 1>(s, &mut halves, w, x);
    add_small_octet::<F, T, 2>(s, &mut halves, w, x);
    add_small_octet::<F, T, 3>(s, &mut halves, w, x);
    std::array::from_fn(|i| {
        std::array::from_fn(|t| {
            let [a, b] = halves[t][i];
            s.add_widened_neighbours(s.splat_i32(first[t]), s.add_neighbours_i16(a, b))
        })
    })
}

/// Adds the products of octet `OCTET` in 16 bits.
#[inline(always)]
fn add_small_octet<F: BlockFormat, const T: usize, const OCTET: usize>(
    s: Neon,
    halves: &mut [[[int16x8_t; 2]; 4]; T],
    w: &F::Tile,
    x: [&[i8; GROUP]; T],
) {
    let x = octet_quads::<T, OCTET>(s, x);
    for i in 0..4 {
        let [a, b] = F::neon_octet(s, w, OCTET, i);
        for (halves, [xa, xb]) in halves.iter_mut().zip(x) {
            let [first, last] = halves[i];
            halves[i] = if OCTET == 0 {
                [
                    s.multiply_add_first(s.multiply_first(a, xa), b, xb),
                    s.multiply_add_last(s.multiply_last(a, xa), b, xb),
                ]
            } else {
                [
                    s.multiply_add_first(s.multiply_add_first(first, a, xa), b, xb),
                    s.multiply_add_last(s.multiply_add_last(last, a, xa), b, xb),
                ]
            };
        }
    }
}

/// The dots of a group and of rows `4 I` on, 4 and 4 of them.
#[inline(always)]
fn byte_dots<F: BlockFormat, const T: usize, const I: usize>(
    s: Neon,
    w: &F::Tile,
    x: [&[i8; GROUP]; T],
) -> [[int32x4_t; T]; 2] {
    let mut sums = [[[s.splat_i32(0); 2]; T]; 2];
    add_byte_octet::<F, T, I, 0>(s, &mut sums, w, x);
    add_byte_octet::<F, T, I, 1>(s, &mut sums, w, x);
    add_byte_octet::<F, T, I, 2>(s, &mut sums, w, x);
    add_byte_octet::<F, T, I, 3>(s, &mut sums, w, x);
    sums.map(|sums| sums.map(|[a, b]| s.add_neighbours_i32(a, b)))
}

/// Adds the products of octet `OCTET`, those of two quads in 16 bits and then in 32.
#[inline(always)]
fn add_byte_octet<F: BlockFormat, const T: usize, const I: usize, const OCTET: usize>(
    s: Neon,
    sums: &mut [[[int32x4_t; 2]; T]; 2],
    w: &F::Tile,
    x: [&[i8; GROUP]; T],
) {
    let x = octet_quads::<T, OCTET>(s, x);
    for (i, sums) in sums.iter_mut().enumerate() {
        let [a, b] = F::neon_octet(s, w, OCTET, I + i);
        for ([first, last], [xa, xb]) in sums.iter_mut().zip(x) {
            let products = [
                s.multiply_add_first(s.multiply_first(a, xa), b, xb),
                s.multiply_add_last(s.multiply_last(a, xa), b, xb),
            ];
            if OCTET == 0 {
                *first = s.widen_neighbours(products[0]);
                *last = s.widen_neighbours(products[1]);
            } else {
                *first = s.add_widened_neighbours(*first, products[0]);
                *last = s.add_widened_neighbours(*last, products[1]);
            }
        }
    }
}
