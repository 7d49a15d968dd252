//! A response as it is told: whole, or in events that build it up.

use serde_json::{Value, json};

use crate::publish::http::answer::{Script, is_cut, timing};
use crate::publish::http::fault::Fault;
use crate::report::Reply;
use crate::report::chat::ToolCall;

/// A response on its way.
pub(super) struct Told {
    response: Value,
    /// The job, by which its parts are named.
    job: String,
    /// Its message has been begun.
    is_open: bool,
    events: u64,
}

impl Told {
    /// `response` is what is known before there is an answer.
    pub(super) fn new(response: Value, job: String) -> Told {
        Told {
            response,
            job,
            is_open: false,
            events: 0,
        }
    }

    fn event(&mut self, kind: &str, mut data: Value) -> String {
        data["type"] = kind.into();
        data["sequence_number"] = self.events.into();
        self.events += 1;
        format!("event: {kind}\ndata: {data}\n\n")
    }

    fn part(text: &str) -> Value {
        json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
    }

    /// The name of its message.
    fn item(&self) -> String {
        format!("msg_{}", self.job)
    }

    fn message(&self, status: &str, content: &[Value]) -> Value {
        json!({
            "id": self.item(), "type": "message", "role": "assistant", "status": status, "content": content,
        })
    }

    /// A call with its arguments, which are a text.
    fn call(&self, n: usize, call: &ToolCall, status: &str, arguments: &str) -> Value {
        json!({
            "id": format!("fc_{}-{n}", self.job), "type": "function_call", "status": status,
            "call_id": format!("call_{}-{n}", self.job), "name": call.name, "arguments": arguments,
        })
    }

    /// The response with its answer.
    pub(super) fn whole(&mut self, reply: &Reply, text: &str) -> Value {
        let timing = timing(reply);
        let is_cut = is_cut(reply) && reply.calls.is_empty();
        let status = if is_cut { "incomplete" } else { "completed" };
        self.response["status"] = status.into();
        if is_cut {
            self.response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        let mut output = Vec::new();
        if reply.calls.is_empty() || !text.is_empty() {
            output.push(self.message(status, &[Told::part(text)]));
        }
        let calls = reply.calls.iter().enumerate();
        output.extend(calls.map(|(n, call)| self.call(n, call, "completed", &arguments(call))));
        self.response["output"] = output.into();
        self.response["usage"] = json!({
            "input_tokens": timing.prompt_tokens,
            "input_tokens_details": { "cached_tokens": timing.cached_tokens },
            "output_tokens": timing.tokens,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": timing.prompt_tokens + timing.tokens,
        });
        self.response.clone()
    }

    /// The beginning of its message, once.
    fn open(&mut self) -> String {
        if std::mem::replace(&mut self.is_open, true) {
            return String::new();
        }
        let item = self.message("in_progress", &[]);
        let id = self.item();
        [
            self.event("response.output_item.added", json!({ "output_index": 0, "item": item })),
            self.event(
                "response.content_part.added",
                json!({ "item_id": id, "output_index": 0, "content_index": 0, "part": Told::part("") }),
            ),
        ]
        .concat()
    }

    /// The end of its message.
    fn close(&mut self, item: &Value, text: &str) -> String {
        let id = self.item();
        [
            self.event(
                "response.output_text.done",
                json!({ "item_id": id, "output_index": 0, "content_index": 0, "text": text, "logprobs": [] }),
            ),
            self.event(
                "response.content_part.done",
                json!({ "item_id": id, "output_index": 0, "content_index": 0, "part": Told::part(text) }),
            ),
            self.event("response.output_item.done", json!({ "output_index": 0, "item": item })),
        ]
        .concat()
    }

    /// A call from its beginning to its end, as the item at `at`.
    fn called(&mut self, n: usize, call: &ToolCall, at: usize) -> String {
        let arguments = arguments(call);
        let begun = self.call(n, call, "in_progress", "");
        let ended = self.call(n, call, "completed", &arguments);
        let id = begun["id"].clone();
        [
            self.event("response.output_item.added", json!({ "output_index": at, "item": begun })),
            self.event(
                "response.function_call_arguments.delta",
                json!({ "item_id": id, "output_index": at, "delta": arguments }),
            ),
            self.event(
                "response.function_call_arguments.done",
                json!({ "item_id": id, "output_index": at, "name": call.name, "arguments": arguments }),
            ),
            self.event("response.output_item.done", json!({ "output_index": at, "item": ended })),
        ]
        .concat()
    }
}

fn arguments(call: &ToolCall) -> String {
    Value::Object(call.arguments.clone()).to_string()
}

impl Script for Told {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn begin(&mut self) -> String {
        let response = self.response.clone();
        let created = self.event("response.created", json!({ "response": response }));
        created + &self.event("response.in_progress", json!({ "response": response }))
    }

    fn piece(&mut self, text: &str) -> String {
        let id = self.item();
        let open = self.open();
        open + &self.event(
            "response.output_text.delta",
            json!({ "item_id": id, "output_index": 0, "content_index": 0, "delta": text, "logprobs": [] }),
        )
    }

    fn idle(&mut self) -> String {
        ": keep-alive\n\n".to_owned()
    }

    fn end(&mut self, reply: &Reply, text: &str) -> String {
        let response = self.whole(reply, text);
        let mut all = String::new();
        let messages = usize::from(response["output"][0]["type"] == "message");
        if messages > 0 {
            all.push_str(&self.open());
            all.push_str(&self.close(&response["output"][0], text));
        }
        for (n, call) in reply.calls.iter().enumerate() {
            all.push_str(&self.called(n, call, messages + n));
        }
        let last = match response["status"] == "incomplete" {
            true => "response.incomplete",
            false => "response.completed",
        };
        all + &self.event(last, json!({ "response": response }))
    }

    fn failed(&mut self, fault: &Fault) -> String {
        self.response["status"] = "failed".into();
        self.response["error"] = json!({ "code": "server_error", "message": fault.message });
        let response = self.response.clone();
        let error = json!({ "code": fault.code, "message": fault.message, "param": fault.param });
        self.event("error", error) + &self.event("response.failed", json!({ "response": response }))
    }
}
