//! Options that several commands share: which model, and how it answers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::failure::{Failure, exit};
use super::progress;
use crate::config::Config;
use crate::model::decoder::kv_cache::KvType;
use crate::model::sampler::{Sampling, random_seed};
use crate::pipeline::{
    EncoderOptions, Engine, EngineOptions, Generation, PictureOptions, SoftTokenPadding,
};

/// The model that a command works on.
#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Directory of a checkpoint of Gemma 3n or Gemma 4: config.json, tokenizer.json and safetensors
    #[arg(long, value_name = "DIR")]
    pub(super) model: PathBuf,
}

/// Which model runs, and how.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// How a model runs.
#[derive(Debug, clap::Args)]
pub(super) struct EngineArgs {
    /// Threads that compute [default: one for each fast core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Tokens of context: prompt and answer together
    #[arg(long, value_name = "N", default_value_t = 4096)]
    context: usize,
    /// Element type of the K/V cache: the reference's precision, half the memory, or a quarter
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = KvArg::F32)]
    kv_cache: KvArg,
    /// A gemmad.toml with prompts, limits and how media are encoded; options given here win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// As [`KvType`].
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum KvArg {
    F32,
    F16,
    Int8,
}

impl From<KvArg> for KvType {
    fn from(kind: KvArg) -> KvType {
        match kind {
            KvArg::F32 => KvType::F32,
            KvArg::F16 => KvType::F16,
            KvArg::Int8 => KvType::Int8,
        }
    }
}

impl RunArgs {
    /// As [`EngineArgs::config`].
    pub(super) fn config(&self) -> Result<Config, Failure> {
        self.engine.config()
    }

    /// As [`RunArgs::options`], for a command that takes pictures.
    pub(super) fn options_with(&self, config: &Config, pictures: PictureArgs) -> EngineOptions {
        let mut options = self.options(config);
        options.encoders.pictures = pictures.or(options.encoders.pictures);
        options
    }

    /// As [`EngineArgs::options`].
    pub(super) fn options(&self, config: &Config) -> EngineOptions {
        self.engine.options(config)
    }

    pub(super) fn open(&self, options: EngineOptions) -> Result<Engine, Failure> {
        open(&self.model.model, options)
    }
}

impl EngineArgs {
    /// The configuration file that was named.
    pub(super) fn config_file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The configuration file that was named, else the defaults.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        match &self.config {
            None => Ok(Config::default()),
            Some(path) => Config::load(path).map_err(|error| Failure::new(exit::CONFIG, error)),
        }
    }

    /// The options that every command has; a command with media adjusts its own.
    pub(super) fn options(&self, config: &Config) -> EngineOptions {
        EngineOptions {
            threads: self.threads.map_or(0, usize::from),
            context: self.context,
            kv_type: self.kv_cache.into(),
            encoders: EncoderOptions::new(&config.audio, &config.vision),
            ple: config.ple.clone(),
            mlock: config.model.mlock,
            ..EngineOptions::default()
        }
    }
}

/// Opens a model; a bar tells how far its table is copied, and what is odd is told.
pub(super) fn open(dir: &Path, options: EngineOptions) -> Result<Engine, Failure> {
    let bar = progress::of_bytes("copying the per-layer-embedding table");
    let opened = Engine::open_with(dir, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let engine = opened?;
    warn(engine.warnings());
    Ok(engine)
}

/// How pictures are encoded.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(multiple = false)]
pub(super) struct PictureArgs {
    /// Gemma 3n: look at pictures in N x N pixels: 256, 512 or 768 with the released models; less is faster and sees less
    /// [default: the checkpoint's own]
    #[arg(long, value_name = "N")]
    resolution: Option<usize>,
    /// Gemma 4: make at most N tokens of a picture: 70, 140, 280, 560 or 1120; fewer are faster and see less
    /// [default: the checkpoint's own]
    #[arg(long, value_name = "N")]
    soft_tokens: Option<usize>,
}

impl PictureArgs {
    /// What was given; where nothing was, what is `configured`.
    pub(super) fn or(self, configured: PictureOptions) -> PictureOptions {
        let given = PictureOptions {
            resolution_px: self.resolution,
            soft_tokens: self.soft_tokens,
        };
        if given == PictureOptions::default() {
            configured
        } else {
            given
        }
    }
}

/// As [`SoftTokenPadding`].
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum PaddingArg {
    /// Pad to the 188 soft tokens of 30 s, as the reference does
    Reference,
    /// Only what was heard: less to prefill
    None,
}

impl From<PaddingArg> for SoftTokenPadding {
    fn from(padding: PaddingArg) -> SoftTokenPadding {
        match padding {
            PaddingArg::Reference => SoftTokenPadding::Reference,
            PaddingArg::None => SoftTokenPadding::None,
        }
    }
}

/// Tells what is odd and no failure, in a line each.
pub(super) fn warn(warnings: &[String]) {
    for warning in warnings {
        Failure::new(0, format_args!("warning: {warning}")).told();
    }
}

/// How answers are chosen; what is not given comes from the checkpoint's generation_config.json.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct GenerationArgs {
    /// MatFormer slice that answers (`gemmad inspect` lists them) [default: the whole model]
    #[arg(long, value_name = "NAME")]
    pub(super) matformer: Option<String>,
    /// Tokens of the answer at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(super) max_tokens: usize,
    /// 0 always takes the likeliest token; 1 samples as the model says; more is wilder
    #[arg(long, value_name = "T")]
    pub(super) temperature: Option<f32>,
    /// Sample among the K likeliest tokens; 0 for all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Sample among the likeliest tokens that together have probability P
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Sample among the tokens at least P times as likely as the likeliest
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Make tokens that were used already less likely; 1 for not
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// The same seed gives the same text [default: random]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
    /// End the answer where it contains this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

impl GenerationArgs {
    pub(super) fn generation(&self, engine: &Engine) -> Generation {
        let default = engine.default_sampling();
        Generation {
            sampling: Sampling {
                temperature: self.temperature.unwrap_or(default.temperature),
                top_k: self.top_k.unwrap_or(default.top_k),
                top_p: self.top_p.unwrap_or(default.top_p),
                min_p: self.min_p.unwrap_or(default.min_p),
                repetition_penalty: self
                    .repetition_penalty
                    .unwrap_or(default.repetition_penalty),
            },
            seed: self.seed.unwrap_or_else(random_seed),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            grammar: None,
            tools: None,
        }
    }

    /// As [`GenerationArgs::generation`], but the likeliest text where no temperature was given: what is heard or seen
    /// should not depend on chance.
    pub(super) fn most_likely(&self, engine: &Engine) -> Generation {
        let mut generation = self.generation(engine);
        if self.temperature.is_none() {
            generation.sampling.temperature = 0.0;
        }
        generation
    }
}

/// A command's options as somebody would type them, for a command that does what others do: defaults are theirs.
pub(super) fn command_of<A: clap::Args>(line: Vec<OsString>) -> Result<A, Failure> {
    let command = A::augment_args(clap::Command::new("gemmad").no_binary_name(true));
    let matches = command.try_get_matches_from(line);
    matches
        .and_then(|matches| A::from_arg_matches(&matches))
        .map_err(|error| Failure::new(exit::USAGE, error))
}
