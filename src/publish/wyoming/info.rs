//! What the service is: the answer to `describe`.

use serde_json::{Value, json};

use super::options::WyomingOptions;
use crate::report::Info;

/// The `info` event's data: speech to text with one model, and, where commands are configured, their recognition.
pub(super) fn describe(info: &Info, config: &WyomingOptions) -> Value {
    let languages: Vec<&String> = config.languages.keys().collect();
    let attribution =
        json!({ "name": env!("CARGO_PKG_NAME"), "url": env!("CARGO_PKG_REPOSITORY") });
    let artifact = |name: &str, description: &str| {
        json!({
            "name": name,
            "description": description,
            "attribution": attribution,
            "installed": true,
            "version": info.version,
        })
    };
    let program = |description: &str| {
        let mut model = artifact(&info.model, "Gemma");
        model["languages"] = json!(languages);
        let mut program = artifact(env!("CARGO_PKG_NAME"), description);
        program["models"] = json!([model]);
        program
    };
    let intent = match info.commands.is_empty() {
        true => json!([]),
        false => json!([program("Commands of gemmad.toml")]),
    };
    json!({
        "asr": [program("Speech to text on this board")],
        "intent": intent,
        "tts": [],
        "handle": [],
        "wake": [],
    })
}
