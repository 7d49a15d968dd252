//! The model: opened as the daemon opens it, and how large its parts are.

use std::path::PathBuf;

use super::{Finding, mib};
use crate::cli::failure::Failure;
use crate::config::Config;
use crate::daemon;
use crate::model::config::ConfigError;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::weights::{Checkpoint, Group, WeightsError};
use crate::pipeline::{Engine, EngineError};

/// What an opened model needs.
pub(in crate::cli) struct Model {
    pub(super) text_bytes: u64,
    pub(super) audio_bytes: u64,
    pub(super) vision_bytes: u64,
    pub(super) drafter_bytes: u64,
    /// Keys and values: of the answer at hand, and of those that may go on; rows of the per-layer-embedding table.
    pub(super) cache_bytes: u64,
    /// The file that has the per-layer-embedding table, and the bytes of one of its rows.
    pub(super) ple_file: PathBuf,
    pub(super) ple_row_bytes: usize,
    pub(super) ple_bytes: u64,
}

impl Model {
    fn flash_bytes(&self) -> u64 {
        let towers = self.audio_bytes + self.vision_bytes;
        self.text_bytes + self.ple_bytes + towers + self.drafter_bytes
    }

    /// Memory while everything is in use.
    pub(super) fn needed_bytes(&self) -> u64 {
        self.text_bytes
            + self.audio_bytes
            + self.vision_bytes
            + self.drafter_bytes
            + self.cache_bytes
    }
}

/// Opens the configured model: every header, the tokenizer, the slices.
pub(in crate::cli) fn model(config: &Config) -> (Finding, Option<Model>) {
    let path = config.model.path.display();
    let (model, about) = match open(config) {
        Ok(opened) => opened,
        Err(error) => {
            let advice = match &error {
                _ if !config.model.path.exists() => {
                    "put a model there (gemmad pack makes one of a published checkpoint), or name another in [model] path"
                }
                EngineError::Config(ConfigError::NotACheckpoint { .. })
                | EngineError::Weights(
                    WeightsError::NotACheckpoint { .. } | WeightsError::Foreign { .. },
                ) => "do as it says, and name what comes of it in [model] path",
                _ => {
                    "gemmad inspect --verify tells which file is damaged; copy the model again, or pack it again"
                }
            };
            // The chain in one line, as for every command.
            let error = Failure::from(error).in_words();
            return (Finding::failing("model", error, advice), None);
        }
    };
    if let Err(error) = daemon::check_slices(&config.matformer, &about.slices) {
        let advice = match about.slices.get(1) {
            Some(_) => "name one of those, or leave the key out",
            None => "take the key out of [matformer]",
        };
        return (
            Finding::failing("model", error.to_string(), advice),
            Some(model),
        );
    }
    for (wanted, bytes, tower) in [
        (!config.microphone.is_empty(), model.audio_bytes, "audio"),
        (!config.camera.is_empty(), model.vision_bytes, "vision"),
    ] {
        if wanted && bytes == 0 {
            let found = format!("{path} has no {tower} tower");
            let advice = "take a complete checkpoint, or take the devices out of gemmad.toml";
            return (Finding::failing("model", found, advice), Some(model));
        }
    }
    let found = format!(
        "{path}, {}, {} on flash, slices {}",
        about.quantization,
        mib(model.flash_bytes()),
        about.slices.join(", "),
    );
    (Finding::ok("model", found), Some(model))
}

/// What is told of an opened model.
struct About {
    quantization: String,
    slices: Vec<String>,
}

fn open(config: &Config) -> Result<(Model, About), EngineError> {
    let mut options = daemon::engine_options(config);
    // Copying the table is the daemon's work, and locking its right.
    options.ple.cache_dir = None;
    options.mlock = false;
    let directory = &config.model.path;
    let engine = Engine::open(directory, options.clone())?;
    let checkpoint = Checkpoint::open(directory)?;
    let bytes = |group: Group| {
        let tensors = checkpoint.tensors();
        let of_group = tensors.filter(|tensor| tensor.group == Some(group));
        of_group.map(|tensor| tensor.bytes).sum::<u64>()
    };
    let cache = KvCache::bytes_for(&engine.spec().layers, options.kv_type, options.context);
    let rows = (options.ple.row_cache_mib as u64) << 20;
    let about = About {
        quantization: engine.quantization(),
        slices: engine.slice_names(),
    };
    let ple = engine.decoder().ple();
    let model = Model {
        text_bytes: bytes(Group::Text),
        audio_bytes: bytes(Group::Audio),
        vision_bytes: bytes(Group::Vision),
        drafter_bytes: bytes(Group::Drafter),
        cache_bytes: cache * options.answers as u64 + options.conversation_bytes + rows,
        ple_file: ple.path().to_owned(),
        ple_row_bytes: ple.row_bytes(),
        ple_bytes: bytes(Group::Ple),
    };
    Ok((model, about))
}
