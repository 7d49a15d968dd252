//! A model: an int8 network of TensorFlow Lite that remembers what it heard (streaming state in variables).
//!
//! Of the operators there are those that microWakeWord's models consist of. A file is checked and laid out once; a run is then a list
//! of copies, tables and sums of products over buffers that are there, and cannot fail.

mod bound;
mod copy;
mod error;
mod file;
mod flatbuffer;
mod layout;
mod operator;
mod prepare;
mod product;

use crate::frontend::{BANDS, Features, SCALE};
use copy::Run;
use product::Product;

pub use error::ModelError;

/// What is done in a run, in order; buffers by number.
#[derive(Clone, Debug)]
enum Step {
    Copy {
        from: usize,
        to: usize,
        runs: Vec<Run>,
    },
    /// Each number becomes that at its place, the lowest first.
    Table {
        from: usize,
        to: usize,
        table: Box<[i8; 256]>,
    },
    Product {
        from: usize,
        to: usize,
        product: Box<Product>,
    },
}

/// A network and what it remembers.
#[derive(Clone, Debug)]
pub struct Network {
    steps: Vec<Step>,
    buffers: Vec<Box<[i8]>>,
    /// What variables hold before anything was heard.
    initial: Vec<(usize, Box<[i8]>)>,
    input: usize,
    output: usize,
    /// Frames that a run takes.
    frames: usize,
    input_scale: f32,
    input_zero_point: i32,
    /// What stands for a probability of 0.
    zero: i32,
    patch: Box<[i8]>,
    sums: Box<[i32]>,
}

impl Network {
    /// Reads the bytes of a `.tflite` file.
    ///
    /// # Errors
    /// It is none, is damaged, has an operator that is not computed, or is no wake word model; one line says which.
    pub fn parse(bytes: &[u8]) -> Result<Network, ModelError> {
        layout::network(&file::graphs(bytes)?)
    }

    /// Frames that a run takes, and by which it moves on.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Products in a run: what it costs.
    pub fn work(&self) -> usize {
        let works = self.steps.iter().map(|step| match step {
            Step::Product { product, .. } => product.work(),
            Step::Copy { .. } | Step::Table { .. } => 0,
        });
        works.sum()
    }

    /// Forgets what was heard.
    pub fn reset(&mut self) {
        for (buffer, value) in &self.initial {
            self.buffers[*buffer].copy_from_slice(value);
        }
    }

    /// Hears the next [`Network::frames`] frames; missing ones are silence. How likely the wake word has just been said, in 256ths.
    pub fn run(&mut self, frames: &[Features]) -> u8 {
        let heard = frames.iter().flatten().copied();
        let heard = heard.chain(std::iter::repeat(0));
        for (to, feature) in self.buffers[self.input].iter_mut().zip(heard) {
            let value = f64::from(feature) * SCALE / f64::from(self.input_scale);
            let value = (value + f64::from(self.input_zero_point)).round_ties_even();
            *to = value.clamp(-128.0, 127.0) as i8;
        }
        for step in &self.steps {
            step.run(&mut self.buffers, &mut self.patch, &mut self.sums);
        }
        let output = self.buffers[self.output].first().copied();
        (i32::from(output.unwrap_or_default()) - self.zero) as u8
    }
}

impl Step {
    fn run(&self, buffers: &mut [Box<[i8]>], patch: &mut [i8], sums: &mut [i32]) {
        let (from, to) = match self {
            Step::Copy { from, to, .. }
            | Step::Table { from, to, .. }
            | Step::Product { from, to, .. } => (*from, *to),
        };
        // No step writes what it reads.
        let Ok([input, output]) = buffers.get_disjoint_mut([from, to]) else {
            return;
        };
        match self {
            Step::Copy { runs, .. } => {
                for run in runs {
                    output[run.to..run.to + run.length]
                        .copy_from_slice(&input[run.from..run.from + run.length]);
                }
            }
            Step::Table { table, .. } => {
                for (to, from) in output.iter_mut().zip(input.iter()) {
                    *to = table[(i16::from(*from) + 128) as usize];
                }
            }
            Step::Product { product, .. } => product.run(input, output, patch, sums),
        }
    }
}
