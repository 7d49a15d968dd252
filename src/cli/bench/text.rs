//! The text model: prefill and decode, bytes read per token, memory and load time of each parameter group.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use kernels::{Isa, Pool};
use serde::Serialize;

use super::context::Context;
use super::drafter::{self, Drafting};
use super::extend::extend_s;
use super::{Bench, mb, median, status_bytes, text_ids};
use crate::cli::failure::Failure;
use crate::cli::output::publish;
use crate::model::architecture::Architecture;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::{Decoder, Slice};
use crate::model::encoder::{AudioEncoder, VisionEncoder};
use crate::model::family;
use crate::model::spec::Spec;
use crate::model::weights::{Checkpoint, Group, GroupState, PleOptions};
use crate::pipeline::EngineError;

/// The documented keys of `--json`.
#[derive(Serialize)]
pub(in crate::cli) struct TextReport {
    model: String,
    recipe: Option<String>,
    matformer: String,
    pub(in crate::cli) isa: &'static str,
    pub(in crate::cli) threads: usize,
    pub(in crate::cli) prefill_tokens: usize,
    pub(in crate::cli) prefill_tok_s: f64,
    pub(in crate::cli) decode_tok_s: f64,
    /// Weights that one decoded token reads, counted as they are read.
    pub(in crate::cli) weight_bytes_per_token: u64,
    /// Rows of the LM head's second plane among them; 0 where it has none.
    head_rows_per_token: f64,
    /// The same two under a grammar that allows few tokens.
    grammar_decode_tok_s: f64,
    grammar_weight_bytes_per_token: u64,
    /// What decoding reads per second.
    weight_read_gb_s: f64,
    /// What plain reading of memory gives on the same threads.
    memory_read_gb_s: f64,
    groups: Vec<GroupReport>,
    /// Null where the model has no drafter.
    drafter: Option<Drafting>,
    kv_cache_bytes: u64,
    buffer_bytes: u64,
    /// Memory of this process, mapped weights included.
    pub(in crate::cli) resident_bytes: u64,
    pub(in crate::cli) peak_rss_bytes: u64,
    /// Where `--context` asks for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contexts: Vec<Context>,
}

#[derive(Serialize)]
struct GroupReport {
    group: String,
    /// While its memory was measured.
    state: GroupState,
    load_ms: f64,
    unload_ms: f64,
    mapped_bytes: u64,
    resident_bytes: u64,
}

impl Bench {
    pub(super) fn text(&self) -> Result<(), Failure> {
        publish(&self.measure_text()?, self.json, print)
    }

    /// What `gemmad bench text` tells.
    ///
    /// # Errors
    /// The model cannot be opened, or has fewer tokens of context than are asked for.
    pub(in crate::cli) fn measure_text(&self) -> Result<TextReport, Failure> {
        let dir = self.model()?;
        let architecture = family::load(dir)?;
        let spec = architecture.spec();
        self.check_context(spec)?;
        let checkpoint = Checkpoint::open(dir)?;
        let slices = architecture.slices(Some(dir))?;
        let slice = match &self.matformer {
            Some(name) => slices.get(name)?,
            None => slices.full(),
        };
        let pool = Pool::new(
            Isa::from_environment().map_err(EngineError::from)?,
            self.threads(),
        );
        let memory_read_gb_s = memory_read_gb_s(&pool);
        // The peak is to be the model's: 5 resets it (proc(5)). Where that is not allowed it includes the 0.5 GB just read.
        std::fs::write("/proc/self/clear_refs", "5").ok();

        let start = Instant::now();
        let (prefill, decode) = (self.prefill as usize, self.decode(32));
        let chunk = prefill.min(128);
        let ple = PleOptions::default();
        let mut text = architecture.decoder(&checkpoint, &ple, chunk, &mut |_, _| {})?;
        let text_load_ms = start.elapsed().as_secs_f64() * 1e3;
        let kind = self.kv_cache.into();
        let mut cache = KvCache::new(text.layers(), kind, prefill + 2 * decode + 1, chunk);
        let mut runs = Vec::new();
        // One run more than asked for: the first one reads the weights from flash.
        for _ in 0..=self.runs {
            runs.push(run_once(
                &pool,
                &mut *text,
                &mut cache,
                slice,
                spec,
                [prefill, decode],
            )?);
        }
        runs.remove(0);
        let weight_bytes_per_token = runs[0].weight_bytes / decode as u64;
        let head_rows_per_token = runs[0].head_rows as f64 / decode as f64;
        let per_second =
            |seconds: fn(&Run) -> f64| median(runs.iter().map(|run| decode as f64 / seconds(run)));
        let decode_tok_s = per_second(|run| run.decode_s);
        // The text model opens the PLE table, so the two load and unload together.
        let of = |group: Group, mapped_bytes, resident_bytes| GroupReport {
            group: group.to_string(),
            state: GroupState::Resident,
            load_ms: text_load_ms,
            unload_ms: 0.0,
            mapped_bytes,
            resident_bytes,
        };
        let (weights, ple) = (text.weights(), text.ple());
        let mut groups = vec![
            of(
                Group::Text,
                weights.mapped_bytes(),
                weights.resident_bytes(),
            ),
            of(Group::Ple, 0, ple.resident_bytes()),
        ];
        let resident_bytes = status_bytes("VmRSS:");
        let (kv_cache_bytes, buffer_bytes) = (cache.bytes(), text.buffer_bytes() as u64);
        let drafter = drafter::measure(&pool, &*architecture, &checkpoint, &mut *text, &cache)?;
        // The memory is to be that of one cache.
        drop(cache);
        let contexts = match self.context {
            Some(longest) => self.contexts(&pool, &mut *text, spec, slice, longest as usize)?,
            None => Vec::new(),
        };
        let start = Instant::now();
        text.evict();
        text.ple().evict();
        drop(text);
        let unload_ms = start.elapsed().as_secs_f64() * 1e3;
        groups
            .iter_mut()
            .for_each(|group| group.unload_ms = unload_ms);
        groups.extend(encoders(&checkpoint, &*architecture, &pool)?);
        Ok(TextReport {
            model: dir.display().to_string(),
            recipe: checkpoint.pack().map(|pack| pack.recipe.clone()),
            matformer: slice.name.clone(),
            isa: pool.isa().name(),
            threads: pool.threads(),
            prefill_tokens: prefill,
            prefill_tok_s: median(runs.iter().map(|run| prefill as f64 / run.prefill_s)),
            decode_tok_s,
            weight_bytes_per_token,
            head_rows_per_token,
            grammar_decode_tok_s: per_second(|run| run.grammar_decode_s),
            grammar_weight_bytes_per_token: runs[0].grammar_weight_bytes / decode as u64,
            weight_read_gb_s: decode_tok_s * weight_bytes_per_token as f64 / 1e9,
            memory_read_gb_s,
            groups,
            drafter,
            kv_cache_bytes,
            buffer_bytes,
            resident_bytes,
            peak_rss_bytes: status_bytes("VmHWM:"),
            contexts,
        })
    }
}

struct Run {
    prefill_s: f64,
    decode_s: f64,
    weight_bytes: u64,
    head_rows: u64,
    grammar_decode_s: f64,
    grammar_weight_bytes: u64,
}

/// Tokens that a grammar allows: the words, or pieces of words, of a list of commands.
const GRAMMAR_TOKENS: usize = 64;

fn run_once(
    pool: &Pool,
    decoder: &mut dyn Decoder,
    cache: &mut KvCache,
    slice: &Slice,
    spec: &Spec,
    [prefill, decode]: [usize; 2],
) -> Result<Run, EngineError> {
    cache.clear();
    let mut logits = vec![0.0; spec.text_vocab_size];
    let mut random = text_ids(spec);
    let mut extend = |decoder: &mut dyn Decoder, ids: &[u32], piece: usize, allowed: &[u32]| {
        let pieces = ids.chunks(piece);
        extend_s(pool, decoder, cache, slice, pieces, allowed, &mut logits)
    };
    let ids: Vec<u32> = random.by_ref().take(prefill).collect();
    let prefill_s = extend(decoder, &ids, prefill, &[])?;
    let (before, rows_before) = (pool.weight_bytes(), decoder.second_plane_rows());
    let ids: Vec<u32> = random.by_ref().take(decode).collect();
    let decode_s = extend(decoder, &ids, 1, &[])?;
    let (between, rows_between) = (pool.weight_bytes(), decoder.second_plane_rows());
    let mut allowed: Vec<u32> = random.by_ref().take(GRAMMAR_TOKENS).collect();
    allowed.sort_unstable();
    allowed.dedup();
    let ids: Vec<u32> = random.take(decode).collect();
    let grammar_decode_s = extend(decoder, &ids, 1, &allowed)?;
    Ok(Run {
        prefill_s,
        decode_s,
        weight_bytes: between - before,
        head_rows: rows_between - rows_before,
        grammar_decode_s,
        grammar_weight_bytes: pool.weight_bytes() - between,
    })
}

/// Loads and drops the encoders that the checkpoint has.
fn encoders(
    checkpoint: &Checkpoint,
    architecture: &dyn Architecture,
    pool: &Pool,
) -> Result<Vec<GroupReport>, EngineError> {
    let mut groups = Vec::new();
    for group in [Group::Audio, Group::Vision] {
        if !checkpoint.has(group) {
            continue;
        }
        let start = Instant::now();
        let loaded = if group == Group::Audio {
            let encoder = architecture.audio_encoder(checkpoint, pool)?;
            encoder.map(Loaded::Audio)
        } else {
            let encoder = architecture.vision_encoder(checkpoint)?;
            encoder.map(Loaded::Vision)
        };
        let Some(loaded) = loaded else { continue };
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        let weights = match &loaded {
            Loaded::Audio(encoder) => encoder.weights(),
            Loaded::Vision(encoder) => encoder.weights(),
        };
        let (mapped_bytes, resident_bytes) = (weights.mapped_bytes(), weights.resident_bytes());
        let start = Instant::now();
        drop(loaded);
        let unload_ms = start.elapsed().as_secs_f64() * 1e3;
        groups.push(GroupReport {
            group: group.to_string(),
            state: GroupState::Resident,
            load_ms,
            unload_ms,
            mapped_bytes,
            resident_bytes,
        });
    }
    Ok(groups)
}

enum Loaded {
    Audio(Arc<dyn AudioEncoder>),
    Vision(Arc<dyn VisionEncoder>),
}

/// Bytes that one pass reads: far beyond any cache.
const READ_BYTES: usize = 512 << 20;
const READ_TASK_WORDS: usize = 128 * 1024;

/// Reads memory on all threads and gives the fastest of five passes, in GB/s.
pub(in crate::cli) fn memory_read_gb_s(pool: &Pool) -> f64 {
    // Not zeroes: those would all be one page.
    let words: Vec<u64> = (0..(READ_BYTES / 8) as u64).collect();
    let tasks = words.len() / READ_TASK_WORDS;
    let mut best = 0.0f64;
    for _ in 0..5 {
        let start = Instant::now();
        pool.run(tasks, &|task| {
            let words = &words[task * READ_TASK_WORDS..(task + 1) * READ_TASK_WORDS];
            std::hint::black_box(words.iter().fold(0u64, |sum, &word| sum.wrapping_add(word)));
        });
        best = best.max(READ_BYTES as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    best
}

fn print(report: &TextReport, out: &mut dyn Write) -> std::io::Result<()> {
    let recipe = report.recipe.as_deref().unwrap_or("as published");
    writeln!(
        out,
        "{} ({recipe}), slice {}, {} threads, {}",
        report.model, report.matformer, report.threads, report.isa
    )?;
    writeln!(
        out,
        "  {:<28}{:>12.1} tok/s ({} tokens)",
        "prefill", report.prefill_tok_s, report.prefill_tokens
    )?;
    writeln!(out, "  {:<28}{:>12.1} tok/s", "decode", report.decode_tok_s)?;
    writeln!(
        out,
        "  {:<28}{:>15}",
        "weights read per token",
        mb(report.weight_bytes_per_token)
    )?;
    if report.head_rows_per_token > 0.0 {
        writeln!(
            out,
            "  {:<28}{:>12.1} rows of its second plane",
            "of the LM head", report.head_rows_per_token
        )?;
    }
    writeln!(
        out,
        "  {:<28}{:>12.1} tok/s, {} read per token",
        "decode, of 64 tokens only",
        report.grammar_decode_tok_s,
        mb(report.grammar_weight_bytes_per_token)
    )?;
    writeln!(
        out,
        "  {:<28}{:>12.2} GB/s, {:.0} % of the {:.2} GB/s that plain reading gives",
        "decoding reads",
        report.weight_read_gb_s,
        100.0 * report.weight_read_gb_s / report.memory_read_gb_s,
        report.memory_read_gb_s
    )?;
    for group in &report.groups {
        writeln!(
            out,
            "  {:<28}load {:.1} ms, unload {:.1} ms, mapped {}, resident {}",
            format!("group {}", group.group),
            group.load_ms,
            group.unload_ms,
            mb(group.mapped_bytes),
            mb(group.resident_bytes)
        )?;
    }
    if let Some(drafter) = &report.drafter {
        drafter.print(report.decode_tok_s, out)?;
    }
    writeln!(
        out,
        "  {:<28}{:>15}",
        "K/V cache",
        mb(report.kv_cache_bytes)
    )?;
    writeln!(out, "  {:<28}{:>15}", "buffers", mb(report.buffer_bytes))?;
    writeln!(
        out,
        "  {:<28}{:>15}",
        "resident, text loaded",
        mb(report.resident_bytes)
    )?;
    writeln!(
        out,
        "  {:<28}{:>15}",
        "peak resident",
        mb(report.peak_rss_bytes)
    )?;
    for context in &report.contexts {
        writeln!(
            out,
            "  {:<28}decode {:.1} tok/s, prefill {:.1} tok/s, resident {}",
            format!("{} tokens of context", context.context_tokens),
            context.decode_tok_s,
            context.prefill_tok_s,
            mb(context.resident_bytes)
        )?;
    }
    Ok(())
}
