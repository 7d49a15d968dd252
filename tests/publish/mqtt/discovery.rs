//! Home Assistant's discovery: what it is told of, told again, and what is taken back.

use std::collections::{BTreeMap, BTreeSet};

use assert_cmd::Command;
use gemmad::media::DeviceState;
use gemmad::publish::mqtt::MqttOptions;
use gemmad::report::Report;
use serde_json::Value;

use super::bench::{Broker, Node, Observer, Seen, caption, config, info, retained, wait_until};
use super::{publish_states, topics};

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
    observer.wait_for_payload("gemmad/pi/state", "online");
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
                ("forget", "button"),
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
                ("silence", "button"),
                ("soc_temp", "sensor"),
                ("speaker", "binary_sensor"),
                ("tokens_per_second", "sensor"),
                ("volume", "number"),
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
                ("say", "notify"),
                ("speech", "binary_sensor"),
                ("voice", "event"),
                ("wake", "switch"),
                ("wake_score", "sensor"),
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
        &MqttOptions {
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
fn a_speaker_and_wake_words_that_are_gone_are_taken_back_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let gone = [
        "gemmad/pi/speaker/state",
        "gemmad/pi/speaker/speaking",
        "gemmad/pi/speaker/volume",
        "gemmad/pi/mic/kitchen/wake",
        "gemmad/pi/mic/kitchen/wake_score",
    ];
    let states = || {
        let id = || "kitchen".to_owned();
        [
            Report::SpeakerState(DeviceState::Online),
            Report::Speaking(false),
            Report::Volume(80),
            Report::Wake { id: id(), on: true },
            Report::WakeScore {
                id: id(),
                score: 0.9,
            },
        ]
    };
    let is_kept = |found: &str| retained(&broker).iter().any(|seen| seen.topic == found);
    let start = || {
        let node = Node::start(&config(broker.port));
        node.wait_connected();
        states().into_iter().for_each(|state| node.publish(state));
        for topic in gone {
            wait_until("it is retained", || is_kept(topic));
        }
        node
    };
    let mut without = info();
    without.speaker = None;
    without.microphones[0].wakes = false;
    let taken_back = || {
        for topic in gone {
            wait_until("it is taken back", || !is_kept(topic));
        }
        // As Home Assistant's documentation of MQTT discovery has it: nothing but the platform.
        let bare = |platform: &str| serde_json::json!({ "platform": platform });
        let entities = [
            ("gemmad_pi", "speaker", "binary_sensor"),
            ("gemmad_pi", "volume", "number"),
            ("gemmad_pi", "silence", "button"),
            ("gemmad_pi_mic_kitchen", "wake", "switch"),
            ("gemmad_pi_mic_kitchen", "wake_score", "sensor"),
            ("gemmad_pi_mic_kitchen", "say", "notify"),
        ];
        for (device, key, platform) in entities {
            wait_until("the entity is taken back", || {
                discovery(&retained(&broker))[device]["components"][key] == bare(platform)
            });
        }
    };
    // A reload.
    let node = start();
    node.publish(Report::Info(Box::new(without.clone())));
    taken_back();
    // Nor are they said again after a broken connection, or when Home Assistant starts.
    let before = observer.on(gone[0]).len();
    broker.publish("homeassistant/status", b"online", &[]);
    observer.wait_for("gemmad/pi/state", 2);
    assert_eq!(observer.on(gone[0]).len(), before);
    node.stop();
    // A restart.
    start().stop();
    let node = Node::start_with(&config(broker.port), without, 8);
    taken_back();
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
