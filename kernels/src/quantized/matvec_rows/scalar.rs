//! The reference.

use super::*;
use crate::quant::GROUP;

pub(super) fn rows(
    w: Quantized,
    rows: impl Iterator<Item = usize>,
    x: &[ActivationGroup<1>],
    y: &mut [f32],
) {
    let mut integers = [0; GROUP];
    for (row, y) in rows.zip(y) {
        let mut sums = [0.0f32; 4];
        for (group, x) in x.iter().enumerate() {
            let scale = w.group(row, group, &mut integers);
            let dot: i32 = integers
                .iter()
                .zip(&x.q[0])
                .map(|(&w, &x)| i32::from(w) * i32::from(x))
                .sum();
            let sum = &mut sums[group % 4];
            *sum = (dot as f32).mul_add(scale * x.scale[0], *sum);
        }
        *y = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
}
