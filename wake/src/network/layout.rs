//! From what a file says to a list of steps: every shape, number and quantisation is checked here.

use std::collections::BTreeMap;

use super::bound::Bound;
use super::copy::{self, Run};
use super::file::{Graph, Kind, Tensor};
use super::operator::Operator;
use super::prepare;
use super::product::Product;
use super::{BANDS, ModelError, Network, Step};

/// Products in a run: the published models have 40,000.
const MAX_WORK: usize = 1 << 20;
/// Stretches that a run copies; the published models have some hundred.
const MAX_RUNS: usize = 1 << 14;
/// Numbers in all buffers together.
const MAX_NUMBERS: usize = 1 << 18;
/// Frames that a run takes.
const MAX_FRAMES: usize = 100;
/// Numbers of a probability, and their meaning.
const PROBABILITY_SCALE: f32 = 1.0 / 256.0;

#[derive(Default)]
struct Layout {
    steps: Vec<Step>,
    buffers: Vec<Box<[i8]>>,
    /// By tensor: its buffer, where it has been computed.
    computed: BTreeMap<usize, usize>,
    /// By handle's tensor: the variable's name.
    handles: BTreeMap<usize, Vec<u8>>,
    /// By name: the variable's buffer, and what it holds at first.
    variables: BTreeMap<Vec<u8>, (usize, Box<[i8]>)>,
    numbers: usize,
    work: usize,
    runs: usize,
    patch: usize,
    sums: usize,
}

fn bounded(what: &'static str, found: usize, most: usize) -> Result<(), ModelError> {
    if found > most {
        return Err(ModelError::TooMany { what, found, most });
    }
    Ok(())
}

/// Lays out a model: its first graph, and the one that gives its variables their first values.
pub(super) fn network(graphs: &[Graph<'_>]) -> Result<Network, ModelError> {
    let wrong = |what: &str| ModelError::Interface(what.to_owned());
    let main = graphs.first().ok_or_else(|| wrong("it has no graph"))?;
    let (&[input], &[output]) = (&main.inputs[..], &main.outputs[..]) else {
        return Err(wrong("it has not one input and one output"));
    };
    let tensor = |number: i32| {
        let number = usize::try_from(number).ok();
        let tensor = number.and_then(|number| Some((number, main.tensors.get(number)?)));
        tensor.ok_or_else(|| wrong("its input or output is no tensor"))
    };
    let (input, heard) = tensor(input)?;
    let (output, probability) = tensor(output)?;
    let &[1, frames, BANDS] = &heard.shape[..] else {
        return Err(ModelError::Interface(format!(
            "its input is {:?}, not 1 x frames x {BANDS} bands",
            heard.shape
        )));
    };
    bounded("frames in its input", frames, MAX_FRAMES)?;
    let &[input_scale] = &heard.scales[..] else {
        return Err(wrong("its input has not one scale"));
    };
    if heard.kind != Kind::Int8 || !input_scale.is_normal() || input_scale < 0.0 || frames == 0 {
        return Err(wrong("its input is not quantised to 8 bits with a sign"));
    }
    let held_lower = match probability.kind {
        Kind::Int8 => 0,
        Kind::Uint8 => 128,
        _ => return Err(wrong("its output is not quantised to 8 bits")),
    };
    let zero = probability.zero_point.saturating_sub(held_lower);
    let steps = probability.scales == [PROBABILITY_SCALE] && zero == -128;
    if probability.elements() != 1 || !steps {
        return Err(wrong("its output is no probability in 256ths"));
    }

    let mut layout = Layout::default();
    let input = layout.computed(input, heard)?;
    for node in &main.nodes {
        let bound = Bound { graph: main, node };
        match node.operator {
            Operator::CallOnce => layout.first_values(&bound, graphs)?,
            _ => layout.node(&bound)?,
        }
    }
    let output = layout.computed.get(&output);
    let output = *output.ok_or_else(|| wrong("its output is not computed"))?;
    let mut network = Network {
        steps: layout.steps,
        buffers: layout.buffers,
        initial: layout.variables.into_values().collect(),
        input,
        output,
        frames,
        input_scale,
        input_zero_point: heard.zero_point,
        zero,
        patch: vec![0; layout.patch].into(),
        sums: vec![0; layout.sums].into(),
    };
    network.reset();
    Ok(network)
}

impl Layout {
    fn buffer(&mut self, length: usize) -> Result<usize, ModelError> {
        self.numbers += length;
        bounded("numbers in its tensors", self.numbers, MAX_NUMBERS)?;
        self.buffers.push(vec![0; length].into());
        Ok(self.buffers.len() - 1)
    }

    /// The buffer of a tensor that is computed now.
    fn computed(&mut self, number: usize, tensor: &Tensor<'_>) -> Result<usize, ModelError> {
        let buffer = self.buffer(tensor.elements())?;
        self.computed.insert(number, buffer);
        Ok(buffer)
    }

    /// The buffer of a node's input.
    fn source(&self, bound: &Bound<'_, '_>, i: usize) -> Result<usize, ModelError> {
        let buffer = self.computed.get(&bound.input_number(i)?).copied();
        buffer.ok_or_else(|| bound.wrong(format!("input {i} has not been computed before")))
    }

    /// The buffer of a node's output.
    fn target(&mut self, bound: &Bound<'_, '_>, i: usize) -> Result<usize, ModelError> {
        let number = bound.output_number(i)?;
        if self.computed.contains_key(&number) {
            return Err(bound.wrong("its output is computed twice"));
        }
        self.computed(number, bound.output(i)?)
    }

    fn copy(&mut self, from: usize, to: usize, runs: Vec<Run>) -> Result<(), ModelError> {
        self.runs += runs.len();
        bounded("stretches to copy", self.runs, MAX_RUNS)?;
        self.steps.push(Step::Copy { from, to, runs });
        Ok(())
    }

    fn node(&mut self, bound: &Bound<'_, '_>) -> Result<(), ModelError> {
        match bound.node.operator {
            Operator::VarHandle => {
                let options = bound.node.options.ok_or(ModelError::Truncated)?;
                let name = options.bytes(1)?.to_vec();
                self.handles.insert(bound.output_number(0)?, name);
                Ok(())
            }
            Operator::ReadVariable => {
                let variable = self.variable(bound)?;
                self.moved(bound, variable, bound.output(0)?)?;
                let to = self.target(bound, 0)?;
                self.copy(variable, to, copy::whole(bound.output(0)?.elements()))
            }
            Operator::AssignVariable => {
                let variable = self.variable(bound)?;
                self.moved(bound, variable, bound.input(1)?)?;
                let from = self.source(bound, 1)?;
                self.copy(from, variable, copy::whole(bound.input(1)?.elements()))
            }
            Operator::Reshape => {
                let from = self.source(bound, 0)?;
                self.moved(bound, from, bound.output(0)?)?;
                prepare::same_meaning(bound, bound.input(0)?, bound.output(0)?)?;
                let to = self.target(bound, 0)?;
                self.copy(from, to, copy::whole(bound.output(0)?.elements()))
            }
            Operator::Concatenation => {
                let to = self.target(bound, 0)?;
                for (i, place) in prepare::concatenation(bound)?.into_iter().enumerate() {
                    let from = self.source(bound, i)?;
                    bounded("stretches to copy", self.runs + place.runs(), MAX_RUNS)?;
                    self.copy(from, to, place.put())?;
                }
                Ok(())
            }
            Operator::StridedSlice | Operator::SplitV => {
                let from = self.source(bound, 0)?;
                let places = match bound.node.operator {
                    Operator::SplitV => prepare::split(bound)?,
                    _ => vec![prepare::strided_slice(bound)?],
                };
                for (i, place) in places.into_iter().enumerate() {
                    let to = self.target(bound, i)?;
                    bounded("stretches to copy", self.runs + place.runs(), MAX_RUNS)?;
                    self.copy(from, to, place.taken())?;
                }
                Ok(())
            }
            Operator::Logistic | Operator::Quantize => {
                let from = self.source(bound, 0)?;
                self.moved(bound, from, bound.output(0)?)?;
                let table = match bound.node.operator {
                    Operator::Logistic => prepare::logistic(bound)?,
                    _ => prepare::quantize(bound)?,
                };
                let to = self.target(bound, 0)?;
                self.steps.push(Step::Table { from, to, table });
                Ok(())
            }
            Operator::Conv2d => self.product(bound, prepare::conv_2d(bound)?),
            Operator::DepthwiseConv2d => self.product(bound, prepare::depthwise_conv_2d(bound)?),
            Operator::FullyConnected => self.product(bound, prepare::fully_connected(bound)?),
            Operator::CallOnce => Err(bound.wrong("is called where variables get their values")),
        }
    }

    fn product(&mut self, bound: &Bound<'_, '_>, product: Product) -> Result<(), ModelError> {
        self.work = self.work.saturating_add(product.work());
        bounded("products in a run", self.work, MAX_WORK)?;
        self.patch = self.patch.max(product.geometry.patch());
        self.sums = self.sums.max(product.bias.len());
        let from = self.source(bound, 0)?;
        let to = self.target(bound, 0)?;
        self.steps.push(Step::Product {
            from,
            to,
            product: Box::new(product),
        });
        Ok(())
    }

    /// A tensor has as many numbers as the buffer that is copied from or to it.
    fn moved(
        &self,
        bound: &Bound<'_, '_>,
        buffer: usize,
        tensor: &Tensor<'_>,
    ) -> Result<(), ModelError> {
        bound.meaning(tensor)?;
        if self.buffers[buffer].len() != tensor.elements() {
            return Err(bound.wrong("what goes in has another size than what comes out"));
        }
        Ok(())
    }

    /// The buffer of the variable whose handle a node takes.
    fn variable(&self, bound: &Bound<'_, '_>) -> Result<usize, ModelError> {
        let name = self.handles.get(&bound.input_number(0)?);
        let known = name.and_then(|name| self.variables.get(name));
        let (buffer, _) = known.ok_or_else(|| bound.wrong("its variable has no first value"))?;
        Ok(*buffer)
    }

    /// The graph that is called once: handles, and constants that are assigned to them.
    fn first_values(
        &mut self,
        call: &Bound<'_, '_>,
        graphs: &[Graph<'_>],
    ) -> Result<(), ModelError> {
        let options = call.node.options.ok_or(ModelError::Truncated)?;
        let number = usize::try_from(options.i32(0, 0)?).unwrap_or(0);
        let graph = graphs.get(number).filter(|_| number > 0);
        let graph = graph.ok_or_else(|| call.wrong("calls a graph that is not there"))?;
        let mut handles = BTreeMap::new();
        for node in &graph.nodes {
            let bound = Bound { graph, node };
            match node.operator {
                Operator::VarHandle => {
                    let options = node.options.ok_or(ModelError::Truncated)?;
                    handles.insert(bound.output_number(0)?, options.bytes(1)?.to_vec());
                }
                Operator::AssignVariable => {
                    let name = handles.get(&bound.input_number(0)?).cloned();
                    let name = name.ok_or_else(|| bound.wrong("has no variable"))?;
                    let value = bound.input(1)?;
                    if value.kind != Kind::Int8 || value.data.is_empty() {
                        return Err(bound.wrong("a first value is no constant of 8 bits"));
                    }
                    let first: Box<[i8]> = value.data.iter().map(|x| *x as i8).collect();
                    let buffer = self.buffer(first.len())?;
                    self.variables.insert(name, (buffer, first));
                }
                _ => return Err(bound.wrong("stands where variables get their first values")),
            }
        }
        Ok(())
    }
}
