//! What is known of a tensor before a byte of it is read.

use std::ops::Range;

use safetensors::Dtype;

use super::Group;
use super::mobile::ACTIVATION_SCALES;
use super::pack::{Blocks, DRAFTER_ORDERING, HEAD_RESIDUAL, HEAD_RESIDUAL_PEAKS};

/// One tensor as its header describes it.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Canonical name: text tensors start with `model.language_model.` also where a text-only checkpoint leaves
    /// `language_model.` out.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: Dtype,
    /// Parameter group; `None` for a tensor that no family has (it is never loaded).
    pub group: Option<Group>,
    /// Index of the file in the checkpoint's list.
    pub(super) file: usize,
    /// First byte in the file.
    pub(super) start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// How a quantised tensor of a pack is read; `shape` is then that of the matrix.
    pub blocks: Option<Blocks>,
}

impl TensorInfo {
    /// Where its bytes lie in its file.
    pub fn place(&self) -> Range<u64> {
        self.start..self.start + self.bytes
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }

    /// Parameters of the model that it holds: those of a head in two planes are the first one's; roundings, and an order
    /// of ids, are none.
    pub fn parameters(&self) -> u64 {
        match self.name.as_str() {
            HEAD_RESIDUAL | HEAD_RESIDUAL_PEAKS | DRAFTER_ORDERING => 0,
            name if ACTIVATION_SCALES.iter().any(|end| name.ends_with(end)) => 0,
            _ => self.elements(),
        }
    }
}

/// All dimensions of a shape but the first, multiplied. Beside a 0 any number may stand: what is beyond a `usize` is its largest, which no
/// matrix has.
pub fn columns(shape: &[usize]) -> usize {
    shape
        .iter()
        .skip(1)
        .fold(1, |product: usize, &n| product.saturating_mul(n))
}
