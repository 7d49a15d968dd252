//! `vpdpbusd` of all 16 rows × 4 k with a quad of activations, four tokens at a time. Weights go in unsigned: nibbles as
//! they are, bytes plus 128; the sums begin with −8 Σ x or −128 Σ x instead.
//!
//! 153 to 183 GMAC/s with 4 bit, 193 to 203 with 8, 32 tokens (`gemmad bench kernels`, two threads of a shared PC).

use std::arch::x86_64::__m512;

use super::*;
use crate::quantized::unsigned;
use crate::simd::Simd;
use crate::simd::integer::Avx512Vnni;

impl Products for Avx512Vnni {
    type Group = WholeGroup;

    #[inline(always)]
    fn unpack<F: BlockFormat>(self, from: Stored<F>, _: usize, to: &mut Self::Group) {
        for octet in 0..4 {
            let [a, b] = unsigned::octet::<F>(self, from.integers, octet);
            self.store_bytes(a, &mut to.integers, octet * 128);
            self.store_bytes(b, &mut to.integers, octet * 128 + 64);
        }
        let scales = self.widen_f16(self.avx2().load_bytes(from.scales, 0));
        self.avx512().store(scales, &mut to.scales);
    }

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, w: &[Self::Group], x: &[X], _: usize, out: &mut Sums) {
        let s = self.avx512();
        let mut sums = [s.splat(0.0); PANEL];
        for (sum, from) in sums.iter_mut().zip(&*out) {
            *sum = s.load(from);
        }
        for (w, x) in w.iter().zip(x) {
            let mut dots = [self.splat_i32(0); PANEL];
            for (dot, offset) in dots.iter_mut().zip(x.offset) {
                *dot = self.splat_i32(unsigned::first_dot::<F>(offset));
            }
            for quad in 0..8 {
                let w = self.load_bytes(&w.integers, quad * 64);
                for (dot, x) in dots.iter_mut().zip(&x.q) {
                    *dot = self.dot_u8_i8(*dot, w, self.broadcast_i8x4(x, 4 * quad));
                }
            }
            let sw = s.load(&w.scales);
            for (t, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
                let scale = s.mul(sw, s.splat(x.scale[t]));
                *sum = s.mul_add(self.to_f32(dot), scale, *sum);
            }
        }
        for (sum, to) in sums.into_iter().zip(out) {
            s.store(sum, to);
        }
    }
}

impl FewTokens for Avx512Vnni {
    const AT_ONCE: usize = 8;

    #[inline(always)]
    fn multiply<F: BlockFormat>(self, part: &Part<F>, _: usize, sums: &mut [[f32; TILE_ROWS]]) {
        match sums.len() {
            2 => few::multiply::<F, 2, 0>(self, part, sums),
            3 => few::multiply::<F, 3, 0>(self, part, sums),
            4 => few::multiply::<F, 4, 0>(self, part, sums),
            5 => few::multiply::<F, 5, 0>(self, part, sums),
            6 => few::multiply::<F, 6, 0>(self, part, sums),
            7 => few::multiply::<F, 7, 0>(self, part, sums),
            _ => few::multiply::<F, 8, 0>(self, part, sums),
        }
    }
}

impl<const T: usize> TokenSums<T, 0> for Avx512Vnni {
    type Sums = [__m512; T];

    /// Products of several tokens take as long as memory: it is to go on meanwhile.
    #[inline(always)]
    fn begin<F: BlockFormat>(self, pair: &F::Pair) {
        self.ask_ahead(pair);
    }

    #[inline(always)]
    fn load(self, from: &[[f32; TILE_ROWS]; T]) -> [__m512; T] {
        from.each_ref().map(|from| self.avx512().load(from))
    }

    #[inline(always)]
    fn add<F: BlockFormat>(
        self,
        sums: &mut [__m512; T],
        w: &F::Tile,
        sw: &Scales,
        x: [&X; FEW_PANELS],
    ) {
        let s = self.avx512();
        let mut dots = [self.splat_i32(0); T];
        for (t, dot) in dots.iter_mut().enumerate() {
            let offset = x[t / PANEL].offset[t % PANEL];
            *dot = self.splat_i32(unsigned::first_dot::<F>(offset));
        }
        for octet in 0..4 {
            let [a, b] = unsigned::octet::<F>(self, w, octet);
            for (t, dot) in dots.iter_mut().enumerate() {
                let x = &x[t / PANEL].q[t % PANEL];
                let xa = self.broadcast_i8x4(x, 8 * octet);
                let xb = self.broadcast_i8x4(x, 8 * octet + 4);
                *dot = self.dot_u8_i8(self.dot_u8_i8(*dot, a, xa), b, xb);
            }
        }
        let sw = self.widen_f16(self.avx2().load_bytes(sw, 0));
        for (t, (sum, dot)) in sums.iter_mut().zip(dots).enumerate() {
            let scale = s.mul(sw, s.splat(x[t / PANEL].scale[t % PANEL]));
            *sum = s.mul_add(self.to_f32(dot), scale, *sum);
        }
    }

    #[inline(always)]
    fn store(self, sums: [__m512; T], to: &mut [[f32; TILE_ROWS]; T]) {
        for (sum, to) in sums.into_iter().zip(to) {
            self.avx512().store(sum, to);
        }
    }
}
