//! `gemmad eval`: what a model understands of somebody's own recordings and pictures, which tools it calls, and what a pack costs beside
//! the checkpoint it was made from.

mod audio;
mod candidates;
mod captions;
mod measure;
mod report;
mod score;
mod soft_tokens;
mod text;
mod tools;
mod truths;

pub(super) use audio::Audio;
pub(super) use report::Row;

use std::io::Read;
use std::path::Path;

use super::failure::{Failure, exit};

/// Measure what a model understands of your recordings and pictures, or what a pack costs
///
/// Without a word for what is to be measured, a pack is compared with the checkpoint it was made from, on a text: perplexity, KL
/// divergence, top-1 agreement and the difference of logits.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Eval {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    text: Option<text::Text>,
}

#[derive(Debug, clap::Subcommand)]
#[command(disable_help_subcommand = true)]
enum What {
    Audio(audio::Audio),
    Captions(captions::Captions),
    SoftTokens(soft_tokens::SoftTokens),
    Tools(tools::Tools),
}

impl Eval {
    pub(super) fn run(self) -> Result<(), Failure> {
        match (self.what, self.text) {
            (Some(What::Audio(audio)), _) => audio.run(),
            (Some(What::Captions(captions)), _) => captions.run(),
            (Some(What::SoftTokens(soft_tokens)), _) => soft_tokens.run(),
            (Some(What::Tools(tools)), _) => tools.run(),
            (None, Some(text)) => text.run(),
            (None, None) => Err(Failure::new(
                exit::USAGE,
                "what is to be measured? audio, captions, soft-tokens, tools, or a pack with --model, --reference and --text",
            )),
        }
    }
}

/// A file of UTF-8 of at most `limit` bytes.
fn read_text(path: &Path, limit: u64) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| {
        let code = match error.kind() {
            std::io::ErrorKind::InvalidData => exit::DATA,
            _ => exit::NO_INPUT,
        };
        Failure::new(
            code,
            format_args!("cannot read {}: {error}", path.display()),
        )
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if text.len() as u64 > limit {
        return Err(Failure::new(
            exit::DATA,
            format_args!(
                "{}: it has more than {limit} bytes; give a shorter text",
                path.display()
            ),
        ));
    }
    Ok(text)
}

/// The root of the mean square of what differs, as a share of that of what is wanted.
#[derive(Default)]
struct Difference {
    off: f64,
    wanted: f64,
}

impl Difference {
    fn add(&mut self, got: &[f32], wanted: &[f32]) {
        let square = |x: f32| f64::from(x) * f64::from(x);
        self.off += got
            .iter()
            .zip(wanted)
            .map(|(a, b)| square(a - b))
            .sum::<f64>();
        self.wanted += wanted.iter().map(|&x| square(x)).sum::<f64>();
    }

    fn relative_rms(&self) -> f64 {
        // Where nothing is wanted and nothing came, nothing differs.
        (self.off / self.wanted.max(f64::MIN_POSITIVE)).sqrt()
    }
}
