//! The reference.

use super::*;
use crate::quant::GROUP;

pub(super) fn tiles(k: Tiles) {
    let mut integers = [0; GROUP];
    for (row, y) in (k.first * TILE_ROWS..).zip(k.y) {
        *y = 0.0;
        for (group, x) in k.x.iter().enumerate() {
            let scale = k.w.group(row, group, &mut integers);
            let products = integers.iter().zip(&x.q[0]);
            let dot: i32 = products.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
            *y = (dot as f32).mul_add(scale * x.scale[0], *y);
        }
    }
}
