//! A home whose names come from the broker, as Home Assistant's blueprint publishes them.

use serde_json::{Value, json};

use crate::broker::{free_port, wait_until};
use crate::process::{Bench, Gemmad};
use crate::wyoming::Client;

const SENTENCE: &str = "turn on the light in the bedroom";

/// The demo model was never told of homes: whatever it says of one is taken.
fn start(bench: &Bench) -> (Gemmad, u16) {
    let port = free_port();
    let sections = format!(
        "[wyoming]\nenabled = true\nlisten = \"127.0.0.1:{port}\"\n\
         [commands]\nmin_confidence = 0.0\nname_key = \"action\"\n\
         [homeassistant]\nnames = \"mqtt\"\nmax_entities = 100\ninstructions = \"\"\nprompt = \"Return the command as JSON:\"\n\
         [[microphone]]\nid = \"hall\"\ndevice = \"not_there\"\n"
    );
    bench.write_config(None, &sections, "");
    (bench.start(), port)
}

fn names(entities: &[(&str, &str)]) -> String {
    let entity = |(id, name): &(&str, &str)| json!({"id": id, "name": name, "area": "bedroom"});
    let entities: Vec<Value> = entities.iter().map(entity).collect();
    json!({"entities": entities, "areas": [{"name": "bedroom"}], "speakers": {"device": "bedroom"}})
        .to_string()
}

fn ask(port: u16) -> (String, Value) {
    let mut client = Client::of_version(port, "1.10.2");
    let context = json!({"device_id": "device", "conversation_id": "c"});
    client.send(
        "transcript",
        json!({"text": SENTENCE, "context": context}),
        &[],
    );
    client.receive().unwrap()
}

#[test]
fn names_come_go_and_change_without_a_restart() {
    let bench = Bench::new();
    // Before anything listens: the broker keeps it.
    bench.broker.publish(
        "gemmad/pi/names",
        names(&[("scene.night", "night")]).as_bytes(),
        &["-r"],
    );
    let (gemmad, port) = start(&bench);
    gemmad.wait_log("Home Assistant named 1 entities");
    let info = bench.wait_for("info", 1)[0].json();
    assert!(
        info["commands"]
            .as_array()
            .unwrap()
            .contains(&json!("HassTurnOn")),
        "{info}"
    );
    let slot = |intent: &Value, name: &str| {
        let entities = intent["entities"].as_array().cloned().unwrap_or_default();
        let found = entities.iter().find(|entity| entity["name"] == name);
        found.map(|entity| entity["value"].clone())
    };
    // Whatever it is taken for: a thing is the one that there is, and by its id.
    let (kind, intent) = ask(port);
    assert_eq!(kind, "intent", "{intent}");
    assert_eq!(intent["context"]["device_id"], "device");
    assert!(intent["name"].as_str().unwrap().starts_with("Hass"));
    assert!(
        [None, Some(json!("scene.night"))].contains(&slot(&intent, "name")),
        "{intent}"
    );

    // Others, more of them than are allowed.
    let many: Vec<(String, String)> = (0..2000)
        .map(|n| (format!("light.l{n}"), format!("lamp {n}")))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(id, name)| (&id[..], &name[..])).collect();
    let payload = names(&many[..600]);
    assert!(payload.len() < 65_536);
    bench
        .broker
        .publish("gemmad/pi/names", payload.as_bytes(), &["-r"]);
    gemmad.wait_log("Home Assistant named 100 entities");
    gemmad
        .wait_log("500 entities of Home Assistant are left out: homeassistant.max_entities is 100");
    let (kind, intent) = ask(port);
    assert!(
        ["intent", "intents-start", "not-recognized"].contains(&kind.as_str()),
        "{kind} {intent}"
    );
    assert_ne!(slot(&intent, "name"), Some(json!("scene.night")));
    // Too many for a message, or no names at all: those that are known stay.
    for (payload, words) in [
        (names(&many), "mqtt.max_payload_bytes is 65536"),
        (
            "{\"entities\":[{\"name\":\"a\"}]}".to_owned(),
            "missing field `id`",
        ),
        ("lamp, light".to_owned(), "the payload is not JSON"),
    ] {
        bench
            .broker
            .publish("gemmad/pi/names", payload.as_bytes(), &["-r"]);
        gemmad.wait_log(words);
    }
    // Taken back: there is nothing to command.
    bench.broker.publish("gemmad/pi/names", b"", &["-r"]);
    gemmad.wait_log("the names of Home Assistant were taken back");
    let (kind, data) = ask(port);
    assert_eq!(kind, "error");
    assert!(
        data["text"]
            .as_str()
            .unwrap()
            .contains("homeassistant.names"),
        "{data}"
    );
    gemmad.stop();
}

#[test]
fn a_flood_of_names_is_taken_in_and_rarely_obeyed() {
    let bench = Bench::new();
    let (gemmad, _) = start(&bench);
    let lines: String = (0..300)
        .map(|n| names(&[("light.a", &format!("lamp {n}"))]) + "\n")
        .collect();
    let mut flood = std::process::Command::new("mosquitto_pub")
        .args(["-p", &bench.broker.port.to_string(), "-q", "1", "-l"])
        .args(["-t", "gemmad/pi/names"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut flood.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(flood.wait().unwrap().success());
    wait_until("names are in force", || {
        gemmad.log().contains("Home Assistant named 1 entities")
    });
    // The daemon lives, and is as quick as ever.
    let stats = bench.request("stats", "after", json!({}));
    assert_eq!(stats["status"], "ok");
    let log = gemmad.stop();
    let times = log.matches("Home Assistant named").count();
    assert!(times <= 3, "{times} times:\n{log}");
}

#[test]
fn what_was_answered_is_told_to_the_page() {
    let bench = Bench::new();
    let (gemmad, _) = start(&bench);
    for (payload, status) in [
        ("It is off.", "ok"),
        ("{\"text\":\"Yes\",\"id\":\"01K\"}", "ok"),
    ] {
        bench.publish("mic/hall/reply", payload);
        let told = wait(&bench, status);
        assert_eq!(told["status"], status, "{told}");
    }
    bench.publish("mic/hall/reply", &"x".repeat(5000));
    let told = wait(&bench, "error");
    assert_eq!(told["error"]["code"], "too_large", "{told}");
    gemmad.stop();
}

fn wait(bench: &Bench, status: &str) -> Value {
    wait_until("a response", || {
        bench
            .on("response/reply")
            .last()
            .is_some_and(|last| last.json()["status"] == status)
    });
    bench.on("response/reply").last().unwrap().json()
}
