//! `gemmad mqtt-clear`: removes what the broker keeps of this node.

use std::io::Write;
use std::path::PathBuf;

use super::failure::{Failure, exit};
use crate::config::Config;
use crate::publish::mqtt::{self, MqttError};

/// Remove every retained message of this node from the broker, and its devices from Home Assistant
///
/// For a board that is taken away, or gets another name. Stop gemmad first: it would publish them again.
#[derive(Debug, clap::Args)]
pub(super) struct MqttClear {
    /// The configuration with the section [mqtt]
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
}

impl MqttClear {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config =
            Config::load(&self.config).map_err(|error| Failure::new(exit::CONFIG, error))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(exit::UNAVAILABLE, error))?;
        let cleared = runtime
            .block_on(mqtt::clear(&config.mqtt))
            .map_err(|error| match error {
                MqttError::Broker { .. } => Failure::new(exit::UNAVAILABLE, error),
                _ => Failure::new(exit::CONFIG, error),
            })?;
        let mut out = std::io::stdout().lock();
        for topic in cleared {
            writeln!(out, "{topic}")?;
        }
        Ok(())
    }
}
