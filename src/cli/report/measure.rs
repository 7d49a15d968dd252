//! What is measured of a model: as `gemmad bench` measures it, with its defaults.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ValueEnum;

use super::projection::{self, ANSWER, DECODE, SPEECH, prefill, seconds};
use crate::cli::bench::{Bench, Events, PADDED, TextReport};
use crate::cli::failure::Failure;
use crate::cli::flash::{self, Speed};
use crate::cli::model_args::command_of;
use crate::cli::pack::RecipeArg;
use crate::model::family;
use crate::model::weights::{Checkpoint, Group};
use crate::pack::{PackEstimate, SyntheticSize};

/// A model that is measured.
pub(super) struct Model {
    pub(super) dir: PathBuf,
    /// Its family, and which published model it is: never what its directory is called.
    label: String,
    /// What it is called in the record of the projections.
    pub(super) size: Option<&'static str>,
    pub(super) recipe: String,
    pub(super) hears: bool,
    sees: bool,
    /// Whether clips are filled up.
    pub(super) pads: bool,
    max_context: usize,
    text_bytes: u64,
}

/// What was measured of it.
pub(super) struct Measured {
    /// Named as the projections are.
    pub(super) figures: Vec<(String, f64)>,
    pub(super) text: TextReport,
    /// Resident with a tower: audio, vision.
    pub(super) with_towers: [Option<u64>; 2],
    pub(super) flash: Speed,
}

/// Tokens of a longer prompt.
const LONG_PROMPT: usize = 512;

impl Model {
    /// Looks what a directory holds.
    ///
    /// # Errors
    /// No model that can be run.
    pub(super) fn open(dir: PathBuf) -> Result<Model, Failure> {
        let architecture = family::load(&dir)?;
        let spec = architecture.spec();
        let checkpoint = Checkpoint::open(&dir)?;
        let size = SyntheticSize::ALL.into_iter().find(|size| {
            let recipe = size.recipes().first().copied().unwrap_or_default();
            PackEstimate::new(*size, recipe).is_ok_and(|published| {
                let its = published.architecture.spec();
                (its.family, its.hidden_size, its.layers.len())
                    == (spec.family, spec.hidden_size, spec.layers.len())
            })
        });
        // A name that this program gives: what stands in a pack may be anybody's.
        let recipe = match checkpoint.pack() {
            None => "bf16".to_owned(),
            Some(pack) => match RecipeArg::from_str(&pack.recipe, false) {
                Ok(known) => known.recipe().name().to_owned(),
                Err(_) => "of an unknown recipe".to_owned(),
            },
        };
        let text = checkpoint
            .tensors()
            .filter(|info| info.group == Some(Group::Text));
        let label = size.and_then(projection::label);
        Ok(Model {
            label: label.unwrap_or_else(|| format!("{} of another size", spec.family)),
            size: size.map(SyntheticSize::name),
            recipe,
            hears: checkpoint.has(Group::Audio),
            sees: checkpoint.has(Group::Vision),
            pads: spec.pads_clips(),
            max_context: spec.max_context,
            text_bytes: text.map(|info| info.bytes).sum(),
            dir,
        })
    }

    /// For people: `Gemma 4 E2B, mobile`.
    pub(super) fn name(&self) -> String {
        format!("{}, {}", self.label, self.recipe)
    }

    /// About how long it is measured, where memory gives so much. What a token takes follows from that, and the rest from what
    /// machines of very different speed have in common: prompts are read eight times as fast at least, a picture costs 100 tokens at most,
    /// and nobody hears slower than people speak.
    pub(super) fn seconds(&self, runs: u32, quick: bool, read_gb_s: f64) -> f64 {
        let runs = f64::from(runs) + 1.0;
        let token = self.text_bytes as f64 / 1e9 / read_gb_s.max(0.1);
        let prompt = |tokens: f64| tokens / 8.0 * token;
        let warm = 2.0 * prompt(700.0);
        let spoken = match (self.hears, self.pads) {
            (false, _) => 0.0,
            (true, false) => warm + runs * (3.0 + 12.0 * token),
            (true, true) => 2.0 * warm + runs * (6.0 + 24.0 * token + prompt(188.0)),
        };
        let pictures = match (self.sees, quick) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => 3.0,
        };
        let seen = pictures * (warm + runs * (100.0 + 12.0) * token);
        let long = if quick {
            0.0
        } else {
            2.0 * (prompt(512.0) + 4.0 * token)
        };
        let text = runs * (prompt(128.0) + 64.0 * token) + long;
        // Flash is read for six seconds, and weights at 100 MB/s.
        6.0 + self.text_bytes as f64 / 1e8 + text + spoken + seen
    }

    /// `gemmad bench WHAT` of this model, with more of its options.
    fn bench(&self, what: &str, runs: u32, more: &[&str]) -> Result<Bench, Failure> {
        let mut line: Vec<OsString> = vec![what.into(), "--model".into(), self.dir.clone().into()];
        line.push(format!("--runs={runs}").into());
        line.extend(more.iter().map(OsString::from));
        command_of(line)
    }
}

/// Measures all of it; `step` is told what comes next.
///
/// # Errors
/// The model cannot be read or run.
pub(super) fn measure(
    model: &Model,
    runs: u32,
    quick: bool,
    step: &mut dyn FnMut(&str),
) -> Result<Measured, Failure> {
    step("flash");
    let checkpoint = Checkpoint::open(&model.dir)?;
    let flash = flash::of_checkpoint(&checkpoint, "the model has to be readable")?;
    drop(checkpoint);
    step("prompts and answers");
    let text = model.bench("text", runs, &[])?.measure_text()?;
    let mut figures = vec![
        (DECODE.to_owned(), text.decode_tok_s),
        (prefill(text.prefill_tokens), text.prefill_tok_s),
    ];
    if !quick && model.max_context > LONG_PROMPT + 2 {
        step("a longer prompt");
        let options = [&*format!("--prefill={LONG_PROMPT}"), "--decode=1"];
        let long = model.bench("text", 1, &options)?.measure_text()?;
        figures.push((prefill(long.prefill_tokens), long.prefill_tok_s));
    }
    let mut with_towers = [None; 2];
    let mut answers = Vec::new();
    if model.hears {
        step("speech");
        let spoken = model.bench("voice", runs, &[])?.spoken(false)?;
        with_towers[0] = most_resident(spoken.as_ref());
        for event in spoken.into_iter().flat_map(|events| events.events) {
            let padded = event.event.ends_with(PADDED);
            if let Some(share) = event.real_time_factor.filter(|_| !padded) {
                figures.push((SPEECH.to_owned(), share));
            }
            let how = if padded { PADDED } else { "" };
            answers.push((seconds(&format!("{ANSWER}{how}")), event.latency_ms / 1e3));
        }
    }
    if model.sees {
        step("pictures");
        let sizes = if quick { 1 } else { usize::MAX };
        let seen = model.bench("image", runs, &[])?.seen(sizes)?;
        with_towers[1] = most_resident(seen.as_ref());
        for event in seen.into_iter().flat_map(|events| events.events) {
            figures.push((seconds(&event.event), event.encode_ms / 1e3));
        }
    }
    figures.extend(answers);
    Ok(Measured {
        figures,
        text,
        with_towers,
        flash,
    })
}

fn most_resident(events: Option<&Events>) -> Option<u64> {
    let events = events.iter().flat_map(|events| &events.events);
    events.map(|event| event.resident_loaded_bytes).max()
}
