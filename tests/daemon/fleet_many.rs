//! Several jobs at one worker, and thoughts: what clients of a board without a model are told while a worker answers them, and dies.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::broker::{free_port, wait_until};
use crate::fleet::{Helper, fleet, fleet_health};
use crate::http::user;
use crate::http_client::{Response, connect, request};
use crate::nats::Nats;
use crate::process::{Bench, Gemmad};

/// A board without a model, with a broker and clients over HTTP.
struct Board {
    bench: Bench,
    gemmad: Gemmad,
    http: SocketAddr,
}

impl Board {
    fn start(nats: &Nats) -> Board {
        let (bench, port) = (Bench::new(), free_port());
        let text = format!(
            "[mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\n[dbus]\nenabled = false\n[model]\npath = \"/nowhere\"\n\
             [queue]\nmax_tokens = 3000\n[log]\nlevel = \"debug\"\n[http]\nenabled = true\nmax_tokens = 3000\nlisten = \"127.0.0.1:{port}\"\n{}",
            bench.broker.port,
            fleet(nats, "source", "")
        );
        std::fs::write(bench.dir.path().join("gemmad.toml"), text).unwrap();
        Board {
            gemmad: bench.start(),
            bench,
            http: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    /// A chat, as bytes.
    fn chat(body: &Value) -> Vec<u8> {
        let headers = "Content-Type: application/json\r\n";
        let body = body.to_string();
        request("POST", "/v1/chat/completions", headers, body.as_bytes())
    }

    fn knows(&self, workers: u64) {
        wait_until("the board knows the workers", || {
            fleet_health(&self.bench)["workers"] == workers
        });
    }
}

/// What stands in the parts of a stream of that name, all together.
fn told(stream: &str, part: &str) -> Vec<String> {
    let events = stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let chunks = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let part = |chunk: Value| {
        let text = chunk["choices"][0]["delta"][part].as_str()?.to_owned();
        (!text.is_empty()).then_some(text)
    };
    chunks.filter_map(part).collect()
}

/// Words of the list that an answer is.
fn words(text: &str) -> usize {
    let list: Vec<String> = serde_json::from_str(text).unwrap();
    assert!(list.iter().all(|word| ["light", "lamp"].contains(&&**word)));
    list.len()
}

#[test]
fn what_a_worker_answers_together_comes_from_another_where_it_dies_and_nothing_twice() {
    const LISTS: [(&str, usize); 3] = [("one", 200), ("two", 210), ("three", 220)];
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let (first, second) = (
        Helper::with(&nats, "attic", "demo", 4),
        Helper::with(&nats, "cellar", "demo", 4),
    );
    let board = Board::start(&nats);
    let attic = first.start();
    board.knows(1);
    for (transaction, words) in LISTS {
        board.bench.long_question(transaction, words);
    }
    let schema = json!({ "type": "array", "minItems": 150, "maxItems": 150, "items": { "enum": ["light", "lamp"] } });
    let mut asked = json!({
        "messages": user("?"), "max_tokens": 3000, "stream": true,
        "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": schema } },
    });
    let stream = Arc::new(Mutex::new(String::new()));
    let mut client = connect(board.http);
    client.write_all(&Board::chat(&asked)).unwrap();
    let into = Arc::clone(&stream);
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            into.lock()
                .unwrap()
                .push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    });
    // All are in the midst of their answers.
    let pieces = |transaction: &str| -> Vec<String> {
        let told = board.bench.on("response/ask/partial");
        let told = told.iter().map(|seen| seen.json());
        let told = told.filter(|piece| piece["transaction"] == transaction);
        told.map(|piece| piece["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let so_far = || told(&stream.lock().unwrap(), "content").concat();
    wait_until("all are answered in pieces", || {
        LISTS.iter().all(|(name, _)| pieces(name).len() > 2) && so_far().len() > 30
    });
    attic.kill();
    assert!(board.bench.on("response/ask").is_empty());
    let begun = so_far();
    let cellar = second.start();
    for (transaction, many) in LISTS {
        let answer = board.bench.response("ask", transaction);
        assert_eq!(answer["status"], "ok", "{answer}");
        let text = answer["data"]["text"].as_str().unwrap();
        assert_eq!(words(text), many);
        assert_eq!(pieces(transaction).concat(), text);
        assert_eq!(board.bench.responses("ask", transaction).len(), 1);
    }
    reading.join().unwrap();
    let stream = stream.lock().unwrap().clone();
    let whole = told(&stream, "content").concat();
    assert!(whole.starts_with(&begun) && whole != begun, "{begun}");
    assert_eq!(words(&whole), 150);
    assert_eq!(stream.matches("data: [DONE]").count(), 1, "{stream}");
    // It is what the one that lives says by itself, where chance has no part in it.
    let mut answers = [true, false].map(|stream| {
        (asked["stream"], asked["temperature"]) = (stream.into(), 0.into());
        Response::to(board.http, &Board::chat(&asked))
    });
    let [streamed, at_once] = &mut answers;
    let at_once = &at_once.json()["choices"][0]["message"]["content"];
    assert_eq!(
        told(&streamed.text(), "content").concat(),
        at_once.as_str().unwrap()
    );
    assert_eq!(fleet_health(&board.bench)["away"], 0);
    board.bench.assert_schemas();
    cellar.stop();
    board.gemmad.stop();
}

#[test]
fn thoughts_come_while_they_are_thought_from_a_worker_that_thinks() {
    const THOUGHT: &str = "It is late, so no.";
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let script = json!([{
        "user": "Think about it", "say": format!("<|channel>thought\n{THOUGHT}\n<channel|>Not today."), "then": "",
    }]);
    let board = Board::start(&nats);
    let first = Helper::new(&nats, "attic");
    let plain = first.start();
    board.knows(1);
    let asked = |stream: bool| {
        json!({
            "messages": user("Think about it"), "stream": stream,
            "chat_template_kwargs": { "enable_thinking": true },
        })
    };
    // Nobody thinks.
    let refused = Response::to(board.http, &Board::chat(&asked(true)));
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(
        refused.text().contains("none of which thinks"),
        "{refused:?}"
    );
    let thinking = json!({ "prompt": "Think about it", "thinking": true });
    let refused = board.bench.request("ask", "vain", thinking.clone());
    assert_eq!(refused["error"]["code"], "invalid", "{refused}");
    let why = refused["error"]["message"].as_str().unwrap();
    assert!(why.contains("thinks before it answers"), "{why}");
    // A wish is none.
    let wish = json!({ "messages": user("Hello."), "reasoning_effort": "high", "max_tokens": 4 });
    assert_eq!(Response::to(board.http, &Board::chat(&wish)).status, 200);

    let second = Helper::with(&nats, "cellar", "demo-gemma4", 1);
    let thinker = second.start_scripted(&script);
    board.knows(2);
    for _ in 0..3 {
        let streamed = Response::to(board.http, &Board::chat(&asked(true)));
        assert_eq!(streamed.status, 200, "{streamed:?}");
        let thoughts = told(&streamed.text(), "reasoning_content");
        assert!(thoughts.len() > 2, "{thoughts:?}");
        assert_eq!(thoughts.concat(), THOUGHT);
        assert_eq!(told(&streamed.text(), "content").concat(), "Not today.");
    }
    let whole = Response::to(board.http, &Board::chat(&asked(false))).json();
    let message = &whole["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning_content"], &message["content"]),
        (&json!(THOUGHT), &json!("Not today."))
    );
    let answer = board.bench.request("ask", "slow", thinking);
    assert_eq!(answer["data"]["thoughts"], THOUGHT, "{answer}");
    board.bench.assert_schemas();
    plain.stop();
    thinker.stop();
    board.gemmad.stop();
}

/// Alone it does all itself, however much is asked at once; beside another board it sends what waits, and may be the one that takes it.
#[test]
fn a_board_that_sends_and_works_is_answered_alone_and_beside_another() {
    const AT_ONCE: usize = 5;
    let bench = Bench::new();
    let nats = Nats::start(bench.dir.path());
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let text = format!(
        "[mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\n[dbus]\nenabled = false\n[degrade]\nhot_c = 0\n\
         memory_pressure_percent = 0\n[threads]\ncount = 1\n[model]\npath = {model:?}\n[queue]\nmax_tokens = 3000\nanswers = 1\n{}",
        bench.broker.port,
        fleet(&nats, "both", "")
    );
    std::fs::write(bench.dir.path().join("gemmad.toml"), text).unwrap();
    let gemmad = bench.start();
    let helper = Helper::new(&nats, "attic");
    let mut beside = None;
    for others in [0, 1] {
        if others == 1 {
            beside = Some(helper.start());
        }
        wait_until("it knows the others, and not itself", || {
            let fleet = fleet_health(&bench);
            fleet["connected"] == true && fleet["workers"] == others
        });
        for n in 0..AT_ONCE {
            bench.long_question(&format!("{others}-{n}"), 40 + 10 * n);
        }
        for n in 0..AT_ONCE {
            let response = bench.response("ask", &format!("{others}-{n}"));
            assert_eq!(response["status"], "ok", "{response}");
            assert_eq!(
                words(response["data"]["text"].as_str().unwrap()),
                40 + 10 * n
            );
        }
    }
    gemmad.stop();
    drop(beside);
}
