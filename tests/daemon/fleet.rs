//! Boards that share the work: real NATS server, and a daemon for each.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::wait_until;
use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::frigate::{Nvr, message, picture};
use crate::nats::Nats;
use crate::process::{Bench, Gemmad, expected, heldout};

/// `[fleet]` of a board.
pub(crate) fn fleet(nats: &Nats, role: &str, more: &str) -> String {
    format!(
        "[fleet]\nenabled = true\nurl = \"{}\"\nrole = \"{role}\"\n{more}\n",
        nats.url()
    )
}

/// A board that does nothing but work for others, with a demo model.
pub(crate) struct Helper {
    dir: TempDir,
}

impl Helper {
    pub(crate) fn new(nats: &Nats, node: &str) -> Helper {
        Helper::with(nats, node, "demo", 1)
    }

    /// With another model, and so many jobs at a time.
    pub(crate) fn with(nats: &Nats, node: &str, model: &str, answers: usize) -> Helper {
        let dir = tempfile::tempdir().unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let model = models.join(model);
        let text = format!(
            "[mqtt]\nnode = \"{node}\"\n[dbus]\nenabled = false\n[degrade]\nhot_c = 0\nmemory_pressure_percent = 0\n\
             [threads]\ncount = 1\n[model]\npath = {model:?}\n[queue]\nmax_tokens = 3000\nanswers = {answers}\n\
             [http]\nmax_tokens = 3000\n[log]\nlevel = \"debug\"\n{}",
            fleet(nats, "worker", "")
        );
        std::fs::write(dir.path().join("gemmad.toml"), text).unwrap();
        Helper { dir }
    }

    pub(crate) fn start(&self) -> Gemmad {
        Gemmad::spawn(self.dir.path(), &[])
    }

    /// The same; the model says what a script has it say.
    pub(crate) fn start_scripted(&self, script: &Value) -> Gemmad {
        let path = self.dir.path().join("script.json");
        std::fs::write(&path, script.to_string()).unwrap();
        let script = ("GEMMAD_SCRIPT", path.to_str().unwrap());
        Gemmad::spawn(self.dir.path(), &[script])
    }
}

/// A microphone of that name, at which a clip is said.
fn microphone(bench: &Bench, clip: &str) -> &'static str {
    write_config(bench.dir.path(), &["hall"]);
    write_speech(&raw_file(bench.dir.path(), "hall"), clip);
    "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n"
}

/// A board without a model, whose camera sees the picture of a file every two seconds.
fn source(bench: &Bench, nats: &Nats, file: &str, more: &str) {
    let directory = bench.dir.path().join("porch");
    std::fs::create_dir(&directory).unwrap();
    std::fs::copy(heldout("images").join(file), directory.join(file)).unwrap();
    let text = format!(
        "[mqtt]\nenabled = true\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\nmax_payload_bytes = 1048576\n\
         [dbus]\nenabled = false\n[model]\npath = \"/nowhere\"\n[queue]\nmax_tokens = 3000\n[log]\nlevel = \"debug\"\n\
         [[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = {directory:?}\nevery_s = 2\ncooldown_s = 1\n\
         [camera.motion]\nenabled = false\n{}{more}",
        bench.broker.port,
        fleet(nats, "source", "")
    );
    std::fs::write(bench.dir.path().join("gemmad.toml"), text).unwrap();
}

pub(crate) fn fleet_health(bench: &Bench) -> Value {
    let stats = bench.request("stats", &ulid::Ulid::generate().to_string(), json!({}));
    stats["data"]["details"]["fleet"].clone()
}

#[test]
fn a_board_without_a_model_has_its_pictures_and_questions_answered_by_another() {
    let bench = Bench::new();
    let nats = Nats::start(bench.dir.path());
    source(&bench, &nats, "002_picture.png", "");
    let gemmad = bench.start();
    // What is asked waits for a worker to come.
    let ask = json!({"prompt": "Turn on the kitchen light. Return the command as JSON:", "stream": true, "transaction": "early"});
    bench.publish("request/ask", &ask.to_string());
    let helper = Helper::new(&nats, "cellar");
    let worker = helper.start();
    let early = bench.response("ask", "early");
    assert_eq!(early["status"], "ok", "{early}");
    let text = early["data"]["text"].as_str().unwrap();
    assert!(text.contains("turn_on"), "{early}");
    let pieces = bench.on("response/ask/partial");
    let pieces: Vec<String> = pieces
        .iter()
        .map(|seen| seen.json()["text"].as_str().unwrap().to_owned())
        .collect();
    assert!(pieces.len() > 2, "{pieces:?}");
    assert_eq!(pieces.concat(), text);
    // Answered by the other board, told by this one.
    let wanted = expected("images", "002_picture.png", "caption");
    let response = bench.request("describe", "t1", json!({"camera": "porch"}));
    assert_eq!(response["data"]["text"], wanted.as_str(), "{response}");
    let events = bench.wait_for("camera/porch/event", 3);
    for seen in &events {
        let event = seen.json();
        assert_eq!(
            (&event["caption"], &event["model"], &event["source"]),
            (&json!(wanted), &json!("demo"), &json!("porch")),
            "{event}"
        );
        assert!(event["timing"]["encode_ms"].as_f64().unwrap() > 0.0);
    }
    let ids: std::collections::BTreeSet<String> = events
        .iter()
        .map(|seen| seen.json()["id"].to_string())
        .collect();
    assert_eq!(ids.len(), events.len(), "each is told once");
    bench.wait_for("camera/porch/image", 1);
    // Attached files, larger than a message may be, and such as are none.
    let image = STANDARD.encode(std::fs::read(heldout("images/004_picture.png")).unwrap());
    let seen = bench.request(
        "ask",
        "image",
        json!({"prompt": "Describe what the camera sees.", "image": image}),
    );
    let wanted = expected("images", "004_picture.png", "caption");
    assert_eq!(seen["data"]["text"].as_str().unwrap().trim(), wanted);
    let clip = std::fs::read(heldout("audio/003_both.wav")).unwrap();
    let heard = bench.request(
        "transcribe",
        "clip",
        json!({"audio": STANDARD.encode(&clip)}),
    );
    let wanted = expected("audio", "003_both.wav", "transcript");
    assert_eq!(heard["data"]["text"].as_str().unwrap().trim(), wanted);
    let mut long = clip;
    long.resize(400 << 10, 0);
    let long = bench.request(
        "transcribe",
        "long",
        json!({"audio": STANDARD.encode(long)}),
    );
    assert_eq!(
        long["data"]["text"].as_str().unwrap().trim(),
        wanted,
        "{long}"
    );
    let damaged = bench.request("describe", "damaged", json!({"image": "Zm9vYmE="}));
    assert_eq!(damaged["error"]["code"], "invalid_image", "{damaged}");
    let none = bench.request("ask", "slice", json!({"prompt": "?", "matformer": "nine"}));
    assert_eq!(none["error"]["code"], "not_found", "{none}");

    // Ended by whoever asked, at the other board too, and by its own limit.
    bench.long_question("tedious", 2000);
    wait_until("a worker is busy", || fleet_health(&bench)["busy"] == 1);
    let cancelled = bench.request("cancel", "end", json!({"target": "tedious"}));
    assert_eq!(cancelled["status"], "ok", "{cancelled}");
    assert_eq!(
        bench.response("ask", "tedious")["error"]["code"],
        "cancelled"
    );
    let again = bench.request("ask", "again", json!({"prompt": "Hello.", "max_tokens": 2}));
    assert_eq!(again["status"], "ok", "{again}");
    let health = fleet_health(&bench);
    assert_eq!(
        (&health["role"], &health["connected"], &health["workers"]),
        (&json!("source"), &json!(true), &json!(1)),
        "{health}"
    );
    assert_eq!(health["poison"], 0);
    bench.assert_schemas();
    worker.stop();
    let late = bench.request("ask", "late", json!({"prompt": "?", "timeout_ms": 300}));
    assert_eq!(late["error"]["code"], "timeout", "{late}");
    let words = late["error"]["message"].as_str().unwrap();
    assert!(words.contains("worker"), "{words}");
    gemmad.stop();
}

#[test]
fn what_is_said_at_a_board_without_a_model_is_written_down_by_another() {
    let bench = Bench::new();
    let nats = Nats::start(bench.dir.path());
    let helper = Helper::new(&nats, "cellar");
    let worker = helper.start();
    let hall = microphone(&bench, "009_both.wav");
    source(&bench, &nats, "002_picture.png", hall);
    let gemmad = bench.start();
    let event = bench.wait_for("mic/hall/event", 1)[0].json();
    let wanted = expected("audio", "009_both.wav", "transcript");
    assert_eq!(event["event_type"], "transcript", "{event}");
    assert_eq!(event["text"], wanted.as_str());
    assert_eq!(
        (&event["source"], &event["model"]),
        (&json!("hall"), &json!("demo"))
    );
    assert!(event["audio_s"].as_f64().unwrap() > 1.0, "{event}");
    assert!(event["timing"]["encode_ms"].as_f64().unwrap() > 0.0);
    bench.wait_for("mic/hall/transcript", 1);
    bench.assert_schemas();
    gemmad.stop();
    worker.stop();
}

#[test]
fn a_worker_that_dies_is_replaced_by_another_and_status_tells_of_both() {
    let bench = Bench::new();
    let nats = Nats::start(bench.dir.path());
    source(&bench, &nats, "002_picture.png", "");
    let gemmad = bench.start();
    let (first, second) = (Helper::new(&nats, "attic"), Helper::new(&nats, "cellar"));
    let doomed = first.start();
    bench.long_question("tedious", 600);
    gemmad.wait_log("attic has job");
    wait_until("the worker is busy", || fleet_health(&bench)["busy"] == 1);
    doomed.kill();
    let worker = second.start();
    let tedious = bench.response("ask", "tedious");
    assert_eq!(tedious["status"], "ok", "{tedious}");
    let told = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_gemmad"))
            .args(arguments)
            .arg("--config")
            .arg(bench.dir.path().join("gemmad.toml"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    // Boards tell of themselves now and then.
    wait_until("the new worker tells of itself", || {
        told(&["fleet", "status"]).contains("cellar")
    });
    let status = told(&["fleet", "status"]);
    for words in [
        "pi (source, gemmad ",
        "cellar (worker, gemmad ",
        "demo that sees and hears",
        "0 poison",
    ] {
        assert!(status.contains(words), "{status}");
    }
    assert!(!status.contains("attic"), "{status}");
    let status: Value = serde_json::from_str(&told(&["fleet", "status", "--json"])).unwrap();
    assert_eq!(status["boards"].as_array().unwrap().len(), 2, "{status}");
    let doctor = told(&["doctor"]);
    assert!(
        doctor.contains("ok       fleet: \"home\" can be joined; cellar work for it"),
        "{doctor}"
    );
    worker.stop();
    gemmad.stop();
}

#[test]
fn what_frigate_sees_is_described_by_another_board_in_a_fixed_shape() {
    let bench = Bench::new();
    let nats = Nats::start(bench.dir.path());
    let helper = Helper::new(&nats, "cellar");
    let worker = helper.start();
    let nvr = Nvr::new();
    nvr.start(|_| Some((200, "content-type: image/jpeg\r\n", picture())));
    let section = format!(
        "[frigate]\nenabled = true\nurl = \"http://127.0.0.1:{}\"\ncameras = [\"Front\"]\nstructured = true\nwrite_back = false\n",
        nvr.port
    );
    source(&bench, &nats, "002_picture.png", &section);
    let gemmad = bench.start();
    gemmad.wait_log("reading frigate/events");
    let seen = message("end", "1.5-aaa", &[]);
    bench.broker.publish("frigate/events", seen.as_bytes(), &[]);
    let event = bench.wait_for("camera/front/event", 1)[0].json();
    let scene = &event["scene"];
    assert!(
        scene["people"].is_u64() && scene["package"].is_boolean() && scene["action"].is_string(),
        "{event}"
    );
    assert_eq!(event["model"], "demo", "{event}");
    bench.assert_schemas();
    gemmad.stop();
    worker.stop();
}
