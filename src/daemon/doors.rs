//! The doors that are configured: opened, kept open, and closed. What goes to one goes to the others.

use std::time::{Duration, Instant};

use super::DaemonError;
use super::reload::kept;
use crate::config::Config;
use crate::publish::{Door, Inside, Opening, dbus, frigate, http, mqtt, wyoming};
use crate::report::{MqttHealth, Report};

/// First and longest pause between two tries to open a door.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long a door that is opened anew may take to send what waits.
const REOPENS_WITHIN: Duration = Duration::from_secs(2);

/// What is done for a door while the daemon runs.
enum Upkeep {
    /// Nothing: it is open from the start to the end, and a change of its section needs a restart.
    None(Kept),
    /// It is opened anew where a reload changes its section.
    Reloaded(fn(&Config, &Config) -> bool),
    /// It may be away: that is no error, and it is tried again. A change of its section needs a restart.
    Retried(Kept),
}

/// Leaves a door's section of a new configuration as it was ([`kept`]).
type Kept = fn(&mut Config, &Config) -> Option<&'static str>;

/// Opens a door as its section says.
type Open = Box<dyn Fn(&Config, Inside) -> Opening>;

/// The place of a door, whether one is there or not.
struct Place {
    /// In the status line and the log.
    name: &'static str,
    is_wanted: fn(&Config) -> bool,
    open: Open,
    upkeep: Upkeep,
    door: Option<Box<dyn Door>>,
    /// When it is tried again, and the pause after that.
    retry: (Instant, Duration),
}

impl Place {
    fn new(
        name: &'static str,
        upkeep: Upkeep,
        is_wanted: fn(&Config) -> bool,
        open: impl Fn(&Config, Inside) -> Opening + 'static,
    ) -> Place {
        Place {
            name,
            is_wanted,
            open: Box::new(open),
            upkeep,
            door: None,
            retry: (Instant::now(), PAUSES.0),
        }
    }
}

/// The list: a door is a line here, and a folder in `publish`.
#[rustfmt::skip]
fn places() -> Vec<Place> {
    let (answers, remembered) = (mqtt::Answers::default(), frigate::Memory::default());
    vec![
        Place::new("mqtt", Upkeep::Reloaded(|old, new| old.mqtt != new.mqtt), |c| c.mqtt.enabled, move |c, inside| mqtt::open(&c.mqtt, inside, &answers)),
        Place::new("bus", Upkeep::Retried(|new, old| kept("[dbus]", &mut new.dbus, &old.dbus)), |c| c.dbus.enabled, |c, inside| dbus::open(&c.dbus, inside)),
        Place::new("wyoming", Upkeep::None(|new, old| kept("[wyoming]", &mut new.wyoming, &old.wyoming)), |c| c.wyoming.enabled, |c, inside| wyoming::open(&c.wyoming, c.speech.threshold, inside)),
        Place::new("http", Upkeep::None(|new, old| kept("[http]", &mut new.http, &old.http)), |c| c.http.enabled, |c, inside| http::open(&c.http, inside)),
        Place::new("frigate", Upkeep::Reloaded(|old, new| (&old.frigate, &old.mqtt) != (&new.frigate, &new.mqtt)), |c| c.frigate.enabled, move |c, inside| frigate::open(&c.frigate, &c.mqtt, &c.limits.image, &remembered, inside)),
    ]
}

pub(super) struct Doors {
    places: Vec<Place>,
    inside: Inside,
    /// Who has this node's name at the broker, too, as it was told.
    namesake: Option<String>,
}

impl Doors {
    /// Opens those that are configured. One that may be away is no error.
    pub(super) async fn open(config: &Config, inside: Inside) -> Result<Doors, DaemonError> {
        let mut doors = Doors {
            places: places(),
            inside,
            namesake: None,
        };
        for place in &mut doors.places {
            if !matches!(place.upkeep, Upkeep::Retried(_)) {
                place.open(config, &doors.inside).await?;
            }
        }
        doors.tick(config).await;
        Ok(doors)
    }

    /// Leaves the sections that only a restart can change as they were; their names, where the new file has them otherwise.
    pub(super) fn keep<'c>(
        &'c self,
        new: &'c mut Config,
        old: &'c Config,
    ) -> impl Iterator<Item = Option<&'static str>> + 'c {
        self.places.iter().map(move |place| match place.upkeep {
            Upkeep::None(kept) | Upkeep::Retried(kept) => kept(new, old),
            Upkeep::Reloaded(_) => None,
        })
    }

    /// Opens anew what is configured otherwise now, or could not be opened by the last reload.
    pub(super) async fn reload(&mut self, old: &Config, new: &Config) -> Result<(), DaemonError> {
        for place in &mut self.places {
            let Upkeep::Reloaded(is_other) = place.upkeep else {
                continue;
            };
            let is_right = place.door.is_some() == (place.is_wanted)(new);
            if is_right && !is_other(old, new) {
                continue;
            }
            if let Some(door) = place.door.take() {
                door.stop(REOPENS_WITHIN).await;
            }
            if let Err(error) = place.open(new, &self.inside).await {
                // The old one is closed already: it comes back, then the new file is refused as a whole.
                let back = place.open(old, &self.inside).await;
                return Err(match back {
                    Ok(()) => error,
                    Err(back) => DaemonError::Setting(format!(
                        "{error}; nor could it be opened as before: {back}"
                    )),
                });
            }
        }
        Ok(())
    }

    /// Tells everybody.
    pub(super) fn publish(&mut self, report: &Report) {
        if let Report::Info(info) = report {
            self.inside.info = (**info).clone();
        }
        for door in self.places.iter().filter_map(|place| place.door.as_ref()) {
            door.publish(report);
        }
    }

    /// Comes back to doors that were away; whether one is there again, so that states are told anew.
    pub(super) async fn tick(&mut self, config: &Config) -> bool {
        let mut is_back = false;
        for place in &mut self.places {
            if matches!(place.upkeep, Upkeep::Retried(_)) {
                is_back |= place.retry(config, &self.inside).await;
            }
        }
        is_back
    }

    pub(super) fn mqtt_health(&self) -> MqttHealth {
        let mut doors = self.places.iter().filter_map(|place| place.door.as_ref());
        doors
            .find_map(|door| door.mqtt_health())
            .unwrap_or_default()
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
    pub(super) fn status(&self, config: &Config) -> String {
        let words = self.places.iter().filter_map(|place| place.status(config));
        words.collect::<Vec<_>>().join(", ")
    }

    /// Sends what waits, within the limit.
    pub(super) async fn stop(self, limit: Duration) {
        for door in self.places.into_iter().filter_map(|place| place.door) {
            door.stop(limit).await;
        }
    }
}

impl Place {
    async fn open(&mut self, config: &Config, inside: &Inside) -> Result<(), DaemonError> {
        if (self.is_wanted)(config) {
            let opened = (self.open)(config, inside.clone()).await;
            self.door = Some(opened.map_err(DaemonError::Setting)?);
        }
        Ok(())
    }

    /// Opens it where it is away and its time has come; whether it is there again.
    async fn retry(&mut self, config: &Config, inside: &Inside) -> bool {
        if self.door.as_ref().is_some_and(|door| !door.is_open()) {
            log::warn!(
                "the connection to the {} is lost; trying to come back",
                self.name
            );
            self.door = None;
        }
        let (when, pause) = self.retry;
        if self.door.is_some() || Instant::now() < when {
            return false;
        }
        match self.open(config, inside).await {
            Ok(()) => self.retry = (Instant::now(), PAUSES.0),
            Err(error) => {
                if pause == PAUSES.0 {
                    log::error!("{error}; trying again until it works");
                }
                self.retry = (Instant::now() + pause, (pause * 2).min(PAUSES.1));
            }
        }
        self.door.is_some()
    }

    fn status(&self, config: &Config) -> Option<String> {
        match (&self.door, &self.upkeep) {
            (Some(door), _) => door.status().map(str::to_owned),
            // There is nothing to be told of a door that never changes.
            (None, Upkeep::None(_)) => None,
            (None, Upkeep::Retried(_)) if (self.is_wanted)(config) => {
                Some(format!("{} away", self.name))
            }
            (None, _) => Some(format!("{} off", self.name)),
        }
    }
}
