//! What a pack holds: every tensor of every file, before the first byte is written.
//!
//! The text tensors follow from the hyper-parameters alone, so that a source that lacks one is refused at once. They stand in
//! the order in which a token meets them.

use std::path::Path;

use safetensors::Dtype;

use super::error::PackError;
use super::recipe::{Arrangement, Recipe, Role};
use super::residual;
use crate::model::config::TextConfig;
use crate::model::gemma3n::matformer::Slices;
use crate::model::weights::{Blocks, Group, HEAD_RESIDUAL, HEAD_RESIDUAL_PEAKS, columns};

/// A slice may end where a group of quantised weights ends.
const CUT: usize = kernels::quant::GROUP;

/// Where the source keeps text tensors, by canonical name.
pub(super) const TEXT_PREFIX: &str = "model.language_model.";

/// A tensor as a source has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Described {
    pub(super) shape: Vec<usize>,
    /// BF16, F16 or F32: what it is stored as where it is not quantised.
    pub(super) dtype: Dtype,
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
            Store::Quantized { blocks, .. } | Store::Residual(blocks) => {
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
    config: &TextConfig,
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
    let (d, p) = (config.hidden_size, config.hidden_size_per_layer_input);
    let layers = config.num_hidden_layers;
    let vocabulary = config.vocab_size_per_layer_input;
    plan.matrix("embed_tokens.weight", Role::Head, vocabulary, d)?;
    plan.matrix(
        "per_layer_model_projection.weight",
        Role::Side,
        layers * p,
        d,
    )?;
    plan.plain("per_layer_projection_norm.weight", &[p])?;
    for i in 1..config.altup_num_inputs {
        plan.matrix(
            &format!("altup_projections.{}.weight", i - 1),
            Role::Side,
            d,
            d,
        )?;
    }
    for layer in 0..layers {
        plan_layer(&mut plan, config, layer, &cuts(config, slices, layer)?)?;
    }
    for i in 1..config.altup_num_inputs {
        let name = format!("altup_unembed_projections.{}.weight", i - 1);
        plan.matrix(&name, Role::Side, d, d)?;
    }
    plan.plain("norm.weight", &[d])?;
    if recipe.splits_head() {
        plan.residual("embed_tokens.weight", vocabulary, d);
    }
    let text = std::mem::take(&mut plan.entries);
    plan.quantized(
        "embed_tokens_per_layer.weight",
        Role::PleTable,
        Arrangement::Rows,
        (vocabulary, layers * p),
        false,
    )?;
    Ok([
        FilePlan {
            group: Group::Text,
            entries: text,
        },
        FilePlan {
            group: Group::Ple,
            entries: plan.entries,
        },
    ])
}

/// The matrices of the towers that many frames or pixels are multiplied with, by the end of their names. All else but
/// [`TOWER_DEPTHWISE`] is small, or is read number by number: norms, the first convolutions, embeddings.
const TOWER_MATRICES: [&str; 16] = [
    ".input_proj_linear.weight",
    ".q_proj.weight",
    ".k_proj.weight",
    ".v_proj.weight",
    ".pos_proj.weight",
    ".attention.post.weight",
    ".ffw_layer_1.weight",
    ".ffw_layer_2.weight",
    ".linear_start.weight",
    ".linear_end.weight",
    ".conv_exp.weight",
    ".conv_pwl.weight",
    ".pw_exp.conv.weight",
    ".pw_proj.conv.weight",
    ".proj.weight",
    ".embedding_projection.weight",
];

/// The depthwise convolutions, `[channels, 1, taps]` or `[channels, 1, side, side]`. They are stored tap by tap, so that what shares a
/// scale are one tap's neighbouring channels: a trained filter's rim is far smaller than its centre. On the demo model's vision tower that
/// leaves 0.4 % of the root mean square, a scale for each channel 0.9 %, and nothing is padded where channels are whole groups.
const TOWER_DEPTHWISE: [&str; 4] = [
    ".depthwise_conv1d.weight",
    ".dw_start.conv.weight",
    ".dw_mid.conv.weight",
    ".down_conv.weight",
];

/// Lays out a tower's file: in the order of the source, its matrices and depthwise convolutions quantised.
pub(super) fn tower(
    group: Group,
    recipe: Recipe,
    tensors: impl Iterator<Item = (String, Described)>,
) -> FilePlan {
    let entries = tensors
        .map(|(name, tensor)| {
            let is_one = |of: &[&str]| of.iter().any(|end| name.ends_with(end));
            let arrangement = if is_one(&TOWER_MATRICES) {
                Some((Arrangement::Tiled, false))
            } else if is_one(&TOWER_DEPTHWISE) {
                Some((Arrangement::Rows, true))
            } else {
                None
            };
            let store = match arrangement {
                Some((arrangement, columns)) => {
                    let (rows, cols) = matrix_shape(&tensor.shape);
                    let blocks = Blocks {
                        format: recipe.format(Role::Tower, arrangement),
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

/// The widths at which the FFN of a layer is cut, ascending; the last is the full one.
fn cuts(config: &TextConfig, slices: &Slices, layer: usize) -> Result<Vec<usize>, PackError> {
    let full = config.intermediate_size[layer];
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

fn plan_layer(
    plan: &mut Planner<'_>,
    config: &TextConfig,
    layer: usize,
    cuts: &[usize],
) -> Result<(), PackError> {
    let (d, p, a) = (
        config.hidden_size,
        config.hidden_size_per_layer_input,
        config.altup_num_inputs,
    );
    let f = config.intermediate_size[layer];
    let name = |leaf: &str| format!("layers.{layer}.{leaf}");

    plan.plain(&name("altup.router_norm.weight"), &[d])?;
    plan.plain(&name("altup.modality_router.weight"), &[a, d])?;
    plan.plain(&name("altup.prediction_coefs.weight"), &[a * a, a])?;
    plan.plain(&name("input_layernorm.weight"), &[d])?;

    let r = config.laurel_rank;
    plan.matrix(&name("laurel.linear_left.weight"), Role::Side, r, d)?;
    plan.matrix(&name("laurel.linear_right.weight"), Role::Side, d, r)?;
    plan.plain(&name("laurel.post_laurel_norm.weight"), &[d])?;

    let (query, kv) = (config.query_width(), config.kv_width());
    plan.matrix(&name("self_attn.q_proj.weight"), Role::Attention, query, d)?;
    plan.plain(&name("self_attn.q_norm.weight"), &[config.head_dim])?;
    // Layers that share another one's K and V bring tensors for their own, which nothing reads.
    if layer < config.first_kv_shared_layer() {
        plan.matrix(&name("self_attn.k_proj.weight"), Role::Attention, kv, d)?;
        plan.matrix(&name("self_attn.v_proj.weight"), Role::Attention, kv, d)?;
        plan.plain(&name("self_attn.k_norm.weight"), &[config.head_dim])?;
    }
    plan.matrix(&name("self_attn.o_proj.weight"), Role::Attention, d, query)?;
    plan.plain(&name("post_attention_layernorm.weight"), &[d])?;
    plan.plain(&name("pre_feedforward_layernorm.weight"), &[d])?;

    let ffn = Role::FeedForward;
    plan.matrix(&name("mlp.gate_proj.weight"), ffn, f, d)?;
    let (up, down) = (name("mlp.up_proj.weight"), name("mlp.down_proj.weight"));
    if config.activation_sparsity_pattern[layer] > 0.0 {
        plan.quantized(&up, ffn, Arrangement::Rows, (f, d), false)?;
        plan.quantized(&down, ffn, Arrangement::Rows, (d, f), true)?;
    } else {
        plan.matrix(&up, ffn, f, d)?;
        plan.column_segments(&down, ffn, d, f, cuts)?;
    }
    plan.plain(&name("post_feedforward_layernorm.weight"), &[d])?;

    plan.plain(&name("altup.correction_coefs.weight"), &[a, a])?;
    if config.altup_correct_scale {
        plan.plain(&name("altup.correct_output_scale"), &[d])?;
    }
    plan.matrix(&name("per_layer_input_gate.weight"), Role::Side, p, d)?;
    plan.matrix(&name("per_layer_projection.weight"), Role::Side, d, p)?;
    plan.plain(&name("post_per_layer_input_norm.weight"), &[d])
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

    fn plain(&mut self, leaf: &str, shape: &[usize]) -> Result<(), PackError> {
        let name = format!("{TEXT_PREFIX}{leaf}");
        let tensor = self.look_up(&name, shape, false)?;
        self.entries.push(Entry {
            source: name.clone(),
            name,
            store: Store::Plain(tensor),
        });
        Ok(())
    }

    fn matrix(
        &mut self,
        leaf: &str,
        role: Role,
        rows: usize,
        cols: usize,
    ) -> Result<(), PackError> {
        self.quantized(leaf, role, Arrangement::Tiled, (rows, cols), false)
    }

    fn quantized(
        &mut self,
        leaf: &str,
        role: Role,
        arrangement: Arrangement,
        (rows, cols): (usize, usize),
        columns: bool,
    ) -> Result<(), PackError> {
        let name = format!("{TEXT_PREFIX}{leaf}");
        let is_table = matches!(role, Role::Head | Role::PleTable);
        self.look_up(&name, &[rows, cols], is_table)?;
        let blocks = Blocks {
            format: self.recipe.format(role, arrangement),
            columns,
            rows,
            cols,
        };
        self.entries.push(Entry {
            source: name.clone(),
            name,
            store: Store::Quantized {
                blocks,
                first_col: 0,
            },
        });
        Ok(())
    }

    /// The second plane of a matrix that is planned already, last of the file: it is not mapped with the others.
    fn residual(&mut self, leaf: &str, rows: usize, cols: usize) {
        let source = format!("{TEXT_PREFIX}{leaf}");
        self.entries.push(Entry {
            name: HEAD_RESIDUAL_PEAKS.to_owned(),
            source: source.clone(),
            store: Store::ResidualPeaks { rows, cols },
        });
        let blocks = Blocks {
            format: residual::SECOND_PLANE,
            columns: false,
            rows,
            cols,
        };
        self.entries.push(Entry {
            name: HEAD_RESIDUAL.to_owned(),
            source,
            store: Store::Residual(blocks),
        });
    }

    /// A matrix in segments of columns that end at `cuts`: each is a matrix of its own, so that a slice reads only its own.
    fn column_segments(
        &mut self,
        leaf: &str,
        role: Role,
        rows: usize,
        cols: usize,
        cuts: &[usize],
    ) -> Result<(), PackError> {
        if cuts.len() == 1 {
            return self.matrix(leaf, role, rows, cols);
        }
        let name = format!("{TEXT_PREFIX}{leaf}");
        self.look_up(&name, &[rows, cols], false)?;
        let mut first_col = 0;
        for (segment, &end) in cuts.iter().enumerate() {
            let blocks = Blocks {
                format: self.recipe.format(role, Arrangement::Tiled),
                columns: false,
                rows,
                cols: end - first_col,
            };
            self.entries.push(Entry {
                name: format!("{name}.{segment}"),
                source: name.clone(),
                store: Store::Quantized { blocks, first_col },
            });
            first_col = end;
        }
        Ok(())
    }
}
