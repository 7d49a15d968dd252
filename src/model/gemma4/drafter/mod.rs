//! The drafter of Gemma 4: a narrow decoder that has no keys and values of its own, and guesses what the decoder will say next.
//!
//! Source: `src/model/gemma4/drafter.md` ("drafter section N").

mod head;
mod layer;
mod tensors;

use std::sync::Arc;

use kernels::{Inputs, Pool};

use self::head::Head;
use self::layer::Layer;
pub(super) use self::tensors::tensors;
use super::config::DrafterConfig;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::rope::RopeTables;
use crate::model::decoder::{
    Compute, LayerShape, Loader, Probe, RmsNorm, attention, feed_forward, no_probe,
};
use crate::model::drafter;
use crate::model::weights::{Checkpoint, DRAFTER, Group, Mapped, Tensor, WeightsError};

/// The drafter's weights, and the buffers of one guess.
#[derive(Debug)]
pub struct Drafter {
    weights: Arc<Mapped>,
    pre_projection: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    post_projection: Tensor,
    head: Head,
    work: Work,
}

/// Each buffer with one role; d and D as in [`DrafterConfig`].
#[derive(Debug)]
struct Work {
    rope: RopeTables,
    /// The embedding of the newest token, and the state before it, \[2 D\].
    input: Vec<f32>,
    /// The residual path, \[d\].
    residual: Vec<f32>,
    /// What a linear layer reads, \[1, d\].
    normed: Inputs,
    /// What attention or feed-forward add to the residual path, \[d\].
    branch: Vec<f32>,
    scratch: Vec<f32>,
    attention_parts: Vec<f32>,
}

impl Work {
    fn new(config: &DrafterConfig) -> Work {
        let (d, layers) = (config.hidden_size, &config.layers);
        let most = |of: &dyn Fn(&LayerShape) -> usize| layers.iter().map(of).max().unwrap_or(0);
        let scratch = most(&attention::scratch_width).max(most(&|layer| {
            feed_forward::scratch_width(layer.ffn_width, d)
        }));
        Work {
            rope: RopeTables::new(layers, 1),
            input: vec![0.0; 2 * config.backbone_hidden_size],
            residual: vec![0.0; d],
            normed: Inputs::new(1, d),
            branch: vec![0.0; d],
            scratch: vec![0.0; scratch],
            attention_parts: vec![0.0; most(&attention::parts_len)],
        }
    }
}

impl Drafter {
    /// Maps the drafter of a pack, and checks every tensor against its configuration.
    ///
    /// # Errors
    /// A tensor is missing or has another shape or type than `config` implies.
    pub fn load(checkpoint: &Checkpoint, config: &DrafterConfig) -> Result<Drafter, WeightsError> {
        let weights = checkpoint.load(Group::Drafter)?;
        let loader = &Loader::of(&weights, DRAFTER, config.rms_norm_eps);
        let (d, wide) = (config.hidden_size, config.backbone_hidden_size);
        let layers = config.layers.iter().enumerate();
        let layers =
            layers.map(|(index, shape)| Layer::load(&loader.layer(index), shape, index, d));
        Ok(Drafter {
            pre_projection: loader.matrix("pre_projection.weight", d, 2 * wide)?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: loader.norm("norm.weight", d)?,
            post_projection: loader.matrix("post_projection.weight", wide, d)?,
            head: Head::load(loader, config)?,
            work: Work::new(config),
            weights,
        })
    }

    /// [`drafter::Drafter::next`], looked at from inside.
    ///
    /// Source: drafter section 3.
    pub fn step(
        &mut self,
        pool: &Pool,
        cache: &KvCache,
        embedding: &[f32],
        probe: Probe<'_>,
    ) -> u32 {
        let weights = &*self.weights;
        let compute = Compute { pool, weights };
        let work = &mut self.work;
        work.input[..embedding.len()].copy_from_slice(embedding);
        compute.matmul(self.pre_projection, &work.input, 1, &mut work.residual);
        probe("pre_projection", 0, &work.residual);
        for (index, layer) in self.layers.iter().enumerate() {
            layer.forward(compute, cache, work);
            probe("layer", index, &work.residual);
        }
        self.norm.row(pool.isa(), &mut work.residual);
        probe("final_norm", 0, &work.residual);
        let (_, state) = work.input.split_at_mut(embedding.len());
        compute.matmul(self.post_projection, &work.residual, 1, state);
        probe("projected", 0, state);
        self.head.choose(compute, &work.residual, probe)
    }

    /// The ids among which the last guess was chosen, and their logits.
    pub fn candidates(&self) -> (&[u32], &[f32]) {
        self.head.candidates()
    }
}

impl drafter::Drafter for Drafter {
    fn weights(&self) -> &Arc<Mapped> {
        &self.weights
    }

    fn begin(&mut self, cache: &KvCache, hidden: &[f32]) {
        let (_, state) = self.work.input.split_at_mut(hidden.len());
        state.copy_from_slice(hidden);
        // All guesses of a round stand at one position: the first place that has no keys.
        self.work.rope.fill(0, cache.position(), 1);
    }

    fn next(&mut self, pool: &Pool, cache: &KvCache, embedding: &[f32]) -> u32 {
        self.step(pool, cache, embedding, &mut no_probe)
    }
}
