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
        false => json!([program("Commands of this home")]),
    };
    let mut asr = program("Speech to text on this board");
    // The model hears what was said while it is said, and was trained on sound as it is; the door knows itself when a speaker is done.
    asr["supports_transcript_streaming"] = json!(true);
    asr["requires_external_vad"] = json!(config.silence_ms == 0);
    asr["prefers_auto_gain_enabled"] = json!(false);
    asr["prefers_noise_reduction_enabled"] = json!(false);
    json!({
        "asr": [asr],
        "intent": intent,
        "tts": [],
        "handle": [],
        "wake": [],
    })
}
