//! The reference.

use super::*;
use crate::quant::GROUP;

/// The rows of `y`, which begin with those of tile `first`.
pub(super) fn tiles(w: Quantized, x: &[ActivationGroup<1>], first: usize, y: &mut [f32]) {
    let mut integers = [0; GROUP];
    for (row, y) in (first * TILE_ROWS..).zip(y) {
        *y = 0.0;
        for (group, x) in x.iter().enumerate() {
            let scale = w.group(row, group, &mut integers);
            let dot: i32 = integers
                .iter()
                .zip(&x.q[0])
                .map(|(&w, &x)| i32::from(w) * i32::from(x))
                .sum();
            *y = (dot as f32).mul_add(scale * x.scale[0], *y);
        }
    }
}
