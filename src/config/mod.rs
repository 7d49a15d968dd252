//! `gemmad.toml`: what is asked, and how much is accepted. Every key has a default; an unknown one is an error.
//!
//! config/gemmad.toml lists every key with its default and unit, and is tested to say what is here.

mod daemon;
mod mistake;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::capture::options::{self, CameraOptions, MicrophoneOptions, SpeakerOptions};
use crate::features::audio_file::AudioLimits;
use crate::features::image::ImageLimits;
use crate::features::speech_check::SpeechOptions;
use crate::fleet::FleetOptions;
use crate::frigate::FrigateOptions;
use crate::guard::secret::without_secrets;
use crate::model::grammar::GrammarLimits;
use crate::model::tasks::Tasks;
use crate::model::weights::PleOptions;
use crate::pipeline::commands::{
    Command, CommandGrammar, Commands, Home, HomeAssistant, NamesFrom,
};
use crate::pipeline::{AudioSection, GuessOptions, PrefixCacheOptions, VisionSection};
use crate::publish::dbus::DbusOptions;
use crate::publish::http::HttpServerOptions;
use crate::publish::mqtt::MqttOptions;
use crate::publish::wyoming::WyomingOptions;

pub use daemon::{Degrade, Log, Matformer, Model, Queue, Threads};

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the model is asked to do with a clip or a picture.
    pub tasks: Tasks,
    /// How audio is encoded.
    pub audio: AudioSection,
    /// What counts as speech in sound that comes from elsewhere than the microphones.
    pub speech: SpeechOptions,
    /// How pictures are encoded.
    pub vision: VisionSection,
    /// What is accepted.
    pub limits: Limits,
    /// Which model runs.
    pub model: Model,
    /// How its per-layer-embedding table is read.
    pub ple: PleOptions,
    /// What is kept of prompts that come again.
    pub prefix_cache: PrefixCacheOptions,
    /// What is guessed of answers.
    pub guess: GuessOptions,
    /// Which of the nested models answers.
    pub matformer: Matformer,
    /// Threads that compute.
    pub threads: Threads,
    /// What is listened to.
    pub microphone: Vec<MicrophoneOptions>,
    /// What Frigate watches.
    pub frigate: FrigateOptions,
    /// What is watched.
    pub camera: Vec<CameraOptions>,
    /// What is played to.
    pub speaker: SpeakerOptions,
    /// What may be commanded.
    pub command: Vec<Command>,
    /// How the model is asked for a command.
    pub commands: Commands,
    /// What may be commanded of Home Assistant.
    pub homeassistant: HomeAssistant,
    /// The broker.
    pub mqtt: MqttOptions,
    /// The bus.
    pub dbus: DbusOptions,
    /// Speech to text for Home Assistant's Assist.
    pub wyoming: WyomingOptions,
    /// Clients of OpenAI's and Ollama's protocols, and the page.
    pub http: HttpServerOptions,
    /// Other boards that share the work.
    pub fleet: FleetOptions,
    /// What waits, and for how long.
    pub queue: Queue,
    /// When less is done.
    pub degrade: Degrade,
    /// The log.
    pub log: Log,
}

/// `[limits]`
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// `[limits.audio]`
    pub audio: AudioLimits,
    /// `[limits.image]`
    pub image: ImageLimits,
    /// `[limits.grammar]`
    pub grammar: GrammarLimits,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The operating system refused to read the file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Where, why, and which keys there are.
        reason: String,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, has an unknown key, or a value that does not fit.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Config::parse(&text, path)
    }

    /// Reads the text of a file; `path` is named in errors.
    ///
    /// # Errors
    /// An unknown key, or a value that does not fit.
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        // A value that does not fit is repeated, and may be an address with a password.
        let bad = |reason: String| ConfigError::File {
            path: path.to_owned(),
            reason: without_secrets(&reason).into_owned(),
        };
        let mut config: Config =
            toml::from_str(text).map_err(|error| bad(mistake::explain(&error, text)))?;
        config.audio.check().map_err(bad)?;
        config.speech.check().map_err(bad)?;
        config.guess.check().map_err(bad)?;
        config.queue.check().map_err(bad)?;
        if !config.command.is_empty() {
            let limits = &config.limits.grammar;
            CommandGrammar::new(&config.command, None, &config.commands, limits)
                .map_err(|error| bad(error.to_string()))?;
        }
        config.homeassistant.check().map_err(bad)?;
        if config.homeassistant.names != NamesFrom::Off {
            // What the names will be added to: a clash shows before they come.
            let home = Some((Arc::new(Home::default()), &config.homeassistant));
            let limits = &config.limits.grammar;
            CommandGrammar::new(&config.command, home, &config.commands, limits)
                .map_err(|error| bad(error.to_string()))?;
        }
        if config.homeassistant.names == NamesFrom::Mqtt && !config.mqtt.enabled {
            return Err(bad(
                "homeassistant.names is \"mqtt\", but mqtt.enabled is false: the names come from the broker"
                    .to_owned(),
            ));
        }
        let watched = options::frigate_cameras(&config.frigate).map_err(bad)?;
        config.camera.extend(watched);
        if config.frigate.enabled && !config.mqtt.enabled {
            let reason = "frigate.enabled is true, but mqtt.enabled is false: Frigate's events come from the broker";
            return Err(bad(reason.to_owned()));
        }
        options::check(&config.microphone, &config.camera).map_err(bad)?;
        config.speaker.check().map_err(bad)?;
        let microphones = config.microphone.iter().map(|found| found.id.as_str());
        let cameras = config.camera.iter().map(|found| found.id.as_str());
        let ids = [
            ("microphone", microphones.collect()),
            ("camera", cameras.collect()),
        ];
        config.dbus.check(ids).map_err(bad)?;
        config.wyoming.check().map_err(bad)?;
        config.http.check().map_err(bad)?;
        config.mqtt.check().map_err(bad)?;
        config.fleet.check().map_err(bad)?;
        Ok(config)
    }
}
