//! Ollama's protocol.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gemmad::report::chat::{Said, Shape, Speaker};
use gemmad::report::{ErrorBody, ErrorCode};
use serde_json::{Value, json};

use super::{Bench, THOUGHTS, refusing, thinks};

#[test]
fn clients_find_the_model_that_is_there_and_no_other() {
    let bench = Bench::new();
    assert_eq!(bench.get("/").text(), "Ollama is running");
    assert_eq!(bench.send("HEAD", "/", "", b"").status, 200);
    assert!(bench.get("/api/version").json()["version"].is_string());
    let tags = bench.get("/api/tags").json();
    let names: Vec<&str> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["demo:latest", "demo:half", "demo:low-res", "demo:high-res"]
    );
    let model = &tags["models"][0];
    assert_eq!(
        (&model["model"], &model["size"]),
        (&json!("demo:latest"), &json!(4_000_000))
    );
    assert_eq!(model["details"]["family"], "gemma4");
    assert_eq!(model["details"]["parameter_size"], "5.1B");
    assert!(model["digest"].is_string() && model["modified_at"].is_string());
    let ps = bench.get("/api/ps").json();
    assert_eq!(
        (
            &ps["models"][0]["size_vram"],
            &ps["models"][0]["context_length"]
        ),
        (&json!(0), &json!(4096))
    );
    for name in ["model", "name"] {
        let shown = bench.post("/api/show", &json!({ name: "demo" })).json();
        assert_eq!(
            shown["capabilities"],
            json!(["completion", "vision", "audio", "tools", "thinking"])
        );
        assert_eq!(shown["model_info"]["general.architecture"], "gemma4");
        assert_eq!(shown["model_info"]["gemma4.context_length"], 4096);
        assert!(shown.get("error").is_none());
    }
    let pulled = bench.post("/api/pull", &json!({ "model": "demo:latest" }));
    assert_eq!(pulled.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(pulled.text(), "{\"status\":\"success\"}\n");
    for (path, status) in [("/api/pull", 404), ("/api/show", 404)] {
        let refused = bench.post(path, &json!({ "model": "llama3" }));
        assert_eq!(refused.status, status);
        assert!(
            refused.json()["error"]
                .as_str()
                .unwrap()
                .contains("there is demo")
        );
    }
    for (method, path) in [
        ("POST", "/api/create"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/push"),
        ("POST", "/api/copy"),
        ("HEAD", "/api/blobs/sha256:0"),
        ("GET", "/api/chat"),
    ] {
        assert_eq!(
            bench.send(method, path, "", b"").status,
            405,
            "{method} {path}"
        );
    }
    assert_eq!(bench.post("/api/embed", &json!({})).status, 501);
}

#[test]
fn chats_and_prompts_are_answered_in_lines_or_at_once() {
    let bench = Bench::new();
    let ask = |path: &str, stream: Option<bool>| {
        let mut asked =
            json!({ "model": "demo", "keep_alive": "5m", "options": { "num_ctx": 8192 } });
        match path {
            "/api/chat" => asked["messages"] = json!([{ "role": "user", "content": "Hi" }]),
            _ => asked["prompt"] = "Hi".into(),
        }
        if let Some(stream) = stream {
            asked["stream"] = stream.into();
        }
        bench.post(path, &asked)
    };
    for (path, place) in [
        ("/api/chat", "/message/content"),
        ("/api/generate", "/response"),
    ] {
        let whole = ask(path, Some(false));
        assert_eq!(whole.header("content-type"), Some("application/json"));
        let whole = whole.json();
        assert_eq!(whole.pointer(place), Some(&json!("Hello there.")));
        assert_eq!(
            (&whole["done"], &whole["done_reason"]),
            (&json!(true), &json!("stop"))
        );
        assert_eq!(
            (&whole["prompt_eval_count"], &whole["eval_count"]),
            (&json!(20), &json!(4))
        );
        assert_eq!(whole["eval_duration"], 8_000_000);
        for stream in [None, Some(true)] {
            let lines = ask(path, stream);
            assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
            let lines: Vec<Value> = lines
                .text()
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let text: String = lines
                .iter()
                .map(|line| line.pointer(place).unwrap().as_str().unwrap())
                .collect();
            assert_eq!(text, "Hello there.");
            let done: Vec<bool> = lines.iter().map(|line| line["done"] == true).collect();
            assert_eq!(done, [false, false, false, true]);
            assert!(
                lines
                    .iter()
                    .all(|line| line["model"] == "demo" && line["created_at"].is_string())
            );
        }
    }
}

#[test]
fn pictures_sounds_shapes_and_options_reach_the_model() {
    let bench = Bench::new();
    let (picture, sound) = (
        STANDARD.encode(b"\xff\xd8\xff"),
        STANDARD.encode(b"RIFF\0\0\0\0WAVE"),
    );
    let schema =
        json!({ "type": "object", "properties": { "a": { "type": "string", "title": "A" } } });
    let asked = json!({
        "model": "demo:low-res", "stream": false, "format": schema, "think": true,
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "", "images": [picture] },
            { "role": "user", "content": "What?", "images": [sound] },
            { "role": "assistant", "content": "", "tool_calls": [{ "function": { "name": "look", "arguments": {} } }] },
            { "role": "tool", "content": "a cat" },
        ],
        "options": { "temperature": 0, "top_k": 40, "seed": 7, "num_predict": -1, "stop": ["X"], "repeat_penalty": 1.5 },
    });
    assert_eq!(bench.post("/api/chat", &asked).status, 200);
    let chat = bench.chats().remove(0);
    assert!(matches!(
        chat.messages[1].said[..],
        [Said::Picture(_), Said::Text(_)]
    ));
    assert!(matches!(
        chat.messages[2].said[..],
        [Said::Sound(_), Said::Text(_)]
    ));
    assert_eq!(chat.messages[4].speaker, Speaker::Assistant);
    assert_eq!(
        (chat.shape, chat.soft_tokens, chat.thinks),
        (Some(Shape::Schema(schema)), Some(70), true)
    );
    assert_eq!((chat.max_tokens, chat.choosing.seed), (None, Some(7)));
    assert_eq!(chat.choosing.repetition_penalty, Some(1.5));

    let asked = json!({ "model": "demo", "prompt": "?", "system": "S", "images": [picture], "format": "json", "stream": false });
    bench.post("/api/generate", &asked);
    let chat = bench.chats().remove(1);
    assert_eq!(chat.shape, Some(Shape::Object));
    assert_eq!(chat.messages.len(), 2);
    assert!(matches!(
        chat.messages[1].said[..],
        [Said::Picture(_), Said::Text(_)]
    ));
}

#[test]
fn a_client_that_asks_nothing_only_wants_the_model_there() {
    let bench = Bench::new();
    for (asked, reason) in [
        (json!({ "model": "demo" }), "load"),
        (json!({ "model": "demo", "keep_alive": 0 }), "unload"),
        (
            json!({ "model": "demo", "keep_alive": "0s", "messages": [], "prompt": "" }),
            "unload",
        ),
    ] {
        for path in ["/api/chat", "/api/generate"] {
            let answer = bench.post(path, &asked).json();
            assert_eq!(
                (&answer["done"], &answer["done_reason"]),
                (&json!(true), &json!(reason))
            );
        }
    }
    assert!(bench.chats().is_empty());
}

#[test]
fn errors_are_words_under_their_key() {
    let bench = Bench::with(
        |_| (),
        refusing(ErrorBody::new(
            ErrorCode::TooLarge,
            "the prompt needs 9 tokens",
        )),
    );
    let asked = json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hi" }] });
    let refused = bench.post("/api/chat", &asked);
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json(),
        json!({ "error": "the prompt needs 9 tokens" })
    );
    assert_eq!(bench.get("/api/nothing").status, 404);
    assert!(bench.get("/api/nothing").json()["error"].is_string());
}

#[test]
fn thoughts_come_while_they_are_thought() {
    let bench = Bench::with(|_| (), thinks);
    for (path, place, asked) in [
        (
            "/api/chat",
            "/message/thinking",
            json!({ "messages": [{ "role": "user", "content": "Hi" }] }),
        ),
        ("/api/generate", "/thinking", json!({ "prompt": "Hi" })),
    ] {
        let mut asked = asked;
        (asked["model"], asked["think"]) = ("demo".into(), true.into());
        let lines = bench.post(path, &asked);
        let lines: Vec<Value> = (lines.text().lines())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let thoughts: Vec<&str> = (lines.iter())
            .filter_map(|line| line.pointer(place)?.as_str())
            .collect();
        assert_eq!(thoughts, THOUGHTS);
        asked["stream"] = false.into();
        let whole = bench.post(path, &asked).json();
        assert_eq!(whole.pointer(place), Some(&THOUGHTS.concat().into()));
    }
}
