//! Payloads of events and answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::media::CaptionTrigger;

use super::chat::ToolCall;
use super::error::{ErrorBody, ErrorCode};
use super::frigate::{FrigateEvent, Scene};
use super::header::Header;

/// What happened, in the words of Home Assistant's event entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// Speech as text.
    Transcript,
    /// Speech as one of the configured commands.
    Command,
    /// Speech that fits no command.
    NotUnderstood,
    /// Speech that was not worked on: no wake phrase, too much at once, an error, or none after push-to-talk.
    Rejected,
    /// A picture as a sentence.
    Caption,
    /// A picture that could not be described.
    Failed,
}

impl EventType {
    /// As in the payload.
    pub fn name(self) -> &'static str {
        match self {
            EventType::Transcript => "transcript",
            EventType::Command => "command",
            EventType::NotUnderstood => "not_understood",
            EventType::Rejected => "rejected",
            EventType::Caption => "caption",
            EventType::Failed => "failed",
        }
    }
}

/// A command and its slots.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CommandCall {
    /// The `name` of the `[[command]]`, or of a built-in one.
    pub name: String,
    /// Slot to value.
    pub slots: serde_json::Map<String, serde_json::Value>,
    /// Home Assistant's ids of what is meant; only of built-in commands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<String>,
}

/// How long each step took.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct ReportTiming {
    /// Waiting for other work, milliseconds.
    pub queue_ms: f64,
    /// Loading a tower, milliseconds.
    pub load_ms: f64,
    /// Sound or picture to soft tokens, milliseconds.
    pub encode_ms: f64,
    /// The prompt, milliseconds.
    pub prefill_ms: f64,
    /// The answer, milliseconds.
    pub decode_ms: f64,
    /// From the end of speech, or from the picture, to this report, milliseconds.
    pub latency_ms: f64,
    /// Tokens of the prompt, soft tokens included.
    pub prompt_tokens: usize,
    /// Those of them that were read before: their keys and values were kept.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Passes through the model that they took: fewer than tokens where some had to follow, or were guessed.
    pub passes: usize,
    /// Tokens of the answer per second.
    pub tps: f64,
}

/// `mic/ID/event` and `mic/ID/transcript`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct VoiceEvent {
    /// Version of this layout.
    pub schema: u32,
    /// ULID: the same event sent twice has the same one.
    pub id: String,
    /// What happened.
    pub event_type: EventType,
    /// When it was published, RFC 3339.
    pub ts: String,
    /// Whether something is known to have set the clock when `ts` was taken (a board without a battery starts in the past):
    /// systemd-timesyncd, or a hardware clock.
    pub clock_synced: bool,
    /// The microphone.
    pub source: String,
    /// Spoken language, as configured.
    pub language: String,
    /// The wake word that it began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_word: Option<String>,
    /// The id of the event with which the conversation began, where the microphone has a `continue_s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// What was said; absent where only a command was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandCall>,
    /// All of them, the first included, where several were given in one sentence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandCall>,
    /// Least probability that the configured commands had at a token of the answer, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Length of the utterance, seconds.
    pub audio_s: f64,
    /// The utterance was cut at the longest length.
    pub truncated: bool,
    /// Why it was rejected or not understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The model's name.
    pub model: String,
    /// The MatFormer slice that answered.
    pub matformer: String,
    /// How long it took.
    pub timing: ReportTiming,
}

/// `camera/ID/event` and `camera/ID/caption`.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct CaptionEvent {
    /// Version of this layout.
    pub schema: u32,
    /// ULID: the same event sent twice has the same one.
    pub id: String,
    /// `caption` or `failed`.
    pub event_type: EventType,
    /// When it was published, RFC 3339.
    pub ts: String,
    /// Whether something is known to have set the clock when `ts` was taken: systemd-timesyncd, or a hardware clock.
    pub clock_synced: bool,
    /// The camera.
    pub source: String,
    /// What is seen, whole; empty where it failed.
    pub caption: String,
    /// The same in at most 255 characters, for a state of Home Assistant.
    pub short: String,
    /// Why it was described.
    pub trigger: CaptionTrigger,
    /// Share of the picture that changed, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub motion_area: Option<f32>,
    /// Smallest rectangle around the change: x, y, width, height, each 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub motion_box: Option<[f32; 4]>,
    /// The event of Frigate that it is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frigate: Option<FrigateEvent>,
    /// What is in the picture, where that is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scene: Option<Scene>,
    /// When the picture was taken, RFC 3339.
    pub frame_ts: String,
    /// SHA-256 of the picture that was described, in hexadecimal.
    pub image_sha256: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The model's name.
    pub model: String,
    /// The MatFormer slice that answered.
    pub matformer: String,
    /// How long it took.
    pub timing: ReportTiming,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It waits.
    Queued,
    /// It is worked on.
    Running,
    /// It has a result.
    Done,
    /// It has an error.
    Failed,
    /// It was ended before it had a result.
    Cancelled,
}

impl JobState {
    /// Whether nothing more follows.
    pub fn has_ended(self) -> bool {
        matches!(
            self,
            JobState::Done | JobState::Failed | JobState::Cancelled
        )
    }
}

/// What a request was answered with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct Reply {
    /// The answer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What the model thought before it answered, where it did; no part of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thoughts: Option<String>,
    /// What the model called, where it was given tools and did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// Why the answer ended: `stop`, `stop_string`, `max_tokens`, `context_full`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish: Option<String>,
    /// The conversation that can be gone on with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<String>,
    /// Whether the conversation went on; `false` where it was begun anew because it was forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// The slice that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matformer: Option<String>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timing: Option<ReportTiming>,
    /// Anything else, such as the figures of `stats` or the keys that need a restart.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// A job began, went on or ended.
#[derive(Clone, Debug, PartialEq)]
pub struct JobUpdate {
    /// Whose it is.
    pub header: Header,
    /// How far it is.
    pub state: JobState,
    /// Share of the work that is done, 0 to 1, where it is known.
    pub progress: Option<f32>,
    /// What has come of the answer since the last update, where it was asked to stream.
    pub partial: Option<String>,
    /// What the model has thought since the last update, where it was asked to stream over HTTP, here or at another board.
    pub thoughts: Option<String>,
    /// With [`JobState::Done`].
    pub reply: Option<Reply>,
    /// With [`JobState::Failed`] and [`JobState::Cancelled`].
    pub error: Option<ErrorBody>,
}

impl JobUpdate {
    /// How far a job is.
    pub fn new(header: &Header, state: JobState) -> JobUpdate {
        JobUpdate {
            header: header.clone(),
            state,
            progress: None,
            partial: None,
            thoughts: None,
            reply: None,
            error: None,
        }
    }

    /// How a job ended.
    pub fn end(header: &Header, result: Result<Reply, ErrorBody>) -> JobUpdate {
        let state = match &result {
            Ok(_) => JobState::Done,
            Err(error) if error.code == ErrorCode::Cancelled => JobState::Cancelled,
            Err(_) => JobState::Failed,
        };
        let mut update = JobUpdate::new(header, state);
        match result {
            Ok(reply) => update.reply = Some(reply),
            Err(error) => update.error = Some(error),
        }
        update
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Origin;

    #[test]
    fn a_job_ends_as_its_result_does() {
        let header = Header {
            id: "id".to_owned(),
            origin: Origin::Mqtt,
            transaction: None,
            kind: "ask",
            timeout: None,
        };
        let failed = |code| JobUpdate::end(&header, Err(ErrorBody::new(code, "why"))).state;
        let states = [
            JobUpdate::end(&header, Ok(Reply::default())).state,
            failed(ErrorCode::Cancelled),
            failed(ErrorCode::Timeout),
        ];
        assert_eq!(
            states,
            [JobState::Done, JobState::Cancelled, JobState::Failed]
        );
        assert!(states.iter().all(|state| state.has_ended()));
        assert!(!JobUpdate::new(&header, JobState::Queued).state.has_ended());
        assert!(!JobUpdate::new(&header, JobState::Running).state.has_ended());
    }
}
