//! What is in a picture, as an answer of a fixed shape.

use serde::Deserialize;
use serde_json::json;

use crate::config::Config;
use crate::pipeline::Grammar;
use crate::report::{ErrorBody, ErrorCode, Scene};

/// Longest caption and longest action, characters.
const CAPTION_CHARS: usize = 300;
const ACTION_CHARS: usize = 80;
/// More people are not counted.
const MOST_PEOPLE: u32 = 20;

/// An answer of [`grammar`].
#[derive(Deserialize)]
struct Answer {
    caption: String,
    #[serde(flatten)]
    scene: Scene,
}

/// The answer's shape.
pub(super) fn grammar(config: &Config) -> Result<Grammar, ErrorBody> {
    let schema = json!({
        "type": "object",
        "properties": {
            "caption": { "type": "string", "maxLength": CAPTION_CHARS },
            "people": { "type": "integer", "minimum": 0, "maximum": MOST_PEOPLE },
            "package": { "type": "boolean" },
            "action": { "type": "string", "maxLength": ACTION_CHARS },
        },
        "required": ["caption", "people", "package", "action"],
        "additionalProperties": false,
    });
    Grammar::json_schema(&schema, &config.limits.grammar)
        .map_err(|error| ErrorBody::new(ErrorCode::Failed, error.to_string()))
}

/// The caption of an answer, and what is in the picture; an answer of another shape, such as one that was cut off, is all caption.
pub(super) fn read(text: &str) -> (String, Option<Scene>) {
    match serde_json::from_str::<Answer>(text) {
        Ok(answer) => (answer.caption.trim().to_owned(), Some(answer.scene)),
        Err(_) => (text.trim().to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_read_and_anything_else_is_a_caption() {
        let text = r#"{"caption":"A man rings. ","people":1,"package":true,"action":"ringing"}"#;
        let scene = Scene {
            people: 1,
            package: true,
            action: "ringing".to_owned(),
        };
        assert_eq!(read(text), ("A man rings.".to_owned(), Some(scene)));
        assert_eq!(read(&text[..30]).1, None);
        assert_eq!(read(" A man. "), ("A man.".to_owned(), None));
    }
}
