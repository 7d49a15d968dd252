//! The quantised formats: error against its bound, exactness, and what the ways in and out promise.

use kernels::quant::{Format, NotFinite, Quantized, dequantize_row, quantize};
use kernels::{Isa, Pool};

use crate::common::Random;

pub(crate) const FORMATS: [Format; 4] = [
    Format::Q4Tiled,
    Format::Q8Tiled,
    Format::Q4Rows,
    Format::Q8Rows,
];

/// Tails of every kind: fewer rows than a tile, fewer columns than a group, more groups than a matmul's block.
pub(crate) const SHAPES: [(usize, usize); 12] = [
    (1, 8),
    (5, 1),
    (16, 32),
    (17, 64),
    (40, 96),
    (31, 128),
    (64, 160),
    (33, 250),
    (16, 2048),
    (7, 1056),
    (48, 1100),
    (130, 31),
];

/// Nearly normal numbers of the given spread, one in a hundred ten times as large.
pub(crate) fn vector(random: &mut Random, len: usize, spread: f32) -> Vec<f32> {
    (0..len)
        .map(|_| {
            normal(random)
                * if random.float() > 0.98 {
                    10.0 * spread
                } else {
                    spread
                }
        })
        .collect()
}

/// Nearly normal, of variance one.
pub(crate) fn normal(random: &mut Random) -> f32 {
    (0..3).map(|_| random.float()).sum()
}

pub(crate) fn scalar() -> Pool {
    Pool::new(Isa::scalar(), 1)
}

pub(crate) fn quantized_bytes(format: Format, source: &[f32], rows: usize, cols: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; format.matrix_bytes(rows, cols).expect("a small matrix")];
    quantize(&scalar(), format, source, rows, cols, &mut bytes).expect("finite weights");
    bytes
}

#[test]
fn the_error_of_a_group_is_within_its_bound() {
    let mut random = Random::new(1);
    for format in FORMATS {
        for (rows, cols) in SHAPES {
            let source = vector(&mut random, rows * cols, 0.05);
            let bytes = quantized_bytes(format, &source, rows, cols);
            let w = Quantized::new(format, &bytes, rows, cols).unwrap();
            let mut out = vec![0.0; cols];
            for row in 0..rows {
                dequantize_row(w, row, &mut out);
                for (x, y) in source[row * cols..][..cols].chunks(32).zip(out.chunks(32)) {
                    let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                    let step = largest / if format.bits() == 4 { 8.0 } else { 127.0 };
                    // Rounding to the nearest step errs by half a step at most, save that the end of the range that is one
                    // short (+7) may err by a whole one; least squares can only lower the sum. Rounding the scale to f16
                    // (2^-11) moves a weight by at most 128 · 2^-11 steps more.
                    let worst = if format.bits() == 4 { 1.0 } else { 0.5 + 0.07 };
                    let rms = (x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f32>()
                        / x.len() as f32)
                        .sqrt();
                    assert!(
                        rms <= step * worst + 1e-7,
                        "{format:?} {rows}x{cols}: rms {rms}, step {step}"
                    );
                }
            }
        }
    }
}

/// Mean squared error over the mean square, of normal weights at 4 and 8 bit.
#[test]
fn least_squares_beats_the_scale_of_the_maximum() {
    let mut random = Random::new(2);
    let (rows, cols) = (64, 512);
    let source: Vec<f32> = (0..rows * cols).map(|_| normal(&mut random)).collect();
    let error = |format: Format| {
        let bytes = quantized_bytes(format, &source, rows, cols);
        let w = Quantized::new(format, &bytes, rows, cols).unwrap();
        let mut out = vec![0.0; cols];
        let mut sum = 0.0;
        for row in 0..rows {
            dequantize_row(w, row, &mut out);
            sum += source[row * cols..][..cols]
                .iter()
                .zip(&out)
                .map(|(x, y)| f64::from(x - y).powi(2))
                .sum::<f64>();
        }
        sum / source.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()
    };
    // As llama.cpp's Q4_0 does it: the largest weight is −8, and the rest follows.
    let by_maximum = |x: &[f32]| {
        let peak = x
            .iter()
            .fold(0.0f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        x.iter()
            .map(|&x| {
                f64::from(x - (x / (peak / -8.0)).round().clamp(-8.0, 7.0) * (peak / -8.0)).powi(2)
            })
            .sum::<f64>()
    };
    let maximum = source.chunks(32).map(by_maximum).sum::<f64>()
        / source.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let (q4, q8) = (error(Format::Q4Tiled), error(Format::Q8Tiled));
    println!("relative squared error: q4 {q4:.3e} (by the maximum {maximum:.3e}), q8 {q8:.3e}");
    assert!(q4 < 0.9 * maximum, "{q4} against {maximum}");
    assert!(q8 < 4e-5, "{q8}");
    assert_eq!(q4, error(Format::Q4Rows));
    assert_eq!(q8, error(Format::Q8Rows));
}

#[test]
fn what_is_representable_comes_back_exactly() {
    for format in FORMATS {
        let integers: Vec<f32> = (0..64 * 64).map(|i| (i * 7 % 16) as f32 - 8.0).collect();
        let scale = if format.bits() == 4 {
            0.25
        } else {
            0.25 * 127.0 / 8.0
        };
        let source: Vec<f32> = integers
            .iter()
            .map(|q| {
                if format.bits() == 4 {
                    q * scale
                } else {
                    (q * 127.0 / 8.0).trunc() * 0.25
                }
            })
            .collect();
        let bytes = quantized_bytes(format, &source, 64, 64);
        let w = Quantized::new(format, &bytes, 64, 64).unwrap();
        let mut out = vec![0.0; 64];
        for row in 0..64 {
            dequantize_row(w, row, &mut out);
            assert_eq!(out, source[row * 64..][..64], "{format:?}");
        }
    }
}

#[test]
fn pieces_of_a_matrix_are_the_whole_of_it() {
    let mut random = Random::new(3);
    let (rows, cols) = (70, 100);
    let source = vector(&mut random, rows * cols, 1.0);
    for format in FORMATS {
        let whole = quantized_bytes(format, &source, rows, cols);
        let mut pieces = quantized_bytes(format, &source[..32 * cols], 32, cols);
        pieces.extend(quantized_bytes(
            format,
            &source[32 * cols..],
            rows - 32,
            cols,
        ));
        assert_eq!(whole, pieces, "{format:?}");
        let mut threaded = vec![0; whole.len()];
        quantize(
            &Pool::new(Isa::best(), 3),
            format,
            &source,
            rows,
            cols,
            &mut threaded,
        )
        .unwrap();
        assert_eq!(whole, threaded, "{format:?}");

        let w = Quantized::new(format, &whole, rows, cols)
            .unwrap()
            .slice_rows(32, 20);
        let (mut part, mut all) = (vec![0.0; cols], vec![0.0; cols]);
        for row in 0..20 {
            dequantize_row(w, row, &mut part);
            dequantize_row(
                Quantized::new(format, &whole, rows, cols).unwrap(),
                32 + row,
                &mut all,
            );
            assert_eq!(part, all);
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let mut source = vec![0.5; 40 * 33];
    source[21 * 33 + 32] = f32::NAN;
    source[30 * 33] = f32::INFINITY;
    for format in FORMATS {
        let mut bytes = vec![0; format.matrix_bytes(40, 33).unwrap()];
        let error = quantize(
            &Pool::new(Isa::best(), 2),
            format,
            &source,
            40,
            33,
            &mut bytes,
        );
        assert_eq!(error, Err(NotFinite { row: 21, col: 32 }));
    }
}

#[test]
fn wrong_lengths_are_no_matrix() {
    for format in FORMATS {
        let bytes = vec![0; format.matrix_bytes(20, 40).unwrap()];
        assert!(Quantized::new(format, &bytes, 20, 40).is_some());
        assert!(Quantized::new(format, &bytes[1..], 20, 40).is_none());
        assert!(Quantized::new(format, &bytes, usize::MAX, usize::MAX).is_none());
    }
}
