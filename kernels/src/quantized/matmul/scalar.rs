//! The reference.

use super::*;

pub(super) fn tile(w: Quantized, tile: usize, x: &[ActivationGroup<PANEL>], y: &mut TileMut<f32>) {
    let mut integers = [0; GROUP];
    for row in 0..y.cols() {
        for token in 0..y.rows() {
            let x = &x[token / PANEL * w.groups()..][..w.groups()];
            let token_in_panel = token % PANEL;
            let mut sum = 0.0;
            for (group, x) in x.iter().enumerate() {
                let scale = w.group(tile * TILE_ROWS + row, group, &mut integers);
                let q = &x.q[token_in_panel];
                let dot: i32 = integers
                    .iter()
                    .zip(q)
                    .map(|(&w, &x)| i32::from(w) * i32::from(x))
                    .sum();
                sum = (dot as f32).mul_add(scale * x.scale[token_in_panel], sum);
            }
            y.row_mut(token)[row] = sum;
        }
    }
}
