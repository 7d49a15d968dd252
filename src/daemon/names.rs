//! Names that Home Assistant gives: taken in as they come, and in force a little later, so that nobody who floods them is obeyed each
//! time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Daemon, reports};
use crate::config::Config;
use crate::pipeline::commands::{CommandError, CommandGrammar, Home, NamesFrom};
use crate::report::{ErrorBody, ErrorCode, Names, Report};

/// Between two changes of what is in force, at least.
const APART: Duration = Duration::from_secs(5);

/// Of five tokens of the context, so many may be names: the others are for what is said, and for the answer.
const SHARE_OF_NAMES: (usize, usize) = (3, 5);

/// The names in force, and those that wait.
#[derive(Debug, Default)]
pub(super) struct Household {
    names: Option<Names>,
    /// The newest; none of them where they were taken back.
    next: Option<Option<Names>>,
    changed_at: Option<Instant>,
}

impl Household {
    pub(super) fn names(&self) -> Option<&Names> {
        self.names.as_ref()
    }
}

/// The commands of a configuration, and of a home where its names are wanted and known; `None` where there is none.
pub(super) fn commands(
    config: &Config,
    names: Option<&Names>,
) -> Result<Option<Arc<CommandGrammar>>, CommandError> {
    let options = &config.homeassistant;
    let wanted = names.filter(|_| options.names != NamesFrom::Off);
    let home = wanted.map(|names| (Arc::new(home(config, names)), options));
    if config.command.is_empty() && home.is_none() {
        return Ok(None);
    }
    let limits = &config.limits.grammar;
    let commands = CommandGrammar::new(&config.command, home, &config.commands, limits)?;
    Ok(Some(Arc::new(commands)))
}

fn home(config: &Config, names: &Names) -> Home {
    let (share, of) = SHARE_OF_NAMES;
    let tokens = config.model.context * share / of;
    Home::new(names, config.homeassistant.max_entities, tokens)
}

impl Daemon {
    /// Takes names in, or takes them back; what is told to whoever sent them.
    pub(super) fn named(&mut self, names: Option<Names>) -> Result<Value, ErrorBody> {
        let config = &self.settings.config;
        if config.homeassistant.names == NamesFrom::Off {
            return Err(ErrorBody::new(
                ErrorCode::NotPermitted,
                "names are not asked for: set homeassistant.names = \"mqtt\"",
            ));
        }
        let counts = names.as_ref().map(|names| home(config, names).counts());
        let [entities, unusable, left_out] = counts.unwrap_or_default();
        self.household.next = Some(names);
        Ok(json!({ "entities": entities, "unusable": unusable, "left_out": left_out }))
    }

    /// Puts the newest names into force, where they are others and the time has come.
    pub(super) fn use_names(&mut self) {
        let is_soon = |at: Instant| at.elapsed() < APART;
        if self.household.changed_at.is_some_and(is_soon) {
            return;
        }
        let Some(next) = self.household.next.take() else {
            return;
        };
        if next == self.household.names {
            return;
        }
        self.household.changed_at = Some(Instant::now());
        let config = &self.settings.config;
        let commands = match commands(config, next.as_ref()) {
            Ok(commands) => commands,
            Err(error) => {
                log::error!(
                    "the names of Home Assistant cannot be used, and the old ones stay: {error}"
                );
                return;
            }
        };
        match &next {
            None => log::info!("the names of Home Assistant were taken back"),
            Some(names) => {
                let [entities, unusable, beyond] = home(config, names).counts();
                log::info!("Home Assistant named {entities} entities that can be commanded");
                if unusable > 0 {
                    log::warn!(
                        "{unusable} entities of Home Assistant are left out: they have no name, one of more than 100 characters, or an id that is none"
                    );
                }
                if beyond > 0 {
                    log::warn!(
                        "{beyond} entities of Home Assistant are left out: homeassistant.max_entities is {}, and model.context, {}, has no room for more names: expose fewer",
                        config.homeassistant.max_entities,
                        config.model.context
                    );
                }
            }
        }
        self.household.names = next;
        let mut settings = (*self.settings).clone();
        settings.commands = commands;
        self.settings = Arc::new(settings);
        let info = reports::info(&self.settings, &self.loaded, &self.started_at);
        self.doors.publish(&Report::Info(Box::new(info)));
    }
}
