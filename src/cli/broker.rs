//! What commands share that speak with the daemon's neighbours: the broker of a configuration, and a runtime for one question.

use std::future::Future;
use std::path::PathBuf;

use super::failure::{Failure, exit};
use crate::config::Config;
use crate::publish::mqtt::MqttOptions;

/// The broker that a command goes to.
#[derive(Debug, clap::Args)]
pub(super) struct BrokerArgs {
    /// The configuration with the section [mqtt]
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
}

impl BrokerArgs {
    /// The section `[mqtt]` of the configuration.
    pub(super) fn mqtt(&self) -> Result<MqttOptions, Failure> {
        let config =
            Config::load(&self.config).map_err(|error| Failure::new(exit::CONFIG, error))?;
        Ok(config.mqtt)
    }
}

/// Runs one question to its end.
///
/// # Errors
/// The system gives no runtime.
pub(super) fn block_on<T>(question: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(question))
}
