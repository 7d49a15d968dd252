//! An utterance that another board hears for this one, and what it means here.

use std::time::Instant;

use crate::capture::options::VoiceAnswer;
use crate::daemon::hearing::{Understood, confidence};
use crate::daemon::job::{Job, Speaker, Utterance};
use crate::daemon::worker::meant;
use crate::features::speech_check::SpeechCheck;
use crate::media::SAMPLE_RATE_HZ;
use crate::pipeline::commands::{CommandGrammar, Understanding};
use crate::report::{EventType, Reply, ReportTiming};
use crate::utterance::Progress;

/// An utterance that is over.
pub(super) struct Heard {
    pub(super) samples: Vec<f32>,
    truncated: bool,
    pub(super) ended_at: Instant,
}

/// What an answer to an utterance means at its microphone.
pub(super) enum Meaning<'a> {
    /// This, and no more is asked.
    Known(Understood),
    /// What was said is known; it may be one of these commands.
    MayBe(&'a CommandGrammar, String),
}

impl Heard {
    /// Of an utterance that is over; nothing where it was no speech after all, or whoever spoke is gone.
    pub(super) fn of(utterance: &Utterance) -> Option<Heard> {
        let Progress::Ended { truncated, at } = utterance.sound.state().1 else {
            return None;
        };
        Some(Heard {
            samples: utterance.sound.take(usize::MAX),
            truncated,
            ended_at: at,
        })
    }

    /// How long it is, seconds, and whether it was cut there.
    pub(super) fn length(&self) -> (f64, bool) {
        let seconds = self.samples.len() as f64 / f64::from(SAMPLE_RATE_HZ);
        (seconds, self.truncated)
    }

    /// Whether somebody speaks in it; what a microphone hears began with speech.
    pub(super) fn has_speech(&self, job: &Job, utterance: &Utterance) -> bool {
        let options = &job.settings.config.speech;
        match &utterance.speaker {
            Speaker::Microphone(_) => true,
            Speaker::Client { .. } => SpeechCheck::holds_speech(options, &self.samples),
        }
    }
}

/// Which commands an answer is.
pub(super) fn read(commands: &CommandGrammar, reply: &Reply, here: Option<&str>) -> Understanding {
    let text = reply.text.as_deref().unwrap_or_default();
    let finish = reply.finish.as_deref().unwrap_or_default();
    commands.understand(text, finish, confidence(&reply.details), here)
}

/// What the first answer to an utterance means at a microphone, as the worker would take it.
pub(super) fn meaning<'a>(
    job: &'a Job,
    microphone: &str,
    utterance: &Utterance,
    reply: &Reply,
) -> Meaning<'a> {
    let settings = &job.settings;
    let slice = reply.matformer.clone().unwrap_or_default();
    let timing = reply.timing.clone().unwrap_or_default();
    if let Some(commands) = settings.straight(utterance) {
        let read = read(
            commands,
            reply,
            settings.area_of_microphone(commands, microphone),
        );
        return Meaning::Known(Understood::taken_for(read, None, slice, timing));
    }
    let Some(options) = settings.microphone(microphone) else {
        return Meaning::Known(Understood::of(EventType::Rejected, slice, timing));
    };
    let heard = reply.text.as_deref().unwrap_or_default().trim();
    let said = match meant(options, utterance.wake_word.as_deref(), heard) {
        Ok(said) => said.to_owned(),
        // What was not meant for the daemon is not published.
        Err(reason) => {
            let rejected = Understood::rejected(reason.to_owned(), slice, timing);
            return Meaning::Known(rejected);
        }
    };
    let commands = settings.commands.as_deref();
    match commands.filter(|_| options.answer == VoiceAnswer::Both) {
        Some(commands) => Meaning::MayBe(commands, said),
        None => Meaning::Known(Understood {
            text: Some(said),
            ..Understood::of(EventType::Transcript, slice, timing)
        }),
    }
}

/// Why nothing was understood.
pub(super) fn rejected(job: &Job, reason: String) -> Understood {
    let slice = job.settings.matformer.clone().unwrap_or_default();
    Understood::rejected(reason, slice, ReportTiming::default())
}
