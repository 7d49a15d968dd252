//! `gemmad chat`: a conversation in a terminal.

mod commands;
mod daemon;
mod hear;
mod interrupt;
mod model;
mod partner;
mod prompt;
mod session;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::failure::{Failure, exit};
use super::model_args::{EngineArgs, GenerationArgs, PictureArgs};
use super::{output, procfs};
use crate::config::{Config, Limits};
use crate::pipeline::PictureOptions;
use daemon::Daemon;
use model::Model;
use partner::{Partner, Settings};
use prompt::{Input, Prompt};
use session::Session;

pub(super) use model::any_microphone;

/// Talk with a model in the terminal
///
/// The answer is printed as it comes, and what was said before is known. Without --model it is the running daemon that answers, which has a model in
/// memory; where none runs, the model that gemmad.toml names is opened. Ctrl-C ends an answer, or clears the line; Ctrl-D leaves. In a
/// pipe each line of standard input is asked, and the first thing that went wrong decides the exit code.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("What may be typed besides what is asked:\n{}", commands::table()))]
pub(super) struct Chat {
    /// Directory of a checkpoint or pack to open, also beside a running daemon
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    pictures: PictureArgs,
    /// Instructions before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The model thinks before it answers, where it can
    #[arg(long)]
    thinking: bool,
    /// Remember nothing that is typed: else it is kept for the arrow keys, for this user only, in
    /// $XDG_STATE_HOME/gemmad/chat-history
    #[arg(long)]
    no_history: bool,
}

impl Chat {
    pub(super) fn run(self, given: Option<&ArgMatches>) -> Result<(), Failure> {
        let on_terminal = std::io::stdin().is_terminal() && output::on_terminal();
        let keeps_history = !self.no_history;
        let settings = Settings {
            system: self.system.clone(),
            slice: None,
            thinking: self.thinking,
        };
        let (partner, limits) = self.partner(on_terminal, given)?;
        if settings.thinking {
            partner.check_thinking()?;
        }
        let mut prompt = match on_terminal {
            true => Prompt::terminal(keeps_history)?,
            false => Prompt::pipe(),
        };
        if on_terminal {
            let about = partner.about();
            writeln!(
                output::out(),
                "{about}. /help says what may be typed, Ctrl-D leaves."
            )?;
        }
        let mut session = Session::new(partner, settings, limits);
        loop {
            match prompt.next_line()? {
                Input::Line(line) if !session.takes(&line)? => break,
                Input::Line(_) | Input::Cleared => {}
                Input::Unusable(failure) => session.failed(failure),
                Input::End => break,
            }
        }
        // On a terminal everything was told to somebody.
        match session.first_failure() {
            Some(failure) if !on_terminal => Err(failure),
            _ => Ok(()),
        }
    }

    /// Who answers, and how large files may be.
    fn partner(
        self,
        on_terminal: bool,
        given: Option<&ArgMatches>,
    ) -> Result<(Box<dyn Partner>, Limits), Failure> {
        let (config, dir) = match self.model.clone() {
            Some(dir) => (self.engine.config()?, dir),
            None => {
                let path = self.engine.config_file();
                let path = path.unwrap_or(Path::new(procfs::DEFAULT_CONFIG)).to_owned();
                if self.engine.config_file().is_none() && !path.exists() {
                    return Err(Failure::new(
                        exit::USAGE,
                        format_args!(
                            "no model is named: give --model DIR, or --config FILE of a gemmad.toml ({} is not there); `gemmad pull` fetches a model",
                            path.display()
                        ),
                    ));
                }
                let config =
                    Config::load(&path).map_err(|error| Failure::new(exit::CONFIG, error))?;
                let limits = config.limits.clone();
                let pictures = self.pictures.or(PictureOptions::default());
                let generation = self.generation.clone();
                let daemon =
                    Daemon::find(config.clone(), generation, pictures, on_terminal, given)?;
                if let Some(daemon) = daemon {
                    return Ok((Box::new(daemon), limits));
                }
                if procfs::runs_with(&path) {
                    return Err(Failure::new(
                        exit::UNAVAILABLE,
                        format_args!(
                            "a gemmad runs with {}, but is not on its bus ([dbus] enabled and bus, `gemmad doctor`): stop it, or open a model beside it with --model DIR",
                            path.display()
                        ),
                    ));
                }
                let dir = config.model.path.clone();
                (config, dir)
            }
        };
        let mut options = self.engine.options(&config);
        options.encoders.pictures = self.pictures.or(options.encoders.pictures);
        let limits = config.limits.clone();
        let model = Model::open(&dir, options, self.generation, config, on_terminal)?;
        Ok((Box::new(model), limits))
    }
}
