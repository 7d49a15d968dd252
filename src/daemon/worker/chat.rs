//! A conversation of a client that has its own memory: all that was said comes with each request.

use std::sync::Arc;

use serde_json::json;

use super::{Task, engine_error, invalid_audio, invalid_image};
use crate::pipeline::{
    CallRules, Generation, Grammar, HouseNames, Media, Message, Part, PictureOptions, Request,
    Role, Tool, ToolCall, ToolResult, Tools, in_turns,
};
use crate::report::chat::{self, Chat, Said, Shape, Speaker, ToolChoice};
use crate::report::{ErrorBody, ErrorCode};

/// A call as it is told.
pub(super) fn told(call: ToolCall) -> chat::ToolCall {
    chat::ToolCall {
        name: call.name,
        arguments: call.arguments,
    }
}

/// Whether a conversation needs the audio tower, and the vision tower.
pub(super) fn towers(chat: &Chat) -> (bool, bool) {
    let mut parts = chat.messages.iter().flat_map(|message| &message.said);
    let audio = parts.clone().any(|part| matches!(part, Said::Sound(_)));
    (audio, parts.any(|part| matches!(part, Said::Picture(_))))
}

impl Task<'_> {
    /// The engine's request; that it has begun is told once nothing shows any more that would keep it from being answered.
    pub(super) fn chat(&mut self, chat: &Chat) -> Result<Request, ErrorBody> {
        let request = self.conversation(chat)?;
        let accepted = self.engine.accepts(&request);
        accepted.map_err(|error| engine_error(&error))?;
        self.begun();
        Ok(request)
    }

    /// The engine's request for a conversation.
    fn conversation(&mut self, chat: &Chat) -> Result<Request, ErrorBody> {
        let mut messages = Vec::new();
        for message in &chat.messages {
            let mut content = Vec::new();
            for said in &message.said {
                content.push(self.part(said, chat.soft_tokens)?);
            }
            messages.push(Message {
                role: match message.speaker {
                    Speaker::System => Role::System,
                    Speaker::User => Role::User,
                    Speaker::Assistant => Role::Assistant,
                },
                content,
            });
        }
        Ok(Request {
            messages: in_turns(messages),
            matformer: self.slice(chat.matformer.as_ref()),
            thinking: Some(chat.thinks),
            conversation: None,
            generation: self.choosing(chat)?,
        })
    }

    fn part(&self, said: &Said, soft_tokens: Option<usize>) -> Result<Part, ErrorBody> {
        let limits = &self.settings().config.limits;
        Ok(match said {
            Said::Text(text) => Part::Text(text.clone()),
            Said::Picture(picture) => {
                let options = PictureOptions {
                    soft_tokens,
                    ..PictureOptions::default()
                };
                let picture =
                    Media::image(&picture.0, &limits.image, options).map_err(invalid_image)?;
                Part::Media(Media::Again(Box::new(picture)))
            }
            Said::Sound(sound) => {
                let clip = Media::clip(&sound.0, &limits.audio).map_err(invalid_audio)?;
                self.need_speech(&clip)?;
                Part::Media(Media::Again(Box::new(clip)))
            }
            Said::Called(call) => Part::ToolCall(ToolCall {
                name: call.name.clone(),
                arguments: call.arguments.clone(),
            }),
            Said::Result { name, value } => Part::ToolResult(ToolResult {
                name: name.clone(),
                value: value.clone(),
            }),
        })
    }

    fn choosing(&self, chat: &Chat) -> Result<Generation, ErrorBody> {
        let settings = Arc::clone(&self.job.settings);
        let limit = settings.config.http.max_tokens;
        let max_tokens = chat.max_tokens.map_or(limit, |asked| asked.min(limit));
        let mut generation = self.engine.default_generation(max_tokens);
        let (sampling, choosing) = (&mut generation.sampling, &chat.choosing);
        let set = |place: &mut f32, asked: Option<f32>| *place = asked.unwrap_or(*place);
        set(&mut sampling.temperature, choosing.temperature);
        set(&mut sampling.top_p, choosing.top_p);
        set(&mut sampling.min_p, choosing.min_p);
        set(
            &mut sampling.repetition_penalty,
            choosing.repetition_penalty,
        );
        sampling.top_k = choosing.top_k.unwrap_or(sampling.top_k);
        generation.seed = choosing.seed.unwrap_or(generation.seed);
        generation.stop.clone_from(&chat.stop);
        let limits = &settings.config.limits.grammar;
        let object = json!({ "type": "object" });
        let schema = match &chat.shape {
            None => None,
            Some(Shape::Object) => Some(&object),
            Some(Shape::Schema(schema)) => Some(schema),
        };
        let grammar = schema.map(|schema| Grammar::json_schema(schema, limits));
        let invalid = |error: crate::pipeline::GrammarError| {
            ErrorBody::new(ErrorCode::Invalid, error.to_string())
        };
        generation.grammar = grammar.transpose().map_err(invalid)?;
        generation.tools = chat.tools.as_ref().map(|tools| self.tools(chat, tools));
        Ok(generation)
    }

    /// The tools of a conversation; where it lists what is in a house, names of it are the only ones that may be called.
    fn tools(&self, chat: &Chat, tools: &chat::Tools) -> Tools {
        let tool = |tool: &chat::Tool| Tool {
            name: tool.name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
        };
        let offered: Vec<Tool> = tools.offered.iter().map(tool).collect();
        let mut callable = offered.clone();
        if let ToolChoice::Named(name) = &tools.choice {
            callable.retain(|tool| tool.name == *name);
        }
        let config = &self.settings().config;
        if tools.closed_names {
            let instructions = chat.messages.iter();
            let instructions = instructions.filter(|message| message.speaker == Speaker::System);
            let texts = instructions.flat_map(|message| &message.said);
            let texts = texts.filter_map(|said| match said {
                Said::Text(text) => Some(text.as_str()),
                _ => None,
            });
            if let Some(names) = HouseNames::find(texts) {
                names.close(&mut callable, config.limits.grammar.max_choices);
            }
        }
        Tools {
            offered,
            callable,
            rules: CallRules {
                must: tools.choice != ToolChoice::Auto,
                several: tools.several,
            },
        }
    }
}
