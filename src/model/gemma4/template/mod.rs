//! Gemma 4's turn format.
//!
//! `<bos>`; where there are instructions or tools, or thoughts are wanted, a turn of the system; then for each message `<|turn>` role
//! newline content `<turn|>` newline, `assistant` being written `model`; at the end `<|turn>model` newline asks for an answer. A picture
//! is `<|image>`, one `<|image|>` per soft token, `<image|>`, and a clip likewise: nothing stands around them.
//!
//! What the model thought stands in its turn as `<|channel>thought` newline … newline `<channel|>`, until a user says something
//! new. Its calls of tools and what came of them stand in its turn, too.
//!
//! Source: reference section 5.2.

mod tools;

use crate::model::prompt::{
    ChatTemplate, MediaKind, Message, Part, Prompt, PromptError, PromptOptions, PromptWriter, Role,
    misplaced, system_message, trim,
};
use crate::model::tokenizer::Tokenizer;
use crate::model::tools::CallSyntax;

/// Gemma 4's.
#[derive(Clone, Copy, Debug)]
pub struct Template;

/// The marks of thoughts where they stand in the text of an earlier answer.
const CHANNEL: [&str; 2] = ["<|channel>", "<channel|>"];

impl ChatTemplate for Template {
    fn check(&self, tokenizer: &Tokenizer, options: &PromptOptions<'_>) -> Result<(), PromptError> {
        let control = tokenizer.control();
        if options.thinking && control.thoughts.is_none() {
            return Err(PromptError::NoTokens("thoughts"));
        }
        if !options.tools.is_empty() && control.tools.is_none() {
            return Err(PromptError::NoTokens("tools"));
        }
        Ok(())
    }

    fn call_syntax(&self, tokenizer: &Tokenizer) -> Result<CallSyntax, PromptError> {
        let tokens = tokenizer.control().tools;
        let tokens = tokens.ok_or(PromptError::NoTokens("tools"))?;
        Ok(CallSyntax::Tokens(tokens))
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
        let system = system_message(messages);
        let turns = &messages[usize::from(system.is_some())..];
        if turns.is_empty() {
            return Err(PromptError::Empty);
        }
        writer.control(writer.tokens().bos);
        if options.thinking || !options.tools.is_empty() || system.is_some() {
            system_turn(&mut writer, system, options)?;
        }
        let last_user = turns.iter().rposition(|turn| turn.role == Role::User);
        let mut ending = Ending::Closed;
        for (at, turn) in turns.iter().enumerate() {
            ending = match turn.role {
                Role::System => return Err(PromptError::LateSystem),
                Role::User => user_turn(&mut writer, &turn.content)?,
                Role::Assistant => {
                    let is_model =
                        |at: usize| turns.get(at).map(|turn| turn.role == Role::Assistant);
                    let answer = Answer {
                        goes_on: at > 0 && is_model(at - 1) == Some(true),
                        followed_by_answer: is_model(at + 1),
                        keeps_thoughts: last_user.is_none_or(|user| at > user),
                    };
                    answer.write(&mut writer, &turn.content)?
                }
            };
        }
        match (options.ask, ending) {
            (true, Ending::Closed) => begin_answer(&mut writer),
            (true, Ending::Informed) if options.thinking => {
                writer.control(writer.thoughts()?.start);
                writer.text("thought\n");
            }
            _ => {}
        }
        Ok(writer.finish())
    }

    fn render_next(&self, tokenizer: &Tokenizer, user: &[Part]) -> Result<Prompt, PromptError> {
        let mut writer = PromptWriter::new(tokenizer, user.iter(), &[])?;
        end_turn(&mut writer);
        user_turn(&mut writer, user)?;
        begin_answer(&mut writer);
        Ok(writer.finish())
    }
}

/// How a message ends, and so how the model goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// As a turn.
    Closed,
    /// With calls that nothing came of yet: their results go on with the turn.
    Called,
    /// With what came of calls: the model goes on with its turn.
    Informed,
}

fn begin_turn(writer: &mut PromptWriter<'_>, role: &str) {
    writer.control(writer.tokens().start_of_turn);
    writer.text(role);
    writer.text("\n");
}

fn end_turn(writer: &mut PromptWriter<'_>) {
    writer.control(writer.tokens().end_of_turn);
    writer.text("\n");
}

/// The beginning of the model's turn.
fn begin_answer(writer: &mut PromptWriter<'_>) {
    begin_turn(writer, "model");
}

/// Whether thoughts are wanted, instructions and tools. Of several pieces of text each is followed by a space.
fn system_turn(
    writer: &mut PromptWriter<'_>,
    message: Option<&Message>,
    options: &PromptOptions<'_>,
) -> Result<(), PromptError> {
    begin_turn(writer, "system");
    if options.thinking {
        writer.control(writer.thoughts()?.ask);
        writer.text("\n");
    }
    let content = message.map_or(&[][..], |message| &message.content);
    for part in content {
        match part {
            Part::Text(text) => writer.text(trim(text)),
            other => return Err(misplaced(Role::System, "text", other)),
        }
        if content.len() > 1 {
            writer.text(" ");
        }
    }
    for tool in options.tools {
        tools::declaration(writer, tool)?;
    }
    end_turn(writer);
    Ok(())
}

fn user_turn(writer: &mut PromptWriter<'_>, content: &[Part]) -> Result<Ending, PromptError> {
    begin_turn(writer, "user");
    for part in content {
        match part {
            Part::Text(text) => writer.text(trim(text)),
            Part::Image { soft_tokens } => writer.media(MediaKind::Image, *soft_tokens)?,
            Part::Audio { soft_tokens } => writer.media(MediaKind::Audio, *soft_tokens)?,
            other => return Err(misplaced(Role::User, "text, images and audio", other)),
        }
    }
    end_turn(writer);
    Ok(Ending::Closed)
}

/// The place of an answer of the model in a conversation.
struct Answer {
    /// The message before is the model's, too: the two are one turn.
    goes_on: bool,
    /// Whether the message behind it is the model's, too; `None` where there is none.
    followed_by_answer: Option<bool>,
    /// No user said anything since.
    keeps_thoughts: bool,
}

impl Answer {
    fn write(
        &self,
        writer: &mut PromptWriter<'_>,
        content: &[Part],
    ) -> Result<Ending, PromptError> {
        if !self.goes_on {
            begin_answer(writer);
        }
        let mut ending = Ending::Closed;
        let mut has_text = false;
        for part in content {
            match part {
                Part::Text(text) => {
                    let text = without_thoughts(text);
                    has_text |= !text.is_empty();
                    writer.text(&text);
                }
                Part::Thought(_) if !self.keeps_thoughts => {}
                Part::Thought(thought) => {
                    let tokens = writer.thoughts()?;
                    writer.control(tokens.start);
                    writer.text("thought\n");
                    writer.text(thought);
                    writer.text("\n");
                    writer.control(tokens.end);
                }
                Part::ToolCall(call) => {
                    tools::call(writer, call)?;
                    ending = Ending::Called;
                }
                Part::ToolResult(result) => {
                    tools::result(writer, result)?;
                    ending = Ending::Informed;
                    // What was said before a call does not end the turn: the model goes on with what came of it.
                    has_text = false;
                }
                Part::Image { .. } | Part::Audio { .. } => {
                    let allowed = "text, thoughts, tool calls and tool results";
                    return Err(misplaced(Role::Assistant, allowed, part));
                }
            }
        }
        match (ending, self.followed_by_answer) {
            (Ending::Called, _) => tools::wait(writer)?,
            (_, Some(true)) => {}
            (Ending::Informed, None) if !has_text => {}
            _ => end_turn(writer),
        }
        Ok(ending)
    }
}

/// An earlier answer without what stands between the marks of thoughts, trimmed.
fn without_thoughts(text: &str) -> String {
    let [start, end] = CHANNEL;
    let said = text
        .split(end)
        .map(|piece| piece.split_once(start).map_or(piece, |(said, _)| said));
    let said: String = said.collect();
    trim(&said).to_owned()
}
