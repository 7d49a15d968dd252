//! The reference.

use super::tiles::Tiles;
use crate::quant::{GROUP, TILE_ROWS};

pub(super) fn tiles(k: Tiles) {
    let mut integers = [0; GROUP];
    for row in 0..k.y.cols() {
        for token in 0..k.y.rows() {
            let x = k.token + token;
            let (mut sum, mut scale) = (0, 0.0);
            for group in 0..k.w.groups() {
                scale = k.w.group(k.first * TILE_ROWS + row, group, &mut integers);
                let products = integers.iter().zip(k.x.group(x, group));
                sum += products
                    .map(|(&w, x)| i32::from(w) * i32::from(x))
                    .sum::<i32>();
            }
            k.y.row_mut(token)[row] = sum as f32 * (k.x.scale(x) * scale);
        }
    }
}
