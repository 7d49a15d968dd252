//! What was chosen, tried: what a microphone hears and a camera sees, in the model's words.

use std::ops::ControlFlow;

use super::prompts::{Asker, tell};
use crate::capture::options::{CameraOptions, MicrophoneOptions};
use crate::capture::{hear_once, try_camera};
use crate::cli::doctor::{Finding, State, model, sources};
use crate::cli::failure::{Failure, exit};
use crate::cli::listen::Meter;
use crate::cli::model_args;
use crate::cli::transcribe::{Question, Transcript};
use crate::config::Config;
use crate::daemon;
use crate::model::sampler::Sampling;
use crate::pipeline::{
    Engine, Generation, Media, Message, Part, PictureOptions, PrefixCacheOptions, Request,
};

/// Tokens of a sentence at most.
const SENTENCE_TOKENS: usize = 128;

/// A configuration that is tried.
pub(super) struct Tries<'a> {
    pub(super) asker: Asker,
    pub(super) config: &'a Config,
    /// A daemon has the devices.
    pub(super) is_running: bool,
    /// The model, once it is needed.
    engine: Option<Engine>,
    /// Something failed.
    failed: bool,
}

impl Tries<'_> {
    pub(super) fn new(asker: Asker, config: &Config, is_running: bool) -> Tries<'_> {
        Tries {
            asker,
            config,
            is_running,
            engine: None,
            failed: false,
        }
    }

    /// Tries model, microphones and cameras, and tells how that went; whether all is well.
    pub(super) fn all(mut self) -> Result<bool, Failure> {
        let (found, _) = model::model(self.config);
        self.tell(&found)?;
        if found.state == State::Failing {
            return Ok(false);
        }
        for microphone in &self.config.microphone {
            let found = sources::microphone(microphone, self.is_running);
            self.tell(&found)?;
            // Nobody speaks where nobody answers.
            if found.state != State::Failing && self.asker.is_person() {
                self.speech(microphone)?;
            }
        }
        for camera in &self.config.camera {
            self.picture(camera)?;
        }
        Ok(!self.failed)
    }

    fn tell(&mut self, found: &Finding) -> Result<(), Failure> {
        self.failed |= found.state == State::Failing;
        tell(&found.line())
    }

    fn speech(&mut self, microphone: &MicrophoneOptions) -> Result<(), Failure> {
        let question = format!(
            "Press Enter, then say something into {} (or answer no)",
            microphone.id
        );
        while self.asker.yes(&question, true)? {
            let mut meter = Meter::new(&microphone.id);
            let heard = hear_once(microphone, &mut |dbfs| meter.level(dbfs));
            meter.clear();
            let samples = match heard {
                Ok(samples) => samples,
                Err(reason) => {
                    self.failed = true;
                    return tell(&reason);
                }
            };
            if samples.is_empty() {
                tell(
                    "Nothing was heard that is like speech: is it the right microphone, and loud enough (alsamixer, F4)?",
                )?;
                continue;
            }
            let text = self.transcript(microphone, &samples)?;
            tell(&format!("{} heard: {text:?}", microphone.id))?;
            if self.asker.yes("Is that what was said?", true)? {
                break;
            }
        }
        Ok(())
    }

    fn transcript(
        &mut self,
        microphone: &MicrophoneOptions,
        samples: &[f32],
    ) -> Result<String, Failure> {
        let config = self.config;
        let text = config.tasks.transcribe(&microphone.language);
        let generation = likeliest(self.engine()?);
        let question = Question {
            text: text.map_err(|error| Failure::new(exit::CONFIG, error))?,
            matformer: None,
            generation,
            limits: config.limits.audio.clone(),
            speech: config.speech.clone(),
        };
        let mut transcript = Transcript::new(self.engine()?, &question);
        transcript.transcribe(samples, &microphone.id)?;
        Ok(transcript.end().text())
    }

    fn picture(&mut self, camera: &CameraOptions) -> Result<(), Failure> {
        let picture = match try_camera(camera, &self.config.limits.image) {
            Ok(picture) => picture,
            Err(reason) => {
                let found = sources::gives_no_picture(camera, &reason, self.is_running);
                return self.tell(&found);
            }
        };
        self.tell(&sources::gives_pictures(camera, &picture))?;
        let unreadable = |error: &dyn std::fmt::Display| {
            Failure::new(exit::DATA, format_args!("camera {}: {error}", camera.id))
        };
        let options = PictureOptions::default();
        let image = Media::image(&picture.encoded, &self.config.limits.image, options);
        let image = image.map_err(|error| unreadable(&error))?;
        let prompt = self.config.tasks.describe();
        let prompt = prompt.map_err(|error| Failure::new(exit::CONFIG, error))?;
        let engine = self.engine()?;
        let request = Request {
            messages: Message::user(vec![Part::Media(image), Part::Text(prompt)]),
            matformer: None,
            thinking: None,
            generation: likeliest(engine),
            conversation: None,
        };
        let answer = engine.answer(&request, &mut |_| ControlFlow::Continue(()))?;
        let words: Vec<&str> = answer.text.split_whitespace().collect();
        tell(&format!("{} sees: {:?}", camera.id, words.join(" ")))
    }

    fn engine(&mut self) -> Result<&mut Engine, Failure> {
        if self.engine.is_none() {
            let mut options = daemon::engine_options(self.config);
            // Copying the table is the daemon's work, and locking its right; what it keeps of prompts, its own.
            options.ple.cache_dir = None;
            options.mlock = false;
            options.prefix_cache = PrefixCacheOptions::default();
            tell("The model is opened, which takes a moment.")?;
            self.engine = Some(model_args::open(&self.config.model.path, options)?);
        }
        self.engine
            .as_mut()
            .ok_or_else(|| Failure::new(exit::SOFTWARE, "the model is open and not there"))
    }
}

/// What is heard or seen should not depend on chance.
fn likeliest(engine: &Engine) -> Generation {
    Generation {
        sampling: Sampling {
            temperature: 0.0,
            ..engine.default_sampling()
        },
        seed: 0,
        max_tokens: SENTENCE_TOKENS,
        stop: Vec::new(),
        grammar: None,
        tools: None,
    }
}
