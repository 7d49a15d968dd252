//! The reference.

use super::*;
use crate::quant::GROUP;

pub(super) fn rows(k: Rows<impl Iterator<Item = usize>>) {
    let mut integers = [0; GROUP];
    for (row, y) in k.rows.zip(k.y) {
        let mut sums = [0.0f32; FOUR];
        for (group, x) in k.x.iter().enumerate() {
            let scale = k.w.group(row, group, &mut integers);
            let products = integers.iter().zip(&x.q[0]);
            let dot: i32 = products.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
            let sum = &mut sums[group % FOUR];
            *sum = (dot as f32).mul_add(scale * x.scale[0], *sum);
        }
        *y = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}
