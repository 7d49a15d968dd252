//! What a `.tflite` file says: tensors with their quantisation, and operators in order. Nothing is computed yet.

use super::ModelError;
use super::flatbuffer::Table;
use super::operator::Operator;

/// A wake word model has 50 to 80 kB, some hundred tensors and some ten thousand numbers in the largest of them.
const MAX_BYTES: usize = 1 << 20;
const MAX_TENSORS: usize = 1024;
const MAX_OPERATORS: usize = 512;
const MAX_RANK: usize = 4;
const MAX_ELEMENTS: usize = 1 << 16;
const MAX_SCALES: usize = 1024;

/// Element types (`TensorType` of the schema).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int8,
    Uint8,
    Int32,
    /// A variable's handle.
    Resource,
    Other(u8),
}

/// A tensor: its shape, what its integers mean, and its numbers where they are constant.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub(super) kind: Kind,
    pub(super) shape: Vec<usize>,
    /// One scale, or one for each output channel; none where it is no number.
    pub(super) scales: Vec<f32>,
    pub(super) zero_point: i32,
    /// Empty where it is computed.
    pub(super) data: &'a [u8],
}

impl Tensor<'_> {
    /// Numbers in it; the parser has bounded them.
    pub(super) fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An operator and its tensors by number; -1 is one that is left out.
pub(super) struct Node<'a> {
    pub(super) operator: Operator,
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
    pub(super) options: Option<Table<'a>>,
}

/// A subgraph.
pub(super) struct Graph<'a> {
    pub(super) tensors: Vec<Tensor<'a>>,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) inputs: Vec<i32>,
    pub(super) outputs: Vec<i32>,
}

/// A list whose length is checked before it is made.
fn list<T, I: ExactSizeIterator<Item = T>>(
    items: I,
    what: &'static str,
    most: usize,
) -> Result<I, ModelError> {
    let found = items.len();
    if found > most {
        return Err(ModelError::TooMany { what, found, most });
    }
    Ok(items)
}

/// Reads a file: the graph that runs, and the one that runs once before it.
pub(super) fn graphs(bytes: &[u8]) -> Result<Vec<Graph<'_>>, ModelError> {
    if bytes.len() > MAX_BYTES {
        return Err(ModelError::TooMany {
            what: "bytes",
            found: bytes.len(),
            most: MAX_BYTES,
        });
    }
    let model = Table::root(bytes, b"TFL3")?;
    let codes = list(model.tables(1)?, "operator codes", MAX_OPERATORS)?;
    let codes: Vec<i32> = codes
        .map(|code| operator_code(code?))
        .collect::<Result<_, _>>()?;
    let buffers = list(model.tables(4)?, "buffers", MAX_TENSORS)?;
    let buffers: Vec<&[u8]> = buffers
        .map(|buffer| data(buffer?))
        .collect::<Result<_, _>>()?;
    let graphs = list(model.tables(2)?, "subgraphs", 2)?;
    graphs.map(|it| graph(it?, &codes, &buffers)).collect()
}

/// Old files have the code in one byte.
fn operator_code(code: Table<'_>) -> Result<i32, ModelError> {
    Ok(code.i32(3, 0)?.max(i32::from(code.u8(0, 0)?)))
}

fn data(buffer: Table<'_>) -> Result<&[u8], ModelError> {
    // Data behind the FlatBuffer is for models of gigabytes.
    if buffer.u64(1, 0)? > 1 {
        return Err(ModelError::Truncated);
    }
    buffer.bytes(0)
}

fn graph<'a>(
    graph: Table<'a>,
    codes: &[i32],
    buffers: &[&'a [u8]],
) -> Result<Graph<'a>, ModelError> {
    let tensors = list(graph.tables(0)?, "tensors", MAX_TENSORS)?;
    let tensors = tensors
        .map(|it| tensor(it?, buffers))
        .collect::<Result<_, _>>()?;
    let nodes = list(graph.tables(3)?, "operators", MAX_OPERATORS)?;
    let nodes = nodes.map(|it| node(it?, codes)).collect::<Result<_, _>>()?;
    Ok(Graph {
        tensors,
        nodes,
        inputs: list(graph.i32s(1)?, "inputs", MAX_RANK)?.collect(),
        outputs: list(graph.i32s(2)?, "outputs", MAX_RANK)?.collect(),
    })
}

fn tensor<'a>(tensor: Table<'a>, buffers: &[&'a [u8]]) -> Result<Tensor<'a>, ModelError> {
    let mut elements = 1_usize;
    let shape = list(tensor.i32s(0)?, "dimensions in a tensor", MAX_RANK)?;
    let shape = shape.map(|length| {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        elements = elements.saturating_mul(length);
        length
    });
    let shape: Vec<usize> = shape.collect();
    if elements > MAX_ELEMENTS {
        return Err(ModelError::TooMany {
            what: "numbers in a tensor",
            found: elements,
            most: MAX_ELEMENTS,
        });
    }
    let kind = match tensor.u8(1, 0)? {
        2 => Kind::Int32,
        3 => Kind::Uint8,
        9 => Kind::Int8,
        13 => Kind::Resource,
        other => Kind::Other(other),
    };
    let (mut scales, mut zero_point) = (Vec::new(), 0);
    if let Some(quantization) = tensor.table(4)? {
        scales = list(quantization.f32s(2)?, "scales in a tensor", MAX_SCALES)?.collect();
        let mut zero_points = quantization.i64s(3)?;
        let first = zero_points.next().unwrap_or(0);
        zero_point = i32::try_from(first).unwrap_or(i32::MAX);
        if zero_points.any(|other| other != first) {
            return Err(ModelError::Interface(
                "a tensor has several zero points".to_owned(),
            ));
        }
    }
    let data = buffers.get(tensor.u32(2, 0)? as usize);
    let data = *data.ok_or(ModelError::Truncated)?;
    let width = if kind == Kind::Int32 { 4 } else { 1 };
    let numbers = matches!(kind, Kind::Int8 | Kind::Uint8 | Kind::Int32);
    if numbers && !data.is_empty() && data.len() != elements * width {
        return Err(ModelError::Truncated);
    }
    Ok(Tensor {
        kind,
        shape,
        scales,
        zero_point,
        data,
    })
}

fn node<'a>(node: Table<'a>, codes: &[i32]) -> Result<Node<'a>, ModelError> {
    let code = codes.get(node.u32(0, 0)? as usize);
    let operator = Operator::of(*code.ok_or(ModelError::Truncated)?);
    Ok(Node {
        operator: operator.map_err(ModelError::UnknownOperator)?,
        inputs: list(node.i32s(1)?, "inputs of an operator", MAX_TENSORS)?.collect(),
        outputs: list(node.i32s(2)?, "outputs of an operator", MAX_TENSORS)?.collect(),
        options: node.table(4)?,
    })
}
