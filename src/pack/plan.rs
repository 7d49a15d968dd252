//! What a pack holds: every tensor of every file, before the first byte is written.
//!
//! The text tensors follow from the hyper-parameters alone ([`Architecture::text_tensors`]), so that a source that lacks one is refused
//! at once. They stand in the order in which a token meets them.

use std::path::Path;

use safetensors::Dtype;

use super::error::PackError;
use super::recipe::{Arrangement, Recipe};
use super::residual;
use crate::model::architecture::Architecture;
use crate::model::decoder::Slices;
use crate::model::tensor_table::{Access, EncoderTensor, Role, TextTensor};
use crate::model::weights::{Blocks, Group, HEAD_RESIDUAL, HEAD_RESIDUAL_PEAKS, columns};

/// A slice may end where a group of quantised weights ends.
const CUT: usize = kernels::quant::GROUP;

/// A tensor as a source has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Described {
    pub(super) shape: Vec<usize>,
    /// BF16, F16 or F32: what it is stored as where it is not quantised. U8 or I8: integers that were trained, packed row by row.
    pub(super) dtype: Dtype,
    /// Bits of an integer, where the source consists of groups of 32 with a scale in f16.
    pub(super) block_bits: Option<usize>,
}

/// One tensor of a pack.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its name in the pack.
    pub(super) name: String,
    /// The canonical name of the tensor that it is a part of.
    pub(super) source: String,
    pub(super) store: Store,
}

/// How a tensor is stored.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// Quantised: all rows of the source up to `blocks.rows`, `blocks.cols` columns from `first_col` on.
    Quantized { blocks: Blocks, first_col: usize },
    /// Integers and scales as the source has them ([`super::mobile`]).
    Trained(Blocks),
    /// Number by number, as in the source.
    Plain(Described),
    /// The second plane: what the first one leaves of the source, quantised.
    Residual(Blocks),
    /// How far the second plane reaches, a BF16 for each of `rows` ([`residual::peaks`]).
    ResidualPeaks { rows: usize, cols: usize },
}

impl Entry {
    /// Bytes in the file; `None` where that does not fit.
    pub(super) fn bytes(&self) -> Option<u64> {
        match &self.store {
            Store::Quantized { blocks, .. } | Store::Trained(blocks) | Store::Residual(blocks) => {
                blocks.bytes().map(|bytes| bytes as u64)
            }
            Store::ResidualPeaks { rows, .. } => (*rows as u64).checked_mul(residual::PEAK_BYTES),
            Store::Plain(tensor) => tensor
                .shape
                .iter()
                .try_fold(tensor.dtype.bitsize() as u64 / 8, |bytes, &n| {
                    bytes.checked_mul(n as u64)
                }),
        }
    }
}

/// One file of a pack.
#[derive(Clone, Debug)]
pub(super) struct FilePlan {
    pub(super) group: Group,
    pub(super) entries: Vec<Entry>,
}

/// The matrix that a tensor is: rows, and columns of all further dimensions; a vector is one row.
pub(super) fn matrix_shape(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [n] => (1, *n),
        [rows, ..] => (*rows, columns(shape)),
    }
}

/// Looks a tensor up by canonical name; a source without tensors of its own makes one of the shape that is asked for.
pub(super) type Describe<'a> = dyn Fn(&str, &[usize]) -> Option<Described> + 'a;

/// Lays out the text and PLE files.
pub(super) fn text(
    tensors: &[TextTensor],
    recipe: Recipe,
    slices: &Slices,
    source: &Path,
    describe: &Describe<'_>,
) -> Result<[FilePlan; 2], PackError> {
    let mut plan = Planner {
        recipe,
        source,
        describe,
        entries: Vec::new(),
    };
    for tensor in tensors {
        plan.tensor(tensor, slices)?;
    }
    let of_group = |group: Group| {
        let own = plan.entries.iter();
        own.filter(|entry| Group::of(&entry.source) == Some(group))
            .cloned()
            .collect::<Vec<Entry>>()
    };
    let (mut text, ple) = (of_group(Group::Text), of_group(Group::Ple));
    for head in tensors.iter().filter(|tensor| tensor.is_head()) {
        let found = describe(&head.name, &head.shape);
        if recipe.splits_head(found.and_then(|found| found.block_bits)) {
            second_plane(head, &mut text);
        }
    }
    Ok([
        FilePlan {
            group: Group::Text,
            entries: text,
        },
        FilePlan {
            group: Group::Ple,
            entries: ple,
        },
    ])
}

/// Lays out the file of a drafter. A guess reads a hundredth of what a token does, so that nothing is won with fewer than 8 bits.
pub(super) fn drafter(
    tensors: &[TextTensor],
    recipe: Recipe,
    slices: &Slices,
    source: &Path,
    describe: &Describe<'_>,
) -> Result<FilePlan, PackError> {
    let mut plan = Planner {
        recipe: match recipe {
            Recipe::Float => Recipe::Float,
            _ => Recipe::Q8,
        },
        source,
        describe,
        entries: Vec::new(),
    };
    for tensor in tensors {
        plan.tensor(tensor, slices)?;
    }
    Ok(FilePlan {
        group: Group::Drafter,
        entries: plan.entries,
    })
}

/// The second plane of a matrix that is planned already, last of the file: it is not mapped with the others.
fn second_plane(head: &TextTensor, entries: &mut Vec<Entry>) {
    let (rows, cols) = matrix_shape(&head.shape);
    entries.push(Entry {
        name: HEAD_RESIDUAL_PEAKS.to_owned(),
        source: head.name.clone(),
        store: Store::ResidualPeaks { rows, cols },
    });
    let blocks = Blocks {
        format: residual::SECOND_PLANE,
        columns: false,
        rows,
        cols,
    };
    entries.push(Entry {
        name: HEAD_RESIDUAL.to_owned(),
        source: head.name.clone(),
        store: Store::Residual(blocks),
    });
}

/// Lays out an encoder's file: in the order of the source, its matrices and depthwise convolutions quantised.
///
/// Depthwise convolutions are stored tap by tap, so that what shares a scale are one tap's neighbouring channels: a trained filter's
/// rim is far smaller than its centre. On the demo model's vision encoder that leaves 0.4 % of the root mean square, a scale for each
/// channel 0.9 %, and nothing is padded where channels are whole groups.
pub(super) fn encoder(
    group: Group,
    recipe: Recipe,
    architecture: &dyn Architecture,
    tensors: impl Iterator<Item = (String, Described)>,
) -> FilePlan {
    let entries = tensors
        .map(|(name, tensor)| {
            let (arrangement, columns) = match architecture.encoder_tensor(&name) {
                EncoderTensor::Matrix => (Some(Arrangement::Tiled), false),
                EncoderTensor::Depthwise => (Some(Arrangement::Rows), true),
                EncoderTensor::Numbers | EncoderTensor::Rows => (None, false),
            };
            let format = arrangement.and_then(|arrangement| {
                recipe.format(Role::Encoder, arrangement, tensor.block_bits)
            });
            let store = match format {
                Some(format) => {
                    let (rows, cols) = matrix_shape(&tensor.shape);
                    let blocks = Blocks {
                        format,
                        columns,
                        rows,
                        cols,
                    };
                    Store::Quantized {
                        blocks,
                        first_col: 0,
                    }
                }
                None => Store::Plain(tensor),
            };
            Entry {
                source: name.clone(),
                name,
                store,
            }
        })
        .collect();
    FilePlan { group, entries }
}

/// The widths at which the feed-forward network of a layer of `full` neurons is cut, ascending; the last is the full one.
fn cuts(full: usize, slices: &Slices, layer: usize) -> Result<Vec<usize>, PackError> {
    let mut cuts = vec![full];
    for slice in slices.iter() {
        let Some(width) = slice.width(layer).filter(|&width| width < full) else {
            continue;
        };
        if !width.is_multiple_of(CUT) {
            return Err(PackError::SliceWidth {
                slice: slice.name.clone(),
                layer,
                width,
            });
        }
        cuts.push(width);
    }
    cuts.sort_unstable();
    cuts.dedup();
    Ok(cuts)
}

struct Planner<'a> {
    recipe: Recipe,
    source: &'a Path,
    describe: &'a Describe<'a>,
    entries: Vec<Entry>,
}

impl Planner<'_> {
    /// Finds a tensor in the source and checks its shape; the embedding tables may have more rows than are packed.
    fn look_up(
        &self,
        name: &str,
        shape: &[usize],
        more_rows: bool,
    ) -> Result<Described, PackError> {
        let found = (self.describe)(name, shape).ok_or_else(|| PackError::Missing {
            path: self.source.to_owned(),
            tensor: name.to_owned(),
        })?;
        let fits = if more_rows {
            found.shape.len() == shape.len()
                && found.shape[0] >= shape[0]
                && found.shape[1..] == shape[1..]
        } else {
            found.shape == shape
        };
        if fits {
            Ok(found)
        } else {
            Err(PackError::Shape {
                path: self.source.to_owned(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: found.shape,
            })
        }
    }

    fn tensor(&mut self, tensor: &TextTensor, slices: &Slices) -> Result<(), PackError> {
        let Some((role, access)) = tensor.matrix else {
            let found = self.look_up(&tensor.name, &tensor.shape, false)?;
            self.entries.push(Entry {
                source: tensor.name.clone(),
                name: tensor.name.clone(),
                store: Store::Plain(found),
            });
            return Ok(());
        };
        let (rows, cols) = matrix_shape(&tensor.shape);
        let is_table = matches!(role, Role::Head | Role::PleTable);
        let found = self.look_up(&tensor.name, &tensor.shape, is_table)?;
        let arrangement = match access {
            Access::Whole | Access::LeadingColumns => Arrangement::Tiled,
            Access::Rows | Access::Columns => Arrangement::Rows,
        };
        let Some(format) = self.recipe.format(role, arrangement, found.block_bits) else {
            self.entries.push(Entry {
                source: tensor.name.clone(),
                name: tensor.name.clone(),
                store: Store::Plain(Described {
                    shape: tensor.shape.clone(),
                    ..found
                }),
            });
            return Ok(());
        };
        let cuts = match (access, tensor.layer) {
            (Access::LeadingColumns, Some(layer)) => cuts(cols, slices, layer)?,
            _ => vec![cols],
        };
        // Segments of columns that end at the cuts: each is a matrix of its own, so that a slice reads only its own.
        let mut first_col = 0;
        for (segment, &end) in cuts.iter().enumerate() {
            let name = match cuts.len() {
                1 => tensor.name.clone(),
                _ => format!("{}.{segment}", tensor.name),
            };
            let blocks = Blocks {
                format,
                columns: access == Access::Columns,
                rows,
                cols: end - first_col,
            };
            self.entries.push(Entry {
                name,
                source: tensor.name.clone(),
                store: Store::Quantized { blocks, first_col },
            });
            first_col = end;
        }
        Ok(())
    }
}
