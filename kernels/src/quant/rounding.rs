//! From weights to integers: what the formats' searches for a scale are made of.

use half::f16;

use super::block_format::GROUP;

/// The weight of largest magnitude, with its sign.
pub(super) fn peak(x: &[f32; GROUP]) -> f32 {
    x.iter().fold(
        0.0,
        |peak: f32, &w| if w.abs() > peak.abs() { w } else { peak },
    )
}

/// Rounds to the nearest integer, for magnitudes below 2²²; in this form it becomes SIMD on any machine.
fn round(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: the sum's last bit is worth one
    (v + MAGIC) - MAGIC
}

/// Fixes the integers `q = round(inverse x)` and solves for the scale: `s = Σ x q / Σ q²`.
/// Returns by how much that lowers the squared error, `(Σ x q)² / Σ q²`, and `s`.
pub(super) fn least_squares(x: &[f32; GROUP], inverse: f32, low: f32, high: f32) -> (f32, f32) {
    let (mut xq, mut qq) = ([0.0f32; 8], [0.0f32; 8]);
    for x in x.as_chunks::<8>().0 {
        for lane in 0..8 {
            let q = round(x[lane] * inverse).clamp(low, high);
            xq[lane] += x[lane] * q;
            qq[lane] += q * q;
        }
    }
    let (xq, qq) = (xq.iter().sum::<f32>(), qq.iter().sum::<f32>());
    if qq == 0.0 {
        (f32::NEG_INFINITY, 0.0)
    } else {
        (xq * (xq / qq), xq / qq)
    }
}

/// Rounds the scale to f16 and each weight to its nearest multiple of it.
pub(super) fn round_to(x: &[f32; GROUP], scale: f32, low: f32, high: f32) -> ([i8; GROUP], f16) {
    let scale = f16::from_f32(scale.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32()));
    if scale == f16::ZERO {
        return ([0; GROUP], f16::ZERO);
    }
    let inverse = 1.0 / scale.to_f32();
    (
        x.map(|w| round((w * inverse).clamp(low, high)) as i8),
        scale,
    )
}
