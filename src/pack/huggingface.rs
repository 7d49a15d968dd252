//! Tensors of a checkpoint in the published layout.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use kernels::quant::GROUP;
use kernels::{Isa, Matrix, MatrixData, Pool};
use safetensors::Dtype;

use super::error::PackError;
use super::plan::{Described, matrix_shape};
use super::source::{Fetch, Groups, Located, Location, Source};
use super::trained;
use crate::model::tensor_table::{Role, TextTensor};
use crate::model::weights::mobile::{self, ACTIVATION_SCALES, scale_of};
use crate::model::weights::{Checkpoint, Group, Mapped, TensorInfo, columns};

/// A group is unmapped, and its pages given back, whenever this much of it was read: the table of per-layer embeddings alone
/// is larger than a board's memory.
const MAPPED_READ_BYTES: u64 = 64 << 20;

/// The token embeddings.
const EMBEDDINGS: &str = "model.language_model.embed_tokens.weight";

/// A checkpoint whose tensors are read a rectangle at a time.
pub(super) struct HuggingFace {
    checkpoint: Checkpoint,
    mapped: Option<Arc<Mapped>>,
    read_bytes: u64,
    /// Matrices that consist of blocks of Q4_0 by what was seen of them.
    trained: HashSet<String>,
}

/// Rows of a matrix by which it is told whether it was trained in blocks.
const SAMPLE_ROWS: usize = 4;

impl HuggingFace {
    pub(super) fn open(dir: &Path) -> Result<HuggingFace, PackError> {
        HuggingFace::of(Checkpoint::open_source(dir)?)
    }

    /// A drafter's.
    pub(super) fn open_drafter(dir: &Path) -> Result<HuggingFace, PackError> {
        HuggingFace::of(Checkpoint::open_drafter(dir)?)
    }

    fn of(checkpoint: Checkpoint) -> Result<HuggingFace, PackError> {
        if checkpoint.pack().is_some() {
            return Err(PackError::AlreadyPacked {
                path: checkpoint.dir().to_owned(),
            });
        }
        Ok(HuggingFace {
            checkpoint,
            mapped: None,
            read_bytes: 0,
            trained: HashSet::new(),
        })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        self.checkpoint.dir()
    }

    /// Finds out whether the text model was trained in blocks of Q4_0: all matrices of its layers, and perhaps others.
    pub(super) fn find_trained(&mut self, tensors: &[TextTensor]) -> Result<bool, PackError> {
        self.find_trained_of(tensors.iter(), &mut |_| Ok(()))
    }

    /// The same where every look is a request: all layers are taken for what the first one is. A matrix that is none after all is
    /// quantised, as one of a whole checkpoint is of which a row was overlooked.
    pub(super) fn find_trained_by_one_layer(
        &mut self,
        tensors: &[TextTensor],
        fetch: &mut Fetch<'_>,
    ) -> Result<bool, PackError> {
        let of_one = |tensor: &&TextTensor| tensor.layer.is_none_or(|layer| layer == 0);
        if !self.find_trained_of(tensors.iter().filter(of_one), fetch)? {
            return Ok(false);
        }
        for tensor in tensors {
            let layer = tensor.layer.unwrap_or(0);
            let of_layer = format!(".layers.{layer}.");
            if self
                .trained
                .contains(&tensor.name.replacen(&of_layer, ".layers.0.", 1))
            {
                self.trained.insert(tensor.name.clone());
            }
        }
        Ok(true)
    }

    fn find_trained_of<'a>(
        &mut self,
        tensors: impl Iterator<Item = &'a TextTensor> + Clone,
        fetch: &mut Fetch<'_>,
    ) -> Result<bool, PackError> {
        if self.is_mobile() {
            return Ok(false);
        }
        let mut trained = HashSet::new();
        // The layers first: most checkpoints are known by one matrix.
        for of_layers in [true, false] {
            let matrices = tensors.clone().filter(|tensor| {
                let role = tensor.matrix.map(|(role, _)| role);
                role.is_some()
                    && of_layers == matches!(role, Some(Role::Attention | Role::FeedForward))
            });
            for tensor in matrices {
                if self.is_trained(&tensor.name, fetch)? {
                    trained.insert(tensor.name.clone());
                } else if of_layers {
                    return Ok(false);
                }
            }
        }
        self.trained = trained;
        Ok(true)
    }

    /// A few rows tell: others' groups are on the grid by a chance of none.
    fn is_trained(&mut self, name: &str, fetch: &mut Fetch<'_>) -> Result<bool, PackError> {
        let Some((rows, cols)) = self.info(name).map(|info| matrix_shape(&info.shape)) else {
            return Ok(false);
        };
        if rows == 0 || cols == 0 || !cols.is_multiple_of(GROUP) {
            return Ok(false);
        }
        let mut weights = vec![0.0; cols];
        for row in (0..rows).step_by(rows.div_ceil(SAMPLE_ROWS)) {
            self.locate(name, row..row + 1)
                .iter()
                .try_for_each(&mut *fetch)?;
            let data = self.rows(name, 4 * cols as u64)?;
            data.read(Isa::scalar(), row, 0..cols, &mut weights);
            if !trained::are_trained(&weights) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The numbers of a tensor, of which so many bytes are about to be read.
    fn rows(&mut self, name: &str, read_bytes: u64) -> Result<Rows<'_>, PackError> {
        let missing = || PackError::Missing {
            path: self.checkpoint.dir().to_owned(),
            tensor: name.to_owned(),
        };
        let info = self.info(name).ok_or_else(missing)?;
        let (shape, group) = (info.shape.clone(), info.group.ok_or_else(missing)?);
        let mapped = self.mapped(group, read_bytes)?;
        let first_dimension = shape.first().copied().unwrap_or(1);
        let handle = mapped.matrix(name, first_dimension, columns(&shape))?;
        Ok(Rows {
            data: mapped.view(handle).data,
            row_len: matrix_shape(&shape).1,
        })
    }

    /// Whether its weights are integers that were trained.
    pub(super) fn is_mobile(&self) -> bool {
        self.checkpoint.is_mobile()
    }

    /// Whether the head has other integers or scales than the token embeddings.
    pub(super) fn has_second_head(&mut self, fetch: &mut Fetch<'_>) -> Result<bool, PackError> {
        let head = format!("{}.weight", mobile::HEAD);
        let both = [self.locate_all(EMBEDDINGS), self.locate_second_head()];
        both.iter().flatten().try_for_each(fetch)?;
        for (one, other) in [
            (EMBEDDINGS.to_owned(), head.clone()),
            (scale_of(EMBEDDINGS), scale_of(&head)),
        ] {
            let mapped = self.mapped(Group::Text, 0)?;
            // What is missing is told where the tensors are looked up.
            let [one, other] = [one, other].map(|name| mapped.bytes(&name));
            if other.is_some() && one != other {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the head is that may have other integers.
    pub(super) fn locate_second_head(&self) -> Vec<Location> {
        self.locate_all(&format!("{}.weight", mobile::HEAD))
    }

    fn locate_all(&self, name: &str) -> Vec<Location> {
        let rows = self
            .info(name)
            .map_or(0, |info| matrix_shape(&info.shape).0);
        self.locate(name, 0..rows)
    }

    /// Looks at every number that activations are rounded to.
    ///
    /// # Errors
    /// One of them is no such number.
    pub(super) fn check_roundings(&mut self) -> Result<(), PackError> {
        let names: Vec<String> = (self.checkpoint.tensors())
            .map(|info| info.name.clone())
            .collect();
        for group in [Group::Text, Group::Audio, Group::Vision] {
            let own = names.iter().filter(|name| Group::of(name) == Some(group));
            let layers = own.filter_map(|name| name.strip_suffix(ACTIVATION_SCALES[0]));
            for layer in layers {
                self.mapped(group, 0)?.roundings(layer)?;
            }
        }
        Ok(())
    }

    /// The integers of a tensor; `None` where there is no such tensor.
    pub(super) fn integers(&mut self, name: &str) -> Result<Option<Vec<i64>>, PackError> {
        let Some((dtype, group)) = self.info(name).map(|info| (info.dtype, info.group)) else {
            return Ok(None);
        };
        if dtype != Dtype::I64 {
            return Err(PackError::Unexpected {
                path: self.path().to_owned(),
                tensor: name.to_owned(),
                reason: format!("has type {dtype:?} instead of I64"),
            });
        }
        let mapped = self.mapped(group.unwrap_or(Group::Drafter), 0)?;
        let bytes = mapped.bytes(name).unwrap_or_default();
        let integers = bytes.as_chunks().0.iter();
        Ok(Some(
            integers.map(|&bytes| i64::from_le_bytes(bytes)).collect(),
        ))
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

/// A tensor as it is mapped.
struct Rows<'a> {
    data: MatrixData<'a>,
    row_len: usize,
}

impl Rows<'_> {
    /// Widens a part of a row.
    fn read(&self, isa: Isa, row: usize, cols: Range<usize>, out: &mut [f32]) {
        let start = row * self.row_len + cols.start;
        let range = start..start + cols.len();
        let row = match self.data {
            MatrixData::F32(x) => Matrix::f32(&x[range], 1, cols.len()),
            MatrixData::Bf16(x) => Matrix::bf16(&x[range], 1, cols.len()),
            MatrixData::F16(x) => Matrix::f16(&x[range], 1, cols.len()),
            MatrixData::Quantized(_) | MatrixData::QuantizedColumns(_) => {
                unreachable!("a pack was refused as a source")
            }
        };
        kernels::widen::row(isa, row, 0, out);
    }
}

fn described(info: &TensorInfo) -> Described {
    Described {
        shape: info.shape.clone(),
        dtype: info.dtype,
        block_bits: None,
    }
}

impl Located for HuggingFace {
    fn locate(&self, name: &str, rows: Range<usize>) -> Vec<Location> {
        // The scales of trained integers are those of their rows.
        let names = [name.to_owned(), scale_of(name)];
        let infos = names.iter().filter_map(|name| self.info(name));
        let located = infos.map(|info| {
            let (of, path) = (matrix_shape(&info.shape).0, self.checkpoint.path(info));
            Location::of_rows(path, info.place(), of, rows.clone())
        });
        located.collect()
    }

    fn look_at(
        &mut self,
        _pool: &Pool,
        name: &str,
        fetch: &mut Fetch<'_>,
    ) -> Result<(), PackError> {
        let [input, output] = ACTIVATION_SCALES;
        let (Some(layer), Some(group)) = (name.strip_suffix(input), Group::of(name)) else {
            return Ok(());
        };
        let both = self.locate(&format!("{layer}{output}"), 0..1);
        both.iter().try_for_each(&mut *fetch)?;
        self.mapped(group, 0)?.roundings(layer)?;
        Ok(())
    }
}

impl Source for HuggingFace {
    fn path_of(&self, _name: &str) -> &Path {
        self.checkpoint.dir()
    }

    fn describe(&self, name: &str) -> Option<Described> {
        self.info(name).map(|info| Described {
            block_bits: self.trained.contains(name).then_some(4),
            ..described(info)
        })
    }

    fn read(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), PackError> {
        let element_bytes = match self.info(name) {
            Some(info) if info.dtype == Dtype::F32 => 4,
            _ => 2,
        };
        let data = self.rows(name, (out.len() * element_bytes) as u64)?;
        pool.for_each_row_mut(out, cols.len(), &|row, out| {
            data.read(pool.isa(), rows.start + row, cols.clone(), out);
        });
        Ok(())
    }

    fn read_groups(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        cols: Range<usize>,
        groups: &mut Groups,
    ) -> Result<bool, PackError> {
        let mut weights = vec![0.0; rows.len() * cols.len()];
        self.read(pool, name, rows, cols, &mut weights)?;
        let (weights, integers) = (
            weights.as_chunks::<GROUP>().0,
            groups.integers.as_chunks_mut::<GROUP>().0,
        );
        for ((weights, integers), scale) in weights.iter().zip(integers).zip(&mut groups.scales) {
            (*integers, *scale) = trained::q4_0(weights);
            if !trained::says(integers, *scale, weights) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take(
        &mut self,
        pool: &Pool,
        name: &str,
        rows: Range<usize>,
        integers: &mut [i8],
        scales: &mut [f32],
    ) -> Result<(), PackError> {
        let scale = scale_of(name);
        let parts = 0..scales.len() / rows.len();
        self.read(pool, &scale, rows.clone(), parts.clone(), scales)?;
        let row_of = |at: usize| rows.start + at / parts.len();
        // The largest weight, of 8 bits, is to be a number, too.
        let fits = |&scale: &f32| scale > 0.0 && (scale * 128.0).is_finite();
        if let Some(at) = scales.iter().position(|scale| !fits(scale)) {
            return Err(PackError::Scale {
                path: self.checkpoint.dir().to_owned(),
                tensor: scale,
                row: row_of(at),
                value: scales[at],
            });
        }
        let missing = || PackError::Missing {
            path: self.checkpoint.dir().to_owned(),
            tensor: name.to_owned(),
        };
        let info = self.info(name).ok_or_else(missing)?;
        let (dtype, row_bytes) = (info.dtype, columns(&info.shape));
        let group = info.group.ok_or_else(missing)?;
        let cols = integers.len() / rows.len();
        let bits = mobile::bits(dtype, row_bytes, cols).ok_or_else(missing)?;
        let mapped = self.mapped(group, (rows.len() * row_bytes) as u64)?;
        let bytes = mapped.bytes(name).unwrap_or_default();
        let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
        pool.for_each_row_mut(integers, cols, &|row, integers| {
            unpack(bits, &bytes[row * row_bytes..][..row_bytes], integers);
        });
        Ok(())
    }
}

/// Integers of some bits, the first in the lowest bits of its byte, stored with half of their range added; those of 8 with a sign.
///
/// Source: `src/model/gemma4/mobile.md` section 1.2.
fn unpack(bits: usize, bytes: &[u8], integers: &mut [i8]) {
    let sign = if bits == 8 { 0 } else { 1 << (bits - 1) };
    let mask = u8::MAX >> (8 - bits);
    for (integers, &byte) in integers.chunks_mut(8 / bits).zip(bytes) {
        for (place, q) in integers.iter_mut().enumerate() {
            *q = (byte >> (place * bits) & mask).cast_signed() - sign;
        }
    }
}
