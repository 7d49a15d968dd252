//! A conversation to answer, as its whole: who said and showed what, what may be called, and how the answer is chosen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fields::Attachment;
use super::name::Name;

/// Who says a message.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// Instructions, wherever they stand.
    System,
    /// The one who asks.
    User,
    /// The model, earlier.
    Assistant,
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Text.
    Text(String),
    /// A picture: a JPEG or PNG.
    Picture(Attachment),
    /// Sound: a WAV, FLAC, OGG or MP3.
    Sound(Attachment),
    /// A call that the model made.
    Called(ToolCall),
    /// What came of a call; said by whoever made the call.
    Result {
        /// The tool.
        name: String,
        /// An object, or a text.
        value: Value,
    },
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
pub struct ToolCall {
    /// The tool.
    pub name: String,
    /// Its arguments, which fit its schema.
    pub arguments: Map<String, Value>,
}

/// What the model may call.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON schema of its arguments; `null` where it takes none.
    pub parameters: Value,
}

/// Whether tools are called.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As the model finds right.
    #[default]
    Auto,
    /// Any of them is.
    Must,
    /// The one of this name is.
    Named(String),
}

/// What may be called in an answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Tools {
    /// The tools.
    pub offered: Vec<Tool>,
    /// Whether they are called.
    pub choice: ToolChoice,
    /// There may be several calls in one answer.
    pub several: bool,
    /// Where the conversation lists what is in a house, calls name nothing else.
    pub closed_names: bool,
}

/// A message.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Message {
    /// Whose it is.
    pub speaker: Speaker,
    /// What is said and shown, in order.
    pub said: Vec<Said>,
}

/// What the answer must be.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// A JSON object, whatever is in it.
    Object,
    /// JSON that fits a schema.
    Schema(Value),
}

/// How tokens are chosen; what is absent is as the model's makers want it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Choosing {
    /// 0 always takes the likeliest token.
    pub temperature: Option<f32>,
    /// Only so many of the likeliest take part; 0 for all.
    pub top_k: Option<usize>,
    /// Only the likeliest that together reach this probability.
    pub top_p: Option<f32>,
    /// Only those with this share of the likeliest's probability.
    pub min_p: Option<f32>,
    /// What has been said already becomes less likely; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same text.
    pub seed: Option<u64>,
}

/// A conversation to answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Chat {
    /// What was said, oldest first; any order of speakers.
    pub messages: Vec<Message>,
    /// What the answer must be.
    pub shape: Option<Shape>,
    /// What may be called instead.
    pub tools: Option<Tools>,
    /// How tokens are chosen.
    pub choosing: Choosing,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Tokens of the answer at most.
    pub max_tokens: Option<usize>,
    /// The model thinks before it answers.
    pub thinks: bool,
    /// MatFormer slice that answers.
    pub matformer: Option<Name>,
    /// Soft tokens that a picture becomes at most.
    pub soft_tokens: Option<usize>,
    /// The answer is told while it comes.
    pub stream: bool,
}

impl Chat {
    /// Whether any message has such a part in it.
    pub fn has(&self, is: fn(&Said) -> bool) -> bool {
        let mut parts = self.messages.iter().flat_map(|message| &message.said);
        parts.any(is)
    }
}
