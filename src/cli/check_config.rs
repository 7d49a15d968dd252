//! `gemmad check-config`: whether a configuration would be taken.

use std::io::Write;
use std::path::PathBuf;

use super::failure::{Failure, exit};
use super::output;
use crate::config::Config;

/// Check a configuration without starting anything
#[derive(Debug, clap::Args)]
pub(super) struct CheckConfig {
    /// The configuration
    #[arg(value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
}

impl CheckConfig {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config =
            Config::load(&self.config).map_err(|error| Failure::new(exit::CONFIG, error))?;
        for microphone in &config.microphone {
            let words = microphone.wake_words();
            words.map_err(|reason| {
                let path = self.config.display();
                Failure::new(exit::CONFIG, format_args!("{path}: {reason}"))
            })?;
        }
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        writeln!(
            output::out(),
            "{}: good: {}, {}, {}; mqtt {}, dbus {}, http {}, fleet {}",
            self.config.display(),
            plural(config.microphone.len(), "microphone"),
            plural(config.camera.len(), "camera"),
            plural(config.command.len(), "command"),
            if config.mqtt.enabled {
                &config.mqtt.url
            } else {
                "off"
            },
            if config.dbus.enabled {
                &config.dbus.bus
            } else {
                "off"
            },
            if config.http.enabled {
                config.http.url()
            } else {
                "off".to_owned()
            },
            if config.fleet.enabled {
                format!("{} as {}", config.fleet.url, config.fleet.role.name())
            } else {
                "off".to_owned()
            },
        )?;
        Ok(())
    }
}
