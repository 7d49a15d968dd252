//! The audio and vision encoders while they are needed: pictures and clips to rows of the text model's width.

use std::sync::Arc;
use std::time::Instant;

use kernels::Pool;

use super::answer::milliseconds;
use super::batches::Gathering;
use super::error::EngineError;
use super::{SoftTokenPadding, Timing};
use crate::model::architecture::Architecture;
use crate::model::encoder::{AudioEncoder, PictureOptions, VisionEncoder};
use crate::model::processor_config::ProcessorConfig;
use crate::model::weights::{Checkpoint, Group, Mapped, Residency};

/// How sound and pictures are encoded.
#[derive(Clone, Debug, Default)]
pub struct EncoderOptions {
    /// What fills the unused places of a clip, where the family fills them; `None`: as the reference does.
    pub soft_token_padding: Option<SoftTokenPadding>,
    /// How much audio is encoded together while it streams in.
    pub gathering: Gathering,
    /// How pictures are encoded; what is left open is as the checkpoint says ([`ProcessorConfig`]).
    pub pictures: PictureOptions,
}

/// The encoders: loaded when a request first needs them, unloaded on demand.
pub(super) struct Encoders {
    architecture: Arc<dyn Architecture>,
    dir: String,
    pub(super) pictures: PictureOptions,
    residency: Arc<Residency>,
    audio: Option<Arc<dyn AudioEncoder>>,
    vision: Option<Arc<dyn VisionEncoder>>,
}

impl Encoders {
    /// `warnings` gets what the checkpoint leaves open about its media, or asks for and is not done.
    pub(super) fn new(
        checkpoint: &Checkpoint,
        architecture: Arc<dyn Architecture>,
        options: &EncoderOptions,
        residency: Arc<Residency>,
        warnings: &mut Vec<String>,
    ) -> Result<Encoders, EngineError> {
        let spec = architecture.spec();
        if let Some(here) = &spec.pictures {
            options.pictures.check(here)?;
        }
        let processor = ProcessorConfig::load(checkpoint.dir())?;
        let (pictures, assumed) = architecture.picture_options(options.pictures, &processor)?;
        if checkpoint.has(Group::Vision) {
            let here = spec.pictures.as_ref().map(|pictures| &pictures.processor);
            warnings.extend(here.map_or_else(Vec::new, |here| processor.image_warnings(here)));
            warnings.extend(assumed);
        }
        if let (Some(audio), true) = (&spec.audio, checkpoint.has(Group::Audio)) {
            warnings.extend(processor.audio_warnings(&audio.processor));
            if audio.padded_soft_tokens.is_none() && options.soft_token_padding.is_some() {
                warnings.push(format!(
                    "soft_token_padding has no effect: it is for models whose clips are filled up to 30 s, such as Gemma 3n; with {} a clip has the soft tokens that were heard, and no more: leave it out",
                    spec.family
                ));
            }
        }
        Ok(Encoders {
            architecture,
            dir: checkpoint.dir().display().to_string(),
            pictures,
            residency,
            audio: None,
            vision: None,
        })
    }

    pub(super) fn audio_weights(&self) -> Option<&Mapped> {
        self.audio.as_ref().map(|encoder| encoder.weights())
    }

    pub(super) fn vision_weights(&self) -> Option<&Mapped> {
        self.vision.as_ref().map(|encoder| encoder.weights())
    }

    pub(super) fn unload(&mut self, group: Group) {
        match group {
            Group::Audio => self.audio = None,
            Group::Vision => self.vision = None,
            Group::Text | Group::Ple | Group::Drafter => {}
        }
    }

    /// The audio encoder, loaded now if it was not.
    pub(super) fn audio(
        &mut self,
        checkpoint: &Checkpoint,
        pool: &Pool,
        timing: &mut Timing,
    ) -> Result<Arc<dyn AudioEncoder>, EngineError> {
        let encoder = match self.audio.take() {
            Some(encoder) => {
                encoder.weights().check_length()?;
                encoder
            }
            None => {
                let start = Instant::now();
                self.check(checkpoint, Group::Audio)?;
                let encoder = self.architecture.audio_encoder(checkpoint, pool)?;
                timing.load_ms += milliseconds(start);
                encoder.ok_or_else(|| self.missing(Group::Audio))?
            }
        };
        self.residency.loaded(Group::Audio);
        Ok(Arc::clone(self.audio.insert(encoder)))
    }

    /// The vision encoder, loaded now if it was not.
    pub(super) fn vision(
        &mut self,
        checkpoint: &Checkpoint,
        timing: &mut Timing,
    ) -> Result<Arc<dyn VisionEncoder>, EngineError> {
        let encoder = match self.vision.take() {
            Some(encoder) => {
                encoder.weights().check_length()?;
                encoder
            }
            None => {
                let start = Instant::now();
                self.check(checkpoint, Group::Vision)?;
                let encoder = self.architecture.vision_encoder(checkpoint)?;
                timing.load_ms += milliseconds(start);
                encoder.ok_or_else(|| self.missing(Group::Vision))?
            }
        };
        self.residency.loaded(Group::Vision);
        Ok(Arc::clone(self.vision.insert(encoder)))
    }

    /// Whether the checkpoint has a group.
    ///
    /// # Errors
    /// It has not, and so cannot take what that is for.
    pub(super) fn check(&self, checkpoint: &Checkpoint, group: Group) -> Result<(), EngineError> {
        match checkpoint.has(group) {
            true => Ok(()),
            false => Err(self.missing(group)),
        }
    }

    fn missing(&self, group: Group) -> EngineError {
        let (what, media) = match group {
            Group::Audio => ("audio tower", "audio"),
            _ => ("vision tower", "pictures"),
        };
        EngineError::NoTower {
            dir: self.dir.clone(),
            what,
            media,
            family: self.architecture.spec().family,
        }
    }

    /// One row for each id that takes one: the next of `soft` for a soft token, else the embedding that its
    /// encoder has for it.
    pub(super) fn media_rows(&self, pool: &Pool, ids: &[u32], soft: &[f32]) -> Vec<f32> {
        let spec = self.architecture.spec();
        let Some(media) = &spec.ids.media else {
            return Vec::new();
        };
        let mut soft = soft.chunks_exact(spec.hidden_size);
        let mut rows = Vec::new();
        for &id in ids.iter().filter(|&&id| spec.takes_row(id)) {
            if id == media.image || id == media.audio {
                rows.extend_from_slice(soft.next().unwrap_or_default());
            } else if let Some(row) = self.embedding_of(pool, id) {
                rows.extend_from_slice(&row);
            }
        }
        rows
    }

    fn embedding_of(&self, pool: &Pool, id: u32) -> Option<Vec<f32>> {
        let seen = self.vision.as_ref();
        let heard = self.audio.as_ref();
        seen.and_then(|encoder| encoder.embedding_of(pool, id))
            .or_else(|| heard.and_then(|encoder| encoder.embedding_of(pool, id)))
    }
}
