//! `gemmad ask`: one question, one answer.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use serde::Serialize;
use serde_json::Value;

use super::describe::picture;
use super::failure::{Failure, exit, note};
use super::model_args::{GenerationArgs, PictureArgs, RunArgs};
use super::{output, progress};
use crate::config::Limits;
use crate::features::audio_file::{AudioLimits, read_audio_file};
use crate::media::AudioClip;
use crate::model::grammar::{Grammar, GrammarError, GrammarLimits};
use crate::model::prompt::MAX_TEXT_BYTES;
use crate::pipeline::{
    Answer, EngineError, FinishReason, Generation, GroupMemory, Media, Message, Part,
    PictureOptions, Request,
};

/// Answer a question about text, pictures and audio
///
/// The answer is printed as it comes. Pictures and clips stand before the text, in the order given.
#[derive(Debug, clap::Args)]
pub(super) struct Ask {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    /// Instructions before the question
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A JPEG or PNG picture; may be given several times
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// A WAV, FLAC, OGG or MP3 file of up to 30 s; may be given several times
    #[arg(long, value_name = "FILE")]
    audio: Vec<PathBuf>,
    #[command(flatten)]
    pictures: PictureArgs,
    #[command(flatten)]
    grammar: GrammarArgs,
    /// The model thinks before it answers, where it can; thoughts count among the tokens of the answer
    #[arg(long)]
    thinking: bool,
    /// Print what the model thought, too, behind the answer
    #[arg(long, requires = "thinking", conflicts_with = "json")]
    show_thoughts: bool,
    /// Print one JSON object with the answer, thoughts, timings and memory
    #[arg(long)]
    json: bool,
    /// The question; `-` reads it from standard input
    prompt: String,
}

/// What the answer may look like.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct GrammarArgs {
    /// The answer is JSON that fits the JSON schema in this file
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The answer is one of these texts, separated by commas
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    choices: Vec<String>,
    /// The answer is a text that this regular expression matches
    #[arg(long, value_name = "RE")]
    regex: Option<String>,
}

impl GrammarArgs {
    fn grammar(&self, limits: &GrammarLimits) -> Result<Option<Grammar>, Failure> {
        let grammar = if let Some(path) = &self.schema {
            Grammar::json_schema(&schema(path, limits)?, limits)
        } else if let Some(regex) = &self.regex {
            Grammar::regex(regex, limits)
        } else if self.choices.is_empty() {
            return Ok(None);
        } else {
            Grammar::choices(&self.choices, limits)
        };
        grammar.map(Some).map_err(|error| self.failure(&error))
    }

    /// A file's content is data, an argument is usage.
    fn failure(&self, error: &GrammarError) -> Failure {
        match &self.schema {
            Some(path) => Failure::new(exit::DATA, format_args!("{}: {error}", path.display())),
            None => Failure::new(exit::USAGE, error),
        }
    }
}

/// Reads a JSON schema.
fn schema(path: &Path, limits: &GrammarLimits) -> Result<Value, Failure> {
    let file = path.display();
    let mut text = String::new();
    // White space does not count, but a file has an end.
    let most = limits.max_bytes.saturating_mul(16) as u64;
    std::fs::File::open(path)
        .and_then(|file| file.take(most).read_to_string(&mut text))
        .map_err(|error| {
            Failure::new(exit::NO_INPUT, format_args!("cannot read {file}: {error}"))
        })?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(exit::DATA, format_args!("{file} is not JSON: {error}")))
}

/// What `--json` prints; the answer's own `memory` is that of the moment when it was complete.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    answer: Answer,
    memory_before: Vec<GroupMemory>,
    /// With audio and vision unloaded again.
    memory_after: Vec<GroupMemory>,
}

impl Ask {
    pub(super) fn run(self, matches: Option<&ArgMatches>) -> Result<(), Failure> {
        let config = self.run.config()?;
        let mut user = self.media(matches, &config.limits)?;
        let prompt = if self.prompt == "-" {
            read_prompt()?
        } else {
            self.prompt
        };
        user.push(Part::Text(prompt));
        let mut grammar = self.grammar.grammar(&config.limits.grammar)?;
        if self.json {
            grammar = grammar.map(Grammar::with_confidence);
        }
        let progress = progress::of_steps("loading the model");
        let mut engine = self
            .run
            .open(self.run.options_with(&config, self.pictures))?;
        let request = Request {
            conversation: None,
            messages: Message::with_instructions(self.system, user),
            matformer: self.generation.matformer.clone(),
            thinking: self.thinking.then_some(true),
            generation: Generation {
                grammar,
                ..self.generation.generation(&engine)
            },
        };
        let memory_before = engine.memory();
        progress.set_message("reading the prompt");
        let mut out = output::out();
        let mut written = Ok(());
        let answered = engine.answer(&request, &mut |text| {
            progress.finish_and_clear();
            if self.json {
                return ControlFlow::Continue(());
            }
            written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            if written.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        let answer = match answered {
            Err(EngineError::Grammar(error)) => return Err(self.grammar.failure(&error)),
            other => other?,
        };
        progress.finish_and_clear();
        written?;
        if answer.text.is_empty()
            && answer.thoughts.is_some()
            && answer.finish == FinishReason::MaxTokens
        {
            note("thoughts took all the tokens: allow more of them with --max-tokens");
        }
        if self.json {
            engine.unload_encoders();
            let report = Report {
                answer,
                memory_before,
                memory_after: engine.memory(),
            };
            writeln!(out, "{}", output::json(&report)?)?;
        } else {
            writeln!(out)?;
            if let Some(thoughts) = answer.thoughts.filter(|_| self.show_thoughts) {
                writeln!(out, "\nThoughts:\n{thoughts}")?;
            }
        }
        Ok(())
    }

    /// Pictures and clips in the order in which they stand on the command line.
    fn media(&self, matches: Option<&ArgMatches>, limits: &Limits) -> Result<Vec<Part>, Failure> {
        let places = |name: &str| -> Vec<usize> {
            matches
                .and_then(|matches| matches.indices_of(name))
                .into_iter()
                .flatten()
                .collect()
        };
        let mut media = Vec::new();
        for (place, path) in places("image").into_iter().zip(&self.image) {
            media.push((
                place,
                Media::Image(picture(path, &limits.image)?, PictureOptions::default()),
            ));
        }
        for (place, path) in places("audio").into_iter().zip(&self.audio) {
            media.push((place, Media::Clip(clip(path, &limits.audio)?)));
        }
        media.sort_by_key(|&(place, _)| place);
        Ok(media
            .into_iter()
            .map(|(_, media)| Part::Media(media))
            .collect())
    }
}

/// Reads a clip, for every command that takes one.
pub(super) fn clip(path: &Path, limits: &AudioLimits) -> Result<AudioClip, Failure> {
    read_audio_file(path, limits).map_err(|error| Failure::new(exit::DATA, error))
}

fn read_prompt() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let limit = MAX_TEXT_BYTES as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            Failure::new(
                exit::NO_INPUT,
                format_args!("cannot read standard input: {error}"),
            )
        })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(
            exit::DATA,
            format_args!("standard input is not UTF-8 text (byte {at} is the first that is not)"),
        )
    })
}
