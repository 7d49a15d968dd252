//! Frigate's events and its API, as a stub that speaks them: what is tracked is described once, and has its description.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::broker::{free_port, wait_until};
use crate::process::{Bench, Gemmad, expected, heldout};

const PICTURE: &str = "002_picture.png";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    token: Option<String>,
    body: String,
}

/// The API, on one port for all its lives.
pub(crate) struct Nvr {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

pub(crate) type Answer = (u16, &'static str, Vec<u8>);

impl Nvr {
    pub(crate) fn new() -> Nvr {
        let asked = Arc::default();
        Nvr {
            port: free_port(),
            asked,
        }
    }

    /// It comes up, and answers as `answer` says.
    pub(crate) fn start(&self, answer: impl Fn(&Asked) -> Option<Answer> + Send + 'static) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        let all = Arc::clone(&self.asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(asked) = read(&stream) else { continue };
                all.lock().unwrap().push(asked.clone());
                let Some((status, headers, body)) = answer(&asked) else {
                    // Never: it is let go when the other side gives up.
                    std::thread::spawn(move || { &stream }.read_to_end(&mut Vec::new()).ok());
                    continue;
                };
                let head = format!(
                    "HTTP/1.1 {status} It\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                (&stream).write_all(head.as_bytes()).ok();
                (&stream).write_all(&body).ok();
            }
        });
    }

    fn asked(&self, line: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.line.starts_with(line))
            .cloned()
            .collect()
    }

    fn descriptions(&self) -> Vec<(String, Value)> {
        let written = self.asked("POST /api/events/");
        let written = written.iter().filter(|asked| asked.token.is_some());
        let id = |line: &str| line.split('/').nth(3).unwrap().to_owned();
        written
            .map(|asked| (id(&asked.line), serde_json::from_str(&asked.body).unwrap()))
            .collect()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let (mut token, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let line = line.trim().to_owned();
    Some(Asked { line, token, body })
}

pub(crate) fn picture() -> Vec<u8> {
    std::fs::read(heldout("images").join(PICTURE)).unwrap()
}

/// A message as Frigate publishes it.
pub(crate) fn message(kind: &str, id: &str, more: &[(&str, Value)]) -> String {
    let mut after = json!({
        "id": id, "camera": "Front", "frame_time": 1_764_527_000.5, "label": "person", "sub_label": null, "top_score": 0.84,
        "false_positive": false, "start_time": 1_764_526_990.0, "end_time": null, "score": 0.8, "box": [424, 500, 536, 712],
        "area": 23744, "current_zones": [], "entered_zones": ["porch"], "has_snapshot": true, "has_clip": false, "active": true,
        "stationary": false, "motionless_count": 0, "position_changes": 2, "attributes": {}, "current_attributes": []
    });
    for (key, value) in more {
        after[*key] = value.clone();
    }
    json!({"type": kind, "before": after, "after": after}).to_string()
}

fn start(bench: &Bench, login: &str, port: u16, more: &str) -> Gemmad {
    let section = format!(
        "[frigate]\nenabled = true\nurl = \"http://{login}127.0.0.1:{port}\"\ncameras = [\"Front\"]\ncooldown_s = 0\nprompt = \"Describe this picture in one sentence.\"\n{more}"
    );
    bench.write_config(None, "", &section);
    let gemmad = bench.start();
    gemmad.wait_log("reading frigate/events");
    gemmad
}

#[test]
fn what_frigate_tracks_is_described_once_and_the_description_goes_back() {
    let mut bench = Bench::new();
    let nvr = Nvr::new();
    let mut gemmad = start(&bench, "ann:p%40ss@", nvr.port, "");
    let publish = |bench: &Bench, message: &str| {
        bench
            .broker
            .publish("frigate/events", message.as_bytes(), &[]);
    };
    // Before its API is up.
    publish(&bench, &message("new", "1.5-aaa", &[]));
    publish(
        &bench,
        &message("end", "0.5-zzz", &[("false_positive", json!(true))]),
    );
    publish(&bench, &message("end", "1.5-aaa", &[]));
    publish(&bench, &message("end", "1.5-aaa", &[]));
    publish(&bench, "{}");
    gemmad.wait_log("a message of frigate/events is none");
    nvr.start(|asked| {
        let is_let_in = asked.token.as_deref() == Some("Bearer jwt.of.ann");
        Some(if asked.line.starts_with("POST /api/login") {
            assert_eq!(
                serde_json::from_str::<Value>(&asked.body).unwrap(),
                json!({"user": "ann", "password": "p@ss"})
            );
            (
                200,
                "set-cookie: frigate_token=jwt.of.ann; HttpOnly; Path=/\r\n",
                b"{}".to_vec(),
            )
        } else if !is_let_in {
            (401, "", b"{\"message\": \"Unauthorized\"}".to_vec())
        } else if asked.line.starts_with("GET ") {
            (200, "content-type: image/jpeg\r\n", picture())
        } else {
            (
                200,
                "content-type: application/json\r\n",
                b"{\"success\": true}".to_vec(),
            )
        })
    });
    let event = bench.wait_for("camera/front/event", 1)[0].json();
    let caption = expected("images", PICTURE, "caption");
    assert_eq!(
        (&event["caption"], &event["trigger"]),
        (&json!(caption), &json!("frigate")),
        "{event}"
    );
    let wanted = json!({"id": "1.5-aaa", "camera": "Front", "label": "person", "zones": ["porch"]});
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&event["frigate"][key], value, "{event}");
    }
    wait_until("the description is written back", || {
        nvr.descriptions().len() == 1
    });
    assert_eq!(
        nvr.descriptions(),
        [("1.5-aaa".to_owned(), json!({"description": caption}))]
    );
    assert!(
        !gemmad.log().contains("p@ss") && !gemmad.log().contains("p%40ss"),
        "{}",
        gemmad.log()
    );
    // The broker forgets everything, and the daemon reads on.
    bench.broker.kill();
    bench.broker.restart();
    wait_until("it reads again", || {
        gemmad.log().matches("reading frigate/events").count() == 2
    });
    publish(&bench, &message("end", "1.5-aaa", &[]));
    publish(&bench, &message("end", "2.5-bbb", &[]));
    wait_until("the other is written back", || {
        nvr.descriptions().len() == 2
    });
    assert_eq!(nvr.descriptions()[1].0, "2.5-bbb");
    // Whoever asks sees what the camera sees now.
    bench.wait_for_payload("camera/front/state", "online");
    let response = bench.request("describe", "now", json!({"camera": "front"}));
    assert_eq!(response["data"]["text"], caption.as_str(), "{response}");
    assert!(!nvr.asked("GET /api/Front/latest.jpg").is_empty());
    assert_eq!(nvr.descriptions().len(), 2);
    // Switched off: nothing is described.
    bench.publish("camera/front/captions/set", "OFF");
    bench.wait_for_payload("camera/front/captions", "OFF");
    publish(&bench, &message("end", "3.5-ccc", &[]));
    gemmad.wait_log("3.5-ccc is not described: front is disabled, or its captions are off");
    assert!(gemmad.is_running());
    assert_eq!(nvr.descriptions().len(), 2);
    gemmad.stop();
}

#[test]
fn what_is_in_a_picture_comes_in_a_fixed_shape() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    nvr.start(|asked| {
        Some(match asked.line.starts_with("GET ") {
            true => (200, "content-type: image/jpeg\r\n", picture()),
            false => (200, "", b"{}".to_vec()),
        })
    });
    let gemmad = start(
        &bench,
        "",
        nvr.port,
        "structured = true\nwrite_back = false\n[queue]\nmax_tokens = 400",
    );
    let seen = message("end", "1.5-aaa", &[]);
    bench.broker.publish("frigate/events", seen.as_bytes(), &[]);
    let event = bench.wait_for("camera/front/event", 1)[0].json();
    let scene = &event["scene"];
    assert!(
        scene["people"].is_u64() && scene["package"].is_boolean() && scene["action"].is_string(),
        "{event}"
    );
    assert!(
        !event["caption"].as_str().unwrap().contains("people"),
        "{event}"
    );
    bench.assert_schemas();
    gemmad.stop();
}

#[test]
fn an_api_that_does_not_do_what_it_should_is_said() {
    let bench = Bench::new();
    let nvr = Nvr::new();
    let gemmad = start(
        &bench,
        "",
        nvr.port,
        "timeout_ms = 500\n[limits.image]\nmax_file_bytes = 100000",
    );
    nvr.start(|asked| {
        let answers: [(&str, Option<Answer>); 6] = [
            ("login", Some((401, "", Vec::new()))),
            (
                "html",
                Some((200, "content-type: text/html\r\n", b"<html>".to_vec())),
            ),
            (
                "large",
                Some((200, "content-type: image/jpeg\r\n", vec![0xff; 200_000])),
            ),
            ("moved", Some((302, "location: /login\r\n", Vec::new()))),
            ("teapot", Some((418, "", b"no\x1b[31m tea".to_vec()))),
            (
                "damaged",
                Some((
                    200,
                    "content-type: image/jpeg\r\n",
                    b"\xff\xd8\xff".to_vec(),
                )),
            ),
        ];
        let of = |name: &str| asked.line.contains(name);
        answers
            .into_iter()
            .find_map(|(name, answer)| of(name).then_some(answer))
            .flatten()
    });
    for (id, words) in [
        ("login", "wants a login (HTTP status 401)"),
        ("html", "answers with text/html of 6 bytes"),
        ("large", "answers with more than the 100000 bytes"),
        ("moved", "redirects (HTTP status 302)"),
        ("teapot", "answers with HTTP status 418: no"),
        ("damaged", "frigate: the picture of damaged"),
    ] {
        bench
            .broker
            .publish("frigate/events", message("end", id, &[]).as_bytes(), &[]);
        gemmad.wait_log(words);
    }
    assert!(!gemmad.log().contains('\u{1b}'));
    // One that never answers holds nobody up.
    bench.broker.publish(
        "frigate/events",
        message("end", "never", &[]).as_bytes(),
        &[],
    );
    let response = bench.request("stats", "a", json!({}));
    assert_eq!(response["status"], "ok", "{response}");
    gemmad.stop();
}
