//! The JSON schemas in packaging/schemas are those of the program, and real messages fit them.

use gemmad::report::{
    Claim, CommandCall, ErrorBody, ErrorCode, EventType, Health, JobState, JobUpdate, LogLine,
    Reply, Report,
};
use serde_json::Value;
use std::collections::BTreeMap;

use super::bench::{Broker, Node, Observer, caption, config, voice};
use crate::payloads::{folder, schema_of, validators};

#[test]
fn the_committed_schemas_are_the_programs() {
    let rewrite = std::env::var_os("GEMMAD_WRITE_SCHEMAS").is_some();
    let mut names = Vec::new();
    for (name, schema) in gemmad::publish::mqtt::schemas() {
        let path = folder().join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if rewrite {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap_or_default(),
            text,
            "packaging/schemas/{name}.json is not what the program says: GEMMAD_WRITE_SCHEMAS=1 cargo test --test publish schemas writes it"
        );
        names.push(format!("{name}.json"));
    }
    names.sort();
    let files = std::fs::read_dir(folder()).unwrap();
    let mut files: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, names);
}

#[test]
fn real_messages_fit_their_schemas() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let observer = Observer::start(&broker);
    let mut node = Node::start(&config(broker.port));
    node.wait_connected();
    node.publish(Report::Health(Box::new(Health {
        memory_groups_mib: BTreeMap::from([("text".to_owned(), 12.5)]),
        ..Health::default()
    })));
    node.publish(Report::Log(Box::new(LogLine {
        schema: 1,
        ts: "2026-11-23T15:40:00.120+01:00".to_owned(),
        level: "warn",
        target: "gemmad::capture".to_owned(),
        source: Some("kitchen".to_owned()),
        message: "it is gone".to_owned(),
        suppressed: 0,
    })));
    node.publish(voice("a", "turn on the lamp"));
    let Report::Voice(mut event) = voice("b", "turn on the lamp") else {
        panic!();
    };
    event.event_type = EventType::Command;
    event.confidence = Some(0.9);
    event.command = Some(CommandCall {
        entities: vec!["light.kitchen".to_owned()],
        name: "turn_on".to_owned(),
        slots: serde_json::Map::from_iter([("area".to_owned(), "kitchen".into())]),
    });
    node.publish(Report::Voice(event));
    node.publish(caption("a cat", None));
    node.publish(Report::Woken(Claim {
        node: "pi".to_owned(),
        microphone: "kitchen".to_owned(),
        phrase: "Okay Nabu".to_owned(),
        score: 0.97,
        dbfs: -31.5,
        time: Some("2026-11-20T12:00:00.000+01:00".to_owned()),
    }));
    broker.publish("gemmad/pi/ask", b"Why?", &[]);
    let request = node.request();
    let mut header = request.header.clone();
    header.transaction = Some("t".to_owned());
    let update = JobUpdate {
        partial: Some("Be".to_owned()),
        ..JobUpdate::new(&header, JobState::Running)
    };
    node.answer(&request, update.clone());
    let answered = JobUpdate {
        partial: None,
        progress: None,
        state: JobState::Done,
        reply: Some(Reply {
            text: Some("Because".to_owned()),
            finish: Some("stop".to_owned()),
            ..Reply::default()
        }),
        ..update.clone()
    };
    node.answer(&request, answered);
    let failed = JobUpdate {
        partial: None,
        progress: None,
        state: JobState::Failed,
        error: Some(ErrorBody {
            code: ErrorCode::Failed,
            message: "no".to_owned(),
        }),
        ..update
    };
    node.answer(&request, failed);
    broker.publish("gemmad/pi/request/stats", b"[", &[]);
    observer.wait_for("gemmad/pi/response/stats", 1);
    observer.wait_for("gemmad/pi/announced", 1);
    node.wait_empty();
    let validators = validators();
    let mut judged: BTreeMap<&str, usize> = BTreeMap::new();
    for seen in observer.all() {
        let Some(name) = schema_of(&seen.topic) else {
            continue;
        };
        let errors: Vec<_> = validators[name]
            .iter_errors(&seen.json())
            .map(|error| error.to_string())
            .collect();
        assert!(
            errors.is_empty(),
            "{}: {errors:?}\n{}",
            seen.topic,
            seen.text()
        );
        *judged.entry(name).or_default() += 1;
        // A schema that allows anything would not notice.
        let mut spoilt = seen.json();
        let key = spoilt.as_object().unwrap().keys().next().unwrap().clone();
        spoilt.as_object_mut().unwrap().remove(&key);
        assert!(
            !validators[name].is_valid(&spoilt),
            "{name} does not need {key}"
        );
    }
    let published = validators
        .keys()
        .filter(|name| !name.starts_with("request-"));
    assert!(
        judged.keys().copied().eq(published.map(String::as_str)),
        "{judged:?}"
    );
}

#[test]
fn what_is_accepted_fits_the_schemas_and_what_is_refused_does_not() {
    let validators = validators();
    for (name, payload, fits) in [
        (
            "request-ask",
            r#"{"prompt":"x","transaction":"t","schema":{"type":"object"}}"#,
            true,
        ),
        ("request-ask", r#"{"prompt":"x","promt":"y"}"#, false),
        ("request-ask", r#"{"prompt":1}"#, false),
        (
            "request-describe",
            r#"{"camera":"porch","max_tokens":20}"#,
            true,
        ),
        ("request-describe", r#"{"max_tokens":-1}"#, false),
        (
            "request-transcribe",
            r#"{"audio":"UklGRg==","transaction":"t"}"#,
            true,
        ),
        ("request-transcribe", r#"{"audio":["UklGRg=="]}"#, false),
        (
            "request-cancel",
            r#"{"job":"01JD0000000000000000000000"}"#,
            true,
        ),
        ("request-cancel", r#"{"jobs":"x"}"#, false),
        ("request-plain", r#"{"transaction":"t"}"#, true),
        ("request-plain", r#"{"x":1}"#, false),
    ] {
        let payload: Value = serde_json::from_str(payload).unwrap();
        assert_eq!(
            validators[name].is_valid(&payload),
            fits,
            "{name}: {payload}"
        );
    }
}
