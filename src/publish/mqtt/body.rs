//! Payloads that only MQTT has; the others are reports as they are.

use schemars::JsonSchema;
use serde::Serialize;

use crate::report::{ErrorBody, ErrorCode, Reply, VoiceEvent};

/// `mic/ID/transcript`: the last event, with a text that fits a state of Home Assistant.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Transcript<'a> {
    #[serde(flatten)]
    pub(super) event: &'a VoiceEvent,
    /// What was said, or the command's name, in at most 255 characters.
    pub(super) short: String,
}

/// `response/KIND`
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Response {
    /// Version of this layout.
    pub(super) schema: u32,
    /// The job, a ULID; absent where the request could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) status: Status,
    /// The answer; empty with an error.
    pub(super) data: Reply,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<ErrorBody>,
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction: Option<String>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// It has an answer.
    Ok,
    /// It has none.
    Error,
}

/// `response/KIND/partial`: what has come since the last one, of a request with `stream`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Partial {
    /// Version of this layout.
    pub(super) schema: u32,
    /// The job.
    pub(super) id: String,
    /// 0, 1, 2, …; a gap means that pieces were lost with the connection.
    pub(super) sequence: u64,
    /// The piece.
    pub(super) text: String,
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction: Option<String>,
}

/// `answer`: what was said to a question on `ask`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PlainAnswer {
    /// Version of this layout.
    pub(super) schema: u32,
    /// The job.
    pub(super) id: String,
    /// The answer.
    pub(super) text: String,
    /// The same in at most 255 characters.
    pub(super) short: String,
    /// As in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transaction: Option<String>,
}

/// `job`: that a job ended, without a word of what it was about.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct JobEvent {
    /// Version of this layout.
    pub(super) schema: u32,
    pub(super) event_type: JobEventType,
    /// The job.
    pub(super) id: String,
    /// `ask`, `describe` or `transcribe`.
    pub(super) kind: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<ErrorCode>,
}

/// How a job ended, in the words of Home Assistant's event entity.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum JobEventType {
    /// It has an answer.
    Finished,
    /// It has an error, or was cancelled.
    Failed,
}
