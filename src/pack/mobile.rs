//! The recipe `mobile`: a checkpoint whose bits were trained with its weights, laid out as it is.
//!
//! Integers and scales are taken over bit by bit, and so are the steps to which activations are rounded; what the checkpoint has in floats
//! stays what it is. How wide a matrix is follows from the bytes of a row, and has to be what config.json says ([`super::widths`]).

use std::path::Path;

use kernels::quant::Format;
use safetensors::Dtype;

use super::error::PackError;
use super::plan::{Described, Entry, FilePlan, Store, matrix_shape};
use crate::model::architecture::Architecture;
use crate::model::tensor_table::{Access, TextTensor};
use crate::model::weights::mobile::{self, ACTIVATION_SCALES, layer_of, scale_of};
use crate::model::weights::{Blocks, Group};

/// Looks a tensor up by canonical name.
pub(super) type Find<'a> = dyn Fn(&str) -> Option<Described> + 'a;

/// Lays the files out: the text model's, the table of per-layer embeddings, and those of the encoders that are there.
///
/// `has_head` tells that the head's integers are others than the token embeddings'.
///
/// # Errors
/// A tensor is missing, or has another shape or type.
pub(super) fn files(
    architecture: &dyn Architecture,
    source: &Path,
    find: &Find<'_>,
    has_head: bool,
) -> Result<Vec<FilePlan>, PackError> {
    let mut plan = Planner {
        source,
        find,
        entries: Vec::new(),
    };
    for tensor in &architecture.text_tensors() {
        plan.text(tensor, has_head)?;
    }
    let (ple, text) = (plan.entries.drain(..))
        .partition(|entry: &Entry| Group::of(&entry.name) == Some(Group::Ple));
    let file = |group, entries| FilePlan { group, entries };
    let mut files = vec![file(Group::Text, text), file(Group::Ple, ple)];
    for group in [Group::Audio, Group::Vision] {
        let tensors = architecture.encoder_tensors(group)?;
        if tensors.iter().any(|(name, _)| find(name).is_some()) {
            for (name, shape) in &tensors {
                plan.encoder(name, shape)?;
            }
            files.push(file(group, std::mem::take(&mut plan.entries)));
        }
    }
    Ok(files)
}

struct Planner<'a> {
    source: &'a Path,
    find: &'a Find<'a>,
    entries: Vec<Entry>,
}

impl Planner<'_> {
    fn found(&self, name: &str) -> Result<Described, PackError> {
        (self.find)(name).ok_or_else(|| PackError::Missing {
            path: self.source.to_owned(),
            tensor: name.to_owned(),
        })
    }

    fn push(&mut self, name: &str, store: Store) {
        self.entries.push(Entry {
            name: name.to_owned(),
            source: name.to_owned(),
            store,
        });
    }

    fn text(&mut self, tensor: &TextTensor, has_head: bool) -> Result<(), PackError> {
        let found = self.found(&tensor.name)?;
        let Some((_, access)) = tensor.matrix.filter(|_| is_trained(&found)) else {
            self.check(&tensor.name, &found, &tensor.shape)?;
            self.push(&tensor.name, Store::Plain(found));
            return Ok(());
        };
        let (rows, cols) = matrix_shape(&tensor.shape);
        self.matrix(&tensor.name, found, rows, cols, access)?;
        match access {
            Access::Rows => Ok(()),
            _ if !tensor.is_head() => self.roundings(layer_of(&tensor.name)),
            // Lookups round nothing; the product with the head does.
            _ => {
                if has_head {
                    let name = format!("{}.weight", mobile::HEAD);
                    let found = self.found(&name)?;
                    self.matrix(&name, found, rows, cols, access)?;
                }
                self.roundings(mobile::HEAD)
            }
        }
    }

    fn encoder(&mut self, name: &str, shape: &[usize]) -> Result<(), PackError> {
        // What cuts off is the rounding: the bounds of linear layers are not there.
        let found = match (self.find)(name) {
            None if shape.is_empty() => return Ok(()),
            None => self.found(name)?,
            Some(found) => found,
        };
        if !is_trained(&found) {
            self.check(name, &found, shape)?;
            self.push(name, Store::Plain(found));
            return Ok(());
        }
        let (rows, cols) = matrix_shape(shape);
        self.matrix(name, found, rows, cols, Access::Whole)?;
        self.roundings(layer_of(name))
    }

    /// A matrix of `rows × cols`, of which the source has as many bytes a row as its integers take, and a scale for each row; where rows are
    /// picked, for each of a row's equal parts.
    fn matrix(
        &mut self,
        name: &str,
        found: Described,
        rows: usize,
        cols: usize,
        access: Access,
    ) -> Result<(), PackError> {
        let row_bytes = matrix_shape(&found.shape).1;
        self.check(name, &found, &[rows, row_bytes])?;
        let bits = mobile::bits(found.dtype, row_bytes, cols).ok_or_else(|| {
            let (kind, found) = match found.dtype {
                Dtype::I8 => ("bytes with a sign", "8"),
                _ => ("bytes", "2 or 4"),
            };
            PackError::Unexpected {
                path: self.source.to_owned(),
                tensor: name.to_owned(),
                reason: format!("has {row_bytes} {kind} a row, but {cols} columns of {found} bits are asked for by the hyper-parameters"),
            }
        })?;
        let scale_name = scale_of(name);
        let scales = self.found(&scale_name)?;
        let parts = match access {
            Access::Rows => matrix_shape(&scales.shape).1,
            _ => 1,
        };
        self.check(&scale_name, &scales, &[rows, parts])?;
        let width = cols
            .checked_div(parts)
            .filter(|width| width * parts == cols);
        let format = match (access, bits, width) {
            (Access::Rows, 2, Some(width)) => Some(Format::Q2LayerScaled {
                width: width as u32,
            }),
            (Access::Rows, 4, Some(width)) => Some(Format::Q4LayerScaled {
                width: width as u32,
            }),
            (Access::Rows, _, _) => None,
            (_, 2, _) => Some(Format::Q2RowScaled),
            (_, 4, _) => Some(Format::Q4RowScaled),
            _ => Some(Format::Q8RowScaled),
        };
        let format = format.ok_or_else(|| PackError::Unexpected {
            path: self.source.to_owned(),
            tensor: name.to_owned(),
            reason: format!("has {cols} columns of {bits} bits and {parts} scales a row: this program reads 2 and 4 bits, and a scale for each of equal parts"),
        })?;
        let blocks = Blocks {
            format,
            columns: false,
            rows,
            cols,
        };
        self.push(name, Store::Trained(blocks));
        Ok(())
    }

    fn roundings(&mut self, layer: &str) -> Result<(), PackError> {
        for end in ACTIVATION_SCALES {
            let name = format!("{layer}{end}");
            let found = self.found(&name)?;
            self.check(&name, &found, &[])?;
            self.push(&name, Store::Plain(found));
        }
        Ok(())
    }

    fn check(&self, name: &str, found: &Described, shape: &[usize]) -> Result<(), PackError> {
        match found.shape == shape {
            true => Ok(()),
            false => Err(PackError::Shape {
                path: self.source.to_owned(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: found.shape.clone(),
            }),
        }
    }
}

/// Whether it is a matrix of integers that were trained.
fn is_trained(found: &Described) -> bool {
    matches!(found.dtype, Dtype::U8 | Dtype::I8)
}
