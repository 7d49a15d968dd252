//! A node with its tensors, and what may be wrong with them.

use super::ModelError;
use super::file::{Graph, Kind, Node, Tensor};

/// What the quantisation of a tensor says, as 8 bits with a sign hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Meaning {
    pub(super) scale: f32,
    pub(super) zero_point: i32,
}

/// A node with its tensors.
pub(super) struct Bound<'g, 'a> {
    pub(super) graph: &'g Graph<'a>,
    pub(super) node: &'g Node<'a>,
}

impl<'g, 'a> Bound<'g, 'a> {
    /// What is wrong with it.
    pub(super) fn wrong(&self, what: impl Into<String>) -> ModelError {
        ModelError::Operator {
            operator: self.node.operator.name(),
            what: what.into(),
        }
    }

    fn number(&self, list: &[i32], i: usize, which: &str) -> Result<usize, ModelError> {
        let number = list.get(i).and_then(|&number| usize::try_from(number).ok());
        number
            .filter(|&number| number < self.graph.tensors.len())
            .ok_or_else(|| self.wrong(format!("has no {which} {i}")))
    }

    pub(super) fn input_number(&self, i: usize) -> Result<usize, ModelError> {
        self.number(&self.node.inputs, i, "input")
    }

    pub(super) fn output_number(&self, i: usize) -> Result<usize, ModelError> {
        self.number(&self.node.outputs, i, "output")
    }

    pub(super) fn input(&self, i: usize) -> Result<&'g Tensor<'a>, ModelError> {
        Ok(&self.graph.tensors[self.input_number(i)?])
    }

    pub(super) fn output(&self, i: usize) -> Result<&'g Tensor<'a>, ModelError> {
        Ok(&self.graph.tensors[self.output_number(i)?])
    }

    /// The numbers of a constant input.
    pub(super) fn constant(&self, i: usize) -> Result<Vec<i32>, ModelError> {
        let tensor = self.input(i)?;
        if tensor.kind != Kind::Int32 || tensor.data.is_empty() {
            return Err(self.wrong(format!("input {i} is no constant of 32-bit integers")));
        }
        let numbers = tensor.data.as_chunks().0.iter();
        Ok(numbers.map(|x| i32::from_le_bytes(*x)).collect())
    }

    /// What the numbers of an 8-bit tensor mean; unsigned ones are held 128 lower.
    pub(super) fn meaning(&self, tensor: &Tensor<'_>) -> Result<Meaning, ModelError> {
        let below = match tensor.kind {
            Kind::Int8 => 0,
            Kind::Uint8 => 128,
            _ => return Err(self.wrong("works on other numbers than 8-bit integers")),
        };
        let zero_point = tensor.zero_point.saturating_sub(below);
        match tensor.scales[..] {
            [scale] if scale.is_normal() && scale > 0.0 && (-128..=127).contains(&zero_point) => {
                Ok(Meaning { scale, zero_point })
            }
            _ => Err(self.wrong("a tensor's quantisation is no scale with a zero point")),
        }
    }
}
