//! A response as it is told: whole, or in events that build it up.

use serde_json::{Value, json};

use crate::publish::http::answer::{Script, is_cut, timing};
use crate::publish::http::fault::Fault;
use crate::report::Reply;

/// A response on its way.
pub(super) struct Told {
    response: Value,
    /// The name of its message.
    item: String,
    events: u64,
}

impl Told {
    /// `response` is what is known before there is an answer.
    pub(super) fn new(response: Value, item: String) -> Told {
        Told {
            response,
            item,
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

    fn message(&self, status: &str, content: &[Value]) -> Value {
        json!({
            "id": self.item, "type": "message", "role": "assistant", "status": status, "content": content,
        })
    }

    /// The response with its answer.
    pub(super) fn whole(&mut self, reply: &Reply, text: &str) -> Value {
        let timing = timing(reply);
        let status = if is_cut(reply) {
            "incomplete"
        } else {
            "completed"
        };
        self.response["status"] = status.into();
        if is_cut(reply) {
            self.response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        self.response["output"] = json!([self.message(status, &[Told::part(text)])]);
        self.response["usage"] = json!({
            "input_tokens": timing.prompt_tokens,
            "input_tokens_details": { "cached_tokens": timing.cached_tokens },
            "output_tokens": timing.tokens,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": timing.prompt_tokens + timing.tokens,
        });
        self.response.clone()
    }
}

impl Script for Told {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn begin(&mut self) -> String {
        let response = self.response.clone();
        let item = self.message("in_progress", &[]);
        let id = self.item.clone();
        [
            self.event("response.created", json!({ "response": response })),
            self.event("response.in_progress", json!({ "response": response })),
            self.event("response.output_item.added", json!({ "output_index": 0, "item": item })),
            self.event(
                "response.content_part.added",
                json!({ "item_id": id, "output_index": 0, "content_index": 0, "part": Told::part("") }),
            ),
        ]
        .concat()
    }

    fn piece(&mut self, text: &str) -> String {
        let id = self.item.clone();
        self.event(
            "response.output_text.delta",
            json!({ "item_id": id, "output_index": 0, "content_index": 0, "delta": text, "logprobs": [] }),
        )
    }

    fn idle(&mut self) -> String {
        ": keep-alive\n\n".to_owned()
    }

    fn end(&mut self, reply: &Reply, text: &str) -> String {
        let id = self.item.clone();
        let response = self.whole(reply, text);
        let item = response["output"][0].clone();
        let last = match is_cut(reply) {
            true => "response.incomplete",
            false => "response.completed",
        };
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
            self.event(last, json!({ "response": response })),
        ]
        .concat()
    }

    fn failed(&mut self, fault: &Fault) -> String {
        self.response["status"] = "failed".into();
        self.response["error"] = json!({ "code": "server_error", "message": fault.message });
        let response = self.response.clone();
        let error = json!({ "code": fault.code, "message": fault.message, "param": fault.param });
        self.event("error", error) + &self.event("response.failed", json!({ "response": response }))
    }
}
