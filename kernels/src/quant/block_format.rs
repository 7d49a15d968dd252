//! What tells one block format from another, as a type: kernels are generic over it.
//!
//! A format is one file: its integers, how weights become such integers where they are not trained as such, and how each instruction
//! set gets them into registers.

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::int8x16_t;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256i, __m512i};

use half::f16;

#[cfg(target_arch = "x86_64")]
use crate::simd::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::integer::Avx512Vnni;

/// Weights that share one scale, along the input axis.
pub const GROUP: usize = 32;
/// Rows of one tile of a tiled format.
pub const TILE_ROWS: usize = 16;

/// Groups of a tile that stand together, so that all their scales are one cache line.
pub(crate) const TOGETHER: usize = 2;
/// Columns of a tiled matrix can be a matrix of their own where the first of them is a multiple of this.
pub const FIRST_COLUMN: usize = TOGETHER * GROUP;
/// The f16 scales of one group of a tile.
pub(crate) type Scales = [u8; TILE_ROWS * size_of::<f16>()];
/// Bytes of the scales of a pair.
pub(super) const PAIR_SCALES: usize = TOGETHER * size_of::<Scales>();

/// Integers of a few bits and where they lie, whatever the arrangement of the rows and of the scales; see [`crate::quant`] for the bytes.
///
/// The registers hold integers as they are stored, `q + OFFSET`. Methods of vectors must be `#[inline(always)]`.
pub(crate) trait Integers {
    /// Bits of an integer.
    const BITS: usize;
    /// What is added to an integer where it is stored without a sign; 0 where it is stored with one.
    const OFFSET: i8;
    /// Groups of which all products of 16 integers, stored as they are, with activations from −128 on fit a sum of 16 bits; 0 where not
    /// even those of one do.
    const GROUPS_IN_16_BITS: usize =
        i16::MAX as usize / (GROUP / 2 * 128 * ((1 << Self::BITS) - 1));
    /// By how many bits an octet's registers for quad `k / 4 mod 4` are shifted where shifted ones are asked for: integers that are cheaper
    /// to get stay where they lie in their bytes.
    const SHIFTS: [u32; 4] = [0; 4];
    /// The integers of one group of a row.
    type Group: Bytes;
    /// The integers of one group of a tile.
    type Tile: Bytes;

    /// 8 k of the rows `4 i ..` of a tile: two registers, each of 4 rows × 4 k; `octet` and `i` from 0 to 3.
    #[cfg(target_arch = "aarch64")]
    fn neon_octet(s: Neon, tile: &Self::Tile, octet: usize, i: usize) -> [int8x16_t; 2];
    /// The same, shifted.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn neon_shifted_octet(s: Neon, tile: &Self::Tile, octet: usize, i: usize) -> [int8x16_t; 2] {
        Self::neon_octet(s, tile, octet, i)
    }
    /// 8 k of the rows `8 half ..` of a tile: two registers, each of 8 rows × 4 k; `octet` from 0 to 3.
    #[cfg(target_arch = "x86_64")]
    fn avx2_octet(s: Avx2, tile: &Self::Tile, octet: usize, half: usize) -> [__m256i; 2];
    /// 8 k of a tile: two registers, each of 16 rows × 4 k; `octet` from 0 to 3.
    #[cfg(target_arch = "x86_64")]
    fn avx512_octet(s: Avx512Vnni, tile: &Self::Tile, octet: usize) -> [__m512i; 2];
    /// The same, shifted.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn avx512_shifted_octet(s: Avx512Vnni, tile: &Self::Tile, octet: usize) -> [__m512i; 2] {
        Self::avx512_octet(s, tile, octet)
    }
}

/// Integers with a scale for each group, which weights of any size can be brought to.
pub(crate) trait BlockFormat: Integers {
    /// Whether the products of a whole group, stored as it is, with activations fit sums of 16 bits; else those of two integers
    /// do, and there is no `OFFSET`.
    const FITS_16_BITS: bool;
    /// [`TOGETHER`] groups of a tile: their scales, then their integers.
    type Pair: Bytes;

    /// The scales and the integers of the groups of a pair.
    #[inline(always)]
    fn split(pair: &Self::Pair) -> (&[Scales], &[Self::Tile]) {
        let (scales, integers) = pair.as_ref().split_at(PAIR_SCALES);
        (Scales::cut(scales), Self::Tile::cut(integers))
    }

    /// The integers and the scale that are nearest to a group of weights.
    fn quantize(weights: &[f32; GROUP]) -> ([i8; GROUP], f16);

    /// What a dot with stored integers is to begin with, of `−8 Σ x`: `−OFFSET Σ x`.
    fn first_dot(minus_8_sum: i32) -> i32;

    /// A group of a row: k from 0 on, and from 16 on.
    #[cfg(target_arch = "aarch64")]
    fn neon_group(s: Neon, group: &Self::Group) -> [int8x16_t; 2];
    /// A group of a row.
    #[cfg(target_arch = "x86_64")]
    fn avx2_group(s: Avx2, group: &Self::Group) -> __m256i;
}

/// An array of bytes, where its length cannot be told.
pub(crate) trait Bytes: Copy + AsRef<[u8]> {
    /// Zeros.
    const ZERO: Self;
    /// `bytes`, cut into such arrays; what is left over is left out.
    fn cut(bytes: &[u8]) -> &[Self];
}

impl<const N: usize> Bytes for [u8; N] {
    const ZERO: Self = [0; N];

    #[inline(always)]
    fn cut(bytes: &[u8]) -> &[Self] {
        bytes.as_chunks().0
    }
}

/// Where integer `k` of a row lies in a group of bytes: which byte, and how many bits lie below it.
struct Place {
    byte: usize,
    shift: usize,
}

/// In a group of a tile.
fn in_tile<F: Integers>(row: usize, k: usize) -> Place {
    let parts = 8 / F::BITS;
    let step_bytes = 4 * TILE_ROWS;
    Place {
        byte: k / (4 * parts) * step_bytes + row * 4 + k % 4,
        shift: k / 4 % parts * F::BITS,
    }
}

/// In a group of a row.
fn in_row<F: Integers>(k: usize) -> Place {
    let bytes = GROUP * F::BITS / 8;
    Place {
        byte: k % bytes,
        shift: k / bytes * F::BITS,
    }
}

impl Place {
    fn get<F: Integers>(self, bytes: &[u8]) -> i8 {
        let mask = u8::MAX >> (8 - F::BITS);
        (bytes[self.byte] >> self.shift & mask).cast_signed() - F::OFFSET
    }

    /// Into bytes that are 0.
    fn put<F: Integers>(self, q: i8, bytes: &mut [u8]) {
        bytes[self.byte] |= (q + F::OFFSET).cast_unsigned() << self.shift;
    }
}

/// The integers of row `row` of a tile's group.
pub(crate) fn from_tile<F: Integers>(tile: &[u8], row: usize) -> [i8; GROUP] {
    std::array::from_fn(|k| in_tile::<F>(row, k).get::<F>(tile))
}

/// The integers of a row's group.
pub(crate) fn from_row<F: Integers>(group: &[u8]) -> [i8; GROUP] {
    std::array::from_fn(|k| in_row::<F>(k).get::<F>(group))
}

/// Writes the integers of row `row` into a tile's group, in which they are 0 so far.
pub(crate) fn into_tile<F: Integers>(integers: &[i8; GROUP], tile: &mut [u8], row: usize) {
    for (k, &q) in integers.iter().enumerate() {
        in_tile::<F>(row, k).put::<F>(q, tile);
    }
}

/// Writes integers into a row's group, in which they are 0 so far.
pub(super) fn into_row<F: Integers>(integers: &[i8; GROUP], group: &mut [u8]) {
    for (k, &q) in integers.iter().enumerate() {
        in_row::<F>(k).put::<F>(q, group);
    }
}
