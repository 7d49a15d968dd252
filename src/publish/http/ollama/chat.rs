//! `POST /api/chat` and `POST /api/generate`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Number, Value, json};

use super::model::time;
use crate::guard::harmless::short;
use crate::publish::http::answer::{Script, ask, is_cut, json as answered, streamed, timing};
use crate::publish::http::fault::{Dialect, Fault};
use crate::publish::http::openai::{Stop, check_messages, max_tokens, seed, thinks, top_k};
use crate::publish::http::tools::{self, Calls};
use crate::publish::http::{Shared, body, media, names};
use crate::report::chat::{Chat, Choosing, Message, Said, Shape, Speaker, ToolCall};
use crate::report::{Payload, Reply};

/// What is asked, of either; some keys are of one alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    model: Option<String>,
    stream: Option<bool>,
    format: Option<Value>,
    options: Option<Options>,
    think: Option<Value>,
    keep_alive: Option<Value>,
    messages: Option<Vec<Turn>>,
    tools: Option<Vec<Value>>,
    prompt: Option<String>,
    system: Option<String>,
    suffix: Option<String>,
    images: Option<Vec<String>>,
    raw: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    temperature: Option<f32>,
    top_k: Option<i64>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    seed: Option<Number>,
    num_predict: Option<i64>,
    stop: Option<Stop>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Turn {
    role: Option<String>,
    content: Option<String>,
    images: Option<Vec<String>>,
    tool_calls: Option<Vec<Value>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

impl Turn {
    fn message(self, at: &str, calls: &mut Calls) -> Result<Message, Fault> {
        let speaker = match self.role.as_deref().unwrap_or_default() {
            "system" => Speaker::System,
            "user" => Speaker::User,
            "assistant" => Speaker::Assistant,
            "tool" => {
                let (id, name) = (self.tool_call_id.as_deref(), self.tool_name.as_deref());
                let content = self.content.unwrap_or_default();
                let result = calls.result(id, name, &content, at.trim_end_matches('.'))?;
                return Ok(Message {
                    speaker: Speaker::Assistant,
                    said: vec![result],
                });
            }
            other => {
                let place = format!("{at}.role");
                let message = format!(
                    "{place} is {:?}; it is one of system, user, assistant, tool",
                    short(other)
                );
                return Err(Fault::invalid(&place, message));
            }
        };
        // As Ollama has it, and as the models were trained: what is looked at and listened to comes first.
        let mut said = shown(self.images, at)?;
        said.extend(self.content.map(Said::Text));
        for (n, call) in self.tool_calls.iter().flatten().enumerate() {
            said.push(calls.called(call, &format!("{at}tool_calls[{n}]"))?);
        }
        Ok(Message { speaker, said })
    }
}

/// Pictures and sounds of a message.
fn shown(images: Option<Vec<String>>, at: &str) -> Result<Vec<Said>, Fault> {
    let images = images.unwrap_or_default().into_iter().enumerate();
    images
        .map(|(n, image)| media::either(&image, &format!("{at}images[{n}]")))
        .collect()
}

/// What the answer must be.
fn shape(format: Option<Value>) -> Result<Option<Shape>, Fault> {
    match format {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(Value::String(name)) if name == "json" => Ok(Some(Shape::Object)),
        Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Some(Shape::Schema(schema))),
        Some(other) => Err(Fault::invalid(
            "format",
            format!(
                "format is {}; it is \"json\" or a JSON schema",
                short(&other.to_string())
            ),
        )),
    }
}

/// Whether thoughts are wanted: `true`, or how hard it is to think.
fn wants_thoughts(think: Option<&Value>) -> Result<bool, Fault> {
    match think {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(Value::String(level)) => match level.as_str() {
            "" | "none" | "false" => Ok(false),
            "low" | "medium" | "high" | "true" => Ok(true),
            other => Err(Fault::invalid(
                "think",
                format!("think is {:?}; it is true or false", short(other)),
            )),
        },
        Some(other) => Err(Fault::invalid(
            "think",
            format!(
                "think is {}; it is true or false",
                short(&other.to_string())
            ),
        )),
    }
}

impl Asked {
    /// Whether a client only wants the model to be there, or to go: it has no question.
    fn loads(&self, shared: &Shared, form: Form) -> Result<Response, Fault> {
        let chosen = names::choose(&shared.card, &shared.options, self.model.as_deref())?;
        let goes = self.keep_alive.as_ref().is_some_and(|wish| match wish {
            Value::String(text) => text.trim_end_matches(|c: char| c.is_alphabetic()) == "0",
            wish => wish.as_f64() == Some(0.0),
        });
        let mut line = form.line(&chosen.name, "");
        line["done"] = true.into();
        line["done_reason"] = if goes { "unload" } else { "load" }.into();
        Ok(answered(&line))
    }

    async fn answer(
        self,
        shared: &Shared,
        messages: Vec<Message>,
        form: Form,
        room: body::Room,
    ) -> Result<Response, Fault> {
        let chosen = names::choose(&shared.card, &shared.options, self.model.as_deref())?;
        check_messages(&messages, form.key(), shared.options.max_media)?;
        let stream = self.stream != Some(false);
        let options = self.options.unwrap_or_default();
        let wants = wants_thoughts(self.think.as_ref())?;
        let chat = Chat {
            messages,
            shape: shape(self.format)?,
            tools: tools::offered(self.tools, None, true)?,
            choosing: Choosing {
                temperature: options.temperature,
                top_k: options.top_k.map(top_k),
                top_p: options.top_p,
                min_p: options.min_p,
                repetition_penalty: options.repeat_penalty,
                seed: seed("options.seed", options.seed)?,
            },
            stop: Stop::texts(options.stop)?,
            max_tokens: max_tokens("options.num_predict", options.num_predict)?,
            thinks: thinks(shared, "think", wants)?,
            matformer: chosen.matformer,
            soft_tokens: chosen.soft_tokens,
            stream,
        };
        let awaited = ask(shared, Payload::Chat(Box::new(chat)))?;
        drop(room);
        let mut script = Lines {
            model: chosen.name,
            form,
        };
        if stream {
            return Ok(streamed(awaited.begun().await?, script));
        }
        let reply = awaited.whole().await?;
        let text = reply.text.clone().unwrap_or_default();
        let mut line = script.last(&reply, &text);
        if !reply.calls.is_empty() {
            line["message"]["tool_calls"] = reply.calls.iter().map(call).collect();
        }
        Ok(answered(&line))
    }
}

pub(super) async fn chat(State(shared): State<Arc<Shared>>, body: Body) -> Result<Response, Fault> {
    let (mut asked, room) = body::json::<Asked>(&shared, body).await?;
    let turns = asked.messages.take().unwrap_or_default();
    if turns.is_empty() {
        return asked.loads(&shared, Form::Chat);
    }
    let turns = turns.into_iter().enumerate();
    let mut calls = Calls::default();
    let messages = turns.map(|(at, turn)| turn.message(&format!("messages[{at}]."), &mut calls));
    let messages = messages.collect::<Result<_, _>>()?;
    asked.answer(&shared, messages, Form::Chat, room).await
}

pub(super) async fn generate(
    State(shared): State<Arc<Shared>>,
    body: Body,
) -> Result<Response, Fault> {
    let (mut asked, room) = body::json::<Asked>(&shared, body).await?;
    if asked.raw == Some(true) {
        return Err(Fault::invalid(
            "raw",
            "raw: prompts are written as the model was trained; leave it out",
        ));
    }
    if asked
        .suffix
        .as_ref()
        .is_some_and(|suffix| !suffix.is_empty())
    {
        return Err(Fault::invalid(
            "suffix",
            "suffix: the model does not insert: leave it out",
        ));
    }
    // Tools are of conversations.
    asked.tools = None;
    let prompt = asked.prompt.take().unwrap_or_default();
    let mut said: Vec<Said> = shown(asked.images.take(), "")?;
    if said.is_empty() && prompt.is_empty() {
        return asked.loads(&shared, Form::Generate);
    }
    said.push(Said::Text(prompt));
    let system = asked
        .system
        .take()
        .filter(|text| !text.is_empty())
        .map(|text| Message {
            speaker: Speaker::System,
            said: vec![Said::Text(text)],
        });
    let user = Message {
        speaker: Speaker::User,
        said,
    };
    let messages = system.into_iter().chain([user]).collect();
    asked.answer(&shared, messages, Form::Generate, room).await
}

/// A call: its arguments are an object.
fn call(call: &ToolCall) -> Value {
    json!({ "function": { "name": call.name, "arguments": call.arguments } })
}

/// Which of the two was asked.
#[derive(Clone, Copy)]
enum Form {
    Chat,
    Generate,
}

impl Form {
    fn key(self) -> &'static str {
        match self {
            Form::Chat => "messages",
            Form::Generate => "prompt",
        }
    }

    /// A line with a piece of text.
    fn line(self, model: &str, text: &str) -> Value {
        let mut line = json!({ "model": model, "created_at": time(SystemTime::now()) });
        match self {
            Form::Chat => line["message"] = json!({ "role": "assistant", "content": text }),
            Form::Generate => line["response"] = text.into(),
        }
        line["done"] = false.into();
        line
    }

    /// What the model thinks, in a line.
    fn put_thoughts(self, line: &mut Value, thoughts: &str) {
        let place = match self {
            Form::Chat => &mut line["message"]["thinking"],
            Form::Generate => &mut line["thinking"],
        };
        *place = thoughts.into();
    }
}

/// An answer as lines of JSON.
struct Lines {
    model: String,
    form: Form,
}

impl Lines {
    /// The last line, with `text`.
    fn last(&mut self, reply: &Reply, text: &str) -> Value {
        let timing = timing(reply);
        let ns = |ms: f64| (ms * 1e6) as u64;
        let mut line = self.form.line(&self.model, text);
        if let Some(thoughts) = &reply.thoughts {
            self.form.put_thoughts(&mut line, thoughts);
        }
        line["done"] = true.into();
        line["done_reason"] = if is_cut(reply) { "length" } else { "stop" }.into();
        line["total_duration"] = ns(timing.latency_ms).into();
        line["load_duration"] = ns(timing.load_ms).into();
        line["prompt_eval_count"] = timing.prompt_tokens.into();
        line["prompt_eval_duration"] = ns(timing.encode_ms + timing.prefill_ms).into();
        line["eval_count"] = timing.tokens.into();
        line["eval_duration"] = ns(timing.decode_ms).into();
        line
    }
}

impl Script for Lines {
    const CONTENT_TYPE: &'static str = "application/x-ndjson";

    fn begin(&mut self) -> String {
        String::new()
    }

    fn piece(&mut self, text: &str) -> String {
        format!("{}\n", self.form.line(&self.model, text))
    }

    fn thoughts(&mut self, thoughts: &str) -> String {
        let mut line = self.form.line(&self.model, "");
        self.form.put_thoughts(&mut line, thoughts);
        format!("{line}\n")
    }

    fn idle(&mut self) -> String {
        self.piece("")
    }

    fn end(&mut self, reply: &Reply, _: &str) -> String {
        let mut all = String::new();
        for called in &reply.calls {
            let mut line = self.form.line(&self.model, "");
            line["message"]["tool_calls"] = json!([call(called)]);
            all.push_str(&format!("{line}\n"));
        }
        all + &format!("{}\n", self.last(reply, ""))
    }

    fn failed(&mut self, fault: &Fault) -> String {
        format!("{}\n", fault.body(Dialect::Ollama))
    }
}
