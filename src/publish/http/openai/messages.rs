//! Messages as OpenAI's clients write them: text, or parts of text, pictures and sound.

use serde::Deserialize;
use serde_json::Value;

use crate::guard::harmless::short;
use crate::publish::http::fault::Fault;
use crate::publish::http::media;
use crate::publish::http::tools::{Calls, is_media, text_of};
use crate::report::chat::{Message, Said, Speaker};

/// A message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Turn {
    role: Option<String>,
    content: Value,
    tool_calls: Option<Vec<Value>>,
    function_call: Option<Value>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

/// The messages of a request, with at most so many pictures and sounds.
pub(super) fn of(turns: Vec<Turn>, max_media: usize) -> Result<Vec<Message>, Fault> {
    let mut messages = Vec::with_capacity(turns.len());
    let mut calls = Calls::default();
    for (at, turn) in turns.into_iter().enumerate() {
        let at = format!("messages[{at}]");
        messages.push(message(turn, &at, &mut calls)?);
    }
    check(&messages, "messages", max_media)?;
    Ok(messages)
}

/// Looks whether somebody asks something, and does not show too much.
pub(in crate::publish::http) fn check(
    messages: &[Message],
    key: &str,
    max_media: usize,
) -> Result<(), Fault> {
    let says = |said: &Said| !matches!(said, Said::Text(text) if text.trim().is_empty());
    let asks =
        |message: &Message| message.speaker != Speaker::System && message.said.iter().any(says);
    if !messages.iter().any(asks) {
        let message =
            format!("{key}: nothing is asked: there is no message of a user that says something");
        return Err(Fault::invalid(key, message));
    }
    let media = messages.iter().flat_map(|message| &message.said);
    let media = media.filter(|said| is_media(said)).count();
    if media > max_media {
        let message =
            format!("{key}: {media} pictures and sounds; http.max_media allows {max_media}");
        return Err(Fault::invalid(key, message));
    }
    Ok(())
}

fn message(turn: Turn, at: &str, calls: &mut Calls) -> Result<Message, Fault> {
    let role = turn.role.unwrap_or_default();
    let mut said = content(turn.content, &format!("{at}.content"))?;
    let speaker = match role.as_str() {
        "system" | "developer" => Speaker::System,
        "user" => Speaker::User,
        "assistant" => {
            for (n, call) in turn.tool_calls.iter().flatten().enumerate() {
                said.push(calls.called(call, &format!("{at}.tool_calls[{n}]"))?);
            }
            if let Some(call) = turn.function_call.filter(|call| !call.is_null()) {
                said.push(calls.called(&call, &format!("{at}.function_call"))?);
            }
            Speaker::Assistant
        }
        "tool" | "function" => {
            let text = text_of(said, &format!("{at}.content"))?;
            let (id, name) = (turn.tool_call_id.as_deref(), turn.name.as_deref());
            said = vec![calls.result(id, name, &text, at)?];
            Speaker::Assistant
        }
        other => {
            let place = format!("{at}.role");
            let message = format!(
                "{place} is {:?}; it is one of system, developer, user, assistant, tool",
                short(other)
            );
            return Err(Fault::invalid(&place, message));
        }
    };
    Ok(Message { speaker, said })
}

/// What is said: a text, a list of parts, or nothing.
pub(super) fn content(value: Value, at: &str) -> Result<Vec<Said>, Fault> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![Said::Text(text)]),
        Value::Array(parts) => {
            let parts = parts.into_iter().enumerate();
            parts
                .map(|(n, value)| part(value, &format!("{at}[{n}]")))
                .collect()
        }
        other => Err(Fault::invalid(
            at,
            format!(
                "{at} is {}; it is a text or a list of parts",
                short(&other.to_string())
            ),
        )),
    }
}

fn part(mut part: Value, at: &str) -> Result<Said, Fault> {
    if let Value::String(text) = part {
        return Ok(Said::Text(text));
    }
    let mut text = |path: &[&str]| {
        let mut found = &mut part;
        for key in path {
            found = found.get_mut(*key)?;
        }
        match found.take() {
            Value::String(text) => Some(text),
            _ => None,
        }
    };
    let need = |found: Option<String>, key: &str| {
        let place = format!("{at}.{key}");
        found.ok_or_else(|| Fault::invalid(&place, format!("{place} is missing, or no text")))
    };
    let kind = need(text(&["type"]), "type")?;
    match kind.as_str() {
        "text" | "input_text" | "output_text" => need(text(&["text"]), "text").map(Said::Text),
        "refusal" => need(text(&["refusal"]), "refusal").map(Said::Text),
        "image_url" => {
            let url = text(&["image_url", "url"]).or_else(|| text(&["image_url"]));
            let url = need(url, "image_url.url")?;
            media::picture(&url, &format!("{at}.image_url.url"))
        }
        "input_image" => {
            let url = text(&["image_url"]).or_else(|| text(&["image_url", "url"]));
            media::picture(&need(url, "image_url")?, &format!("{at}.image_url"))
        }
        "input_audio" => {
            let data = need(text(&["input_audio", "data"]), "input_audio.data")?;
            media::base64(&data, &format!("{at}.input_audio.data")).map(Said::Sound)
        }
        other => {
            let place = format!("{at}.type");
            let message = format!(
                "{place} is {:?}; it is one of text, image_url, input_audio",
                short(other)
            );
            Err(Fault::invalid(&place, message))
        }
    }
}
