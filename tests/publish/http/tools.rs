//! Tools in both protocols: what is offered, what is called, and what came of it.

use gemmad::report::chat::{Said, ToolCall, ToolChoice};
use gemmad::report::{JobState, JobUpdate, Payload, Reply, Request};
use serde_json::{Value, json};

use super::{Bench, reply};

fn call(name: &str, arguments: Value) -> ToolCall {
    ToolCall {
        name: name.to_owned(),
        arguments: arguments.as_object().unwrap().clone(),
    }
}

fn two_calls() -> Vec<ToolCall> {
    vec![
        call("light", json!({ "name": "Lámpara \"1\"", "level": 7 })),
        call("time", json!({})),
    ]
}

/// Calls two tools, and says so where it is asked to tell a text as well.
fn calling(request: &Request) -> Vec<JobUpdate> {
    let Payload::Chat(chat) = &request.payload else {
        return Vec::new();
    };
    let text = if chat.max_tokens == Some(9) {
        "I will."
    } else {
        ""
    };
    let end = Reply {
        calls: two_calls(),
        ..reply(text)
    };
    let mut updates = vec![JobUpdate::new(&request.header, JobState::Running)];
    if chat.stream && !text.is_empty() {
        updates.push(JobUpdate {
            partial: Some(text.to_owned()),
            ..JobUpdate::new(&request.header, JobState::Running)
        });
    }
    updates.push(JobUpdate::end(&request.header, Ok(end)));
    updates
}

fn tools() -> Value {
    json!([
        { "type": "function", "function": { "name": "light", "description": "Sets a light", "parameters": {
            "type": "object", "properties": { "name": { "type": "string" }, "level": { "type": "integer" } },
        }}},
        { "type": "function", "function": { "name": "time" } },
    ])
}

fn asked() -> Value {
    json!({ "model": "demo", "messages": [{ "role": "user", "content": "Light on" }], "tools": tools() })
}

fn with(key: &str, value: Value) -> Value {
    let mut asked = asked();
    asked[key] = value;
    asked
}

#[test]
fn arguments_are_a_text_for_openai_and_an_object_for_ollama() {
    let bench = Bench::with(|_| (), calling);
    let answer = bench.post("/v1/chat/completions", &asked()).json();
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!((calls.len(), &calls[0]["type"]), (2, &json!("function")));
    let arguments = calls[0]["function"]["arguments"].as_str().unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(arguments).unwrap(),
        json!({ "name": "Lámpara \"1\"", "level": 7 })
    );
    assert_eq!(
        calls[1]["function"],
        json!({ "name": "time", "arguments": "{}" })
    );
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let answer = bench
        .post("/api/chat", &with("stream", json!(false)))
        .json();
    assert_eq!(answer["done_reason"], "stop");
    let calls = answer["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(
        calls[0]["function"],
        json!({ "name": "light", "arguments": { "name": "Lámpara \"1\"", "level": 7 } })
    );
    assert_eq!(calls[1]["function"]["arguments"], json!({}));
}

#[test]
fn each_call_is_a_chunk_of_its_own_behind_the_text() {
    let bench = Bench::with(|_| (), calling);
    let mut streamed = with("stream", json!(true));
    streamed["max_tokens"] = json!(9);
    let mut events = bench.post("/v1/chat/completions", &streamed).events();
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events
        .iter()
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let deltas: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"])
        .collect();
    assert_eq!(deltas[0]["role"], "assistant");
    assert_eq!(deltas[1]["content"], "I will.");
    for (n, delta) in deltas[2..4].iter().enumerate() {
        let calls = delta["tool_calls"].as_array().unwrap();
        assert_eq!((calls.len(), &calls[0]["index"]), (1, &json!(n)));
        assert!(calls[0]["function"]["arguments"].is_string() && calls[0]["id"].is_string());
    }
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(chunks.len(), 5);

    let lines = bench.post("/api/chat", &asked()).text();
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    for (line, name) in lines.iter().zip(["light", "time"]) {
        let calls = line["message"]["tool_calls"].as_array().unwrap();
        assert_eq!(
            (calls.len(), &calls[0]["function"]["name"]),
            (1, &json!(name))
        );
        assert_eq!(line["done"], false);
    }
    assert!(lines[2]["done"] == true && lines[2]["message"].get("tool_calls").is_none());
}

#[test]
fn responses_have_calls_as_items() {
    let bench = Bench::with(|_| (), calling);
    let mut asked = json!({ "model": "demo", "input": "Light on", "tools": [
        { "type": "function", "name": "light", "strict": true, "parameters": { "type": "object", "properties": {} } },
    ], "tool_choice": { "type": "function", "name": "light" }, "parallel_tool_calls": false });
    let whole = bench.post("/v1/responses", &asked).json();
    let output = whole["output"].as_array().unwrap();
    assert_eq!(
        (output.len(), &output[0]["type"]),
        (2, &json!("function_call"))
    );
    assert!(output[0]["arguments"].is_string() && output[0]["call_id"].is_string());
    let chat = bench.chats().remove(0);
    let offered = chat.tools.unwrap();
    assert_eq!(
        (offered.choice, offered.several),
        (ToolChoice::Named("light".to_owned()), false)
    );

    asked["stream"] = json!(true);
    let events = bench.post("/v1/responses", &asked).events();
    let events: Vec<Value> = events
        .iter()
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let of_a_call = [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ];
    let wanted = [
        &["response.created", "response.in_progress"][..],
        &of_a_call,
        &of_a_call,
        &["response.completed"],
    ];
    assert_eq!(kinds, wanted.concat());
    assert_eq!(
        (&events[2]["output_index"], &events[6]["output_index"]),
        (&json!(0), &json!(1))
    );

    // The round behind it.
    let round = json!({ "model": "demo", "input": [
        { "role": "user", "content": "Light on" },
        { "type": "function_call", "call_id": "call_1", "name": "light", "arguments": "{\"level\": 1}" },
        { "type": "function_call_output", "call_id": "call_1", "output": "{\"ok\": true}" },
    ]});
    assert_eq!(bench.post("/v1/responses", &round).status, 200);
    let messages = bench.chats().pop().unwrap().messages;
    assert_eq!(
        messages[1].said,
        [Said::Called(call("light", json!({ "level": 1 })))]
    );
    assert_eq!(
        messages[2].said,
        [Said::Result {
            name: "light".to_owned(),
            value: json!({ "ok": true })
        }]
    );
}

#[test]
fn choices_reach_the_model_and_none_leaves_the_tools_out() {
    let bench = Bench::with(|_| (), calling);
    for (choice, wanted) in [
        (Value::Null, Some(ToolChoice::Auto)),
        (json!("auto"), Some(ToolChoice::Auto)),
        (json!("none"), None),
        (json!("required"), Some(ToolChoice::Must)),
        (
            json!({ "type": "function", "function": { "name": "time" } }),
            Some(ToolChoice::Named("time".to_owned())),
        ),
    ] {
        let asked = with("tool_choice", choice.clone());
        assert_eq!(
            bench.post("/v1/chat/completions", &asked).status,
            200,
            "{choice}"
        );
        let tools = bench.chats().pop().unwrap().tools;
        assert_eq!(tools.as_ref().map(|tools| tools.choice.clone()), wanted);
        assert!(tools.is_none_or(|tools| tools.offered.len() == 2 && tools.several));
    }
    let one = with("parallel_tool_calls", json!(false));
    bench.post("/v1/chat/completions", &one);
    assert!(!bench.chats().pop().unwrap().tools.unwrap().several);
}

#[test]
fn results_find_their_calls_by_id_by_name_and_by_order() {
    let bench = Bench::with(|_| (), calling);
    let results = |path: &str, messages: Value| {
        let response = bench.post(
            path,
            &json!({ "model": "demo", "messages": messages, "stream": false }),
        );
        assert_eq!(response.status, 200, "{response:?}");
        let said = bench.chats().pop().unwrap().messages;
        let said = said.into_iter().flat_map(|message| message.said);
        let result = |said| match said {
            Said::Result { name, value } => Some((name, value)),
            _ => None,
        };
        said.filter_map(result).collect::<Vec<_>>()
    };
    let wanted = |a: Value, b: Value| vec![("light".to_owned(), a), ("time".to_owned(), b)];
    let called = |ids: bool| {
        let call = |id: &str, name: &str| match ids {
            true => {
                json!({ "id": id, "type": "function", "function": { "name": name, "arguments": "{}" } })
            }
            false => json!({ "function": { "name": name, "arguments": {} } }),
        };
        json!({ "role": "assistant", "content": "", "tool_calls": [call("a", "light"), call("b", "time")] })
    };
    let user = json!({ "role": "user", "content": "x" });
    let mut by_id = results(
        "/v1/chat/completions",
        json!([
            user, called(true),
            { "role": "tool", "tool_call_id": "b", "content": "noon" },
            { "role": "tool", "tool_call_id": "a", "content": [{ "type": "text", "text": "{\"data\": {\"on\": true}, \"error\": null}" }] },
        ]),
    );
    by_id.reverse();
    assert_eq!(
        by_id,
        wanted(
            json!({ "data": { "on": true }, "error": null }),
            json!("noon")
        )
    );
    let by_order = results(
        "/api/chat",
        json!([
            user, called(false), { "role": "tool", "content": "ok" }, { "role": "tool", "content": "noon" },
        ]),
    );
    assert_eq!(by_order, wanted(json!("ok"), json!("noon")));
    let mut by_name = results(
        "/api/chat",
        json!([
            user, called(false), { "role": "tool", "tool_name": "time", "content": "noon" }, { "role": "tool", "content": "ok" },
        ]),
    );
    by_name.reverse();
    assert_eq!(by_name, wanted(json!("ok"), json!("noon")));
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    let bench = Bench::with(|_| (), calling);
    let turns = |more: Value| {
        let mut asked = asked();
        let messages = asked["messages"].as_array_mut().unwrap();
        messages.extend(more.as_array().unwrap().iter().cloned());
        asked
    };
    let call = json!({ "id": "a", "function": { "name": "light", "arguments": "{}" } });
    let cases = [
        (
            with("tools", json!([{ "type": "web_search" }])),
            "tools[0].type",
        ),
        (
            with("tools", json!([{ "type": "function", "function": {} }])),
            "tools[0].function.name",
        ),
        (
            with(
                "tools",
                json!([{ "type": "function", "function": { "name": 7 } }]),
            ),
            "tools[0].function.name",
        ),
        (with("tool_choice", json!("maybe")), "tool_choice"),
        (
            with("tool_choice", json!({ "type": "allowed_tools" })),
            "tool_choice",
        ),
        (
            with("tool_choice", json!({ "function": { "name": "lamp" } })),
            "tool_choice",
        ),
        (
            turns(json!([{ "role": "tool", "tool_call_id": "x", "content": "" }])),
            "messages[1]",
        ),
        (
            turns(
                json!([{ "role": "assistant", "tool_calls": [call] }, { "role": "tool", "tool_call_id": "x", "content": "" }]),
            ),
            "messages[2]",
        ),
        (
            turns(
                json!([{ "role": "assistant", "tool_calls": [{ "id": "a", "function": { "name": "light", "arguments": "{\"a\":" } }] }]),
            ),
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            turns(json!([{ "role": "assistant", "tool_calls": [{ "id": "a" }] }])),
            "messages[1].tool_calls[0].function.name",
        ),
    ];
    for (asked, place) in cases {
        let refused = bench.post("/v1/chat/completions", &asked);
        assert_eq!(refused.status, 400, "{asked}");
        let error = &refused.json()["error"];
        assert_eq!(error["param"], place, "{error}");
        assert!(
            error["message"].as_str().unwrap().contains(place),
            "{error}"
        );
    }
    assert!(bench.chats().is_empty());
}
