//! Integers with one scale a row, or for 256 columns, on every instruction set against a naive product of the numbers that were
//! stored: sums of integers are exact and the few roundings after them are told, so the bits must be the same.

use half::f16;
use kernels::gelu::gelu_tanh_mul;
use kernels::matmul::{clipped_matmul, gelu_gated, matmul, matmul_of};
use kernels::quant::{
    Format, LAYER, Quantized, Roundings, dequantize_row, store_blocks, store_rows,
};
use kernels::{Bounds, Clip, Inputs, Isa, Matrix, Pool, matvec, widen};

use crate::common::{Random, isas};
use crate::quant_formats::{SHAPES, scalar, vector};

const ROW_SCALED: [Format; 3] = [
    Format::Q2RowScaled,
    Format::Q4RowScaled,
    Format::Q8RowScaled,
];
const LAYER_SCALED: [Format; 2] = [Format::Q2LayerScaled, Format::Q4LayerScaled];

/// A matrix as it was trained, and as it is stored.
struct Trained {
    format: Format,
    rows: usize,
    cols: usize,
    integers: Vec<i8>,
    scales: Vec<f32>,
    bytes: Vec<u8>,
}

impl Trained {
    fn random(random: &mut Random, format: Format, rows: usize, cols: usize) -> Trained {
        let (least, most) = format.range();
        let count = f32::from(i16::from(most) - i16::from(least) + 1);
        let integer = |x: f32| (f32::from(least) + ((x + 1.0) / 2.0 * count).floor()) as i8;
        let integers = random.floats(rows * cols, 1.0).into_iter();
        let integers = integers.map(|x| integer(x).clamp(least, most)).collect();
        let scales = random.floats(rows * format.row_scales(cols), 0.01);
        Trained::new(format, rows, cols, integers, scales)
    }

    fn new(
        format: Format,
        rows: usize,
        cols: usize,
        integers: Vec<i8>,
        scales: Vec<f32>,
    ) -> Trained {
        let mut bytes = vec![0xa5; format.matrix_bytes(rows, cols).unwrap()];
        store_rows(format, &integers, &scales, rows, cols, &mut bytes);
        Trained {
            format,
            rows,
            cols,
            integers,
            scales,
            bytes,
        }
    }

    fn view(&self, roundings: Roundings) -> Quantized<'_> {
        let view = Quantized::new(self.format, &self.bytes, self.rows, self.cols).unwrap();
        view.with_roundings(roundings)
    }

    fn integers(&self, row: usize) -> &[i8] {
        &self.integers[row * self.cols..][..self.cols]
    }

    fn weight(&self, row: usize, col: usize) -> f32 {
        let row_scales = self.format.row_scales(self.cols);
        let scale = if row_scales == 1 { 0 } else { col / LAYER };
        f32::from(self.integers(row)[col]) * self.scales[row * row_scales + scale]
    }

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

fn bits(y: &[f32]) -> Vec<u32> {
    y.iter().map(|y| y.to_bits()).collect()
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
        .zip([1, 2, 5, 1, 4, 9, 1, 17].into_iter().cycle());
    // More columns than a block, more tokens than a batch.
    let many = [
        ((20, 12288), 1),
        ((20, 6200), 60),
        ((33, 96), 700),
        ((100, 2080), 3),
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
            for tokens in [1, 5] {
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

/// Columns of whole groups are a matrix of their own; of a layer-scaled one, columns of whole layers.
#[test]
fn some_columns_are_a_matrix() {
    let mut random = Random::new(74);
    let (rows, cols) = (20, 1000);
    for (format, columns) in ROW_SCALED
        .map(|format| (format, 32..800))
        .into_iter()
        .chain(LAYER_SCALED.map(|format| (format, 256..1000)))
    {
        let w = Trained::random(&mut random, format, rows, cols);
        let part = Matrix::quantized(w.view(Roundings::default())).columns(columns.clone());
        let mut out = vec![0.0; columns.len()];
        for row in 0..rows {
            widen::row(Isa::best(), part, row, &mut out);
            let expected: Vec<f32> = columns.clone().map(|col| w.weight(row, col)).collect();
            assert_eq!(out, expected, "{format:?}");
        }
        assert!(part.bytes() < w.bytes.len());
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

#[test]
fn what_was_trained_comes_back_exactly() {
    let mut random = Random::new(76);
    for format in ROW_SCALED.into_iter().chain(LAYER_SCALED) {
        for (rows, cols) in SHAPES.into_iter().chain([(3, 8960)]) {
            let w = Trained::random(&mut random, format, rows, cols);
            let mut out = vec![0.0; cols];
            for row in 0..rows {
                dequantize_row(w.view(Roundings::default()), row, &mut out);
                let expected: Vec<f32> = (0..cols).map(|col| w.weight(row, col)).collect();
                assert_eq!(bits(&out), bits(&expected), "{format:?} {rows}x{cols}");
            }
            let bits_a_weight = 8 * w.bytes.len() / (rows.next_multiple_of(16) * cols).max(1);
            assert!(cols < 1000 || bits_a_weight <= format.bits());
        }
    }
}

/// Integers and scales come back as they were.
#[test]
fn groups_of_integers_come_back_exactly() {
    let mut random = Random::new(77);
    for format in [
        Format::Q4Tiled,
        Format::Q8Tiled,
        Format::Q4Rows,
        Format::Q8Rows,
    ] {
        for (rows, cols) in SHAPES {
            let (least, most) = format.range();
            let groups = cols.div_ceil(32);
            let scales: Vec<f16> = (0..rows * groups)
                .map(|i| f16::from_f32(0.5 + (i % 7) as f32))
                .collect();
            let integers: Vec<i8> = random
                .floats(rows * cols, 1.0)
                .into_iter()
                .map(|x| (x * 128.0).clamp(f32::from(least), f32::from(most)) as i8)
                .collect();
            let mut bytes = vec![0xa5; format.matrix_bytes(rows, cols).unwrap()];
            store_blocks(format, &integers, &scales, rows, cols, &mut bytes);
            let w = Quantized::new(format, &bytes, rows, cols).unwrap();
            let mut out = vec![0.0; cols];
            for row in 0..rows {
                dequantize_row(w, row, &mut out);
                for (col, out) in out.iter().enumerate() {
                    let scale = scales[row * groups + col / 32].to_f32();
                    assert_eq!(*out, f32::from(integers[row * cols + col]) * scale);
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "does not fit Q2RowScaled")]
fn an_integer_too_large_for_its_format_is_refused() {
    Trained::new(Format::Q2RowScaled, 1, 2, vec![1, 2], vec![1.0]);
}

#[test]
#[should_panic(expected = "roundings of a matrix in Q4LayerScaled")]
fn only_matrices_scaled_by_row_round() {
    let w = Trained::new(Format::Q4LayerScaled, 1, 2, vec![1, 2], vec![1.0]);
    w.view(roundings(1)[0]);
}
