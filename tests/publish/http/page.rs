//! What the page asks and hears, and the figures.

use std::io::{BufRead, BufReader, Write};

use gemmad::media::DeviceState;
use gemmad::report::{CameraInfo, Info, MicrophoneInfo, Payload, Report, Switch};
use serde_json::{Value, json};

use super::{Bench, hello};

const KEY: &str = "0123456789abcdef";

fn info() -> Info {
    let named = |id: &str| (id.to_owned(), id.to_uppercase(), String::new());
    let (id, name, device) = named("kitchen");
    let microphone = MicrophoneInfo {
        id,
        name,
        device,
        wakes: false,
    };
    let (id, name, device) = named("door");
    let camera = CameraInfo { id, name, device };
    Info {
        version: "1.2.3".to_owned(),
        microphones: vec![microphone],
        cameras: vec![camera],
        ..Info::default()
    }
}

#[test]
fn a_browser_gets_the_page_with_nothing_from_elsewhere() {
    let bench = Bench::with(
        |options| options.frame_ancestors = vec!["https://ha.local".to_owned()],
        hello,
    );
    let page = bench.send("GET", "/", "Accept: text/html,*/*\r\n", b"");
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("frame-ancestors https://ha.local")
    );
    assert!(!policy.contains("unsafe"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let mut size = page.body.len();
    for (path, kind) in [
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
    ] {
        let file = bench.get(path);
        assert_eq!(file.header("content-type"), Some(kind));
        size += file.body.len();
    }
    assert!(size < 80_000, "{size} bytes");
}

#[test]
fn the_state_is_what_was_told_and_events_go_on_from_there() {
    let bench = Bench::new();
    bench.publish(Report::Info(Box::new(info())));
    bench.publish(Report::MicrophoneState {
        id: "kitchen".to_owned(),
        state: DeviceState::Off,
    });
    let reason = "it is unplugged".to_owned();
    bench.publish(Report::CameraState {
        id: "door".to_owned(),
        state: DeviceState::Offline { reason },
    });
    crate::broker::wait_until("the states are known", || {
        bench.get("/page/state").json()["doctor"]
            .as_array()
            .is_some_and(|doctor| !doctor.is_empty())
    });
    let state = bench.get("/page/state").json();
    assert_eq!(
        (&state["version"], &state["model"], &state["has_key"]),
        (&json!("1.2.3"), &json!("demo"), &json!(false))
    );
    let microphone = &state["microphones"][0];
    assert_eq!(
        (&microphone["name"], &microphone["muted"]),
        (&json!("KITCHEN"), &json!(true))
    );
    assert_eq!(state["cameras"][0]["state"], "offline");
    assert_eq!(state["doctor"][0]["check"], "camera door");
    assert_eq!(state["health"]["soc_temp_c"], 51.5);

    let mut stream = bench.connect();
    stream
        .write_all(b"GET /events HTTP/1.1\r\nHost: pi\r\n\r\n")
        .unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "retry: 2000"));
    bench.publish(Report::Level {
        id: "kitchen".to_owned(),
        dbfs: f32::NEG_INFINITY,
    });
    assert!(lines.any(|line| line == "event: level"));
    let data = lines.next().unwrap();
    let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(data, json!({ "id": "kitchen", "dbfs": -120.0 }));
}

#[test]
fn buttons_do_what_the_other_doors_do() {
    let bench = Bench::new();
    for action in ["mute", "unmute", "press"] {
        let response = bench.post(&format!("/page/microphones/kitchen/{action}"), &json!({}));
        assert_eq!(response.status, 204, "{action}");
    }
    let described = bench.post("/page/cameras/door/describe", &json!({}));
    assert_eq!(
        (described.status, &described.json()["text"]),
        (200, &json!("Hello there."))
    );
    let asked = bench.asked();
    assert!(matches!(
        &asked[0],
        Payload::Set(Switch::Mute { muted: true, .. })
    ));
    assert!(matches!(
        &asked[1],
        Payload::Set(Switch::Mute { muted: false, .. })
    ));
    assert!(matches!(&asked[2], Payload::Listen { .. }));
    assert!(matches!(&asked[3], Payload::Describe(_)));
    assert_eq!(
        bench.post("/page/cameras/door/explode", &json!({})).status,
        404
    );
    assert_eq!(bench.get("/page/cameras/door/picture").status, 404);
}

#[test]
fn the_key_is_given_once_and_is_a_cookie_then() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, KEY).unwrap();
    let bench = Bench::with(|options| options.api_key_file = Some(file), hello);
    for path in ["/page/state", "/events", "/metrics"] {
        assert_eq!(bench.get(path).status, 401, "{path}");
    }
    for path in ["/", "/page.js", "/page.css", "/health"] {
        assert_eq!(bench.get(path).status, 200, "{path}");
    }
    assert_eq!(
        bench
            .post("/page/login", &json!({ "key": "0123456789abcdeF" }))
            .status,
        401
    );
    let login = bench.post("/page/login", &json!({ "key": KEY }));
    assert_eq!(login.status, 204);
    let cookie = login.header("set-cookie").unwrap();
    assert!(cookie.contains("httponly; samesite=strict") && !cookie.contains(KEY));
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(bench.send("GET", "/page/state", &cookie, b"").status, 200);
    assert_eq!(
        bench
            .send("GET", "/page/state", "Cookie: gemmad=0\r\n", b"")
            .status,
        401
    );
}

#[test]
fn figures_are_as_prometheus_reads_them() {
    let bench = Bench::new();
    bench.get("/v1/models");
    bench.get("/nowhere/at/all");
    let metrics = bench.get("/metrics");
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = metrics.text();
    for line in [
        "gemmad_temperature_celsius 51.5",
        "gemmad_queue_jobs 1",
        "gemmad_ple_row_reads_total 4",
        "gemmad_dropped_total{kind=\"request\"} 3",
        "gemmad_early_answers_total 5",
        "gemmad_early_answers_thrown_away_total 2",
        "gemmad_group_resident_bytes{group=\"text\"} 1572864",
        "gemmad_http_requests_total{path=\"/v1/models\",status=\"200\"} 1",
        "gemmad_http_requests_total{path=\"none\",status=\"404\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // Each name is explained before its first value, once.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert_eq!(
            text.matches(&format!("# TYPE {name} ")).count(),
            1,
            "{name}"
        );
    }
}
