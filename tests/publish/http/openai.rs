//! OpenAI's protocol: each row of what other servers got wrong is a test.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gemmad::report::chat::{Said, Shape, Speaker};
use gemmad::report::{ErrorBody, ErrorCode, Payload};
use serde_json::{Value, json};

use super::{Bench, THOUGHTS, hello, refusing, thinks};

fn question() -> Value {
    json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hi" }] })
}

#[test]
fn an_answer_has_all_that_clients_read() {
    let bench = Bench::new();
    let response = bench.post("/v1/chat/completions", &question());
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let answer = response.json();
    assert_eq!(answer["object"], "chat.completion");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(answer["model"], "demo");
    let choice = &answer["choices"][0];
    assert_eq!(
        choice["message"],
        json!({ "role": "assistant", "content": "Hello there." })
    );
    assert_eq!(
        (&choice["index"], &choice["finish_reason"]),
        (&json!(0), &json!("stop"))
    );
    assert_eq!(
        answer["usage"],
        json!({
            "prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24,
            "prompt_tokens_details": { "cached_tokens": 12 },
        })
    );
    assert_eq!(
        (
            &answer["timings"]["prompt_n"],
            &answer["timings"]["predicted_n"]
        ),
        (&json!(8), &json!(4))
    );
    assert_eq!(answer["timings"]["predicted_per_second"], 500.0);
}

#[test]
fn a_stream_has_a_role_pieces_one_end_and_usage_where_it_is_asked_for() {
    let bench = Bench::new();
    for usage in [false, true] {
        let mut asked = question();
        asked["stream"] = true.into();
        if usage {
            asked["stream_options"] = json!({ "include_usage": true });
        }
        let response = bench.post("/v1/chat/completions", &asked);
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        let mut events = response.events();
        assert_eq!(events.pop().unwrap(), "[DONE]");
        let mut chunks: Vec<Value> = events
            .iter()
            .map(|data| serde_json::from_str(data).unwrap())
            .collect();
        if usage {
            let last = chunks.pop().unwrap();
            assert_eq!(
                (&last["choices"], &last["usage"]["total_tokens"]),
                (&json!([]), &json!(24))
            );
        }
        for chunk in &chunks {
            assert_eq!(chunk["object"], "chat.completion.chunk");
            assert_eq!(chunk["id"], chunks[0]["id"]);
            assert_eq!(chunk.get("usage").is_some(), usage);
            assert_eq!(chunk["choices"].as_array().unwrap().len(), 1);
        }
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, "Hello there.");
        let ends: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0]["finish_reason"])
            .collect();
        assert!(ends[..ends.len() - 1].iter().all(|end| end.is_null()));
        assert_eq!(ends[ends.len() - 1], "stop");
    }
}

#[test]
fn thoughts_come_while_they_are_thought() {
    let bench = Bench::with(|_| (), thinks);
    let mut asked = question();
    asked["stream"] = true.into();
    let mut events = bench.post("/v1/chat/completions", &asked).events();
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let deltas: Vec<Value> = events
        .iter()
        .map(|data| serde_json::from_str::<Value>(data).unwrap()["choices"][0]["delta"].clone())
        .collect();
    let said = |key: &str| -> Vec<&str> {
        deltas
            .iter()
            .filter_map(|delta| delta[key].as_str())
            .collect()
    };
    assert_eq!(said("reasoning_content"), THOUGHTS);
    assert_eq!(said("content").concat(), "Hello there.");
    let first = |key: &str| {
        deltas
            .iter()
            .position(|delta| delta[key].as_str().is_some_and(|said| !said.is_empty()))
    };
    assert!(first("reasoning_content") < first("content"), "{deltas:?}");
    let whole = bench.post("/v1/chat/completions", &question()).json();
    let message = &whole["choices"][0]["message"];
    assert_eq!(message["reasoning_content"], THOUGHTS.concat());
}

#[test]
fn messages_reach_the_model_as_they_were_sent() {
    let bench = Bench::new();
    let picture = STANDARD.encode(b"\xff\xd8\xff\xe0 a picture");
    let sound = STANDARD.encode(b"RIFF....WAVE");
    let asked = json!({
        "model": "demo:half",
        "messages": [
            { "role": "developer", "content": "Be brief." },
            { "role": "user", "content": [
                { "type": "text", "text": "Image 1:" },
                { "type": "image_url", "image_url": { "url": format!("data:image/jpeg;base64,{picture}"), "detail": "low" } },
                { "type": "input_audio", "input_audio": { "data": sound, "format": "wav" } },
            ]},
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "1", "type": "function", "function": { "name": "look", "arguments": "{}" } },
            ]},
            { "role": "tool", "tool_call_id": "1", "content": "a cat" },
            { "role": "user", "content": "And?" },
        ],
        "max_tokens": 7, "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": -1, "seed": -3,
        "stop": ["\n\n", "END"], "user": "somebody", "tools": [{ "type": "function", "function": { "name": "look" } }], "tool_choice": "auto",
        "response_format": { "type": "json_schema", "json_schema": { "name": "x", "strict": true, "schema": { "type": "object" } } },
        "unknown": { "key": [1, 2, 3] },
    });
    assert_eq!(bench.post("/v1/chat/completions", &asked).status, 200);
    let chat = bench.chats().remove(0);
    let speakers: Vec<Speaker> = chat
        .messages
        .iter()
        .map(|message| message.speaker)
        .collect();
    assert_eq!(
        speakers,
        [
            Speaker::System,
            Speaker::User,
            Speaker::Assistant,
            Speaker::Assistant,
            Speaker::User
        ]
    );
    let user = &chat.messages[1].said;
    assert_eq!(user[0], Said::Text("Image 1:".to_owned()));
    assert!(matches!(&user[1], Said::Picture(bytes) if bytes.0.starts_with(b"\xff\xd8")));
    assert!(matches!(&user[2], Said::Sound(bytes) if bytes.0.starts_with(b"RIFF")));
    assert!(matches!(&chat.messages[2].said[..], [Said::Called(call)] if call.name == "look"));
    let result = Said::Result {
        name: "look".to_owned(),
        value: json!("a cat"),
    };
    assert_eq!(chat.messages[3].said, [result]);
    assert_eq!(chat.tools.unwrap().offered[0].name, "look");
    assert_eq!(
        chat.matformer.map(|name| name.to_string()),
        Some("half".to_owned())
    );
    assert_eq!(
        (chat.max_tokens, chat.stop),
        (Some(9), vec!["\n\n".to_owned(), "END".to_owned()])
    );
    assert_eq!(chat.choosing.top_k, Some(0));
    assert_eq!(chat.choosing.seed, Some((-3_i64).cast_unsigned()));
    assert_eq!(
        (chat.choosing.temperature, chat.choosing.top_p),
        (Some(0.5), Some(0.25))
    );
    assert_eq!(chat.shape, Some(Shape::Schema(json!({ "type": "object" }))));
    assert!(!chat.thinks && !chat.stream);
}

#[test]
fn the_model_is_described_as_clients_want_to_know_it() {
    let bench = Bench::new();
    for path in ["/v1/models", "//v1/models", "/v1//models/"] {
        let list = bench.get(path).json();
        assert_eq!(list["object"], "list");
        let ids: Vec<&str> = list["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, ["demo", "demo:half", "demo:low-res", "demo:high-res"]);
        let model = &list["data"][0];
        assert!(model["created"].is_u64() && model["owned_by"].is_string());
        assert_eq!(model["max_model_len"], 4096);
        assert_eq!(model["meta"]["n_ctx"], 4096);
        assert_eq!(
            model["architecture"]["input_modalities"],
            json!(["text", "image", "audio"])
        );
    }
    assert_eq!(bench.get("/v1/models/demo:half").json()["id"], "demo:half");
    assert_eq!(bench.get("/v1/models/other").status, 404);
    let props = bench.get("/props?model=demo").json();
    assert_eq!(props["default_generation_settings"]["n_ctx"], 4096);
    assert_eq!(
        props["modalities"],
        json!({ "vision": true, "audio": true })
    );
    assert_eq!(bench.get("/health").json(), json!({ "status": "ok" }));
    assert_eq!(bench.post("/v1/embeddings", &json!({})).status, 501);
}

#[test]
fn errors_come_with_their_status_before_the_first_byte() {
    let cases = [
        (ErrorCode::TooLarge, 400, "context_length_exceeded"),
        (ErrorCode::Invalid, 400, "invalid_value"),
        (ErrorCode::InvalidImage, 400, "invalid_image"),
        (ErrorCode::InvalidAudio, 400, "invalid_audio"),
        (ErrorCode::NotFound, 404, "not_found"),
        (ErrorCode::QueueFull, 503, "overloaded"),
        (ErrorCode::Busy, 503, "busy"),
        (ErrorCode::Timeout, 503, "timeout"),
    ];
    for (code, status, name) in cases {
        let bench = Bench::with(
            |_| (),
            refusing(ErrorBody::new(code, "why, and what to do")),
        );
        for stream in [false, true] {
            let mut asked = question();
            asked["stream"] = stream.into();
            let response = bench.post("/v1/chat/completions", &asked);
            assert_eq!(response.status, status, "{code:?}");
            let error = &response.json()["error"];
            assert_eq!(
                (&error["message"], &error["code"]),
                (&json!("why, and what to do"), &json!(name))
            );
            assert!(error["type"].is_string());
            assert_eq!(response.header("retry-after").is_some(), status == 503);
        }
    }
}

#[test]
fn an_error_after_the_first_byte_is_an_event() {
    use gemmad::report::{JobState, JobUpdate};
    let bench = Bench::with(
        |_| (),
        |request| {
            let piece = JobUpdate {
                partial: Some("Hel".to_owned()),
                ..JobUpdate::new(&request.header, JobState::Running)
            };
            let error = ErrorBody::new(ErrorCode::Timeout, "too late");
            vec![piece, JobUpdate::end(&request.header, Err(error))]
        },
    );
    let mut asked = question();
    asked["stream"] = true.into();
    let response = bench.post("/v1/chat/completions", &asked);
    assert_eq!(response.status, 200);
    let events = response.events();
    let error: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(error["error"]["message"], "too late");
}

#[test]
fn a_client_that_goes_cancels_its_job() {
    let never = |request: &gemmad::report::Request| match request.payload {
        Payload::Chat(_) => Vec::new(),
        _ => hello(request),
    };
    let bench = Bench::with(|_| (), never);
    for (n, stream) in [(1, false), (2, true)] {
        let mut asked = question();
        asked["stream"] = stream.into();
        let body = asked.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: pi\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut client = bench.connect();
        std::io::Write::write_all(&mut client, head.as_bytes()).unwrap();
        crate::broker::wait_until("it is asked", || bench.chats().len() == n);
        drop(client);
        bench.wait_cancelled(n);
    }
}

#[test]
fn sound_is_written_down_in_every_format() {
    let bench = Bench::new();
    let wav = b"RIFF\x24\0\0\0WAVEfmt ";
    let ask = |format: &str, more: &[(&str, &[u8])]| {
        let mut fields: Vec<(&str, &[u8])> =
            vec![("file", wav), ("model", b"demo"), ("language", b"de")];
        fields.push(("response_format", format.as_bytes()));
        fields.extend(more);
        bench.form("/v1/audio/transcriptions", &fields)
    };
    let more: &[(&str, &[u8])] = &[
        ("keywords[]", b"lamp"),
        ("prompt", b"house"),
        ("temperature", b"0"),
    ];
    assert_eq!(ask("json", more).json()["text"], "Hello there.");
    assert_eq!(ask("text", &[]).text(), "Hello there.\n");
    assert!(
        ask("srt", &[])
            .text()
            .starts_with("1\n00:00:00,000 --> 00:00:25,000\nHello there.\n")
    );
    assert!(
        ask("vtt", &[])
            .text()
            .starts_with("WEBVTT\n\n00:00:00.000 --> 00:00:25.000\n")
    );
    let verbose = ask("verbose_json", &[]).json();
    assert_eq!(
        (&verbose["language"], &verbose["duration"]),
        (&json!("german"), &json!(40.5))
    );
    let segments = verbose["segments"].as_array().unwrap();
    assert_eq!(segments[0]["no_speech_prob"], 0.0);
    assert_eq!(
        (&segments[1]["no_speech_prob"], &segments[1]["text"]),
        (&json!(1.0), &json!(""))
    );
    let stream = ask("json", &[("stream", b"true")]).events();
    assert!(
        stream[0].contains("transcript.text.delta") && stream[1].contains("transcript.text.done")
    );
    let Payload::Transcribe(asked) = bench.asked().remove(0) else {
        panic!("something else was asked");
    };
    assert_eq!(
        asked.language.map(|name| name.to_string()),
        Some("German".to_owned())
    );
    assert!(asked.in_pieces && asked.into.is_none());

    bench.form("/v1/audio/translations", &[("file", wav)]);
    let Some(Payload::Transcribe(asked)) = bench.asked().pop() else {
        panic!("something else was asked");
    };
    assert_eq!(
        asked.into.map(|name| name.to_string()),
        Some("English".to_owned())
    );
    for (file, status) in [
        (&b"\x1a\x45\xdf\xa3webm"[..], 415),
        (b"\0\0\0\x20ftypM4A ", 415),
        (
            b"OggS\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead",
            415,
        ),
    ] {
        let response = bench.form("/v1/audio/transcriptions", &[("file", file)]);
        assert_eq!(response.status, status, "{response:?}");
        assert!(response.text().contains("ffmpeg"));
    }
}

#[test]
fn responses_are_told_whole_and_in_events() {
    let bench = Bench::new();
    let asked = json!({
        "model": "demo", "instructions": "Be brief.", "max_output_tokens": 50, "store": true,
        "input": [
            { "role": "user", "content": [{ "type": "input_text", "text": "Hi" }] },
            { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "Hello" }] },
            { "type": "reasoning", "summary": [] },
            { "role": "user", "content": "Again" },
        ],
        "text": { "format": { "type": "json_schema", "name": "x", "schema": { "type": "object" } } },
    });
    let whole = bench.post("/v1/responses", &asked).json();
    assert_eq!(
        (&whole["object"], &whole["status"]),
        (&json!("response"), &json!("completed"))
    );
    assert_eq!(whole["output"][0]["content"][0]["text"], "Hello there.");
    assert_eq!(whole["usage"]["input_tokens_details"]["cached_tokens"], 12);
    let chat = bench.chats().remove(0);
    assert_eq!(chat.messages.len(), 4);
    assert_eq!(chat.shape, Some(Shape::Schema(json!({ "type": "object" }))));

    let asked = json!({ "model": "demo", "input": "Hi", "stream": true });
    let events: Vec<Value> = bench
        .post("/v1/responses", &asked)
        .events()
        .iter()
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(kinds[4..7], ["response.output_text.delta"; 3]);
    assert_eq!(
        kinds[7..],
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed"
        ]
    );
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], n);
    }
    assert_eq!(events[7]["text"], "Hello there.");
    assert_eq!(
        bench
            .post(
                "/v1/responses",
                &json!({ "input": "Hi", "previous_response_id": "resp_1" })
            )
            .status,
        400
    );
}
