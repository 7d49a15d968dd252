//! Matrix products on every instruction set against the scalar reference.

use crate::common::{Random, assert_close, assert_same, isas, pools};
use half::{bf16, f16};
use kernels::matmul::{matmul, matmul_in_any_order};
use kernels::{Matrix, MatrixData, Pool, matvec::matvec, widen};

/// A matrix in each stored format, rows `stride` apart.
struct Stored {
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    f16: Vec<f16>,
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Stored {
    fn random(random: &mut Random, rows: usize, cols: usize, stride: usize) -> Stored {
        let f32 = random.floats(rows * stride, 1.0);
        let bf16 = f32.iter().map(|&x| bf16::from_f32(x)).collect();
        let f16 = f32.iter().map(|&x| f16::from_f32(x)).collect();
        Stored {
            f32,
            bf16,
            f16,
            rows,
            cols,
            stride,
        }
    }

    /// The numbers of each view.
    fn wide(&self) -> [Vec<f32>; 3] {
        [
            self.f32.clone(),
            self.bf16.iter().map(|x| x.to_f32()).collect(),
            self.f16.iter().map(|x| x.to_f32()).collect(),
        ]
    }

    fn views(&self) -> [Matrix<'_>; 3] {
        [
            MatrixData::F32(&self.f32),
            MatrixData::Bf16(&self.bf16),
            MatrixData::F16(&self.f16),
        ]
        .map(|data| Matrix::strided(data, self.rows, self.cols, self.stride))
    }
}

/// Sums are compared with sums in double precision. A sum of n products in single precision, each at most 1 in size, spread
/// over lanes, is off by at most about n/LANES roundings of a partial sum that random signs keep near sqrt(n/3): 2e-6 *
/// sqrt(n) is generous, and any wrong, missing or doubled element is off by far more.
fn tolerance(cols: usize) -> f32 {
    2e-6 * (cols as f32).sqrt()
}

/// The reference is near the exact product, every instruction set gives the reference's bits, and a token those it gives
/// alone; in any order it is the same to rounding.
fn check(scalar: &Pool, pools: &[Pool], stored: &Stored, x: &[f32], tokens: usize) {
    for (w, wide) in stored.views().into_iter().zip(stored.wide()) {
        let what = format!("{}x{} by {tokens}", w.rows, w.cols);
        let exact: Vec<f32> = (0..tokens * w.rows)
            .map(|i| {
                let x = &x[i / w.rows * w.cols..][..w.cols];
                let w = &wide[i % w.rows * stored.stride..][..w.cols];
                let products = w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                products.sum::<f64>() as f32
            })
            .collect();
        let mut reference = vec![f32::NAN; tokens * w.rows];
        matmul(scalar, w, x, tokens, &mut reference);
        assert_close(&what, &reference, &exact, 0.0, tolerance(w.cols));
        for pool in pools {
            let what = format!("{} {what}", pool.isa());
            let mut y = vec![f32::NAN; tokens * w.rows];
            matmul(pool, w, x, tokens, &mut y);
            assert_same(&what, &y, &reference);
            matmul_in_any_order(pool, w, x, tokens, &mut y);
            assert_close(&what, &y, &reference, 0.0, tolerance(w.cols));
            for (t, reference) in reference.chunks(w.rows.max(1)).enumerate().take(3) {
                let mut y = vec![f32::NAN; w.rows];
                matvec(pool, w, &x[t * w.cols..][..w.cols], &mut y);
                assert_same(&what, &y, reference);
            }
        }
    }
}

#[test]
fn the_reference_multiplies() {
    let pool = Pool::new(kernels::Isa::scalar(), 1);
    let w = Matrix::f32(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3);
    let mut y = [0.0; 2];
    matvec(&pool, w, &[1.0, 10.0, 100.0], &mut y);
    assert_eq!(y, [321.0, 654.0]);
    let mut y = [0.0; 4];
    matmul(&pool, w, &[1.0, 10.0, 100.0, 1.0, 0.0, -1.0], 2, &mut y);
    assert_eq!(y, [321.0, 654.0, -2.0, -2.0]);
}

#[test]
fn every_tail_of_columns_and_rows() {
    let (scalar, pools) = pools();
    let mut random = Random::new(1);
    for cols in 0..=70 {
        for (rows, tokens) in [(1, 1), (5, 1), (7, 2), (4, 3), (9, 5), (3, 13)] {
            let stored = Stored::random(&mut random, rows, cols, cols + 3);
            check(
                &scalar,
                &pools,
                &stored,
                &random.floats(tokens * cols, 1.0),
                tokens,
            );
        }
    }
    for rows in 0..=35 {
        for tokens in [0, 1, 2, 4, 7, 11, 12, 31] {
            let stored = Stored::random(&mut random, rows, 33, 33);
            check(
                &scalar,
                &pools,
                &stored,
                &random.floats(tokens * 33, 1.0),
                tokens,
            );
        }
    }
}

#[test]
fn real_sizes() {
    let (scalar, pools) = pools();
    let mut random = Random::new(2);
    // One task, several tasks, several blocks of columns, several tiles of tokens.
    for (rows, cols, tokens) in [
        (64, 2048, 1),
        (300, 2048, 1),
        (300, 1100, 3),
        (270, 1100, 40),
        (140, 600, 170),
        (20, 64, 520),
    ] {
        let stored = Stored::random(&mut random, rows, cols, cols);
        check(
            &scalar,
            &pools,
            &stored,
            &random.floats(tokens * cols, 1.0),
            tokens,
        );
    }
}

#[test]
fn part_of_a_matrix_is_a_matrix() {
    let (scalar, pools) = pools();
    let mut random = Random::new(3);
    let stored = Stored::random(&mut random, 20, 100, 100);
    let x = random.floats(60, 1.0);
    for w in stored.views() {
        let part = w.columns(0..60).rows(5..17);
        assert_eq!((part.rows, part.cols, part.row_stride), (12, 60, 100));
        let mut whole = vec![0.0; 20];
        matvec(&scalar, w.columns(0..60), &x, &mut whole);
        for pool in &pools {
            let mut y = vec![0.0; 12];
            matvec(pool, part, &x, &mut y);
            assert_same("rows 5..17", &y, &whole[5..17]);
        }
    }
}

#[test]
fn not_a_number_stays_in_its_row() {
    let (_, pools) = pools();
    for pool in &pools {
        for cols in [5, 64, 67] {
            let mut w = vec![1.0; 6 * cols];
            w[2 * cols + cols - 1] = f32::NAN;
            w[4 * cols] = f32::INFINITY;
            for tokens in [1, 3, 16] {
                let mut y = vec![0.0; tokens * 6];
                matmul(
                    pool,
                    Matrix::f32(&w, 6, cols),
                    &vec![1.0; tokens * cols],
                    tokens,
                    &mut y,
                );
                let n = cols as f32;
                for y in y.chunks(6) {
                    assert_close(
                        pool.isa().name(),
                        y,
                        &[n, n, f32::NAN, n, f32::INFINITY, n],
                        0.0,
                        0.0,
                    );
                }
            }
        }
    }
}

/// Widening is exact and rounding is defined to the bit, so these are equal, not close.
#[test]
fn all_halves_widen_and_round() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let f16s: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
    let bf16s: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
    for isa in isas() {
        for len in (0..=70).chain([65536]) {
            let mut wide = vec![0.0; len];
            widen::row(isa, Matrix::f16(&f16s[65536 - len..], 1, len), 0, &mut wide);
            let expected: Vec<f32> = f16s[65536 - len..].iter().map(|x| x.to_f32()).collect();
            assert_close(isa.name(), &wide, &expected, 0.0, 0.0);
            let mut back = vec![f16::ZERO; len];
            widen::to_f16(isa, &wide, &mut back);
            for (back, f16) in back.iter().zip(&f16s[65536 - len..]) {
                assert!(
                    back.to_bits() == f16.to_bits() || (back.is_nan() && f16.is_nan()),
                    "{back} {f16}"
                );
            }
            widen::row(
                isa,
                Matrix::bf16(&bf16s[65536 - len..], 1, len),
                0,
                &mut wide,
            );
            let expected: Vec<f32> = bf16s[65536 - len..].iter().map(|x| x.to_f32()).collect();
            assert_close(isa.name(), &wide, &expected, 0.0, 0.0);
        }
        let between = [
            1.0 + 1.0 / 2048.0,
            1.0 + 3.0 / 2048.0,
            65519.0,
            65520.0,
            -1e30,
            2.9e-8,
            3.0e-8,
            1e-40,
        ];
        let mut rounded = [f16::ZERO; 8];
        widen::to_f16(isa, &between, &mut rounded);
        assert_eq!(rounded, between.map(f16::from_f32), "{isa}");
    }
}
