//! What was answered to what a microphone heard.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::Name;

/// `mic/ID/reply`: what Home Assistant, or whoever else, answered to somebody at that microphone. Plain text is the text.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Reply")]
pub struct ReplyFields {
    /// What was answered.
    pub text: String,
    /// The `id` of the event to which it was the answer.
    #[serde(default)]
    pub id: Option<String>,
}

/// The same, of a microphone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpokenReply {
    /// The microphone.
    pub microphone: Name,
    /// The event to which it was the answer.
    pub id: Option<Name>,
    /// What was answered.
    pub text: String,
}

/// As everybody is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplyEvent {
    /// The event to which it was the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it came, RFC 3339.
    pub ts: String,
    /// The microphone.
    pub source: String,
    /// What was answered.
    pub text: String,
}
