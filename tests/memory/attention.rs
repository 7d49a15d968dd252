//! Attention of every patch of the largest picture over every other holds a block of the scores, never all of them.

use kernels::attention::attend_all;
use kernels::{Isa, Matrix, Pool};

use crate::{ALONE, HEAP};

/// Patches of 1120 soft tokens.
const PATCHES: usize = 10_080;
const HEAD_DIM: usize = 64;

#[test]
fn no_more_than_a_block_of_scores_is_there() {
    let _alone = ALONE.lock();
    let threads = 2;
    let pool = Pool::new(Isa::best(), threads);
    let rows: Vec<f32> = (0..PATCHES * HEAD_DIM)
        .map(|i| (i as f32 * 0.37).sin())
        .collect();
    let matrix = Matrix::f32(&rows, PATCHES, HEAD_DIM);
    let mut out = vec![0.0; rows.len()];
    let ((), peak_bytes) = HEAP.peak_of(|| {
        attend_all(&pool, &rows, matrix, matrix, 1, 1.0, &mut out);
    });
    let allowed = threads * 2 * HEAD_DIM * 1024;
    assert!(
        peak_bytes <= allowed,
        "{peak_bytes} bytes at the peak, {allowed} allowed"
    );
    assert!(out.iter().all(|x| x.is_finite()) && out.iter().any(|&x| x != 0.0));
}
