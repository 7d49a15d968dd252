//! `gemmad plan`: which model, recipe and slice fit a board, and how fast they can be at most.

use std::io::Write;

use kernels::{Isa, Pool};
use serde::Serialize;

use super::bench::memory_read_gb_s;
use super::failure::{Failure, exit};
use super::output::publish;
use super::procfs;
use crate::model::kv_cache::{KvCache, KvType};
use crate::model::text::Workspace;
use crate::pack::{PackEstimate, Recipe, SyntheticSize};

/// Tell which published model, recipe and MatFormer slice fit a board, what is resident when, and the speed at most
///
/// Sizes are exact: they follow from the published shapes. Speeds are projections, not measurements: a decoded token reads its
/// weights once, so no board is faster than its memory. Without options, this machine is meant, whose memory is read to see how
/// fast that is.
#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    /// Memory of the board, GiB [default: that of this machine]
    #[arg(long, value_name = "GIB")]
    memory_gib: Option<f64>,
    /// What its memory gives to plain reading on all cores, GB/s [default: measured here]
    #[arg(long, value_name = "GB_S")]
    read_gb_s: Option<f64>,
    /// Tokens of context: prompt and answer together
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    context: u32,
    /// Every published slice of E4B, not only the smallest and the whole
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
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    model: &'static str,
    recipe: &'static str,
    matformer: String,
    /// The pack: all four files.
    flash_bytes: u64,
    /// Text weights, K/V cache and buffers.
    resident_idle_bytes: u64,
    /// While somebody speaks: with the audio tower.
    resident_speech_bytes: u64,
    /// While something moves: with the vision tower.
    resident_motion_bytes: u64,
    weight_bytes_per_token: u64,
    /// A projection: what the memory gives, divided by what a token reads.
    projected_tok_s_at_most: f64,
    /// `all`, `text` (no room for the towers) or `no`.
    fits: &'static str,
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
        let memory_bytes = match memory_gib {
            Some(gib) => (gib * f64::from(1u32 << 30)) as u64,
            None => memory_of_this_machine()?,
        };
        let isa = Isa::from_environment().map_err(|error| Failure::new(exit::CONFIG, error))?;
        let report = Report {
            memory_bytes,
            read_measured: read_gb_s.is_none(),
            read_gb_s: read_gb_s.unwrap_or_else(|| {
                memory_read_gb_s(&Pool::new(isa, kernels::recommended_threads()))
            }),
            isa: isa.name(),
            context: self.context as usize,
            rows: Vec::new(),
        };
        let report = self.with_rows(report)?;
        publish(&report, self.json, print)
    }

    fn with_rows(&self, mut report: Report) -> Result<Report, Failure> {
        for (size, model) in [(SyntheticSize::E2b, "E2B"), (SyntheticSize::E4b, "E4B")] {
            for recipe in [Recipe::Small, Recipe::Balanced, Recipe::Q8] {
                let pack = PackEstimate::new(size, recipe)?;
                let text = &pack.config.text;
                let beside = KvCache::bytes_for(text, KvType::F16, report.context)
                    + Workspace::new(text, CHUNK).bytes() as u64;
                let whole = pack.slices.full();
                let shown = pack.slices.iter().filter(|slice| {
                    self.all_slices || slice.name == "e2b" || slice.name == whole.name
                });
                for slice in shown {
                    let of_slice = pack.slice(slice);
                    let idle = of_slice.resident_bytes + beside;
                    let [audio, vision] = pack.tower_bytes;
                    let room = report.memory_bytes as f64 * (1.0 - LEFT_TO_OTHERS);
                    let fits = match (
                        idle as f64 <= room,
                        (idle + audio.max(vision)) as f64 <= room,
                    ) {
                        (_, true) => "all",
                        (true, false) => "text",
                        (false, false) => "no",
                    };
                    report.rows.push(Row {
                        model,
                        recipe: recipe.name(),
                        matformer: slice.name.clone(),
                        flash_bytes: pack.flash_bytes,
                        resident_idle_bytes: idle,
                        resident_speech_bytes: idle + audio,
                        resident_motion_bytes: idle + vision,
                        weight_bytes_per_token: of_slice.token_bytes,
                        projected_tok_s_at_most: report.read_gb_s * 1e9
                            / of_slice.token_bytes as f64,
                        fits,
                    });
                }
            }
        }
        Ok(report)
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

fn print(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let measured = match report.read_measured {
        true => "measured here",
        false => "as given",
    };
    writeln!(
        out,
        "{:.1} GB of memory, {:.1} GB/s plain reading ({measured}); kernels here: {}; context {}",
        gb(report.memory_bytes),
        report.read_gb_s,
        report.isa,
        report.context
    )?;
    writeln!(
        out,
        "\n{:<6}{:<10}{:<9}{:>9}{:>9}{:>9}{:>9}{:>12}{:>12}  fits",
        "model", "recipe", "slice", "flash", "idle", "speech", "motion", "per token", "at most"
    )?;
    writeln!(
        out,
        "{:<25}{:>9}{:>9}{:>9}{:>9}{:>12}{:>12}",
        "", "GB", "GB", "GB", "GB", "MB", "tok/s"
    )?;
    for row in &report.rows {
        writeln!(
            out,
            "{:<6}{:<10}{:<9}{:>9.1}{:>9.2}{:>9.2}{:>9.2}{:>12.0}{:>12.1}  {}",
            row.model,
            row.recipe,
            row.matformer,
            gb(row.flash_bytes),
            gb(row.resident_idle_bytes),
            gb(row.resident_speech_bytes),
            gb(row.resident_motion_bytes),
            row.weight_bytes_per_token as f64 / 1e6,
            row.projected_tok_s_at_most,
            row.fits
        )?;
    }
    writeln!(
        out,
        "\nidle, speech, motion: resident with the text model, with the audio tower too, with the vision tower too; a fifth of the\n\
         memory is left to others. tok/s is a projection, not a measurement: no more can be decoded than memory gives weights."
    )
}
