//! The towers while they are needed: pictures and clips to rows of the text model's embedding.

use std::sync::Arc;
use std::time::Instant;

use kernels::Pool;

use super::engine::{Engine, GiveWay, milliseconds};
use super::error::EngineError;
use super::{AudioStream, Media, SoftTokenPadding, Timing};
use crate::media::SAMPLE_RATE_HZ;
use crate::model::config::Config;
use crate::model::gemma3n::audio::AudioTower;
use crate::model::gemma3n::vision::VisionTower;
use crate::model::processor_config::ProcessorConfig;
use crate::model::prompt::Part;
use crate::model::weights::{Checkpoint, Group, Mapped, Residency};

/// How the towers encode.
#[derive(Clone, Debug)]
pub struct TowerOptions {
    /// What fills the unused places of a clip.
    pub soft_token_padding: SoftTokenPadding,
    /// 40 ms frames that are encoded together while audio streams in.
    pub audio_batch_frames: usize,
    /// Side of the square that pictures are resized to; `None` for the checkpoint's own ([`ProcessorConfig`]).
    pub resolution_px: Option<usize>,
}

impl Default for TowerOptions {
    /// As the reference; half a second of audio at a time.
    fn default() -> TowerOptions {
        TowerOptions {
            soft_token_padding: SoftTokenPadding::default(),
            audio_batch_frames: 12,
            resolution_px: None,
        }
    }
}

/// Of the released checkpoints; it stands where no file says so.
const RELEASED_RESOLUTION_PX: usize = 768;

/// The audio and vision towers: loaded when a request first needs them, unloaded on demand.
pub(super) struct Towers {
    config: Config,
    dir: String,
    resolution_px: usize,
    residency: Arc<Residency>,
    audio: Option<Arc<AudioTower>>,
    vision: Option<Arc<VisionTower>>,
}

impl Towers {
    /// `warnings` gets what the checkpoint leaves open about its media, or asks for and is not done.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        config: &Config,
        resolution_px: Option<usize>,
        residency: Arc<Residency>,
        warnings: &mut Vec<String>,
    ) -> Result<Towers, EngineError> {
        let processor = ProcessorConfig::load(checkpoint.dir())?;
        let side = resolution_px.or(processor.image_side_px()?);
        if checkpoint.has(Group::Vision) {
            warnings.extend(processor.image_warnings());
            if side.is_none() {
                warnings.push(format!(
                    "neither processor_config.json nor preprocessor_config.json of {} says how large pictures are: they are resized to {RELEASED_RESOLUTION_PX} pixels, as for the released models; if it was trained with others, name them as resolution_px in [vision] of gemmad.toml",
                    checkpoint.dir().display()
                ));
            }
        }
        if let (Some(audio), true) = (&config.audio, checkpoint.has(Group::Audio)) {
            warnings.extend(processor.audio_warnings(audio.input_feat_size));
        }
        let resolution_px = side.unwrap_or(RELEASED_RESOLUTION_PX);
        Ok(Towers {
            config: config.clone(),
            dir: checkpoint.dir().display().to_string(),
            resolution_px,
            residency,
            audio: None,
            vision: None,
        })
    }

    pub(super) fn soft_tokens_per_clip(&self) -> usize {
        self.config.audio_soft_tokens_per_image
    }

    pub(super) fn audio_weights(&self) -> Option<&Mapped> {
        self.audio.as_ref().map(|tower| tower.weights())
    }

    pub(super) fn vision_weights(&self) -> Option<&Mapped> {
        self.vision.as_ref().map(|tower| tower.weights())
    }

    pub(super) fn unload(&mut self, group: Group) {
        match group {
            Group::Audio => self.audio = None,
            Group::Vision => self.vision = None,
            Group::Text | Group::Ple => {}
        }
    }

    /// The audio tower, loaded now if it was not.
    pub(super) fn audio(
        &mut self,
        checkpoint: &Checkpoint,
        pool: &Pool,
        timing: &mut Timing,
    ) -> Result<Arc<AudioTower>, EngineError> {
        let tower = match self.audio.take() {
            Some(tower) => {
                tower.weights().check_length()?;
                tower
            }
            None => {
                let start = Instant::now();
                let config = self
                    .config
                    .audio
                    .as_ref()
                    .filter(|_| checkpoint.has(Group::Audio))
                    .ok_or_else(|| EngineError::NoTower {
                        dir: self.dir.clone(),
                        what: "audio tower",
                        media: "audio",
                    })?;
                let tower =
                    AudioTower::load(checkpoint, config, self.config.text.hidden_size, pool)?;
                timing.load_ms += milliseconds(start);
                Arc::new(tower)
            }
        };
        self.residency.loaded(Group::Audio);
        Ok(Arc::clone(self.audio.insert(tower)))
    }

    /// The vision tower, loaded now if it was not.
    fn vision(
        &mut self,
        checkpoint: &Checkpoint,
        timing: &mut Timing,
    ) -> Result<Arc<VisionTower>, EngineError> {
        let tower = match self.vision.take() {
            Some(tower) => {
                tower.weights().check_length()?;
                tower
            }
            None => {
                let start = Instant::now();
                let config = self
                    .config
                    .vision
                    .as_ref()
                    .filter(|_| checkpoint.has(Group::Vision))
                    .ok_or_else(|| EngineError::NoTower {
                        dir: self.dir.clone(),
                        what: "vision tower",
                        media: "pictures",
                    })?;
                let tower = VisionTower::load(checkpoint, config, self.config.text.hidden_size)?;
                timing.load_ms += milliseconds(start);
                Arc::new(tower)
            }
        };
        self.residency.loaded(Group::Vision);
        Ok(Arc::clone(self.vision.insert(tower)))
    }

    /// One row for each id beyond the text vocabulary: the next of `soft` for a soft token, else the hard embedding of
    /// its tower.
    pub(super) fn media_rows(
        &self,
        pool: &Pool,
        ids: &[u32],
        soft: &[f32],
        text_vocab_size: usize,
    ) -> Result<Vec<f32>, EngineError> {
        let Some(media) = &self.config.ids.media else {
            return Ok(Vec::new());
        };
        let mut soft = soft.chunks_exact(self.config.text.hidden_size);
        let mut rows = Vec::new();
        for &id in ids.iter().filter(|&&id| id as usize >= text_vocab_size) {
            if id == media.image || id == media.audio {
                rows.extend_from_slice(soft.next().unwrap_or_default());
            } else if let Some(row) = self.hard_embedding(pool, id) {
                rows.extend_from_slice(&row);
            }
        }
        Ok(rows)
    }

    fn hard_embedding(&self, pool: &Pool, id: u32) -> Option<Vec<f32>> {
        let seen = self
            .vision
            .as_ref()
            .and_then(|tower| tower.hard_embedding(pool, id));
        seen.or_else(|| {
            self.audio
                .as_ref()
                .and_then(|tower| tower.hard_embedding(pool, id))
        })
    }
}

impl Engine {
    /// Appends a medium's soft tokens to `rows` and gives its place in the prompt; gives way between its parts.
    pub(super) fn encode(
        &mut self,
        media: &Media,
        rows: &mut Vec<f32>,
        timing: &mut Timing,
        give_way: GiveWay<'_>,
    ) -> Result<Part, EngineError> {
        match media {
            Media::Image(image) => {
                let side = self.towers.resolution_px;
                let tower = self.towers.vision(&self.checkpoint, timing)?;
                // Before a square of that side is made.
                tower.check_resolution(side)?;
                let mut start = Instant::now();
                let square = image.resized_to_square(side);
                let pool = Arc::clone(&self.pool);
                let mut broken_off = (self.on_step)().is_break();
                let tokens = tower.encode_observed(&pool, &square.pixels, side, &mut |_| {
                    broken_off |= (self.on_step)().is_break();
                    if !broken_off {
                        start += self.pause(give_way);
                    }
                })?;
                if broken_off {
                    return Err(EngineError::Cancelled);
                }
                rows.extend_from_slice(&tokens);
                timing.encode_ms += milliseconds(start);
                Ok(Part::Image {
                    soft_tokens: tokens.len() / self.config().text.hidden_size,
                })
            }
            Media::Clip(clip) => {
                let options = self.tower_options().clone();
                let per_clip = self.towers.soft_tokens_per_clip();
                let tower = self.towers.audio(&self.checkpoint, &self.pool, timing)?;
                let pool = Arc::clone(&self.pool);
                let mut start = Instant::now();
                let mut stream = AudioStream::new(&tower, options.audio_batch_frames);
                for second in clip.samples.chunks(SAMPLE_RATE_HZ as usize) {
                    if (self.on_step)().is_break() {
                        return Err(EngineError::Cancelled);
                    }
                    start += self.pause(give_way);
                    stream.push(&tower, &pool, second, rows)?;
                }
                let soft_tokens =
                    stream.finish(&tower, &pool, options.soft_token_padding, per_clip, rows)?;
                timing.encode_ms += milliseconds(start);
                Ok(Part::Audio { soft_tokens })
            }
        }
    }
}
