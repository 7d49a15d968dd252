//! From the last word to the answer, with somebody's own microphone: heard and answered as the daemon does it. Nothing of what was said is
//! kept, and neither is what the microphone is called.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::capture::options::MicrophoneOptions;
use crate::capture::{Microphone, microphones};
use crate::cli::failure::{Failure, exit, note};
use crate::config::Config;
use crate::daemon;
use crate::media::{CaptureEvent, DeviceState, MicrophoneEvent};
use crate::pipeline::commands::CommandGrammar;
use crate::pipeline::{Answer, Engine, EngineError, FinishReason, Generation, Speech};
use crate::utterance::{self, Progress};

/// What came of it.
pub(super) enum Heard {
    /// Why nothing was heard: words of this program alone.
    Nothing(&'static str),
    Answered {
        spoken_s: f64,
        /// Silence that ends an utterance.
        silence_ms: u32,
        /// From there to the end of the answer.
        after_ms: f64,
        tokens: usize,
        /// It was to be one of the configured commands.
        command: bool,
    },
}

/// Samples that are worked on together while somebody speaks: 160 ms, as in the daemon.
const PIECE_SAMPLES: usize = 2560;
/// How long somebody may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks whether there is sound.
const LOOK: Duration = Duration::from_millis(10);
/// Tokens of a transcript at most.
const MAX_TOKENS: usize = 64;

/// Asks for a sentence, and measures how long its answer takes. A microphone that is not there, or that nobody speaks into, is no failure.
///
/// # Errors
/// The model cannot be run.
pub(super) fn last_word(model: &Path, config: &Config, name: &str) -> Result<Heard, Failure> {
    let Some(microphone) = microphone(config) else {
        return Ok(Heard::Nothing("there is none"));
    };
    let commands = match config.command.as_slice() {
        [] => None,
        commands => Some(
            CommandGrammar::new(commands, None, &config.commands, &config.limits.grammar)
                .map_err(|error| Failure::new(exit::CONFIG, error))?,
        ),
    };
    let silence_ms = microphone.speech.hangover_ms;
    let mut options = daemon::engine_options(config);
    // Copies are the daemon's to keep, and locking is its right.
    options.mlock = false;
    options.ple.cache_dir = None;
    options.prefix_cache = Default::default();
    let mut engine = Engine::open(model, options)?;
    let transcribe = config.tasks.transcribe(&microphone.language);
    let transcribe = transcribe.map_err(|error| Failure::new(exit::CONFIG, error))?;
    let (system, prompt) = match &commands {
        Some(commands) => (commands.instructions(), commands.prompt(None)),
        None => (None, transcribe),
    };
    let generation = match &commands {
        Some(commands) => commands.generation(),
        None => engine.most_likely(MAX_TOKENS),
    };
    // The tower is there before anybody speaks.
    drop(engine.start_speech(system, &prompt, None)?);
    let (tell, events) = channel();
    let sink = Box::new(move |event| tell.send(event).is_ok());
    let Ok(listening) = Microphone::start(microphone, false, Arc::default(), sink) else {
        return Ok(Heard::Nothing("the system gave no thread for it"));
    };
    note(&format!(
        "{name}: say a short sentence into the microphone now{}",
        match &commands {
            Some(_) => ", one of the commands of the configuration",
            None => "",
        }
    ));
    let until = Instant::now() + PATIENCE;
    let heard = loop {
        let sound = match begun(&events, until) {
            Ok(sound) => Arc::new(sound),
            Err(why) => break Heard::Nothing(why),
        };
        let speech = engine.start_speech(system, &prompt, None)?;
        let Some(spoken) = hear(&mut engine, speech, &sound, &generation)? else {
            // It was no speech after all.
            continue;
        };
        break Heard::Answered {
            spoken_s: spoken.samples as f64 / f64::from(crate::media::SAMPLE_RATE_HZ),
            silence_ms,
            after_ms: spoken.ended.elapsed().as_secs_f64() * 1e3,
            tokens: spoken.tokens,
            command: commands.is_some(),
        };
    };
    listening.stop();
    Ok(heard)
}

/// The first that is configured, else the first that there is.
fn microphone(config: &Config) -> Option<MicrophoneOptions> {
    if let Some(configured) = config.microphone.first() {
        return Some(configured.clone());
    }
    let usable = |device: &crate::capture::MicrophoneDevice| device.formats.is_ok();
    let found = microphones().ok()?.into_iter().find(usable)?;
    let device = toml::Value::String(found.name);
    let own = toml::Table::from_iter([
        ("id".to_owned(), "report".into()),
        ("device".to_owned(), device),
    ]);
    own.try_into().ok()
}

/// Waits until somebody speaks.
fn begun(
    events: &Receiver<CaptureEvent>,
    until: Instant,
) -> Result<utterance::Receiver, &'static str> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(CaptureEvent::Microphone {
                event: MicrophoneEvent::SpeechStarted(sound),
                ..
            }) => return Ok(sound),
            Ok(CaptureEvent::Microphone {
                event: MicrophoneEvent::State(DeviceState::Offline { reason }),
                ..
            }) => {
                note(&reason);
                return Err("it could not be used");
            }
            Ok(_) => {}
            Err(_) => return Err("nobody spoke within 20 s"),
        }
    }
}

/// An utterance that was answered.
struct Spoken {
    samples: usize,
    ended: Instant,
    tokens: usize,
}

/// Hears an utterance while it is spoken and answers it: in a pause already, as if it had ended. `None` where it was no speech after all.
fn hear(
    engine: &mut Engine,
    mut speech: Speech,
    sound: &Arc<utterance::Receiver>,
    generation: &Generation,
) -> Result<Option<Spoken>, EngineError> {
    let mut samples = 0;
    let mut early: Option<(usize, Option<Answer>)> = None;
    loop {
        let (waiting, progress) = sound.state();
        let answered = early.as_ref().filter(|(rest, _)| *rest == waiting);
        match (progress, answered) {
            (Progress::Cancelled, _) => return Ok(None),
            (Progress::Ended { at, .. }, Some((rest, Some(answer)))) => {
                return Ok(Some(Spoken {
                    samples: samples + rest,
                    ended: at,
                    tokens: answer.timing.tokens,
                }));
            }
            (Progress::Ended { at, .. }, _) if waiting == 0 => {
                let mut on_text = |_: &str| ControlFlow::Continue(());
                let answer = engine.finish_speech(speech, generation, &mut on_text)?;
                return Ok(Some(Spoken {
                    samples,
                    ended: at,
                    tokens: answer.timing.tokens,
                }));
            }
            (Progress::Paused, None) if waiting < PIECE_SAMPLES => {
                let answer = answer_early(engine, speech.clone(), sound, waiting, generation)?;
                early = Some((waiting, answer));
            }
            (Progress::Speaking | Progress::Paused, _) if waiting < PIECE_SAMPLES => {
                std::thread::sleep(LOOK);
            }
            _ => {
                let piece = sound.take(PIECE_SAMPLES);
                samples += piece.len();
                engine.hear(&mut speech, &piece)?;
            }
        }
    }
}

/// The answer to an utterance that has paused with so many samples left; `None` where its speaker goes on before it is there.
fn answer_early(
    engine: &mut Engine,
    mut speech: Speech,
    sound: &Arc<utterance::Receiver>,
    waiting: usize,
    generation: &Generation,
) -> Result<Option<Answer>, EngineError> {
    let Some(rest) = sound.rest().filter(|rest| rest.len() == waiting) else {
        return Ok(None);
    };
    let listened = Arc::clone(sound);
    let step = move || match listened.state() {
        (now, Progress::Paused | Progress::Ended { .. }) if now == waiting => {
            ControlFlow::Continue(())
        }
        _ => ControlFlow::Break(()),
    };
    let usual = engine.swap_on_step(Box::new(step));
    let mut on_text = |_: &str| ControlFlow::Continue(());
    let answer = match rest.is_empty() {
        true => Ok(()),
        false => engine.hear(&mut speech, &rest),
    };
    let answer = answer.and_then(|()| engine.finish_speech(speech, generation, &mut on_text));
    drop(engine.swap_on_step(usual));
    match answer {
        Err(EngineError::Cancelled) => Ok(None),
        Ok(answer) if answer.finish == FinishReason::Cancelled => Ok(None),
        answer => answer.map(Some),
    }
}
