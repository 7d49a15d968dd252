//! Quantised products on every instruction set against the scalar twin, bit by bit: the integer dots are exact and the few
//! f32 roundings are the same everywhere, so no tolerance is needed.

use crate::common::{Random, bits, isas};
use crate::quant_formats::{FORMATS, SHAPES, normal, quantized_bytes, scalar, vector};
use kernels::gelu::gelu_tanh_mul;
use kernels::matmul::{gelu_gated, matmul_of};
use kernels::quant::{Format, Q8Activations, Quantized, dequantize_row};
use kernels::quantized::matmul::matmul;
use kernels::quantized::matvec::matvec;
use kernels::quantized::matvec_rows::matvec_rows;
use kernels::quantized::{accumulate_rows, quantize_activations};
use kernels::rms_norm::rms_norm;
use kernels::{Inputs, Isa, Matrix, Pool, sparse};

/// Every pool whose results must be those of the scalar one.
fn pools() -> Vec<Pool> {
    let each = |isa: Isa| [1, 3].map(|threads| Pool::new(isa, threads));
    isas().into_iter().flat_map(each).collect()
}

#[test]
fn matvec_agrees_bit_by_bit() {
    let mut random = Random::new(4);
    for format in FORMATS {
        for (rows, cols) in SHAPES {
            let bytes =
                quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
            let w = Quantized::new(format, &bytes, rows, cols).unwrap();
            let x = vector(&mut random, cols, 3.0);
            let multiply = |pool: &Pool| {
                let (mut q, mut y) = (Q8Activations::new(), vec![f32::NAN; rows]);
                quantize_activations(pool, &x, 1, cols, &mut q);
                matvec(pool, w, &q, &mut y);
                y
            };
            let expected = multiply(&scalar());
            for pool in pools() {
                assert_eq!(
                    bits(&multiply(&pool)),
                    bits(&expected),
                    "{} {format:?} {rows}x{cols}",
                    pool.isa()
                );
            }
        }
    }
}

/// Inputs normed and quantised in one pass, once for several matrices; gate and up in one pass.
#[test]
fn what_is_done_in_one_pass_is_what_its_steps_give() {
    let mut random = Random::new(44);
    for format in FORMATS {
        for ((rows, cols), tokens) in SHAPES
            .into_iter()
            .zip([1, 2, 5, 12, 33].into_iter().cycle())
        {
            let mut matrix =
                || quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
            let (gate, up) = (matrix(), matrix());
            let [gate, up] = [&gate, &up]
                .map(|bytes| Matrix::quantized(Quantized::new(format, bytes, rows, cols).unwrap()));
            for pool in pools() {
                let (x, weight) = (
                    vector(&mut random, tokens * cols, 3.0),
                    vector(&mut random, cols, 1.0),
                );
                let row = |t: usize| &x[t * cols..(t + 1) * cols];
                let mut normed = vec![0.0; tokens * cols];
                for (t, out) in normed.chunks_exact_mut(cols.max(1)).enumerate() {
                    rms_norm(pool.isa(), row(t), Some(&weight), 1e-6, out);
                }
                let product = |w| {
                    let mut y = vec![f32::NAN; tokens * rows];
                    kernels::matmul::matmul(&pool, w, &normed, tokens, &mut y);
                    y
                };
                let mut inputs = Inputs::new(40, cols);
                for quantize in [true, false] {
                    inputs.norm(&pool, tokens, &row, &weight, 1e-6, quantize);
                    assert_eq!(bits(inputs.rows()), bits(&normed));
                    let mut y = vec![f32::NAN; tokens * rows];
                    matmul_of(&pool, gate, &inputs, &mut y);
                    assert_eq!(bits(&y), bits(&product(gate)), "{} {format:?}", pool.isa());
                }
                inputs.norm(&pool, tokens, &row, &weight, 1e-6, true);
                let mut expected = product(gate);
                gelu_tanh_mul(pool.isa(), &mut expected, &product(up));
                let (mut got, mut room) = (vec![f32::NAN; tokens * rows], vec![0.0; tokens * rows]);
                let before = pool.weight_bytes();
                gelu_gated(&pool, gate, up, &inputs, &mut got, &mut room);
                assert_eq!(bits(&got), bits(&expected), "{} {format:?}", pool.isa());
                assert!(pool.weight_bytes() > before || rows * cols == 0);
            }
        }
    }
}

/// Groups are quantised one by one, so some columns of a matrix are what they would be alone; in a tile they begin with a pair of groups.
#[test]
fn columns_of_whole_groups_are_a_matrix_of_their_own() {
    let mut random = Random::new(45);
    let (rows, cols) = (37, 170);
    for (format, columns) in FORMATS
        .into_iter()
        .flat_map(|format| {
            [0..64, 0..96, 32..96, 64..170, 160..170, 96..96].map(|range| (format, range))
        })
        .filter(|(format, range)| !format.is_tiled() || range.start % 64 == 0)
    {
        let values = vector(&mut random, rows * cols, 0.05);
        let part: Vec<f32> = values
            .chunks(cols)
            .flat_map(|row| &row[columns.clone()])
            .copied()
            .collect();
        let whole = quantized_bytes(format, &values, rows, cols);
        let alone = quantized_bytes(format, &part, rows, columns.len());
        let whole = Matrix::quantized(Quantized::new(format, &whole, rows, cols).unwrap());
        let alone = Quantized::new(format, &alone, rows, columns.len()).unwrap();
        for (pool, tokens) in pools().iter().zip([1, 5].into_iter().cycle()) {
            let x = vector(&mut random, tokens * columns.len(), 3.0);
            let product = |w| {
                let mut y = vec![f32::NAN; tokens * rows];
                kernels::matmul::matmul(pool, w, &x, tokens, &mut y);
                y
            };
            assert_eq!(
                bits(&product(whole.columns(columns.clone()))),
                bits(&product(Matrix::quantized(alone))),
                "{} {format:?} {columns:?}",
                pool.isa()
            );
        }
    }
}

/// The scalar twin itself, against f64 arithmetic on the dequantised weights.
#[test]
fn matvec_is_the_product() {
    let mut random = Random::new(5);
    for format in FORMATS {
        let (rows, cols) = (40, 500);
        let bytes = quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
        let w = Quantized::new(format, &bytes, rows, cols).unwrap();
        let x = vector(&mut random, cols, 1.0);
        let (mut q, mut y, mut weights) = (Q8Activations::new(), vec![0.0; rows], vec![0.0; cols]);
        quantize_activations(&scalar(), &x, 1, cols, &mut q);
        matvec(&scalar(), w, &q, &mut y);
        for (row, &y) in y.iter().enumerate() {
            dequantize_row(w, row, &mut weights);
            let exact: f64 = weights
                .iter()
                .zip(&x)
                .map(|(&w, &x)| f64::from(w) * f64::from(x))
                .sum();
            // An activation errs by half a step of its group's largest / 127.
            let bound: f64 = weights
                .chunks(32)
                .zip(x.chunks(32))
                .map(|(w, x)| {
                    let step = x.iter().fold(0.0f32, |m, x| m.max(x.abs())) / 127.0;
                    f64::from(step) * 0.5001 * w.iter().map(|w| f64::from(w.abs())).sum::<f64>()
                })
                .sum();
            assert!(
                (f64::from(y) - exact).abs() <= bound + 1e-5,
                "{format:?}: {y} against {exact} ± {bound}"
            );
        }
    }
}

/// The largest integers everywhere: no 16-bit sum may overflow.
#[test]
fn extremes_do_not_overflow() {
    for format in FORMATS {
        for (w, x) in [(-1.0, 1.0), (1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)] {
            let (rows, cols) = (18, 128);
            // One weight more extreme than the others makes both ends of the range appear.
            let source: Vec<f32> = (0..rows * cols)
                .map(|i| if i % 64 == 5 { -w } else { w })
                .collect();
            let bytes = quantized_bytes(format, &source, rows, cols);
            let weights = Quantized::new(format, &bytes, rows, cols).unwrap();
            for tokens in [1, 5] {
                let x = vec![x; tokens * cols];
                let multiply = |pool: &Pool| {
                    let (mut q, mut y) = (Q8Activations::new(), vec![0.0; tokens * rows]);
                    quantize_activations(pool, &x, tokens, cols, &mut q);
                    if tokens == 1 || !format.is_tiled() {
                        quantize_activations(pool, &x[..cols], 1, cols, &mut q);
                        matvec(pool, weights, &q, &mut y[..rows]);
                    } else {
                        matmul(pool, weights, &q, &mut y);
                    }
                    y
                };
                let expected = multiply(&scalar());
                for pool in pools() {
                    assert_eq!(
                        bits(&multiply(&pool)),
                        bits(&expected),
                        "{} {format:?}",
                        pool.isa()
                    );
                }
            }
        }
    }
}

#[test]
fn matmul_agrees_bit_by_bit_with_each_token_alone() {
    let mut random = Random::new(6);
    // The last are more than stay in the cache: they are taken in batches.
    let few = |shape| [2, 3, 4, 5, 6, 7, 8, 9, 17].map(|tokens| (shape, tokens));
    let many = [((17, 2088), 133), ((40, 96), 2731), ((33, 250), 2050)];
    let cases: Vec<_> = SHAPES.into_iter().flat_map(few).chain(many).collect();
    for format in [Format::Q4Tiled, Format::Q8Tiled] {
        for &((rows, cols), tokens) in &cases {
            let bytes =
                quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
            let w = Quantized::new(format, &bytes, rows, cols).unwrap();
            let x = vector(&mut random, tokens * cols, 3.0);
            let mut expected = vec![0.0; tokens * rows];
            let mut q = Q8Activations::new();
            for (x, y) in x.chunks(cols).zip(expected.chunks_mut(rows)) {
                quantize_activations(&scalar(), x, 1, cols, &mut q);
                matvec(&scalar(), w, &q, y);
            }
            for pool in pools() {
                let mut y = vec![f32::NAN; tokens * rows];
                quantize_activations(&pool, &x, tokens, cols, &mut q);
                matmul(&pool, w, &q, &mut y);
                assert_eq!(
                    bits(&y),
                    bits(&expected),
                    "{} {format:?} {rows}x{cols} {tokens} tokens",
                    pool.isa()
                );
            }
        }
    }
}

#[test]
fn picked_rows_are_those_of_the_whole_product() {
    let mut random = Random::new(7);
    for format in [Format::Q4Rows, Format::Q8Rows] {
        for (rows, cols) in SHAPES {
            let bytes =
                quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
            let w = Quantized::new(format, &bytes, rows, cols).unwrap();
            let x = vector(&mut random, cols, 3.0);
            let picked: Vec<u32> = (0..rows as u32).filter(|r| r % 3 != 1).rev().collect();
            let (mut q, mut all) = (Q8Activations::new(), vec![0.0; rows]);
            quantize_activations(&scalar(), &x, 1, cols, &mut q);
            matvec(&scalar(), w, &q, &mut all);
            let expected: Vec<f32> = picked.iter().map(|&r| all[r as usize]).collect();
            for pool in pools() {
                let mut y = vec![f32::NAN; picked.len()];
                quantize_activations(&pool, &x, 1, cols, &mut q);
                matvec_rows(&pool, w, &picked, &q, &mut y);
                assert_eq!(
                    bits(&y),
                    bits(&expected),
                    "{} {format:?} {rows}x{cols}",
                    pool.isa()
                );
            }
        }
    }
}

#[test]
fn picked_blocks_are_those_of_the_whole_product() {
    let mut random = Random::new(8);
    let (rows, cols) = (5 * 16 + 7, 200);
    let weights = vector(&mut random, rows * cols, 0.05);
    let x = vector(&mut random, cols, 2.0);
    let f16: Vec<_> = weights.iter().map(|&w| half::f16::from_f32(w)).collect();
    let bf16: Vec<_> = weights.iter().map(|&w| half::bf16::from_f32(w)).collect();
    let bytes = FORMATS.map(|format| quantized_bytes(format, &weights, rows, cols));
    let mut matrices = vec![
        Matrix::f32(&weights, rows, cols),
        Matrix::f16(&f16, rows, cols),
        Matrix::bf16(&bf16, rows, cols),
    ];
    for (format, bytes) in FORMATS.iter().zip(&bytes) {
        let w = Quantized::new(*format, bytes, rows, cols).unwrap();
        matrices.push(Matrix::quantized(w));
    }
    for pool in pools() {
        for &w in &matrices {
            let mut all = vec![f32::NAN; rows];
            kernels::matvec::matvec(&pool, w, &x, &mut all);
            for blocks in [&[][..], &[0], &[5], &[1, 2, 4], &[0, 1, 2, 3, 4, 5]] {
                let picked: Vec<f32> = blocks
                    .iter()
                    .flat_map(|&block: &u32| all.chunks(16).nth(block as usize).unwrap())
                    .copied()
                    .collect();
                let mut y = vec![f32::NAN; picked.len()];
                kernels::matvec::matvec_blocks(&pool, w, blocks, &x, &mut y);
                assert_eq!(bits(&y), bits(&picked), "{} {blocks:?}", pool.isa());
            }
        }
    }
}

#[test]
fn accumulated_rows_are_the_dequantized_sum() {
    let mut random = Random::new(8);
    for format in [Format::Q4Rows, Format::Q8Rows] {
        for (rows, cols) in SHAPES {
            let bytes =
                quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
            let w = Quantized::new(format, &bytes, rows, cols).unwrap();
            // Most neurons are silent: leaving them out must not change a bit.
            let a: Vec<f32> = (0..rows)
                .map(|i| if i % 3 == 0 { normal(&mut random) } else { 0.0 })
                .collect();
            let active: Vec<u32> = (0..rows as u32).filter(|&i| a[i as usize] != 0.0).collect();
            let factors: Vec<f32> = active.iter().map(|&i| a[i as usize]).collect();
            let start = vector(&mut random, cols, 1.0);
            let mut dense = start.clone();
            accumulate_rows(
                &scalar(),
                w,
                &(0..rows as u32).collect::<Vec<_>>(),
                &a,
                &mut dense,
            );

            let mut weights = vec![0.0; cols];
            let mut exact: Vec<f64> = start.iter().map(|&y| f64::from(y)).collect();
            for (row, &a) in a.iter().enumerate() {
                dequantize_row(w, row, &mut weights);
                exact
                    .iter_mut()
                    .zip(&weights)
                    .for_each(|(y, &w)| *y += f64::from(w) * f64::from(a));
            }
            // Two roundings a term, of sums below 10.
            assert!(
                dense
                    .iter()
                    .zip(&exact)
                    .all(|(y, e)| (f64::from(*y) - e).abs() < 1e-5 * rows as f64)
            );

            for pool in pools() {
                let mut y = start.clone();
                accumulate_rows(&pool, w, &active, &factors, &mut y);
                assert_eq!(
                    bits(&y),
                    bits(&dense),
                    "{} {format:?} {rows}x{cols}",
                    pool.isa()
                );
            }
        }
    }
}

#[test]
fn the_doors_quantize_by_themselves() {
    let mut random = Random::new(9);
    let (rows, cols) = (40, 100);
    for format in FORMATS {
        let bytes = quantized_bytes(format, &vector(&mut random, rows * cols, 0.05), rows, cols);
        let w = Quantized::new(format, &bytes, rows, cols).unwrap();
        for tokens in if format.is_tiled() { 1..4 } else { 1..2 } {
            let x = vector(&mut random, tokens * cols, 1.0);
            let (mut q, mut expected) = (Q8Activations::new(), vec![0.0; tokens * rows]);
            for (x, y) in x.chunks(cols).zip(expected.chunks_mut(rows)) {
                quantize_activations(&scalar(), x, 1, cols, &mut q);
                matvec(&scalar(), w, &q, y);
            }
            for pool in pools() {
                let mut y = vec![f32::NAN; tokens * rows];
                kernels::matmul::matmul(&pool, Matrix::quantized(w), &x, tokens, &mut y);
                assert_eq!(bits(&y), bits(&expected), "{} {format:?}", pool.isa());
                let mut y = vec![f32::NAN; rows - 16];
                let part = Matrix::quantized(w).rows(16..rows);
                kernels::matvec::matvec(&pool, part, &x[..cols], &mut y);
                assert_eq!(
                    bits(&y),
                    bits(&expected[16..rows]),
                    "{} {format:?}",
                    pool.isa()
                );
            }
        }
    }
}

#[test]
fn a_matrix_stored_by_column_is_the_transpose() {
    let mut random = Random::new(10);
    let (neurons, features) = (50, 100);
    for format in [Format::Q4Rows, Format::Q8Rows] {
        let source = vector(&mut random, neurons * features, 0.05);
        let bytes = quantized_bytes(format, &source, neurons, features);
        let stored = Quantized::new(format, &bytes, neurons, features).unwrap();
        let w = Matrix::quantized_columns(stored).columns(0..40);
        assert_eq!((w.rows, w.cols), (features, 40));
        let a = vector(&mut random, 3 * 40, 1.0);
        let mut expected = vec![0.0; 3 * features];
        for (a, y) in a.chunks(40).zip(expected.chunks_mut(features)) {
            let rows: Vec<u32> = (0..40).collect();
            accumulate_rows(&scalar(), stored, &rows, a, y);
        }
        for pool in pools() {
            let mut y = vec![f32::NAN; 3 * features];
            kernels::matmul::matmul(&pool, w, &a, 3, &mut y);
            assert_eq!(bits(&y), bits(&expected));
            kernels::matvec::matvec(&pool, w, &a[..40], &mut y[..features]);
            assert_eq!(bits(&y), bits(&expected));
            let picked = [7, 3, 39];
            let values = picked.map(|i| a[i as usize]);
            let mut few = vec![0.0; features];
            accumulate_rows(&pool, stored, &picked, &values, &mut few);
            sparse::matvec_columns(&pool, w, &picked, &values, &mut y[..features]);
            assert_eq!(bits(&y[..features]), bits(&few));
        }
    }
}

#[test]
fn not_a_number_among_activations_shows_in_every_result() {
    let (rows, cols) = (20, 70);
    let source = vector(&mut Random::new(11), rows * cols, 1.0);
    for format in FORMATS {
        let bytes = quantized_bytes(format, &source, rows, cols);
        let w = Quantized::new(format, &bytes, rows, cols).unwrap();
        for at in [0, 31, 40, 69] {
            let mut x = vec![1.0; cols];
            x[at] = f32::NAN;
            for pool in pools() {
                let mut y = vec![0.0; rows];
                kernels::matvec::matvec(&pool, Matrix::quantized(w), &x, &mut y);
                assert!(y.iter().all(|y| y.is_nan()), "{} {format:?}", pool.isa());
            }
        }
    }
}
