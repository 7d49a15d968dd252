//! What the board says: its speaker's thread, what is asked of it and by whom, and the short sounds that go with what is heard.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use tokio::sync::mpsc::UnboundedSender;

use super::requests::{Source, error};
use super::synthesis::{made_of_sentences, wanted_voice};
use super::{Daemon, job, reports};
use crate::capture::Speaker;
use crate::capture::options::{SpeakerOptions, Trigger};
use crate::media::{
    Audible, DeviceState, MicrophoneControl, Sign, SpeakerControl, SpeakerEvent, Speech, SpeechEnd,
};
use crate::publish::wyoming::{Sentences, Voice};
use crate::report::{
    ErrorBody, ErrorCode, EventType, Header, JobState, JobUpdate, Name, Report, Say, Utterable,
    VoiceEvent,
};

/// What a speech takes at least that waits.
const LEAST_BYTES: usize = 16 << 10;

/// The speaker's thread, what it was started with, and how it is.
pub(super) struct RunningSpeaker {
    pub(super) options: SpeakerOptions,
    pub(super) thread: Speaker,
    pub(super) is_left: Arc<AtomicBool>,
    pub(super) state: DeviceState,
    pub(super) speaking: bool,
    /// Who asked for what is said or waits.
    said: BTreeMap<String, Said>,
    /// Answers that are said while they come, by the ids of their jobs.
    answers: BTreeMap<String, Answer>,
}

/// An answer that comes, and goes on to whoever makes it sound.
struct Answer {
    text: Sentences,
    /// Something of it has come.
    has_begun: bool,
    voice: Voice,
    /// Absent as long as there is nothing to say.
    sentences: Option<UnboundedSender<String>>,
}

/// Something that is said or waits.
struct Said {
    asker: Header,
    bytes: usize,
    /// The microphone and the event, of an answer to somebody there.
    answers: Option<(Name, Name)>,
}

impl RunningSpeaker {
    pub(super) fn new(
        options: SpeakerOptions,
        thread: Speaker,
        is_left: Arc<AtomicBool>,
    ) -> RunningSpeaker {
        RunningSpeaker {
            options,
            thread,
            is_left,
            state: DeviceState::default(),
            speaking: false,
            said: BTreeMap::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Ends one that is said or waits; whether there was such a one.
    pub(super) fn silence(&self, id: &str) -> bool {
        let is_there = self.said.contains_key(id);
        if is_there {
            let silence = SpeakerControl::Silence(Some(id.to_owned()));
            self.thread.control(silence);
        }
        is_there
    }

    /// Whether so many bytes may wait, too. The speaker's thread drops the oldest where it gets to it; a device may hold it up.
    fn has_room(&self, bytes: usize) -> bool {
        let weight = |bytes: usize| bytes.max(LEAST_BYTES);
        let waiting: usize = self.said.values().map(|said| weight(said.bytes)).sum();
        let speeches = self.options.waiting + 2;
        waiting + weight(bytes) <= speeches.saturating_mul(self.options.max_audio_bytes)
    }

    /// Ends what is said, and forgets what waits and what is to be said once it has been thought of.
    fn silence_all(&mut self) {
        self.answers.clear();
        self.thread.control(SpeakerControl::Silence(None));
    }

    /// Those whose speeches will not be heard any more.
    pub(super) fn askers(&mut self) -> impl Iterator<Item = Header> {
        std::mem::take(&mut self.said)
            .into_values()
            .map(|said| said.asker)
    }
}

impl Daemon {
    /// Takes in something to say; the answer comes once it has been heard.
    pub(super) fn say(&mut self, asker: &Header, say: Say) -> Result<(), ErrorBody> {
        if let Some(id) = &say.microphone {
            let is_known = self.settings.microphone(id).is_some();
            self.need(is_known, Source::Microphone, id)?;
        }
        if let Utterable::Text(text) = &say.what {
            self.check_prompt(text)?;
        }
        let bytes = match &say.what {
            Utterable::Audio(file) => file.0.len(),
            Utterable::Text(text) => text.len(),
        };
        let speaker = self.speaker()?;
        let options = &speaker.options;
        if !speaker.has_room(bytes) {
            let message = "the speaker is busy and too much waits already: say it later, stop what is said, or raise [speaker] waiting";
            return Err(error(ErrorCode::QueueFull, message));
        }
        let sound = match say.what {
            Utterable::Audio(file) if file.0.len() > options.max_audio_bytes => {
                let (length, most) = (file.0.len(), options.max_audio_bytes);
                let message =
                    format!("the audio has {length} bytes; [speaker] max_audio_bytes is {most}");
                return Err(error(ErrorCode::TooLarge, message));
            }
            Utterable::Audio(file) => Audible::File(file.0),
            Utterable::Text(text) => {
                let (given, sound) = made_of_sentences(wanted_voice(options)?);
                let mut whole = Sentences::default();
                whole.push(&text);
                while let Some(sentence) = whole.next(true) {
                    given.send(sentence).ok();
                }
                sound
            }
        };
        let said = Said {
            asker: asker.clone(),
            bytes,
            answers: say.microphone.zip(say.id),
        };
        speaker.said.insert(asker.id.clone(), said);
        speaker.thread.control(SpeakerControl::Say(Speech {
            id: asker.id.clone(),
            sound,
            urgent: say.urgent,
        }));
        self.requests.admit(asker);
        self.answered(JobUpdate::new(asker, JobState::Queued));
        Ok(())
    }

    /// The speaker, where there is one that can be spoken with.
    fn speaker(&mut self) -> Result<&mut RunningSpeaker, ErrorBody> {
        let speaker = self.devices.speaker.as_mut().ok_or_else(no_speaker)?;
        if let DeviceState::Offline { reason } = &speaker.state {
            let message = format!("the speaker is offline: {reason}");
            return Err(error(ErrorCode::Busy, message));
        }
        Ok(speaker)
    }

    /// The answer to `asker` is to be said while it comes.
    pub(super) fn speak(&mut self, asker: &Header) -> Result<(), ErrorBody> {
        let speaker = self.speaker()?;
        let answer = Answer {
            text: Sentences::default(),
            has_begun: false,
            voice: wanted_voice(&speaker.options)?,
            sentences: None,
        };
        speaker.answers.insert(asker.id.clone(), answer);
        Ok(())
    }

    /// Says what has come of an answer since, where it is one that is to be said; one that comes to nothing ends.
    pub(super) fn speak_on(&mut self, update: &JobUpdate) {
        let id = &update.header.id;
        let Some(speaker) = &mut self.devices.speaker else {
            return;
        };
        let Some(answer) = speaker.answers.get_mut(id) else {
            return;
        };
        let is_over = update.state.has_ended();
        let whole = update.reply.as_ref().and_then(|reply| reply.text.as_ref());
        // From another board it may come whole.
        let whole = whole.filter(|_| !answer.has_begun);
        if let Some(text) = update.partial.as_ref().or(whole) {
            answer.has_begun = true;
            // What marks a word up is no word.
            answer.text.push(&text.replace(['*', '`'], ""));
        }
        while let Some(sentence) = answer.text.next(is_over) {
            let sentences = answer.sentences.get_or_insert_with(|| {
                let (given, sound) = made_of_sentences(answer.voice.clone());
                speaker.thread.control(SpeakerControl::Say(Speech {
                    id: id.clone(),
                    sound,
                    urgent: false,
                }));
                given
            });
            sentences.send(sentence).ok();
        }
        if is_over {
            speaker.answers.remove(id);
        }
        if update.error.is_some() {
            let silence = SpeakerControl::Silence(Some(id.clone()));
            speaker.thread.control(silence);
        }
    }

    /// Ends what is said, and forgets what waits.
    pub(super) fn silence(&mut self) -> Result<serde_json::Value, ErrorBody> {
        let speaker = self.devices.speaker.as_mut().ok_or_else(no_speaker)?;
        speaker.silence_all();
        Ok(json!({}))
    }

    /// The speaker tells something.
    pub(super) fn spoke(&mut self, event: SpeakerEvent) {
        let Some(speaker) = &mut self.devices.speaker else {
            return; // it has just been taken out of the configuration
        };
        match event {
            SpeakerEvent::State(state) => {
                if let DeviceState::Offline { reason } = &state {
                    self.record.error(&format!("speaker: {reason}"));
                }
                speaker.state = state.clone();
                self.doors.publish(&Report::SpeakerState(state));
            }
            SpeakerEvent::Speaking(speaking) => {
                speaker.speaking = speaking;
                self.doors.publish(&Report::Speaking(speaking));
            }
            SpeakerEvent::Began(id) => {
                if let Some(said) = speaker.said.get(&id) {
                    let update = JobUpdate::new(&said.asker, JobState::Running);
                    self.answered(update);
                }
            }
            SpeakerEvent::Ended { id, end } => {
                // Whoever wanted an answer to be said gets that all the same.
                speaker.answers.remove(&id);
                let said = speaker.said.remove(&id);
                let answers = said.as_ref().and_then(|said| said.answers.as_ref());
                if let (Some((microphone, event)), SpeechEnd::Heard) = (answers, &end) {
                    self.follow(microphone, event);
                }
                let result = self.said(end).map(reports::done);
                if let Some(said) = said {
                    self.answered(JobUpdate::end(&said.asker, result));
                }
            }
        }
    }

    /// Whoever was answered may go on.
    fn follow(&mut self, microphone: &str, event: &str) {
        let configured = self.settings.microphone(microphone);
        let seconds = configured.map_or(0, |it| it.continue_s);
        let Some(running) = self.devices.microphones.get_mut(microphone) else {
            return;
        };
        if seconds > 0 && running.utterance.is_none() {
            running.dialogue.answer(event);
            let follow = MicrophoneControl::Follow(seconds);
            self.devices.control_microphone(microphone, follow);
            self.sign(Sign::Listening);
        }
    }

    /// How a speech ended, for whoever asked.
    fn said(&mut self, end: SpeechEnd) -> Result<serde_json::Value, ErrorBody> {
        let queues = &mut self.record.queues;
        match end {
            SpeechEnd::Heard => {
                queues.spoken += 1;
                Ok(json!({}))
            }
            SpeechEnd::Cut(longest_s) => {
                queues.spoken += 1;
                log::warn!("what was said was cut after {longest_s} s ([speaker] longest_s)");
                Ok(json!({ "cut_at_s": longest_s }))
            }
            SpeechEnd::Stopped => Err(error(ErrorCode::Cancelled, "it was stopped")),
            SpeechEnd::Dropped => {
                queues.dropped_speech += 1;
                let message = "newer ones came while it waited to be said ([speaker] waiting)";
                log::warn!("something is not said: {message}");
                Err(error(ErrorCode::QueueFull, message))
            }
            SpeechEnd::Failed(reason) => {
                log::warn!("something is not said, or not to its end: {reason}");
                self.record.error(&reason);
                Err(error(ErrorCode::Failed, reason))
            }
        }
    }

    /// Makes a short sound, where there is a speaker.
    pub(super) fn sign(&self, sign: Sign) {
        if let Some(speaker) = &self.devices.speaker {
            speaker.thread.control(SpeakerControl::Sign(sign));
        }
    }

    /// Tells how it stands with what somebody said to the board, and to nobody else.
    pub(super) fn sign_of(&self, event: &VoiceEvent) {
        let microphone = self.settings.microphone(&event.source);
        let is_meant = microphone.is_some_and(|it| it.trigger != Trigger::Voice);
        if let Some(sign) = sign_for(event.event_type, event.reason.as_deref())
            && is_meant
        {
            self.sign(sign);
        }
    }

    /// What is said goes on more quietly while somebody is listened to.
    pub(super) fn duck(&self) {
        if let Some(speaker) = &self.devices.speaker {
            let mut microphones = self.devices.microphones.values();
            let listens = microphones.any(|it| it.utterance.is_some());
            speaker.thread.control(SpeakerControl::Duck(listens));
        }
    }
}

/// What tells what came of something that was said to the board; nothing where nobody spoke to it after all.
fn sign_for(event: EventType, reason: Option<&str>) -> Option<Sign> {
    match event {
        EventType::Transcript | EventType::Command => Some(Sign::Understood),
        EventType::NotUnderstood => Some(Sign::NotUnderstood),
        EventType::Rejected if reason.is_some_and(job::is_not_meant) => None,
        EventType::Rejected if reason.is_some_and(job::is_silence) => Some(Sign::NotUnderstood),
        _ => Some(Sign::Failed),
    }
}

pub(super) fn no_speaker() -> ErrorBody {
    error(
        ErrorCode::NotFound,
        "there is no speaker: [speaker] device names none",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn silence_after_a_wake_word_sounds_as_not_understood_whoever_finds_it() {
        let sound = |reason| sign_for(EventType::Rejected, Some(reason));
        assert_eq!(sound(job::NOTHING_SAID), Some(Sign::NotUnderstood));
        assert_eq!(
            sound(job::NOTHING_SAID_TO_BUTTON),
            Some(Sign::NotUnderstood)
        );
        assert_eq!(sound(job::NO_WAKE_WORD), None);
        assert_eq!(sound("the model is gone"), Some(Sign::Failed));
        assert_eq!(sign_for(EventType::Command, None), Some(Sign::Understood));
    }

    /// An answer whose first sentence is not whole yet is known to nobody but this.
    #[tokio::test]
    async fn what_is_still_being_thought_of_is_silenced_too() {
        let options = SpeakerOptions {
            device: Some("no such device".to_owned()),
            ..SpeakerOptions::default()
        };
        let thread = Speaker::start(options.clone(), 50, Arc::default(), Box::new(|_| true));
        let mut speaker = RunningSpeaker::new(options, thread.unwrap(), Arc::default());
        let answer = Answer {
            text: Sentences::default(),
            has_begun: false,
            voice: Voice {
                address: String::new(),
                name: None,
                patience: Duration::ZERO,
            },
            sentences: None,
        };
        speaker.answers.insert("a".to_owned(), answer);
        speaker.silence_all();
        assert!(speaker.answers.is_empty());
        speaker.thread.control(SpeakerControl::Stop);
    }
}
