//! MQTT against a real mosquitto, watched by mosquitto_sub: what is published, what is accepted, and what faults do.

mod bench;
mod certificates;
mod discovery;
mod faults;
mod namesake;
mod nats;
mod probe;
mod requests;
mod restarts;
mod schemas;
mod silent;
mod spool;

use std::collections::BTreeSet;

use gemmad::media::DeviceState;
use gemmad::publish::mqtt::MqttOptions;
use gemmad::report::{Health, Report};

use bench::{Broker, Gate, Node, Observer, Seen, caption, config, retained, voice};

/// Every state of the sample node.
fn publish_states(node: &Node) {
    let id = || "kitchen".to_owned();
    node.publish(Report::Health(Box::new(Health {
        schema: 1,
        state: "ready".to_owned(),
        ..Health::default()
    })));
    let state = DeviceState::Off;
    node.publish(Report::MicrophoneState { id: id(), state });
    node.publish(Report::Speech {
        id: id(),
        speaking: true,
    });
    let state = DeviceState::Online;
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
            (seen.text(), seen.is_retained(), seen.qos),
            (payload, true, 1),
            "{topic}"
        );
    }
    node.publish(Report::MicrophoneState {
        id: "kitchen".to_owned(),
        state: DeviceState::Online,
    });
    // One at a time: a newer one takes the place of one that waits.
    for (n, (dbfs, payload)) in [(-31.26, "-31.3"), (f32::NEG_INFINITY, "-120.0")]
        .into_iter()
        .enumerate()
    {
        node.publish(Report::Level {
            id: "kitchen".to_owned(),
            dbfs,
        });
        let seen = &observer.wait_for("gemmad/pi/mic/kitchen/level", n + 1)[n];
        assert_eq!((seen.text(), seen.retain, seen.qos), (payload, false, 0));
    }
    let long = "ä".repeat(300);
    node.publish(voice("01JD0000000000000000000000", &long));
    node.publish(caption("a cat on a table", Some(b"\xff\xd8picture")));
    node.wait_empty();
    let seen = |topic: &str| observer.wait_for(&format!("gemmad/pi/{topic}"), 1)[0].clone();
    // The first one is empty: muting takes back what an earlier run may have left.
    let transcript = observer.wait_for("gemmad/pi/mic/kitchen/transcript", 2)[1].clone();
    assert!(transcript.is_retained());
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
    assert_eq!((picture.is_retained(), picture.qos), (true, 0));
    assert_eq!(picture.payload, b"\xff\xd8picture");
    assert_eq!(seen("info").json()["matformer_options"][0], "e2b");
    assert_eq!(seen("health").json()["state"], "ready");
    observer.wait_for("gemmad/pi/announced", 1);
    observer.wait_for("gemmad/pi/instance", 1);
    let kept = retained(&broker);
    let expected = BTreeSet::from([
        "gemmad/pi/announced",
        "gemmad/pi/state",
        "gemmad/pi/info",
        "gemmad/pi/instance",
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
    node.publish(microphone(DeviceState::Online));
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
    node.publish(microphone(DeviceState::Off));
    observer.wait_for_payload("gemmad/pi/mic/kitchen/transcript", "");
    assert!(!kept());
    // What was said before, and understood only now.
    node.publish(voice("4", "close the door"));
    observer.wait_for("gemmad/pi/mic/kitchen/transcript", 4);
    assert!(!kept());
    node.publish(microphone(DeviceState::Online));
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
    let node = Node::start(&MqttOptions {
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
