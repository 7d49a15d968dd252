//! A loaded model and the one way in which a request becomes an answer: encode, prefill, decode.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use kernels::{Isa, Pool};

use super::answer::text_only;
use super::batches::Batches;
use super::conversation::Conversation;
use super::conversations::Conversations;
use super::encoders::Encoders;
use super::error::EngineError;
use super::guesses::{EarlierAnswers, Guesser};
use super::kept_media::KeptMedia;
use super::memory_lock;
use super::options::{DecodeShortcuts, EngineOptions};
use super::prefix_cache::PrefixCache;
use super::prefixes::Prefixes;
use super::seats::{OnStep, Seats};
use super::{Answer, Request, Timing};
use crate::model::architecture::Architecture;
use crate::model::decoder::kv_cache::KvCache;
use crate::model::decoder::{Decoder, Slice, SliceError, Slices};
use crate::model::family;
use crate::model::generation_config::GenerationConfig;
use crate::model::grammar;
use crate::model::prompt::{Message, Prompt, PromptOptions};
use crate::model::spec::Spec;
use crate::model::tensor_table::EncoderTensor;
use crate::model::tokenizer::Tokenizer;
use crate::model::tools::Tool;
use crate::model::weights::{Checkpoint, DRAFTER_HEAD, Group, Mapped, Residency};

/// The largest K/V cache: the real models need 0.5 GiB for their longest context, a board has 16 GiB at most.
const MAX_CACHE_BYTES: u64 = 16 << 30;

/// Soft tokens that come again may have this part of what beginnings of prompts may have in memory, besides: an hour's talk about a
/// dozen pictures.
const KEPT_MEDIA_SHARE: u64 = 8;

/// A model that answers requests, one at a time or several together.
pub struct Engine {
    pub(super) checkpoint: Arc<Checkpoint>,
    pub(super) residency: Arc<Residency>,
    pub(super) warnings: Vec<String>,
    pub(super) architecture: Arc<dyn Architecture>,
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) generation_config: GenerationConfig,
    /// Ids of text that no answer holds.
    pub(super) never_said: Vec<u32>,
    pub(super) slices: Slices,
    pub(super) decoder: Box<dyn Decoder>,
    /// The weights of the drafter, where there is one.
    pub(super) drafter: Option<Arc<Mapped>>,
    pub(super) encoders: Encoders,
    pub(super) batches: Batches,
    pub(super) pool: Arc<Pool>,
    pub(super) logits: Vec<f32>,
    /// What the logits of the tokens of a pass begin as, \[tokens, ids\]; it grows with the first pass of several.
    pub(super) products: Vec<f32>,
    /// The hidden states of the decoder's last chunk that they are of.
    pub(super) multiplied: Range<usize>,
    pub(super) guesser: Guesser,
    pub(super) earlier: EarlierAnswers,
    /// Whom is answered, see [`Engine::swap_origin`].
    pub(super) origin: Option<Arc<str>>,
    /// See [`Engine::swap_urgency`].
    pub(super) urgency: u8,
    pub(super) seats: Seats,
    pub(super) options: EngineOptions,
    pub(super) conversations: Conversations,
    pub(super) prefix_cache: Option<PrefixCache>,
    pub(super) prefixes: Prefixes,
    pub(super) kept_media: KeptMedia,
    /// Made when an answer is first constrained.
    grammars: Option<grammar::Compiler>,
    pub(super) on_step: OnStep,
    pub(super) shortcuts: DecodeShortcuts,
    /// What is said instead, in tests.
    pub(super) script: Option<Script>,
}

/// See [`Engine::follow`]: what is said to a request, control tokens by their names; `None` where the model itself is to speak.
pub(super) type Script = Box<dyn FnMut(&Request) -> Option<String> + Send>;

/// Called between two tokens of an answer, two chunks of a prompt, and two parts of a medium: what is more urgent is done there, with
/// the engine as a whole, and then the work goes on as if nothing had been.
pub type GiveWay<'a> = &'a mut dyn FnMut(&mut Engine);

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
        let architecture = family::load(dir)?;
        let spec = architecture.spec();
        let checkpoint = Arc::new(Checkpoint::open(dir)?);
        let tokenizer = Arc::new(Tokenizer::load(dir)?);
        tokenizer.check_config(&spec.ids, spec.vocab_size, &dir.join("config.json"))?;
        let generation_config = GenerationConfig::load(dir)?;
        let mut never_said = generation_config.suppress_tokens.clone();
        never_said.extend(tokenizer.control().never_said());
        never_said.retain(|&id| (id as usize) < spec.text_vocab_size);
        never_said.sort_unstable();
        never_said.dedup();
        let slices = architecture.slices(Some(dir))?;
        let limit = spec.max_context;
        if options.context == 0 || options.context > limit {
            return Err(EngineError::Context {
                asked: options.context,
                limit,
            });
        }
        let cache_bytes = KvCache::bytes_for(&spec.layers, options.kv_type, options.context);
        if cache_bytes > MAX_CACHE_BYTES {
            return Err(EngineError::CacheSize {
                context: options.context,
                gib: cache_bytes >> 30,
                limit_gib: MAX_CACHE_BYTES >> 30,
            });
        }
        let threads = Engine::threads_for(options.threads);
        let pool = Arc::new(Pool::new(Isa::from_environment()?, threads));
        let by_row = checkpoint.tensors().map(|info| &info.name);
        let by_row = by_row.filter(|name| {
            architecture.encoder_tensor(name) == EncoderTensor::Rows
                || name.as_str() == DRAFTER_HEAD
        });
        let by_row = by_row.cloned().collect();
        let residency = Residency::leaving(Arc::clone(&checkpoint), by_row);
        let chunk = options.prefill_chunk.clamp(1, options.context);
        let decoder = architecture.decoder(&checkpoint, &options.ple, chunk, progress)?;
        let (earlier, not_kept) = EarlierAnswers::open(&options.guess, spec.text_vocab_size);
        let mut guesser = Guesser::new(options.guess.clone(), &earlier);
        let drafter = guesser.add_drafter(&*architecture, &checkpoint, &residency)?;
        let mut warnings = checkpoint.warnings().to_vec();
        warnings.extend(not_kept);
        warnings.extend(memory_lock::warnings(&*decoder, options.mlock));
        let encoders = Encoders::new(
            &checkpoint,
            Arc::clone(&architecture),
            &options.encoders,
            residency.clone(),
            &mut warnings,
        )?;
        let hears_in_integers = checkpoint
            .tensors()
            .any(|info| info.group == Some(Group::Audio) && info.blocks.is_some());
        let prefix_cache = PrefixCache::open(
            &options.prefix_cache,
            &checkpoint,
            options.kv_type,
            options.context,
        )
        .unwrap_or_else(|warning| {
            warnings.push(warning);
            None
        });
        Ok(Engine {
            warnings,
            prefix_cache,
            prefixes: Prefixes::new(options.prefix_bytes),
            kept_media: KeptMedia::new(options.prefix_bytes / KEPT_MEDIA_SHARE),
            logits: vec![0.0; spec.text_vocab_size],
            products: Vec::new(),
            multiplied: 0..0,
            guesser,
            earlier,
            origin: None,
            urgency: 0,
            seats: Seats::default(),
            encoders,
            batches: Batches::new(options.encoders.gathering, hears_in_integers),
            residency,
            checkpoint,
            architecture,
            tokenizer,
            generation_config,
            never_said,
            slices,
            decoder,
            drafter,
            pool,
            conversations: Conversations::new(options.conversation_bytes),
            options,
            grammars: None,
            on_step: Box::new(|| ControlFlow::Continue(())),
            shortcuts: DecodeShortcuts::default(),
            script: None,
        })
    }

    /// What the model's family, and its config.json, fix.
    pub fn spec(&self) -> &Spec {
        self.architecture.spec()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(super) fn shared_tokenizer(&self) -> Arc<Tokenizer> {
        Arc::clone(&self.tokenizer)
    }

    /// The decoder.
    pub fn decoder(&self) -> &dyn Decoder {
        &*self.decoder
    }

    /// Calls `hook` again and again while the model works, on the thread that it works on: before each layer that tokens pass,
    /// for each part of a picture and each second of a clip that are encoded, before each token of an answer. So a watchdog
    /// sees that work goes on, and when the hook breaks, the work ends (a picture is encoded to its end): before the first token
    /// with [`EngineError::Cancelled`], after it with an answer of what there is and [`super::FinishReason::Cancelled`].
    pub fn on_step(&mut self, hook: impl FnMut() -> ControlFlow<()> + Send + 'static) {
        self.on_step = Box::new(hook);
    }

    /// Calls another hook from now on, and gives the one before: for work that others give way to.
    pub fn swap_on_step(&mut self, hook: OnStep) -> OnStep {
        std::mem::replace(&mut self.on_step, hook)
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
        if !self.decoder.serves(&slice) {
            return Err(SliceError::Misfit {
                name: slice.name,
                reason: "the pack was made before this slice was named: make it again with `gemmad pack`".to_owned(),
            }
            .into());
        }
        self.use_text()?;
        let chunk = self.options.prefill_chunk.clamp(1, self.options.context);
        let cache = KvCache::new(
            self.decoder.layers(),
            self.options.kv_type,
            self.options.context,
            chunk,
        );
        Ok(Conversation {
            cache,
            slice,
            thinking: false,
            prompt: Vec::new(),
            pending: None,
            cue: None,
            called: None,
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
        self.answer_giving_way(request, on_text, &mut |_| {})
    }

    /// As [`Engine::answer`]; what is more urgent is done meanwhile. The answer is the same, bit by bit.
    ///
    /// # Errors
    /// As there.
    pub fn answer_giving_way(
        &mut self,
        request: &Request,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
        give_way: GiveWay<'_>,
    ) -> Result<Answer, EngineError> {
        let mine = self.begin(request, give_way)?;
        self.decode(mine, &mut text_only(on_text), give_way)
    }

    /// Whether the model can be asked so: to think before it answers, where that is wanted, and to call tools, where there are any.
    ///
    /// # Errors
    /// It does not think, or its tokenizer knows no tools.
    pub fn check(&self, thinking: bool, tools: &[Tool]) -> Result<(), EngineError> {
        let template = self.architecture.template();
        Ok(template.check(&self.tokenizer, &asking(thinking, tools))?)
    }

    /// The prompt that asks for an answer to what was said.
    pub(super) fn render(
        &self,
        messages: &[Message],
        thinking: bool,
        tools: &[Tool],
    ) -> Result<Prompt, EngineError> {
        let template = self.architecture.template();
        let options = asking(thinking, tools);
        Ok(template.render(&self.tokenizer, messages, &options)?)
    }

    /// A grammar at the beginning of an answer.
    pub(super) fn constraint(
        &mut self,
        grammar: &grammar::Grammar,
    ) -> Result<grammar::Constraint, EngineError> {
        let compiler = match self.grammars.take() {
            Some(compiler) => compiler,
            None => grammar::Compiler::new(
                &self.tokenizer,
                self.spec().text_vocab_size,
                &self.stop_tokens(),
            )?,
        };
        Ok(self.grammars.insert(compiler).compile(grammar)?)
    }

    /// What ends an answer: the ends of text of all three files, the published one, the end of the model's turn, and the place where
    /// it waits for what comes of a call. A fine-tune may name another in each.
    pub(super) fn stop_tokens(&self) -> Vec<u32> {
        let control = self.tokenizer.control();
        let mut tokens = self.spec().ids.eos.clone();
        tokens.extend(&self.generation_config.eos_token_ids);
        tokens.extend([control.eos, control.end_of_turn]);
        tokens.extend(control.tools.map(|tools| tools.response[0]));
        tokens.extend(self.tokenizer.id_of("<eos>"));
        tokens.retain(|&id| (id as usize) < self.spec().text_vocab_size);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// One row for each id beyond the text vocabulary: the next of `soft` for a soft token, else its hard embedding.
    pub(super) fn media_rows(&self, ids: &[u32], soft: &[f32]) -> Vec<f32> {
        self.encoders.media_rows(&self.pool, ids, soft)
    }
}

fn asking(thinking: bool, tools: &[Tool]) -> PromptOptions<'_> {
    PromptOptions {
        thinking,
        tools,
        ..PromptOptions::ASK
    }
}
