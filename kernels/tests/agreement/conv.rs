//! The convolution kernels against the definition, written index by index, on every instruction set.

use crate::common::isas;
use kernels::Isa;
use kernels::conv::{Window, depthwise_row, patch};
use proptest::prelude::*;

/// Values from a fixed sequence in -1 .. 1.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = (seed | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// The input under tap `(i, j)` of output pixel `x`, zero beyond the edges.
fn under(
    window: &Window,
    input: &[f32],
    rows_above: usize,
    x: usize,
    c: usize,
    i: usize,
    j: usize,
) -> f32 {
    let rows = input.len() / (window.input_width * window.channels);
    let row = i as isize - rows_above as isize;
    let column = (x * window.stride + j) as isize - window.before as isize;
    if row < 0 || row >= rows as isize || column < 0 || column >= window.input_width as isize {
        return 0.0;
    }
    input[(row as usize * window.input_width + column as usize) * window.channels + c]
}

prop_compose! {
    fn cases()(
        kernel in 1usize..6, stride in 1usize..4, channels in 1usize..70, input_width in 1usize..15, seed in any::<u64>(),
    )(
        before in 0..kernel, rows_above in 0..kernel, below in 0..kernel, kernel in Just(kernel), stride in Just(stride),
        channels in Just(channels), input_width in Just(input_width), seed in Just(seed),
    ) -> (Window, usize, usize, u64) {
        let output_width = input_width.div_ceil(stride);
        let rows = kernel.saturating_sub(rows_above + below).max(1);
        (Window { kernel, stride, before, input_width, output_width, channels }, rows_above, rows, seed)
    }
}

proptest! {
    #[test]
    fn depthwise_agrees_with_its_definition((window, rows_above, rows, seed) in cases()) {
        let Window { kernel, channels, .. } = window;
        let weight = values(kernel * kernel * channels, seed);
        let input = values(rows * window.input_width * channels, !seed);
        let of = |isa| {
            let mut out = vec![f32::NAN; window.output_width * channels];
            depthwise_row(isa, &window, &weight, &input, rows_above, &mut out);
            out
        };
        let scalar: Vec<u32> = of(Isa::scalar()).iter().map(|x| x.to_bits()).collect();
        for isa in isas() {
            let out = of(isa);
            let bits = out.iter().map(|x| x.to_bits());
            prop_assert!(bits.eq(scalar.iter().copied()), "{isa} {window:?}: other bits");
            for (at, &got) in out.iter().enumerate() {
                let (x, c) = (at / channels, at % channels);
                let mut want = 0.0f64;
                for i in 0..kernel {
                    for j in 0..kernel {
                        let weight = weight[(i * kernel + j) * channels + c];
                        want += f64::from(weight) * f64::from(under(&window, &input, rows_above, x, c, i, j));
                    }
                }
                // At most 25 products below 1, every partial sum below 25 and rounded to 24 bits.
                prop_assert!((f64::from(got) - want).abs() < 25.0 * 25.0 * 6e-8, "{isa} {window:?}: {got} {want}");
            }
        }
    }

    #[test]
    fn a_patch_is_what_the_kernel_covers((window, rows_above, rows, seed) in cases()) {
        let Window { kernel, channels, .. } = window;
        let input = values(rows * window.input_width * channels, seed);
        for x in 0..window.output_width {
            let mut out = vec![f32::NAN; kernel * kernel * channels];
            patch(&window, &input, rows_above, x, &mut out);
            for (at, &got) in out.iter().enumerate() {
                let (c, i, j) = (at / (kernel * kernel), at / kernel % kernel, at % kernel);
                prop_assert_eq!(got, under(&window, &input, rows_above, x, c, i, j));
            }
        }
    }
}
