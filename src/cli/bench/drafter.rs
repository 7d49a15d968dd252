//! What a guess of the model's drafter costs.

use std::io::Write;
use std::time::Instant;

use kernels::Pool;
use serde::Serialize;

use super::mb;
use crate::model::architecture::Architecture;
use crate::model::decoder::Decoder;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::weights::Checkpoint;
use crate::pipeline::EngineError;

/// Guesses that are measured.
const GUESSES: usize = 32;

/// What a guess costs, with so many keys in the context as were decoded last.
#[derive(Serialize)]
pub(super) struct Drafting {
    context_tokens: usize,
    guess_ms: f64,
    weight_bytes_per_guess: u64,
    load_ms: f64,
    mapped_bytes: u64,
    resident_bytes: u64,
}

impl Drafting {
    /// For people; a token takes so long.
    pub(super) fn print(&self, decode_tok_s: f64, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "  {:<28}load {:.1} ms, mapped {}, resident {}",
            "group drafter",
            self.load_ms,
            mb(self.mapped_bytes),
            mb(self.resident_bytes)
        )?;
        writeln!(
            out,
            "  {:<28}{:>12.2} ms a guess, {:.1} % of a token; {} read",
            "drafter",
            self.guess_ms,
            self.guess_ms * decode_tok_s / 10.0,
            mb(self.weight_bytes_per_guess)
        )
    }
}

/// Guesses behind what is in the cache; `None` where there is no drafter.
pub(super) fn measure(
    pool: &Pool,
    architecture: &dyn Architecture,
    checkpoint: &Checkpoint,
    text: &mut dyn Decoder,
    cache: &KvCache,
) -> Result<Option<Drafting>, EngineError> {
    let start = Instant::now();
    let Some(mut drafter) = architecture.drafter(checkpoint)? else {
        return Ok(None);
    };
    let load_ms = start.elapsed().as_secs_f64() * 1e3;
    let mut embedding = vec![0.0; architecture.spec().hidden_size];
    drafter.begin(cache, text.hidden(text.ready() - 1));
    let mut newest = 0;
    let mut guess = |text: &mut dyn Decoder, count: usize| {
        let start = Instant::now();
        for _ in 0..count {
            text.embedding(pool, newest, &mut embedding)?;
            newest = drafter.next(pool, cache, &embedding);
        }
        Ok::<f64, EngineError>(start.elapsed().as_secs_f64() * 1e3 / count as f64)
    };
    // The first ones read the weights from flash.
    guess(text, GUESSES)?;
    let before = pool.weight_bytes();
    let guess_ms = guess(text, GUESSES)?;
    let read_bytes = pool.weight_bytes() - before;
    let weights = drafter.weights();
    Ok(Some(Drafting {
        context_tokens: cache.position(),
        guess_ms,
        weight_bytes_per_guess: read_bytes / GUESSES as u64,
        load_ms,
        mapped_bytes: weights.mapped_bytes(),
        resident_bytes: weights.resident_bytes(),
    }))
}
