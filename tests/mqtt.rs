//! MQTT against a real mosquitto, watched by mosquitto_sub: what is published, what is accepted, and what faults do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "mqtt/bench.rs"]
mod bench;
#[path = "common/broker.rs"]
mod broker;
#[path = "mqtt/faults.rs"]
mod faults;
#[path = "common/payloads.rs"]
mod payloads;
#[path = "mqtt/requests.rs"]
mod requests;
#[path = "mqtt/schemas.rs"]
mod schemas;

use std::collections::{BTreeMap, BTreeSet};

use assert_cmd::Command;
use gemmad::config;
use gemmad::report::{Health, Report, SourceState};
use serde_json::Value;

use bench::{Broker, Gate, Node, Observer, Seen, caption, config, info, retained, voice};

/// Every state of the sample node.
fn publish_states(node: &Node) {
    let id = || "kitchen".to_owned();
    node.publish(Report::Health(Box::new(Health {
        schema: 1,
        state: "ready".to_owned(),
        ..Health::default()
    })));
    let state = SourceState::Off;
    node.publish(Report::MicrophoneState { id: id(), state });
    node.publish(Report::Speech {
        id: id(),
        speaking: true,
    });
    let state = SourceState::Online;
    node.publish(Report::CameraState { id: id(), state });
    node.publish(Report::Motion {
        id: id(),
        moving: false,
    });
    node.publish(Report::Captions {
        id: id(),
        enabled: true,
    });
    node.publish(Report::Matformer("e4b".to_owned()));
    node.publish(Report::MaxTokens(256));
}

fn topics(seen: &[Seen]) -> BTreeSet<&str> {
    seen.iter().map(|seen| seen.topic.as_str()).collect()
}

#[test]
fn every_report_has_its_topic_and_only_what_lasts_is_retained() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let node = Node::start(&config(broker.port));
    node.wait_connected();
    publish_states(&node);
    for (topic, payload) in [
        ("state", "online"),
        ("mic/kitchen/state", "muted"),
        ("mic/kitchen/mute", "ON"),
        ("mic/kitchen/speech", "ON"),
        ("camera/kitchen/state", "online"),
        ("camera/kitchen/enabled", "ON"),
        ("camera/kitchen/motion", "OFF"),
        ("camera/kitchen/captions", "ON"),
        ("matformer", "e4b"),
        ("max_tokens", "256"),
    ] {
        let seen = &observer.wait_for(&format!("gemmad/pi/{topic}"), 1)[0];
        assert_eq!(
            (seen.text(), seen.retain, seen.qos),
            (payload, true, 1),
            "{topic}"
        );
    }
    node.publish(Report::MicrophoneState {
        id: "kitchen".to_owned(),
        state: SourceState::Online,
    });
    let long = "ä".repeat(300);
    node.publish(voice("01JD0000000000000000000000", &long));
    node.publish(caption("a cat on a table", Some(b"\xff\xd8picture")));
    node.wait_empty();
    let seen = |topic: &str| observer.wait_for(&format!("gemmad/pi/{topic}"), 1)[0].clone();
    // The first one is empty: muting takes back what an earlier run may have left.
    let transcript = observer.wait_for("gemmad/pi/mic/kitchen/transcript", 2)[1].clone();
    assert!(transcript.retain);
    assert_eq!(transcript.json()["text"], long.as_str());
    let short = transcript.json()["short"].as_str().unwrap().to_owned();
    assert_eq!(short.chars().count(), 255);
    for (topic, event_type) in [
        ("mic/kitchen/event", "transcript"),
        ("camera/kitchen/event", "caption"),
    ] {
        let event = seen(topic);
        assert_eq!((event.retain, event.qos), (false, 1), "{topic}");
        assert_eq!(event.json()["event_type"], event_type);
    }
    let picture = seen("camera/kitchen/image");
    assert_eq!((picture.retain, picture.qos), (true, 0));
    assert_eq!(picture.payload, b"\xff\xd8picture");
    assert_eq!(seen("info").json()["matformer_options"][0], "e2b");
    assert_eq!(seen("health").json()["state"], "ready");
    observer.wait_for("gemmad/pi/announced", 1);
    let kept = retained(&broker);
    let expected = BTreeSet::from([
        "gemmad/pi/announced",
        "gemmad/pi/state",
        "gemmad/pi/info",
        "gemmad/pi/health",
        "gemmad/pi/matformer",
        "gemmad/pi/max_tokens",
        "gemmad/pi/mic/kitchen/state",
        "gemmad/pi/mic/kitchen/mute",
        "gemmad/pi/mic/kitchen/speech",
        "gemmad/pi/mic/kitchen/transcript",
        "gemmad/pi/camera/kitchen/state",
        "gemmad/pi/camera/kitchen/enabled",
        "gemmad/pi/camera/kitchen/motion",
        "gemmad/pi/camera/kitchen/captions",
        "gemmad/pi/camera/kitchen/caption",
        "gemmad/pi/camera/kitchen/image",
        "homeassistant/device/gemmad_pi/config",
        "homeassistant/device/gemmad_pi_mic_kitchen/config",
        "homeassistant/device/gemmad_pi_camera_kitchen/config",
    ]);
    assert_eq!(topics(&kept), expected);
    // Without a goodbye the broker says that the node is gone.
    node.kill();
    observer.wait_for_payload("gemmad/pi/state", "offline");
}

#[test]
fn what_is_kept_follows_its_event_and_goes_when_the_microphone_is_muted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    // Shut at first, so that everything waits at once.
    let gate = Gate::to(broker.port);
    gate.set_open(false);
    let node = Node::start(&config(gate.port));
    let microphone = |state| Report::MicrophoneState {
        id: "kitchen".to_owned(),
        state,
    };
    node.publish(microphone(SourceState::Online));
    node.publish(voice("1", "turn on the lamp"));
    node.publish(caption("a cat", None));
    node.publish(voice("2", "turn off the lamp"));
    gate.set_open(true);
    observer.wait_for("gemmad/pi/mic/kitchen/transcript", 1);
    observer.wait_for("gemmad/pi/camera/kitchen/caption", 1);
    node.publish(caption("a dog", Some(b"picture")));
    node.publish(voice("3", "open the door"));
    observer.wait_for("gemmad/pi/mic/kitchen/transcript", 2);
    let all = observer.all();
    let at = |topic: &str, words: &str| {
        let fits = |seen: &Seen| {
            seen.topic == format!("gemmad/pi/{topic}")
                && String::from_utf8_lossy(&seen.payload).contains(words)
        };
        all.iter()
            .position(fits)
            .unwrap_or_else(|| panic!("{topic}: {words}"))
    };
    for (source, words) in [
        ("mic/kitchen/transcript", "turn off"),
        ("mic/kitchen/transcript", "open"),
        ("camera/kitchen/caption", "cat"),
        ("camera/kitchen/caption", "dog"),
    ] {
        let event = source
            .replace("transcript", "event")
            .replace("caption", "event");
        assert!(at(&event, words) < at(source, words), "{source}: {words}");
    }
    assert!(at("camera/kitchen/image", "picture") < at("camera/kitchen/event", "dog"));

    let kept = || {
        let kept = retained(&broker);
        kept.iter().any(|seen| seen.topic.ends_with("/transcript"))
    };
    assert!(kept());
    node.publish(microphone(SourceState::Off));
    observer.wait_for_payload("gemmad/pi/mic/kitchen/transcript", "");
    assert!(!kept());
    // What was said before, and understood only now.
    node.publish(voice("4", "close the door"));
    observer.wait_for("gemmad/pi/mic/kitchen/transcript", 4);
    assert!(!kept());
    node.publish(microphone(SourceState::Online));
    node.publish(voice("5", "close the window"));
    observer.wait_for("gemmad/pi/mic/kitchen/transcript", 5);
    assert!(kept());
    node.stop();
}

#[test]
fn results_are_not_kept_where_they_may_not_be() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    broker.publish(
        "gemmad/pi/mic/kitchen/transcript",
        b"{\"text\":\"secret\"}",
        &["-r"],
    );
    let observer = Observer::start(&broker);
    let node = Node::start(&config::Mqtt {
        retain_results: false,
        ..config(broker.port)
    });
    node.wait_connected();
    observer.wait_for_payload("gemmad/pi/mic/kitchen/transcript", "");
    node.publish(voice("1", "turn on the lamp"));
    node.publish(caption("a cat", Some(b"picture")));
    node.wait_empty();
    observer.wait_for("gemmad/pi/camera/kitchen/image", 2);
    let said = observer.wait_for("gemmad/pi/mic/kitchen/transcript", 3);
    assert_eq!(said[2].json()["text"], "turn on the lamp");
    assert!(!said[2].retain);
    let kept = retained(&broker);
    let results = ["transcript", "caption", "image"];
    let result = |seen: &Seen| {
        results
            .iter()
            .any(|name| seen.topic.ends_with(&format!("/{name}")))
    };
    assert!(!kept.iter().any(result), "{:?}", topics(&kept));
}

/// The discovery messages by device.
fn discovery(kept: &[Seen]) -> BTreeMap<String, Value> {
    let device = |seen: &Seen| {
        let rest = seen.topic.strip_prefix("homeassistant/device/")?;
        Some((rest.strip_suffix("/config")?.to_owned(), seen.json()))
    };
    kept.iter().filter_map(device).collect()
}

#[test]
fn home_assistant_is_told_of_every_device_in_its_own_terms() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let node = Node::start(&config(broker.port));
    observer.wait_for("gemmad/pi/info", 1);
    let devices = discovery(&retained(&broker));
    // Platform of every entity, as it is documented.
    let expected = [
        (
            "gemmad_pi",
            vec![
                ("answer", "sensor"),
                ("ask", "notify"),
                ("connectivity", "binary_sensor"),
                ("dropped_total", "sensor"),
                ("job", "event"),
                ("matformer", "select"),
                ("max_tokens", "number"),
                ("mem_audio", "sensor"),
                ("mem_ple", "sensor"),
                ("mem_text", "sensor"),
                ("mem_vision", "sensor"),
                ("model", "sensor"),
                ("prefill_tokens_per_second", "sensor"),
                ("problem", "binary_sensor"),
                ("queue_depth", "sensor"),
                ("reload", "button"),
                ("rss", "sensor"),
                ("soc_temp", "sensor"),
                ("tokens_per_second", "sensor"),
            ],
        ),
        (
            "gemmad_pi_camera_kitchen",
            vec![
                ("caption", "event"),
                ("captions", "switch"),
                ("describe", "button"),
                ("enabled", "switch"),
                ("last_caption", "sensor"),
                ("last_frame", "image"),
                ("motion", "binary_sensor"),
            ],
        ),
        (
            "gemmad_pi_mic_kitchen",
            vec![
                ("last_transcript", "sensor"),
                ("mute", "switch"),
                ("speech", "binary_sensor"),
                ("voice", "event"),
            ],
        ),
    ];
    assert_eq!(devices.len(), expected.len());
    let mut unique = BTreeSet::new();
    for (device, entities) in expected {
        let message = &devices[device];
        assert_eq!(message["device"]["identifiers"][0], device);
        assert_eq!(message["origin"]["name"], "gemmad");
        assert_eq!(message["availability_mode"], "all");
        let via = message["device"].get("via_device").and_then(Value::as_str);
        assert_eq!(via, (device != "gemmad_pi").then_some("gemmad_pi"));
        assert_eq!(
            message["availability"].as_array().unwrap().len(),
            if via.is_some() { 2 } else { 1 }
        );
        let components = message["components"].as_object().unwrap();
        let found: Vec<_> = components
            .iter()
            .map(|(key, c)| (key.as_str(), c["platform"].as_str().unwrap()))
            .collect();
        assert_eq!(found, entities);
        for (key, component) in components {
            assert_eq!(component["unique_id"], format!("{device}_{key}"));
            assert!(unique.insert(component["unique_id"].to_string()));
            for topic in [
                "state_topic",
                "command_topic",
                "image_topic",
                "json_attributes_topic",
            ] {
                let named = component.get(topic).and_then(Value::as_str);
                assert!(
                    named.is_none_or(|named| named.starts_with("gemmad/pi/")),
                    "{key}: {named:?}"
                );
            }
        }
    }
    let components = &devices["gemmad_pi"]["components"];
    assert_eq!(
        components["matformer"]["options"],
        serde_json::json!(["e2b", "e4b"])
    );
    assert_eq!(components["soc_temp"]["device_class"], "temperature");
    assert_eq!(
        devices["gemmad_pi_mic_kitchen"]["components"]["last_transcript"]["value_template"],
        "{{ value_json.short if value_json is defined else 'None' }}"
    );
    assert_eq!(
        devices["gemmad_pi_camera_kitchen"]["components"]["motion"]["device_class"],
        "motion"
    );
    node.stop();
}

#[test]
fn home_assistants_birth_makes_every_state_be_said_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let node = Node::start(&config(broker.port));
    node.wait_connected();
    publish_states(&node);
    let observer = Observer::start(&broker);
    observer.wait_for("gemmad/pi/max_tokens", 1);
    let before = observer.all().len();
    broker.publish("homeassistant/status", b"online", &[]);
    for topic in [
        "state",
        "info",
        "health",
        "mic/kitchen/mute",
        "camera/kitchen/captions",
        "matformer",
        "max_tokens",
    ] {
        observer.wait_for(&format!("gemmad/pi/{topic}"), 2);
    }
    assert!(observer.all().len() > before);
    node.stop();
}

#[test]
fn devices_that_are_gone_are_taken_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let node = Node::start(&config(broker.port));
    node.wait_connected();
    publish_states(&node);
    observer.wait_for("gemmad/pi/announced", 1);
    // A reload without the camera.
    let mut without = info();
    without.cameras.clear();
    node.publish(Report::Info(Box::new(without.clone())));
    observer.wait_for_payload("homeassistant/device/gemmad_pi_camera_kitchen/config", "");
    observer.wait_for_payload("gemmad/pi/camera/kitchen/enabled", "");
    node.stop();
    // A restart without the microphone; somebody else's device in the list is nobody's business here.
    let list = r#"{"schema":1,"devices":["gemmad_pi","gemmad_pi_mic_kitchen","gemmad_other","../x","gemmad_pi_mic_#"]}"#;
    broker.publish("gemmad/pi/announced", list.as_bytes(), &["-r"]);
    broker.publish("homeassistant/device/gemmad_other/config", b"{}", &["-r"]);
    let mut none = without;
    none.microphones.clear();
    let node = Node::start_with(&config(broker.port), none.clone(), 8);
    observer.wait_for_payload("homeassistant/device/gemmad_pi_mic_kitchen/config", "");
    observer.wait_for_payload("gemmad/pi/mic/kitchen/speech", "");
    observer.wait_for_payload(
        "gemmad/pi/announced",
        r#"{"schema":1,"devices":["gemmad_pi"]}"#,
    );
    node.stop();
    let kept = retained(&broker);
    let expected = ["gemmad_other", "gemmad_pi"];
    assert_eq!(discovery(&kept).keys().collect::<Vec<_>>(), expected);
    assert!(
        !kept.iter().any(|seen| seen.topic.contains("kitchen")),
        "{:?}",
        topics(&kept)
    );
    // Home Assistant is not to know of it any more.
    let node = Node::start_with(
        &config::Mqtt {
            discovery: false,
            ..config(broker.port)
        },
        none,
        8,
    );
    observer.wait_for_payload("homeassistant/device/gemmad_pi/config", "");
    observer.wait_for_payload("gemmad/pi/announced", "");
    node.stop();
}

#[test]
fn mqtt_clear_leaves_nothing_of_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let node = Node::start(&config(broker.port));
    node.wait_connected();
    publish_states(&node);
    node.publish(caption("a cat", Some(&[1; 100_000])));
    observer.wait_for("gemmad/pi/announced", 1);
    node.stop();
    broker.publish("gemmad/other/state", b"online", &["-r"]);
    let file = dir.path().join("gemmad.toml");
    let text = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nnode = \"pi\"\n",
        broker.port
    );
    std::fs::write(&file, text).unwrap();
    let clear = || {
        let mut command = Command::cargo_bin("gemmad").unwrap();
        command
            .arg("mqtt-clear")
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap()
    };
    let output = clear();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        told.lines()
            .any(|line| line == "gemmad/pi/camera/kitchen/image"),
        "{told}"
    );
    assert_eq!(
        topics(&retained(&broker)),
        BTreeSet::from(["gemmad/other/state"])
    );
    drop(broker);
    let output = clear();
    assert_eq!(output.status.code(), Some(69));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("cannot be reached") && told.lines().count() == 1,
        "{told}"
    );
}
