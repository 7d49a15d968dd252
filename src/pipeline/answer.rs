//! What comes out: the text, how long each step took, and what is in memory.

use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use crate::model::stop::StopReason;
use crate::model::tools::ToolCall;
use crate::model::weights::{Group, GroupState};

/// The answer to a request.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The text, without control tokens and thoughts.
    pub text: String,
    /// What the model thought before it answered, where it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thoughts: Option<String>,
    /// What the model called, where it did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolCall>,
    /// Why it ended.
    pub finish: FinishReason,
    /// The MatFormer slice that answered.
    pub matformer: String,
    /// With a grammar that asks for it: the least share of the probability, over the answer's tokens, that the model gave to
    /// what the grammar allows (softmax of temperature 1), 0 to 1. Low where the model would have answered something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grammar_confidence: Option<f32>,
    /// In a conversation: whether what was said before is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// How long it took.
    pub timing: Timing,
    /// Memory of each parameter group when the answer was complete.
    pub memory: Vec<GroupMemory>,
}

/// Something of an answer that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Of its text.
    Text(&'a str),
    /// Of what the model thinks before it answers.
    Thoughts(&'a str),
}

/// Gets an answer as it comes, and may end it.
pub(super) type OnPiece<'a> = &'a mut dyn FnMut(Piece<'_>) -> ControlFlow<()>;

/// Gets a text as it comes, and may end it.
pub(super) type OnText<'a> = &'a mut dyn FnMut(&str) -> ControlFlow<()>;

/// What hands on the text, and keeps the thoughts to itself.
pub(super) fn text_only(on_text: OnText<'_>) -> impl FnMut(Piece<'_>) -> ControlFlow<()> {
    |piece| match piece {
        Piece::Text(text) => on_text(text),
        Piece::Thoughts(_) => ControlFlow::Continue(()),
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or the grammar allowed nothing more.
    Stop,
    /// A stop string came up.
    StopString,
    /// `max_tokens` were given.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The caller ended it.
    Cancelled,
}

impl FinishReason {
    /// As it is published.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::StopString => "stop_string",
            FinishReason::MaxTokens => "max_tokens",
            FinishReason::ContextFull => "context_full",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

impl From<StopReason> for FinishReason {
    fn from(reason: StopReason) -> FinishReason {
        match reason {
            StopReason::Token => FinishReason::Stop,
            StopReason::String => FinishReason::StopString,
            StopReason::MaxTokens => FinishReason::MaxTokens,
        }
    }
}

/// How long each step of an answer took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timing {
    /// Mapping towers that were not loaded, milliseconds.
    pub load_ms: f64,
    /// Media to soft tokens, milliseconds.
    pub encode_ms: f64,
    /// The prompt through the text model, milliseconds.
    pub prefill_ms: f64,
    /// The answer, milliseconds.
    pub decode_ms: f64,
    /// Tokens of the prompt, soft tokens included.
    pub prompt_tokens: usize,
    /// Those of them whose keys and values came from the prefix cache.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// Passes through the model that the answer took: one a token where nothing was known before and nothing guessed.
    pub passes: usize,
}

impl Timing {
    /// Everything but loading, milliseconds.
    pub fn computing_ms(&self) -> f64 {
        self.encode_ms + self.prefill_ms + self.decode_ms
    }

    /// Tokens of the answer per second of decoding; 0 for an empty answer.
    pub fn tokens_per_second(&self) -> f64 {
        if self.decode_ms > 0.0 {
            self.tokens as f64 * 1e3 / self.decode_ms
        } else {
            0.0
        }
    }
}

pub(super) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Memory of one parameter group.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GroupMemory {
    /// The group.
    #[serde(serialize_with = "as_text")]
    pub group: Group,
    /// Whether it is in memory.
    pub state: GroupState,
    /// Bytes mapped; 0 while a tower is unloaded, and of PLE, whose rows are read one by one.
    pub mapped_bytes: u64,
    /// Bytes that this process has in memory.
    pub resident_bytes: u64,
}

fn as_text<S: serde::Serializer>(group: &Group, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(group)
}
