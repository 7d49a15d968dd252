//! `gemmad bench`: how fast a model runs here, how many bytes it reads, how much memory it takes.

mod event;
mod kernels;
mod text;

pub(super) use text::memory_read_gb_s;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::{Failure, exit};

/// Measure speed, bytes read and memory on this machine
///
/// Random token ids, noise and random pictures go through the model: what it says does not matter, and the cost does not depend
/// on it.
#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// What to measure
    #[arg(value_enum, default_value_t = What::Text)]
    what: What,
    /// Directory of a Gemma 3n checkpoint or pack; kernels need none
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Threads that compute [default: one for each fast core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// MatFormer slice to measure [default: the whole model]
    #[arg(long, value_name = "NAME")]
    matformer: Option<String>,
    /// Tokens of the prompt; of text
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    prefill: u32,
    /// Tokens to decode [default: 32 of text, 12 of an answer to what is heard or seen]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32_768))]
    decode: Option<u32>,
    /// Repetitions, of which the median is printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// A gemmad.toml: its prompts and how it has media encoded
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Prefill and decode, weights read per token, each parameter group's load time and memory
    Text,
    /// A picture of each resolution that the vision tower knows: seconds to soft tokens and to the answer, memory
    Image,
    /// Clips of 3, 10 and 30 s: the audio tower's share of real time, memory
    Audio,
    /// From the end of speech to the last token of the answer, with the sound encoded while it is spoken and only after
    Voice,
    /// Each kernel on each instruction set of this CPU, compared with the scalar reference first
    Kernels,
}

impl Bench {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.what {
            What::Text => self.text(),
            What::Image => self.image(),
            What::Audio => self.audio(),
            What::Voice => self.voice(),
            What::Kernels => self.kernels(),
        }
    }

    fn model(&self) -> Result<&Path, Failure> {
        self.model.as_deref().ok_or_else(|| {
            Failure::new(
                exit::USAGE,
                "which model is to be measured? Give its directory with --model DIR",
            )
        })
    }

    fn threads(&self) -> usize {
        self.threads
            .map_or_else(::kernels::recommended_threads, usize::from)
    }

    fn decode(&self, default: usize) -> usize {
        self.decode.map_or(default, |tokens| tokens as usize)
    }

    /// Prints a report as JSON or as `print` has it.
    fn publish<R: Serialize>(
        &self,
        report: &R,
        print: impl Fn(&R, &mut dyn Write) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let json = serde_json::to_string_pretty(report).map_err(std::io::Error::other)?;
            writeln!(out, "{json}")?;
        } else {
            print(report, &mut out)?;
        }
        Ok(())
    }
}

/// The middle one; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A line of `/proc/self/status` in bytes; 0 where the system has none.
fn status_bytes(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let kib = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
