//! Conversations as clients send them, brought into the form that every family's template takes: instructions first, then turns that
//! alternate, the user's first. Nothing that was said is lost.

use super::error::EngineError;
use super::{Media, Message, Part, Role};
use crate::model::prompt;

/// What stands between two texts that were separate messages.
const PARAGRAPH: &str = "\n\n";

/// What stands between two texts of one message.
const LINE: &str = "\n";

/// The conversation with its turns merged.
///
/// * Instructions at the beginning become one message; later ones stand where they were, in the user's turn.
/// * Messages of one speaker in a row become one; those that say nothing are left out.
/// * Where the model speaks first, a user's turn without a word stands before it.
/// * Neighbouring texts become one, so that words keep apart what was apart.
pub fn in_turns(messages: Vec<Message>) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::new();
    for message in messages {
        let content = joined(message.content, LINE);
        if content.is_empty() {
            continue;
        }
        let begins = turns.iter().all(|turn| turn.role == Role::System);
        let role = match message.role {
            Role::System if !begins => Role::User,
            role => role,
        };
        match turns.last_mut() {
            Some(last) if last.role == role => {
                let parts = std::mem::take(&mut last.content);
                last.content = joined(parts.into_iter().chain(content).collect(), PARAGRAPH);
            }
            _ => {
                if role == Role::Assistant && begins {
                    turns.push(Message {
                        role: Role::User,
                        content: vec![Part::Text(String::new())],
                    });
                }
                turns.push(Message { role, content });
            }
        }
    }
    turns
}

/// Parts whose neighbouring texts are one, `between` them; texts of nothing but white space are left out.
fn joined(parts: Vec<Part>, between: &str) -> Vec<Part> {
    let mut found: Vec<Part> = Vec::new();
    for part in parts {
        match (part, found.last_mut()) {
            (Part::Text(text), _) if text.trim().is_empty() => {}
            (Part::Text(text), Some(Part::Text(before))) => {
                before.push_str(between);
                before.push_str(&text);
            }
            (part, _) => found.push(part),
        }
    }
    found
}

/// Messages as a template takes them, each medium in the place that `place` gives it.
pub(super) fn written(
    messages: &[Message],
    mut place: impl FnMut(&Media) -> Result<prompt::Part, EngineError>,
) -> Result<Vec<prompt::Message>, EngineError> {
    let mut written = Vec::with_capacity(messages.len());
    for message in messages {
        let mut content = Vec::with_capacity(message.content.len());
        for part in &message.content {
            content.push(match part {
                Part::Text(text) => prompt::Part::Text(text.clone()),
                Part::Media(media) => place(media)?,
                Part::ToolCall(call) => prompt::Part::ToolCall(call.clone()),
                Part::ToolResult(result) => prompt::Part::ToolResult(result.clone()),
            });
        }
        written.push(prompt::Message {
            role: message.role,
            content,
        });
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::AudioClip;
    use crate::pipeline::Media;

    /// Who says what.
    type Sent<'s> = &'s [(char, &'s [&'s str])];

    /// `s`, `u` and `a` are the speakers; `@` is a clip, each other word a part.
    fn of(lines: Sent<'_>) -> Vec<Message> {
        let part = |word: &&str| match *word {
            "@" => Part::Media(Media::Clip(AudioClip::default())),
            text => Part::Text(text.to_owned()),
        };
        let message = |(who, parts): &(char, &[&str])| Message {
            role: match who {
                's' => Role::System,
                'u' => Role::User,
                _ => Role::Assistant,
            },
            content: parts.iter().map(part).collect(),
        };
        lines.iter().map(message).collect()
    }

    fn shown(messages: &[Message]) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            _ => "@".to_owned(),
        };
        let message = |message: &Message| {
            let parts: Vec<String> = message.content.iter().map(part).collect();
            format!("{:?}: {}", message.role, parts.join("|"))
        };
        messages.iter().map(message).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn conversations_take_turns_whatever_was_sent() {
        let cases: &[(Sent<'_>, &str)] = &[
            (&[('u', &["a"])], "User: a"),
            (
                &[('s', &["be brief"]), ('s', &["be kind"]), ('u', &["a"])],
                "System: be brief\n\nbe kind; User: a",
            ),
            // As LLM Vision does: a picture a message, then the question.
            (
                &[('u', &["Image 1:", "@"]), ('u', &["@"]), ('u', &["what?"])],
                "User: Image 1:|@|@|what?",
            ),
            (&[('u', &["a", "b", "@", "c"])], "User: a\nb|@|c"),
            (
                &[('u', &["a"]), ('s', &["now rhyme"]), ('u', &["b"])],
                "User: a\n\nnow rhyme\n\nb",
            ),
            (
                &[('u', &["a"]), ('a', &[""]), ('u', &["b"])],
                "User: a\n\nb",
            ),
            (
                &[('u', &["a"]), ('a', &["x"]), ('a', &["y"]), ('u', &["b"])],
                "User: a; Assistant: x\n\ny; User: b",
            ),
            (
                &[('s', &["s"]), ('a', &["hello"]), ('u', &["b"])],
                "System: s; User: ; Assistant: hello; User: b",
            ),
            (&[('u', &[" \n"]), ('s', &[])], ""),
        ];
        for (sent, merged) in cases {
            assert_eq!(shown(&in_turns(of(sent))), *merged, "{sent:?}");
        }
    }
}
