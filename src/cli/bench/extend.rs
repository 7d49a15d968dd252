//! Text through the decoder against the clock, as whoever measures speed needs it.

use std::time::Instant;

use kernels::Pool;

use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::{Decoder, Exact, Slice, Tokens, no_probe};
use crate::model::sampler::Sampling;
use crate::pipeline::EngineError;

/// What the published way of choosing a token has to know.
const WANTED: Exact<'_> = Exact::Best {
    count: Sampling::PUBLISHED.top_k,
    within: None,
};

/// Seconds that some pieces of text take, each with the logits after it, of all tokens or of those that are `allowed`, in
/// `logits`, which is as long as the text vocabulary: one piece is a prompt, and pieces of one token are decoded.
pub(super) fn extend_s<'a>(
    pool: &Pool,
    decoder: &mut dyn Decoder,
    cache: &mut KvCache,
    slice: &Slice,
    pieces: impl Iterator<Item = &'a [u32]>,
    allowed: &[u32],
    logits: &mut [f32],
) -> Result<f64, EngineError> {
    let start = Instant::now();
    for ids in pieces {
        decoder.extend(pool, cache, Tokens::new(ids, slice), &mut no_probe)?;
        let last = decoder.ready() - 1;
        if allowed.is_empty() {
            decoder.logits(pool, last, WANTED, logits)?;
        } else {
            decoder.logits_of(pool, last, allowed, logits)?;
        }
    }
    Ok(start.elapsed().as_secs_f64())
}
