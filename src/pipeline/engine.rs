//! A loaded model and the one way in which a request becomes an answer: encode, prefill, decode.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use kernels::{Isa, Pool};

use super::error::EngineError;
use super::media::{TowerOptions, Towers};
use super::options::EngineOptions;
use super::{Answer, Timing};
use crate::features::image::RgbImage;
use crate::media::AudioClip;
use crate::model::config::Config;
use crate::model::generation_config::GenerationConfig;
use crate::model::kv_cache::KvCache;
use crate::model::matformer::{Slice, SliceError, Slices};
use crate::model::prompt::{Message, Part, Prompt, Role};
use crate::model::sampler::{Sampler, Sampling};
use crate::model::stop::{StopReason, StopRules, TextStream};
use crate::model::text::{TextModel, Workspace, no_probe};
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::{Checkpoint, PleStore, Residency};

/// Room in an answer for each token, so that it does not grow while it is decoded; no text's tokens are longer on average.
const BYTES_PER_TOKEN: usize = 32;

/// The largest K/V cache: the real models need 0.5 GiB for their longest context, a board has 16 GiB at most.
const MAX_CACHE_BYTES: u64 = 16 << 30;

/// What a user message holds besides text, in the order in which it stands in the prompt.
#[derive(Clone, Debug)]
pub enum Media {
    /// A picture of any size.
    Image(RgbImage),
    /// Mono audio at 16 kHz, at most 30 s.
    Clip(AudioClip),
}

/// A part of what the user says.
#[derive(Clone, Debug)]
pub enum UserPart {
    /// Text.
    Text(String),
    /// A picture or a clip.
    Media(Media),
}

/// How an answer is chosen and when it ends.
#[derive(Clone, Debug)]
pub struct Generation {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The same seed gives the same text.
    pub seed: u64,
    /// Tokens at most.
    pub max_tokens: usize,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

/// One thing to answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// Instructions before the conversation.
    pub system: Option<String>,
    /// What the user says and shows.
    pub user: Vec<UserPart>,
    /// The MatFormer slice that answers, by name; `None` for the whole model.
    pub matformer: Option<String>,
    /// How the answer is chosen.
    pub generation: Generation,
}

/// A model that answers requests, one at a time.
pub struct Engine {
    checkpoint: Arc<Checkpoint>,
    pub(super) residency: Arc<Residency>,
    pub(super) warnings: Vec<String>,
    config: Config,
    tokenizer: Tokenizer,
    generation_config: GenerationConfig,
    slices: Slices,
    pub(super) text: TextModel,
    pub(super) towers: Towers,
    pool: Pool,
    work: Workspace,
    logits: Vec<f32>,
    pub(super) options: EngineOptions,
}

impl Engine {
    /// Opens a checkpoint: text and PLE weights are mapped, audio and vision stay unloaded until a request needs them.
    ///
    /// # Errors
    /// A file is missing, malformed, or does not fit the others.
    pub fn open(dir: &Path, options: EngineOptions) -> Result<Engine, EngineError> {
        Engine::open_with(dir, options, &mut |_, _| {})
    }

    /// As [`Engine::open`]; `progress` is told how many bytes of how many of the PLE table are copied to `[ple] cache_dir`.
    ///
    /// # Errors
    /// As [`Engine::open`].
    pub fn open_with(
        dir: &Path,
        options: EngineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Engine, EngineError> {
        let config = Config::load(dir)?;
        let checkpoint = Arc::new(Checkpoint::open(dir)?);
        let tokenizer = Tokenizer::load(dir)?;
        tokenizer.check_config(&config, &dir.join("config.json"))?;
        let generation_config = GenerationConfig::load(dir)?;
        let slices = Slices::load(dir, &config.text)?;
        let limit = config.text.max_position_embeddings;
        if options.context == 0 || options.context > limit {
            return Err(EngineError::Context {
                asked: options.context,
                limit,
            });
        }
        let cache_bytes = KvCache::bytes_for(&config.text, options.kv_type, options.context);
        if cache_bytes > MAX_CACHE_BYTES {
            return Err(EngineError::CacheSize {
                context: options.context,
                gib: cache_bytes >> 30,
                limit_gib: MAX_CACHE_BYTES >> 30,
            });
        }
        let threads = match options.threads {
            0 => kernels::recommended_threads(),
            threads => threads,
        };
        let pool = Pool::new(Isa::from_environment()?, threads);
        let residency = Residency::new(Arc::clone(&checkpoint));
        let ple = PleStore::open(&checkpoint, &config.text, &options.ple, progress)?;
        let text = TextModel::with_ple(&checkpoint, &config.text, ple)?;
        Ok(Engine {
            warnings: super::residency::warnings(&text, options.mlock),
            work: Workspace::new(
                &config.text,
                options.prefill_chunk.clamp(1, options.context),
            ),
            logits: vec![0.0; text.text_vocab_size()],
            towers: Towers::new(dir, &config, options.towers.clone(), residency.clone())?,
            residency,
            checkpoint,
            config,
            tokenizer,
            generation_config,
            slices,
            text,
            pool,
            options,
        })
    }

    /// The directory of the checkpoint.
    pub fn dir(&self) -> PathBuf {
        self.checkpoint.dir().to_owned()
    }

    /// Hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Sampling as the checkpoint's makers want it.
    pub fn default_sampling(&self) -> Sampling {
        self.generation_config.sampling
    }

    /// The text model, to switch its shortcuts.
    pub fn text_mut(&mut self) -> &mut TextModel {
        &mut self.text
    }

    /// A slice by name, or the whole model.
    pub(super) fn slice(&self, name: Option<&str>) -> Result<&Slice, SliceError> {
        name.map_or(Ok(self.slices.full()), |name| self.slices.get(name))
    }

    /// A conversation without any token.
    ///
    /// # Errors
    /// No slice of that name.
    pub(super) fn conversation(
        &self,
        matformer: Option<&str>,
    ) -> Result<Conversation, EngineError> {
        let slice = self.slice(matformer)?.clone();
        if !self.text.serves(&slice) {
            return Err(SliceError::Misfit {
                name: slice.name,
                reason: "the pack was made before this slice was named: make it again with `gemmad pack`".to_owned(),
            }
            .into());
        }
        self.use_text()?;
        let chunk = self.options.prefill_chunk.clamp(1, self.options.context);
        let cache = KvCache::new(
            &self.config.text,
            self.options.kv_type,
            self.options.context,
            chunk,
        );
        Ok(Conversation {
            cache,
            slice,
            timing: Timing::default(),
        })
    }

    /// Answers a request; `on_text` gets the answer as it comes and may end it.
    ///
    /// # Errors
    /// A medium cannot be encoded, the prompt does not fit the context, or no such slice exists.
    pub fn answer(
        &mut self,
        request: &Request,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, EngineError> {
        let mut conversation = self.conversation(request.matformer.as_deref())?;
        let mut rows = Vec::new();
        let mut parts = Vec::new();
        for part in &request.user {
            parts.push(match part {
                UserPart::Text(text) => Part::Text(text.clone()),
                UserPart::Media(media) => self.towers.encode(
                    &self.checkpoint,
                    &self.pool,
                    media,
                    &mut rows,
                    &mut conversation.timing,
                )?,
            });
        }
        let prompt = self.render(request.system.as_deref(), parts)?;
        let rows = self.media_rows(&prompt.ids, &rows)?;
        self.prefill(&mut conversation, &prompt.ids, &rows)?;
        self.decode(conversation, &request.generation, on_text)
    }

    pub(super) fn render(
        &self,
        system: Option<&str>,
        user: Vec<Part>,
    ) -> Result<Prompt, EngineError> {
        let system = system.map(|text| Message::text(Role::System, text));
        let user = Message {
            role: Role::User,
            content: user,
        };
        let messages: Vec<Message> = system.into_iter().chain([user]).collect();
        Ok(Prompt::render(&self.tokenizer, &messages, true)?)
    }

    /// Takes tokens into a conversation; `rows` are the embeddings of those beyond the text vocabulary.
    pub(super) fn prefill(
        &mut self,
        conversation: &mut Conversation,
        ids: &[u32],
        rows: &[f32],
    ) -> Result<(), EngineError> {
        let start = Instant::now();
        let Conversation {
            cache,
            slice,
            timing,
        } = conversation;
        self.text.extend(
            &self.pool,
            cache,
            &mut self.work,
            ids,
            rows,
            slice,
            &mut no_probe,
        )?;
        timing.prefill_ms += milliseconds(start);
        timing.prompt_tokens += ids.len();
        Ok(())
    }

    /// Decodes the answer to what was prefilled.
    pub(super) fn decode(
        &mut self,
        conversation: Conversation,
        generation: &Generation,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer, EngineError> {
        let Conversation {
            mut cache,
            slice,
            mut timing,
        } = conversation;
        let start = Instant::now();
        let rules = StopRules {
            tokens: self.stop_tokens(),
            strings: generation.stop.clone(),
            max_tokens: generation.max_tokens,
        };
        let mut sampler = Sampler::new(
            generation.sampling,
            self.text.text_vocab_size(),
            generation.seed,
        )?;
        let mut stream = TextStream::new(&self.tokenizer, &rules);
        let room = generation.max_tokens.min(cache.context()) * BYTES_PER_TOKEN;
        let mut text = String::with_capacity(room);
        let mut finish = stream.stopped().map(FinishReason::from);
        while finish.is_none() {
            self.text.logits(
                &self.pool,
                &self.work,
                self.work.ready() - 1,
                &mut self.logits,
            );
            let id = sampler.sample(&mut self.logits)?;
            let (piece, stopped) = stream.push(id);
            text.push_str(piece);
            finish = stopped.map(FinishReason::from);
            if !piece.is_empty() && on_text(piece).is_break() {
                finish = finish.or(Some(FinishReason::Cancelled));
            }
            if finish.is_none() && cache.position() == cache.context() {
                finish = Some(FinishReason::ContextFull);
            }
            if finish.is_none() {
                self.text.extend(
                    &self.pool,
                    &mut cache,
                    &mut self.work,
                    &[id],
                    &[],
                    &slice,
                    &mut no_probe,
                )?;
            }
        }
        let rest = stream.finish();
        if !rest.is_empty() {
            text.push_str(rest);
            // The answer has ended; there is nothing left to break off.
            on_text(rest).is_break();
        }
        timing.decode_ms = milliseconds(start);
        timing.tokens = stream.tokens();
        Ok(Answer {
            text,
            finish: finish.unwrap_or(FinishReason::Stop),
            matformer: slice.name,
            timing,
            memory: self.memory(),
        })
    }

    /// What ends an answer: the end-of-text tokens of both files, and the end of the model's turn.
    fn stop_tokens(&self) -> Vec<u32> {
        let mut tokens = self.config.ids.eos.clone();
        tokens.extend(&self.generation_config.eos_token_ids);
        tokens.push(self.tokenizer.control().end_of_turn);
        tokens
    }

    /// One row for each id beyond the text vocabulary: the next of `soft` for a soft token, else its hard embedding.
    pub(super) fn media_rows(&self, ids: &[u32], soft: &[f32]) -> Result<Vec<f32>, EngineError> {
        self.towers
            .media_rows(&self.pool, ids, soft, self.text.text_vocab_size())
    }

    pub(super) fn tower_options(&self) -> &TowerOptions {
        &self.options.towers
    }

    pub(super) fn parts(&mut self) -> (&Checkpoint, &Pool, &mut Towers) {
        (&self.checkpoint, &self.pool, &mut self.towers)
    }
}

/// Tokens taken so far, and through which slice.
pub(super) struct Conversation {
    cache: KvCache,
    slice: Slice,
    pub(super) timing: Timing,
}

pub(super) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// A stop string came up.
    StopString,
    /// `max_tokens` were given.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The caller ended it.
    Cancelled,
}

impl From<StopReason> for FinishReason {
    fn from(reason: StopReason) -> FinishReason {
        match reason {
            StopReason::Token => FinishReason::Stop,
            StopReason::String => FinishReason::StopString,
            StopReason::MaxTokens => FinishReason::MaxTokens,
        }
    }
}
