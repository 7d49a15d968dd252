//! Trained integers with one scale a row, or for some columns of it: what is laid out comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use half::f16;
use kernels::quant::{Format, Quantized, Roundings, dequantize_row, store_blocks, store_rows};
use kernels::{Isa, Matrix, widen};

use crate::common::{Random, bits};
use crate::quant_formats::SHAPES;

pub(crate) const ROW_SCALED: [Format; 3] = [
    Format::Q2RowScaled,
    Format::Q4RowScaled,
    Format::Q8RowScaled,
];
/// Of whole groups, of half a group and of neither.
pub(crate) const LAYER_SCALED: [Format; 4] = [
    Format::Q2LayerScaled { width: 256 },
    Format::Q4LayerScaled { width: 256 },
    Format::Q4LayerScaled { width: 16 },
    Format::Q2LayerScaled { width: 24 },
];

/// A matrix as it was trained, and as it is stored.
pub(crate) struct Trained {
    pub(crate) format: Format,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) integers: Vec<i8>,
    pub(crate) scales: Vec<f32>,
    pub(crate) bytes: Vec<u8>,
}

impl Trained {
    pub(crate) fn random(random: &mut Random, format: Format, rows: usize, cols: usize) -> Trained {
        let (least, most) = format.range();
        let count = f32::from(i16::from(most) - i16::from(least) + 1);
        let integer = |x: f32| (f32::from(least) + ((x + 1.0) / 2.0 * count).floor()) as i8;
        let integers = random.floats(rows * cols, 1.0).into_iter();
        let integers = integers.map(|x| integer(x).clamp(least, most)).collect();
        let scales = random.floats(rows * format.row_scales(cols), 0.01);
        Trained::new(format, rows, cols, integers, scales)
    }

    pub(crate) fn new(
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

    pub(crate) fn view(&self, roundings: Roundings) -> Quantized<'_> {
        let view = Quantized::new(self.format, &self.bytes, self.rows, self.cols).unwrap();
        view.with_roundings(roundings)
    }

    pub(crate) fn integers(&self, row: usize) -> &[i8] {
        &self.integers[row * self.cols..][..self.cols]
    }

    pub(crate) fn weight(&self, row: usize, col: usize) -> f32 {
        let row_scales = self.format.row_scales(self.cols);
        let scale = match self.format {
            Format::Q2LayerScaled { width } | Format::Q4LayerScaled { width } => {
                col / width as usize
            }
            _ => 0,
        };
        f32::from(self.integers(row)[col]) * self.scales[row * row_scales + scale]
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
        .chain(LAYER_SCALED.map(|format| (format, 768..1000)))
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
            let scales = format.row_scales(cols) * 32 / cols.max(1);
            assert!(cols < 1000 || bits_a_weight <= format.bits() + scales);
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
    let w = Trained::new(LAYER_SCALED[1], 1, 2, vec![1, 2], vec![1.0]);
    w.view(Roundings {
        input: 0.5,
        output: 0.0,
    });
}

/// Products of wider ones would not fit 32 bits.
#[test]
fn a_row_scaled_matrix_has_at_most_65536_columns() {
    for format in ROW_SCALED {
        assert!(format.matrix_bytes(16, 1 << 16).is_some());
        assert_eq!(format.matrix_bytes(16, (1 << 16) + 1), None);
    }
}
