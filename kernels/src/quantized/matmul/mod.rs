//! `Y = X Wᵀ` with a tiled quantised matrix and several tokens: prefill, and the towers.
//!
//! A task is one tile of 16 rows and all tokens. It unpacks [`BLOCK`] groups of the tile into the order that the CPU's
//! instructions want, small enough for the first-level cache, and takes all tokens through them, four at a time; so unpacking
//! costs next to nothing beyond a dozen tokens. Sums wait in `y` from one block to the next, which leaves each sum's order as
//! [`crate::quantized`] says. The activations are read once a tile: callers keep a batch of tokens small enough for the
//! second-level cache (256 tokens × 2048 columns are half a MiB).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512vnni;
#[cfg(target_arch = "aarch64")]
mod dotprod;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use half::f16;

use crate::pool::{Pool, TileMut};
use crate::quant::{ActivationGroup, GROUP, PANEL, Q8Activations, Quantized, TILE_ROWS};
#[cfg(target_arch = "x86_64")]
use crate::simd::integer::{Avx2, Avx512Vnni};
#[cfg(target_arch = "aarch64")]
use crate::simd::integer::{Dotprod, I8mm, Neon};
use crate::simd::integer::{IntegerKernel, dispatch_integer};

/// Groups that are unpacked at a time: 16 KiB of integers.
const BLOCK: usize = 32;

/// Bytes of a half tile's quads of one k: 8 rows × 4.
const HALF_QUAD: usize = 32;

/// The integers of one group of a tile, in 4 bit.
type Q4 = [u8; TILE_ROWS * GROUP / 2];
/// The integers of one group of a tile, in 8 bit.
type Q8 = [u8; TILE_ROWS * GROUP];
/// The integers of one group of a tile, unpacked to bytes in an order and with an offset that the instructions ask for.
/// Those that multiply 8 rows at a time want `[half][k / 4][row % 8][k % 4]`.
type Unpacked = [u8; TILE_ROWS * GROUP];
/// The scales of one group of a tile.
type Scales = [f32; TILE_ROWS];
/// One group of the activations of four tokens.
type X = ActivationGroup<PANEL>;
/// Sums of one panel: `[token][row]`.
type Sums = [[f32; TILE_ROWS]; PANEL];

/// Multiplies all rows of a tiled matrix with several tokens: `y[t, r] = Σ_k w[r, k] x[t, k]`.
///
/// Order and roundings as [`crate::quantized`] says: the same bits as [`matvec`](super::matvec::matvec) for each token.
///
/// # Panics
/// When shapes do not agree, `w` is not tiled, or `x` is not at least two tokens quantised for the pool's instruction set.
pub fn matmul(pool: &Pool, w: Quantized, x: &Q8Activations, y: &mut [f32]) {
    assert!(w.format().is_tiled(), "a matmul needs a tiled matrix");
    assert!(x.tokens > 1, "one token goes to matvec");
    assert_eq!(
        (x.isa, x.cols),
        (pool.isa(), w.cols()),
        "instruction set and columns of x"
    );
    assert_eq!(y.len(), x.tokens * w.rows(), "one output a token and row");
    if w.groups() == 0 {
        return y.fill(0.0);
    }
    pool.for_each_tile_mut(y, w.rows(), x.tokens, TILE_ROWS, &|_, row, y| {
        let (tile, x) = (row / TILE_ROWS, &x.panels);
        dispatch_integer(pool.isa(), Tile { w, tile, x, y });
    });
}

/// The outputs of one tile's rows, for all tokens.
struct Tile<'a, 'y> {
    w: Quantized<'a>,
    tile: usize,
    x: &'a [X],
    y: &'a mut TileMut<'y, f32>,
}

impl IntegerKernel for Tile<'_, '_> {
    fn scalar(self) {
        scalar::tile(self);
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon(self, s: Neon) {
        self.each(s);
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn dotprod(self, s: Dotprod) {
        self.each(s);
    }

    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn i8mm(self, s: I8mm) {
        self.each(s);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx2(self, s: Avx2) {
        self.each(s);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512vnni(self, s: Avx512Vnni) {
        self.each(s);
    }
}

/// What an instruction set does with a block; the methods must be `#[inline(always)]`.
trait Products: Copy {
    /// Unpacks one group.
    fn unpack_q4(self, from: &Q4, to: &mut Unpacked);
    /// Unpacks one group.
    fn unpack_q8(self, from: &Q8, to: &mut Unpacked);
    /// Adds the products of unpacked 4-bit groups with the same groups of one panel to the panel's sums.
    fn multiply_q4(self, w: &[Unpacked], sw: &[Scales], x: &[X], sums: &mut Sums);
    /// As `multiply_q4`, for 8-bit groups.
    fn multiply_q8(self, w: &[Unpacked], sw: &[Scales], x: &[X], sums: &mut Sums);
}

impl Tile<'_, '_> {
    /// Takes all panels through the tile, block by block.
    #[inline(always)]
    fn each(self, s: impl Products) {
        let is_q4 = self.w.format().is_q4();
        let group_bytes = TILE_ROWS * self.w.format().group_bytes();
        let (integers, scales) = self.w.unit(self.tile);
        let scales = scales.as_chunks::<2>().0;
        let (rows, y) = (self.y.cols(), self.y);
        let mut unpacked = Block([[0; _]; BLOCK]);
        let mut widened = [[0.0; TILE_ROWS]; BLOCK];
        for (block, integers) in integers.chunks(BLOCK * group_bytes).enumerate() {
            let groups = integers.len() / group_bytes;
            let (unpacked, widened) = (&mut unpacked.0[..groups], &mut widened[..groups]);
            if is_q4 {
                for (from, to) in integers.as_chunks().0.iter().zip(&mut *unpacked) {
                    s.unpack_q4(from, to);
                }
            } else {
                for (from, to) in integers.as_chunks().0.iter().zip(&mut *unpacked) {
                    s.unpack_q8(from, to);
                }
            }
            let scales = &scales[block * BLOCK * TILE_ROWS..];
            for (to, from) in widened.as_flattened_mut().iter_mut().zip(scales) {
                *to = f16::from_le_bytes(*from).to_f32();
            }
            for (panel, x) in self.x.chunks_exact(self.w.groups()).enumerate() {
                let x = &x[block * BLOCK..][..groups];
                let first = panel * PANEL;
                let tokens = PANEL.min(y.rows() - first);
                let mut sums = [[0.0; TILE_ROWS]; PANEL];
                if block > 0 {
                    for (token, sums) in sums[..tokens].iter_mut().enumerate() {
                        sums[..rows].copy_from_slice(y.row_mut(first + token));
                    }
                }
                if is_q4 {
                    s.multiply_q4(unpacked, widened, x, &mut sums);
                } else {
                    s.multiply_q8(unpacked, widened, x, &mut sums);
                }
                for (token, sums) in sums[..tokens].iter().enumerate() {
                    y.row_mut(first + token).copy_from_slice(&sums[..rows]);
                }
            }
        }
    }
}

/// The unpacked groups of a block, for aligned loads.
#[repr(align(64))]
struct Block([Unpacked; BLOCK]);
