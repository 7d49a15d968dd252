//! Random weights by tensor.
//!
//! Nothing is quantised weight by weight. A few rows of normal weights are quantised once for each format and width, and
//! matrices are composed of them, tile by tile or row by row in random order: as many active neurons as real ones have,
//! finite activations, and the speed of the disk.

use std::collections::HashMap;

use kernels::Pool;
use kernels::quant::{Format, TILE_ROWS, store_rows};
use safetensors::Dtype;

use super::random::Random;
use crate::model::weights::mobile::ACTIVATION_SCALES;
use crate::model::weights::{Blocks, DRAFTER_ORDERING};
use crate::pack::error::PackError;
use crate::pack::plan::{Described, Entry, Store, matrix_shape};
use crate::pack::quantize::narrow;
use crate::pack::residual;
use crate::pack::writer::FileWriter;

/// Rows that a quantised matrix is composed of: enough that one in twenty is active, to within half a per cent.
const PATTERN_ROWS: usize = 2048;
/// Weights in all pattern rows at most; wider matrices have fewer.
const PATTERN_WEIGHTS: usize = 8 << 20;
/// `hidden_size_per_layer_input` of every published model.
const LAYER_INPUT_WIDTH: usize = 256;
/// Numbers that are written at once.
const PIECE: usize = 1 << 20;

/// Random weights by tensor.
pub(super) struct Weights {
    seed: u64,
    /// Units (tiles or rows) of normal weights, by format, plane, stored columns and the bits of the standard deviation.
    patterns: HashMap<(Format, Plane, usize, u32), Vec<u8>>,
    /// Normal weights of variance 1.
    normal: Vec<f32>,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl Weights {
    pub(super) fn new(seed: u64) -> Weights {
        let mut random = Random::new(seed, "normal");
        Weights {
            seed,
            patterns: HashMap::new(),
            normal: (0..PIECE + 1).map(|_| random.normal()).collect(),
            values: Vec::new(),
            bytes: Vec::new(),
        }
    }

    pub(super) fn write(
        &mut self,
        pool: &Pool,
        entry: &Entry,
        out: &mut FileWriter<'_, '_>,
    ) -> Result<(), PackError> {
        let random = Random::new(self.seed, &entry.name);
        match &entry.store {
            Store::Quantized { blocks, .. } => {
                self.compose(pool, entry, *blocks, Plane::First, random, out)
            }
            Store::Trained(blocks) => self.compose(pool, entry, *blocks, Plane::First, random, out),
            Store::Plain(tensor) => self.plain(&entry.name, tensor, random, out),
            // What belongs to the tiles that the first plane is composed of, in the same order.
            Store::Residual(blocks) => {
                let random = Random::new(self.seed, &entry.source);
                let first = first_plane(blocks.rows, blocks.cols);
                self.compose(pool, entry, first, Plane::Second, random, out)
            }
            Store::ResidualPeaks { rows, cols } => {
                let random = Random::new(self.seed, &entry.source);
                let first = first_plane(*rows, *cols);
                self.compose(pool, entry, first, Plane::Peaks, random, out)
            }
        }
    }

    fn compose(
        &mut self,
        pool: &Pool,
        entry: &Entry,
        blocks: Blocks,
        plane: Plane,
        mut random: Random,
        out: &mut FileWriter<'_, '_>,
    ) -> Result<(), PackError> {
        let (rows, cols) = blocks.stored();
        // A row of the table holds one vector for each layer; each is scaled to variance 1 when it is read.
        let fan_in = if entry.name.ends_with("embed_tokens_per_layer.weight") {
            LAYER_INPUT_WIDTH
        } else {
            blocks.cols
        };
        let deviation = 1.0 / (fan_in as f32).sqrt();
        let format = blocks.format;
        let seed = self.seed;
        let pattern = self
            .patterns
            .entry((format, plane, cols, deviation.to_bits()))
            .or_insert_with(|| normal_pattern(pool, format, plane, cols, deviation, seed));
        let unit_rows = if format.is_tiled() { TILE_ROWS } else { 1 };
        let units = pattern_rows(cols) / unit_rows;
        let unit_bytes = pattern.len() / units;
        // Of a tile that the matrix does not fill, another plane has the rows that there are.
        let rows_of = |unit: usize| match plane {
            Plane::First => unit_bytes,
            Plane::Second | Plane::Peaks => {
                unit_bytes / unit_rows * unit_rows.min(rows - unit * unit_rows)
            }
        };
        for unit in 0..rows.div_ceil(unit_rows) {
            let from = random.below(units) * unit_bytes;
            out.write(&pattern[from..from + rows_of(unit)])?;
        }
        Ok(())
    }

    fn plain(
        &mut self,
        name: &str,
        tensor: &Described,
        mut random: Random,
        out: &mut FileWriter<'_, '_>,
    ) -> Result<(), PackError> {
        let (rows, cols) = matrix_shape(&tensor.shape);
        let fill = Fill::of(name, &tensor.shape);
        let all = rows * cols;
        let mut left = all;
        while left > 0 {
            let n = left.min(PIECE);
            self.values.clear();
            match fill {
                Fill::Constant(value) => self.values.resize(n, value),
                Fill::Counted => {
                    let from = all - left;
                    self.values.extend((from..from + n).map(|id| id as f32));
                }
                Fill::Normal(deviation) => {
                    // An odd period: the columns of a matrix are not all alike.
                    let from = random.below(self.normal.len());
                    let endless = self.normal.iter().cycle().skip(from);
                    self.values.extend(endless.take(n).map(|x| x * deviation));
                }
            }
            narrow(&self.values, tensor.dtype, &mut self.bytes);
            out.write(&self.bytes)?;
            left -= n;
        }
        Ok(())
    }
}

/// What a pattern says of its weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Plane {
    /// The weights, quantised.
    First,
    /// What that leaves, quantised.
    Second,
    /// How far the second plane reaches.
    Peaks,
}

fn first_plane(rows: usize, cols: usize) -> Blocks {
    Blocks {
        format: residual::FIRST_PLANE,
        columns: false,
        rows,
        cols,
    }
}

fn pattern_rows(cols: usize) -> usize {
    (PATTERN_WEIGHTS / cols / TILE_ROWS * TILE_ROWS).clamp(TILE_ROWS, PATTERN_ROWS)
}

/// Whole units of normal weights.
fn normal_pattern(
    pool: &Pool,
    format: Format,
    plane: Plane,
    cols: usize,
    deviation: f32,
    seed: u64,
) -> Vec<u8> {
    let rows = pattern_rows(cols);
    let mut weights = vec![0.0; rows * cols];
    pool.for_each_row_mut(&mut weights, cols, &|row, weights| {
        let mut random = Random::new(seed, &format!("{format:?} {cols} {row}"));
        for weight in weights {
            *weight = random.normal() * deviation;
        }
    });
    let mut bytes = vec![0; format.matrix_bytes(rows, cols).unwrap_or(0)];
    // Normal weights are finite.
    if let Some(step) = trained_step(format) {
        trained_pattern(format, &weights, step * deviation, cols, &mut bytes);
        return bytes;
    }
    if plane == Plane::First {
        kernels::quant::quantize(pool, format, &weights, rows, cols, &mut bytes).ok();
        return bytes;
    }
    residual::subtract_first_plane(pool, &mut weights, cols, &mut bytes).ok();
    match plane {
        Plane::Peaks => narrow(
            &residual::peaks(pool, &weights, cols),
            Dtype::BF16,
            &mut bytes,
        ),
        _ => {
            residual::second_plane(pool, &weights, cols, &mut bytes).ok();
        }
    }
    bytes
}

/// The scale of trained integers for weights of deviation 1; `None` for a format whose integers are none.
fn trained_step(format: Format) -> Option<f32> {
    match format {
        Format::Q2RowScaled | Format::Q2LayerScaled { .. } => Some(1.0),
        Format::Q4RowScaled | Format::Q4LayerScaled { .. } => Some(0.4),
        Format::Q8RowScaled => Some(0.03),
        Format::Q4Tiled | Format::Q8Tiled | Format::Q4Rows | Format::Q8Rows => None,
    }
}

/// Lays rows of weights out as integers of one `scale`.
fn trained_pattern(format: Format, weights: &[f32], scale: f32, cols: usize, bytes: &mut [u8]) {
    let (least, most) = format.range();
    let within = |steps: f32| steps.clamp(f32::from(least), f32::from(most)) as i8;
    let integers: Vec<i8> = (weights.iter())
        .map(|weight| within((weight / scale).round()))
        .collect();
    let rows = weights.len() / cols;
    let scales = vec![scale; rows * format.row_scales(cols)];
    store_rows(format, &integers, &scales, rows, cols, bytes);
}

/// What a tensor that is not quantised is filled with, so that activations stay near variance 1.
#[derive(Clone, Copy)]
enum Fill {
    Constant(f32),
    Normal(f32),
    /// Each number once, in order.
    Counted,
}

/// Nearly everything is below it, as with the bounds of the published models.
const CLIP_BOUND: f32 = 16.0;
/// Half of the sum of four parts of variance 1: a layer's input, and what attention, feed-forward and per-layer embedding add.
const LAYER_SCALAR: f32 = 0.5;

impl Fill {
    fn of(name: &str, shape: &[usize]) -> Fill {
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let normal = |fan_in: usize| Fill::Normal(1.0 / (fan_in as f32).sqrt());
        match shape {
            _ if name == DRAFTER_ORDERING => Fill::Counted,
            _ if ends(&["_coefs.weight"]) => Fill::Normal(0.1),
            // A vector is picked for each place.
            [.., width] if ends(&["position_embedding_table"]) => normal(*width),
            [_, _, ..] => normal(matrix_shape(shape).1),
            // Queries and keys of so many values: their products then have variance 1, and attention looks around.
            [n] if ends(&["q_norm.weight", "k_norm.weight"]) => {
                Fill::Constant(1.0 / (*n as f32).sqrt().sqrt())
            }
            _ if ends(&["bias", "per_dim_scale"]) => Fill::Constant(0.0),
            _ if ends(&["input_min", "output_min"]) => Fill::Constant(-CLIP_BOUND),
            _ if ends(&["input_max", "output_max"]) => Fill::Constant(CLIP_BOUND),
            _ if ends(&ACTIVATION_SCALES) => Fill::Constant(CLIP_BOUND / 127.0),
            _ if ends(&["layer_scalar"]) => Fill::Constant(LAYER_SCALAR),
            _ => Fill::Constant(1.0),
        }
    }
}
