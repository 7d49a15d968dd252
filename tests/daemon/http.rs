//! The HTTP door with a model behind it: what is asked is answered, in turn, and read once.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::broker::{free_port, wait_until};
use crate::http_client::{Response, connect, request};
use crate::process::{Bench, Gemmad, expected, heldout};
use crate::wyoming::{Client, mono, samples};

pub(crate) struct Door {
    pub(crate) gemmad: Gemmad,
    pub(crate) address: SocketAddr,
    pub(crate) wyoming: u16,
}

pub(crate) fn start(bench: &Bench, model: &str, more: &str) -> Door {
    let (port, wyoming) = (free_port(), free_port());
    let doors = format!(
        "[http]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\n[wyoming]\nenabled = true\nlisten = \"127.0.0.1:{wyoming}\"\n{more}"
    );
    let path = bench.write_config(None, "", &doors);
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let text = std::fs::read_to_string(&path).unwrap();
    let demo = format!("path = {:?}", models.join("demo"));
    assert!(text.contains(&demo));
    let other = format!("path = {:?}", models.join(model));
    std::fs::write(&path, text.replace(&demo, &other)).unwrap();
    Door {
        gemmad: bench.start(),
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        wyoming,
    }
}

impl Door {
    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        let headers = "Content-Type: application/json\r\n";
        Response::to(
            self.address,
            &request("POST", path, headers, body.to_string().as_bytes()),
        )
    }

    pub(crate) fn chat(&self, messages: Value, more: Value) -> Value {
        let mut asked = json!({ "messages": messages, "temperature": 0 });
        for (key, value) in more.as_object().unwrap() {
            asked[key] = value.clone();
        }
        let response = self.post("/v1/chat/completions", &asked);
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    fn get(&self, path: &str) -> Response {
        Response::to(self.address, &request("GET", path, "", b""))
    }
}

pub(crate) fn content(answer: &Value) -> String {
    let text = answer["choices"][0]["message"]["content"].as_str();
    text.unwrap_or_else(|| panic!("{answer}")).trim().to_owned()
}

pub(crate) fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

const COMMAND: &str = "Turn on the kitchen light. Return the command as JSON:";

#[test]
fn text_pictures_sound_and_schemas_in_both_protocols_and_families() {
    for model in ["demo", "demo-gemma4"] {
        let bench = Bench::new();
        let door = start(&bench, model, "");
        let whole = door.chat(user(COMMAND), json!({}));
        assert!(content(&whole).contains("turn_on"), "{whole}");
        assert!(whole["usage"]["prompt_tokens"].as_u64().unwrap() > 5);
        assert_eq!(whole["model"], model);

        // The pieces of a stream are the whole, in either protocol.
        let asked = json!({ "messages": user(COMMAND), "temperature": 0, "stream": true });
        let events = door.post("/v1/chat/completions", &asked).events();
        let pieces = events
            .iter()
            .filter_map(|data| serde_json::from_str::<Value>(data).ok());
        let streamed: String = pieces
            .filter_map(|chunk| {
                chunk["choices"][0]["delta"]["content"]
                    .as_str()
                    .map(str::to_owned)
            })
            .collect();
        assert_eq!(streamed.trim(), content(&whole));
        let asked = json!({ "model": model, "prompt": COMMAND, "options": { "temperature": 0 } });
        let lines = door.post("/api/generate", &asked).text();
        let lines: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(lines.len() > 2 && lines.last().unwrap()["done"] == true);
        let streamed: String = lines
            .iter()
            .map(|line| line["response"].as_str().unwrap())
            .collect();
        assert_eq!(streamed.trim(), content(&whole));

        let picture = STANDARD.encode(std::fs::read(heldout("images/004_picture.png")).unwrap());
        let seen = door.chat(json!([{ "role": "user", "content": [
            { "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{picture}") } },
            { "type": "text", "text": "Describe what the camera sees." },
        ]}]), json!({}));
        assert!(!content(&seen).is_empty());
        if model == "demo" {
            assert_eq!(
                content(&seen),
                expected("images", "004_picture.png", "caption")
            );
        }
        let asked = json!({ "model": model, "stream": false, "options": { "temperature": 0 }, "messages": [
            { "role": "user", "content": "", "images": [picture] },
            { "role": "user", "content": "Describe what the camera sees." },
        ]});
        let described = door.post("/api/chat", &asked).json();
        assert_eq!(
            described["message"]["content"].as_str().unwrap().trim(),
            content(&seen)
        );

        let sound = STANDARD.encode(std::fs::read(heldout("audio/003_both.wav")).unwrap());
        let heard = door.chat(
            json!([{ "role": "user", "content": [
                { "type": "input_audio", "input_audio": { "data": sound, "format": "wav" } },
                { "type": "text", "text": "Transcribe the following speech segment in English:" },
            ]}]),
            json!({}),
        );
        if model == "demo" {
            assert_eq!(
                content(&heard),
                expected("audio", "003_both.wav", "transcript")
            );
        }

        let schema = json!({ "type": "object", "properties": { "n": { "enum": [6, 7] } }, "required": ["n"], "additionalProperties": false });
        let format =
            json!({ "type": "json_schema", "json_schema": { "name": "n", "schema": schema } });
        let shaped = content(&door.chat(user("?"), json!({ "response_format": format })));
        let shaped: Value = serde_json::from_str(&shaped).unwrap();
        assert!(
            shaped == json!({ "n": 6 }) || shaped == json!({ "n": 7 }),
            "{shaped}"
        );
        let asked = json!({ "model": model, "prompt": "?", "format": schema, "stream": false });
        let shaped = door.post("/api/generate", &asked).json();
        let shaped: Value = serde_json::from_str(shaped["response"].as_str().unwrap()).unwrap();
        assert!(shaped["n"].is_u64());

        let cut = door.chat(user(COMMAND), json!({ "max_tokens": 2 }));
        assert_eq!(cut["choices"][0]["finish_reason"], "length");
        assert_eq!(cut["usage"]["completion_tokens"], 2);
        let stopped = door.chat(user(COMMAND), json!({ "stop": ["turn"] }));
        assert!(
            !content(&stopped).contains("turn") && stopped["choices"][0]["finish_reason"] == "stop"
        );
        let seeded = json!({ "temperature": 1.5, "seed": 5, "max_tokens": 12 });
        let twice = [(); 2].map(|()| content(&door.chat(user("Hello."), seeded.clone())));
        assert_eq!(twice[0], twice[1]);

        let refused = door.post(
            "/v1/chat/completions",
            &json!({ "messages": user(&"word ".repeat(9000)) }),
        );
        assert_eq!(refused.status, 400);
        let message = refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains("tokens") && message.contains("4096"),
            "{message}"
        );
        let bad = json!({ "type": "json_schema", "json_schema": { "schema": { "type": "object", "properties": { "a": { "$ref": "http://x/y" } } } } });
        for stream in [false, true] {
            let asked = json!({ "messages": user("?"), "response_format": bad, "stream": stream });
            let refused = door.post("/v1/chat/completions", &asked);
            assert_eq!(
                refused.status, 400,
                "never without its grammar: {refused:?}"
            );
        }
        let tool = json!({ "type": "function", "function": { "name": "light" } });
        let twice = json!({ "messages": user("?"), "tools": [tool, tool] });
        let refused = door.post("/v1/chat/completions", &twice);
        assert_eq!(refused.status, 400, "{refused:?}");
        // The last is a bomb: few bytes that promise more pixels than there is memory for.
        let bomb = bomb();
        for picture in [
            "aaaa",
            &STANDARD.encode(b"\x89PNG\r\n\x1a\n not a picture"),
            &bomb,
        ] {
            let asked = json!({ "model": model, "prompt": "?", "images": [picture] });
            assert_eq!(door.post("/api/generate", &asked).status, 400);
        }
        door.gemmad.stop();
    }
}

/// A PNG whose header promises 60,000 x 60,000 pixels.
fn bomb() -> String {
    let mut picture = std::fs::read(heldout("images/013_combo.png")).unwrap();
    // Length, name, then width and height, and a checksum over name and data.
    picture[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    picture[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let mut sum = u32::MAX;
    for &byte in &picture[12..29] {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 * (sum & 1));
        }
    }
    picture[29..33].copy_from_slice(&(!sum).to_be_bytes());
    STANDARD.encode(picture)
}

#[test]
fn a_slice_is_chosen_by_the_models_name() {
    let bench = Bench::new();
    let door = start(&bench, "demo", "");
    let listed = door.get("/v1/models").json();
    let ids: Vec<&str> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["demo", "demo:half"]);
    let answer = |id: &&str| content(&door.chat(user(COMMAND), json!({ "model": id })));
    let answers: Vec<String> = ids.iter().map(answer).collect();
    let by_bus = bench.request(
        "ask",
        "half",
        json!({ "prompt": COMMAND, "matformer": "half", "temperature": 0.0 }),
    );
    assert_eq!(by_bus["data"]["text"].as_str().unwrap().trim(), answers[1]);
    door.gemmad.stop();
}

/// A file of mono sound in 16 kHz and 16 bit.
pub(crate) fn wav(sound: Vec<u8>) -> Vec<u8> {
    let mut wav = std::fs::read(heldout("audio").join("009_both.wav")).unwrap()[..44].to_vec();
    wav[4..8].copy_from_slice(&(sound.len() as u32 + 36).to_le_bytes());
    wav[40..44].copy_from_slice(&(sound.len() as u32).to_le_bytes());
    wav.extend(sound);
    wav
}

/// What a file of sound is written down as.
pub(crate) fn dictate(address: SocketAddr, wav: &[u8], format: &str) -> Response {
    let mut body = format!("--b\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\n{format}\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n").into_bytes();
    body.extend_from_slice(wav);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let headers = "Content-Type: multipart/form-data; boundary=b\r\n";
    let asked = request("POST", "/v1/audio/transcriptions", headers, &body);
    Response::to(address, &asked)
}

/// Speech of any length, with a pause in which nobody speaks.
#[test]
fn sound_of_any_length_is_written_down_piece_by_piece() {
    let bench = Bench::new();
    let door = start(&bench, "demo-gemma4", "");
    let (first, second) = ("009_both.wav", "017_combo.wav");
    let mut sound = samples(first);
    // The longest that is heard at once ends in the pause, as late as it can.
    sound.resize(30 * 32_000, 0);
    sound.extend(samples(second));
    let seconds = sound.len() as f64 / 32_000.0;
    let wav = wav(sound);
    let form = |wav: &[u8], format: &str| dictate(door.address, wav, format);
    let told = form(&wav, "verbose_json").json();
    let text = told["text"].as_str().unwrap();
    // So small a model hears other words in a clip that ends in half a minute of silence; the command line, which is compared with the
    // reference elsewhere, cuts alike.
    let file = bench.dir.path().join("two.wav");
    std::fs::write(&file, &wav).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo-gemma4");
    let mut command = assert_cmd::Command::cargo_bin("gemmad").unwrap();
    let command = command.arg("transcribe").arg("--model").arg(model);
    let said = command.arg(&file).output().unwrap();
    assert_eq!(text, String::from_utf8(said.stdout).unwrap().trim());
    assert!(
        text.ends_with(&expected("audio", second, "transcript")),
        "{text}"
    );
    assert_eq!(told["duration"], seconds);
    let segments = told["segments"].as_array().unwrap();
    assert!(segments.len() >= 2, "{told}");
    let quiet = form(&[&wav[..44], &vec![0; 64_000][..]].concat(), "json");
    assert_eq!(quiet.json()["text"], "");
    door.gemmad.stop();
}

#[test]
fn what_came_before_is_not_read_again_whoever_asked() {
    let bench = Bench::new();
    let door = start(&bench, "demo-gemma4", "");
    let system = "You run the house. Rooms: kitchen, hall, garden, attic, cellar. Things: lamp, fan, blind, heater, door, window. Answer shortly, and name the room first, then the thing.";
    let asked = |turns: &[(&str, &str)]| {
        let mut messages = vec![json!({ "role": "system", "content": system })];
        messages.extend(
            turns
                .iter()
                .map(|(role, text)| json!({ "role": role, "content": text })),
        );
        door.chat(Value::Array(messages), json!({ "max_tokens": 8 }))
    };
    let cached = |answer: &Value| {
        answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap()
    };
    let first = asked(&[(
        "user",
        "Where is the lamp that we bought for the reading corner last summer, and is it switched on now?",
    )]);
    assert_eq!(cached(&first), 0);
    let prompt = first["usage"]["prompt_tokens"].as_u64().unwrap();
    // Somebody else, with the same instructions.
    let other = asked(&[("user", "Is the window open?")]);
    assert!(cached(&other) > 40 && cached(&other) < prompt, "{other}");
    // The conversation goes on.
    let said = content(&first);
    let turns = [
        (
            "user",
            "Where is the lamp that we bought for the reading corner last summer, and is it switched on now?",
        ),
        ("assistant", said.as_str()),
        (
            "user",
            "And the fan, which my sister brought along in the spring: where is that one standing now?",
        ),
    ];
    let second = asked(&turns);
    assert!(cached(&second) >= cached(&other), "{second}");
    let again = asked(
        &[
            &turns[..],
            &[("assistant", "Hall."), ("user", "And the blind?")],
        ]
        .concat(),
    );
    assert!(cached(&again) > prompt, "the first turn, too: {again}");
    // What was read before changes nothing of the answer.
    let alone = Bench::new();
    let fresh = start(&alone, "demo-gemma4", "[prefix_cache]\nmemory_mib = 0");
    let plain = fresh.chat(
        json!([{ "role": "system", "content": system }, { "role": "user", "content": "Is the window open?" }]),
        json!({ "max_tokens": 8 }),
    );
    assert_eq!((content(&plain), cached(&plain)), (content(&other), 0));
    fresh.gemmad.stop();
    door.gemmad.stop();
}

/// A chat that takes long never makes a spoken command wait, goes on afterwards, and is the answer that it would have been.
#[test]
fn an_answer_over_http_gives_way_to_speech_and_to_buttons() {
    let bench = Bench::new();
    let door = start(&bench, "demo", "");
    let schema = json!({ "type": "array", "minItems": 600, "maxItems": 600, "items": { "enum": ["light", "lamp"] } });
    let asked = json!({
        "messages": user("?"), "stream": true, "temperature": 0, "max_tokens": 2048,
        "response_format": { "type": "json_schema", "json_schema": { "schema": schema } },
    });
    let body = asked.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: pi\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = connect(door.address);
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(
        lines.any(|line| line.contains("light") || line.contains("lamp")),
        "it has begun"
    );

    let mut client = Client::connect(door.wyoming);
    client.send("transcribe", json!({ "language": "en" }), &[]);
    client.speak(&mono(), &samples("009_both.wav"));
    client.send("audio-stop", json!({}), &[]);
    let said = expected("audio", "009_both.wav", "transcript");
    assert_eq!(
        client.receive(),
        Some((
            "transcript".to_owned(),
            json!({ "language": "en", "text": said })
        ))
    );
    let button = bench.request(
        "ask",
        "button",
        json!({ "prompt": "?", "choices": ["cat", "dog"] }),
    );
    assert_eq!(button["status"], "ok", "{button}");
    let stats = bench.request("stats", "stats", json!({}));
    assert_eq!(
        stats["data"]["details"]["queues"]["jobs"], 1,
        "the chat is not over yet"
    );

    let rest: Vec<String> = lines.take_while(|line| line != "data: [DONE]").collect();
    assert!(
        rest.iter()
            .any(|line| line.contains("\"finish_reason\":\"stop\"")),
        "{:?}",
        rest.last()
    );
    door.gemmad.stop();
}

#[test]
fn a_client_that_goes_leaves_no_work_behind() {
    let bench = Bench::new();
    let door = start(&bench, "demo", "");
    let schema =
        json!({ "type": "array", "minItems": 900, "items": { "enum": ["light", "lamp"] } });
    let asked = json!({ "model": "demo", "prompt": "?", "format": schema });
    let body = asked.to_string();
    let head = format!(
        "POST /api/generate HTTP/1.1\r\nHost: pi\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let asked = std::cell::Cell::new(0);
    let jobs = || {
        asked.set(asked.get() + 1);
        let stats = bench.request("stats", &format!("t{}", asked.get()), json!({}));
        stats["data"]["details"]["queues"]["jobs"].as_u64().unwrap()
    };
    let mut client = connect(door.address);
    client.write_all(head.as_bytes()).unwrap();
    wait_until("it is worked on", || jobs() == 1);
    drop(client);
    wait_until("nothing is left", || jobs() == 0);
    let metrics = door.get("/metrics").text();
    assert!(
        metrics.contains("gemmad_jobs_total{kind=\"chat\",state=\"cancelled\"} 1"),
        "{metrics}"
    );
    door.gemmad.stop();
}
