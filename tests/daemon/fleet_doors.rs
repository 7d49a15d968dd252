//! A board without a model beside one that has it: whatever is said, asked or told at either comes to the same.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::broker::free_port;
use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::fleet::{Helper, fleet};
use crate::http::{content, user};
use crate::http_client::{Response, request};
use crate::nats::Nats;
use crate::private_bus::repository;
use crate::process::{Bench, Gemmad, expected};
use crate::wyoming::{Client, mono, samples};

const SENTENCE: &str = "turn off the kitchen light";

/// Microphones, what is said at them, and how they answer.
const MICROPHONES: [(&str, &str, &str); 4] = [
    ("straight", "009_both.wav", "answer = \"command\""),
    ("both", "003_both.wav", "answer = \"both\""),
    (
        "asleep",
        "004_voice.wav",
        "answer = \"both\"\ntrigger = \"wake_phrase\"\nwake_phrases = [\"classical music\"]",
    ),
    ("plain", "023_combo.wav", "answer = \"transcript\""),
];

/// A board with all doors.
struct Board {
    bench: Bench,
    gemmad: Gemmad,
    http: SocketAddr,
    wyoming: u16,
}

impl Board {
    /// Without a model where there is a fleet.
    fn start(nats: Option<&Nats>, microphones: &[(&str, &str, &str)]) -> Board {
        let bench = Bench::new();
        let names: Vec<&str> = microphones.iter().map(|(name, ..)| *name).collect();
        write_config(bench.dir.path(), &names);
        let mut more =
            std::fs::read_to_string(repository("config/examples/demo-commands.toml")).unwrap();
        for (name, clip, options) in microphones {
            write_speech(&raw_file(bench.dir.path(), name), clip);
            more += &format!("[[microphone]]\nid = \"{name}\"\ndevice = \"{name}\"\n{options}\n");
        }
        let (http, wyoming) = (free_port(), free_port());
        more += &format!(
            "[http]\nenabled = true\nlisten = \"127.0.0.1:{http}\"\n[wyoming]\nenabled = true\nlisten = \"127.0.0.1:{wyoming}\"\n"
        );
        if let Some(nats) = nats {
            more += &fleet(nats, "source", "");
        }
        let path = bench.write_config(None, "", &more);
        if nats.is_some() {
            let text = std::fs::read_to_string(&path).unwrap();
            let model = format!("path = {:?}", repository("models/demo"));
            assert!(text.contains(&model), "{text}");
            std::fs::write(&path, text.replace(&model, "path = \"/nowhere\"")).unwrap();
        }
        Board {
            gemmad: bench.start(),
            bench,
            http: SocketAddr::from(([127, 0, 0, 1], http)),
            wyoming,
        }
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        let headers = "Content-Type: application/json\r\n";
        let body = body.to_string();
        Response::to(self.http, &request("POST", path, headers, body.as_bytes()))
    }

    /// What was heard at a microphone, but for what differs each time.
    fn heard(&self, microphone: &str) -> Value {
        let mut event = self.bench.wait_for(&format!("mic/{microphone}/event"), 1)[0].json();
        let timing = event["timing"].as_object().unwrap();
        assert!(event["event_type"] == "rejected" || timing["tokens"].as_u64() > Some(0));
        for key in ["id", "ts", "timing", "clock_synced"] {
            event.as_object_mut().unwrap().remove(key);
        }
        event
    }

    /// What a client of Assist is told about a clip, and about a sentence.
    fn assist(&self, version: &'static str) -> Vec<(String, Value)> {
        let mut client = Client::of_version(self.wyoming, version);
        client.send("transcribe", json!({"language": "en"}), &[]);
        client.speak(&mono(), &samples("009_both.wav"));
        client.send("audio-stop", json!({}), &[]);
        let mut told = Vec::new();
        let ends = |told: &[(String, Value)], kind: &str| told.last().unwrap().0 == kind;
        let last = if version == "1.5.4" {
            "transcript"
        } else {
            "transcript-stop"
        };
        loop {
            told.push(client.receive().unwrap());
            if ends(&told, last) {
                break;
            }
        }
        client.send("transcribe", json!({"language": "en"}), &[]);
        client.speak(&mono(), &[0; 32_000]);
        client.send("audio-stop", json!({}), &[]);
        told.push(client.receive().unwrap());
        let mut client = Client::of_version(self.wyoming, version);
        for text in [SENTENCE, "what a nice day"] {
            client.send("transcript", json!({ "text": text }), &[]);
            told.push(client.receive().unwrap());
        }
        told
    }

    /// An answer to a chat without what differs each time.
    fn chat(&self, more: &Value) -> Value {
        let mut asked = json!({ "messages": user("Turn on the kitchen light. Return the command as JSON:"), "temperature": 0 });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        let response = self.post("/v1/chat/completions", &asked);
        assert_eq!(response.status, 200, "{response:?}");
        if asked["stream"] == true {
            return Value::from(pieces(&response));
        }
        let mut answer = response.json();
        if let Some(calls) = answer["choices"][0]["message"]["tool_calls"].as_array_mut() {
            for call in calls {
                call.as_object_mut().unwrap().remove("id");
            }
        }
        answer["choices"].clone()
    }
}

/// The texts of a stream.
fn pieces(response: &Response) -> Vec<String> {
    let events = response.events().into_iter();
    let chunks = events.filter_map(|data| serde_json::from_str::<Value>(&data).ok());
    let text = |chunk: Value| {
        let text = chunk["choices"][0]["delta"]["content"].as_str()?.to_owned();
        (!text.is_empty()).then_some(text)
    };
    chunks.filter_map(text).collect()
}

#[test]
fn what_is_said_at_a_board_without_a_model_is_understood_as_if_it_had_one() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let helper = Helper::new(&nats, "cellar");
    let worker = helper.start();
    let (alone, source) = (
        Board::start(None, &MICROPHONES),
        Board::start(Some(&nats), &MICROPHONES),
    );
    for (name, file, _) in MICROPHONES {
        let (wanted, heard) = (alone.heard(name), source.heard(name));
        assert_eq!(heard, wanted);
        let said = expected("audio", file, "transcript");
        match name {
            "straight" => assert_eq!(heard["event_type"], "command", "{heard}"),
            "both" => assert_eq!(
                (&heard["event_type"], &heard["text"]),
                (&json!("command"), &json!(said))
            ),
            "plain" => assert_eq!(
                (&heard["event_type"], &heard["text"]),
                (&json!("transcript"), &json!(said))
            ),
            _ => assert_eq!(heard["reason"], "no wake phrase"),
        }
    }
    for version in ["1.5.4", "1.10.2"] {
        let (wanted, told) = (alone.assist(version), source.assist(version));
        assert_eq!(told, wanted);
        assert!(told.iter().any(|(kind, _)| kind == "intent"), "{told:?}");
    }
    source.bench.assert_schemas();
    for board in [alone, source] {
        board.gemmad.stop();
    }
    worker.stop();
}

#[test]
fn a_chat_at_a_board_without_a_model_is_answered_in_pieces_and_calls_tools() {
    let dir = tempfile::tempdir().unwrap();
    let nats = Nats::start(dir.path());
    let helper = Helper::new(&nats, "cellar");
    let worker = helper.start();
    let (alone, source) = (Board::start(None, &[]), Board::start(Some(&nats), &[]));
    let tool = json!({ "type": "function", "function": {
        "name": "switch", "description": "Switches a light.",
        "parameters": { "type": "object", "properties": { "on": { "type": "boolean" } }, "required": ["on"] },
    }});
    let shape = json!({ "type": "json_schema", "json_schema": { "name": "s", "schema": { "enum": ["cat", "dog"] } } });
    for asked in [
        json!({}),
        json!({ "stream": true }),
        json!({ "max_tokens": 3 }),
        json!({ "tools": [tool], "tool_choice": "required" }),
        json!({ "response_format": shape }),
    ] {
        let (wanted, told) = (alone.chat(&asked), source.chat(&asked));
        if asked["stream"] == true {
            let whole: String = told
                .as_array()
                .unwrap()
                .iter()
                .map(|piece| piece.as_str().unwrap())
                .collect();
            assert!(told.as_array().unwrap().len() > 2, "{told}");
            assert_eq!(
                whole.trim(),
                content(&json!({ "choices": alone.chat(&json!({})) }))
            );
        } else {
            assert_eq!(told, wanted, "{asked}");
        }
    }
    // A question over MQTT comes in pieces, too, and a conversation goes on at the board that has it.
    let ask = |board: &Board, transaction: &str, prompt: &str| {
        let asked = json!({ "prompt": prompt, "stream": true, "conversation": "tea", "temperature": 0.0, "max_tokens": 12 });
        let answer = board.bench.request("ask", transaction, asked);
        assert_eq!(answer["status"], "ok", "{answer}");
        let data = &answer["data"];
        (
            data["text"].clone(),
            data["conversation"].clone(),
            data["resumed"].clone(),
        )
    };
    for (transaction, prompt) in [("one", "Hello."), ("two", "And again?")] {
        assert_eq!(
            ask(&source, transaction, prompt),
            ask(&alone, transaction, prompt)
        );
    }
    let told = source.bench.on("response/ask/partial");
    let of = |transaction: &str| -> Vec<String> {
        let told = told.iter().map(|seen| seen.json());
        let told = told.filter(|piece| piece["transaction"] == transaction);
        told.map(|piece| piece["text"].as_str().unwrap().to_owned())
            .collect()
    };
    let whole = source.bench.response("ask", "two")["data"]["text"].clone();
    assert_eq!(of("two").concat(), whole.as_str().unwrap());
    // What no model can do is refused in the worker's words.
    let bad = source.post(
        "/v1/chat/completions",
        &json!({ "messages": user("?"), "tools": [tool, tool] }),
    );
    assert_eq!(bad.status, 400, "{bad:?}");
    for board in [alone, source] {
        board.gemmad.stop();
    }
    worker.stop();
}
