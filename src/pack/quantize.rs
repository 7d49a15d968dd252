//! From a source's tensors to the bytes of a pack, in pieces small enough for a board.

use std::collections::BTreeSet;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use kernels::Pool;
use kernels::quant::{GROUP, NotFinite, TILE_ROWS, store_blocks, store_rows};
use safetensors::Dtype;

use super::error::PackError;
use super::plan::{Described, Entry, Store, matrix_shape};
use super::residual;
use super::source::{Groups, Source};
use super::writer::FileWriter;
use crate::model::weights::Blocks;

/// Numbers that are in memory at once, as f32: 16 MiB.
const PIECE: usize = 4 << 20;
/// A piece is a multiple of a tile's rows, and of the columns of a super-block of any GGUF type.
const PIECE_ROWS: usize = 256;

/// How many bytes some rows become, and makes them.
type Form<'a> = (
    &'a dyn Fn(usize) -> usize,
    &'a dyn Fn(&[f32], &mut Vec<u8>) -> Result<(), NotFinite>,
);

/// Quantises or copies entries of a plan; its buffers are reused.
#[derive(Default)]
pub(super) struct Quantizer {
    piece: Vec<f32>,
    turned: Vec<f32>,
    groups: Groups,
    integers: Vec<i8>,
    bytes: Vec<u8>,
    requantised: BTreeSet<String>,
}

impl Quantizer {
    /// Writes the bytes of an entry.
    pub(super) fn write(
        &mut self,
        pool: &Pool,
        source: &mut impl Source,
        entry: &Entry,
        out: &mut FileWriter<'_, '_>,
    ) -> Result<(), PackError> {
        match &entry.store {
            Store::Quantized { blocks, first_col } => {
                self.quantize(pool, source, &entry.source, *blocks, *first_col, out)
            }
            Store::Trained(blocks) => self.take(pool, source, &entry.source, *blocks, out),
            Store::Plain(tensor) => self.copy(pool, source, &entry.source, tensor, out),
            Store::Residual(blocks) => {
                let shape = (blocks.rows, blocks.cols);
                let bytes_of = |rows| blocks.format.matrix_bytes(rows, blocks.cols).unwrap_or(0);
                let form = |left: &[f32], bytes: &mut Vec<u8>| {
                    residual::second_plane(pool, left, blocks.cols, bytes)
                };
                self.residual(pool, source, &entry.source, shape, out, (&bytes_of, &form))
            }
            Store::ResidualPeaks { rows, cols } => {
                let bytes_of = |rows| rows * residual::PEAK_BYTES as usize;
                let form = |left: &[f32], bytes: &mut Vec<u8>| {
                    narrow(&residual::peaks(pool, left, *cols), Dtype::BF16, bytes);
                    Ok(())
                };
                let shape = (*rows, *cols);
                self.residual(pool, source, &entry.source, shape, out, (&bytes_of, &form))
            }
        }
    }

    fn quantize(
        &mut self,
        pool: &Pool,
        source: &mut impl Source,
        tensor: &str,
        blocks: Blocks,
        first_col: usize,
        out: &mut FileWriter<'_, '_>,
    ) -> Result<(), PackError> {
        let (rows, cols) = blocks.stored();
        let piece_rows = piece_rows(cols);
        let described = source.describe(tensor);
        let as_it_is = described
            .is_some_and(|found| found.block_bits == Some(blocks.format.bits()))
            && !blocks.columns
            && (cols.is_multiple_of(GROUP) && first_col.is_multiple_of(GROUP));
        for first in (0..rows).step_by(piece_rows) {
            let last = rows.min(first + piece_rows);
            let bytes = blocks.format.matrix_bytes(last - first, cols).unwrap_or(0);
            if out.has(bytes) {
                continue;
            }
            if as_it_is {
                let from_cols = first_col..first_col + cols;
                if self.take_over(pool, source, tensor, first..last, from_cols, blocks)? {
                    out.write(&self.bytes)?;
                    continue;
                }
                self.requantised.insert(tensor.to_owned());
            }
            let n = (last - first) * cols;
            self.piece.resize(n, 0.0);
            let weights = if blocks.columns {
                let from_cols = first_col + first..first_col + last;
                source.read(pool, tensor, 0..cols, from_cols, &mut self.piece)?;
                self.turned.resize(n, 0.0);
                transpose(pool, &self.piece, last - first, &mut self.turned, cols);
                &self.turned
            } else {
                let from_cols = first_col..first_col + cols;
                source.read(pool, tensor, first..last, from_cols, &mut self.piece)?;
                &self.piece
            };
            self.bytes.resize(bytes, 0);
            kernels::quant::quantize(
                pool,
                blocks.format,
                weights,
                last - first,
                cols,
                &mut self.bytes,
            )
            .map_err(|mut at| {
                at.row += first;
                if blocks.columns {
                    std::mem::swap(&mut at.row, &mut at.col);
                }
                at.col += first_col;
                PackError::NotFinite {
                    path: source.path_of(tensor).to_owned(),
                    tensor: tensor.to_owned(),
                    source: at,
                }
            })?;
            out.write(&self.bytes)?;
        }
        Ok(())
    }

    /// Makes the bytes of some rows of the source's own integers and scales; false where they do not fit.
    fn take_over(
        &mut self,
        pool: &Pool,
        source: &mut impl Source,
        tensor: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        blocks: Blocks,
    ) -> Result<bool, PackError> {
        let (n, width) = (rows.len(), cols.len());
        self.groups.resize(n, width);
        let first = (rows.start, cols.start);
        if !source.read_groups(pool, tensor, rows, cols, &mut self.groups)? {
            return Ok(false);
        }
        let Groups { integers, scales } = &self.groups;
        if let Some(at) = scales.iter().position(|scale| !scale.is_finite()) {
            let in_row = width / GROUP;
            return Err(PackError::NotFinite {
                path: source.path_of(tensor).to_owned(),
                tensor: tensor.to_owned(),
                source: NotFinite {
                    row: first.0 + at / in_row,
                    col: first.1 + at % in_row * GROUP,
                },
            });
        }
        let bytes = blocks.format.matrix_bytes(n, width).unwrap_or(0);
        self.bytes.resize(bytes, 0);
        store_blocks(blocks.format, integers, scales, n, width, &mut self.bytes);
        Ok(true)
    }

    /// Tensors of which some rows could not be taken over as they are, by name.
    pub(super) fn requantised(self) -> Vec<String> {
        self.requantised.into_iter().collect()
    }

    /// Lays trained integers out, without changing any.
    fn take(
        &mut self,
        pool: &Pool,
        source: &mut impl Source,
        tensor: &str,
        Blocks {
            format, rows, cols, ..
        }: Blocks,
        out: &mut FileWriter<'_, '_>,
    ) -> Result<(), PackError> {
        let row_scales = format.row_scales(cols);
        let piece_rows = piece_rows(cols);
        for first in (0..rows).step_by(piece_rows) {
            let last = rows.min(first + piece_rows);
            let n = last - first;
            let bytes = format.matrix_bytes(n, cols).unwrap_or(0);
            if out.has(bytes) {
                continue;
            }
            self.integers.resize(n * cols, 0);
            self.piece.resize(n * row_scales, 0.0);
            let (integers, scales) = (&mut self.integers[..], &mut self.piece[..]);
            source.take(pool, tensor, first..last, integers, scales)?;
            let (integers, scales) = (&self.integers, &self.piece);
            self.bytes.resize(bytes, 0);
            // Each tile by itself.
            let unit = format.matrix_bytes(TILE_ROWS, cols).unwrap_or(0);
            pool.for_each_chunk_mut(&mut self.bytes, unit, &|at, out| {
                let rows = at * TILE_ROWS..n.min((at + 1) * TILE_ROWS);
                let integers = &integers[rows.start * cols..rows.end * cols];
                let scales = &scales[rows.start * row_scales..rows.end * row_scales];
                store_rows(format, integers, scales, rows.len(), cols, out);
            });
            out.write(&self.bytes)?;
        }
        Ok(())
    }

    /// Writes what `form` makes of the residuals of some rows, until all have had their turn.
    fn residual(
        &mut self,
        pool: &Pool,
        source: &mut impl Source,
        tensor: &str,
        (rows, cols): (usize, usize),
        out: &mut FileWriter<'_, '_>,
        (bytes_of, form): Form<'_>,
    ) -> Result<(), PackError> {
        let piece_rows = piece_rows(cols);
        for first in (0..rows).step_by(piece_rows) {
            let last = rows.min(first + piece_rows);
            if out.has(bytes_of(last - first)) {
                continue;
            }
            self.piece.resize((last - first) * cols, 0.0);
            source.read(pool, tensor, first..last, 0..cols, &mut self.piece)?;
            residual::subtract_first_plane(pool, &mut self.piece, cols, &mut self.bytes)
                .and_then(|()| form(&self.piece, &mut self.bytes))
                .map_err(|mut at| {
                    at.row += first;
                    PackError::NotFinite {
                        path: source.path_of(tensor).to_owned(),
                        tensor: tensor.to_owned(),
                        source: at,
                    }
                })?;
            out.write(&self.bytes)?;
        }
        Ok(())
    }

    /// Number by number; widening to f32 and back changes none.
    fn copy(
        &mut self,
        pool: &Pool,
        source: &mut impl Source,
        tensor: &str,
        described: &Described,
        out: &mut FileWriter<'_, '_>,
    ) -> Result<(), PackError> {
        let (rows, cols) = matrix_shape(&described.shape);
        let piece_rows = (PIECE / cols.max(1)).max(1);
        for first in (0..rows).step_by(piece_rows) {
            let last = rows.min(first + piece_rows);
            let n = (last - first) * cols;
            if out.has(n * described.dtype.bitsize() / 8) {
                continue;
            }
            self.piece.resize(n, 0.0);
            source.read(pool, tensor, first..last, 0..cols, &mut self.piece)?;
            narrow(&self.piece, described.dtype, &mut self.bytes);
            out.write(&self.bytes)?;
        }
        Ok(())
    }
}

fn piece_rows(cols: usize) -> usize {
    (PIECE / cols / PIECE_ROWS).max(1) * PIECE_ROWS
}

/// `out [cols, rows]` from `x [rows, cols]`.
fn transpose(pool: &Pool, x: &[f32], cols: usize, out: &mut [f32], rows: usize) {
    pool.for_each_row_mut(out, rows, &|col, out| {
        for (out, row) in out.iter_mut().zip(x.chunks_exact(cols)) {
            *out = row[col];
        }
    });
}

/// The little-endian bytes of `x` as BF16, F16, F32 or I32.
pub(super) fn narrow(x: &[f32], dtype: Dtype, bytes: &mut Vec<u8>) {
    bytes.clear();
    match dtype {
        Dtype::BF16 => {
            let mut narrow = vec![bf16::ZERO; x.len()];
            narrow.convert_from_f32_slice(x);
            bytes.extend_from_slice(bytemuck::cast_slice(&narrow));
        }
        Dtype::F16 => {
            let mut narrow = vec![f16::ZERO; x.len()];
            narrow.convert_from_f32_slice(x);
            bytes.extend_from_slice(bytemuck::cast_slice(&narrow));
        }
        Dtype::I32 => {
            let narrow = x.iter().flat_map(|&x| (x as i32).to_le_bytes());
            bytes.extend(narrow);
        }
        _ => bytes.extend_from_slice(bytemuck::cast_slice(x)),
    }
}
