//! An utterance that another board hears for this one, and what it means here.

use crate::capture::options::VoiceAnswer;
use crate::daemon::hearing::{Understood, confidence};
use crate::daemon::job::{Job, Utterance};
use crate::daemon::worker::meant;
use crate::pipeline::commands::{CommandGrammar, Understanding};
use crate::report::{EventType, Reply, ReportTiming};

/// What an answer to an utterance means at its microphone.
pub(super) enum Meaning<'a> {
    /// This, and no more is asked.
    Known(Understood),
    /// What was said is known; it may be one of these commands.
    MayBe(&'a CommandGrammar, String),
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
    let said = match meant(
        options,
        utterance.wake_word.as_deref(),
        utterance.goes_on,
        heard,
    ) {
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
