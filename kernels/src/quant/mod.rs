//! Quantised weights: the block formats, their bytes, and the way in and out of them.
//!
//! Weights are cut into groups of [`GROUP`] = 32 along the input axis. A weight is `q s`, an integer times a scale:
//!
//! | | integers | stored as | bits a weight, scales of groups included |
//! |---|---|---|---|
//! | Q2 | −2 … 1 | a crumb, two bits `q + 2` | |
//! | Q4 | −8 … 7 | a nibble `q + 8` | 4.5 |
//! | Q8 | −127 … 127, or from −128 | an `i8` | 8.5 |
//!
//! | scale | of | in | formats |
//! |---|---|---|---|
//! | group | 32 columns of a row | f16, chosen for least squared error | `Q4Tiled`, `Q8Tiled`, `Q4Rows`, `Q8Rows` |
//! | row | a whole row | f32, trained | `Q2RowScaled`, `Q4RowScaled`, `Q8RowScaled`, all tiled |
//! | layer | `width` columns of a row, 256 in the published models | f32, trained | `Q2LayerScaled`, `Q4LayerScaled`, both row by row |
//!
//! A row-scaled matrix may have [`Roundings`], which were trained with it.
//!
//! The bytes on disk are the bytes a kernel reads: a file is mapped and used in place. Columns are padded with zeros to a
//! multiple of 32. Two arrangements, each for a way of reading:
//!
//! **Tiled** (every row is read: projections, the head). 16 rows form a tile, rows zero-padded to 16:
//!
//! ```text
//! tile  = pairs of groups, the last perhaps with a group of zeros
//! pair  = the scales [2 groups][16 rows] as f16, then the two groups
//! group = steps of 64 bytes; byte 4 r + j of a step belongs to row r:
//!         Q2, 2 steps: step s holds k = 16 s + 4 i + j in its bits 2 i and 2 i + 1, for i from 0 to 3
//!         Q4, 4 steps: step s holds k = 8 s + j in the low nibble, k = 8 s + 4 + j in the high one
//!         Q8, 8 steps: step s holds k = 4 s + j
//! ```
//!
//! With one scale a row, a tile is its groups, then the scales [16 rows], then zeros up to a multiple of 64 bytes.
//!
//! So one 16-byte register holds 4 rows × 4 k, which `sdot` multiplies with 4 activations broadcast to all lanes and adds up to
//! 4 rows' sums; a 64-byte register holds 16 rows × 4 k, for `vpdpbusd`. No sum across lanes is ever needed. Everything begins on a
//! cache line, and a matrix is one stream of bytes from its first tile to its last: with the scales behind the integers of each tile a
//! Zen 4 server read 22 GB/s of weights, as it is now 30 to 35 (two threads, decoding).
//!
//! **Rows** (rows are picked one by one: the sparse feed-forward, embedding tables). Each row is contiguous:
//!
//! ```text
//! row   = group 0, group 1, …, then the scales, then zeros up to a multiple of 64 bytes
//! group = Q2, 8 bytes: byte j holds k = 8 i + j in its bits 2 i and 2 i + 1, for i from 0 to 3
//!         Q4, 16 bytes: byte j holds k = j in the low nibble, k = 16 + j in the high one
//!         Q8, 32 bytes: byte j holds k = j
//! ```

mod activations;
mod block_format;
mod dequantize;
mod format;
mod q2;
mod q4;
mod q8;
mod quantize;
mod rounding;
mod roundings;
mod store;
mod view;

pub use activations::Q8Activations;
pub(crate) use activations::{ActivationGroup, PANEL};
pub(crate) use block_format::{
    BlockFormat, Bytes, Integers, Scales, TOGETHER, from_row, from_tile, into_tile,
};
pub use block_format::{FIRST_COLUMN, GROUP, TILE_ROWS};
pub use dequantize::dequantize_row;
pub use format::Format;
pub(crate) use format::{Scaled, with_block_format, with_integers};
pub(crate) use q2::Q2;
pub(crate) use q4::Q4;
pub(crate) use q8::Q8;
pub use quantize::{NotFinite, quantize};
pub(crate) use roundings::RoundTo;
pub use roundings::Roundings;
pub use store::{store_blocks, store_rows};
pub use view::Quantized;
