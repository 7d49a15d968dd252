//! The vision tower: 8-bit pixels to soft tokens, by MobileNetV5 and its multi-scale fusion.
//!
//! Feature maps lie pixel by pixel ([`feature_map`]); every block walks over its input in strips of rows and keeps only
//! what a strip needs, so that nothing wide is ever whole in memory; a block with a residual works in place. What is left
//! is one feature map, at most two, and a few megabytes for the strip.
//!
//! Source: timm `mobilenetv5_300m_enc`; transformers `Gemma3nModel.get_image_features`.

mod block;
mod block_args;
mod edge_residual;
mod feature_map;
mod fusion;
mod inverted_bottleneck;
mod layer;
mod multi_query_attention;
mod pixelwise;
mod stem;
mod table;

use std::ops::Range;
use std::sync::Arc;

use kernels::Pool;

pub use self::block::{Block, BlockKind};
use self::feature_map::FeatureMap;
use self::fusion::Fusion;
use self::layer::Layer;
use self::pixelwise::Compute;
use self::stem::{Stem, StemRows};
pub use self::table::Architecture;
use super::config::VisionConfig;
use super::multimodal_embedder::{EmbedderShape, MultimodalEmbedder};
use crate::media::Resampling;
use crate::model::encoder::{PictureOptions, VisionEncoder, VisionError};
use crate::model::weights::{Checkpoint, Group, Mapped, WeightsError};

/// What the names of all tensors of the network start with.
pub const PREFIX: &str = "model.vision_tower.timm_model";

/// The largest side of a picture that is encoded: memory and time grow with its square.
pub const MAX_RESOLUTION_PX: usize = 1024;

/// A part of a feature map on its way through the network, for whoever watches.
pub struct Observation<'a> {
    /// `stem`, `stage0` and so on, `encoder` (what goes into the embedder).
    pub name: &'a str,
    /// Rows of the whole map.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
    /// The rows that `values` holds.
    pub rows: Range<usize>,
    /// `[rows.len(), width, channels]`
    pub values: &'a [f32],
}

/// Is shown every [`Observation`]; each row of a map is shown once, from top to bottom.
pub type Observer<'a, 'o> = &'a mut (dyn FnMut(&Observation<'_>) + 'o);

/// The tower with its weights; dropping it unloads them.
pub struct VisionTower {
    weights: Arc<Mapped>,
    architecture: Architecture,
    stem: Stem,
    stages: Vec<Vec<Layer>>,
    fusion: Fusion,
    embedder: MultimodalEmbedder,
}

impl VisionTower {
    /// Maps the vision group of a checkpoint and finds every tensor in it.
    ///
    /// # Errors
    /// The checkpoint has no vision tower, a tensor is missing or has another shape, or `model_args` describes something
    /// that is not built here.
    pub fn load(
        checkpoint: &Checkpoint,
        config: &VisionConfig,
        text_hidden_size: usize,
    ) -> Result<VisionTower, VisionError> {
        let architecture = Architecture::new(config.hidden_size, config.model_args.as_ref())?;
        let weights = checkpoint.load(Group::Vision)?;
        let stem = Stem::load(
            &weights,
            &format!("{PREFIX}.conv_stem"),
            architecture.stem_channels,
        )?;
        let mut stages = Vec::with_capacity(architecture.stages.len());
        for (s, blocks) in architecture.stages.iter().enumerate() {
            let layers: Result<Vec<Layer>, WeightsError> = blocks
                .iter()
                .enumerate()
                .map(|(b, block)| Layer::load(&weights, &format!("{PREFIX}.blocks.{s}.{b}"), block))
                .collect();
            stages.push(layers?);
        }
        let channels = [
            architecture.fused_channels().iter().sum(),
            architecture.fusion_mid_channels(),
            architecture.hidden_size,
        ];
        let fusion = Fusion::load(
            &weights,
            &format!("{PREFIX}.msfa"),
            channels,
            architecture.msfa_output_resolution,
        )?;
        let shape = EmbedderShape {
            prefix: "model.embed_vision",
            multimodal_hidden_size: config.hidden_size,
            text_hidden_size,
            vocab_size: config.vocab_size,
            vocab_offset: config.vocab_offset,
            rms_norm_eps: config.rms_norm_eps,
        };
        let embedder = MultimodalEmbedder::load(&weights, shape)?;
        Ok(VisionTower {
            weights,
            architecture,
            stem,
            stages,
            fusion,
            embedder,
        })
    }

    /// The mapped weights, to ask how much of them is in memory.
    pub fn weights(&self) -> &Mapped {
        &self.weights
    }

    /// The row that stands for a token such as `<end_of_image>` in the text model; `None` if the id is not a vision id.
    pub fn hard_embedding(&self, pool: &Pool, id: u32) -> Option<Vec<f32>> {
        self.embedder.hard(pool, &self.weights, id)
    }

    /// Soft tokens of a picture, whatever its resolution.
    pub fn soft_tokens_per_image(&self) -> usize {
        self.architecture.msfa_output_resolution.pow(2)
    }

    /// Whether pictures of this side can be encoded.
    ///
    /// # Errors
    /// The side is 0, above [`MAX_RESOLUTION_PX`], or does not halve evenly through the stages.
    pub fn check_resolution(&self, resolution_px: usize) -> Result<(), VisionError> {
        let step_px = self.architecture.total_stride();
        if resolution_px == 0
            || resolution_px > MAX_RESOLUTION_PX
            || !resolution_px.is_multiple_of(step_px)
        {
            return Err(VisionError::Resolution {
                resolution_px,
                step_px,
                limit_px: MAX_RESOLUTION_PX,
            });
        }
        Ok(())
    }

    /// Soft tokens `[soft_tokens_per_image, text_hidden_size]` of a square picture `[resolution_px, resolution_px, 3]`, 8-bit
    /// RGB.
    ///
    /// # Errors
    /// The resolution does not fit the network.
    ///
    /// # Panics
    /// If `pixels` is not `3 resolution_px^2` long.
    pub fn encode(
        &self,
        pool: &Pool,
        pixels: &[u8],
        resolution_px: usize,
    ) -> Result<Vec<f32>, VisionError> {
        self.encode_observed(pool, pixels, resolution_px, &mut |_| ())
    }

    /// [`VisionTower::encode`], showing the feature maps behind the stem, the stages and the fusion to `observer`.
    ///
    /// # Errors
    /// As [`VisionTower::encode`].
    ///
    /// # Panics
    /// As [`VisionTower::encode`].
    pub fn encode_observed(
        &self,
        pool: &Pool,
        pixels: &[u8],
        resolution_px: usize,
        observer: Observer<'_, '_>,
    ) -> Result<Vec<f32>, VisionError> {
        self.check_resolution(resolution_px)?;
        assert_eq!(
            pixels.len(),
            3 * resolution_px * resolution_px,
            "8-bit RGB of {resolution_px} x {resolution_px}"
        );
        let compute = Compute {
            pool,
            weights: &self.weights,
        };

        let mut fine = None;
        let mut current: Option<FeatureMap> = None;
        for (s, layers) in self.stages.iter().enumerate() {
            for layer in layers {
                current = Some(match current.take() {
                    Some(map) if layer.residual => layer.run_in_place(compute, map),
                    Some(mut map) => layer.run(compute, &mut map),
                    None => {
                        let (stem, weights, walk) =
                            (&self.stem, &self.weights, Stem::walk(resolution_px));
                        let mut rows = StemRows {
                            stem,
                            weights,
                            pixels,
                            walk,
                            observer: &mut *observer,
                        };
                        layer.run(compute, &mut rows)
                    }
                });
            }
            if let Some(map) = &current {
                observer(&map.observation(&format!("stage{s}"), 0..map.height));
            }
            if s == self.architecture.fused_stage() {
                fine = current.as_ref().map(FeatureMap::copy);
            }
        }
        let side = self.architecture.msfa_output_resolution;
        let channels = self.architecture.hidden_size;
        let mut features = match (&fine, &current) {
            (Some(fine), Some(coarse)) => self.fusion.run(compute, fine, coarse),
            _ => unreachable!("an architecture has at least two stages"),
        };
        // Only the epsilon of the next norm notices this factor.
        let scale = (channels as f32).sqrt();
        features.iter_mut().for_each(|feature| *feature *= scale);
        observer(&Observation {
            name: "encoder",
            height: side,
            width: side,
            channels,
            rows: 0..side,
            values: &features,
        });
        let mut soft_tokens = Vec::new();
        self.embedder
            .soft(pool, &self.weights, &features, &mut soft_tokens);
        Ok(soft_tokens)
    }
}

impl VisionEncoder for VisionTower {
    fn weights(&self) -> &Mapped {
        &self.weights
    }

    fn resampling(&self) -> Resampling {
        Resampling::Bilinear
    }

    /// A square, whatever the picture's shape.
    fn input_size(
        &self,
        options: PictureOptions,
        _width_px: usize,
        _height_px: usize,
    ) -> Result<[usize; 2], VisionError> {
        let side = options.resolution_px.unwrap_or_default();
        self.check_resolution(side)?;
        Ok([side; 2])
    }

    fn soft_tokens(&self, _size: [usize; 2]) -> usize {
        self.soft_tokens_per_image()
    }

    fn encode(
        &self,
        pool: &Pool,
        pixels: &[u8],
        [side, _]: [usize; 2],
        between: &mut dyn FnMut(),
    ) -> Result<Vec<f32>, VisionError> {
        self.encode_observed(pool, pixels, side, &mut |_| between())
    }

    fn embedding_of(&self, pool: &Pool, id: u32) -> Option<Vec<f32>> {
        self.hard_embedding(pool, id)
    }
}

impl FeatureMap {
    fn observation<'a>(&'a self, name: &'a str, rows: Range<usize>) -> Observation<'a> {
        let FeatureMap {
            height,
            width,
            channels,
            ..
        } = *self;
        Observation {
            name,
            height,
            width,
            channels,
            values: self.rows(rows.clone()),
            rows,
        }
    }
}
