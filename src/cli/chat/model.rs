//! A model of this process.

use std::ops::ControlFlow;
use std::path::Path;

use super::hear;
use super::interrupt::Interrupt;
use super::partner::{Attached, Partner, Said, Settings, Slices};
use crate::capture::options::{
    MicrophoneOptions, MicrophoneType, SpeechDetection, Trigger, VoiceAnswer,
};
use crate::cli::failure::{Failure, exit};
use crate::cli::model_args::{self, GenerationArgs};
use crate::config::Config;
use crate::pipeline::{
    Answer, Engine, EngineError, EngineOptions, FinishReason, Group, Media, Message, Part, Request,
};

/// The one conversation that the engine keeps.
const CONVERSATION: &str = "chat";
/// Tokens of a transcript at most.
const TRANSCRIPT_TOKENS: usize = 512;

pub(super) struct Model {
    engine: Engine,
    context: usize,
    generation: GenerationArgs,
    config: Config,
    interrupt: Interrupt,
}

impl Model {
    /// Opens a checkpoint or pack.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn open(
        dir: &Path,
        options: EngineOptions,
        generation: GenerationArgs,
        config: Config,
        on_terminal: bool,
    ) -> Result<Model, Failure> {
        let context = options.context;
        let options = EngineOptions {
            // One conversation is kept, and the context bounds it.
            conversation_bytes: u64::MAX,
            ..options
        };
        let engine = model_args::open(dir, options)?;
        Ok(Model {
            engine,
            context,
            generation,
            config,
            // Not before: while a model is opened there is no conversation to keep.
            interrupt: Interrupt::new(on_terminal),
        })
    }

    /// Runs the engine until Ctrl-C.
    fn run(
        &mut self,
        request: &Request,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Option<Answer>, Failure> {
        self.interrupt.begin();
        let pressed = self.interrupt.clone();
        self.engine.on_step(move || match pressed.is_pressed() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        let answered = self
            .engine
            .answer(request, &mut |text| match on_text(text) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            });
        match answered {
            Err(EngineError::Cancelled) => Ok(None),
            Ok(answer) if answer.finish == FinishReason::Cancelled => Ok(None),
            other => Ok(Some(other?)),
        }
    }
}

impl Partner for Model {
    fn about(&self) -> String {
        let dir = self.engine.dir();
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy();
        let (family, context) = (self.engine.spec().family, self.context);
        format!("{name}: {family}, {context} tokens of context")
    }

    fn check(&self, group: Group) -> Result<(), Failure> {
        Ok(self.engine.check_encoder(group)?)
    }

    fn check_thinking(&self) -> Result<(), Failure> {
        Ok(self.engine.check(true, &[])?)
    }

    fn slices(&self) -> Result<Slices, Failure> {
        let all = self.engine.slice_names();
        let usual = self.generation.matformer.clone();
        Ok(Slices {
            usual: usual.unwrap_or_else(|| all[0].clone()),
            all: Some(all),
        })
    }

    fn memory(&self) -> Result<Vec<(String, u64)>, Failure> {
        let groups = self.engine.memory().into_iter();
        Ok(groups
            .map(|found| (found.group.to_string(), found.resident_bytes))
            .collect())
    }

    fn answer(
        &mut self,
        text: &str,
        attached: Vec<Attached>,
        settings: &Settings,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Option<Said>, Failure> {
        let has_media = !attached.is_empty();
        let media = attached.into_iter().map(|found| Part::Media(found.media));
        let user = media.chain([Part::Text(text.to_owned())]).collect();
        let usual = self.generation.matformer.clone();
        let request = Request {
            conversation: Some(CONVERSATION.to_owned()),
            messages: Message::with_instructions(settings.system.clone(), user),
            matformer: settings.slice.clone().or(usual),
            thinking: Some(settings.thinking),
            generation: self.generation.generation(&self.engine),
        };
        let answer = self.run(&request, on_text);
        if has_media {
            // A board has little memory to spare; they are read again in no time.
            self.engine.unload_encoders();
        }
        let Some(answer) = answer? else {
            return Ok(None);
        };
        let timing = serde_json::to_value(&answer.timing);
        // The last token of an answer that fills the context is not taken any more.
        let used = self.engine.kept_tokens(CONVERSATION).min(self.context);
        Ok(Some(Said {
            thoughts: answer.thoughts,
            finish: answer.finish.name().to_owned(),
            resumed: answer.resumed == Some(true),
            timing: timing.unwrap_or_default(),
            context: Some((used, self.context)),
        }))
    }

    fn listen(&mut self, microphone: Option<&str>) -> Result<Option<String>, Failure> {
        self.check(Group::Audio)?;
        let microphone = match self.config.microphone.as_slice() {
            [] => any_microphone(microphone),
            configured => hear::choose(microphone, configured)?.clone(),
        };
        let prompt = self.config.tasks.transcribe(&microphone.language);
        let prompt = prompt.map_err(|error| Failure::new(exit::CONFIG, error))?;
        self.interrupt.begin();
        let Some(clip) = hear::hear(microphone, &self.interrupt)? else {
            return Ok(None);
        };
        let user = vec![Part::Media(Media::Clip(clip)), Part::Text(prompt)];
        let request = Request {
            conversation: None,
            messages: Message::user(user),
            matformer: self.generation.matformer.clone(),
            thinking: None,
            generation: self.engine.most_likely(TRANSCRIPT_TOKENS),
        };
        let answer = self.run(&request, &mut |_| true);
        self.engine.unload_encoders();
        Ok(answer?.map(|answer| answer.text))
    }

    fn forget(&mut self) {
        self.engine.forget(CONVERSATION);
    }
}

/// The one of the system, or the ALSA device that was named.
pub(in crate::cli) fn any_microphone(device: Option<&str>) -> MicrophoneOptions {
    MicrophoneOptions {
        id: "microphone".to_owned(),
        name: None,
        kind: MicrophoneType::Alsa,
        device: device.unwrap_or("default").to_owned(),
        trigger: Trigger::Voice,
        wake_phrases: Vec::new(),
        wake: Default::default(),
        continue_s: 0,
        answer: VoiceAnswer::Transcript,
        language: "English".to_owned(),
        speech: SpeechDetection::default(),
    }
}
