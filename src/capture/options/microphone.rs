//! `[[microphone]]`: what is listened to, and when it counts.

use std::path::PathBuf;

use serde::Deserialize;
use wake::WakeWord;

use crate::features::speech_check::check_speech;
use crate::media::LONGEST_CLIP_S;
use crate::values::between;

/// `[[microphone]]`
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, expecting = "struct Microphone")]
pub struct MicrophoneOptions {
    /// Name in topics and on the bus: `[a-z0-9_-]`, unique among the microphones.
    pub id: String,
    /// Name for people; absent: the id.
    #[serde(default)]
    pub name: Option<String>,
    /// Kind of source: it says what `device` names.
    #[serde(default, rename = "type")]
    pub kind: MicrophoneType,
    /// `alsa`: a PCM name, such as `plughw:CARD=Device,DEV=0` (`gemmad devices` lists them). `replay`: the path of a file or pipe.
    pub device: String,
    /// What starts listening.
    #[serde(default)]
    pub trigger: Trigger,
    /// With `trigger = "wake_phrase"`: a transcript counts only if it begins with one of these; compared without case and
    /// punctuation.
    #[serde(default)]
    pub wake_phrases: Vec<String>,
    /// With `trigger = "wake_word"`: what wakes it.
    #[serde(default)]
    pub wake: WakeOptions,
    /// So many seconds after an answer that was spoken, what is said counts without a wake word or a button; 0 for none.
    #[serde(default)]
    pub continue_s: u32,
    /// What is published of what was heard.
    #[serde(default)]
    pub answer: VoiceAnswer,
    /// Spoken language, in the prompt's words and in the payload.
    #[serde(default = "english")]
    pub language: String,
    /// How speech is told from silence.
    #[serde(default)]
    pub speech: SpeechDetection,
}

impl MicrophoneOptions {
    /// Its device or file, for people.
    pub fn source(&self) -> String {
        match self.kind {
            MicrophoneType::Alsa => format!("ALSA device `{}`", self.device),
            MicrophoneType::Replay => format!("`{}`", self.device),
        }
    }
}

fn english() -> String {
    "English".to_owned()
}

/// Where a microphone's sound comes from.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum MicrophoneType {
    /// An ALSA PCM.
    #[default]
    Alsa,
    /// Raw samples (16 kHz, mono, 16 bits little-endian) of a file or a named pipe, heard as fast as they can be read: for tests.
    Replay,
}

/// What makes a microphone listen.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Whatever is said.
    #[default]
    Voice,
    /// What is said after a request over MQTT or D-Bus.
    PushToTalk,
    /// Whatever is said, published only if it begins with a wake phrase.
    WakePhrase,
    /// What is said after a wake word, which a small model of its own listens for.
    WakeWord,
}

/// `[microphone.wake]`: words that wake a microphone.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct WakeOptions {
    /// JSON files of microWakeWord models (ESPHome's, version 2), each with its `.tflite` file beside it.
    pub models: Vec<PathBuf>,
    /// 0 as the files say; up to 1 is woken more easily, down to -1 less.
    pub sensitivity: f64,
    /// The transcript has to have the wake word, too; else the event is `rejected`.
    pub verify: bool,
    /// How long it is settled with other boards at the same broker which of them answers, milliseconds; 0 where it always answers.
    pub settle_ms: u32,
    /// JSON files of such models, too: their words end what the speaker says. They are listened for while it speaks, whatever the trigger.
    pub stop_models: Vec<PathBuf>,
}

impl Default for WakeOptions {
    fn default() -> WakeOptions {
        WakeOptions {
            models: Vec::new(),
            sensitivity: 0.0,
            verify: true,
            settle_ms: 250,
            stop_models: Vec::new(),
        }
    }
}

/// Wake words that a microphone listens for at most: each costs as much as the first.
const MAX_WAKE_WORDS: usize = 4;
/// Least of the longest utterances after a wake word, which is part of it.
const LEAST_WOKEN_MS: u32 = 5_000;

/// What is published of speech.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum VoiceAnswer {
    /// Its text.
    #[default]
    Transcript,
    /// The `[[command]]` that it is, decoded straight from the sound.
    Command,
    /// Its text, then the command that the text is.
    Both,
}

/// `[microphone.speech]`: how speech is told from silence.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct SpeechDetection {
    /// Probability of speech from which a frame counts as speech, 0 to 1.
    pub threshold: f32,
    /// Shorter sounds are no speech, milliseconds.
    pub min_speech_ms: u32,
    /// Silence that ends an utterance, milliseconds.
    pub hangover_ms: u32,
    /// Silence behind the last word that belongs to an utterance, and after which its answer is begun, milliseconds. 0, or not less than
    /// `hangover_ms`: all of it belongs there, and the answer is begun when it is over.
    pub early_ms: u32,
    /// Sound from before the onset that belongs to the utterance, milliseconds, without digital silence at its beginning.
    pub lead_ms: u32,
    /// Longest utterance, milliseconds; the model hears 30 s at once.
    pub max_speech_ms: u32,
    /// After a push-to-talk request: how long to wait for speech, milliseconds.
    pub listen_timeout_ms: u32,
}

impl Default for SpeechDetection {
    fn default() -> SpeechDetection {
        SpeechDetection {
            threshold: 0.5,
            min_speech_ms: 250,
            hangover_ms: 700,
            early_ms: 240,
            lead_ms: 300,
            max_speech_ms: LONGEST_SPEECH_MS,
            listen_timeout_ms: 8_000,
        }
    }
}

impl SpeechDetection {
    /// The silence after which an answer is begun before it is known that nobody goes on, milliseconds, where one is.
    pub fn early_answer_ms(&self) -> Option<u32> {
        Some(self.early_ms).filter(|&early_ms| early_ms > 0 && early_ms < self.hangover_ms)
    }
}

/// Longest sound that is kept from before the onset, milliseconds.
const MAX_LEAD_MS: u32 = 10_000;
/// Longest utterance: what the model hears at once, milliseconds.
const LONGEST_SPEECH_MS: u32 = 1000 * LONGEST_CLIP_S;

impl MicrophoneOptions {
    /// Looks whether the values fit their keys and each other.
    ///
    /// # Errors
    /// The first that does not: which key, what stands there and what may.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.device.is_empty() || self.device.contains('\0') {
            return Err(match self.kind {
                MicrophoneType::Alsa => {
                    "device is no ALSA PCM name; `gemmad devices` lists those there are"
                }
                MicrophoneType::Replay => "device is no path of a file or pipe",
            }
            .into());
        }
        let spoken = |phrase: &String| phrase.chars().any(char::is_alphanumeric);
        if self.trigger == Trigger::WakePhrase && self.wake_phrases.is_empty() {
            return Err("trigger is \"wake_phrase\", which needs wake_phrases = [\"…\"]".into());
        }
        if self.trigger == Trigger::WakePhrase && self.answer == VoiceAnswer::Command {
            return Err(
            "trigger is \"wake_phrase\", which is looked for in the transcript; answer = \"command\" makes none: take \"both\""
                .into(),
        );
        }
        if let Some(phrase) = self.wake_phrases.iter().find(|phrase| !spoken(phrase)) {
            return Err(format!("wake_phrases has {phrase:?}, which has no word"));
        }
        if self.trigger == Trigger::WakeWord {
            self.check_wake_words()?;
        }
        between("wake.sensitivity", self.wake.sensitivity, -1.0, 1.0)?;
        if self.wake.stop_models.len() > MAX_WAKE_WORDS {
            return Err(format!(
                "wake.stop_models has more than {MAX_WAKE_WORDS} models"
            ));
        }
        between("continue_s", self.continue_s, 0, 60)?;
        let speech = &self.speech;
        check_speech(speech.threshold, speech.min_speech_ms)?;
        between("speech.hangover_ms", speech.hangover_ms, 100, 10_000)?;
        if speech.early_ms > 0 {
            between("speech.early_ms", speech.early_ms, 100, 10_000)?;
        }
        between("speech.lead_ms", speech.lead_ms, 0, MAX_LEAD_MS)?;
        between(
            "speech.max_speech_ms",
            speech.max_speech_ms,
            1000,
            LONGEST_SPEECH_MS,
        )?;
        if speech.min_speech_ms >= speech.max_speech_ms {
            return Err(format!(
                "speech.min_speech_ms is {}; it must be less than max_speech_ms ({})",
                speech.min_speech_ms, speech.max_speech_ms
            ));
        }
        if speech.lead_ms >= speech.max_speech_ms {
            return Err(format!(
                "speech.lead_ms is {}; it must be less than max_speech_ms ({})",
                speech.lead_ms, speech.max_speech_ms
            ));
        }
        between(
            "speech.listen_timeout_ms",
            speech.listen_timeout_ms,
            500,
            600_000,
        )
    }

    /// Loads the models of its wake words, where it has some: what is said. That they are there is no condition of a configuration, as
    /// little as that the device is.
    ///
    /// # Errors
    /// One cannot be read, or is none; one line.
    pub fn wake_words(&self) -> Result<Vec<String>, String> {
        let load = |model: &PathBuf| match WakeWord::load(model, self.wake.sensitivity) {
            Ok(word) => Ok(word.phrase().to_owned()),
            Err(error) => Err(format!("microphone `{}`: wake.models: {error}", self.id)),
        };
        let wakes = match self.trigger {
            Trigger::WakeWord => self.wake.models.as_slice(),
            Trigger::Voice | Trigger::PushToTalk | Trigger::WakePhrase => &[],
        };
        for model in &self.wake.stop_models {
            load(model).map_err(|error| error.replace("wake.models", "wake.stop_models"))?;
        }
        wakes.iter().map(load).collect()
    }

    fn check_wake_words(&self) -> Result<(), String> {
        let wake = &self.wake;
        if !(1..=MAX_WAKE_WORDS).contains(&wake.models.len()) {
            return Err(format!(
                "trigger is \"wake_word\", which needs 1 to {MAX_WAKE_WORDS} models in wake.models; docs/wake.md says where there are some"
            ));
        }
        between("wake.settle_ms", wake.settle_ms, 0, 60_000)?;
        if wake.verify && self.answer == VoiceAnswer::Command {
            return Err(
                "wake.verify looks for the wake word in the transcript; answer = \"command\" makes none: take \"both\", or verify = false"
                    .into(),
            );
        }
        if self.speech.max_speech_ms < LEAST_WOKEN_MS {
            return Err(format!(
                "speech.max_speech_ms is {}; with a wake word, which is part of it, it must be at least {LEAST_WOKEN_MS}",
                self.speech.max_speech_ms
            ));
        }
        Ok(())
    }
}
