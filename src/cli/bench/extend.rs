//! Text through the decoder against the clock, as whoever measures speed needs it.

use std::time::Instant;

use kernels::Pool;

use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::{Exact, Slice, Tokens, no_probe};
use crate::model::gemma3n::text::{TextModel, Workspace};
use crate::model::sampler::Sampling;
use crate::pipeline::EngineError;

/// What the published way of choosing a token has to know.
const WANTED: Exact<'_> = Exact::Best {
    count: Sampling::PUBLISHED.top_k,
    within: None,
};

/// Seconds that some pieces of text take, each with the logits after it, of all tokens or of those that are `allowed`: one piece is
/// a prompt, and pieces of one token are decoded.
pub(super) fn extend_s<'a>(
    pool: &Pool,
    text: &TextModel,
    cache: &mut KvCache,
    work: &mut Workspace,
    slice: &Slice,
    pieces: impl Iterator<Item = &'a [u32]>,
    allowed: &[u32],
) -> Result<f64, EngineError> {
    let mut logits = vec![0.0; text.text_vocab_size()];
    let start = Instant::now();
    for ids in pieces {
        text.extend(pool, cache, work, Tokens::new(ids, slice), &mut no_probe)?;
        let last = work.ready() - 1;
        if allowed.is_empty() {
            text.logits(pool, work, last, WANTED, &mut logits)?;
        } else {
            text.logits_of(pool, work, last, allowed, &mut logits)?;
        }
    }
    Ok(start.elapsed().as_secs_f64())
}
