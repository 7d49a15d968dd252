//! Messages from outside as requests: whatever comes is either one or gets an error, and nothing of it is trusted.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use ulid::Ulid;

use super::topics::{KIND_SET, Topics};
use crate::report::{
    Action, Ask, CancelRequest, Describe, ErrorBody, ErrorCode, MOST_NAME_BYTES, Origin, Request,
    Transcribe,
};

/// Brackets within brackets that a payload may have.
const MOST_DEPTH: usize = 32;
/// Longest name of a slice, bytes.
const MOST_SLICE_BYTES: usize = 64;

/// A request, and how it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) request: Request,
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
        ["mic", _, "mute", "set"]
        | ["mic", _, "listen"]
        | ["camera", _, "enabled" | "captions", "set"]
        | ["matformer" | "max_tokens", "set"] => KIND_SET,
        _ => return None,
    };
    let mut transaction = None;
    let action = action(&parts, max_bytes, payload, &mut transaction).and_then(|action| {
        let checked = action.check_names();
        checked.map_err(|error| (error.code, error.message))?;
        Ok(action)
    });
    Some(match action {
        Ok(action) => Ok(Received {
            request: Request {
                id: Ulid::generate().to_string(),
                origin: Origin::Mqtt,
                transaction,
                action,
            },
            plain: parts == ["ask"],
        }),
        Err((code, message)) => Err(Refusal {
            kind,
            error: ErrorBody {
                code,
                message: format!("{command}: {message}"),
            },
            transaction,
        }),
    })
}

type Wrong = (ErrorCode, String);

fn invalid(message: impl Into<String>) -> Wrong {
    (ErrorCode::Invalid, message.into())
}

fn action(
    parts: &[&str],
    max_bytes: usize,
    payload: &[u8],
    transaction: &mut Option<String>,
) -> Result<Action, Wrong> {
    if payload.len() > max_bytes {
        return Err((
            ErrorCode::TooLarge,
            format!(
                "the payload has {} bytes; mqtt.max_payload_bytes is {max_bytes}",
                payload.len()
            ),
        ));
    }
    let text = std::str::from_utf8(payload)
        .map_err(|error| invalid(format!("the payload is not UTF-8: {error}")))?
        .trim();
    let mut fields = || fields(text, transaction);
    Ok(match parts {
        // Whoever types a question into a client types no JSON.
        ["ask"] if !text.starts_with('{') => Action::Ask(question(text)?),
        ["ask"] | ["request", "ask"] => {
            let ask: Ask = typed(fields()?)?;
            if ask.prompt.trim().is_empty() && ask.image.is_none() && ask.audio.is_none() {
                return Err(invalid("`prompt` is empty"));
            }
            Action::Ask(ask)
        }
        ["request", "describe"] => {
            let describe: Describe = typed(fields()?)?;
            match (&describe.camera, &describe.image) {
                (None, None) => return Err(invalid("needs `camera` or `image`")),
                (Some(_), Some(_)) => {
                    return Err(invalid("has both `camera` and `image`: give one"));
                }
                _ => Action::Describe(describe),
            }
        }
        ["camera", id, "describe"] => {
            let mut describe: Describe = typed(fields()?)?;
            if describe.camera.is_some() || describe.image.is_some() {
                return Err(invalid(
                    "the topic names the camera: give neither `camera` nor `image`",
                ));
            }
            describe.camera = Some((*id).to_owned());
            Action::Describe(describe)
        }
        ["request", "transcribe"] => {
            let transcribe: Transcribe = typed(fields()?)?;
            if transcribe.audio.is_none() {
                return Err(invalid("needs `audio`, base64 of an audio file"));
            }
            Action::Transcribe(transcribe)
        }
        ["request", "cancel"] => {
            let cancel: CancelRequest = typed(fields()?)?;
            if cancel.job.is_some() == cancel.target.is_some() {
                return Err(invalid("needs either `job` or `target`"));
            }
            Action::Cancel(cancel)
        }
        ["request", name @ ("reload" | "stats")] => {
            nothing_else(&fields()?)?;
            if *name == "reload" {
                Action::Reload
            } else {
                Action::Stats
            }
        }
        ["mic", id, "listen"] => {
            if text.starts_with('{') {
                nothing_else(&fields()?)?;
            }
            Action::Listen {
                id: (*id).to_owned(),
            }
        }
        ["mic", id, "mute", "set"] => Action::Mute {
            id: (*id).to_owned(),
            muted: on_off(text)?,
        },
        ["camera", id, "enabled", "set"] => Action::Enable {
            id: (*id).to_owned(),
            enabled: on_off(text)?,
        },
        ["camera", id, "captions", "set"] => Action::Captions {
            id: (*id).to_owned(),
            enabled: on_off(text)?,
        },
        ["matformer", "set"] => {
            if text.is_empty() || text.len() > MOST_SLICE_BYTES || text.contains(char::is_control) {
                return Err(invalid("the payload is no name of a slice"));
            }
            Action::Matformer(text.to_owned())
        }
        ["max_tokens", "set"] => match text.parse() {
            Ok(tokens) if tokens > 0 => Action::MaxTokens(tokens),
            _ => return Err(invalid("the payload is no whole number above 0")),
        },
        _ => return Err(invalid("no such command")),
    })
}

fn question(text: &str) -> Result<Ask, Wrong> {
    if text.is_empty() {
        return Err(invalid("the question is empty"));
    }
    Ok(Ask {
        prompt: text.to_owned(),
        ..Ask::default()
    })
}

fn on_off(text: &str) -> Result<bool, Wrong> {
    match text {
        _ if text.eq_ignore_ascii_case("on") => Ok(true),
        _ if text.eq_ignore_ascii_case("off") => Ok(false),
        _ => Err(invalid("the payload is neither ON nor OFF")),
    }
}

/// The keys of a JSON object without `transaction`, which every request may have; an empty payload is an empty object.
fn fields(text: &str, transaction: &mut Option<String>) -> Result<Map<String, Value>, Wrong> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    if depth(text) > MOST_DEPTH {
        return Err(invalid(format!(
            "the JSON is nested deeper than {MOST_DEPTH}"
        )));
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| invalid(format!("the payload is not JSON: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err(invalid("the payload is no JSON object"));
    };
    match fields.remove("transaction") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if name.len() <= MOST_NAME_BYTES => {
            *transaction = Some(name);
        }
        Some(_) => {
            return Err(invalid(format!(
                "`transaction` is no string of up to {MOST_NAME_BYTES} bytes"
            )));
        }
    }
    Ok(fields)
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, Wrong> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| {
        // The message repeats a value of the wrong type, however long it is.
        let message: String = error.to_string().chars().take(300).collect();
        invalid(message)
    })
}

fn nothing_else(fields: &Map<String, Value>) -> Result<(), Wrong> {
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
    use super::*;
    use crate::config;

    fn receive(command: &str, payload: &[u8]) -> Result<Received, Refusal> {
        let config = config::Mqtt {
            node: "n".to_owned(),
            ..config::Mqtt::default()
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
        assert!(plain.plain && plain.request.transaction.is_none());
        assert_eq!(plain.request.id.len(), 26);
        let Action::Ask(ask) = plain.request.action else {
            panic!()
        };
        assert_eq!(ask.prompt, "What is the capital of France?");
        let json = receive(
            "request/ask",
            br#"{"prompt":"x","stream":true,"transaction":"t"}"#,
        )
        .unwrap();
        assert!(!json.plain);
        assert_eq!(json.request.transaction.as_deref(), Some("t"));
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
        let topics = Topics::new(&config::Mqtt::default());
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
