//! Tensors of a checkpoint in the published layout.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use kernels::{Matrix, MatrixData, Pool};
use safetensors::Dtype;

use super::error::PackError;
use super::plan::{Described, matrix_shape};
use super::quantize::Source;
use crate::model::weights::{Checkpoint, Group, Mapped, TensorInfo, columns};

/// A group is unmapped, and its pages given back, whenever this much of it was read: the table of per-layer embeddings alone
/// is larger than a board's memory.
const MAPPED_READ_BYTES: u64 = 256 << 20;

/// A checkpoint whose tensors are read a rectangle at a time.
pub(super) struct HuggingFace {
    checkpoint: Checkpoint,
    mapped: Option<Arc<Mapped>>,
    read_bytes: u64,
}

impl HuggingFace {
    pub(super) fn open(dir: &Path) -> Result<HuggingFace, PackError> {
        let checkpoint = Checkpoint::open(dir)?;
        if checkpoint.pack().is_some() {
            return Err(PackError::AlreadyPacked {
                path: dir.to_owned(),
            });
        }
        Ok(HuggingFace {
            checkpoint,
            mapped: None,
            read_bytes: 0,
        })
    }

    /// Every tensor of a group.
    pub(super) fn tensors(&self, group: Group) -> Vec<(String, Described)> {
        self.checkpoint
            .tensors()
            .filter(|info| info.group == Some(group))
            .map(|info| (info.name.clone(), described(info)))
            .collect()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.checkpoint.tensors().find(|info| info.name == name)
    }

    /// The group mapped, anew where much of it was read.
    fn mapped(&mut self, group: Group, read_bytes: u64) -> Result<&Mapped, PackError> {
        self.read_bytes += read_bytes;
        let stale =
            |mapped: &Mapped| mapped.group() != group || self.read_bytes > MAPPED_READ_BYTES;
        let mapped = match self.mapped.take() {
            Some(mapped) if !stale(&mapped) => mapped,
            old => {
                // First the old pages go, then new ones come.
                drop(old);
                self.read_bytes = read_bytes;
                self.checkpoint.load(group)?
            }
        };
        Ok(self.mapped.insert(mapped))
    }
}

fn described(info: &TensorInfo) -> Described {
    Described {
        shape: info.shape.clone(),
        dtype: info.dtype,
    }
}

impl Source for HuggingFace {
    fn path(&self) -> &Path {
        self.checkpoint.dir()
    }

    fn describe(&self, name: &str) -> Option<Described> {
        self.info(name).map(described)
    }

    fn read(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        let missing = || PackError::Missing {
            path: self.checkpoint.dir().to_owned(),
            tensor: name.to_owned(),
        };
        let info = self.info(name).ok_or_else(missing)?;
        let (shape, group) = (info.shape.clone(), info.group.ok_or_else(missing)?);
        let element_bytes = if info.dtype == Dtype::F32 { 4 } else { 2 };
        let mapped = self.mapped(group, (out.len() * element_bytes) as u64)?;
        let first_dimension = shape.first().copied().unwrap_or(1);
        let handle = mapped.matrix(name, first_dimension, columns(&shape))?;
        let data = mapped.view(handle).data;
        let row_len = matrix_shape(&shape).1;
        pool.for_each_row_mut(out, cols.len(), &|row, out| {
            let start = (rows.start + row) * row_len + cols.start;
            let range = start..start + cols.len();
            let row = match data {
                MatrixData::F32(x) => Matrix::f32(&x[range], 1, cols.len()),
                MatrixData::Bf16(x) => Matrix::bf16(&x[range], 1, cols.len()),
                MatrixData::F16(x) => Matrix::f16(&x[range], 1, cols.len()),
                MatrixData::Quantized(_) | MatrixData::QuantizedColumns(_) => {
                    unreachable!("a pack was refused as a source")
                }
            };
            kernels::widen::row(pool.isa(), row, 0, out);
        });
        Ok(())
    }
}
