//! From a microphone to a transcript or a command.

use serde_json::{Value, json};

use crate::broker::wait_until;
use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::private_bus::PrivateBus;
use crate::process::{Bench, expected};

/// A PCM of that name with a clip, for each.
fn microphones(bench: &Bench, clips: &[(&str, &str)]) {
    let names: Vec<&str> = clips.iter().map(|(name, _)| *name).collect();
    write_config(bench.dir.path(), &names);
    for (name, clip) in clips {
        write_speech(&raw_file(bench.dir.path(), name), clip);
    }
}

fn microphone(id: &str, more: &str) -> String {
    format!("[[microphone]]\nid = \"{id}\"\ndevice = \"{id}\"\n{more}\n")
}

/// The signals that org.gemmad1 sent, from the monitor's lines.
pub(crate) fn signals(monitored: &str, member: &str) -> Vec<Value> {
    let messages = monitored
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| {
            message["interface"] == "org.gemmad1.Events" && message["member"] == member
        })
        .map(|message| message["payload"]["data"].clone())
        .collect()
}

fn group(health: &Value, name: &str) -> (String, f64) {
    (
        health["group_states"][name].as_str().unwrap().to_owned(),
        health["memory_groups_mib"][name].as_f64().unwrap(),
    )
}

#[test]
fn speech_becomes_a_transcript_on_the_broker_and_on_the_bus_and_the_tower_goes_again() {
    let bench = Bench::new();
    let bus = PrivateBus::open();
    let monitor = bus.monitor();
    microphones(&bench, &[("hall", "009_both.wav")]);
    let config = "[[microphone]]\nid = \"hall\"\ndevice = \"hall\"\n";
    bench.write_config(Some(&bus.address()), "audio_idle_unload_s = 1", config);
    let gemmad = bench.start();
    let before = gemmad.mapped_weights();
    let first = bench.wait_for("health", 1)[0].json();
    for tower in ["audio", "vision"] {
        assert_eq!(group(&first, tower), ("unloaded".to_owned(), 0.0));
    }
    // It is read ahead, and stays.
    bench.wait_health("the text weights are resident", |health| {
        let (state, resident) = group(health, "text");
        state == "resident" && resident > 0.0
    });

    // The tower is loaded while somebody speaks.
    bench.wait_for_payload("mic/hall/speech", "ON");
    wait_until("the audio weights are mapped", || {
        gemmad.mapped_weights() > before
    });
    let event = bench.wait_for("mic/hall/event", 1)[0].clone();
    assert!(!event.retain && event.qos == 1);
    let event = event.json();
    let wanted = expected("audio", "009_both.wav", "transcript");
    assert_eq!(event["event_type"], "transcript", "{event}");
    assert_eq!(event["text"], wanted.as_str());
    assert_eq!(
        (&event["source"], &event["model"]),
        (&json!("hall"), &json!("demo"))
    );
    assert_eq!(event["id"].as_str().unwrap().len(), 26);
    let timing = |key: &str| event["timing"][key].as_f64().unwrap();
    for key in [
        "load_ms",
        "encode_ms",
        "prefill_ms",
        "decode_ms",
        "tps",
        "tokens",
    ] {
        assert!(timing(key) > 0.0, "{key}: {event}");
    }
    // It may have been there before the utterance was over.
    assert!(timing("latency_ms") > 0.0, "{event}");
    assert!(timing("prompt_tokens") > 188.0, "{event}");
    let seconds = event["audio_s"].as_f64().unwrap();
    assert!((2.0..8.0).contains(&seconds), "{event}");
    assert!(event["ts"].as_str().unwrap() > first["ts"].as_str().unwrap());

    // The state of the same event follows it, and stays at the broker.
    let last = bench.wait_for("mic/hall/transcript", 1)[0].clone();
    assert!(last.is_retained());
    assert_eq!(
        (&last.json()["id"], &last.json()["short"]),
        (&event["id"], &event["text"])
    );
    let order: Vec<String> = bench
        .observer
        .all()
        .into_iter()
        .filter(|seen| seen.topic.starts_with("gemmad/pi/mic/hall/"))
        .map(|seen| seen.topic.rsplit('/').next().unwrap().to_owned())
        .collect();
    // States go before events; what is said of the same event has the same id.
    let at = |name: &str| order.iter().position(|found| found == name);
    assert!(at("state") < at("event"), "{order:?}");

    monitor.wait_for("\"member\":\"Transcript\"");
    let heard = signals(&monitor.text(), "Transcript");
    assert_eq!(heard.len(), 1, "the clip ends; it is not heard again");
    assert_eq!(heard[0][0], "hall");
    assert_eq!(heard[0][1]["id"]["data"], event["id"]);
    assert_eq!(heard[0][1]["text"]["data"], wanted.as_str());

    // It is told, then it goes.
    let loaded = bench.wait_health("the audio tower is resident", |health| {
        group(health, "audio").0 == "resident"
    });
    assert!(group(&loaded, "audio").1 > 0.0, "{loaded}");
    assert_eq!(group(&loaded, "vision").0, "unloaded");
    bench.wait_health("the audio tower is gone", |health| {
        group(health, "audio") == ("unloaded".to_owned(), 0.0)
    });
    assert_eq!(gemmad.mapped_weights(), before);
    bench.assert_schemas();
    let log = gemmad.stop();
    // What was said stays out of the log.
    assert!(log.contains("s of speech: transcript"), "{log}");
    assert!(!log.contains("office"), "{log}");
    bench.wait_for_payload("state", "offline");
}

#[test]
fn speech_becomes_a_command_with_slots_or_is_not_understood_or_not_meant() {
    let bench = Bench::new();
    let commands = std::fs::read_to_string(crate::private_bus::repository(
        "config/examples/demo-commands.toml",
    ))
    .unwrap();
    microphones(
        &bench,
        &[
            ("straight", "009_both.wav"),
            ("both", "003_both.wav"),
            ("asleep", "004_voice.wav"),
            ("awake", "023_combo.wav"),
        ],
    );
    let microphones = [
        microphone("straight", "answer = \"command\""),
        microphone("both", "answer = \"both\""),
        // The clip does not begin with it, but with "Play".
        microphone(
            "asleep",
            "answer = \"both\"\ntrigger = \"wake_phrase\"\nwake_phrases = [\"classical music\"]",
        ),
        microphone(
            "awake",
            "trigger = \"wake_phrase\"\nwake_phrases = [\"hello board\", \"switch off\"]",
        ),
    ];
    bench.write_config(None, "", &(commands + "\n" + &microphones.concat()));
    let gemmad = bench.start();
    let event = |id: &str| bench.wait_for(&format!("mic/{id}/event"), 1)[0].json();
    let command = |file: &str| -> (Value, Value) {
        let mut json: Value = serde_json::from_str(&expected("audio", file, "json")).unwrap();
        let name = json.as_object_mut().unwrap().remove("action").unwrap();
        (name, json)
    };
    for (id, file) in [("straight", "009_both.wav"), ("both", "003_both.wav")] {
        let event = event(id);
        assert_eq!(event["event_type"], "command", "{event}");
        let (name, slots) = command(file);
        assert_eq!(event["command"], json!({"name": name, "slots": slots}));
        let confidence = event["confidence"].as_f64().unwrap();
        assert!((0.5..=1.0).contains(&confidence), "{event}");
        let text = event.get("text").and_then(Value::as_str);
        let said = expected("audio", file, "transcript");
        assert_eq!(text, (id == "both").then_some(said.as_str()));
    }
    let rejected = event("asleep");
    assert_eq!(rejected["event_type"], "rejected", "{rejected}");
    assert_eq!(rejected["reason"], "no wake phrase");
    assert!(rejected.get("text").is_none() && rejected.get("command").is_none());
    assert!(bench.on("mic/asleep/transcript").is_empty());
    let woken = event("awake");
    assert_eq!(woken["event_type"], "transcript", "{woken}");
    assert_eq!(woken["text"], "the fan in the hallway.");
    bench.assert_schemas();
    gemmad.stop();

    // The same words where only other commands are known.
    write_speech(&raw_file(bench.dir.path(), "straight"), "009_both.wav");
    let other = "[commands]\nprompt = \"Return the command as JSON:\"\nname_key = \"action\"\n\
         [[command]]\nname = \"lock\"\nslots = [{ name = \"device\", values = [\"door\"] }]\n";
    let heard = bench.on("mic/straight/event").len();
    let microphone = microphone("straight", "answer = \"command\"");
    bench.write_config(None, "", &(other.to_owned() + &microphone));
    let gemmad = bench.start();
    let event = bench.wait_for("mic/straight/event", heard + 1)[heard].json();
    assert_eq!(event["event_type"], "not_understood", "{event}");
    assert!(
        event.get("command").is_none() && event["reason"].is_string(),
        "{event}"
    );
    bench.assert_schemas();
    gemmad.stop();
}
