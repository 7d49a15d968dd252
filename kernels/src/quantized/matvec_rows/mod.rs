//! `y = W x` with a matrix stored row by row and one token: all rows, or a few picked ones (the sparse feed-forward's `up`).

mod scalar;

use crate::pool::Pool;
use crate::quant::{ActivationGroup, Q8Activations, Quantized};

/// Rows that a task takes at least.
const TASK_ROWS: usize = 16;

/// Multiplies picked rows with one token: `y[i] = Σ_k w[rows[i], k] x[k]`.
///
/// Group `g` is added, as [`crate::quantized`] says, to the `g mod 4`-th of four sums; `y = (s0 + s1) + (s2 + s3)`.
///
/// # Panics
/// When shapes do not agree, `rows` names a row that `w` lacks, `w` is tiled, or `x` is not one token quantised for the
/// pool's instruction set.
pub fn matvec_rows(pool: &Pool, w: Quantized, rows: &[u32], x: &Q8Activations, y: &mut [f32]) {
    assert_eq!(y.len(), rows.len(), "one output a row");
    each_task(pool, w, x, y, &|first, y| {
        compute(
            pool,
            w,
            rows[first..][..y.len()].iter().map(|&r| r as usize),
            x,
            y,
        )
    });
}

/// Multiplies all rows: `y[r] = Σ_k w[r, k] x[k]`, as [`matvec_rows`].
pub(super) fn matvec_all_rows(pool: &Pool, w: Quantized, x: &Q8Activations, y: &mut [f32]) {
    assert_eq!(y.len(), w.rows(), "one output a row");
    each_task(pool, w, x, y, &|first, y| {
        compute(pool, w, first..first + y.len(), x, y)
    });
}

fn each_task(
    pool: &Pool,
    w: Quantized,
    x: &Q8Activations,
    y: &mut [f32],
    task: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    assert!(
        !w.format().is_tiled(),
        "rows of a tiled matrix cannot be picked"
    );
    assert_eq!(
        (x.isa, x.tokens, x.cols),
        (pool.isa(), 1, w.cols()),
        "instruction set, tokens and columns of x"
    );
    let rows = y
        .len()
        .div_ceil(pool.threads() * crate::pool::TASKS_PER_THREAD)
        .max(TASK_ROWS);
    pool.for_each_chunk_mut(y, rows, &|chunk, y| task(chunk * rows, y));
}

fn compute(
    pool: &Pool,
    w: Quantized,
    rows: impl Iterator<Item = usize>,
    x: &Q8Activations,
    y: &mut [f32],
) {
    let x = &x.single;
    scalar::rows(w, rows, x, y);
}
