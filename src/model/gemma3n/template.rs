//! Gemma's turn format.
//!
//! `<bos>`, then for each message `<start_of_turn>` role newline content `<end_of_turn>` newline; `assistant` is written
//! `model`; a system message is no turn of its own, its text and two newlines stand before the first message's text; at
//! the end `<start_of_turn>model` newline asks for an answer. An image becomes two newlines, `<start_of_image>`, one
//! `<image_soft_token>` per soft token, `<end_of_image>`, two newlines; an audio clip likewise.
//!
//! There are no tokens for tools: what they are stands before the instructions, as JSON, a call is JSON in the model's turn, and what
//! came of calls is said in a user's turn behind it. The words are those of Google's guide to function calling with Gemma 3.
//!
//! Source: the published `chat_template.jinja` and `Gemma3nProcessor` of the reference implementation.

use serde_json::{Value, json};

use super::FAMILY;
use crate::model::prompt::{
    ChatTemplate, MediaKind, Message, Part, Prompt, PromptError, PromptOptions, PromptWriter, Role,
    misplaced, trim,
};
use crate::model::tokenizer::Tokenizer;
use crate::model::tools::{CallSyntax, Tool, ToolCall, ToolResult};

/// What stands before the tools.
const TOOLS: &str = "You have access to functions. If you decide to invoke any of the functions, you MUST put it in the format of {\"name\": function name, \"parameters\": dictionary of argument name and its value}, one call a line. You SHOULD NOT include any other text in the response if you call a function.\n";

/// Gemma 3n's.
#[derive(Clone, Copy, Debug)]
pub struct Template;

impl ChatTemplate for Template {
    fn check(&self, _: &Tokenizer, options: &PromptOptions<'_>) -> Result<(), PromptError> {
        match options {
            PromptOptions { thinking: true, .. } => Err(PromptError::NoThinking { family: FAMILY }),
            _ => Ok(()),
        }
    }

    fn call_syntax(&self, _: &Tokenizer) -> Result<CallSyntax, PromptError> {
        Ok(CallSyntax::Json)
    }

    fn render(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &PromptOptions<'_>,
    ) -> Result<Prompt, PromptError> {
        self.check(tokenizer, options)?;
        let parts = messages.iter().flat_map(|message| &message.content);
        let mut writer = PromptWriter::new(tokenizer, parts, options.tools)?;
        let (system, turns) = match messages.split_first() {
            Some((first, rest)) if first.role == Role::System => (system_text(first)?, rest),
            _ => (String::new(), messages),
        };
        let system = tools_text(options.tools) + &system;
        let turns = said(turns);
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

/// What may be called, and how; nothing where there are no tools.
fn tools_text(tools: &[Tool]) -> String {
    if tools.is_empty() {
        return String::new();
    }
    let mut text = TOOLS.to_owned();
    for tool in tools {
        let parameters = match &tool.parameters {
            Value::Null => json!({ "type": "object", "properties": {} }),
            schema => schema.clone(),
        };
        let declared = json!({
            "name": tool.name, "description": tool.description, "parameters": parameters,
        });
        text.push_str(&declared.to_string());
        text.push('\n');
    }
    text.push('\n');
    text
}

/// Turns with calls and what came of them as text: a call in the model's turn, results in a user's turn behind it.
fn said(turns: &[Message]) -> Vec<Message> {
    let is_tools = |part: &Part| matches!(part, Part::ToolCall(_) | Part::ToolResult(_));
    if !turns.iter().flat_map(|turn| &turn.content).any(is_tools) {
        return turns.to_vec();
    }
    let mut said: Vec<Message> = Vec::new();
    for turn in turns {
        for part in &turn.content {
            let (role, part) = match part {
                Part::ToolCall(call) => (turn.role, Part::Text(call_text(call))),
                Part::ToolResult(result) => (Role::User, Part::Text(result_text(result))),
                other => (turn.role, other.clone()),
            };
            let Some(last) = said.last_mut().filter(|last| last.role == role) else {
                let content = vec![part];
                said.push(Message { role, content });
                continue;
            };
            match (part, last.content.last_mut()) {
                (Part::Text(text), Some(Part::Text(before))) => {
                    before.push('\n');
                    before.push_str(&text);
                }
                (part, _) => last.content.push(part),
            }
        }
    }
    said
}

/// As its grammar has it.
fn call_text(call: &ToolCall) -> String {
    let mut text = format!("{{\"name\": {}, \"parameters\": ", json!(call.name));
    spaced(&Value::Object(call.arguments.clone()), &mut text);
    text + "}"
}

fn result_text(result: &ToolResult) -> String {
    match &result.value {
        Value::String(text) => format!("Result of {}:\n{text}", result.name),
        value => format!("Result of {}:\n{value}", result.name),
    }
}

/// JSON with a space behind each comma and colon.
fn spaced(value: &Value, text: &mut String) {
    match value {
        Value::Object(keys) => {
            text.push('{');
            for (at, (key, value)) in keys.iter().enumerate() {
                text.push_str(if at > 0 { ", " } else { "" });
                text.push_str(&json!(key).to_string());
                text.push_str(": ");
                spaced(value, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                text.push_str(if at > 0 { ", " } else { "" });
                spaced(value, text);
            }
            text.push(']');
        }
        other => text.push_str(&other.to_string()),
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
