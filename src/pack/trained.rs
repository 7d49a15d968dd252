//! Weights that were trained in blocks of ggml's Q4_0 and published as floats, which the same rule makes blocks of again.
//!
//! Source: `quantize_row_q4_0_ref` of the ggml project; its value of largest magnitude is always −8.

use half::f16;
use kernels::quant::GROUP;

/// A weight may be off its place on the grid by this part of itself: it and the largest of its group were rounded to BF16.
const ROUNDING: f32 = 1.0 / 128.0;

/// The integers and the scale of a group by the rule of Q4_0.
pub(super) fn q4_0(x: &[f32; GROUP]) -> ([i8; GROUP], f16) {
    // The first of those with the largest magnitude.
    let peak = x.iter().fold(
        0.0f32,
        |peak, &w| if w.abs() > peak.abs() { w } else { peak },
    );
    let scale = peak / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    // Rounded down: nothing is below -8.
    let integers = x.map(|w| (w * inverse + 8.5).clamp(0.0, 15.0) as i8 - 8);
    (integers, f16::from_f32(scale))
}

/// Whether these integers and this scale say the weights as well as they were published.
pub(super) fn says(integers: &[i8; GROUP], scale: f16, x: &[f32; GROUP]) -> bool {
    let scale = scale.to_f32();
    integers.iter().zip(x).all(|(&q, &w)| {
        let off = (f32::from(q) * scale - w).abs();
        off <= w.abs() * ROUNDING
    })
}

/// Whether weights consist of such groups; not where all are zero, which says nothing.
pub(super) fn are_trained(weights: &[f32]) -> bool {
    let (groups, rest) = weights.as_chunks::<GROUP>();
    let is_said = |group: &[f32; GROUP]| {
        let (integers, scale) = q4_0(group);
        says(&integers, scale, group)
    };
    rest.is_empty() && weights.iter().any(|&w| w != 0.0) && groups.iter().all(is_said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trained_group_is_found_again_and_any_other_is_none() {
        let scale = f16::from_f32(0.013);
        let grid: [f32; GROUP] = std::array::from_fn(|k| {
            let q = (k * 7 % 16) as i8 - 8;
            half::bf16::from_f32(f32::from(q) * scale.to_f32()).to_f32()
        });
        assert!(are_trained(&grid));
        let (integers, found) = q4_0(&grid);
        assert_eq!(integers[0], -8);
        assert!((found.to_f32() / scale.to_f32() - 1.0).abs() < 0.004);
        // Half of the weights of a wave are far from every integer.
        let wave: [f32; GROUP] = std::array::from_fn(|k| (k as f32).sin());
        assert!(!are_trained(&wave));
        assert!(!are_trained(&[0.0; GROUP]));
        assert!(!are_trained(&grid[..31]));
    }
}
