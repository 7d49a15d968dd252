//! `gemmad doctor`: whether this board, its devices and its neighbours are as gemmad.toml wants them, and what to do where not.

mod board;
mod flash;
pub(super) mod model;
pub(super) mod services;
pub(super) mod sources;

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::failure::{Failure, exit};
use super::output;
use super::procfs;
use crate::config::Config;
use crate::daemon;
use crate::fleet::Role;
use crate::guard::harmless;

/// Look whether everything that the configuration names can be used, and say what to do where not
///
/// Run it as the daemon's user, since permissions are that user's: sudo -u gemmad gemmad doctor. Microphones are listened to for half
/// a second, cameras take a picture, the speaker is opened without a sound, and messages of every kind and size go to the broker and
/// back, of which nothing stays there. Ends with 69 if something fails.
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
    /// Where mutes and other switches are kept [default: $STATE_DIRECTORY, else /var/lib/gemmad]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Ok,
    /// It works, but not as well as it might, or it cannot be told from here.
    Warning,
    /// The daemon cannot do what is configured.
    Failing,
}

/// What a check found; the documented keys of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    check: &'static str,
    pub(super) state: State,
    found: String,
    /// What to do; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding {
            check,
            state: State::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warning(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            check,
            state: State::Warning,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn failing(
        check: &'static str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        Finding {
            state: State::Failing,
            ..Finding::warning(check, found, advice)
        }
    }

    /// One line. What is found may come from a device or a broker.
    pub(super) fn line(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failing => "failing",
        };
        let advice = self.advice.as_deref();
        let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
        let line = format!("{state:<8} {}: {}{advice}", self.check, self.found);
        harmless::line(&line).into_owned()
    }
}

#[derive(Serialize)]
struct Report {
    /// The worst of all.
    state: State,
    checks: Vec<Finding>,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut out = output::out();
        let mut checks = Vec::new();
        // A line as soon as it is known: some checks take seconds.
        let mut tell = |finding: Finding| -> Result<(), Failure> {
            if !self.json {
                writeln!(out, "{}", finding.line())?;
                out.flush()?;
            }
            checks.push(finding);
            Ok(())
        };
        let config = Config::load(&self.config);
        let shown = self.config.display();
        tell(match &config {
            Ok(_) => Finding::ok("configuration", format!("{shown} is good")),
            Err(error) => Finding::failing(
                "configuration",
                error.to_string(),
                "mend it first: nothing below knows what is wanted",
            ),
        })?;
        let threads = config.as_ref().map_or(0, |config| config.threads.count);
        tell(board::cpu(threads))?;
        tell(board::user())?;
        if let Ok(config) = &config {
            let state = self
                .state_dir
                .clone()
                .unwrap_or_else(daemon::default_state_directory);
            tell(board::state_directory(&state))?;
            let sends_all = config.fleet.enabled && config.fleet.role == Role::Source;
            let (found, model) = match sends_all {
                true => (
                    Finding::ok("model", "other boards have it: fleet.role is \"source\""),
                    None,
                ),
                false => model::model(config),
            };
            tell(found)?;
            tell(board::memory(model.as_ref()))?;
            if let Some(model) = &model {
                tell(flash::model(model))?;
            }
            if let Some(directory) = &config.ple.cache_dir {
                tell(flash::cache(directory, model.as_ref()))?;
            }
            let (found, owned) = services::bus(&config.dbus);
            // Without a bus it is known by its command line, where that can be seen.
            let running = owned || procfs::runs_with(&self.config);
            for broker in services::broker(config, running) {
                tell(broker)?;
            }
            tell(found)?;
            tell(services::http(&config.http, running))?;
            tell(services::fleet(config))?;
            for microphone in &config.microphone {
                tell(sources::microphone(microphone, running))?;
                if let Some(finding) = sources::wake_words(microphone) {
                    tell(finding)?;
                }
            }
            if let Some(device) = &config.speaker.device {
                tell(sources::speaker(device, running))?;
                tell(services::text_to_speech(&config.speaker))?;
            }
            for camera in &config.camera {
                tell(sources::camera(camera, &config.limits.image, running))?;
            }
        } else {
            tell(board::memory(None))?;
        }
        for finding in sources::permissions(config.as_ref().ok()) {
            tell(finding)?;
        }
        let state = checks.iter().map(|check| check.state).max();
        let report = Report {
            state: state.unwrap_or(State::Ok),
            checks,
        };
        if self.json {
            writeln!(out, "{}", output::pretty_json(&report)?)?;
        }
        match report.state {
            State::Failing => {
                let failing = |check: &&Finding| check.state == State::Failing;
                let names: Vec<&str> = report
                    .checks
                    .iter()
                    .filter(failing)
                    .map(|c| c.check)
                    .collect();
                Err(Failure::new(
                    exit::UNAVAILABLE,
                    format_args!("failing: {}", names.join(", ")),
                ))
            }
            State::Ok | State::Warning => Ok(()),
        }
    }
}

/// Bytes for people.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
