//! Why there is no answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not the JSON, or not the values, that were expected.
    Invalid,
    /// No such microphone, camera, slice or job.
    NotFound,
    /// Too much is waiting.
    QueueFull,
    /// The device, or the daemon while it stops, cannot do it now.
    Busy,
    /// Larger than the limits allow.
    TooLarge,
    /// Not a sound that can be read.
    InvalidAudio,
    /// Not a picture that can be read.
    InvalidImage,
    /// Ended on request.
    Cancelled,
    /// Not done in time.
    Timeout,
    /// Not allowed for this asker.
    NotPermitted,
    /// The model could not answer.
    Failed,
    /// Three workers of the fleet died of it.
    Poison,
}

/// An error as told to the asker.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct ErrorBody {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what, where, and how to mend it.
    pub message: String,
}

impl ErrorBody {
    /// An error of this kind, in these words.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
        ErrorBody {
            code,
            message: message.into(),
        }
    }
}
