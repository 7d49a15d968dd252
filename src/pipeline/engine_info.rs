//! What can be asked of an engine besides an answer: what it runs, how answers are chosen by default, how many threads compute.

use std::path::PathBuf;
use std::sync::Arc;

use kernels::{Isa, Pool};
use sha2::{Digest, Sha256};

use super::engine::Engine;
use super::error::EngineError;
use super::request::Generation;
use crate::model::encoder::PictureOptions;
use crate::model::files;
use crate::model::prompt::PromptOptions;
use crate::model::sampler::{Sampling, random_seed};
use crate::model::weights::{Group, PACK_JSON, RowCounts, TensorInfo};
use crate::report::ModelCard;

/// The most that a file may have that a [`ModelCard`] is made of.
const MAX_CARD_FILE_BYTES: u64 = 16 << 20;

impl Engine {
    /// The directory of the checkpoint.
    pub fn dir(&self) -> PathBuf {
        self.checkpoint.dir().to_owned()
    }

    /// Sampling as the checkpoint's makers want it.
    pub fn default_sampling(&self) -> Sampling {
        self.generation_config.sampling
    }

    /// Bytes held for conversations that may go on.
    pub fn kept_bytes(&self) -> u64 {
        self.conversations.bytes()
    }

    /// `bf16` for a checkpoint as published, else the pack's recipe.
    pub fn quantization(&self) -> String {
        let pack = self.checkpoint.pack();
        pack.map_or_else(|| "bf16".to_owned(), |pack| pack.recipe.clone())
    }

    /// Names of the MatFormer slices that this checkpoint serves, the whole model first.
    pub fn slice_names(&self) -> Vec<String> {
        let served = self
            .slices
            .iter()
            .filter(|slice| self.decoder.serves(slice));
        let whole = self.slices.full().name.clone();
        let others = served
            .map(|slice| slice.name.clone())
            .filter(|name| *name != whole);
        std::iter::once(whole.clone()).chain(others).collect()
    }

    /// Whether the model hears ([`Group::Audio`]) or sees ([`Group::Vision`]).
    ///
    /// # Errors
    /// It has no such encoder.
    pub fn check_encoder(&self, group: Group) -> Result<(), EngineError> {
        self.encoders.check(&self.checkpoint, group)
    }

    /// How pictures are encoded where a request leaves it open.
    pub fn picture_options(&self) -> PictureOptions {
        self.encoders.pictures
    }

    /// What clients are told of the model; its name is the caller's to give.
    pub fn card(&self) -> ModelCard {
        let spec = self.spec();
        let dir = self.checkpoint.dir();
        let mut paths: Vec<_> = self
            .checkpoint
            .tensors()
            .map(|info| self.checkpoint.path(info))
            .collect();
        paths.sort_unstable();
        paths.dedup();
        let files: Vec<_> = paths
            .iter()
            .filter_map(|path| path.metadata().ok())
            .collect();
        let small = |name: &str| files::read(&dir.join(name), MAX_CARD_FILE_BYTES).ok();
        let list = small(PACK_JSON).or_else(|| small("config.json"));
        let chat_template = small("chat_template.jinja").unwrap_or_default();
        let thinking = PromptOptions {
            thinking: true,
            ..PromptOptions::ASK
        };
        let template = self.architecture.template();
        let pictures = spec
            .pictures
            .as_ref()
            .filter(|_| self.checkpoint.has(Group::Vision));
        ModelCard {
            name: String::new(),
            family: spec.family.to_owned(),
            quantisation: self.quantization(),
            slices: self.slice_names(),
            context: self.options.context,
            width: spec.hidden_size,
            layers: spec.layers.len(),
            vocabulary: spec.vocab_size,
            parameters: (self.checkpoint.tensors())
                .filter(|info| info.group != Some(Group::Drafter))
                .map(TensorInfo::parameters)
                .sum(),
            bytes: files.iter().map(std::fs::Metadata::len).sum(),
            modified: files.iter().filter_map(|file| file.modified().ok()).max(),
            digest: hex::encode(Sha256::digest(list.unwrap_or_default())),
            sees: pictures.is_some(),
            hears: spec.audio.is_some() && self.checkpoint.has(Group::Audio),
            thinks: template.check(&self.tokenizer, &thinking).is_ok().into(),
            calls: template.call_syntax(&self.tokenizer).is_ok(),
            soft_tokens: pictures.map_or_else(Vec::new, |pictures| pictures.soft_tokens.to_vec()),
            template: String::from_utf8_lossy(&chat_template).into_owned(),
        }
    }

    /// Rows of per-layer embeddings that have been needed, and read.
    pub fn ple_rows(&self) -> RowCounts {
        self.decoder.ple().counts()
    }

    /// Name of the instructions that the kernels use.
    pub fn isa_name(&self) -> String {
        self.pool.isa().to_string()
    }

    /// Threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The threads that an option of `asked` stands for: 0 is one for each fast core.
    pub fn threads_for(asked: usize) -> usize {
        match asked {
            0 => kernels::recommended_threads(),
            asked => asked,
        }
    }

    /// Computes on another number of threads from now on.
    ///
    /// # Errors
    /// The environment forces instructions that this CPU lacks.
    pub fn set_threads(&mut self, threads: usize) -> Result<(), EngineError> {
        let isa = Isa::from_environment()?;
        self.pool = Arc::new(Pool::new(isa, Engine::threads_for(threads)));
        Ok(())
    }

    /// Answers as the checkpoint's makers want them chosen.
    pub fn default_generation(&self, max_tokens: usize) -> Generation {
        Generation {
            sampling: self.default_sampling(),
            seed: random_seed(),
            max_tokens,
            stop: Vec::new(),
            grammar: None,
            tools: None,
        }
    }

    /// Always the likeliest token: what is heard or seen should not depend on chance.
    pub fn most_likely(&self, max_tokens: usize) -> Generation {
        Generation {
            sampling: Sampling::GREEDY,
            ..self.default_generation(max_tokens)
        }
    }
}
