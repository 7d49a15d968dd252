//! `gemmad mqtt-clear`: removes what the broker keeps of this node.

use std::io::Write;

use super::broker::{BrokerArgs, block_on};
use super::failure::{Failure, exit};
use super::output;
use crate::guard::harmless;
use crate::publish::mqtt::{self, MqttError};

/// Remove every retained message of this node from the broker, and its devices from Home Assistant
///
/// For a board that is taken away, or gets another name. Stop gemmad first: it would publish them again.
#[derive(Debug, clap::Args)]
pub(super) struct MqttClear {
    #[command(flatten)]
    broker: BrokerArgs,
}

impl MqttClear {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.broker.mqtt()?;
        let cleared = block_on(mqtt::clear(&config))
            .map_err(|error| Failure::new(exit::UNAVAILABLE, error))?
            .map_err(|error| match error {
                MqttError::Broker { .. } => Failure::new(exit::UNAVAILABLE, error),
                _ => Failure::new(exit::CONFIG, error),
            })?;
        let mut out = output::out();
        for topic in cleared {
            writeln!(out, "{}", harmless::line(&topic))?;
        }
        Ok(())
    }
}
