//! Requests as they are written, in JSON and as options on the bus: `request` makes payloads of them, or says what is missing.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An attached file: its bytes on the bus, their base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment(pub Arc<[u8]>);

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attachment({} bytes)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Attachment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Attachment, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|error| {
            D::Error::custom(format!(
                "an attached file is not base64 (RFC 4648, padded): {error}"
            ))
        })?;
        Ok(Attachment(bytes.into()))
    }
}

impl Serialize for Attachment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl JsonSchema for Attachment {
    fn schema_name() -> Cow<'static, str> {
        "Attachment".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "contentEncoding": "base64" })
    }
}

/// `request/ask`, and `Ask` on the bus.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ask")]
pub struct AskFields {
    /// The question.
    pub prompt: String,
    /// Instructions before the conversation.
    #[serde(default)]
    pub system: Option<String>,
    /// JSON schema that the answer must fit.
    #[serde(default)]
    pub schema: Option<serde_json::Value>,
    /// The answer must be one of these.
    #[serde(default)]
    pub choices: Option<Vec<String>>,
    /// MatFormer slice that answers.
    #[serde(default)]
    pub matformer: Option<String>,
    /// Tokens of the answer at most.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// 0 always takes the likeliest token.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// The same seed gives the same text.
    #[serde(default)]
    pub seed: Option<u64>,
    /// The model thinks before it answers; absent: it does not, or as its conversation did before.
    #[serde(default)]
    pub thinking: Option<bool>,
    /// Publish the answer while it comes.
    #[serde(default)]
    pub stream: bool,
    /// The board's speaker says the answer while it comes.
    #[serde(default)]
    pub speak: bool,
    /// Goes on with the conversation of this name, or begins it.
    #[serde(default)]
    pub conversation: Option<String>,
    /// Milliseconds after which the job is given up.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// An attached picture: base64 of a JPEG or PNG.
    #[serde(default)]
    pub image: Option<Attachment>,
    /// Soft tokens that the picture becomes at most, with a Gemma 4.
    #[serde(default)]
    pub soft_tokens: Option<usize>,
    /// Attached audio: base64 of a WAV, FLAC, OGG or MP3.
    #[serde(default)]
    pub audio: Option<Attachment>,
}

/// `request/describe`, `camera/ID/describe`, and `Describe` on the bus.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Describe")]
pub struct DescribeFields {
    /// The camera; or `image`.
    #[serde(default)]
    pub camera: Option<String>,
    /// An attached picture: base64 of a JPEG or PNG.
    #[serde(default)]
    pub image: Option<Attachment>,
    /// Soft tokens that the picture becomes at most, with a Gemma 4.
    #[serde(default)]
    pub soft_tokens: Option<usize>,
    /// What is asked about it; absent: the configured prompt.
    #[serde(default)]
    pub prompt: Option<String>,
    /// MatFormer slice that answers.
    #[serde(default)]
    pub matformer: Option<String>,
    /// Tokens of the answer at most.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Milliseconds after which the job is given up.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// `request/transcribe`, and `Transcribe` on the bus.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Transcribe")]
pub struct TranscribeFields {
    /// Base64 of a WAV, FLAC, OGG or MP3.
    #[serde(default)]
    pub audio: Option<Attachment>,
    /// Spoken language.
    #[serde(default)]
    pub language: Option<String>,
    /// MatFormer slice that answers.
    #[serde(default)]
    pub matformer: Option<String>,
    /// Tokens of the answer at most.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// Milliseconds after which the job is given up.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// `mic/ID/say`, and `/v1/audio/play` over HTTP. Plain text is the text, and the bytes of an audio file are that file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Say")]
pub struct SayFields {
    /// At which microphone it was asked for; over MQTT the topic names it.
    #[serde(default)]
    pub microphone: Option<String>,
    /// What is said; or `audio`.
    #[serde(default)]
    pub text: Option<String>,
    /// Base64 of a WAV, FLAC, OGG or MP3.
    #[serde(default)]
    pub audio: Option<Attachment>,
    /// The `id` of the event to which it is the answer: whoever spoke may go on after it (`continue_s`).
    #[serde(default)]
    pub id: Option<String>,
    /// It goes before what waits, and ends what is being said.
    #[serde(default)]
    pub urgent: bool,
}

/// `request/cancel`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CancelRequest")]
pub struct CancelFields {
    /// The job to end.
    #[serde(default)]
    pub job: Option<String>,
    /// Or the asker's own name for it.
    #[serde(default)]
    pub target: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attached_files_are_base64_in_json() {
        // RFC 4648, section 10.
        let ask: AskFields =
            serde_json::from_str(r#"{"prompt": "", "image": "Zm9vYmE="}"#).unwrap();
        assert_eq!(ask.image, Some(Attachment(b"fooba"[..].into())));
        assert_eq!(ask.audio, None);
        for wrong in ["Zm9vYmE", "Zm9v YmE=", "####"] {
            let json = format!(r#"{{"prompt": "", "audio": "{wrong}"}}"#);
            let error = serde_json::from_str::<AskFields>(&json)
                .unwrap_err()
                .to_string();
            assert!(error.contains("not base64"), "{error}");
        }
        let schema = serde_json::to_value(schemars::schema_for!(AskFields)).unwrap();
        let image = schema["properties"]["image"].to_string();
        assert!(image.contains(r#""contentEncoding":"base64""#), "{image}");
    }
}
