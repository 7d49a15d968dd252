//! What happens when the broker dies, is not there, does not want us; large messages; a process that is killed.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gemmad::publish::mqtt::MqttOptions;
use gemmad::report::Report;

use super::bench::{
    Broker, Gate, Node, Observer, caption, config, free_port, retained, set_password, voice,
    wait_until,
};

pub(crate) fn ids(observer: &Observer) -> Vec<String> {
    let events = observer.on("gemmad/pi/mic/kitchen/event");
    let id = |json: serde_json::Value| json["id"].as_str().unwrap().to_owned();
    events.iter().map(|seen| id(seen.json())).collect()
}

pub(crate) fn event(n: usize) -> Report {
    voice(&format!("event-{n:04}"), "turn on the lamp")
}

#[test]
fn a_broker_killed_amid_500_events_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    // A subscriber loses what is published while it is away, so gemmad may come back only after the observer.
    let gate = Gate::to(broker.port);
    let node = Node::start(&config(gate.port));
    node.wait_connected();
    // With QoS 0 the broker hands on an event before it acknowledges it; otherwise it could take some with it.
    let before = Observer::start_at(&broker, &["-q", "0"]);
    for n in 0..250 {
        node.publish(event(n));
    }
    wait_until("some came", || !ids(&before).is_empty());
    gate.set_open(false);
    broker.kill();
    for n in 250..500 {
        node.publish(event(n));
    }
    wait_until("the loss is known", || !node.mqtt().health().connected);
    // Every event that the broker had acknowledged, it had handed on; the observer may still be reading.
    wait_until("what was acknowledged came", || {
        ids(&before).len() + node.mqtt().health().queued >= 500
    });
    let first = ids(&before);
    broker.restart();
    let after = Observer::start(&broker);
    gate.set_open(true);
    node.wait_empty();
    after.wait_for("gemmad/pi/mic/kitchen/event", 1);
    wait_until("the last came", || {
        ids(&after).last().is_some_and(|id| id == "event-0499")
    });
    // In order on each connection, every one at least once, and what comes twice has the same id.
    let second = ids(&after);
    for part in [&first, &second] {
        assert!(part.is_sorted() && part.windows(2).all(|pair| pair[0] != pair[1]));
    }
    let mut all: Vec<_> = first.iter().chain(&second).cloned().collect();
    all.sort();
    all.dedup();
    let expected: Vec<_> = (0..500).map(|n| format!("event-{n:04}")).collect();
    assert_eq!(all, expected);
    assert!(second.len() >= 250);
    let health = node.mqtt().health();
    assert_eq!((health.dropped, health.reconnects), (0, 1));
    // The broker had forgotten everything, and was told again.
    let topics: Vec<_> = after.all().into_iter().map(|seen| seen.topic).collect();
    for topic in [
        "gemmad/pi/state",
        "gemmad/pi/info",
        "homeassistant/device/gemmad_pi/config",
    ] {
        assert!(topics.iter().any(|seen| seen == topic), "{topic}");
    }
    node.stop();
    after.wait_for_payload("gemmad/pi/state", "offline");
}

#[test]
fn a_frozen_broker_that_dies_had_acknowledged_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = Broker::start(dir.path());
    let gate = Gate::to(broker.port);
    let node = Node::start(&config(gate.port));
    node.wait_connected();
    wait_until("the beginning is over", || {
        node.mqtt().health().published >= 5
    });
    broker.freeze();
    for n in 0..5 {
        node.publish(event(n));
    }
    // They are handed to the socket; nobody reads them.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(node.mqtt().health().queued, 5);
    gate.set_open(false);
    broker.kill();
    broker.restart();
    let observer = Observer::start(&broker);
    gate.set_open(true);
    observer.wait_for("gemmad/pi/mic/kitchen/event", 5);
    assert_eq!(
        ids(&observer),
        (0..5).map(|n| format!("event-{n:04}")).collect::<Vec<_>>()
    );
    node.wait_empty();
}

#[test]
fn a_broker_that_is_down_at_the_start_gets_the_newest_events_and_the_last_states() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = MqttOptions {
        outbox_events: 10,
        ..config(port)
    };
    let node = Node::start(&config);
    for n in 0..15 {
        node.publish(event(n));
        let speaking = n % 2 == 0;
        let id = "kitchen".to_owned();
        node.publish(Report::Speech { id, speaking });
        node.publish(caption("a cat", Some(b"picture")));
    }
    let health = node.mqtt().health();
    // Each round is two events: speech and caption.
    assert_eq!(
        (health.connected, health.queued, health.dropped),
        (false, 10, 20)
    );
    let broker = Broker::start_with(dir.path(), port, "allow_anonymous true\n");
    let observer = Observer::start(&broker);
    node.wait_empty();
    observer.wait_for_payload("gemmad/pi/mic/kitchen/speech", "ON");
    // The last value only, and no picture that is of the past; what had waited came before the broker had the observer, or after.
    assert!(observer.on("gemmad/pi/camera/kitchen/image").is_empty());
    assert!(observer.on("gemmad/pi/mic/kitchen/speech").len() <= 1);
    assert_eq!(node.mqtt().health().dropped, 20);
}

#[test]
fn a_refused_password_is_tried_again_with_what_the_file_says_then() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users");
    set_password(&users, "right");
    let settings = format!("allow_anonymous false\npassword_file {}\n", users.display());
    let mut broker = Broker::start_with(dir.path(), free_port(), &settings);
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, "wrong\n").unwrap();
    let node = Node::start(&MqttOptions {
        username: "gemmad".to_owned(),
        password_file: Some(password_file.clone()),
        ..config(broker.port)
    });
    node.publish(event(0));
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!node.mqtt().health().connected);
    // The broker learns the password that is in the file.
    broker.kill();
    set_password(&users, "wrong");
    broker.restart();
    let login = ["-u", "gemmad", "-P", "wrong"];
    let observer = Observer::start_with(broker.port, &login);
    node.wait_empty();
    observer.wait_for("gemmad/pi/mic/kitchen/event", 1);
    // And the other way round: the file is mended, and gemmad needs no restart.
    broker.kill();
    set_password(&users, "new");
    broker.restart();
    std::fs::write(&password_file, "new\n").unwrap();
    wait_until("it connects with the new password", || {
        node.mqtt().health().reconnects == 1
    });
}

pub(crate) fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .current_dir(dir)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {told}");
}

#[test]
fn tls_with_an_own_authority_and_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj";
    openssl(
        at,
        &format!("req -x509 {new} /CN=authority -keyout ca.key -out ca.pem -days 2"),
    );
    openssl(
        at,
        &format!("req -x509 {new} /CN=stranger -keyout other.key -out other.pem -days 2"),
    );
    for (name, extension) in [
        ("server", "subjectAltName=DNS:localhost"),
        ("client", "extendedKeyUsage=clientAuth"),
    ] {
        openssl(
            at,
            &format!("req {new} /CN=localhost -keyout {name}.key -out {name}.csr"),
        );
        std::fs::write(at.join("extensions"), extension).unwrap();
        openssl(
            at,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile extensions"
            ),
        );
    }
    let path = |name: &str| at.join(name);
    let settings = format!(
        "cafile {0}/ca.pem\ncertfile {0}/server.pem\nkeyfile {0}/server.key\nrequire_certificate true\nallow_anonymous true\n",
        at.display()
    );
    let broker = Broker::start_with(at, free_port(), &settings);
    let secure = |ca: &str, client: bool| MqttOptions {
        url: format!("mqtts://localhost:{}", broker.port),
        ca_file: Some(path(ca)),
        client_certificate_file: client.then(|| path("client.pem")),
        client_key_file: client.then(|| path("client.key")),
        ..config(broker.port)
    };
    // A server that the given authority does not vouch for, and a client without a certificate, come to nothing.
    let strangers = [
        Node::start(&secure("other.pem", true)),
        Node::start(&secure("ca.pem", false)),
    ];
    std::thread::sleep(Duration::from_millis(1500));
    assert!(strangers.iter().all(|node| !node.mqtt().health().connected));
    for node in strangers {
        node.stop();
    }
    let node = Node::start(&secure("ca.pem", true));
    node.wait_connected();
    node.publish(event(0));
    node.wait_empty();
    let output = Command::new("mosquitto_sub")
        .args([
            "-h",
            "localhost",
            "-p",
            &broker.port.to_string(),
            "-C",
            "1",
            "-W",
            "30",
            "-t",
            "gemmad/pi/info",
        ])
        .args([
            "--cafile",
            "ca.pem",
            "--cert",
            "client.pem",
            "--key",
            "client.key",
        ])
        .current_dir(at)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"model\":\"demo\""));
}

#[test]
fn large_messages_pass_both_ways_without_a_reconnect() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let mut node = Node::start(&MqttOptions {
        max_payload_bytes: 300_000,
        ..config(broker.port)
    });
    node.wait_connected();
    for size in [20_480, 65_536, 204_800] {
        let text = "x".repeat(size);
        node.publish(voice("large", &text));
        node.publish(caption("large", Some(&vec![7; size])));
        wait_until("the event came whole", || {
            observer
                .on("gemmad/pi/mic/kitchen/event")
                .iter()
                .any(|seen| seen.json()["text"] == text.as_str())
        });
        wait_until("the picture came whole", || {
            observer
                .on("gemmad/pi/camera/kitchen/image")
                .iter()
                .any(|seen| seen.payload == vec![7; size])
        });
        let ask = serde_json::json!({"prompt": text}).to_string();
        broker.publish("gemmad/pi/request/ask", ask.as_bytes(), &[]);
        let gemmad::report::Payload::Ask(ask) = node.request().payload else {
            panic!("no question");
        };
        assert_eq!(ask.prompt, text);
    }
    // Larger than allowed, smaller than a packet may be: refused by us, and the connection stands.
    broker.publish("gemmad/pi/request/ask", &vec![b'x'; 400_000], &[]);
    let refused = observer.wait_for("gemmad/pi/response/ask", 1);
    assert_eq!(refused[0].json()["error"]["code"], "too_large");
    node.publish(voice("too-large", &"x".repeat(400_000)));
    assert_eq!(node.mqtt().health().dropped, 2);
    node.publish(event(1));
    node.wait_empty();
    assert_eq!(node.mqtt().health().reconnects, 0);
    // Larger than a packet may be: the connection ends, once.
    broker.publish("gemmad/pi/request/ask", &vec![b'x'; 2 << 20], &[]);
    wait_until("it came back", || node.mqtt().health().reconnects == 1);
    node.publish(event(2));
    node.wait_empty();
    // Retained, it would end every connection: it is taken back before the next subscription.
    broker.publish("gemmad/pi/ask", &vec![b'x'; 2 << 20], &["-r"]);
    wait_until("it came back again", || {
        let health = node.mqtt().health();
        health.reconnects == 2 && health.connected
    });
    wait_until("the subscription stands", || {
        broker.publish("gemmad/pi/request/stats", b"", &[]);
        node.mqtt().health().reconnects == 2
            && node.mqtt().health().connected
            && !node.requests.is_empty()
    });
    assert!(
        retained(&broker)
            .iter()
            .all(|seen| seen.topic != "gemmad/pi/ask")
    );
    assert_eq!(node.mqtt().health().reconnects, 2);
}
