//! Packs of the real sizes with random weights: what costs time and memory does not depend on what the weights mean.
//!
//! Nothing is quantised weight by weight. A few rows of normal weights are quantised once for each format and width, and
//! matrices are composed of them, tile by tile or row by row in random order: as many active neurons as real ones have,
//! finite activations, and the speed of the disk.

mod config;
mod random;
mod vocabulary;

use std::collections::HashMap;
use std::path::Path;

use kernels::Pool;
use kernels::quant::{Format, TILE_ROWS};
use safetensors::Dtype;

pub use config::SyntheticSize;
pub(super) use config::config_json;
pub use vocabulary::synthetic_tokenizer_json;

use super::error::PackError;
use super::plan::{self, Described, Entry, FilePlan, Store, matrix_shape};
use super::quantize::narrow;
use super::residual;
use super::writer::{self, FileWriter, Progress};
use super::{Companion, PackOptions, Recipe, begin};
use crate::model::architecture::Architecture;
use crate::model::family;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::{Blocks, Group, PackManifest};
use random::Random;

/// Rows that a quantised matrix is composed of: enough that one in twenty is active, to within half a per cent.
const PATTERN_ROWS: usize = 2048;
/// Weights in all pattern rows at most; wider matrices have fewer.
const PATTERN_WEIGHTS: usize = 8 << 20;
/// `hidden_size_per_layer_input` of every published model.
const LAYER_INPUT_WIDTH: usize = 256;
/// Numbers that are written at once.
const PIECE: usize = 1 << 20;

/// The towers' tensors, name and shape; `*` stands for the number of a conformer block.
const TOWERS: &str = include_str!("towers.tsv");
const CONFORMER_BLOCKS: usize = 12;

/// Writes a pack of random weights with every tensor of the published model; the same seed gives the same pack.
///
/// # Errors
/// The target exists, or its disk is full or not writable.
pub fn pack_synthetic(
    size: SyntheticSize,
    text_only: bool,
    seed: u64,
    target: &Path,
    options: PackOptions,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<PackManifest, PackError> {
    writer::check_target(target, options.force)?;
    let tokenizer = synthetic_tokenizer_json();
    let control = Tokenizer::parse(&tokenizer, Path::new("tokenizer.json"))?;
    let config = config_json(size, text_only, control.control());
    let mut companions = vec![
        ("config.json".to_owned(), config.into_bytes()),
        ("tokenizer.json".to_owned(), tokenizer.into_bytes()),
    ];
    if !text_only {
        let size = br#"{"size": {"height": 768, "width": 768}}"#;
        companions.push(("preprocessor_config.json".to_owned(), size.to_vec()));
    }
    let source = format!("synthetic {} seed {seed}", size.name());
    write(&companions, &source, seed, target, options, pool, progress)
}

fn write(
    companions: &[Companion],
    source: &str,
    seed: u64,
    target: &Path,
    options: PackOptions,
    pool: &Pool,
    progress: &mut Progress<'_>,
) -> Result<PackManifest, PackError> {
    let path = Path::new(&companions[0].0);
    let architecture = family::parse(&companions[0].1, path)?;
    let slices = architecture.slices(None)?;
    let describe = |_: &str, shape: &[usize]| {
        Some(Described {
            shape: shape.to_vec(),
            dtype: Dtype::BF16,
        })
    };
    let mut files = Vec::from(plan::text(
        &architecture.text_tensors(),
        options.recipe,
        &slices,
        path,
        &describe,
    )?);
    if architecture.spec().audio.is_some() {
        files.extend(towers(&*architecture, options.recipe));
    }
    let mut pack = begin(target, options, &files, companions, progress)?;
    let mut weights = Weights::new(seed);
    for file in &files {
        pack.tensors(file, |entry, out| weights.write(pool, entry, out))?;
    }
    pack.commit(options.recipe.name(), source)
}

/// The files of both towers, in the published sizes (E2B and E4B have the same).
pub(super) fn towers(architecture: &dyn Architecture, recipe: Recipe) -> Vec<FilePlan> {
    let mut tensors = Vec::new();
    for line in TOWERS.lines() {
        let Some((name, shape)) = line.split_once('\t') else {
            continue;
        };
        let tensor = Described {
            shape: shape.split('x').filter_map(|n| n.parse().ok()).collect(),
            dtype: Dtype::BF16,
        };
        let repeats = if name.contains('*') {
            CONFORMER_BLOCKS
        } else {
            1
        };
        for block in 0..repeats {
            let name = format!("model.{}", name.replace('*', &block.to_string()));
            tensors.push((name, tensor.clone()));
        }
    }
    [Group::Audio, Group::Vision]
        .into_iter()
        .map(|group| {
            let own = tensors
                .iter()
                .filter(|(name, _)| Group::of(name) == Some(group));
            plan::encoder(group, recipe, architecture, own.cloned())
        })
        .collect()
}

/// Random weights by tensor.
struct Weights {
    seed: u64,
    /// Units (tiles or rows) of normal weights, by format, plane, stored columns and the bits of the standard deviation.
    patterns: HashMap<(Format, Plane, usize, u32), Vec<u8>>,
    /// Normal weights of variance 1.
    normal: Vec<f32>,
    values: Vec<f32>,
    bytes: Vec<u8>,
}

impl Weights {
    fn new(seed: u64) -> Weights {
        let mut random = Random::new(seed, "normal");
        Weights {
            seed,
            patterns: HashMap::new(),
            normal: (0..PIECE + 1).map(|_| random.normal()).collect(),
            values: Vec::new(),
            bytes: Vec::new(),
        }
    }

    fn write(
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
        let mut left = rows * cols;
        while left > 0 {
            let n = left.min(PIECE);
            self.values.clear();
            match fill {
                Fill::Constant(value) => self.values.resize(n, value),
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

/// What a tensor that is not quantised is filled with, so that activations stay near variance 1.
#[derive(Clone, Copy)]
enum Fill {
    Constant(f32),
    Normal(f32),
}

impl Fill {
    fn of(name: &str, shape: &[usize]) -> Fill {
        if name.ends_with("_coefs.weight") {
            return Fill::Normal(0.1);
        }
        if shape.len() > 1 {
            return Fill::Normal(1.0 / (matrix_shape(shape).1 as f32).sqrt());
        }
        let zero = name.ends_with("bias") || name.ends_with("per_dim_scale");
        // Queries and keys of 256 values: their products then have variance 1, and attention looks around.
        let quarter = name.ends_with("q_norm.weight") || name.ends_with("k_norm.weight");
        Fill::Constant(match (zero, quarter) {
            (true, _) => 0.0,
            (_, true) => 0.25,
            _ => 1.0,
        })
    }
}

#[cfg(test)]
mod tests;
