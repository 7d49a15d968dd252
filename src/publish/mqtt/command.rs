//! Messages from outside as requests: whatever comes is either one or gets an error, and nothing of it is trusted.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::topics::{KIND_SET, Topics};
use crate::report::{
    Ask, AskFields, Attachment, CancelFields, DescribeFields, ErrorBody, ErrorCode, MAX_NAME_BYTES,
    Name, Payload, ReplyFields, Say, SayFields, SpokenReply, Switch, TranscribeFields, Utterable,
};

/// Brackets within brackets that a payload may have.
const MAX_DEPTH: usize = 32;
/// Longest name of a slice, bytes.
const MAX_SLICE_BYTES: usize = 64;

/// What is asked, and how it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) payload: Payload,
    pub(super) transaction: Option<String>,
    /// On `ask`: the answer goes to `answer` too.
    pub(super) plain: bool,
}

/// Why a message is no request.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Names the response topic.
    pub(super) kind: &'static str,
    pub(super) error: ErrorBody,
    /// Where it could be read.
    pub(super) transaction: Option<String>,
}

/// Reads a message on one of the subscribed topics; `None` for a topic that takes no commands.
pub(super) fn read(
    topics: &Topics,
    max_bytes: usize,
    topic: &str,
    payload: &[u8],
) -> Option<Result<Received, Refusal>> {
    let command = topics.below(topic)?;
    let parts: Vec<&str> = command.split('/').collect();
    let kind = match parts.as_slice() {
        ["ask"] | ["request", "ask"] => "ask",
        ["request", "describe"] | ["camera", _, "describe"] => "describe",
        ["request", "transcribe"] => "transcribe",
        ["request", "cancel"] => "cancel",
        ["request", "reload"] => "reload",
        ["request", "stats"] => "stats",
        ["request", "forget"] => "forget",
        ["names"] => "names",
        ["mic", _, "reply"] => "reply",
        ["mic", _, "say"] => "say",
        ["speaker", "stop"] => "silence",
        ["mic", _, "mute" | "wake", "set"]
        | ["mic", _, "listen"]
        | ["camera", _, "enabled" | "captions", "set"]
        | ["speaker", "volume", "set"]
        | ["matformer" | "max_tokens", "set"] => KIND_SET,
        _ => return None,
    };
    let mut transaction = None;
    let payload = read_payload(&parts, max_bytes, payload, &mut transaction);
    Some(match payload {
        Ok(payload) => Ok(Received {
            payload,
            transaction,
            plain: parts == ["ask"],
        }),
        Err(ErrorBody { code, message }) => Err(Refusal {
            kind,
            error: ErrorBody::new(code, format!("{command}: {message}")),
            transaction,
        }),
    })
}

fn invalid(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorCode::Invalid, message)
}

fn read_payload(
    parts: &[&str],
    max_bytes: usize,
    payload: &[u8],
    transaction: &mut Option<String>,
) -> Result<Payload, ErrorBody> {
    if payload.len() > max_bytes {
        return Err(ErrorBody::new(
            ErrorCode::TooLarge,
            format!(
                "the payload has {} bytes; mqtt.max_payload_bytes is {max_bytes}",
                payload.len()
            ),
        ));
    }
    if let ["mic", id, "say"] = parts
        && !is_text(payload)
    {
        return Ok(Payload::Say(Say {
            microphone: Some(name("microphone", id)?),
            id: None,
            what: Utterable::Audio(Attachment(payload.into())),
            urgent: false,
        }));
    }
    let text = std::str::from_utf8(payload)
        .map_err(|error| invalid(format!("the payload is not UTF-8: {error}")))?
        .trim();
    let mut fields = || fields(text, transaction);
    Ok(match parts {
        // Whoever types a question into a client types no JSON.
        ["ask"] if !text.starts_with('{') => Payload::Ask(question(text)?),
        ["ask"] | ["request", "ask"] => {
            let ask: AskFields = typed(fields()?)?;
            Payload::Ask(ask.try_into()?)
        }
        ["request", "describe"] => {
            let describe: DescribeFields = typed(fields()?)?;
            Payload::Describe(describe.try_into()?)
        }
        ["camera", id, "describe"] => {
            let mut describe: DescribeFields = typed(fields()?)?;
            if describe.camera.is_some() || describe.image.is_some() {
                return Err(invalid(
                    "the topic names the camera: give neither `camera` nor `image`",
                ));
            }
            describe.camera = Some((*id).to_owned());
            Payload::Describe(describe.try_into()?)
        }
        ["request", "transcribe"] => {
            let transcribe: TranscribeFields = typed(fields()?)?;
            Payload::Transcribe(transcribe.try_into()?)
        }
        ["request", "cancel"] => {
            let cancel: CancelFields = typed(fields()?)?;
            Payload::Cancel(cancel.try_into()?)
        }
        ["request", name @ ("reload" | "stats" | "forget")] => {
            nothing_else(&fields()?)?;
            match *name {
                "reload" => Payload::Reload,
                "stats" => Payload::Stats,
                _ => Payload::Forget,
            }
        }
        ["mic", id, "listen"] => {
            if text.starts_with('{') {
                nothing_else(&fields()?)?;
            }
            Payload::Listen {
                id: name("microphone", id)?,
            }
        }
        // An empty message takes a retained one from the broker.
        ["names"] if text.is_empty() => Payload::Names(None),
        ["names"] => Payload::Names(Some(Box::new(typed(fields()?)?))),
        ["mic", id, "reply"] => {
            let reply: ReplyFields = match text.starts_with('{') {
                true => typed(fields()?)?,
                false => ReplyFields {
                    text: text.to_owned(),
                    id: None,
                },
            };
            Payload::Replied(SpokenReply {
                microphone: name("microphone", id)?,
                id: reply.id.map(|id| name("id", &id)).transpose()?,
                text: reply.text,
            })
        }
        ["mic", id, "say"] => {
            let mut say: SayFields = match text.starts_with('{') {
                true => typed(fields()?)?,
                false => SayFields {
                    text: Some(text.to_owned()),
                    ..SayFields::default()
                },
            };
            if say.microphone.is_some() {
                return Err(invalid("the topic names the microphone: leave it out"));
            }
            say.microphone = Some((*id).to_owned());
            Payload::Say(say.try_into()?)
        }
        ["speaker", "stop"] => {
            if text.starts_with('{') {
                nothing_else(&fields()?)?;
            }
            Payload::Silence
        }
        ["speaker", "volume", "set"] => match text.parse() {
            Ok(percent) if percent <= 100 => Payload::Set(Switch::Volume(percent)),
            _ => return Err(invalid("the payload is no whole number of 0 to 100")),
        },
        ["mic", id, "mute", "set"] => Payload::Set(Switch::Mute {
            muted: on_off(text)?,
            id: name("microphone", id)?,
        }),
        ["mic", id, "wake", "set"] => Payload::Set(Switch::Wake {
            on: on_off(text)?,
            id: name("microphone", id)?,
        }),
        ["camera", id, "enabled", "set"] => Payload::Set(Switch::Enable {
            enabled: on_off(text)?,
            id: name("camera", id)?,
        }),
        ["camera", id, "captions", "set"] => Payload::Set(Switch::Captions {
            enabled: on_off(text)?,
            id: name("camera", id)?,
        }),
        ["matformer", "set"] => {
            if text.is_empty() || text.len() > MAX_SLICE_BYTES || text.contains(char::is_control) {
                return Err(invalid("the payload is no name of a slice"));
            }
            Payload::Set(Switch::Matformer(name("matformer", text)?))
        }
        ["max_tokens", "set"] => match text.parse() {
            Ok(tokens) if tokens > 0 => Payload::Set(Switch::MaxTokens(tokens)),
            _ => return Err(invalid("the payload is no whole number above 0")),
        },
        _ => return Err(invalid("no such command")),
    })
}

/// Whether what is to be said is a text, and not the bytes of an audio file: those have one that no text has.
fn is_text(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok_and(|text| !text.contains('\0'))
}

fn name(key: &str, text: &str) -> Result<Name, ErrorBody> {
    Name::new(key, text.to_owned())
}

/// A question without anything around it.
fn question(text: &str) -> Result<Ask, ErrorBody> {
    let fields = AskFields {
        prompt: text.to_owned(),
        ..AskFields::default()
    };
    Ask::try_from(fields).map_err(|_| invalid("the question is empty"))
}

fn on_off(text: &str) -> Result<bool, ErrorBody> {
    match text {
        _ if text.eq_ignore_ascii_case("on") => Ok(true),
        _ if text.eq_ignore_ascii_case("off") => Ok(false),
        _ => Err(invalid("the payload is neither ON nor OFF")),
    }
}

/// The keys of a JSON object without `transaction`, which every request may have; an empty payload is an empty object.
fn fields(text: &str, transaction: &mut Option<String>) -> Result<Map<String, Value>, ErrorBody> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    if depth(text) > MAX_DEPTH {
        return Err(invalid(format!(
            "the JSON is nested deeper than {MAX_DEPTH}"
        )));
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| invalid(format!("the payload is not JSON: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err(invalid("the payload is no JSON object"));
    };
    match fields.remove("transaction") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if name.len() <= MAX_NAME_BYTES => {
            *transaction = Some(name);
        }
        Some(_) => {
            return Err(invalid(format!(
                "`transaction` is no string of up to {MAX_NAME_BYTES} bytes"
            )));
        }
    }
    Ok(fields)
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ErrorBody> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| {
        // The message repeats a value of the wrong type, however long it is.
        let message: String = error.to_string().chars().take(300).collect();
        invalid(message)
    })
}

fn nothing_else(fields: &Map<String, Value>) -> Result<(), ErrorBody> {
    match fields.keys().next() {
        None => Ok(()),
        Some(key) => {
            let key: String = key.chars().take(64).collect();
            Err(invalid(format!(
                "unknown key `{key}`: it takes `transaction` only"
            )))
        }
    }
}

/// How deep brackets stand within brackets, those in strings not counted.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::super::options::MqttOptions;
    use super::*;

    fn receive(command: &str, payload: &[u8]) -> Result<Received, Refusal> {
        let config = MqttOptions {
            node: "n".to_owned(),
            ..MqttOptions::default()
        };
        let topics = Topics::new(&config);
        read(&topics, 65_536, &topics.of(command), payload).unwrap()
    }

    #[test]
    fn brackets_are_counted_outside_of_strings() {
        assert_eq!(depth(r#"{"a":[[]],"b":"[[[[[\"[["}"#), 3);
        assert_eq!(depth("]]]][["), 2);
        let deep = |n| {
            format!(
                "{}{}",
                r#"{"prompt":"x","schema":"#.to_owned() + &"[".repeat(n),
                "]".repeat(n) + "}"
            )
        };
        assert!(receive("request/ask", deep(31).as_bytes()).is_ok());
        let refusal = receive("request/ask", deep(32).as_bytes()).unwrap_err();
        assert!(refusal.error.message.contains("32"), "{refusal:?}");
    }

    #[test]
    fn questions_come_as_text_or_as_json() {
        let plain = receive("ask", b" What is the capital of France?\n").unwrap();
        assert!(plain.plain && plain.transaction.is_none());
        let Payload::Ask(ask) = plain.payload else {
            panic!()
        };
        assert_eq!(ask.prompt, "What is the capital of France?");
        let json = receive(
            "request/ask",
            br#"{"prompt":"x","stream":true,"transaction":"t"}"#,
        )
        .unwrap();
        assert!(!json.plain);
        assert_eq!(json.transaction.as_deref(), Some("t"));
        // The name is given back though the rest is wrong.
        let refusal = receive("request/ask", br#"{"prompt":1,"transaction":"t"}"#).unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.transaction.as_deref()),
            ("ask", Some("t"))
        );
        assert_eq!(refusal.error.code, ErrorCode::Invalid);
    }

    #[test]
    fn a_topic_that_takes_no_commands_is_left_alone() {
        let topics = Topics::new(&MqttOptions::default());
        for topic in [
            "gemmad",
            "other/x",
            &topics.of("health"),
            &topics.of("mic/a/b/c/d"),
        ] {
            assert!(read(&topics, 10, topic, b"x").is_none(), "{topic}");
        }
    }
}
