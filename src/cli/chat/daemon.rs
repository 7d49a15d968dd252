//! The running daemon, over D-Bus: it has the model in memory, and a second one would not fit beside it.

use std::io::Read;
use std::path::Path;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::{Map, Value};
use ulid::Ulid;

use super::hear;
use super::interrupt::Interrupt;
use super::partner::{Attached, Partner, Said, Settings, Slices};
use crate::cli::broker::block_on;
use crate::cli::failure::{Failure, exit};
use crate::cli::model_args::GenerationArgs;
use crate::config::Config;
use crate::guard::{harmless, regular};
use crate::pipeline::{Group, PictureOptions};
use crate::publish::dbus::{CallError, Client};
use crate::report::{AskFields, Attachment};

/// Options of a model of one's own: the daemon's runs as its configuration says.
const NOT_TAKEN: [&str; 9] = [
    "threads",
    "context",
    "kv_cache",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "stop",
    "resolution",
];

pub(super) struct Daemon {
    config: Config,
    /// What it told of itself.
    model: String,
    generation: GenerationArgs,
    pictures: PictureOptions,
    conversation: String,
    interrupt: Interrupt,
}

impl Daemon {
    /// The daemon of a configuration; `None` where none is on the bus.
    ///
    /// # Errors
    /// It is there, and does not speak to this user; or an option was given that it does not take.
    pub(super) fn find(
        config: Config,
        generation: GenerationArgs,
        pictures: PictureOptions,
        on_terminal: bool,
        given: Option<&ArgMatches>,
    ) -> Result<Option<Daemon>, Failure> {
        if !config.dbus.enabled {
            return Ok(None);
        }
        let about = match about(&config)? {
            Ok(about) => about,
            Err(CallError::NotRunning { .. } | CallError::Bus(_)) => return Ok(None),
            Err(error) => return Err(failure(&error)),
        };
        let given = |id: &&str| {
            given.and_then(|given| given.value_source(id)) == Some(ValueSource::CommandLine)
        };
        if let Some(option) = NOT_TAKEN.iter().copied().find(|id| given(id)) {
            let option = option.replace('_', "-");
            return Err(Failure::new(
                exit::USAGE,
                format_args!(
                    "--{option} is for a model of one's own (--model DIR), and the running gemmad has its own settings: leave it out"
                ),
            ));
        }
        Ok(Some(Daemon {
            config,
            model: text(&about, "Model").unwrap_or_default(),
            generation,
            pictures,
            conversation: conversation(),
            interrupt: Interrupt::new(on_terminal),
        }))
    }

    fn about_now(&self) -> Result<Map<String, Value>, Failure> {
        about(&self.config)?.map_err(|error| failure(&error))
    }

    /// A file's bytes; it was looked at already.
    fn file(&self, path: &Path) -> Result<Attachment, Failure> {
        let most = self.config.dbus.max_attachment_bytes;
        let mut bytes = Vec::new();
        let read =
            regular::open(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
        let shown = path.display();
        read.map_err(|error| {
            Failure::new(exit::NO_INPUT, format_args!("cannot read {shown}: {error}"))
        })?;
        if bytes.len() > most {
            let message = format_args!(
                "{shown} has more than {most} bytes, the most that the running gemmad takes ([dbus] max_attachment_bytes)"
            );
            return Err(Failure::new(exit::DATA, message));
        }
        Ok(Attachment(bytes.into()))
    }

    fn question(
        &self,
        prompt: &str,
        attached: &[Attached],
        settings: &Settings,
    ) -> Result<AskFields, Failure> {
        let only = |group: Group| {
            let mut of_group = attached.iter().filter(|found| found.group() == group);
            match (of_group.next(), of_group.next()) {
                (found, None) => found.map(|found| self.file(&found.path)).transpose(),
                _ => Err(Failure::new(
                    exit::USAGE,
                    "the running gemmad takes one picture and one clip with a question: ask about them one by one",
                )),
            }
        };
        let usual = self.generation.matformer.clone();
        Ok(AskFields {
            prompt: prompt.to_owned(),
            system: settings.system.clone(),
            matformer: settings.slice.clone().or(usual),
            max_tokens: Some(self.generation.max_tokens),
            temperature: self.generation.temperature,
            seed: self.generation.seed,
            thinking: Some(settings.thinking),
            stream: true,
            conversation: Some(self.conversation.clone()),
            image: only(Group::Vision)?,
            soft_tokens: self.pictures.soft_tokens,
            audio: only(Group::Audio)?,
            ..AskFields::default()
        })
    }
}

impl Partner for Daemon {
    fn about(&self) -> String {
        format!("{}: the model of the running gemmad", self.model)
    }

    fn check(&self, _: Group) -> Result<(), Failure> {
        Ok(())
    }

    fn check_thinking(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn slices(&self) -> Result<Slices, Failure> {
        let usual = self.generation.matformer.clone();
        let usual = usual.map_or_else(
            || Ok(text(&self.about_now()?, "MatFormer").unwrap_or_default()),
            Ok::<_, Failure>,
        )?;
        Ok(Slices { usual, all: None })
    }

    fn memory(&self) -> Result<Vec<(String, u64)>, Failure> {
        let about = self.about_now()?;
        let groups = about.get("MemoryGroups").and_then(Value::as_object);
        let groups = groups.into_iter().flatten();
        Ok(groups
            .map(|(group, bytes)| (group.clone(), bytes.as_u64().unwrap_or_default()))
            .collect())
    }

    fn answer(
        &mut self,
        prompt: &str,
        attached: Vec<Attached>,
        settings: &Settings,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Option<Said>, Failure> {
        self.interrupt.begin();
        let ask = self.question(prompt, &attached, settings)?;
        let interrupt = &mut self.interrupt;
        let answered = block_on(async {
            let mut client = Client::connect(&self.config.dbus).await?;
            let mut on_text = |text: &str| {
                // Where nobody reads any more, the command ends once the daemon has answered.
                on_text(text);
            };
            client.ask(ask, &mut on_text, interrupt.pressed()).await
        });
        let Some(reply) = answered?.map_err(|error| failure(&error))? else {
            return Ok(None);
        };
        Ok(Some(Said {
            thoughts: text(&reply, "thoughts"),
            finish: text(&reply, "finish").unwrap_or_default(),
            resumed: reply.get("resumed") == Some(&Value::Bool(true)),
            timing: reply.get("timing").cloned().unwrap_or_default(),
            context: None,
        }))
    }

    fn listen(&mut self, microphone: Option<&str>) -> Result<Option<String>, Failure> {
        self.interrupt.begin();
        let microphone = hear::choose(microphone, &self.config.microphone)?;
        let id = microphone.id.clone();
        let interrupt = &mut self.interrupt;
        let heard = block_on(async {
            let mut client = Client::connect(&self.config.dbus).await?;
            client.listen(&id, interrupt.pressed()).await
        });
        let Some(event) = heard?.map_err(|error| failure(&error))? else {
            return Ok(None);
        };
        match event["text"].as_str() {
            Some(text) if event["event_type"] != "rejected" => Ok(Some(text.to_owned())),
            _ => {
                let reason = event["reason"].as_str();
                let reason = reason.unwrap_or("its [[microphone]] is configured to tell no text");
                let message = format_args!("there is nothing to ask: {}", harmless::line(reason));
                Err(Failure::new(exit::DATA, message))
            }
        }
    }

    fn forget(&mut self) {
        self.conversation = conversation();
    }
}

/// What the daemon tells of itself.
fn about(config: &Config) -> std::io::Result<Result<Map<String, Value>, CallError>> {
    block_on(async {
        let client = Client::connect(&config.dbus).await?;
        client.about().await
    })
}

/// A name that no other conversation has; the daemon forgets the old one when it needs the room.
fn conversation() -> String {
    format!("chat-{}", Ulid::generate())
}

fn text(object: &Map<String, Value>, key: &str) -> Option<String> {
    object.get(key)?.as_str().map(str::to_owned)
}

fn failure(error: &CallError) -> Failure {
    Failure::new(exit::UNAVAILABLE, error)
}
