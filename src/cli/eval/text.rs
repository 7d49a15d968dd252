//! What a pack's quantisation costs, against the checkpoint it was made from, where both read a text.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use kernels::{Isa, Pool};
use serde::Serialize;

use super::{Difference, read_text};
use crate::cli::failure::{Failure, exit};
use crate::cli::model_args::KvArg;
use crate::cli::output::publish;
use crate::model::decoder::kv_cache::{KvCache, KvType};
use crate::model::decoder::{Decoder, Exact, Shortcuts, Slice, Tokens, no_probe};
use crate::model::family;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::{Checkpoint, PleOptions};
use crate::pipeline::EngineError;

#[derive(Debug, clap::Args)]
pub(super) struct Text {
    /// Directory of the pack
    // Not flattened from `ModelArgs`: of what is optional as a whole, clap sees only arguments that stand here.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Directory of the checkpoint to compare with
    #[arg(long, value_name = "DIR")]
    reference: PathBuf,
    /// UTF-8 text to read; the more, the steadier the figures
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Tokens of context: the text is cut into windows of this length
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..=131_072))]
    window: u32,
    /// Tokens of the text at most
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(2..))]
    tokens: u32,
    /// MatFormer slice to compare [default: the whole model]
    #[arg(long, value_name = "NAME")]
    matformer: Option<String>,
    /// Element type of the model's K/V cache; the reference's has 32 bits
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = KvArg::F32)]
    kv_cache: KvArg,
    /// Threads that compute [default: one for each fast core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    model: String,
    reference: String,
    matformer: String,
    /// Tokens predicted.
    tokens: usize,
    perplexity: f64,
    reference_perplexity: f64,
    /// Mean over tokens of KL(reference ‖ model), nats.
    kl_divergence: f64,
    /// Share of tokens for which both find the same one likeliest.
    top1_agreement: f64,
    /// The root of the mean square of how far logits are off, as a share of that of the reference's.
    logits_difference: f64,
}

/// A text longer than this is a mistake: 8192 tokens are some 40 kB.
const MAX_TEXT_BYTES: u64 = 64 << 20;
/// Positions whose logits are compared at a time.
const CHUNK: usize = 32;

impl Text {
    pub(super) fn run(self) -> Result<(), Failure> {
        let threads = self
            .threads
            .map_or_else(kernels::recommended_threads, usize::from);
        let pool = Pool::new(Isa::from_environment().map_err(EngineError::from)?, threads);
        let name = self.matformer.as_deref();
        let mut model = Side::open(&self.model, name, self.kv_cache.into())?;
        let mut reference = Side::open(&self.reference, name, KvType::F32)?;
        if model.logits.len() != reference.logits.len() {
            return Err(Failure::new(
                exit::DATA,
                format_args!(
                    "{} has {} text tokens and {} has {}: they are not the same model",
                    self.model.display(),
                    model.logits.len(),
                    self.reference.display(),
                    reference.logits.len()
                ),
            ));
        }
        let ids = self.ids()?;
        let progress = bar(ids.len());
        let mut sums = Sums::default();
        for window in ids.chunks(self.window as usize) {
            sums.add(&pool, &mut model, &mut reference, window, &progress)?;
        }
        progress.finish_and_clear();
        if sums.tokens == 0 {
            return Err(Failure::new(
                exit::DATA,
                format_args!("{}: the text has fewer than 2 tokens", self.text.display()),
            ));
        }
        let mean = |sum: f64| sum / sums.tokens as f64;
        let report = Report {
            model: self.model.display().to_string(),
            reference: self.reference.display().to_string(),
            matformer: model.slice.name.clone(),
            tokens: sums.tokens,
            perplexity: mean(sums.loss).exp(),
            reference_perplexity: mean(sums.reference_loss).exp(),
            kl_divergence: mean(sums.kl_divergence),
            top1_agreement: mean(sums.agreements as f64),
            logits_difference: sums.logits.relative_rms(),
        };
        publish(&report, self.json, |report, out| {
            writeln!(
                out,
                "{} against {}, {} tokens",
                report.model, report.reference, report.tokens
            )?;
            writeln!(
                out,
                "  perplexity       {:.4} (reference {:.4})",
                report.perplexity, report.reference_perplexity
            )?;
            writeln!(out, "  KL divergence    {:.6} nats", report.kl_divergence)?;
            writeln!(
                out,
                "  top-1 agreement  {:.2} %",
                100.0 * report.top1_agreement
            )?;
            writeln!(
                out,
                "  logits           {:.3} % off (rms)",
                100.0 * report.logits_difference
            )
        })
    }

    fn ids(&self) -> Result<Vec<u32>, Failure> {
        let text = read_text(&self.text, MAX_TEXT_BYTES)?;
        let tokenizer = Tokenizer::load(&self.reference).map_err(EngineError::from)?;
        let mut ids = vec![tokenizer.control().bos];
        ids.extend(tokenizer.encode_text(&text));
        ids.truncate(self.tokens as usize);
        Ok(ids)
    }
}

/// One of the two models, with its buffers.
struct Side {
    decoder: Box<dyn Decoder>,
    slice: Slice,
    kv_type: KvType,
    logits: Vec<f32>,
}

impl Side {
    fn open(dir: &Path, slice: Option<&str>, kv_type: KvType) -> Result<Side, Failure> {
        let architecture = family::load(dir)?;
        let checkpoint = Checkpoint::open(dir)?;
        let ple = PleOptions::default();
        let decoder = architecture.decoder(&checkpoint, &ple, CHUNK, &mut |_, _| {})?;
        let slices = architecture.slices(Some(dir))?;
        let slice = slice
            .map_or_else(|| Ok(slices.full()), |name| slices.get(name))?
            .clone();
        Ok(Side {
            logits: vec![0.0; architecture.spec().text_vocab_size],
            decoder,
            slice,
            kv_type,
        })
    }

    fn cache(&self, context: usize) -> KvCache {
        KvCache::new(self.decoder.layers(), self.kv_type, context, CHUNK)
    }
}

#[derive(Default)]
struct Sums {
    tokens: usize,
    loss: f64,
    reference_loss: f64,
    kl_divergence: f64,
    agreements: usize,
    logits: Difference,
}

impl Sums {
    /// Adds what both models make of one window: each token but the first is predicted from those before it.
    fn add(
        &mut self,
        pool: &Pool,
        model: &mut Side,
        reference: &mut Side,
        window: &[u32],
        progress: &ProgressBar,
    ) -> Result<(), EngineError> {
        let mut caches = [model.cache(window.len()), reference.cache(window.len())];
        for (first, ids) in window.chunks(CHUNK).enumerate() {
            for (side, cache) in [&mut *model, &mut *reference].into_iter().zip(&mut caches) {
                let tokens = Tokens {
                    shortcuts: Shortcuts::ALL_LOGITS,
                    ..Tokens::new(ids, &side.slice)
                };
                side.decoder.extend(pool, cache, tokens, &mut no_probe)?;
            }
            for token in 0..ids.len() {
                let Some(&next) = window.get(first * CHUNK + token + 1) else {
                    continue;
                };
                for side in [&mut *model, &mut *reference] {
                    let logits = &mut side.logits;
                    side.decoder.logits(pool, token, Exact::All, logits)?;
                }
                self.compare(&model.logits, &reference.logits, next as usize);
            }
            progress.inc(ids.len() as u64);
        }
        Ok(())
    }

    fn compare(&mut self, logits: &[f32], reference: &[f32], next: usize) {
        // An id beyond the text vocabulary cannot come from text; it would have no logit.
        let (Some(&chosen), Some(&reference_chosen)) = (logits.get(next), reference.get(next))
        else {
            return;
        };
        let (normaliser, top) = log_sum_exp(logits);
        let (reference_normaliser, reference_top) = log_sum_exp(reference);
        self.tokens += 1;
        self.logits.add(logits, reference);
        self.loss += normaliser - f64::from(chosen);
        self.reference_loss += reference_normaliser - f64::from(reference_chosen);
        self.agreements += usize::from(top == reference_top);
        self.kl_divergence += reference
            .iter()
            .zip(logits)
            .map(|(&p, &q)| {
                let log_p = f64::from(p) - reference_normaliser;
                let log_q = f64::from(q) - normaliser;
                log_p.exp() * (log_p - log_q)
            })
            .sum::<f64>();
    }
}

/// `ln Σ exp(x)` and the index of the largest x.
fn log_sum_exp(x: &[f32]) -> (f64, usize) {
    let (top, max) = x
        .iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, &x)| {
            if x > best.1 { (i, x) } else { best }
        });
    let sum: f64 = x.iter().map(|&x| f64::from(x - max).exp()).sum();
    (f64::from(max) + sum.ln(), top)
}

/// A bar of tokens on a terminal, nothing in a pipe.
fn bar(tokens: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} tokens, {eta} left");
    ProgressBar::new(tokens as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::{Sums, log_sum_exp};

    /// Two outcomes of probability 3/4 and 1/4 against 1/2 and 1/2: KL = 3/4 ln(3/2) + 1/4 ln(1/2).
    #[test]
    fn figures_of_a_worked_example() {
        let mut sums = Sums::default();
        sums.compare(&[0.0, 0.0], &[3f32.ln(), 0.0], 1);
        assert!((sums.kl_divergence - (0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln())).abs() < 1e-6);
        assert!((sums.loss - 2f64.ln()).abs() < 1e-6);
        assert!((sums.reference_loss - 4f64.ln()).abs() < 1e-6);
        assert_eq!(sums.agreements, 1);
        // The one logit that is not 0 is missed.
        assert!((sums.logits.relative_rms() - 1.0).abs() < 1e-6);
        assert_eq!(log_sum_exp(&[0.0, 1.0, -1.0]).1, 1);
    }
}
