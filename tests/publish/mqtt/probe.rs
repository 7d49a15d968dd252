//! What `gemmad doctor` finds out about a broker: mosquitto as people set it up, and answers that mosquitto does not give.

use std::collections::BTreeMap;
use std::path::Path;

use gemmad::publish::mqtt::MqttOptions;
use gemmad::publish::mqtt::{Occupant, Probed, probe};
use gemmad::report::{Info, JobUpdate, Payload, Reply};

use super::bench::{Broker, Node, Observer, config, free_port, info, retained};
use crate::broker::fake_broker;

fn probed(config: &MqttOptions, info: &Info) -> Result<Probed, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(probe(config, info))
        .map_err(|unusable| format!("{unusable}; {}", unusable.advice))
}

/// What is wrong, with what to do about it; a line each.
pub(crate) fn troubles(config: &MqttOptions) -> Vec<String> {
    match probed(config, &info()) {
        Err(trouble) => vec![trouble],
        Ok(probed) => {
            assert_eq!(probed.node, "pi");
            let troubles = probed.troubles.iter();
            troubles
                .map(|trouble| format!("{trouble}; {}", trouble.advice))
                .collect()
        }
    }
}

/// One thing is wrong: it is told in all of these words, and none of those.
#[track_caller]
pub(crate) fn one_trouble(config: &MqttOptions, words: &[&str], never: &[&str]) {
    let found = troubles(config);
    assert_eq!(found.len(), 1, "{found:#?}");
    for word in words {
        assert!(found[0].contains(word), "{word:?} is not in {}", found[0]);
    }
    for word in never {
        assert!(!found[0].contains(word), "{word:?} is in {}", found[0]);
    }
}

fn broker_with(dir: &Path, settings: &str) -> Broker {
    let settings = format!("allow_anonymous true\n{settings}\n");
    Broker::start_with(dir, free_port(), &settings)
}

#[test]
fn all_is_tried_and_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let found = probed(&config(broker.port), &info()).unwrap();
    assert!(found.troubles.is_empty(), "{:?}", found.troubles);
    assert_eq!(found.occupant, None);
    assert_eq!(retained(&broker), []);
    // The last that comes: then the first observer, too, has seen all.
    observer.wait_for("marker", 1);
    let mut largest = BTreeMap::new();
    for seen in observer.all() {
        let bytes: &mut usize = largest.entry(seen.topic).or_default();
        *bytes = seen.payload.len().max(*bytes);
    }
    // A picture is the largest that this node publishes; an empty message tells Home Assistant of nothing.
    assert_eq!(
        largest,
        BTreeMap::from([
            ("gemmad/pi/doctor".to_owned(), 262_144),
            ("homeassistant/device/gemmad_pi_doctor/config".to_owned(), 0),
            ("marker".to_owned(), 1),
        ])
    );
}

#[test]
fn what_an_access_list_forbids_is_told_though_the_broker_acknowledges_it() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("access");
    std::fs::write(
        &list,
        "user all\ntopic readwrite #\nuser ro\ntopic read #\nuser nodisc\ntopic readwrite gemmad/#\n\
         user nosub\ntopic write #\nuser other\ntopic readwrite gemmad/other/#\ntopic readwrite homeassistant/#\n",
    )
    .unwrap();
    let broker = broker_with(dir.path(), &format!("acl_file {}", list.display()));
    let user = |name: &str| MqttOptions {
        username: name.to_owned(),
        ..config(broker.port)
    };
    assert_eq!(troubles(&user("all")), [""; 0]);
    let discovery = [
        "homeassistant/device/gemmad_pi_doctor/config",
        "Home Assistant",
        "`topic readwrite homeassistant/device/#`",
        "`topic read homeassistant/status`",
        "mqtt.discovery",
    ];
    one_trouble(&user("nodisc"), &discovery, &["gemmad/pi/#"]);
    let without = MqttOptions {
        discovery: false,
        ..user("nodisc")
    };
    assert_eq!(troubles(&without), [""; 0]);
    for name in ["ro", "nosub", "other"] {
        let own = ["gemmad/pi/doctor", "`topic readwrite gemmad/pi/#`"];
        one_trouble(&user(name), &own, &["QoS", "message_size_limit"]);
    }
}

#[test]
fn a_limit_of_size_is_told_with_what_is_too_large() {
    // Home Assistant's discovery is told in some 6 kB, answers may have 64 KiB, pictures 256 KiB.
    let closes = "closes the connection at a message of";
    for (settings, words) in [
        (
            "max_packet_size 4000",
            vec![closes, "what Home Assistant is told", "263168 bytes"],
        ),
        (
            "message_size_limit 4000",
            vec!["drops a message of", "what Home Assistant is told"],
        ),
        (
            "message_size_limit 20000",
            vec![
                "drops a message of 65536 bytes",
                "bytes passes",
                "lower mqtt.max_payload_bytes",
            ],
        ),
        (
            "max_packet_size 100000",
            vec![
                "closes the connection at a message of 262144 bytes, as large as a picture",
                "one of 65536 bytes passes",
                "lower mqtt.max_image_bytes",
            ],
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let broker = broker_with(dir.path(), settings);
        let words = [words.as_slice(), &["message_size_limit", "max_packet_size"]].concat();
        one_trouble(&config(broker.port), &words, &["readwrite", "QoS"]);
        assert_eq!(retained(&broker), [], "{settings}");
    }
    // Without a camera there are no pictures.
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(dir.path(), "message_size_limit 100000");
    let blind = Info {
        cameras: Vec::new(),
        ..info()
    };
    let found = probed(&config(broker.port), &blind).unwrap();
    assert!(found.troubles.is_empty(), "{:?}", found.troubles);
}

#[test]
fn brokers_without_acknowledgement_or_memory_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker_with(dir.path(), "max_qos 0");
    let qos = ["does not take messages with QoS 1", "max_qos 1 or 2"];
    one_trouble(&config(broker.port), &qos, &["readwrite"]);
    drop(broker);
    let broker = broker_with(dir.path(), "retain_available false");
    let retain = ["does not keep retained messages", "retain_available true"];
    one_trouble(&config(broker.port), &retain, &["readwrite", "QoS"]);
}

#[test]
fn the_answer_to_a_connection_is_told_with_what_it_is_about() {
    const LOGIN: &str = "mqtt.username";
    let table: [(&[u8], &[&str], &[&str]); 11] = [
        (
            &[0x20, 2, 0, 1],
            &["does not speak MQTT 3.1.1", "beside MQTT 5"],
            &[LOGIN],
        ),
        // As a broker of MQTT 5 answers, in its own layout.
        (
            &[0x20, 3, 0, 0x84, 0],
            &["does not speak MQTT 3.1.1", "beside MQTT 5"],
            &[LOGIN],
        ),
        (
            &[0x20, 2, 0, 2],
            &["client's name", "\"gemmad-pi-doctor\"", "mqtt.node"],
            &[LOGIN],
        ),
        (
            &[0x20, 2, 0, 3],
            &["not available", "its log"],
            &[LOGIN, "access list"],
        ),
        (
            &[0x20, 2, 0, 4],
            &["wrong user or password", LOGIN],
            &["access list"],
        ),
        (&[0x20, 2, 0, 5], &["not authorised", LOGIN], &[]),
        (
            &[0x20, 3, 0, 0x86, 0],
            &["wrong user or password", LOGIN],
            &[],
        ),
        (&[0x20, 3, 0, 0x9b, 0], &["last will", "max_qos"], &[LOGIN]),
        (
            &[0x20, 2, 0, 77],
            &["the code 77", "broker's log"],
            &[LOGIN],
        ),
        (
            b"",
            &[
                "closed the connection without an answer",
                "plain MQTT",
                "mqtts://",
            ],
            &[LOGIN],
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            &["not MQTT", "plain MQTT on port"],
            &[LOGIN],
        ),
    ];
    for (answer, words, never) in table {
        let anonymous = config(fake_broker(answer));
        one_trouble(&anonymous, words, never);
        let user = MqttOptions {
            username: "somebody".to_owned(),
            ..anonymous
        };
        one_trouble(&user, words, never);
    }
    let code_5 = config(fake_broker(&[0x20, 2, 0, 5]));
    one_trouble(&code_5, &["the broker wants a user"], &["access list"]);
    let user = MqttOptions {
        username: "somebody".to_owned(),
        ..code_5
    };
    let all = [
        "compare mqtt.username (\"somebody\")",
        "access list",
        "a last will on gemmad/pi/state",
    ];
    one_trouble(&user, &all, &["wants a user"]);
}

/// Answers the doctor's question as the daemon does.
fn answer_stats(mut node: Node, details: serde_json::Value) -> Node {
    let request = node.request();
    assert!(matches!(request.payload, Payload::Stats));
    let serde_json::Value::Object(details) = details else {
        panic!("no object");
    };
    let reply = Reply {
        details,
        ..Reply::default()
    };
    node.answer(&request, JobUpdate::end(&request.header, Ok(reply)));
    node
}

#[test]
fn whoever_has_the_nodes_name_is_found_and_keeps_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let config = config(broker.port);
    // What a daemon left behind that is gone together with the broker of then.
    broker.publish("gemmad/pi/state", b"online", &["-r"]);
    assert_eq!(probed(&config, &info()).unwrap().occupant, None);

    let mut node = Node::start(&config);
    node.wait_connected();
    for (details, namesake) in [
        (serde_json::json!({"mqtt": {"connected": true}}), None),
        (
            serde_json::json!({"mqtt": {"namesake": "on host \"b\""}}),
            Some("on host \"b\"".to_owned()),
        ),
    ] {
        let answering = std::thread::spawn(move || answer_stats(node, details));
        let found = probed(&config, &info()).unwrap();
        node = answering.join().unwrap();
        assert!(found.troubles.is_empty(), "{:?}", found.troubles);
        assert_eq!(found.occupant.unwrap().namesake, namesake);
    }
    let instance = r#"{"schema":1,"instance":"01","host":"a","started_at":"then"}"#;
    broker.publish("gemmad/pi/instance", instance.as_bytes(), &["-r"]);
    let answering = std::thread::spawn(move || answer_stats(node, serde_json::json!({})));
    let found = probed(&config, &info()).unwrap();
    let node = answering.join().unwrap();
    let who = Occupant {
        host: Some("a".to_owned()),
        started_at: Some("then".to_owned()),
        namesake: None,
    };
    assert_eq!(found.occupant, Some(who));
    assert_eq!(node.mqtt().health().reconnects, 0);
    node.stop();
}
