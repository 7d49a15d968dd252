//! Gemma's turn format.
//!
//! `<bos>`, then for each message `<start_of_turn>` role newline content `<end_of_turn>` newline; `assistant` is written
//! `model`; a system message is no turn of its own, its text and two newlines stand before the first message's text; at
//! the end `<start_of_turn>model` newline asks for an answer. An image becomes two newlines, `<start_of_image>`, one
//! `<image_soft_token>` per soft token, `<end_of_image>`, two newlines; an audio clip likewise.
//!
//! Source: the published `chat_template.jinja` and `Gemma3nProcessor` of the reference implementation.

use super::FAMILY;
use crate::model::prompt::{
    ChatTemplate, MediaKind, Message, Part, Prompt, PromptError, PromptOptions, PromptWriter, Role,
    misplaced, trim,
};
use crate::model::tokenizer::Tokenizer;

/// Gemma 3n's.
#[derive(Clone, Copy, Debug)]
pub struct Template;

impl ChatTemplate for Template {
    fn check(&self, _: &Tokenizer, options: &PromptOptions<'_>) -> Result<(), PromptError> {
        match options {
            PromptOptions { thinking: true, .. } => Err(PromptError::NoThinking { family: FAMILY }),
            PromptOptions { tools: [_, ..], .. } => Err(PromptError::NoTools { family: FAMILY }),
            _ => Ok(()),
        }
    }

    fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &PromptOptions<'_>,
    ) -> Result<Prompt, PromptError> {
        self.check(tokenizer, options)?;
        let parts = messages.iter().flat_map(|message| &message.content);
        let mut writer = PromptWriter::new(tokenizer, parts, &[])?;
        let (system, turns) = match messages.split_first() {
            Some((first, rest)) if first.role == Role::System => (system_text(first)?, rest),
            _ => (String::new(), messages),
        };
        if turns.is_empty() {
            return Err(PromptError::Empty);
        }
        writer.control(writer.tokens().bos);
        for (at, message) in turns.iter().enumerate() {
            let (expected, name) = if at % 2 == 0 {
                (Role::User, "user")
            } else {
                (Role::Assistant, "model")
            };
            if message.role != expected {
                return Err(match message.role {
                    Role::System => PromptError::LateSystem,
                    Role::User => PromptError::Order {
                        at: at + 1,
                        found: "user",
                    },
                    Role::Assistant => PromptError::Order {
                        at: at + 1,
                        found: "assistant",
                    },
                });
            }
            let before = if at == 0 { &system } else { "" };
            turn(&mut writer, (expected, name), before, &message.content)?;
        }
        if options.ask {
            begin_answer(&mut writer);
        }
        Ok(writer.finish())
    }

    fn render_next(&self, tokenizer: &Tokenizer, user: &[Part]) -> Result<Prompt, PromptError> {
        let mut writer = PromptWriter::new(tokenizer, user.iter(), &[])?;
        writer.control(writer.tokens().end_of_turn);
        writer.text("\n");
        turn(&mut writer, (Role::User, "user"), "", user)?;
        begin_answer(&mut writer);
        Ok(writer.finish())
    }
}

/// One turn; `before` stands in front of its content.
fn turn(
    writer: &mut PromptWriter<'_>,
    (role, name): (Role, &str),
    before: &str,
    content: &[Part],
) -> Result<(), PromptError> {
    writer.control(writer.tokens().start_of_turn);
    writer.text(name);
    writer.text("\n");
    writer.text(before);
    for part in content {
        match part {
            Part::Text(text) => writer.text(trim(text)),
            Part::Image { soft_tokens } => media(writer, MediaKind::Image, *soft_tokens)?,
            Part::Audio { soft_tokens } => media(writer, MediaKind::Audio, *soft_tokens)?,
            other => return Err(misplaced(role, "text, images and audio", other)),
        }
    }
    writer.control(writer.tokens().end_of_turn);
    writer.text("\n");
    Ok(())
}

fn media(
    writer: &mut PromptWriter<'_>,
    kind: MediaKind,
    soft_tokens: usize,
) -> Result<(), PromptError> {
    writer.text("\n\n");
    writer.media(kind, soft_tokens)?;
    writer.text("\n\n");
    Ok(())
}

/// The beginning of the model's turn.
fn begin_answer(writer: &mut PromptWriter<'_>) {
    writer.control(writer.tokens().start_of_turn);
    writer.text("model\n");
}

/// A system message's text with the two newlines behind it; the template trims other messages, but not this one.
fn system_text(message: &Message) -> Result<String, PromptError> {
    let mut system = String::new();
    for part in &message.content {
        match part {
            Part::Text(text) => system.push_str(text),
            other => return Err(misplaced(Role::System, "text", other)),
        }
    }
    system.push_str("\n\n");
    Ok(system)
}
