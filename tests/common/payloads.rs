//! The JSON schemas in packaging/schemas, and which topic has which.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/schemas")
}

pub(crate) fn validators() -> BTreeMap<String, jsonschema::Validator> {
    let files = std::fs::read_dir(folder()).unwrap();
    files
        .map(|file| {
            let path = file.unwrap().path();
            let schema: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, jsonschema::validator_for(&schema).unwrap())
        })
        .collect()
}

/// The schema of the payload on a topic of the node `pi`.
pub(crate) fn schema_of(topic: &str) -> Option<&'static str> {
    if topic.starts_with("homeassistant/") {
        return Some("discovery");
    }
    if topic == "gemmad/woken" {
        return Some("woken");
    }
    let parts: Vec<&str> = topic.strip_prefix("gemmad/pi/")?.split('/').collect();
    Some(match parts.as_slice() {
        ["info"] => "info",
        ["health"] => "health",
        ["log"] => "log",
        ["answer"] => "answer",
        ["job"] => "job-event",
        ["announced"] => "announced",
        ["instance"] => "instance",
        ["mic", _, "event"] => "voice-event",
        ["mic", _, "transcript"] => "transcript",
        ["camera", _, "event" | "caption"] => "caption-event",
        ["response", _, "partial"] => "response-partial",
        ["response", _] => "response",
        ["names"] => "request-names",
        ["mic", _, "reply"] => "request-reply",
        _ => return None,
    })
}
