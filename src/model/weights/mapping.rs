//! The one place that maps weights: a group's byte ranges, read-only, used in place, given back when dropped.
#![allow(unsafe_code, reason = "memory maps and the advice given about them")]

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use kernels::quant::{Roundings, TILE_ROWS, dequantize_row};
use kernels::{Matrix, MatrixData};
use memmap2::{Mmap, MmapOptions};

use super::error::io;
use super::kind::{Kind, blocks_of, element_bytes, float_matrix, quantized_matrix};
use super::mobile::layer_of;
use super::tensor_info::{TensorInfo, columns};
use super::{Group, WeightsError};

/// Maps a whole file, to read its header.
pub(super) fn map_whole(file: &File, path: &Path) -> Result<Mmap, WeightsError> {
    // SAFETY: the mapping is read-only, private to this call's caller and dropped after the header is parsed; weight
    // files are replaced by rename, not rewritten in place (documented with the model directory), so the bytes stay.
    unsafe { Mmap::map(file) }.map_err(io("map", path))
}

/// A contiguous range of one file, mapped.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) start: u64,
    pub(super) map: Mmap,
}

/// A matrix in a [`Mapped`] group: a handle, valid only with the group that gave it.
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    run: usize,
    offset: usize,
    /// Rows: the first dimension.
    pub rows: usize,
    /// Columns: the product of the other dimensions.
    pub cols: usize,
    kind: Kind,
    roundings: Roundings,
}

impl Tensor {
    /// The same matrix, with roundings of what goes in and comes out where its format has such.
    pub(in crate::model) fn rounding(self, roundings: Roundings) -> Tensor {
        match self.kind.rounds() {
            true => Tensor { roundings, ..self },
            false => self,
        }
    }

    /// Whether its first columns are a matrix, whatever their number.
    pub fn has_any_columns(&self) -> bool {
        self.stored_by_column() || matches!(self.kind, Kind::Float(_))
    }

    /// Whether its first `rows` rows are a matrix: whole tiles, or rows that stand alone.
    pub fn has_rows(&self, rows: usize) -> bool {
        match self.kind {
            Kind::Quantized(blocks) if blocks.format.is_tiled() => {
                rows == self.rows || rows.is_multiple_of(TILE_ROWS)
            }
            _ => true,
        }
    }

    /// Whether it is stored number by number.
    pub fn is_float(&self) -> bool {
        matches!(self.kind, Kind::Float(_))
    }

    /// Whether single columns can be read without reading the others.
    pub fn stored_by_column(&self) -> bool {
        matches!(self.kind, Kind::Quantized(blocks) if blocks.columns)
    }
}

/// A matrix whose rows are read from its file instead of being mapped.
#[derive(Debug)]
pub(super) struct StoredRows {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// First byte of row 0.
    pub(super) start: u64,
    pub(super) row_bytes: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) kind: Kind,
}

/// A stretch of a [`Mapped`] group.
#[derive(Clone, Debug)]
pub struct Stretch {
    pub(super) run: usize,
    pub(super) range: Range<usize>,
}

impl Stretch {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.range.len() as u64
    }
}

#[derive(Debug)]
struct Entry {
    run: usize,
    offset: usize,
    info: TensorInfo,
    path: PathBuf,
}

/// The mapped weights of one group. Dropping it unmaps them and lets the kernel drop their pages, unless they are to stay
/// ([`Mapped::keep_cached`]).
#[derive(Debug)]
pub struct Mapped {
    dir: PathBuf,
    group: Group,
    pub(super) runs: Vec<Run>,
    table: HashMap<String, Entry>,
    pub(super) stays: AtomicBool,
}

/// Neighbouring tensors closer than this are mapped together: one mapping costs a system call and a page table walk.
const MERGE_GAP_BYTES: u64 = 4096;

/// Maps tensors of the `group`, which lie in these files of the checkpoint in `dir`.
pub(super) fn map(
    dir: &Path,
    group: Group,
    tensors: &[&TensorInfo],
    files: &[PathBuf],
    handles: &[File],
) -> Result<Mapped, WeightsError> {
    let mut sorted: Vec<&TensorInfo> = tensors.to_vec();
    sorted.sort_by_key(|info| (info.file, info.start));
    let mut runs: Vec<Run> = Vec::new();
    let mut table = HashMap::with_capacity(sorted.len());
    let mut i = 0;
    while i < sorted.len() {
        let first = sorted[i];
        let mut end = first.start + first.bytes;
        let mut j = i + 1;
        while j < sorted.len()
            && sorted[j].file == first.file
            && sorted[j].start <= end + MERGE_GAP_BYTES
        {
            end = end.max(sorted[j].start + sorted[j].bytes);
            j += 1;
        }
        let (path, file) = (&files[first.file], &handles[first.file]);
        let run = map_run(path, file, first.start, end)?;
        for info in &sorted[i..j] {
            let entry = Entry {
                run: runs.len(),
                offset: (info.start - first.start) as usize,
                info: (*info).clone(),
                path: path.to_owned(),
            };
            table.insert(info.name.clone(), entry);
        }
        runs.push(run);
        i = j;
    }
    Ok(Mapped {
        dir: dir.to_owned(),
        group,
        runs,
        table,
        stays: AtomicBool::new(false),
    })
}

fn map_run(path: &Path, file: &File, start: u64, end: u64) -> Result<Run, WeightsError> {
    let file = file.try_clone().map_err(io("open", path))?;
    let size = file.metadata().map_err(io("read", path))?.len();
    if size < end {
        return Err(WeightsError::Header {
            path: path.to_owned(),
            reason: format!("it shrank to {size} bytes since it was opened, {end} are needed"),
        });
    }
    // SAFETY: read-only; the range lies within the file (checked above); weight files are replaced by rename, never
    // truncated in place while the daemon runs (documented with the model directory).
    let map = unsafe {
        MmapOptions::new()
            .offset(start)
            .len((end - start) as usize)
            .map(&file)
    }
    .map_err(io("map", path))?;
    Ok(Run {
        file,
        path: path.to_owned(),
        start,
        map,
    })
}

impl Mapped {
    /// The group that is mapped.
    pub fn group(&self) -> Group {
        self.group
    }

    /// Columns of a matrix as its header gives them; `None` where there is no such tensor.
    pub fn cols(&self, name: &str) -> Option<usize> {
        self.table.get(name).map(|entry| columns(&entry.info.shape))
    }

    /// Whether the group has a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    fn entry(&self, name: &str) -> Result<&Entry, WeightsError> {
        self.table.get(name).ok_or_else(|| WeightsError::Missing {
            tensor: name.to_owned(),
            dir: self.dir.clone(),
        })
    }

    /// The handle of a matrix of `rows × cols`; further dimensions are counted as columns, so a convolution weight
    /// `[out, in, kh, kw]` is a matrix of `out × (in·kh·kw)`.
    ///
    /// # Errors
    /// The tensor is missing, or has another shape, an unsupported type, or a misaligned start.
    pub fn matrix(&self, name: &str, rows: usize, cols: usize) -> Result<Tensor, WeightsError> {
        let entry = self.entry(name)?;
        let info = &entry.info;
        // A shape with a 0 in it may hold any other numbers.
        let found_cols = info
            .shape
            .iter()
            .skip(1)
            .try_fold(1usize, |product, &n| product.checked_mul(n));
        // A single number without dimensions is a matrix of one row and column.
        let found_rows = info.shape.first().copied().unwrap_or(1);
        if found_rows != rows || found_cols != Some(cols) {
            return Err(WeightsError::Shape {
                path: entry.path.clone(),
                tensor: name.to_owned(),
                expected: format!("[{rows}, {cols}]"),
                found: info.shape.clone(),
            });
        }
        if let Some(blocks) = info.blocks {
            let tensor = Tensor {
                run: entry.run,
                offset: entry.offset,
                rows,
                cols,
                kind: Kind::Quantized(blocks),
                roundings: Roundings::default(),
            };
            return Ok(tensor.rounding(self.roundings(layer_of(name))?));
        }
        let size = element_bytes(info.dtype).ok_or_else(|| WeightsError::Dtype {
            path: entry.path.clone(),
            tensor: name.to_owned(),
            found: format!("{:?}", info.dtype),
        })?;
        if !info.start.is_multiple_of(size) {
            return Err(WeightsError::Misaligned {
                path: entry.path.clone(),
                tensor: name.to_owned(),
                offset: info.start,
            });
        }
        Ok(Tensor {
            run: entry.run,
            offset: entry.offset,
            rows,
            cols,
            kind: Kind::Float(info.dtype),
            roundings: Roundings::default(),
        })
    }

    /// What is said of a tensor whose numbers are none that it may hold; `reason` continues a sentence that begins with its name.
    pub fn unusable(&self, name: &str, reason: String) -> WeightsError {
        let path = self.table.get(name).map_or(&self.dir, |entry| &entry.path);
        WeightsError::Unusable {
            path: path.clone(),
            tensor: name.to_owned(),
            reason,
        }
    }

    /// The matrix behind a handle, in place.
    ///
    /// # Panics
    /// If the handle came from another group (a programming error).
    pub fn view(&self, tensor: Tensor) -> Matrix<'_> {
        let bytes = &self.runs[tensor.run].map[tensor.offset..];
        // `matrix` admitted only these kinds, the header check their sizes. An address has the same remainder by page as
        // its offset in the file, of which `matrix` saw that it is a multiple of the element size: the casts cannot fail.
        match tensor.kind {
            Kind::Float(dtype) => float_matrix(dtype, bytes, tensor.rows, tensor.cols),
            Kind::Quantized(blocks) => {
                let (rows, cols) = blocks.stored();
                quantized_matrix(blocks, tensor.roundings, bytes, rows, cols)
            }
        }
    }

    /// The bytes of a tensor as they are stored; `None` where there is no such tensor.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let Stretch { run, range } = self.stretch(name)?;
        self.runs[run].map.get(range)
    }

    /// Where the bytes of a tensor lie; `None` where there is no such tensor.
    pub(super) fn stretch(&self, name: &str) -> Option<Stretch> {
        let entry = self.table.get(name)?;
        Some(Stretch {
            run: entry.run,
            range: entry.offset..entry.offset + entry.info.bytes as usize,
        })
    }

    /// The bytes behind the first `units` rows of a matrix, or columns where it is stored by column; `None` where those bytes
    /// do not lie together.
    pub fn behind(&self, tensor: Tensor, units: usize) -> Option<Stretch> {
        let (all, bytes) = match tensor.kind {
            Kind::Float(dtype) => {
                let row_bytes = tensor.cols * element_bytes(dtype)? as usize;
                (tensor.rows, tensor.rows * row_bytes)
            }
            Kind::Quantized(blocks) => (blocks.stored().0, blocks.bytes()?),
        };
        let used = blocks_of(tensor.kind, bytes, units.min(all), all);
        (used < bytes).then(|| Stretch {
            run: tensor.run,
            range: tensor.offset + used..tensor.offset + bytes,
        })
    }

    /// Where the rows of a matrix lie in their file, so that they can be read one by one.
    ///
    /// # Errors
    /// The file cannot be opened once more, or a row's bytes do not lie together.
    pub(super) fn stored_rows(
        &self,
        name: &str,
        tensor: Tensor,
    ) -> Result<StoredRows, WeightsError> {
        let run = &self.runs[tensor.run];
        let row_bytes = tensor
            .kind
            .row_bytes(tensor.cols)
            .ok_or_else(|| WeightsError::Pack {
                path: run.path.clone(),
                reason: format!("tensor {name} is not stored row by row"),
            })?;
        let file = run.file.try_clone().map_err(|source| WeightsError::Io {
            action: "open",
            path: run.path.clone(),
            source,
        })?;
        Ok(StoredRows {
            file,
            path: run.path.clone(),
            start: run.start + tensor.offset as u64,
            row_bytes,
            rows: tensor.rows,
            cols: tensor.cols,
            kind: tensor.kind,
        })
    }

    /// A small tensor of `len` elements of any shape, copied and widened to f32; in a pack it may be stored in blocks, by column.
    ///
    /// # Errors
    /// As [`Mapped::matrix`].
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        let entry = self.entry(name)?;
        if entry.info.elements() != len as u64 {
            return Err(WeightsError::Shape {
                path: entry.path.clone(),
                tensor: name.to_owned(),
                expected: format!("{len} elements"),
                found: entry.info.shape.clone(),
            });
        }
        let rows = entry.info.shape.first().copied().unwrap_or(1);
        let cols = columns(&entry.info.shape);
        let handle = self.matrix(name, rows, cols)?;
        match self.view(handle).data {
            MatrixData::F32(data) => Ok(data.to_vec()),
            MatrixData::F16(data) => Ok(data.iter().map(|x| x.to_f32()).collect()),
            MatrixData::Bf16(data) => Ok(data.iter().map(|x| x.to_f32()).collect()),
            MatrixData::QuantizedColumns(blocks) => {
                let (mut wide, mut column) = (vec![0.0; len], vec![0.0; rows]);
                for col in 0..cols {
                    dequantize_row(blocks, col, &mut column);
                    let wide = wide.iter_mut().skip(col).step_by(cols);
                    wide.zip(&column).for_each(|(wide, x)| *wide = *x);
                }
                Ok(wide)
            }
            MatrixData::Quantized(_) => Err(WeightsError::Dtype {
                path: entry.path.clone(),
                tensor: name.to_owned(),
                found: "quantised blocks, by row".to_owned(),
            }),
        }
    }
}
