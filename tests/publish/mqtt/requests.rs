//! What is asked over MQTT, what is answered, and what is refused.

use std::collections::BTreeMap;

use gemmad::publish::mqtt::MqttOptions;
use gemmad::report::{
    ErrorBody, ErrorCode, Header, JobState, JobUpdate, Origin, Payload, Reply, Report, Request,
    Switch,
};

use serde_json::json;

use super::bench::{Broker, Node, Observer, config, info, wait_until};

fn update(request: &Request, state: JobState) -> JobUpdate {
    JobUpdate::new(&request.header, state)
}

fn finish(node: &Node, request: &Request, text: &str) {
    let reply = Reply {
        text: Some(text.to_owned()),
        ..Reply::default()
    };
    node.answer(request, JobUpdate::end(&request.header, Ok(reply)));
}

#[test]
fn every_command_becomes_a_request() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut node = Node::start(&config(broker.port));
    let observer = Observer::start(&broker);
    observer.wait_for_payload("gemmad/pi/state", "online");
    for (topic, payload, kind, expected) in [
        ("ask", "Why?", "ask", "Ask(Ask(AskFields { prompt: \"Why?\""),
        (
            "ask",
            r#"{"prompt":"Why?","seed":7}"#,
            "ask",
            "seed: Some(7)",
        ),
        (
            "request/ask",
            r#"{"prompt":"Why?","choices":["a","b"],"transaction":"t"}"#,
            "ask",
            "choices: Some([\"a\", \"b\"])",
        ),
        (
            "request/describe",
            r#"{"camera":"kitchen"}"#,
            "describe",
            "picture: Camera(\"kitchen\")",
        ),
        (
            "camera/kitchen/describe",
            "{}",
            "describe",
            "picture: Camera(\"kitchen\")",
        ),
        ("camera/kitchen/describe", "", "describe", "prompt: None"),
        (
            "camera/kitchen/describe",
            r#"{"prompt":"Who?"}"#,
            "describe",
            "prompt: Some(\"Who?\")",
        ),
        (
            "request/transcribe",
            r#"{"audio":"UklGRg=="}"#,
            "transcribe",
            "audio: Attachment(4 bytes)",
        ),
        (
            "request/cancel",
            r#"{"target":"t"}"#,
            "cancel",
            "Target(\"t\")",
        ),
        (
            "names",
            r#"{"entities":[{"id":"light.a","name":"A"}],"areas":[{"name":"Hall"}]}"#,
            "names",
            "EntityName { id: \"light.a\", name: \"A\", aliases: [], area: None }",
        ),
        ("names", "", "names", "Names(None)"),
        (
            "mic/kitchen/reply",
            r#"{"text":"Done","id":"01K"}"#,
            "reply",
            "SpokenReply { microphone: \"kitchen\", id: Some(\"01K\"), text: \"Done\" }",
        ),
        (
            "mic/kitchen/reply",
            "It is off.",
            "reply",
            "id: None, text: \"It is off.\"",
        ),
        ("request/reload", "", "reload", "Reload"),
        ("request/stats", "{}", "stats", "Stats"),
        ("request/forget", "", "forget", "Forget"),
        (
            "mic/kitchen/mute/set",
            "ON",
            "set",
            "Mute { id: \"kitchen\", muted: true }",
        ),
        (
            "mic/kitchen/listen",
            "now",
            "listen",
            "Listen { id: \"kitchen\" }",
        ),
        (
            "camera/kitchen/enabled/set",
            "OFF",
            "set",
            "Enable { id: \"kitchen\", enabled: false }",
        ),
        (
            "camera/kitchen/captions/set",
            "on",
            "set",
            "Captions { id: \"kitchen\", enabled: true }",
        ),
        ("matformer/set", "e2b", "set", "Matformer(\"e2b\")"),
        ("max_tokens/set", "64", "set", "MaxTokens(64)"),
    ] {
        broker.publish(&format!("gemmad/pi/{topic}"), payload.as_bytes(), &[]);
        let request = node.request();
        let found = format!("{:?}", request.payload);
        assert!(found.contains(expected), "{topic}: {found}");
        assert_eq!(
            (request.header.kind, &request.header.origin),
            (kind, &Origin::Mqtt)
        );
        let transaction = payload.contains("transaction").then_some("t");
        assert_eq!(request.header.transaction.as_deref(), transaction);
    }
    node.stop();
}

#[test]
fn answers_find_their_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut node = Node::start(&config(broker.port));
    let observer = Observer::start(&broker);
    observer.wait_for_payload("gemmad/pi/state", "online");

    let asked = r#"{"prompt":"Why?","stream":true,"transaction":"mine"}"#;
    broker.publish("gemmad/pi/request/ask", asked.as_bytes(), &[]);
    let request = node.request();
    node.answer(&request, update(&request, JobState::Queued));
    for piece in ["Be", "cau", "se"] {
        let piece = JobUpdate {
            partial: Some(piece.to_owned()),
            ..update(&request, JobState::Running)
        };
        node.answer(&request, piece);
    }
    finish(&node, &request, "Because");
    let response = observer.wait_for("gemmad/pi/response/ask", 1)[0].json();
    assert_eq!(
        (&response["status"], &response["transaction"]),
        (&"ok".into(), &"mine".into())
    );
    assert_eq!(response["data"]["text"], "Because");
    assert_eq!(response["id"], request.header.id.as_str());
    let partials = observer.on("gemmad/pi/response/ask/partial");
    let pieces: Vec<_> = partials.iter().map(|seen| seen.json()).collect();
    assert_eq!(
        pieces
            .iter()
            .map(|p| p["sequence"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(
        pieces
            .iter()
            .map(|p| p["text"].as_str().unwrap())
            .collect::<String>(),
        "Because"
    );
    // What came before is there before: the pieces, then the whole.
    let order: Vec<_> = observer
        .all()
        .into_iter()
        .filter(|seen| seen.topic.contains("response"))
        .collect();
    assert!(order.last().unwrap().topic.ends_with("response/ask"));

    broker.publish("gemmad/pi/ask", "How?".as_bytes(), &[]);
    let request = node.request();
    finish(&node, &request, &"so ".repeat(200));
    let answer = &observer.wait_for("gemmad/pi/answer", 1)[0];
    assert!(!answer.retain && answer.json()["short"].as_str().unwrap().chars().count() == 255);
    assert_eq!(observer.wait_for("gemmad/pi/response/ask", 2).len(), 2);
    assert_eq!(
        observer.on("gemmad/pi/answer").len(),
        1,
        "a request with an address is answered there only"
    );

    broker.publish("gemmad/pi/request/stats", b"", &[]);
    let request = node.request();
    let late = ErrorBody::new(ErrorCode::Timeout, "took longer than 120 s");
    node.answer(&request, JobUpdate::end(&request.header, Err(late)));
    let response = observer.wait_for("gemmad/pi/response/stats", 1)[0].json();
    assert_eq!(response["error"]["code"], "timeout");
    assert_eq!(response["data"], serde_json::json!({}));
    // Home Assistant's event tells of work that ended, not of figures, and not what it was about.
    let jobs = observer.wait_for("gemmad/pi/job", 2);
    assert_eq!(jobs.len(), 2);
    assert!(
        jobs.iter()
            .all(|job| job.json()["event_type"] == "finished" && !job.text().contains("so "))
    );
    // Peers on the bus have their own way.
    let mut elsewhere = update(&request, JobState::Done);
    elsewhere.header.origin = Origin::Bus {
        uid: 0,
        sender: ":1.1".to_owned(),
    };
    node.publish(Report::JobEnded(Box::new(elsewhere)));
    node.stop();
    assert_eq!(observer.on("gemmad/pi/response/stats").len(), 1);
}

/// What each command topic does not take.
fn poisons() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |n: usize| {
        let mut text = "{\"a\":".repeat(n);
        text.push('1');
        text + &"}".repeat(n)
    };
    vec![
        ("not UTF-8", b"\xff\xfe{\"prompt\":\"x\"}".to_vec()),
        ("NUL", b"{\"prompt\":\0}".to_vec()),
        ("torn", br#"{"prompt":"x"#.to_vec()),
        ("nested", nested(5_000).into_bytes()),
        (
            "brackets",
            format!("{{\"x\":{}", "[".repeat(60_000)).into_bytes(),
        ),
        (
            "unknown key",
            br#"{"prompts":"x","transaction":"t"}"#.to_vec(),
        ),
        (
            "wrong types",
            br#"{"prompt":[],"camera":{},"audio":1,"job":false,"transaction":"t"}"#.to_vec(),
        ),
        (
            "bad transaction",
            br#"{"prompt":"x","transaction":{"a":1}}"#.to_vec(),
        ),
        (
            "long transaction",
            format!(r#"{{"prompt":"x","transaction":"{}"}}"#, "t".repeat(1000)).into_bytes(),
        ),
        (
            "large number",
            br#"{"prompt":"x","max_tokens":1e400}"#.to_vec(),
        ),
        ("huge", vec![b'{'; 70_000]),
        ("larger", vec![b'x'; 900_000]),
    ]
}

#[test]
fn poison_on_every_command_topic_gets_an_error_and_the_connection_stands() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let mut node = Node::start(&config(broker.port));
    observer.wait_for_payload("gemmad/pi/state", "online");
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for (topic, kind) in [
        ("ask", "ask"),
        ("request/ask", "ask"),
        ("request/describe", "describe"),
        ("camera/kitchen/describe", "describe"),
        ("request/transcribe", "transcribe"),
        ("request/cancel", "cancel"),
        ("request/reload", "reload"),
        ("request/stats", "stats"),
        ("names", "names"),
        ("mic/kitchen/mute/set", "set"),
        ("mic/kitchen/listen", "set"),
        ("camera/kitchen/enabled/set", "set"),
        ("camera/kitchen/captions/set", "set"),
        ("matformer/set", "set"),
        ("max_tokens/set", "set"),
    ] {
        for (name, payload) in poisons() {
            // A slice may have any name, which the daemon then does not find.
            let short = payload.len() <= 64
                && std::str::from_utf8(&payload).is_ok_and(|t| !t.contains('\0'));
            if topic == "matformer/set" && short {
                continue;
            }
            broker.publish(&format!("gemmad/pi/{topic}"), &payload, &[]);
            let n = refused.entry(kind).or_default();
            *n += 1;
            let response =
                observer.wait_for(&format!("gemmad/pi/response/{kind}"), *n)[*n - 1].json();
            let code = if payload.len() > 65_536 {
                "too_large"
            } else {
                "invalid"
            };
            assert_eq!(
                (&response["status"], &response["error"]["code"]),
                (&"error".into(), &code.into()),
                "{topic}, {name}: {response}"
            );
            let message = response["error"]["message"].as_str().unwrap();
            assert!(
                message.starts_with(topic) && message.len() < 600,
                "{message}"
            );
            // The asker's own name is given back where the payload is JSON that can be read.
            let readable =
                matches!(name, "unknown key" | "wrong types") && !topic.ends_with("/set");
            assert_eq!(
                response.get("transaction").is_some(),
                readable,
                "{topic}, {name}"
            );
        }
    }
    assert!(node.requests.try_recv().is_err());
    assert_eq!(node.mqtt().health().reconnects, 0);
    // A retained command would be obeyed again and again.
    broker.publish("gemmad/pi/mic/kitchen/mute/set", b"ON", &["-r"]);
    assert!(matches!(
        node.request().payload,
        Payload::Set(Switch::Mute { .. })
    ));
    node.stop();
    let mut node = Node::start(&config(broker.port));
    node.wait_connected();
    broker.publish("gemmad/pi/request/stats", b"", &[]);
    assert!(matches!(node.request().payload, Payload::Stats));
    node.stop();
}

#[test]
fn names_of_any_length_are_refused_in_a_short_answer() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let mut node = Node::start(&MqttOptions {
        max_payload_bytes: 200_000,
        ..config(broker.port)
    });
    observer.wait_for_payload("gemmad/pi/state", "online");
    let long = "x".repeat(66_000);
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    for (topic, kind, key, mut payload) in [
        ("request/ask", "ask", "conversation", json!({"prompt": "x"})),
        ("request/ask", "ask", "matformer", json!({"prompt": "x"})),
        ("request/ask", "ask", "transaction", json!({"prompt": "x"})),
        ("request/describe", "describe", "camera", json!({})),
        (
            "camera/kitchen/describe",
            "describe",
            "matformer",
            json!({}),
        ),
        (
            "request/transcribe",
            "transcribe",
            "language",
            json!({"audio": "AAAA"}),
        ),
        (
            "request/transcribe",
            "transcribe",
            "matformer",
            json!({"audio": "AAAA"}),
        ),
        ("request/cancel", "cancel", "job", json!({})),
        ("request/cancel", "cancel", "target", json!({})),
        ("request/stats", "stats", "transaction", json!({})),
        ("mic/kitchen/listen", "set", "transaction", json!({})),
    ] {
        // One byte more than may be, and far more than any topic or line has.
        for name in [&long[..257], &long] {
            payload[key] = name.into();
            broker.publish(
                &format!("gemmad/pi/{topic}"),
                payload.to_string().as_bytes(),
                &[],
            );
            let n = refused.entry(kind).or_default();
            *n += 1;
            let response =
                observer.wait_for(&format!("gemmad/pi/response/{kind}"), *n)[*n - 1].json();
            let message = response["error"]["message"].as_str().unwrap();
            for words in [topic, &format!("`{key}`"), "256"] {
                assert!(message.contains(words), "{words}: {message}");
            }
            assert!(message.len() < 200, "{message}");
            assert_eq!(response.get("transaction"), None);
        }
        payload[key] = long[..256].into();
        broker.publish(
            &format!("gemmad/pi/{topic}"),
            payload.to_string().as_bytes(),
            &[],
        );
        node.request();
    }
    broker.publish("gemmad/pi/matformer/set", long.as_bytes(), &[]);
    let n = refused["set"] + 1;
    let last = observer.wait_for("gemmad/pi/response/set", n)[n - 1].json();
    assert_eq!(last["error"]["code"], "invalid", "{last}");
    // As long as a topic may be: nobody listens to it, and nobody falls over it.
    let level = "x".repeat(65_535 - "gemmad/pi/mic//mute/set".len());
    broker.publish(&format!("gemmad/pi/mic/{level}/mute/set"), b"ON", &[]);
    broker.publish("gemmad/pi/mic/kitchen/mute/set", b"ON", &[]);
    let Payload::Set(Switch::Mute { id, .. }) = node.request().payload else {
        panic!("not muted")
    };
    assert_eq!(*id, "kitchen");
    assert_eq!(node.mqtt().health().reconnects, 0);
    node.stop();
}

#[test]
fn a_thousand_requests_at_once_are_taken_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let mut node = Node::start_with(&config(broker.port), info(), 8);
    observer.wait_for_payload("gemmad/pi/state", "online");
    let questions = (0..1000).map(|n| format!("{{\"prompt\":\"{n}\",\"transaction\":\"{n}\"}}\n"));
    let mut child = std::process::Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &broker.port.to_string(),
            "-q",
            "1",
            "-l",
            "-t",
            "gemmad/pi/request/ask",
        ])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, questions.collect::<String>().as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
    let responses = observer.wait_for("gemmad/pi/response/ask", 992);
    assert!(
        responses
            .iter()
            .all(|seen| seen.json()["error"]["code"] == "queue_full")
    );
    for n in 0..8 {
        assert_eq!(node.request().header.transaction, Some(n.to_string()));
    }
    wait_until("nothing waits", || node.mqtt().health().queued == 0);
    assert_eq!(node.mqtt().health().reconnects, 0);
    node.stop();
}

#[test]
fn of_a_switch_that_is_set_too_fast_the_newest_value_counts() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let mut node = Node::start_with(&config(broker.port), info(), 2);
    observer.wait_for_payload("gemmad/pi/state", "online");
    // Nobody takes a request meanwhile.
    for n in 0..50 {
        let payload: &[u8] = if n % 2 == 0 { b"OFF" } else { b"ON" };
        broker.publish("gemmad/pi/mic/kitchen/mute/set", payload, &[]);
        broker.publish(
            "gemmad/pi/max_tokens/set",
            (n + 1).to_string().as_bytes(),
            &[],
        );
    }
    // What can wait for an answer is refused; that tells that all before it was read.
    broker.publish("gemmad/pi/request/stats", b"", &[]);
    let refused = observer.wait_for("gemmad/pi/response/stats", 1)[0].json();
    assert_eq!(refused["error"]["code"], "queue_full");
    let mut taken = Vec::new();
    while taken.last() != Some(&"Set(MaxTokens(50))".to_owned()) {
        taken.push(format!("{:?}", node.request().payload));
    }
    let mute = |muted| format!("Set(Mute {{ id: \"kitchen\", muted: {muted} }})");
    // The first two found room, and of all others the newest.
    let expected = [
        mute(false),
        "Set(MaxTokens(1))".to_owned(),
        mute(true),
        "Set(MaxTokens(50))".to_owned(),
    ];
    assert_eq!(taken, expected);
    assert!(node.requests.try_recv().is_err());
    assert!(observer.on("gemmad/pi/response/set").is_empty());
    node.stop();
}

#[test]
fn no_event_waits_for_answers_and_a_switch_that_stands_is_not_answered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    // Shut at first, so that everything waits at once.
    let gate = super::bench::Gate::to(broker.port);
    gate.set_open(false);
    let node = Node::start(&config(gate.port));
    let reply_to = node.mqtt().reply_to();
    let set = |n: usize, details: serde_json::Value| {
        let serde_json::Value::Object(details) = details else {
            panic!("no object");
        };
        let header = Header {
            id: format!("set-{n}"),
            origin: Origin::Mqtt,
            transaction: None,
            kind: "set",
            timeout: None,
        };
        let reply = Reply {
            details,
            ..Reply::default()
        };
        reply_to.tell(&JobUpdate::end(&header, Ok(reply)));
    };
    for n in 0..3000 {
        set(n, serde_json::json!({}));
        set(n, serde_json::json!({"unchanged": true}));
    }
    for id in ["1", "2"] {
        node.publish(super::bench::voice(id, "open the gate"));
    }
    gate.set_open(true);
    observer.wait_for("gemmad/pi/response/set", 3000);
    let topics: Vec<_> = observer.all().into_iter().map(|seen| seen.topic).collect();
    let first = |topic: &str| topics.iter().position(|seen| seen == topic).unwrap();
    let last = |topic: &str| topics.iter().rposition(|seen| seen == topic).unwrap();
    let answers = first("gemmad/pi/response/set");
    assert!(last("gemmad/pi/mic/kitchen/event") < answers);
    assert!(last("gemmad/pi/mic/kitchen/transcript") < answers);
    assert_eq!(observer.on("gemmad/pi/response/set").len(), 3000);
    node.stop();
}
