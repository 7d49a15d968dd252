//! A Gemma 4 as its config.json describes it.

use std::path::Path;
use std::sync::Arc;

use kernels::Pool;
use serde_json::{Value, json};

use super::audio::{AudioTower, LOG_MEL};
use super::config::{Config, DrafterConfig, SOFT_TOKENS};
use super::drafter;
use super::encoder_tensors;
use super::template::Template;
use super::tensors;
use super::text::{TextDecoder, TextModel, Workspace};
use super::vision::VisionTower;
use crate::media::SAMPLE_RATE_HZ;
use crate::model::architecture::Architecture;
use crate::model::config::{self, ConfigError};
use crate::model::decoder::{Decoder, Slice, SliceError, Slices};
use crate::model::drafter::{Drafter, DrafterError};
use crate::model::encoder::{AudioEncoder, AudioError, PictureOptions, VisionEncoder, VisionError};
use crate::model::processor_config::{ProcessorConfig, ProcessorConfigError};
use crate::model::prompt::ChatTemplate;
use crate::model::spec::{AudioSpec, PictureSpec, Spec};
use crate::model::tensor_table::{Category, EncoderTensor, NamedShape, TextTensor};
use crate::model::weights::{
    Checkpoint, DRAFTER_CONFIG, DRAFTER_ORDERING, Group, PleOptions, PleStore, WeightsError,
};

const FAMILY: &str = "Gemma 4";

/// A Gemma 4: its hyper-parameters, and what follows from them.
#[derive(Debug)]
pub struct Gemma4 {
    config: Config,
    spec: Spec,
}

impl Gemma4 {
    /// Checks what `config.json` says; `path` is named in errors.
    ///
    /// # Errors
    /// A key is missing or out of range.
    pub(in crate::model) fn new(value: &Value, path: &Path) -> Result<Gemma4, ConfigError> {
        let config = Config::of(value, path)?;
        Ok(Gemma4 {
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
        text_vocab_size: text.vocab_size,
        row_ids: config.row_ids(),
        per_layer_input_size: text.hidden_size_per_layer_input,
        sliding_window: text.sliding_window,
        max_context: text.max_position_embeddings,
        audio: config.audio.as_ref().map(|_| audio_spec()),
        pictures: config.vision.as_ref().map(|vision| PictureSpec {
            family: FAMILY,
            soft_tokens: &SOFT_TOKENS,
            processor: json!({
                "do_resize": true, "resample": 3, "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": false,
                "patch_size": vision.patch_size, "pooling_kernel_size": vision.pooling_kernel_size,
            }),
        }),
    }
}

/// Source: reference sections 1.5 and 4.1.
fn audio_spec() -> AudioSpec {
    let mel = LOG_MEL;
    AudioSpec {
        padded_soft_tokens: None,
        processor: json!({
            "feature_size": mel.bands, "sampling_rate": SAMPLE_RATE_HZ, "frame_length": mel.window_samples,
            "hop_length": mel.hop_samples, "fft_length": mel.fft_samples, "fft_overdrive": false,
            "min_frequency": mel.min_frequency_hz, "max_frequency": mel.max_frequency_hz, "preemphasis": mel.pre_emphasis,
            "mel_floor": mel.floor.value(), "dither": 0.0, "input_scale_factor": 1.0, "per_bin_mean": null, "per_bin_stddev": null,
        }),
    }
}

impl Architecture for Gemma4 {
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
        Ok(match group {
            Group::Audio => audio
                .iter()
                .flat_map(|audio| encoder_tensors::audio(audio, text_width))
                .collect(),
            Group::Vision => vision
                .iter()
                .flat_map(|vision| encoder_tensors::vision(vision, text_width))
                .collect(),
            Group::Text | Group::Ple | Group::Drafter => Vec::new(),
        })
    }

    fn categories(&self) -> &[Category] {
        &tensors::CATEGORIES
    }

    fn category(&self, name: &str) -> Option<&'static str> {
        tensors::category(&self.config.text, name)
    }

    fn slices(&self, _: Option<&Path>) -> Result<Slices, SliceError> {
        Ok(Slices::new(Slice::full(&self.spec.layers), Vec::new()))
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
        let ple = PleStore::open(checkpoint, self.config.text.ple_shape(), ple, progress)?;
        let text = TextModel::with_ple(checkpoint, &self.config, ple)?;
        Ok(Box::new(TextDecoder::new(text, chunk)))
    }

    fn buffer_bytes(&self, chunk: usize) -> usize {
        Workspace::new(&self.config, chunk).bytes()
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

    fn drafter_tensors(
        &self,
        value: &Value,
        path: &Path,
        has: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<TextTensor>, ConfigError> {
        let mut config = DrafterConfig::of(value, path, &self.config.text)?;
        // The tensors tell, whatever the config says.
        config.clusters = config.clusters.filter(|_| has(DRAFTER_ORDERING));
        Ok(drafter::tensors(&config))
    }

    fn drafter(&self, checkpoint: &Checkpoint) -> Result<Option<Box<dyn Drafter>>, DrafterError> {
        if !checkpoint.has(Group::Drafter) {
            return Ok(None);
        }
        let (value, path) = config::read_file(checkpoint.dir().join(DRAFTER_CONFIG))?;
        let config = DrafterConfig::of(&value, &path, &self.config.text)?;
        let drafter = drafter::Drafter::load(checkpoint, &config)?;
        Ok(Some(Box::new(drafter)))
    }

    fn picture_options(
        &self,
        asked: PictureOptions,
        processor: &ProcessorConfig,
    ) -> Result<(PictureOptions, Option<String>), ProcessorConfigError> {
        if asked.soft_tokens.is_some() {
            return Ok((asked, None));
        }
        let configured = self.config.vision.as_ref().map(|vision| vision.soft_tokens);
        let options = PictureOptions {
            soft_tokens: processor.soft_tokens(&SOFT_TOKENS)?.or(configured),
            ..asked
        };
        Ok((options, None))
    }
}
