//! `y = W x` with a quantised matrix and one token: the decode step.

mod scalar;

use crate::pool::Pool;
use crate::quant::{ActivationGroup, Q8Activations, Quantized, TILE_ROWS};

/// Bytes of weights that a task reads at least: long enough a stream for the prefetcher, and cheap to hand out.
const TASK_BYTES: usize = 64 << 10;

/// Multiplies all rows with one token: `y[r] = Σ_k w[r, k] x[k]`.
///
/// Order and roundings as [`crate::quantized`] says, or [`matvec_rows`](super::matvec_rows::matvec_rows) for rows stored one by one.
///
/// # Panics
/// When shapes do not agree, or `x` is not one token quantised for the pool's instruction set.
pub fn matvec(pool: &Pool, w: Quantized, x: &Q8Activations, y: &mut [f32]) {
    if !w.format().is_tiled() {
        return super::matvec_rows::matvec_all_rows(pool, w, x, y);
    }
    assert_eq!(
        (x.isa, x.tokens, x.cols),
        (pool.isa(), 1, w.cols()),
        "instruction set, tokens and columns of x"
    );
    assert_eq!(y.len(), w.rows(), "one output a row");
    let (integers, scales) = w.unit_lengths();
    let tiles = (TASK_BYTES / (integers + scales).max(1)).max(1);
    pool.for_each_chunk_mut(y, tiles * TILE_ROWS, &|chunk, y| {
        let first = chunk * tiles;
        scalar::tiles(w, &x.single, first, y);
    });
}
