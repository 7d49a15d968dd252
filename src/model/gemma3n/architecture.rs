//! A Gemma 3n as its config.json describes it.

use std::path::Path;
use std::sync::Arc;

use kernels::Pool;
use serde_json::{Value, json};

use super::FAMILY;
use super::audio::{AudioTower, log_mel};
use super::config::{AudioConfig, Config};
use super::encoder_tensors;
use super::matformer;
use super::template::Template;
use super::tensors;
use super::text::{TextDecoder, TextModel, Workspace};
use super::vision::VisionTower;
use crate::media::SAMPLE_RATE_HZ;
use crate::model::architecture::Architecture;
use crate::model::config::ConfigError;
use crate::model::decoder::{Decoder, SliceError, Slices};
use crate::model::encoder::{AudioEncoder, AudioError, PictureOptions, VisionEncoder, VisionError};
use crate::model::processor_config::{ProcessorConfig, ProcessorConfigError};
use crate::model::prompt::ChatTemplate;
use crate::model::spec::{AudioSpec, PictureSpec, Spec};
use crate::model::tensor_table::{Category, EncoderTensor, NamedShape, TextTensor};
use crate::model::weights::{Checkpoint, Group, PleOptions, PleStore, WeightsError};

/// Of the released checkpoints; it stands where no file says so.
const RELEASED_RESOLUTION_PX: usize = 768;

/// A Gemma 3n: its hyper-parameters, and what follows from them.
#[derive(Debug)]
pub struct Gemma3n {
    config: Config,
    spec: Spec,
}

impl Gemma3n {
    /// Checks what `config.json` says; `path` is named in errors.
    ///
    /// # Errors
    /// A key is missing or out of range.
    pub(in crate::model) fn new(value: &Value, path: &Path) -> Result<Gemma3n, ConfigError> {
        let config = Config::of(value, path)?;
        Ok(Gemma3n {
            spec: spec(&config),
            config,
        })
    }
}

fn spec(config: &Config) -> Spec {
    let text = &config.text;
    Spec {
        family: FAMILY,
        ids: config.ids.clone(),
        layers: text.layers(),
        hidden_size: text.hidden_size,
        vocab_size: text.vocab_size,
        text_vocab_size: text.vocab_size_per_layer_input,
        row_ids: text.row_ids(),
        per_layer_input_size: text.hidden_size_per_layer_input,
        sliding_window: text.sliding_window,
        max_context: text.max_position_embeddings,
        audio: config.audio.as_ref().map(|audio| audio_spec(config, audio)),
        pictures: config.vision.as_ref().map(|_| PictureSpec {
            family: FAMILY,
            soft_tokens: &[],
            processor: json!({
                "do_resize": true, "resample": 2, "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": false,
            }),
        }),
    }
}

fn audio_spec(config: &Config, audio: &AudioConfig) -> AudioSpec {
    let mel = log_mel(audio);
    AudioSpec {
        padded_soft_tokens: Some(config.audio_soft_tokens_per_image),
        processor: json!({
            "feature_size": mel.bands, "sampling_rate": SAMPLE_RATE_HZ, "frame_length": mel.window_samples,
            "hop_length": mel.hop_samples, "fft_length": mel.fft_samples, "min_frequency": mel.min_frequency_hz,
            "max_frequency": mel.max_frequency_hz, "preemphasis": mel.pre_emphasis, "preemphasis_htk_flavor": true,
            "mel_floor": mel.floor.value(), "dither": 0.0, "input_scale_factor": 1.0, "per_bin_mean": null, "per_bin_stddev": null,
        }),
    }
}

impl Architecture for Gemma3n {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn text_tensors(&self) -> Vec<TextTensor> {
        tensors::text(&self.config.text)
    }

    fn encoder_tensor(&self, name: &str) -> EncoderTensor {
        tensors::encoder(name)
    }

    fn encoder_tensors(&self, group: Group) -> Result<Vec<NamedShape>, VisionError> {
        let (audio, vision) = (&self.config.audio, &self.config.vision);
        let text_width = self.spec.hidden_size;
        match (group, audio, vision) {
            (Group::Audio, Some(audio), _) => Ok(encoder_tensors::audio(audio, text_width)),
            (Group::Vision, _, Some(vision)) => encoder_tensors::vision(vision, text_width),
            _ => Ok(Vec::new()),
        }
    }

    fn categories(&self) -> &[Category] {
        &tensors::CATEGORIES
    }

    fn category(&self, name: &str) -> Option<&'static str> {
        tensors::category(&self.config.text, name)
    }

    fn slices(&self, dir: Option<&Path>) -> Result<Slices, SliceError> {
        matformer::slices(&self.config.text, dir)
    }

    fn template(&self) -> &dyn ChatTemplate {
        &Template
    }

    fn decoder(
        &self,
        checkpoint: &Checkpoint,
        ple: &PleOptions,
        chunk: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Box<dyn Decoder>, WeightsError> {
        let config = &self.config.text;
        let ple = PleStore::open(checkpoint, config.ple_shape(), ple, progress)?;
        let text = TextModel::with_ple(checkpoint, config, ple)?;
        Ok(Box::new(TextDecoder::new(text, chunk)))
    }

    fn buffer_bytes(&self, chunk: usize) -> usize {
        Workspace::new(&self.config.text, chunk).bytes()
    }

    fn audio_encoder(
        &self,
        checkpoint: &Checkpoint,
        pool: &Pool,
    ) -> Result<Option<Arc<dyn AudioEncoder>>, AudioError> {
        let Some(config) = &self.config.audio else {
            return Ok(None);
        };
        let tower = AudioTower::load(checkpoint, config, self.spec.hidden_size, pool)?;
        Ok(Some(Arc::new(tower)))
    }

    fn vision_encoder(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Arc<dyn VisionEncoder>>, VisionError> {
        let Some(config) = &self.config.vision else {
            return Ok(None);
        };
        let tower = VisionTower::load(checkpoint, config, self.spec.hidden_size)?;
        Ok(Some(Arc::new(tower)))
    }

    fn picture_options(
        &self,
        asked: PictureOptions,
        processor: &ProcessorConfig,
    ) -> Result<(PictureOptions, Option<String>), ProcessorConfigError> {
        let side = asked.resolution_px.or(processor.image_side_px()?);
        let warning = side.is_none().then(|| {
            format!(
                "neither processor_config.json nor preprocessor_config.json of {} says how large pictures are: they are resized to {RELEASED_RESOLUTION_PX} pixels, as for the released models; if it was trained with others, name them as resolution_px in [vision] of gemmad.toml",
                processor.dir().display()
            )
        });
        let side = side.unwrap_or(RELEASED_RESOLUTION_PX);
        Ok((PictureOptions::of_resolution(side), warning))
    }
}
