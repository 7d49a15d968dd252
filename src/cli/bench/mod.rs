//! `gemmad bench`: how fast a model runs here, how many bytes it reads, how much memory it takes.

mod chance;
mod context;
mod drafter;
mod event;
mod extend;
mod guess;
mod kernels;
mod text;
mod together;

pub(super) use event::{Events, PADDED};
pub(super) use text::{TextReport, memory_read_gb_s};

use std::path::{Path, PathBuf};

use super::failure::{Failure, exit};
use super::model_args::{KvArg, PictureArgs};
use super::procfs;
use crate::model::spec::Spec;

/// Measure speed, bytes read and memory on this machine
///
/// Random token ids, noise and random pictures go through the model: what it says does not matter, and the cost does not depend
/// on it.
#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// What to measure
    #[arg(value_enum, default_value_t = What::Text)]
    what: What,
    /// Directory of a checkpoint or pack; kernels need none
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Threads that compute [default: one for each fast core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// MatFormer slice to measure [default: the whole model]
    #[arg(long, value_name = "NAME")]
    matformer: Option<String>,
    /// Tokens of the prompt; of text
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    prefill: u32,
    /// Tokens to decode [default: 32 of text, 12 of an answer to what is heard or seen]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=131_072))]
    decode: Option<u32>,
    /// Decode with a longer and longer context too, 512 tokens and twice as many again up to this; of text
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(context::SHORTEST as i64..=131_072))]
    context: Option<u32>,
    /// Tokens of a pass, those that are guessed among them, up to 8: measured in turn with one token a pass; of decode
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [2, 4, 8], value_parser = clap::value_parser!(u8).range(2..=8))]
    guess: Vec<u8>,
    /// Answers that are decoded together, up to 8, instead of guesses: measured in turn with one alone; of decode
    #[arg(long, value_name = "N", value_delimiter = ',', conflicts_with = "guess", value_parser = clap::value_parser!(u8).range(1..=8))]
    answers: Vec<u8>,
    /// Element type of the K/V cache
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = KvArg::F16)]
    kv_cache: KvArg,
    /// Repetitions, of which the median is printed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    #[command(flatten)]
    pictures: PictureArgs,
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
    /// Passes of several tokens, as where an answer is guessed right, or where several answers are decoded together: tokens per second,
    /// and what such a pass costs
    Decode,
    /// A picture of each size that the vision tower knows, or of the one that is given: seconds to soft tokens and to the answer, memory
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
            What::Decode if self.answers.is_empty() => self.guess(),
            What::Decode => self.together(),
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

    /// Refuses to fill a longer context than the model has.
    fn check_context(&self, spec: &Spec) -> Result<(), Failure> {
        let decoded = 2 * self.decode.unwrap_or(0);
        let asked = [
            (
                "--prefill and twice --decode",
                self.prefill.saturating_add(decoded),
            ),
            ("--context", self.context.unwrap_or(0)),
        ];
        for (option, tokens) in asked {
            if tokens as usize > spec.max_context {
                return Err(Failure::new(
                    exit::USAGE,
                    format_args!(
                        "{option}: {tokens} tokens are more than the {} that this model takes",
                        spec.max_context
                    ),
                ));
            }
        }
        Ok(())
    }

    fn threads(&self) -> usize {
        self.threads
            .map_or_else(::kernels::recommended_threads, usize::from)
    }

    fn decode(&self, default: usize) -> usize {
        self.decode.map_or(default, |tokens| tokens as usize)
    }
}

/// The middle one; 0 of none.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Memory of this process; 0 where the system does not tell. `VmRSS:` is now, `VmHWM:` was the most.
fn status_bytes(key: &str) -> u64 {
    procfs::bytes("/proc/self/status", key).unwrap_or(0)
}

/// Numbers from 0 to `below`, by a linear congruential generator (Knuth): all over the range, and the same in every run.
fn random_below(below: u32) -> impl Iterator<Item = u32> {
    let next = |seed: &u32| Some(seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    // Its high bits are the random ones.
    std::iter::successors(next(&1), next).map(move |seed| (seed >> 8) % below)
}

/// Random ids, the same in every run: all of text, so that none waits for the row of a picture or of sound.
fn text_ids(spec: &Spec) -> impl Iterator<Item = u32> + '_ {
    random_below(spec.text_vocab_size as u32).filter(|&id| !spec.takes_row(id))
}

/// Noise between -1 and 1, the same in every run.
fn noise() -> impl Iterator<Item = f32> {
    random_below(1 << 24).map(|x| x as f32 / 8_388_608.0 - 1.0)
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
