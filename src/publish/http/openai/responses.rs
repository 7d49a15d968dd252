//! `POST /v1/responses`: the newer form of a question, as OpenAI's clients and n8n ask it. Nothing is kept between two of them.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::{max_tokens, shape};
use super::messages;
use super::responses_stream::Told;
use crate::guard::harmless::short;
use crate::publish::http::answer::{ask, json as answered, streamed, unix};
use crate::publish::http::fault::Fault;
use crate::publish::http::tools::{self, Calls, text_of};
use crate::publish::http::{Shared, body, names};
use crate::report::Payload;
use crate::report::chat::{Chat, Choosing, Message, Said, Speaker};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    model: Option<String>,
    input: Value,
    instructions: Option<String>,
    stream: Option<bool>,
    max_output_tokens: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    text: Option<Text>,
    reasoning: Option<Reasoning>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    previous_response_id: Option<String>,
    conversation: Option<Value>,
    background: Option<bool>,
    metadata: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Text {
    format: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reasoning {
    effort: Option<String>,
}

pub(super) async fn respond(
    State(shared): State<Arc<Shared>>,
    body: Body,
) -> Result<Response, Fault> {
    let (asked, room) = body::json::<Asked>(&shared, body).await?;
    let chosen = names::choose(&shared.card, &shared.options, asked.model.as_deref())?;
    let refuse = |key: &str, why: &str| Fault::invalid(key, format!("{key}: {why}"));
    let nothing_kept = "nothing is kept between two requests: send what was said so far as input";
    if asked.previous_response_id.is_some() {
        return Err(refuse("previous_response_id", nothing_kept));
    }
    if asked.conversation.is_some_and(|named| !named.is_null()) {
        return Err(refuse("conversation", nothing_kept));
    }
    if asked.background == Some(true) {
        return Err(refuse("background", "answers are waited for: leave it out"));
    }
    let several = asked.parallel_tool_calls != Some(false);
    let shown_tools = json!(asked.tools.as_deref().unwrap_or_default());
    let tools = tools::offered(asked.tools, asked.tool_choice.as_ref(), several)?;
    let mut said = Vec::new();
    if let Some(text) = &asked.instructions {
        said.push(Message {
            speaker: Speaker::System,
            said: vec![Said::Text(text.clone())],
        });
    }
    said.extend(input(asked.input)?);
    messages::check(&said, "input", shared.options.max_media)?;
    let effort = asked.reasoning.and_then(|reasoning| reasoning.effort);
    let wants = effort.is_some_and(|effort| !matches!(effort.as_str(), "none" | "minimal"));
    let stream = asked.stream == Some(true);
    let chat = Chat {
        messages: said,
        shape: shape(asked.text.and_then(|text| text.format), "text.format")?,
        tools,
        choosing: Choosing {
            temperature: asked.temperature,
            top_p: asked.top_p,
            ..Choosing::default()
        },
        max_tokens: max_tokens("max_output_tokens", asked.max_output_tokens)?,
        thinks: wants && shared.card.thinks.can(),
        matformer: chosen.matformer,
        soft_tokens: chosen.soft_tokens,
        stream,
        ..Chat::default()
    };
    let awaited = ask(&shared, Payload::Chat(Box::new(chat)))?;
    drop(room);
    let job = awaited.job().to_owned();
    let mut told = Told::new(
        json!({
            "id": format!("resp_{job}"),
            "object": "response",
            "created_at": unix(SystemTime::now()),
            "status": "in_progress",
            "background": false,
            "error": null,
            "incomplete_details": null,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "model": chosen.name,
            "output": [],
            "parallel_tool_calls": several,
            "previous_response_id": null,
            "reasoning": { "effort": null, "summary": null },
            "store": false,
            "temperature": asked.temperature,
            "text": { "format": { "type": "text" } },
            "tool_choice": asked.tool_choice.unwrap_or_else(|| "auto".into()),
            "tools": shown_tools,
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": null,
            "metadata": asked.metadata.unwrap_or_else(|| json!({})),
        }),
        job,
    );
    if stream {
        return Ok(streamed(awaited.begun().await?, told));
    }
    let reply = awaited.whole().await?;
    Ok(answered(
        &told.whole(&reply, reply.text.as_deref().unwrap_or_default()),
    ))
}

/// What is asked: a text, or what was said so far.
fn input(input: Value) -> Result<Vec<Message>, Fault> {
    let items = match input {
        Value::String(text) => {
            let said = vec![Said::Text(text)];
            let speaker = Speaker::User;
            return Ok(vec![Message { speaker, said }]);
        }
        Value::Array(items) => items,
        _ => {
            return Err(Fault::invalid(
                "input",
                "input is missing; it is a text or a list of messages",
            ));
        }
    };
    let mut calls = Calls::default();
    let items = items.into_iter().enumerate();
    let items = items.map(|(at, item)| message(item, &format!("input[{at}]"), &mut calls));
    Ok(items
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn message(mut item: Value, at: &str, calls: &mut Calls) -> Result<Option<Message>, Fault> {
    let kind = item
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("message")
        .to_owned();
    let (speaker, said) = match kind.as_str() {
        "message" => {
            let role = item.get("role").and_then(Value::as_str).unwrap_or("user");
            let speaker = match role {
                "system" | "developer" => Speaker::System,
                "user" => Speaker::User,
                "assistant" => Speaker::Assistant,
                other => {
                    let place = format!("{at}.role");
                    let message = format!(
                        "{place} is {:?}; it is one of system, developer, user, assistant",
                        short(other)
                    );
                    return Err(Fault::invalid(&place, message));
                }
            };
            let content = item.get_mut("content").map(Value::take).unwrap_or_default();
            (
                speaker,
                messages::content(content, &format!("{at}.content"))?,
            )
        }
        // Thoughts are no part of what was said.
        "reasoning" => return Ok(None),
        "function_call" => (Speaker::Assistant, vec![calls.called(&item, at)?]),
        "function_call_output" => {
            let place = format!("{at}.output");
            let output = match item.get_mut("output").map(Value::take) {
                Some(object @ Value::Object(_)) => object.to_string(),
                output => text_of(
                    messages::content(output.unwrap_or_default(), &place)?,
                    &place,
                )?,
            };
            let id = item.get("call_id").and_then(Value::as_str);
            (
                Speaker::Assistant,
                vec![calls.result(id, None, &output, at)?],
            )
        }
        other => {
            let place = format!("{at}.type");
            let message = format!(
                "{place} is {:?}; it is message, or what came of a call",
                short(other)
            );
            return Err(Fault::invalid(&place, message));
        }
    };
    Ok(Some(Message { speaker, said }))
}
