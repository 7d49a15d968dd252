//! A mistake in gemmad.toml in one line: where it is, what is wrong, and which key was probably meant.

use crate::values::nearest;

/// How alike a known name must be to be offered: 1 is the same (Jaro-Winkler). A slip of the finger and a forgotten unit stay above,
/// names that share some letters only stay below.
const ALIKE: f64 = 0.8;

/// What there may be several of.
const LISTS: [&str; 3] = ["microphone", "camera", "command"];

/// The library's error, in one line.
pub(super) fn explain(error: &toml::de::Error, text: &str) -> String {
    if names_its_section(error.message()) {
        return error.message().to_owned();
    }
    let brackets = || brackets(error.message(), line_at(text, error.span()?.start));
    let reason = name_nearest(error.message()).or_else(brackets);
    let reason = reason.unwrap_or_else(|| {
        let words: Vec<&str> = error.message().split_whitespace().collect();
        words.join(" ")
    });
    match error.span() {
        None => reason,
        Some(span) => {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let begun = before.rsplit('\n').next().unwrap_or(before);
            let column = begun.chars().count() + 1;
            // The key alone: a value may be a secret.
            let of = match begun.split_once('=') {
                Some((key, _)) => format!(" ({})", key.trim()),
                None => String::new(),
            };
            format!("line {line}, column {column}{of}: {reason}")
        }
    }
}

/// Whether a message is a room's own, about the values of one microphone, camera or command: it begins with which, and where the section
/// begins would tell less.
fn names_its_section(message: &str) -> bool {
    LISTS.iter().any(|list| {
        let rest = message.strip_prefix(list);
        rest.is_some_and(|rest| rest.starts_with([' ', '.']))
    })
}

/// The line of a text in which the byte at `start` stands.
fn line_at(text: &str, start: usize) -> &str {
    let from = text.get(..start).and_then(|before| before.rfind('\n'));
    let rest = text.get(from.map_or(0, |at| at + 1)..).unwrap_or(text);
    rest.lines().next().unwrap_or_default().trim()
}

/// What begins with one pair of brackets instead of two, or the other way round; `None` for other messages.
fn brackets(message: &str, line: &str) -> Option<String> {
    let inner = line.split_once(']').map_or(line, |(header, _)| header);
    let name = inner.trim_start_matches('[').trim();
    let (one, two) = (line.starts_with('['), line.starts_with("[["));
    let listed = LISTS.contains(&name.split('.').next().unwrap_or(name).trim());
    let is_table = message.starts_with("invalid type: map, expected a sequence");
    let is_again = message.starts_with("duplicate key") && listed;
    if one && !two && (is_table || is_again) {
        Some(format!(
            "there may be several of these, so each begins with two pairs of brackets: write [[{name}]]"
        ))
    } else if two && !listed && message.starts_with("invalid ") {
        // The library takes a list for the section's keys in order, and stumbles over the first.
        Some(format!("there is only one of these: write [{name}]"))
    } else {
        None
    }
}

/// Serde's "unknown field `x`, expected one of `a`, `b`", with the nearest name in front; `None` for other messages.
fn name_nearest(message: &str) -> Option<String> {
    let (kind, rest) = [("key", "unknown field `"), ("value", "unknown variant `")]
        .into_iter()
        .find_map(|(kind, start)| Some((kind, message.strip_prefix(start)?)))?;
    let (unknown, rest) = rest.split_once("`, ")?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let meant = match nearest(unknown, &known, ALIKE) {
        Some(name) => format!("did you mean `{name}`? "),
        None => String::new(),
    };
    let there_are = match known.as_slice() {
        [] => "none is known here".to_owned(),
        known => format!("known here: {}", known.join(", ")),
    };
    Some(format!("unknown {kind} `{unknown}`; {meant}{there_are}"))
}
