//! What can be asked of an engine besides an answer: what it runs, how answers are chosen by default, how many threads compute.

use std::sync::Arc;

use kernels::{Isa, Pool};

use super::engine::Engine;
use super::error::EngineError;
use super::request::Generation;
use crate::model::encoder::PictureOptions;
use crate::model::sampler::{Sampling, random_seed};

impl Engine {
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

    /// How pictures are encoded where a request leaves it open.
    pub fn picture_options(&self) -> PictureOptions {
        self.encoders.pictures
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
