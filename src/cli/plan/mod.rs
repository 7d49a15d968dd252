//! `gemmad plan`: which model, recipe and slice fit a board, and how fast they can be at most.

mod best;
mod table;

use std::path::{Path, PathBuf};

use kernels::{Isa, Pool};
use serde::Serialize;

use super::bench::memory_read_gb_s;
use super::failure::{Failure, exit};
use super::output::publish;
use super::{flash, procfs};
use crate::model::decoder::kv_cache::{KvCache, KvType};
use crate::model::weights::Checkpoint;
use crate::pack::{PackEstimate, Recipe, SyntheticSize};
use crate::pipeline::DAY_TRANSCRIPTS;
pub(super) use best::{Best, best_model, best_recipe};

/// Tell which model, recipe and MatFormer slice fit a board, what is resident when, and the speed at most
///
/// The published models are told, and the one that --model names: a checkpoint in each recipe that it may be packed with, a pack as it
/// is, both with all their slices. Sizes are exact: they follow from the shapes. Speeds and load times are projections, not
/// measurements: a pass reads the weights once, so no board is faster than its memory, and nothing is loaded faster than flash
/// is read. Without options, this machine is meant, whose memory is read to see how fast that is; with --model, so is the flash
/// where it lies.
#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    /// Memory of the board, GiB [default: that of this machine]
    #[arg(long, value_name = "GIB")]
    memory_gib: Option<f64>,
    /// What its memory gives to plain reading on all cores, GB/s [default: measured here]
    #[arg(long, value_name = "GB_S")]
    read_gb_s: Option<f64>,
    /// Directory of a checkpoint or a pack to plan for, too
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// What the flash gives when it is read in one go, MB/s [default: measured where --model lies; unknown without]
    #[arg(long, value_name = "MB_S")]
    flash_mb_s: Option<f64>,
    /// Tokens of context, prompt and answer together; of a model that can have fewer, its most
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    context: u32,
    /// Every published slice of Gemma 3n E4B, not only the smallest and the whole
    #[arg(long)]
    all_slices: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The documented keys of `--json`.
#[derive(Serialize)]
struct Report {
    memory_bytes: u64,
    read_gb_s: f64,
    /// Whether `read_gb_s` was measured on this machine.
    read_measured: bool,
    /// Instructions that the kernels would use here.
    isa: &'static str,
    context: usize,
    /// What load times are projected from; null where neither --model nor --flash-mb-s is given.
    flash: Option<Flash>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Flash {
    /// Read in one go, megabytes (10^6) per second.
    mb_s: f64,
    /// Whether it was measured, where the model lies.
    measured: bool,
    /// Mean time to read a row of the per-layer-embedding table, milliseconds; null where nothing was measured.
    row_ms: Option<f64>,
    /// It was measured through the page cache, which the file system does not let be passed by: it may be slower.
    through_page_cache: bool,
}

#[derive(Serialize)]
struct Row {
    /// `Gemma 4 E2B`, or the name of the directory that was given.
    model: String,
    recipe: String,
    matformer: String,
    /// The pack: all weights.
    flash_bytes: u64,
    /// Text weights, K/V cache and buffers, and the drafter of a pack that has one.
    resident_idle_bytes: u64,
    /// While somebody speaks: with the audio tower.
    resident_speech_bytes: u64,
    /// While something moves: with the vision tower.
    resident_motion_bytes: u64,
    weight_bytes_per_token: u64,
    /// A projection: what the memory gives, divided by what a token reads.
    projected_tok_s_at_most: f64,
    /// With so many tokens a pass as the transcripts of the recorded day have.
    projected_tok_s_guessed: f64,
    /// A projection: bytes of a group, divided by what the flash gives.
    projected_load_s_at_least: Option<LoadTimes>,
    /// `all`, `text` (no room for the towers) or `no`.
    fits: &'static str,
}

/// Seconds to read a parameter group from flash; 0 for a tower that the model lacks.
#[derive(Serialize)]
struct LoadTimes {
    /// What the slice reads of the text weights.
    text: f64,
    audio: f64,
    vision: f64,
}

/// Share of the memory that is left to the system and to other programs.
const LEFT_TO_OTHERS: f64 = 0.2;

/// Tokens that go through the model together.
const CHUNK: usize = 128;

impl Plan {
    pub(super) fn run(self) -> Result<(), Failure> {
        let positive = |value: Option<f64>, name: &str| match value {
            Some(value) if !(value > 0.0 && value.is_finite()) => Err(Failure::new(
                exit::USAGE,
                format_args!("{name} is {value}; it must be more than 0"),
            )),
            value => Ok(value),
        };
        let memory_gib = positive(self.memory_gib, "--memory-gib")?;
        let read_gb_s = positive(self.read_gb_s, "--read-gb-s")?;
        let flash_mb_s = positive(self.flash_mb_s, "--flash-mb-s")?;
        let model = self.model.as_deref().map(Model::open).transpose()?;
        let memory_bytes = match memory_gib {
            Some(gib) => (gib * f64::from(1u32 << 30)) as u64,
            None => memory_of_this_machine()?,
        };
        let isa = Isa::from_environment().map_err(|error| Failure::new(exit::CONFIG, error))?;
        let flash = match (flash_mb_s, &model) {
            (Some(mb_s), _) => Some(Flash {
                mb_s,
                measured: false,
                row_ms: None,
                through_page_cache: false,
            }),
            (None, Some(model)) => Some(model.measure_flash()?),
            (None, None) => None,
        };
        let mut report = Report {
            memory_bytes,
            read_measured: read_gb_s.is_none(),
            read_gb_s: read_gb_s.unwrap_or_else(|| {
                memory_read_gb_s(&Pool::new(isa, kernels::recommended_threads()))
            }),
            isa: isa.name(),
            context: self.context as usize,
            flash,
            rows: Vec::new(),
        };
        if let Some(model) = &model {
            model.add_rows(&mut report)?;
        }
        self.add_published(&mut report)?;
        publish(&report, self.json, table::print)
    }

    fn add_published(&self, report: &mut Report) -> Result<(), Failure> {
        for size in SyntheticSize::ALL {
            for &recipe in size.recipes() {
                let pack = PackEstimate::new(size, recipe)?;
                let whole = pack.slices.full().name.clone();
                let model = format!("{} {}", pack.architecture.spec().family, size.model());
                report.add(&pack, &model, recipe.name(), |slice| {
                    self.all_slices || slice == "e2b" || slice == whole
                });
            }
        }
        Ok(())
    }
}

/// Those of a checkpoint that is not quantised, from the smallest to the largest.
const RECIPES: [Recipe; 4] = [Recipe::Small, Recipe::Q4_0, Recipe::Balanced, Recipe::Q8];

/// The model that was given.
struct Model {
    name: String,
    checkpoint: Checkpoint,
}

impl Model {
    fn open(dir: &Path) -> Result<Model, Failure> {
        let checkpoint = Checkpoint::open_source(dir)?;
        // Also of `.`.
        let path = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let name = path.file_name().unwrap_or(path.as_os_str());
        let name = name.to_string_lossy().into_owned();
        Ok(Model { name, checkpoint })
    }

    fn measure_flash(&self) -> Result<Flash, Failure> {
        let speed = flash::of_checkpoint(&self.checkpoint, "give --flash-mb-s instead")?;
        Ok(Flash {
            mb_s: speed.megabytes_s,
            measured: true,
            row_ms: Some(speed.row_ms),
            through_page_cache: !speed.direct,
        })
    }

    /// A pack as it is, a checkpoint in each recipe.
    fn add_rows(&self, report: &mut Report) -> Result<(), Failure> {
        if let Some(manifest) = self.checkpoint.pack() {
            let pack = PackEstimate::of_pack(&self.checkpoint)?;
            report.add(&pack, &self.name, &manifest.recipe, |_| true);
            return Ok(());
        }
        let recipes = match self.checkpoint.is_mobile() {
            true => &[Recipe::Mobile][..],
            false => &RECIPES,
        };
        for &recipe in recipes {
            let pack = PackEstimate::of_checkpoint(self.checkpoint.dir(), recipe)?;
            report.add(&pack, &self.name, recipe.name(), |_| true);
        }
        Ok(())
    }
}

impl Report {
    /// A row for each slice whose name is `shown`.
    fn add(
        &mut self,
        pack: &PackEstimate,
        model: &str,
        recipe: &str,
        shown: impl Fn(&str) -> bool,
    ) {
        let spec = pack.architecture.spec();
        let context = self.context.min(spec.max_context);
        let beside = KvCache::bytes_for(&spec.layers, KvType::F16, context)
            + pack.architecture.buffer_bytes(CHUNK) as u64
            + pack.drafter_bytes;
        let room = self.memory_bytes as f64 * (1.0 - LEFT_TO_OTHERS);
        let [audio, vision] = pack.tower_bytes;
        for slice in pack.slices.iter().filter(|slice| shown(&slice.name)) {
            let of_slice = pack.slice(slice);
            let idle = of_slice.resident_bytes + beside;
            let fits = match (
                idle as f64 <= room,
                (idle + audio.max(vision)) as f64 <= room,
            ) {
                (_, true) => "all",
                (true, false) => "text",
                (false, false) => "no",
            };
            let passes_s = self.read_gb_s * 1e9 / of_slice.token_bytes as f64;
            let load = |flash: &Flash| {
                let seconds = |bytes: u64| bytes as f64 / 1e6 / flash.mb_s;
                LoadTimes {
                    text: seconds(of_slice.resident_bytes),
                    audio: seconds(audio),
                    vision: seconds(vision),
                }
            };
            self.rows.push(Row {
                model: model.to_owned(),
                recipe: recipe.to_owned(),
                matformer: slice.name.clone(),
                flash_bytes: pack.flash_bytes,
                resident_idle_bytes: idle,
                resident_speech_bytes: idle + audio,
                resident_motion_bytes: idle + vision,
                weight_bytes_per_token: of_slice.token_bytes,
                projected_tok_s_at_most: passes_s,
                projected_tok_s_guessed: passes_s * DAY_TRANSCRIPTS,
                projected_load_s_at_least: self.flash.as_ref().map(load),
                fits,
            });
        }
    }
}

fn memory_of_this_machine() -> Result<u64, Failure> {
    procfs::bytes("/proc/meminfo", "MemTotal:").ok_or_else(|| {
        Failure::new(
            exit::UNAVAILABLE,
            "/proc/meminfo does not tell how much memory there is: give --memory-gib",
        )
    })
}
