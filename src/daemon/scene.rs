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

/// Tokens that an answer of this shape has at least: its names, and a sentence in most languages. A shorter "longest answer" is meant
/// for plain sentences.
pub(super) const LEAST_TOKENS: usize = 160;
/// Longest beginning of a character as JSON escapes it: `\ud83d\ude0`.
const LONGEST_ESCAPE: usize = 11;

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

/// The caption of an answer, and what is in the picture. Of an answer that was cut off, its caption as far as it goes.
pub(super) fn read(text: &str) -> (String, Option<Scene>) {
    let text = text.trim();
    match serde_json::from_str::<Answer>(text) {
        Ok(answer) => (answer.caption.trim().to_owned(), Some(answer.scene)),
        Err(_) if text.starts_with('{') => (begun(text).unwrap_or_default(), None),
        Err(_) => (text.to_owned(), None),
    }
}

/// The caption that stands at the beginning of an answer, ended or not.
fn begun(text: &str) -> Option<String> {
    let mut rest = text;
    for part in ["{", "\"caption\"", ":", "\""] {
        rest = rest.strip_prefix(part)?.trim_start();
    }
    let mut escaped = false;
    let end = rest.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let written = &rest[..end.unwrap_or(rest.len())];
    // What was cut off within a character goes whole.
    let cuts =
        (0..=LONGEST_ESCAPE).filter_map(|cut| written.get(..written.len().checked_sub(cut)?));
    let caption = cuts.filter_map(|cut| serde_json::from_str::<String>(&format!("\"{cut}\"")).ok());
    caption.map(|caption| caption.trim().to_owned()).next()
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
        assert_eq!(read(" A man. "), ("A man.".to_owned(), None));
        assert_eq!(read(""), (String::new(), None));
    }

    #[test]
    fn of_an_answer_that_was_cut_off_the_caption_is_told_as_far_as_it_goes() {
        let text = "{ \"caption\" : \"An \\\"ä\\\\\\ud83d\\ude00 man\", \"people\": 1, \"package\": true, \"action\": \"\"}";
        let whole = "An \"ä\\😀 man";
        assert_eq!(read(text).0, whole);
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            let (caption, scene) = read(&text[..end]);
            assert!(whole.starts_with(&caption), "{caption:?}");
            assert_eq!(scene, None);
        }
        let before = text.find(" man").unwrap();
        assert_eq!(read(&text[..before]).0, "An \"ä\\😀");
        assert_eq!(read(&text[..before - 1]).0, "An \"ä\\", "half a character");
        assert_eq!(read(&text[..text.find("people").unwrap()]).0, whole);
    }
}
