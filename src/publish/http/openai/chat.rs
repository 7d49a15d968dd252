//! `POST /v1/chat/completions`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Number, Value, json};

use super::fingerprint;
use super::messages::{self, Turn};
use crate::publish::http::answer::{
    Script, ask, event, is_cut, json as answered, streamed, timing, unix,
};
use crate::publish::http::fault::{Dialect, Fault};
use crate::publish::http::{Shared, body, names, tools};
use crate::report::chat::{Chat, Choosing, Shape, ToolCall};
use crate::report::{Payload, Reply};

/// What is asked. Keys that are not here change nothing that could be missed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    model: Option<String>,
    messages: Vec<Turn>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<Number>,
    stop: Option<Stop>,
    response_format: Option<Value>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    n: Option<i64>,
    logprobs: Option<Value>,
    top_logprobs: Option<i64>,
    reasoning_effort: Option<String>,
    chat_template_kwargs: Option<TemplateOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateOptions {
    enable_thinking: Option<bool>,
}

/// One text, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(in crate::publish::http) enum Stop {
    One(String),
    Many(Vec<String>),
}

/// More than any client gives.
const MAX_STOPS: usize = 16;
/// Longer ones end nothing.
const MAX_STOP_BYTES: usize = 1024;

impl Stop {
    /// The texts that end an answer.
    pub(in crate::publish::http) fn texts(stop: Option<Stop>) -> Result<Vec<String>, Fault> {
        let texts = match stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
        };
        if texts.len() > MAX_STOPS || texts.iter().any(|text| text.len() > MAX_STOP_BYTES) {
            let message = format!("stop: up to {MAX_STOPS} texts of up to {MAX_STOP_BYTES} bytes");
            return Err(Fault::invalid("stop", message));
        }
        Ok(texts)
    }
}

/// Tokens of an answer at most; none where the client leaves it open.
pub(in crate::publish::http) fn max_tokens(
    key: &str,
    asked: Option<i64>,
) -> Result<Option<usize>, Fault> {
    match asked {
        Some(0) => Err(Fault::invalid(
            key,
            format!("{key} is 0: ask for 1 or more, or leave it out"),
        )),
        Some(asked) => Ok(usize::try_from(asked).ok()),
        None => Ok(None),
    }
}

/// Any whole number is a seed.
pub(in crate::publish::http) fn seed(
    key: &str,
    asked: Option<Number>,
) -> Result<Option<u64>, Fault> {
    let whole = |number: Number| {
        let negative = number.as_i64().map(i64::cast_unsigned);
        let whole = number.as_u64().or(negative);
        whole.ok_or_else(|| {
            Fault::invalid(
                key,
                format!("{key} is {number}; it is a whole number of 64 bits"),
            )
        })
    };
    asked.map(whole).transpose()
}

/// Less than none is all.
pub(in crate::publish::http) fn top_k(asked: i64) -> usize {
    usize::try_from(asked).unwrap_or(0)
}

/// What the answer must be, as `response_format` says; `text.format` of `/v1/responses` has its schema one level higher.
pub(super) fn shape(format: Option<Value>, key: &str) -> Result<Option<Shape>, Fault> {
    let Some(mut format) = format.filter(|format| !format.is_null()) else {
        return Ok(None);
    };
    let mut schema = || {
        let within = format
            .get_mut("json_schema")
            .and_then(|named| named.get_mut("schema"));
        let found = within.map(Value::take);
        let found = found.or_else(|| format.get_mut("schema").map(Value::take));
        found.filter(|schema| !schema.is_null())
    };
    let schema = schema();
    match (format.get("type").and_then(Value::as_str), schema) {
        (Some("text"), _) => Ok(None),
        (Some("json_object" | "json_schema"), Some(schema)) => Ok(Some(Shape::Schema(schema))),
        (Some("json_object"), None) => Ok(Some(Shape::Object)),
        (Some("json_schema"), None) => {
            let place = format!("{key}.json_schema.schema");
            Err(Fault::invalid(&place, format!("{place} is missing")))
        }
        _ => {
            let place = format!("{key}.type");
            Err(Fault::invalid(
                &place,
                format!("{place} must be text, json_object or json_schema"),
            ))
        }
    }
}

/// Whether the model is to think, where it can be asked for that.
pub(in crate::publish::http) fn thinks(
    shared: &Shared,
    key: &str,
    asked: bool,
) -> Result<bool, Fault> {
    if asked && !shared.card.thinks.can() {
        let who = match shared.card.family.as_str() {
            "" => "the board without a model asks others, none of which thinks first",
            family => &format!("{family} answers without thinking first"),
        };
        let message = format!("{key}: {who}: leave it out");
        return Err(Fault::invalid(key, message));
    }
    Ok(asked)
}

pub(super) async fn complete(
    State(shared): State<Arc<Shared>>,
    body: Body,
) -> Result<Response, Fault> {
    let (asked, room) = body::json::<Asked>(&shared, body).await?;
    let chosen = names::choose(&shared.card, &shared.options, asked.model.as_deref())?;
    if asked.n.is_some_and(|n| n != 1) {
        return Err(Fault::invalid(
            "n",
            "n: one answer is given to a request: leave it out",
        ));
    }
    let log_probabilities = asked
        .logprobs
        .as_ref()
        .is_some_and(|asked| asked.as_bool() != Some(false) && !asked.is_null());
    if log_probabilities || asked.top_logprobs.is_some_and(|n| n > 0) {
        return Err(Fault::invalid(
            "logprobs",
            "logprobs: probabilities are not told: leave it out",
        ));
    }
    let several = asked.parallel_tool_calls != Some(false);
    let effort = asked.reasoning_effort.as_deref();
    let wants = asked
        .chat_template_kwargs
        .and_then(|options| options.enable_thinking);
    let wants = wants.unwrap_or(effort.is_some_and(|effort| !matches!(effort, "none" | "minimal")));
    // An effort is a wish; that the model is to think is an order.
    let thinks = match effort {
        Some(_) => wants && shared.card.thinks.can(),
        None => thinks(&shared, "chat_template_kwargs.enable_thinking", wants)?,
    };
    let stream = asked.stream == Some(true);
    let max_tokens = match asked.max_completion_tokens {
        Some(asked) => max_tokens("max_completion_tokens", Some(asked))?,
        None => max_tokens("max_tokens", asked.max_tokens)?,
    };
    let chat = Chat {
        messages: messages::of(asked.messages, shared.options.max_media)?,
        shape: shape(asked.response_format, "response_format")?,
        tools: tools::offered(asked.tools, asked.tool_choice.as_ref(), several)?,
        choosing: Choosing {
            temperature: asked.temperature,
            top_k: asked.top_k.map(top_k),
            top_p: asked.top_p,
            min_p: asked.min_p,
            repetition_penalty: asked.repetition_penalty.or(asked.repeat_penalty),
            seed: seed("seed", asked.seed)?,
        },
        stop: Stop::texts(asked.stop)?,
        max_tokens,
        thinks,
        matformer: chosen.matformer,
        soft_tokens: chosen.soft_tokens,
        stream,
    };
    let awaited = ask(&shared, Payload::Chat(Box::new(chat)))?;
    drop(room);
    let told = Completion {
        id: format!("chatcmpl-{}", awaited.job()),
        created: unix(SystemTime::now()),
        model: chosen.name,
        fingerprint: fingerprint(&shared),
        usage: asked
            .stream_options
            .and_then(|options| options.include_usage)
            == Some(true),
    };
    if stream {
        return Ok(streamed(awaited.begun().await?, told));
    }
    Ok(answered(&told.whole(&awaited.whole().await?)))
}

/// An answer on its way, with what all its pieces have in common.
struct Completion {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    /// Tokens are told in a chunk of their own.
    usage: bool,
}

fn finish(reply: &Reply) -> &'static str {
    match (reply.calls.is_empty(), is_cut(reply)) {
        (false, _) => "tool_calls",
        (true, true) => "length",
        (true, false) => "stop",
    }
}

fn usage(reply: &Reply) -> Value {
    let timing = timing(reply);
    json!({
        "prompt_tokens": timing.prompt_tokens,
        "completion_tokens": timing.tokens,
        "total_tokens": timing.prompt_tokens + timing.tokens,
        "prompt_tokens_details": { "cached_tokens": timing.cached_tokens },
    })
}

/// As llama.cpp's server tells them.
fn timings(reply: &Reply) -> Value {
    let timing = timing(reply);
    let read = timing.prompt_tokens.saturating_sub(timing.cached_tokens);
    let a_second = |tokens: usize, ms: f64| {
        if ms > 0.0 {
            tokens as f64 * 1e3 / ms
        } else {
            0.0
        }
    };
    let prompt_ms = timing.encode_ms + timing.prefill_ms;
    json!({
        "cache_n": timing.cached_tokens,
        "prompt_n": read,
        "prompt_ms": prompt_ms,
        "prompt_per_second": a_second(read, prompt_ms),
        "predicted_n": timing.tokens,
        "predicted_ms": timing.decode_ms,
        "predicted_per_second": a_second(timing.tokens, timing.decode_ms),
    })
}

impl Completion {
    fn whole(&self, reply: &Reply) -> Value {
        let mut message = json!({
            "role": "assistant",
            "content": reply.text.as_deref().unwrap_or_default(),
        });
        if let Some(thoughts) = &reply.thoughts {
            message["reasoning_content"] = thoughts.as_str().into();
        }
        if !reply.calls.is_empty() {
            let calls = reply.calls.iter().enumerate();
            message["tool_calls"] = calls.map(|(n, call)| self.call(n, call)).collect();
            if reply.text.as_deref().unwrap_or_default().is_empty() {
                message["content"] = Value::Null;
            }
        }
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": [{
                "index": 0,
                "message": message,
                "logprobs": null,
                "finish_reason": finish(reply),
            }],
            "usage": usage(reply),
            "timings": timings(reply),
        })
    }

    /// A call: its arguments are a text.
    fn call(&self, n: usize, call: &ToolCall) -> Value {
        let arguments = Value::Object(call.arguments.clone()).to_string();
        json!({
            "id": format!("{}-{n}", self.id.replacen("chatcmpl-", "call_", 1)),
            "type": "function",
            "function": { "name": call.name, "arguments": arguments },
        })
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        });
        if self.usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn delta(&self, delta: Value, finish: Option<&str>) -> Value {
        self.chunk(json!([{
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish,
        }]))
    }
}

impl Script for Completion {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn begin(&mut self) -> String {
        event(&self.delta(json!({ "role": "assistant", "content": "" }), None))
    }

    fn piece(&mut self, text: &str) -> String {
        event(&self.delta(json!({ "content": text }), None))
    }

    fn thoughts(&mut self, thoughts: &str) -> String {
        event(&self.delta(json!({ "reasoning_content": thoughts }), None))
    }

    fn idle(&mut self) -> String {
        ": keep-alive\n\n".to_owned()
    }

    fn end(&mut self, reply: &Reply, _: &str) -> String {
        let mut delta = json!({});
        if let Some(thoughts) = &reply.thoughts {
            delta["reasoning_content"] = thoughts.as_str().into();
        }
        // Clients read one call of a chunk.
        let mut all = String::new();
        for (n, call) in reply.calls.iter().enumerate() {
            let mut call = self.call(n, call);
            call["index"] = n.into();
            all.push_str(&event(&self.delta(json!({ "tool_calls": [call] }), None)));
        }
        let mut last = self.delta(delta, Some(finish(reply)));
        last["timings"] = timings(reply);
        all.push_str(&event(&last));
        if self.usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage(reply);
            all.push_str(&event(&chunk));
        }
        all + "data: [DONE]\n\n"
    }

    fn failed(&mut self, fault: &Fault) -> String {
        event(&fault.body(Dialect::OpenAi)) + "data: [DONE]\n\n"
    }
}
