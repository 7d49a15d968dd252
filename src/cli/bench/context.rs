//! What a longer and longer context costs: speed of reading and decoding, and memory.

use kernels::Pool;
use serde::Serialize;

use super::extend::extend_s;
use super::{Bench, median, status_bytes, text_ids};
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::{Decoder, Slice};
use crate::model::spec::Spec;
use crate::pipeline::EngineError;

/// The shortest context, as long as the window of most layers: up to here every layer's work grows.
pub(super) const SHORTEST: usize = 512;
/// Tokens that are read at a time.
const CHUNK: usize = 128;

/// One length of the context.
#[derive(Serialize)]
pub(super) struct Context {
    /// With the tokens that were decoded, which are the last ones.
    pub(super) context_tokens: usize,
    /// Speed at which those between the length before and the first decoded one were read.
    pub(super) prefill_tok_s: f64,
    /// The median of the repetitions.
    pub(super) decode_tok_s: f64,
    /// Memory of this process, mapped weights included.
    pub(super) resident_bytes: u64,
}

impl Bench {
    /// Fills one cache with random tokens, and decodes up to each length.
    pub(super) fn contexts(
        &self,
        pool: &Pool,
        decoder: &mut dyn Decoder,
        spec: &Spec,
        slice: &Slice,
        longest: usize,
    ) -> Result<Vec<Context>, EngineError> {
        let runs = self.runs as usize;
        // What is decoded is a part of each length, so of the shortest one.
        let decode = self.decode(32).min(SHORTEST / runs);
        let mut cache = KvCache::new(decoder.layers(), self.kv_cache.into(), longest, CHUNK);
        decoder.resize(CHUNK);
        let mut logits = vec![0.0; spec.text_vocab_size];
        let mut ids = text_ids(spec);
        let mut extend = |tokens: usize, chunk: usize| {
            let ids: Vec<u32> = ids.by_ref().take(tokens).collect();
            let pieces = ids.chunks(chunk);
            extend_s(pool, decoder, &mut cache, slice, pieces, &[], &mut logits)
        };
        let mut contexts = Vec::new();
        let mut before = 0;
        for context_tokens in lengths(longest) {
            let read = context_tokens - before - runs * decode;
            let prefill_s = extend(read, read.max(1))?;
            let seconds: Vec<f64> = (0..runs)
                .map(|_| extend(decode, 1))
                .collect::<Result<_, _>>()?;
            contexts.push(Context {
                context_tokens,
                prefill_tok_s: read as f64 / prefill_s,
                decode_tok_s: decode as f64 / median(seconds.into_iter()),
                resident_bytes: status_bytes("VmRSS:"),
            });
            before = context_tokens;
        }
        Ok(contexts)
    }
}

/// The longest, half of it and so on down to [`SHORTEST`], the other way round: each leaves room to decode after the one before.
fn lengths(longest: usize) -> Vec<usize> {
    let halves = std::iter::successors(Some(longest), |length| Some(length / 2));
    let mut lengths: Vec<usize> = halves.take_while(|&length| length >= SHORTEST).collect();
    lengths.reverse();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_double_up_to_the_longest() {
        assert_eq!(lengths(512), [512]);
        assert_eq!(lengths(2048), [512, 1024, 2048]);
        assert_eq!(lengths(1100), [550, 1100]);
    }
}
