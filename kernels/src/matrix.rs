//! A view of a weight matrix that lies in memory as it was stored.

use std::ops::Range;

use half::{bf16, f16};

use crate::quant::Quantized;
use crate::rows::Rows;

/// A borrowed row-major matrix `[rows, cols]`; row `r` starts at element `r * row_stride`.
///
/// `row_stride` may exceed `cols`: the first columns of a wider matrix are a matrix in place.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Number of rows: outputs of a linear layer.
    pub rows: usize,
    /// Number of columns: inputs of a linear layer.
    pub cols: usize,
    /// Elements from the start of one row to the start of the next.
    pub row_stride: usize,
    /// The elements.
    pub data: MatrixData<'a>,
}

/// The elements of a [`Matrix`], in the format in which they are stored.
#[derive(Clone, Copy, Debug)]
pub enum MatrixData<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// Brain floats: the upper half of a 32-bit float.
    Bf16(&'a [bf16]),
    /// IEEE 754 half floats.
    F16(&'a [f16]),
    /// Integers of 2, 4 or 8 bits with scales; such a matrix has no stride.
    Quantized(Quantized<'a>),
    /// The same, stored column by column: rows of the [`Quantized`] are columns of this matrix.
    QuantizedColumns(Quantized<'a>),
}

impl MatrixData<'_> {
    /// Whether the elements are integers with a scale for each group, so that the other factor is quantised group by group, too.
    pub fn is_quantized(&self) -> bool {
        match self {
            MatrixData::Quantized(data) | MatrixData::QuantizedColumns(data) => {
                data.format().has_group_scales()
            }
            _ => false,
        }
    }

    /// Whether products round what goes into them to 8 bits: group by group, or by a scale that was trained.
    pub fn rounds_inputs(&self) -> bool {
        match self {
            MatrixData::Quantized(data) | MatrixData::QuantizedColumns(data) => {
                data.format().has_group_scales() || data.roundings().input != 0.0
            }
            _ => false,
        }
    }

    fn is_float(&self) -> bool {
        !matches!(
            self,
            MatrixData::Quantized(_) | MatrixData::QuantizedColumns(_)
        )
    }

    fn len(&self) -> usize {
        match self {
            MatrixData::F32(data) => data.len(),
            MatrixData::Bf16(data) => data.len(),
            MatrixData::F16(data) => data.len(),
            MatrixData::Quantized(data) | MatrixData::QuantizedColumns(data) => {
                data.rows() * data.cols()
            }
        }
    }
}

impl<'a> Matrix<'a> {
    /// `rows x cols` elements of `data`, rows back to back.
    ///
    /// # Panics
    /// When `data` does not have `rows * cols` elements.
    pub fn new(data: MatrixData<'a>, rows: usize, cols: usize) -> Matrix<'a> {
        let matrix = Matrix {
            rows,
            cols,
            row_stride: cols,
            data,
        };
        assert_eq!(
            rows.checked_mul(cols),
            Some(data.len()),
            "a {rows} x {cols} matrix cannot have {} elements",
            data.len()
        );
        matrix
    }

    /// `rows` rows of `cols` elements that begin `row_stride` elements apart in `data`, for instance one head's columns.
    ///
    /// # Panics
    /// When rows overlap, `data` ends before the last one does, or is quantised.
    pub fn strided(
        data: MatrixData<'a>,
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Matrix<'a> {
        let fits = match rows.checked_sub(1) {
            None => true,
            Some(before) => before
                .checked_mul(row_stride)
                .and_then(|start| start.checked_add(cols))
                .is_some_and(|end| end <= data.len()),
        };
        assert!(
            cols <= row_stride && fits && data.is_float(),
            "{rows} rows of {cols}, {row_stride} apart, in {} elements",
            data.len()
        );
        Matrix {
            rows,
            cols,
            row_stride,
            data,
        }
    }

    /// A matrix of 32-bit floats.
    ///
    /// # Panics
    /// When `data` does not have `rows * cols` elements.
    pub fn f32(data: &'a [f32], rows: usize, cols: usize) -> Matrix<'a> {
        Matrix::new(MatrixData::F32(data), rows, cols)
    }

    /// A matrix of brain floats.
    ///
    /// # Panics
    /// When `data` does not have `rows * cols` elements.
    pub fn bf16(data: &'a [bf16], rows: usize, cols: usize) -> Matrix<'a> {
        Matrix::new(MatrixData::Bf16(data), rows, cols)
    }

    /// A matrix of half floats.
    ///
    /// # Panics
    /// When `data` does not have `rows * cols` elements.
    pub fn f16(data: &'a [f16], rows: usize, cols: usize) -> Matrix<'a> {
        Matrix::new(MatrixData::F16(data), rows, cols)
    }

    /// A matrix of quantised weights.
    pub fn quantized(data: Quantized<'a>) -> Matrix<'a> {
        Matrix::new(MatrixData::Quantized(data), data.rows(), data.cols())
    }

    /// A matrix of quantised weights that is stored column by column: row `j` of `data` is column `j`.
    ///
    /// # Panics
    /// When `data` is tiled, or its scales are none of groups.
    pub fn quantized_columns(data: Quantized<'a>) -> Matrix<'a> {
        assert!(!data.format().is_tiled(), "columns in tiles");
        assert!(
            data.format().has_group_scales(),
            "columns in {:?}",
            data.format()
        );
        Matrix::new(MatrixData::QuantizedColumns(data), data.cols(), data.rows())
    }

    /// The rows of a matrix of floats, of which `data` are the elements.
    pub(crate) fn float_rows<'d, E>(&self, data: &'d [E]) -> Rows<'d, E> {
        Rows {
            data,
            stride: self.row_stride,
            depth: self.cols,
        }
    }

    /// Bytes that reading every element takes.
    pub fn bytes(&self) -> usize {
        let elements = self.rows * self.cols;
        match self.data {
            MatrixData::F32(_) => 4 * elements,
            MatrixData::Bf16(_) | MatrixData::F16(_) => 2 * elements,
            MatrixData::Quantized(data) | MatrixData::QuantizedColumns(data) => data.bytes(),
        }
    }

    /// The columns of `range`, in place.
    ///
    /// # Panics
    /// When there are none such, or when the matrix is quantised row by row and the range cuts a group.
    pub fn columns(self, range: Range<usize>) -> Matrix<'a> {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "columns {range:?} of a matrix with {}",
            self.cols
        );
        let cols = range.len();
        let from = |len: usize| range.start.min(len);
        let data = match self.data {
            MatrixData::F32(data) => MatrixData::F32(&data[from(data.len())..]),
            MatrixData::Bf16(data) => MatrixData::Bf16(&data[from(data.len())..]),
            MatrixData::F16(data) => MatrixData::F16(&data[from(data.len())..]),
            MatrixData::Quantized(data) => MatrixData::Quantized(data.slice_columns(range)),
            MatrixData::QuantizedColumns(data) => {
                MatrixData::QuantizedColumns(data.slice_rows(range.start, cols))
            }
        };
        Matrix { cols, data, ..self }
    }

    /// The rows of `range`, in place.
    ///
    /// # Panics
    /// When there are fewer, when the range of a tiled matrix does not begin with a tile, or is a part of a matrix
    /// quantised column by column.
    pub fn rows(self, range: Range<usize>) -> Matrix<'a> {
        assert!(
            range.start <= range.end && range.end <= self.rows,
            "rows {range:?} of a matrix with {}",
            self.rows
        );
        let start = range.start * self.row_stride;
        let rows = range.len();
        let data = match self.data {
            MatrixData::F32(data) => MatrixData::F32(rows_of(data, start, rows, self.row_stride)),
            MatrixData::Bf16(data) => MatrixData::Bf16(rows_of(data, start, rows, self.row_stride)),
            MatrixData::F16(data) => MatrixData::F16(rows_of(data, start, rows, self.row_stride)),
            MatrixData::Quantized(data) => {
                MatrixData::Quantized(data.slice_rows(range.start, rows))
            }
            MatrixData::QuantizedColumns(_) => {
                assert_eq!(
                    rows, self.rows,
                    "rows of a matrix quantised column by column"
                );
                self.data
            }
        };
        Matrix { rows, data, ..self }
    }
}

/// From element `start` on, at most `rows` rows: the last row of a matrix may lack the padding of its stride.
fn rows_of<T>(data: &[T], start: usize, rows: usize, stride: usize) -> &[T] {
    let start = start.min(data.len());
    &data[start..data.len().min(start + rows * stride)]
}
