//! `Y = X Wᵀ` with a tiled quantised matrix and several tokens: prefill, and the towers.
//!
//! A task is one tile of 16 rows and all tokens. It unpacks [`BLOCK`] groups of the tile into the order that the CPU's
//! instructions want, small enough for the first-level cache, and takes all tokens through them, four at a time; so unpacking
//! costs next to nothing beyond a dozen tokens. Sums wait in `y` from one block to the next, which leaves each sum's order as
//! [`crate::quantized`] says. The activations are read once a tile: callers keep a batch of tokens small enough for the
//! second-level cache (256 tokens × 2048 columns are half a MiB).

mod scalar;

use crate::pool::{Pool, TileMut};
use crate::quant::{ActivationGroup, GROUP, PANEL, Q8Activations, Quantized, TILE_ROWS};

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
    pool.for_each_tile_mut(y, w.rows(), x.tokens, TILE_ROWS, &|_, row, y| {
        let (tile, x) = (row / TILE_ROWS, &x.panels);
        scalar::tile(w, tile, x, y);
    });
}
