//! JSON schemas of every payload that is published or accepted, made from the types that are.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use super::announce::Announced;
use super::body::{JobEvent, Partial, PlainAnswer, Response, Transcript};
use super::homeassistant::Discovery;
use super::namesake::Instance;
use crate::report::{
    AskFields, CancelFields, CaptionEvent, Claim, DescribeFields, Health, Info, LogLine, Names,
    ReplyFields, SayFields, TranscribeFields, VoiceEvent,
};

/// File name (without `.json`) and schema of every payload. Requests are named `request-…`; a key that they do not list is
/// refused.
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("info", published::<Info>()),
        ("health", published::<Health>()),
        ("log", published::<LogLine>()),
        ("voice-event", published::<VoiceEvent>()),
        ("transcript", published::<Transcript<'static>>()),
        ("caption-event", published::<CaptionEvent>()),
        ("woken", published::<Claim>()),
        ("response", published::<Response>()),
        ("response-partial", published::<Partial>()),
        ("answer", published::<PlainAnswer>()),
        ("job-event", published::<JobEvent>()),
        ("announced", published::<Announced>()),
        ("instance", published::<Instance>()),
        ("discovery", published::<Discovery>()),
        ("request-ask", accepted::<AskFields>()),
        ("request-describe", accepted::<DescribeFields>()),
        ("request-transcribe", accepted::<TranscribeFields>()),
        ("request-cancel", accepted::<CancelFields>()),
        ("request-plain", accepted::<Plain>()),
        ("request-names", accepted::<Names>()),
        ("request-reply", accepted::<ReplyFields>()),
        ("request-say", accepted::<SayFields>()),
    ]
}

/// `request/reload`, `request/stats`, `request/forget` and `mic/ID/listen`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Plain {}

fn published<T: JsonSchema>() -> Value {
    generator(SchemaSettings::draft2020_12().for_serialize())
        .into_root_schema_for::<T>()
        .into()
}

/// Every request may have a `transaction`, which is taken out before the rest is read.
fn accepted<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let mut schema: Value = generator(settings).into_root_schema_for::<T>().into();
    if let Some(schema) = schema.as_object_mut() {
        let properties = schema.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            let transaction = json!({
                "description": "The asker's own name for the request, given back with every answer.",
                "type": ["string", "null"],
                "maxLength": crate::report::MAX_NAME_BYTES,
            });
            properties.insert("transaction".to_owned(), transaction);
        }
    }
    schema
}

fn generator(settings: SchemaSettings) -> SchemaGenerator {
    settings.into_generator()
}
