//! The vision encoder: 8-bit pixels of any shape to soft tokens, by a transformer over patches.
//!
//! A picture keeps its shape and is brought to a size that a number of soft tokens allows ([`size`]). What is held for each patch is a
//! row of the residual stream, one of what its heads attended to, and keys and values of a quarter of the heads; all else is for a few
//! hundred patches at a time, and patches times patches is nothing.
//!
//! Source: reference section 3; `Gemma4VisionModel`.

mod attention;
mod feed_forward;
mod layer;
mod patches;
mod pooling;
mod rope;
pub mod size;

use std::sync::Arc;

use kernels::Pool;

use self::layer::Layer;
use self::patches::PatchEmbedder;
use self::pooling::Pooling;
use self::rope::RopeTable;
pub use self::size::Grid;
use super::config::VisionConfig;
use crate::media::Resampling;
use crate::model::clipped_linear::ClippedLinear;
use crate::model::decoder::{Compute, RmsNorm};
use crate::model::encoder::{PictureOptions, VisionEncoder, VisionError};
use crate::model::weights::{Checkpoint, Group, Mapped, WeightsError};

/// What the names of the tower's tensors begin with.
const PREFIX: &str = "model.vision_tower";

/// Patches that go through a layer together.
const CHUNK: usize = 256;

/// What the tower makes of a picture on its way, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Patches with their positions, `[patches, hidden]`.
    PatchEmbed,
    /// The output of a layer, `[patches, hidden]`.
    Layer(usize),
    /// Means of neighbouring patches, scaled, `[soft tokens, hidden]`.
    Pooled,
}

/// Is shown each stage's values; and called, without any, between parts of the work.
pub type Observer<'a, 'o> = &'a mut (dyn FnMut(Option<(Stage, &[f32])>) + 'o);

/// The tower with its weights; dropping it unloads them.
pub struct VisionTower {
    weights: Arc<Mapped>,
    config: VisionConfig,
    embedder: PatchEmbedder,
    layers: Vec<Layer>,
    pooling: Pooling,
}

impl VisionTower {
    /// Maps the vision group of a checkpoint and finds every tensor in it.
    ///
    /// # Errors
    /// The checkpoint has no vision tower, a tensor is missing or has another shape, or a layer's bounds bound nothing.
    pub fn load(
        checkpoint: &Checkpoint,
        config: &VisionConfig,
        text_hidden_size: usize,
    ) -> Result<VisionTower, VisionError> {
        let weights = checkpoint.load(Group::Vision)?;
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::load(&Loader::new(&weights, config, layer)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(VisionTower {
            embedder: PatchEmbedder::load(&weights, config)?,
            layers,
            pooling: Pooling::load(&weights, config, text_hidden_size)?,
            config: config.clone(),
            weights,
        })
    }

    /// The patches of a picture of such a size.
    ///
    /// # Errors
    /// A side is no whole number of soft tokens, or has more patches than there are positions.
    pub fn grid(&self, [width_px, height_px]: [usize; 2]) -> Result<Grid, VisionError> {
        Grid::of(&self.config, width_px, height_px)
    }

    /// [`VisionEncoder::encode`], showing what there is on the way to `observer`.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn encode_observed(
        &self,
        pool: &Pool,
        pixels: &[u8],
        size: [usize; 2],
        observer: Observer<'_, '_>,
    ) -> Result<Vec<f32>, VisionError> {
        let grid = self.grid(size)?;
        assert_eq!(
            pixels.len(),
            3 * size[0] * size[1],
            "8-bit RGB of {} x {}",
            size[0],
            size[1]
        );
        let compute = Compute {
            pool,
            weights: &self.weights,
        };
        let mut x = vec![0.0; grid.patches() * self.config.hidden_size];
        self.embedder.embed(compute, pixels, grid, &mut x);
        observer(Some((Stage::PatchEmbed, &x)));
        let rope = RopeTable::new(&self.config, grid);
        let mut attended = vec![0.0; x.len() / self.config.hidden_size * self.query_width()];
        for (index, layer) in self.layers.iter().enumerate() {
            layer.run(compute, &rope, &mut x, &mut attended, &mut || {
                observer(None);
            });
            observer(Some((Stage::Layer(index), &x)));
        }
        drop(attended);
        let pooled = self.pooling.pool(compute, &x, grid);
        drop(x);
        observer(Some((Stage::Pooled, &pooled)));
        Ok(self.pooling.project(compute, pooled))
    }

    fn query_width(&self) -> usize {
        self.config.num_attention_heads * self.config.head_dim
    }
}

impl VisionEncoder for VisionTower {
    fn weights(&self) -> &Mapped {
        &self.weights
    }

    fn resampling(&self) -> Resampling {
        Resampling::Bicubic
    }

    /// A size of the picture's shape.
    fn input_size(
        &self,
        options: PictureOptions,
        width_px: usize,
        height_px: usize,
    ) -> Result<[usize; 2], VisionError> {
        let soft_tokens = options.soft_tokens.unwrap_or(self.config.soft_tokens);
        let size = size::fitted(&self.config, soft_tokens, width_px, height_px)?;
        self.grid(size)?;
        Ok(size)
    }

    fn soft_tokens(&self, size: [usize; 2]) -> usize {
        size::soft_tokens(&self.config, size)
    }

    fn encode(
        &self,
        pool: &Pool,
        pixels: &[u8],
        size: [usize; 2],
        between: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, VisionError> {
        self.encode_observed(pool, pixels, size, &mut |_| between())
    }
}

/// Fetches the tensors of a layer.
struct Loader<'a> {
    weights: &'a Mapped,
    config: &'a VisionConfig,
    prefix: String,
}

impl<'a> Loader<'a> {
    fn new(weights: &'a Mapped, config: &'a VisionConfig, layer: usize) -> Loader<'a> {
        Loader {
            weights,
            config,
            prefix: format!("{PREFIX}.encoder.layers.{layer}"),
        }
    }

    fn norm(&self, leaf: &str, len: usize) -> Result<RmsNorm, WeightsError> {
        let name = format!("{}.{leaf}.weight", self.prefix);
        let weight = self.weights.vector(&name, len)?;
        Ok(RmsNorm::new(weight, self.config.rms_norm_eps))
    }

    fn linear(&self, leaf: &str, rows: usize, cols: usize) -> Result<ClippedLinear, WeightsError> {
        let name = format!("{}.{leaf}.linear.weight", self.prefix);
        ClippedLinear::load(self.weights, &name, rows, cols)
    }
}
