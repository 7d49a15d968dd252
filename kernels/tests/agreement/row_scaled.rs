//! Integers with one scale a row, or for some columns of it, on every instruction set against a naive product of the numbers that were
//! stored: sums of integers are exact and the few roundings after them are told, so the bits must be the same.

use kernels::gelu::gelu_tanh_mul;
use kernels::matmul::{clipped_matmul, gelu_gated, matmul, matmul_of};
use kernels::quant::{Format, Roundings};
use kernels::{Bounds, Clip, Inputs, Isa, Matrix, Pool, matvec};

use crate::common::{Random, bits, isas};
use crate::quant_formats::{SHAPES, scalar, vector};
use crate::trained::{LAYER_SCALED, ROW_SCALED, Trained};

impl Trained {
    /// `Y = r(X Wᵀ)` of rounded inputs, number by number, in the order in which the roundings are told.
    fn product(&self, roundings: Roundings, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for x in x.chunks(self.cols) {
            let rounded: Vec<i64> = x
                .iter()
                .map(|x| (x / roundings.input).round_ties_even().clamp(-128.0, 127.0) as i64)
                .collect();
            for row in 0..self.rows {
                let products = self.integers(row).iter().zip(&rounded);
                let sum: i64 = products.map(|(&w, x)| i64::from(w) * x).sum();
                let sum = sum as f32 * (roundings.input * self.scales[row]);
                y.push(round(sum, roundings.output));
            }
        }
        y
    }
}

fn round(x: f32, scale: f32) -> f32 {
    if scale == 0.0 {
        return x;
    }
    (x / scale).round_ties_even().clamp(-128.0, 127.0) * scale
}

fn pools() -> Vec<Pool> {
    let each = |isa: Isa| [1, 3].map(|threads| Pool::new(isa, threads));
    isas().into_iter().flat_map(each).collect()
}

/// Of inputs of spread 3 about one in fifty is cut off; of the outputs some are.
fn roundings(cols: usize) -> [Roundings; 2] {
    let output = 0.0005 * (cols as f32).sqrt();
    [0.0, output].map(|output| Roundings {
        input: 0.05,
        output,
    })
}

#[test]
fn products_are_the_naive_ones_bit_by_bit() {
    let mut random = Random::new(71);
    let few = SHAPES
        .into_iter()
        .zip([1, 2, 5, 3, 4, 9, 8, 17, 6, 1, 7, 2].into_iter().cycle());
    // More columns than a block, more tokens than a batch.
    let many = [
        ((20, 12288), 1),
        ((20, 6200), 60),
        ((33, 96), 700),
        ((100, 2080), 3),
        ((40, 2088), 8),
    ];
    for ((rows, cols), tokens) in few.chain(many) {
        for format in ROW_SCALED {
            let w = Trained::random(&mut random, format, rows, cols);
            let x = vector(&mut random, tokens * cols, 3.0);
            for roundings in roundings(cols) {
                let expected = w.product(roundings, &x);
                let w = Matrix::quantized(w.view(roundings));
                for pool in pools() {
                    let mut y = vec![f32::NAN; tokens * rows];
                    matmul(&pool, w, &x, tokens, &mut y);
                    let what = format!("{} {format:?} {rows}x{cols}, {tokens}", pool.isa());
                    assert_eq!(bits(&y), bits(&expected), "{what}");
                }
            }
        }
    }
}

/// The largest integers everywhere, −128 times −128 among them: no sum of 16 bits may overflow.
#[test]
fn extremes_do_not_overflow() {
    let (rows, cols) = (18, 12288);
    for format in ROW_SCALED {
        let (least, most) = format.range();
        for (w, x) in [
            (least, -1e9),
            (least, 1e9),
            (most, -1e9),
            (most, 1e9),
            (least, f32::NEG_INFINITY),
        ] {
            let w = Trained::new(format, rows, cols, vec![w; rows * cols], vec![0.5; rows]);
            for tokens in [1, 5, 8] {
                let x = vec![x; tokens * cols];
                let expected = w.product(roundings(1)[0], &x);
                for pool in pools() {
                    let mut y = vec![f32::NAN; tokens * rows];
                    let w = Matrix::quantized(w.view(roundings(1)[0]));
                    matmul(&pool, w, &x, tokens, &mut y);
                    assert_eq!(bits(&y), bits(&expected), "{} {format:?}", pool.isa());
                }
            }
        }
    }
}

/// Ties go to the even integer, and it is a division: −17.25 / 0.3 becomes −57, by the inverse of 0.3 it would be −58.
#[test]
fn inputs_are_divided_and_ties_are_even() {
    let w = Trained::new(Format::Q8RowScaled, 1, 1, vec![1], vec![1.0]);
    for (x, input) in [
        (0.5, 1.0),
        (1.5, 1.0),
        (-2.5, 1.0),
        (-17.25, 0.3),
        (7.7, 2.2),
    ] {
        let roundings = Roundings { input, output: 0.0 };
        for pool in pools() {
            for tokens in [1, 2] {
                let mut y = vec![f32::NAN; tokens];
                let x = vec![x; tokens];
                matmul(
                    &pool,
                    Matrix::quantized(w.view(roundings)),
                    &x,
                    tokens,
                    &mut y,
                );
                let expected = (x[0] / input).round_ties_even() * input;
                assert!(
                    y.iter().all(|&y| y == expected),
                    "{}: {y:?}, {expected}",
                    pool.isa()
                );
            }
        }
    }
}

#[test]
fn without_a_scale_of_the_inputs_weights_are_floats() {
    let mut random = Random::new(72);
    for ((rows, cols), tokens) in SHAPES.into_iter().zip([1, 2, 5].into_iter().cycle()) {
        for format in ROW_SCALED.into_iter().chain(LAYER_SCALED) {
            let w = Trained::random(&mut random, format, rows, cols);
            let x = vector(&mut random, tokens * cols, 3.0);
            let weights: Vec<f32> = (0..rows * cols)
                .map(|i| w.weight(i / cols, i % cols))
                .collect();
            for roundings in roundings(cols).map(|r| Roundings { input: 0.0, ..r }) {
                if roundings.output != 0.0 && LAYER_SCALED.contains(&format) {
                    continue;
                }
                let mut expected = vec![0.0; tokens * rows];
                let floats = Matrix::f32(&weights, rows, cols);
                matmul(&scalar(), floats, &x, tokens, &mut expected);
                for y in &mut expected {
                    *y = round(*y, roundings.output);
                }
                for pool in pools() {
                    let mut y = vec![f32::NAN; tokens * rows];
                    let w = Matrix::quantized(w.view(roundings));
                    matmul(&pool, w, &x, tokens, &mut y);
                    assert_eq!(bits(&y), bits(&expected), "{} {format:?}", pool.isa());
                }
            }
        }
    }
}

/// Blocks, rows, columns, bounds, shared inputs, gate and up: each is what the whole product and its steps give.
#[test]
fn every_door_gives_the_same_product() {
    let mut random = Random::new(73);
    let (rows, cols) = (5 * 16 + 7, 200);
    for format in ROW_SCALED {
        let w = Trained::random(&mut random, format, rows, cols);
        let up = Trained::random(&mut random, format, rows, cols);
        let [first, second] = roundings(cols);
        let other = Roundings {
            input: 0.07,
            ..second
        };
        for (roundings, up_roundings) in [
            (first, other),
            (second, first),
            (Roundings::default(), other),
        ] {
            let (m, up) = (
                Matrix::quantized(w.view(roundings)),
                Matrix::quantized(up.view(up_roundings)),
            );
            for pool in pools() {
                let what = format!("{} {format:?} {roundings:?}", pool.isa());
                let tokens = 6;
                let x = vector(&mut random, tokens * cols, 3.0);
                let product = |w, tokens: usize| {
                    let mut y = vec![f32::NAN; tokens * rows];
                    matmul(&pool, w, &x[..tokens * cols], tokens, &mut y);
                    y
                };
                let all = product(m, tokens);
                let mut one = vec![f32::NAN; rows];
                matvec::matvec(&pool, m, &x[..cols], &mut one);
                assert_eq!(bits(&one), bits(&all[..rows]), "{what}");
                for blocks in [&[][..], &[0], &[5], &[1, 2, 4]] {
                    let picked: Vec<f32> = blocks
                        .iter()
                        .flat_map(|&block: &u32| one.chunks(16).nth(block as usize).unwrap())
                        .copied()
                        .collect();
                    let mut y = vec![f32::NAN; picked.len()];
                    matvec::matvec_blocks(&pool, m, blocks, &x[..cols], &mut y);
                    assert_eq!(bits(&y), bits(&picked), "{what} {blocks:?}");
                }
                let mut y = vec![f32::NAN; rows - 32];
                matvec::matvec(&pool, m.rows(32..rows), &x[..cols], &mut y);
                assert_eq!(bits(&y), bits(&one[32..]), "{what}");

                let bounds = |by: f32| Bounds::new(-by, by * 0.5).unwrap();
                let (input, output) = (bounds(2.0), bounds(0.2));
                let clamp = |x: &[f32], bounds: Bounds| {
                    let mut x = x.to_vec();
                    bounds.clamp(pool.isa(), &mut x);
                    x
                };
                let (clip, clamped) = (Clip { input, output }, clamp(&x, input));
                let (mut expected, mut y) = (vec![f32::NAN; all.len()], vec![f32::NAN; all.len()]);
                matmul(&pool, m, &clamped, tokens, &mut expected);
                clipped_matmul(&pool, m, clip, &x, tokens, &mut y);
                assert_eq!(bits(&y), bits(&clamp(&expected, output)), "{what}");

                for tokens in [1, tokens] {
                    for quantize in [true, false] {
                        let mut inputs = Inputs::new(8, cols);
                        let row = |t: usize| &x[t * cols..][..cols];
                        inputs.norm(&pool, tokens, &row, &vec![1.0; cols], 1e-6, quantize);
                        let of = |w| {
                            let mut y = vec![f32::NAN; tokens * rows];
                            matmul(&pool, w, inputs.rows(), tokens, &mut y);
                            y
                        };
                        let mut y = vec![f32::NAN; tokens * rows];
                        matmul_of(&pool, m, &inputs, &mut y);
                        let mut expected = of(m);
                        assert_eq!(bits(&y), bits(&expected), "{what}");
                        gelu_tanh_mul(pool.isa(), &mut expected, &of(up));
                        let mut room = vec![f32::NAN; y.len()];
                        let before = pool.weight_bytes();
                        gelu_gated(&pool, m, up, &inputs, &mut y, &mut room);
                        assert_eq!(bits(&y), bits(&expected), "{what}");
                        let read = (m.bytes() + up.bytes()) as u64;
                        assert_eq!(pool.weight_bytes() - before, read);
                    }
                }
            }
        }
    }
}

#[test]
fn not_a_number_among_activations_shows_in_every_result_of_its_token() {
    let mut random = Random::new(75);
    let (rows, cols) = (20, 70);
    for format in ROW_SCALED {
        let w = Trained::random(&mut random, format, rows, cols);
        for roundings in roundings(cols) {
            for (at, tokens) in [(0, 1), (31, 1), (69, 1), (3, 3), (69, 6)] {
                let mut x = vec![1.0; tokens * cols];
                x[at] = f32::NAN;
                for pool in pools() {
                    let mut y = vec![0.0; tokens * rows];
                    matmul(
                        &pool,
                        Matrix::quantized(w.view(roundings)),
                        &x,
                        tokens,
                        &mut y,
                    );
                    let (first, others) = y.split_at(rows);
                    assert!(
                        first.iter().all(|y| y.is_nan()),
                        "{} {format:?}",
                        pool.isa()
                    );
                    assert!(
                        others.iter().all(|y| y.is_finite()),
                        "{} {format:?}",
                        pool.isa()
                    );
                }
            }
        }
    }
}
