//! Those who publish: the broker, the bus and the Wyoming server. What goes to one goes to the others.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::DaemonError;
use crate::config::{Config, Dbus};
use crate::publish::dbus::Bus;
use crate::publish::mqtt::Mqtt;
use crate::publish::wyoming::Wyoming;
use crate::report::{Info, MqttHealth, Report, Request};

/// Longest pause between two tries to reach the bus.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

/// The loop waits for the bus no longer than this.
const BUS_START: Duration = Duration::from_secs(5);

pub(super) struct Sinks {
    mqtt: Option<Mqtt>,
    bus: Option<Bus>,
    wyoming: Option<Wyoming>,
    bus_config: Dbus,
    requests: mpsc::Sender<Request>,
    info: Info,
    /// When the bus is tried again, and the pause after that.
    bus_retry: (Instant, Duration),
    /// Who has this node's name at the broker, too, as it was told.
    namesake: Option<String>,
}

impl Sinks {
    /// A broker or a bus that is away is no error: it is tried again.
    pub(super) async fn start(
        config: &Config,
        info: Info,
        requests: mpsc::Sender<Request>,
    ) -> Result<Sinks, DaemonError> {
        let mut sinks = Sinks {
            mqtt: None,
            bus: None,
            wyoming: None,
            bus_config: config.dbus.clone(),
            requests,
            info,
            bus_retry: (Instant::now(), Duration::from_secs(1)),
            namesake: None,
        };
        sinks.start_mqtt(config)?;
        if config.wyoming.enabled {
            let (info, requests) = (sinks.info.clone(), sinks.requests.clone());
            let wyoming = Wyoming::start(&config.wyoming, info, requests).await;
            let wyoming = wyoming.map_err(|error| DaemonError::Setting(error.to_string()))?;
            sinks.wyoming = Some(wyoming);
        }
        sinks.tick().await;
        Ok(sinks)
    }

    fn start_mqtt(&mut self, config: &Config) -> Result<(), DaemonError> {
        if config.mqtt.enabled {
            let mqtt = Mqtt::start(&config.mqtt, self.info.clone(), self.requests.clone())
                .map_err(|error| DaemonError::Setting(error.to_string()))?;
            self.mqtt = Some(mqtt);
        }
        Ok(())
    }

    /// Connects to the broker anew, with another configuration.
    pub(super) async fn restart_mqtt(&mut self, config: &Config) -> Result<(), DaemonError> {
        if let Some(mqtt) = self.mqtt.take() {
            mqtt.stop(Duration::from_secs(2)).await;
        }
        self.start_mqtt(config)
    }

    /// Tells everybody.
    pub(super) fn publish(&mut self, report: &Report) {
        if let Report::Info(info) = report {
            self.info = (**info).clone();
        }
        if let Some(mqtt) = &self.mqtt {
            mqtt.publish(report);
        }
        if let Some(bus) = &self.bus {
            bus.publish(report);
        }
        if let Some(wyoming) = &self.wyoming {
            wyoming.publish(report);
        }
    }

    /// Comes back to a bus that was away; whether it did, so that states are told anew.
    pub(super) async fn tick(&mut self) -> bool {
        if self.bus.as_ref().is_some_and(|bus| !bus.alive()) {
            log::warn!("the connection to the bus is lost; trying to come back");
            self.bus = None;
        }
        let (when, pause) = self.bus_retry;
        if !self.bus_config.enabled || self.bus.is_some() || Instant::now() < when {
            return false;
        }
        let start = Bus::start(&self.bus_config, self.info.clone(), self.requests.clone());
        let started = tokio::time::timeout(BUS_START, start).await;
        let silent = |_| Err(format!("dbus.bus: {} does not answer", self.bus_config.bus));
        let started = started.map_or_else(silent, |result| result.map_err(|e| e.to_string()));
        match started {
            Ok(bus) => {
                self.bus = Some(bus);
                self.bus_retry = (Instant::now(), Duration::from_secs(1));
                true
            }
            Err(error) => {
                if pause == Duration::from_secs(1) {
                    log::error!("{error}; trying again until it works");
                }
                let next = (pause * 2).min(LONGEST_BACK_OFF);
                self.bus_retry = (Instant::now() + pause, next);
                false
            }
        }
    }

    pub(super) fn mqtt_health(&self) -> MqttHealth {
        self.mqtt.as_ref().map(Mqtt::health).unwrap_or_default()
    }

    /// What is wrong with the broker and was not told yet.
    pub(super) fn trouble(&mut self) -> Option<String> {
        let now = self.mqtt_health().namesake;
        if now == self.namesake {
            return None;
        }
        self.namesake = now;
        let who = self.namesake.as_ref()?;
        Some(format!(
            "mqtt: another gemmad, {who}, has this node's name: give every board its own mqtt.node"
        ))
    }

    /// In words, for the status line.
    pub(super) fn status(&self) -> String {
        let mqtt = match &self.mqtt {
            None => "mqtt off",
            Some(mqtt) if mqtt.health().namesake.is_some() => {
                "mqtt: another gemmad has this node's name"
            }
            Some(mqtt) if mqtt.health().connected => "mqtt connected",
            Some(_) => "mqtt away",
        };
        let bus = match &self.bus {
            None if self.bus_config.enabled => "bus away",
            None => "bus off",
            Some(_) => "bus connected",
        };
        format!("{mqtt}, {bus}")
    }

    /// Sends what waits, within the limit.
    pub(super) async fn stop(self, limit: Duration) {
        if let Some(mqtt) = self.mqtt {
            mqtt.stop(limit).await;
        }
        if let Some(bus) = self.bus {
            bus.stop().await;
        }
        if let Some(wyoming) = self.wyoming {
            wyoming.stop().await;
        }
    }
}
