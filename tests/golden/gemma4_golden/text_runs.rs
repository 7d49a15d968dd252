//! The text model of a checkpoint or pack, run in the ways that the tests compare.

use std::path::Path;
use std::sync::Arc;

use crate::common::Golden;
use gemmad::model::architecture::Architecture;
use gemmad::model::decoder::kv_cache::{KvCache, KvType};
use gemmad::model::decoder::{Decoder, Exact, Probe, Shortcuts, Slice, Tokens, no_probe};
use gemmad::model::family;
use gemmad::model::weights::{Checkpoint, PleOptions};
use kernels::{Isa, Pool};

/// The prompts of the goldens.
pub(crate) const PROMPTS: [&str; 3] = ["short", "chat", "long"];
/// Every token passes every layer.
pub(crate) const UNCUT: Shortcuts = Shortcuts {
    kv_cut: false,
    sparse_ffn: false,
};

pub(crate) struct Text {
    pub(crate) architecture: Arc<dyn Architecture>,
    pub(crate) decoder: Box<dyn Decoder>,
    pub(crate) pool: Pool,
    pub(crate) shortcuts: Shortcuts,
    full: Slice,
}

impl Text {
    pub(crate) fn open(dir: &Path) -> Text {
        Text::try_open(dir).unwrap()
    }

    pub(crate) fn try_open(dir: &Path) -> Result<Text, String> {
        let architecture = family::load(dir).map_err(|error| error.to_string())?;
        let decoder = Checkpoint::open(dir).and_then(|checkpoint| {
            architecture.decoder(&checkpoint, &PleOptions::default(), 1, &mut |_, _| {})
        });
        Ok(Text {
            decoder: decoder.map_err(|error| error.to_string())?,
            full: Slice::full(&architecture.spec().layers),
            architecture,
            pool: Pool::new(Isa::from_environment().unwrap(), 2),
            shortcuts: Shortcuts::default(),
        })
    }

    /// A cache for chunks of so many tokens, and buffers to match.
    pub(crate) fn cache(&mut self, kind: KvType, chunk: usize) -> KvCache {
        self.decoder.resize(chunk);
        KvCache::new(self.decoder.layers(), kind, 2048, chunk)
    }

    /// Takes ids. One that stands for a medium (a random model may choose it) is taken by the reference as the pad id, of both tables,
    /// where there is no medium.
    pub(crate) fn extend(&mut self, cache: &mut KvCache, ids: &[u32], probe: Probe<'_>) {
        let spec = self.architecture.spec();
        let without_media = |&id: &u32| if spec.takes_row(id) { 0 } else { id };
        let ids: Vec<u32> = ids.iter().map(without_media).collect();
        self.extend_with(cache, &ids, &[], probe);
    }

    /// Takes ids, and the rows that stand in the places of media, \[number of such ids, D\].
    pub(crate) fn extend_with(
        &mut self,
        cache: &mut KvCache,
        ids: &[u32],
        media_rows: &[f32],
        probe: Probe<'_>,
    ) {
        let tokens = Tokens {
            media_rows,
            shortcuts: self.shortcuts,
            ..Tokens::new(ids, &self.full)
        };
        self.decoder
            .extend(&self.pool, cache, tokens, probe)
            .unwrap();
    }

    pub(crate) fn logits(&mut self, token: usize) -> Vec<f32> {
        let mut logits = vec![0.0; self.architecture.spec().vocab_size];
        self.decoder
            .logits(&self.pool, token, Exact::All, &mut logits)
            .unwrap();
        logits
    }

    /// Logits of the last token taken.
    pub(crate) fn last_logits(&mut self) -> Vec<f32> {
        let last = self.decoder.ready() - 1;
        self.logits(last)
    }

    /// The logits of every position, chunk by chunk.
    pub(crate) fn all_logits(&mut self, kind: KvType, ids: &[u32], chunk: usize) -> Vec<Vec<f32>> {
        self.shortcuts = UNCUT;
        let mut cache = self.cache(kind, chunk);
        let mut logits = Vec::new();
        for ids in ids.chunks(chunk) {
            self.extend(&mut cache, ids, &mut no_probe);
            assert_eq!(self.decoder.ready(), ids.len(), "every token has logits");
            for token in 0..ids.len() {
                logits.push(self.logits(token));
            }
        }
        logits
    }

    /// The logits behind a prompt, and behind one decoded token more.
    pub(crate) fn prompt_and_token(&mut self, ids: &[u32], chunk: usize) -> Vec<f32> {
        let mut cache = self.cache(KvType::F32, chunk);
        let mut both = Vec::new();
        for ids in [ids, &[7]] {
            self.extend(&mut cache, ids, &mut no_probe);
            both.extend(self.last_logits());
        }
        both
    }

    /// Greedy tokens over the whole vocabulary behind a prompt, and the logits of every step.
    pub(crate) fn greedy(
        &mut self,
        kind: KvType,
        ids: &[u32],
        tokens: usize,
        chunk: usize,
    ) -> (Vec<i32>, Vec<f32>) {
        let mut cache = self.cache(kind, chunk);
        self.extend(&mut cache, ids, &mut no_probe);
        self.greedy_on(&mut cache, tokens)
    }

    /// Likewise behind what was taken last.
    pub(crate) fn greedy_on(&mut self, cache: &mut KvCache, tokens: usize) -> (Vec<i32>, Vec<f32>) {
        let (mut out, mut all) = (Vec::<i32>::new(), Vec::new());
        while out.len() < tokens {
            if let Some(&last) = out.last() {
                self.extend(cache, &[last as u32], &mut no_probe);
            }
            let logits = self.last_logits();
            out.push(argmax(&logits));
            all.extend(logits);
        }
        (out, all)
    }
}

pub(crate) fn argmax(logits: &[f32]) -> i32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as i32
}

pub(crate) fn ids(golden: &Golden, name: &str) -> Vec<u32> {
    golden.i32(name).0.into_iter().map(|id| id as u32).collect()
}

pub(crate) fn rms(values: impl Iterator<Item = f32>) -> f64 {
    let squares: Vec<f64> = values.map(|x| f64::from(x).powi(2)).collect();
    (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}

/// Fails where two runs first differ by a bit.
#[track_caller]
pub(crate) fn assert_same_bits(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!(
            got.to_bits() == want.to_bits(),
            "{name}: value {at} is {got:e}, not {want:e}"
        );
    }
}
