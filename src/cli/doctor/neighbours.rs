//! The broker and the bus, as the daemon would use them.

use super::Finding;
use crate::cli::broker::block_on;
use crate::config::{Dbus, Mqtt};
use crate::publish::dbus::{self, DbusError, NameOwner};
use crate::publish::mqtt::{self, MqttError};

/// Logs in at the broker and passes a message through it.
pub(super) fn broker(config: &Mqtt) -> Finding {
    if !config.enabled {
        return Finding::ok("broker", "mqtt.enabled is false");
    }
    match block_on(mqtt::probe(config)) {
        Err(error) => no_runtime("broker", &error),
        Ok(Ok(node)) => {
            let user = match config.username.as_str() {
                "" => "without a user".to_owned(),
                user => format!("as {user}"),
            };
            let found = format!(
                "{} takes and gives messages of {}/{node} {user}",
                config.url, config.base_topic
            );
            let plain = config
                .broker()
                .is_ok_and(|broker| !broker.tls && !broker.is_loopback());
            if plain && !config.username.is_empty() {
                let advice = "the password goes over the network in the clear: use mqtts://";
                return Finding::warning("broker", found, advice);
            }
            Finding::ok("broker", found)
        }
        Ok(Err(unusable)) => match unusable.error {
            // Only the service has them.
            error @ MqttError::NoCredentials { .. } => Finding::warning(
                "broker",
                error.to_string(),
                "to try it here, give the credential: systemd-run -P -p User=gemmad -p LoadCredential=NAME:FILE gemmad doctor",
            ),
            error => Finding::failing("broker", error.to_string(), unusable.advice),
        },
    }
}

/// Whether the daemon's name is to be had on the bus, or a daemon has it; and whether one is running, as far as the bus knows.
pub(super) fn bus(config: &Dbus) -> (Finding, bool) {
    if !config.enabled {
        return (Finding::ok("bus", "dbus.enabled is false"), false);
    }
    let probed = block_on(dbus::probe(config));
    let running = matches!(probed, Ok(Ok(NameOwner::Process(_))));
    (told(&config.bus, probed), running)
}

fn told(bus: &str, probed: std::io::Result<Result<NameOwner, DbusError>>) -> Finding {
    match probed {
        Err(error) => no_runtime("bus", &error),
        Ok(Ok(NameOwner::Free)) => Finding::ok(
            "bus",
            format!("org.gemmad1 is free on the bus {bus:?}, and this user may own it"),
        ),
        Ok(Ok(NameOwner::Process(id))) => owned(bus, id),
        Ok(Err(error @ DbusError::NameRefused { .. })) => Finding::failing(
            "bus",
            error.to_string(),
            "as another user than the daemon's this is as it should be",
        ),
        Ok(Err(error)) => Finding::failing(
            "bus",
            error.to_string(),
            "without a bus, set dbus.enabled to false",
        ),
    }
}

fn owned(bus: &str, id: Option<u32>) -> Finding {
    let name = id.and_then(|id| std::fs::read_to_string(format!("/proc/{id}/comm")).ok());
    let process = match (id, name) {
        (Some(id), Some(name)) => format!("{} (process {id})", name.trim()),
        (Some(id), None) => format!("process {id}"),
        (None, _) => "a process".to_owned(),
    };
    let found = format!("org.gemmad1 is owned by {process} on the bus {bus:?}");
    // Of another user's process the name may be hidden.
    if process.starts_with("gemmad ") || process.starts_with("process") {
        return Finding::ok("bus", found);
    }
    Finding::warning(
        "bus",
        found,
        "if that is not a gemmad, end it: the daemon cannot have the name",
    )
}

fn no_runtime(check: &'static str, error: &std::io::Error) -> Finding {
    let found = format!("cannot be asked: {error}");
    Finding::failing(
        check,
        found,
        "is the limit of open files or threads reached?",
    )
}
