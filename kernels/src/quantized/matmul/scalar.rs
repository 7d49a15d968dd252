//! The reference.

use super::*;

pub(super) fn tiles(k: Tiles) {
    let mut integers = [0; GROUP];
    for row in 0..k.y.cols() {
        for token in 0..k.y.rows() {
            let x = &k.x[token / PANEL * k.w.groups()..][..k.w.groups()];
            let lane = token % PANEL;
            let before = k.y.row_mut(token)[row];
            let mut sum = if k.block > 0 { before } else { 0.0 };
            for group in k.groups() {
                let x = &x[group];
                let scale = k.w.group(k.first * TILE_ROWS + row, group, &mut integers);
                let products = integers.iter().zip(&x.q[lane]);
                let dot: i32 = products.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                sum = (dot as f32).mul_add(scale * x.scale[lane], sum);
            }
            k.y.row_mut(token)[row] = k.bounds.of(Plain, sum);
        }
    }
}
