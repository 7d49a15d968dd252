//! The built-in commands, those of a home whose names are known: Home Assistant's own intents, so that its pipelines do them as they are.
//!
//! | intent | slots |
//! | --- | --- |
//! | `HassTurnOn`, `HassTurnOff`, `HassGetState` | a target |
//! | `HassLightSet` | a target, and `brightness` (%), `color` or `temperature` (K) |
//! | `HassSetPosition` | a target, and `position` (%) |
//! | `HassClimateSetTemperature` | a target, and `temperature` (degrees of the home's unit) |
//! | `HassStartTimer` | `hours`, `minutes`, `seconds` |
//!
//! A target is a `name`; or a `domain` with an `area`, a `floor`, or `all`; or a `domain` alone, where the speaker is.

use serde_json::{Map, Value, json};

use super::home::{Entity, Home};

/// A kind of command with a target.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Said to the model.
    says: &'static str,
    /// What it can be done to; empty: anything.
    domains: &'static [&'static str],
    /// The slots behind the target, one of them each time.
    values: &'static [Slot],
}

/// A slot with its schema, or its numbers.
enum Slot {
    Range(&'static str, i64, i64),
    OneOf(&'static str, &'static [&'static str]),
}

const SWITCHED: &[&str] = &[
    "light",
    "switch",
    "fan",
    "cover",
    "valve",
    "media_player",
    "climate",
    "humidifier",
    "input_boolean",
    "scene",
    "script",
];

/// All of one of these may be meant at once; nobody wants all scenes of a room.
const GROUPS: &[&str] = &[
    "light",
    "switch",
    "fan",
    "cover",
    "valve",
    "media_player",
    "climate",
    "humidifier",
    "input_boolean",
];

/// By names that Home Assistant knows (CSS).
const COLORS: &[&str] = &[
    "white", "red", "orange", "yellow", "green", "cyan", "blue", "purple", "magenta", "pink",
];

pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "HassTurnOn",
        says: "turn on, open, activate",
        domains: SWITCHED,
        values: &[],
    },
    Kind {
        name: "HassTurnOff",
        says: "turn off, close",
        domains: GROUPS,
        values: &[],
    },
    Kind {
        name: "HassLightSet",
        says: "set brightness in percent, color, or color temperature in kelvin",
        domains: &["light"],
        values: &[
            Slot::Range("brightness", 0, 100),
            Slot::OneOf("color", COLORS),
            Slot::Range("temperature", 1500, 6500),
        ],
    },
    Kind {
        name: "HassSetPosition",
        says: "set the position in percent, 0 closed, 100 open",
        domains: &["cover", "valve"],
        values: &[Slot::Range("position", 0, 100)],
    },
    Kind {
        name: "HassClimateSetTemperature",
        says: "set the temperature that a thermostat keeps",
        domains: &["climate"],
        values: &[Slot::Range("temperature", 5, 95)],
    },
    Kind {
        name: "HassGetState",
        says: "tell how something is",
        domains: &[],
        values: &[],
    },
];

const TIMER: &str = "HassStartTimer";

/// Room for what is not a name: the keys, numbers and brackets of the longest command.
const REST_BYTES: usize = 160;

impl Kind {
    pub(super) fn takes(&self, entity: &Entity) -> bool {
        self.domains.is_empty() || self.domains.contains(&entity.domain())
    }
}

/// Names of the built-in commands.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.name).chain([TIMER])
}

/// Slots of the built-in commands, which the key of the name may not be called.
pub(super) const SLOTS: &[&str] = &[
    "name",
    "area",
    "floor",
    "domain",
    "all",
    "brightness",
    "color",
    "temperature",
    "position",
    "hours",
    "minutes",
    "seconds",
];

/// Parts of an object's schema, in order: key, schema, and whether it may be missing.
type Parts = Vec<(&'static str, Value, bool)>;

impl Home {
    /// The schema of each way to command something, and what they refer to, by name.
    pub(super) fn schemas(&self, name_key: &str) -> (Vec<Value>, Map<String, Value>) {
        let mut defs = Map::new();
        let places = |names: Vec<&String>| (!names.is_empty()).then(|| json!({ "enum": names }));
        let areas = self.areas.iter().flat_map(|(called, _)| called.all());
        let floors = self.floors.iter().flat_map(|called| called.all());
        for (key, names) in [("areas", unique(areas)), ("floors", unique(floors))] {
            if let Some(schema) = places(names) {
                defs.insert(key.to_owned(), schema);
            }
        }
        let mut objects = Vec::new();
        for kind in KINDS {
            let entities: Vec<&Entity> = self.entities.iter().filter(|e| kind.takes(e)).collect();
            if entities.is_empty() {
                continue;
            }
            let names = unique(entities.iter().flat_map(|entity| entity.called.all()));
            let is_one = names.len()
                == entities
                    .iter()
                    .map(|e| e.called.all().count())
                    .sum::<usize>();
            defs.insert(kind.name.to_owned(), json!({ "enum": names }));
            let refers = |key: &str| json!({ "$ref": format!("#/$defs/{key}") });
            let mut targets: Vec<Parts> = Vec::new();
            let mut named = vec![("name", refers(kind.name), false)];
            if !is_one && defs.contains_key("areas") {
                named.push(("area", refers("areas"), true));
            }
            targets.push(named);
            let present =
                |domain: &&&str| entities.iter().any(|entity| entity.domain() == **domain);
            let domains: Vec<&&str> = GROUPS.iter().filter(present).collect();
            if !domains.is_empty() {
                let domain = ("domain", json!({ "enum": domains }), false);
                for (key, places) in [("area", "areas"), ("floor", "floors")] {
                    if defs.contains_key(places) {
                        targets.push(vec![domain.clone(), (key, refers(places), false)]);
                    }
                }
                targets.push(vec![
                    domain.clone(),
                    ("all", json!({ "const": true }), false),
                ]);
                targets.push(vec![domain]);
            }
            for target in targets {
                for value in kind
                    .values
                    .iter()
                    .map(Some)
                    .chain(kind.values.is_empty().then_some(None))
                {
                    let mut parts = target.clone();
                    parts.extend(value.map(|slot| (slot.key(), slot.schema(), false)));
                    objects.push(object(name_key, kind.name, &parts));
                }
            }
        }
        let (hours, minutes, seconds) = (
            until("hours", 23),
            until("minutes", 90),
            until("seconds", 90),
        );
        let may = |(key, schema, _): &(&'static str, Value, bool)| (*key, schema.clone(), true);
        for parts in [
            vec![hours, may(&minutes), may(&seconds)],
            vec![minutes.clone(), may(&seconds)],
            vec![seconds],
        ] {
            objects.push(object(name_key, TIMER, &parts));
        }
        (objects, defs)
    }

    /// Bytes of the longest command.
    pub(super) fn longest_bytes(&self) -> usize {
        let quoted = |name: &String| json!(name).to_string().len();
        let entities = self.entities.iter().flat_map(|entity| entity.called.all());
        let areas = self.areas.iter().flat_map(|(called, _)| called.all());
        let floors = self.floors.iter().flat_map(|called| called.all());
        let longest = |most: Option<usize>| most.unwrap_or(0);
        longest(entities.map(quoted).max())
            + longest(areas.chain(floors).map(quoted).max())
            + REST_BYTES
    }

    /// The commands as the model is told them, one a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for kind in KINDS {
            if !self.entities.iter().any(|entity| kind.takes(entity)) {
                continue;
            }
            let values: Vec<&str> = kind.values.iter().map(Slot::key).collect();
            let values = match values.as_slice() {
                [] => String::new(),
                keys => format!("; {}", keys.join(" | ")),
            };
            lines.push(format!("- {}(target{values}): {}", kind.name, kind.says));
        }
        lines.push(format!("- {TIMER}(hours, minutes, seconds): start a timer"));
        lines.push(
            "A target is name, for one thing; or domain with area or floor, for all of a kind there; or domain and all, \
             for all of a kind at home; or domain alone, for those where the speaker is."
                .to_owned(),
        );
        lines
    }

    /// What is at home, an area a line.
    pub(super) fn listed(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for (area, floor) in &self.areas {
            let things = self.things(|entity| entity.area.as_ref() == Some(&area.name));
            if things.is_empty() {
                continue;
            }
            let floor = floor
                .as_ref()
                .map(|floor| format!(", floor {}", json!(floor)));
            let (area, floor) = (shown(area.all()), floor.unwrap_or_default());
            lines.push(format!("Area {area}{floor}: {things}"));
        }
        let known = |area: &String| self.areas.iter().any(|(called, _)| called.name == *area);
        let things = self.things(|entity| !entity.area.as_ref().is_some_and(known));
        if !things.is_empty() {
            lines.push(format!("Elsewhere: {things}"));
        }
        lines.join("\n")
    }

    /// Some of what is at home, as one line.
    fn things(&self, are_there: impl Fn(&Entity) -> bool) -> String {
        let there = self.entities.iter().filter(|entity| are_there(entity));
        let listed = there.map(|e| format!("{} {}", e.domain(), shown(e.called.all())));
        listed.collect::<Vec<_>>().join(", ")
    }
}

impl Slot {
    fn key(&self) -> &'static str {
        match self {
            Slot::Range(key, ..) | Slot::OneOf(key, _) => key,
        }
    }

    fn schema(&self) -> Value {
        match self {
            Slot::Range(_, least, most) => {
                json!({ "type": "integer", "minimum": least, "maximum": most })
            }
            Slot::OneOf(_, values) => json!({ "enum": values }),
        }
    }
}

fn until(key: &'static str, most: i64) -> (&'static str, Value, bool) {
    (key, Slot::Range(key, 1, most).schema(), false)
}

fn object(name_key: &str, name: &str, parts: &Parts) -> Value {
    let mut properties = Map::from_iter([(name_key.to_owned(), json!({ "const": name }))]);
    let mut required = vec![name_key];
    for (key, schema, optional) in parts {
        properties.insert((*key).to_owned(), schema.clone());
        if !optional {
            required.push(key);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Each name once.
fn unique<'n>(names: impl Iterator<Item = &'n String>) -> Vec<&'n String> {
    let mut known = std::collections::HashSet::new();
    names.filter(|name| known.insert(*name)).collect()
}

/// A name, and what else it is called.
fn shown<'n>(mut names: impl Iterator<Item = &'n String>) -> String {
    let first = json!(names.next()).to_string();
    let others: Vec<String> = names.map(|name| json!(name).to_string()).collect();
    match others.is_empty() {
        true => first,
        false => format!("{first} (or {})", others.join(", ")),
    }
}
