//! `gemmad inspect`: what a checkpoint holds.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::failure::Failure;
use super::model_args::{self, ModelArgs};
use super::output::publish;
use super::progress;
use crate::model::architecture::Architecture;
use crate::model::decoder::Slices;
use crate::model::decoder::kv_cache::{KvCache, KvType};
use crate::model::family;
use crate::model::tensor_table::Category;
use crate::model::weights::{Checkpoint, Group};

/// Show what a checkpoint holds: parameter groups, sizes, hyper-parameters, MatFormer slices
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    model: ModelArgs,
    /// Read every file of a pack and compare it with the hash that was stored when it was written
    #[arg(long)]
    verify: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    /// Whether every file of the pack was read and has its hash.
    verified: bool,
    /// What a pack says of itself; null for a checkpoint as published.
    pack: Option<PackReport>,
    groups: Vec<GroupReport>,
    categories: BTreeMap<&'static str, u64>,
    effective_parameters: u64,
    total_parameters: u64,
    text: TextReport,
    kv_cache: Vec<KvReport>,
    slices: Vec<SliceReport>,
}

#[derive(Serialize)]
struct PackReport {
    recipe: String,
    /// Names of the directory or the files that it was made from.
    source: String,
}

#[derive(Serialize)]
struct GroupReport {
    group: String,
    tensors: usize,
    parameters: u64,
    bytes: u64,
    mapped_bytes: u64,
    /// What the page cache has of what is mapped, whoever read it; null where the kernel does not tell this user.
    resident_bytes: Option<u64>,
}

#[derive(Serialize)]
struct TextReport {
    num_hidden_layers: usize,
    num_kv_shared_layers: usize,
    hidden_size: usize,
    intermediate_size: Vec<usize>,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    /// Of layers that see the whole context.
    num_global_key_value_heads: usize,
    head_dim: usize,
    /// Of layers that see the whole context.
    global_head_dim: usize,
    sliding_window: usize,
    full_attention_layers: Vec<usize>,
    vocab_size: usize,
    vocab_size_per_layer_input: usize,
    hidden_size_per_layer_input: usize,
    max_position_embeddings: usize,
}

#[derive(Serialize)]
struct KvReport {
    context: usize,
    bytes_8_bit: u64,
    bytes_16_bit: u64,
    bytes_32_bit: u64,
}

#[derive(Serialize)]
struct SliceReport {
    name: String,
    layers: usize,
    ffn_parameters: u64,
}

/// Contexts whose cache size is printed, with the model's limit: what a voice command needs at most, and a long text.
const SHOWN_CONTEXTS: [usize; 2] = [4096, 32_768];

impl Inspect {
    pub(super) fn run(self) -> Result<(), Failure> {
        let dir = &self.model.model;
        if self.verify {
            let bar = progress::of_bytes("verifying");
            let verified = crate::pack::verify(dir, &mut |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            verified?;
        }
        let architecture = family::load(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        model_args::warn(checkpoint.warnings());
        let slices = architecture.slices(Some(dir))?;
        let mut report = report(&*architecture, &checkpoint, &slices)?;
        report.verified = self.verify;
        publish(&report, self.json, |report, out| {
            print(report, architecture.categories(), out)
        })
    }
}

fn report(
    architecture: &dyn Architecture,
    checkpoint: &Checkpoint,
    slices: &Slices,
) -> Result<Report, Failure> {
    let spec = architecture.spec();
    let layers = &spec.layers;
    // A layer of either kind; where there is one kind only, it stands for the other.
    let of_kind = |is_global: bool| {
        let mut own = layers
            .iter()
            .filter(|layer| layer.window.is_none() == is_global);
        own.next().unwrap_or(&layers[0])
    };
    let (local, global) = (of_kind(false), of_kind(true));
    let known = architecture.categories();
    let mut categories: BTreeMap<_, u64> =
        known.iter().map(|category| (category.name, 0)).collect();
    for info in checkpoint.tensors() {
        let counted = architecture.category(&info.name);
        if let Some(count) = counted.and_then(|name| categories.get_mut(name)) {
            *count += info.parameters();
        }
    }
    let effective = known.iter().filter(|category| category.is_effective);
    let shown = SHOWN_CONTEXTS.into_iter();
    let contexts = shown
        .filter(|&context| context < spec.max_context)
        .chain([spec.max_context]);
    Ok(Report {
        model: checkpoint.dir().display().to_string(),
        verified: false,
        pack: checkpoint.pack().map(|pack| PackReport {
            recipe: pack.recipe.clone(),
            source: pack.source.clone(),
        }),
        groups: Group::ALL
            .into_iter()
            .filter(|&group| group != Group::Drafter || checkpoint.has(group))
            .map(|group| group_report(checkpoint, group))
            .collect::<Result<_, _>>()?,
        effective_parameters: effective.map(|category| categories[category.name]).sum(),
        total_parameters: checkpoint
            .tensors()
            // The drafter is a model of its own.
            .filter(|info| !matches!(info.group, None | Some(Group::Drafter)))
            .map(|info| info.parameters())
            .sum(),
        categories,
        text: TextReport {
            num_hidden_layers: layers.len(),
            num_kv_shared_layers: layers.len() - spec.own_kv_layers(),
            hidden_size: spec.hidden_size,
            intermediate_size: layers.iter().map(|layer| layer.ffn_width).collect(),
            num_attention_heads: local.heads,
            num_key_value_heads: local.kv_heads,
            num_global_key_value_heads: global.kv_heads,
            head_dim: local.head_dim,
            global_head_dim: global.head_dim,
            sliding_window: spec.sliding_window,
            full_attention_layers: (0..layers.len())
                .filter(|&layer| layers[layer].window.is_none())
                .collect(),
            vocab_size: spec.vocab_size,
            vocab_size_per_layer_input: spec.text_vocab_size,
            hidden_size_per_layer_input: spec.per_layer_input_size,
            max_position_embeddings: spec.max_context,
        },
        kv_cache: contexts
            .map(|context| KvReport {
                context,
                bytes_8_bit: KvCache::bytes_for(layers, KvType::Int8, context),
                bytes_16_bit: KvCache::bytes_for(layers, KvType::F16, context),
                bytes_32_bit: KvCache::bytes_for(layers, KvType::F32, context),
            })
            .collect(),
        slices: slices
            .iter()
            .map(|slice| SliceReport {
                name: slice.name.clone(),
                layers: slice.num_layers(),
                ffn_parameters: slice
                    .layers()
                    .filter_map(|layer| slice.width(layer))
                    .map(|width| 3 * (width * spec.hidden_size) as u64)
                    .sum(),
            })
            .collect(),
    })
}

fn group_report(checkpoint: &Checkpoint, group: Group) -> Result<GroupReport, Failure> {
    let tensors: Vec<_> = checkpoint
        .tensors()
        .filter(|info| info.group == Some(group))
        .collect();
    let mapped = checkpoint.load(group)?;
    // To look is not to change.
    mapped.keep_cached();
    Ok(GroupReport {
        group: group.to_string(),
        tensors: tensors.len(),
        parameters: tensors.iter().map(|info| info.parameters()).sum(),
        bytes: tensors.iter().map(|info| info.bytes).sum(),
        mapped_bytes: mapped.mapped_bytes(),
        resident_bytes: mapped.cached_bytes(),
    })
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn print(report: &Report, categories: &[Category], out: &mut dyn Write) -> std::io::Result<()> {
    let verified = if report.verified {
        " (every file has its hash)"
    } else {
        ""
    };
    writeln!(out, "{}{verified}", report.model)?;
    if let Some(pack) = &report.pack {
        writeln!(out, "recipe {}, made from {}", pack.recipe, pack.source)?;
    }
    writeln!(
        out,
        "\n{:<8}{:>9}{:>16}{:>14}{:>14}{:>14}",
        "group", "tensors", "parameters", "size", "mapped", "resident"
    )?;
    for group in &report.groups {
        writeln!(
            out,
            "{:<8}{:>9}{:>16}{:>14}{:>14}{:>14}",
            group.group,
            group.tensors,
            group.parameters,
            mib(group.bytes),
            mib(group.mapped_bytes),
            group
                .resident_bytes
                .map_or_else(|| "not told".to_owned(), mib)
        )?;
    }
    writeln!(out, "\nparameters")?;
    for Category { name, .. } in categories {
        writeln!(out, "  {name:<18}{:>16}", report.categories[name])?;
    }
    let left_out = categories.iter().filter(|category| !category.is_effective);
    let left_out: Vec<&str> = left_out.map(|category| category.name).collect();
    writeln!(
        out,
        "  {:<18}{:>16}  (without {})",
        "effective",
        report.effective_parameters,
        left_out.join(", ")
    )?;
    writeln!(out, "  {:<18}{:>16}", "total", report.total_parameters)?;
    let text = &report.text;
    writeln!(out, "\nhyper-parameters")?;
    for (key, value) in [
        ("num_hidden_layers", text.num_hidden_layers.to_string()),
        (
            "num_kv_shared_layers",
            text.num_kv_shared_layers.to_string(),
        ),
        ("hidden_size", text.hidden_size.to_string()),
        ("intermediate_size", runs(&text.intermediate_size)),
        ("num_attention_heads", text.num_attention_heads.to_string()),
        (
            "num_key_value_heads",
            by_kind(text.num_key_value_heads, text.num_global_key_value_heads),
        ),
        ("head_dim", by_kind(text.head_dim, text.global_head_dim)),
        ("sliding_window", text.sliding_window.to_string()),
        (
            "full_attention",
            format!("layers {:?}", text.full_attention_layers),
        ),
        (
            "vocab_size",
            format!(
                "{} ({} text)",
                text.vocab_size, text.vocab_size_per_layer_input
            ),
        ),
        (
            "hidden_size_per_layer_input",
            text.hidden_size_per_layer_input.to_string(),
        ),
        (
            "max_position_embeddings",
            text.max_position_embeddings.to_string(),
        ),
    ] {
        writeln!(out, "  {key:<29}{value}")?;
    }
    writeln!(out, "\nKV cache")?;
    for kv in &report.kv_cache {
        writeln!(
            out,
            "  {:>6} tokens: {} in 8 bit, {} in 16 bit, {} in 32 bit",
            kv.context,
            mib(kv.bytes_8_bit),
            mib(kv.bytes_16_bit),
            mib(kv.bytes_32_bit)
        )?;
    }
    if report.slices.len() == 1 {
        writeln!(out, "\nno MatFormer slices but the whole model")?;
        return Ok(());
    }
    writeln!(out, "\nMatFormer slices")?;
    for slice in &report.slices {
        writeln!(
            out,
            "  {:<14}{:>3} layers, {} FFN parameters",
            slice.name, slice.layers, slice.ffn_parameters
        )?;
    }
    Ok(())
}

/// What layers with a window have, and those of full attention where it is something else.
fn by_kind(local: usize, global: usize) -> String {
    match local == global {
        true => local.to_string(),
        false => format!("{local}, {global} in layers of full attention"),
    }
}

/// Equal neighbours counted: `16384 × 35`.
fn runs(values: &[usize]) -> String {
    let chunks = values.chunk_by(|a, b| a == b);
    chunks
        .map(|run| format!("{} × {}", run[0], run.len()))
        .collect::<Vec<_>>()
        .join(", ")
}
