//! A conversation to answer, as its whole: who said and showed what, and how the answer is chosen.

use super::fields::Attachment;
use super::name::Name;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Instructions, wherever they stand.
    System,
    /// The one who asks.
    User,
    /// The model, earlier.
    Assistant,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Text.
    Text(String),
    /// A picture: a JPEG or PNG.
    Picture(Attachment),
    /// Sound: a WAV, FLAC, OGG or MP3.
    Sound(Attachment),
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Whose it is.
    pub speaker: Speaker,
    /// What is said and shown, in order.
    pub said: Vec<Said>,
}

/// What the answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A JSON object, whatever is in it.
    Object,
    /// JSON that fits a schema.
    Schema(serde_json::Value),
}

/// How tokens are chosen; what is absent is as the model's makers want it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// What was said, oldest first; any order of speakers.
    pub messages: Vec<Message>,
    /// What the answer must be.
    pub shape: Option<Shape>,
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
