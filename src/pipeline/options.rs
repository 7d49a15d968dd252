//! How a model is to be run, and the sections of gemmad.toml that say how its encoders work.

use serde::Deserialize;

use super::batches::FRAME_MS;
use super::{
    EncoderOptions, Gathering, GuessOptions, Guessing, PictureOptions, PrefixCacheOptions,
    SoftTokenPadding,
};
use crate::media::LONGEST_CLIP_S;
use crate::model::decoder::kv_cache::KvType;
use crate::model::weights::PleOptions;

/// How a model is to be run.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Threads that compute, the caller's included; 0 for as many as the machine has fast cores.
    pub threads: usize,
    /// Tokens of context: prompt and answer together.
    pub context: usize,
    /// Tokens that go through the layers together during prefill.
    pub prefill_chunk: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// How sound and pictures are encoded.
    pub encoders: EncoderOptions,
    /// How the per-layer-embedding table is read.
    pub ple: PleOptions,
    /// Keep text weights in memory once they were read.
    pub mlock: bool,
    /// Memory for keys and values of conversations that may go on, bytes.
    pub conversation_bytes: u64,
    /// Where keys and values of prompt beginnings are kept.
    pub prefix_cache: PrefixCacheOptions,
    /// Memory for keys and values of prompt beginnings, bytes; 0 for none.
    pub prefix_bytes: u64,
    /// What is guessed of answers.
    pub guess: GuessOptions,
    /// Answers that are decoded together, at most.
    pub answers: usize,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            threads: 0,
            context: 4096,
            prefill_chunk: 128,
            kv_type: KvType::F32,
            encoders: EncoderOptions::default(),
            ple: PleOptions::default(),
            mlock: false,
            conversation_bytes: 256 << 20,
            prefix_cache: PrefixCacheOptions::default(),
            prefix_bytes: 0,
            guess: GuessOptions::default(),
            answers: 4,
        }
    }
}

/// `[audio]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AudioSection {
    /// What fills the places of a clip that its sound does not; absent: as the reference does. Only for models that fill them.
    pub soft_token_padding: Option<SoftTokenPadding>,
    /// Audio that is encoded together while it streams in, milliseconds, in whole frames of 40 ms; absent: as much as `batch_budget_ms`
    /// allows.
    pub batch_ms: Option<usize>,
    /// What may be left to encode when somebody stops speaking, milliseconds that it takes this machine.
    pub batch_budget_ms: usize,
}

/// See [`AudioSection::batch_budget_ms`].
const BATCH_BUDGET_MS: [usize; 2] = [1, 10_000];

impl Default for AudioSection {
    fn default() -> AudioSection {
        AudioSection {
            soft_token_padding: None,
            batch_ms: None,
            batch_budget_ms: 100,
        }
    }
}

impl AudioSection {
    /// Looks whether the values fit their keys.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub fn check(&self) -> Result<(), String> {
        let most = 1000 * LONGEST_CLIP_S as usize;
        let fits = |ms: usize| ms > 0 && ms.is_multiple_of(FRAME_MS) && ms <= most;
        if let Some(batch_ms) = self.batch_ms.filter(|&ms| !fits(ms)) {
            return Err(format!(
                "audio.batch_ms is {batch_ms}; it must be a multiple of {FRAME_MS} up to {most}"
            ));
        }
        let (budget_ms, [least, most]) = (self.batch_budget_ms, BATCH_BUDGET_MS);
        if !(least..=most).contains(&budget_ms) {
            return Err(format!(
                "audio.batch_budget_ms is {budget_ms}; it must be between {least} and {most}"
            ));
        }
        Ok(())
    }

    fn gathering(&self) -> Gathering {
        match self.batch_ms {
            Some(batch_ms) => Gathering::Frames(batch_ms / FRAME_MS),
            None => Gathering::Within(self.batch_budget_ms as f64),
        }
    }
}

/// `[vision]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct VisionSection {
    /// Gemma 3n: side of the square that pictures are resized to, pixels; absent: what the checkpoint's preprocessor says.
    pub resolution_px: Option<usize>,
    /// Gemma 4: soft tokens that a picture becomes at most; absent: what the checkpoint's processor says.
    pub soft_tokens: Option<usize>,
}

impl EncoderOptions {
    /// As the sections of gemmad.toml say.
    pub fn new(audio: &AudioSection, vision: &VisionSection) -> EncoderOptions {
        EncoderOptions {
            soft_token_padding: audio.soft_token_padding,
            gathering: audio.gathering(),
            pictures: PictureOptions {
                resolution_px: vision.resolution_px,
                soft_tokens: vision.soft_tokens,
            },
        }
    }
}

/// What need not be computed while an answer is decoded; the answers are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeShortcuts {
    /// Where a grammar allows few tokens, only their rows of the LM head are read.
    pub head_rows: bool,
    /// Of an LM head in two planes, the second is read where it decides ([`Exact::Best`](crate::model::decoder::Exact)).
    pub head_planes: bool,
    /// Tokens that a grammar forces pass the layers together.
    pub forced_runs: bool,
    /// Tokens that are guessed pass the layers with the one before them.
    pub guessing: Guessing,
}

impl Default for DecodeShortcuts {
    fn default() -> DecodeShortcuts {
        DecodeShortcuts {
            head_rows: true,
            head_planes: true,
            forced_runs: true,
            guessing: Guessing::WherePays,
        }
    }
}
