//! What is in a house, as Home Assistant lists it in the instructions of its voice assistant ("Static Context"), and schemas of tools
//! that name nothing else.
//!
//! The list is YAML as Home Assistant's dumper writes it: an entry for each exposed entity with `names` and `areas`, in each the name
//! and its aliases with a comma and a space between them. The area of whoever speaks, and its floor, stand in a sentence of their own.
//! A name that holds a comma and a space itself may be called by its parts, too: the list does not tell the two apart.

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value, json};

use crate::model::tools::Tool;

/// What stands before the list, and before the same with states.
const LISTS: [&str; 2] = ["Static Context:", "Live Context:"];
/// What stands before the area of whoever speaks.
const HERE: &str = "You are in area ";
/// Behind it, and around its floor.
const HERE_ENDS: &str = " and all generic commands";
const FLOOR: &str = " (floor ";

/// How deep an entry of the list is nested.
const ENTRY: usize = 2;

/// The names of a house.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HouseNames {
    /// Of entities, aliases among them.
    pub entities: Vec<String>,
    /// Of areas, aliases among them.
    pub areas: Vec<String>,
    /// Of floors.
    pub floors: Vec<String>,
}

impl HouseNames {
    /// The names in the instructions of a conversation; nothing where they hold no such list.
    pub fn find<'t>(texts: impl Iterator<Item = &'t str>) -> Option<HouseNames> {
        let mut names = HouseNames::default();
        let mut is_listed = false;
        for text in texts {
            for mark in LISTS {
                for (at, _) in text.match_indices(mark) {
                    let begins_line = text[..at].ends_with('\n') || at == 0;
                    is_listed |= begins_line && names.read(&text[at..]);
                }
            }
            for (at, _) in text.match_indices(HERE) {
                names.read_here(&text[at + HERE.len()..]);
            }
        }
        is_listed.then_some(names)
    }

    /// Takes the entries of a list; whether there is any.
    fn read(&mut self, text: &str) -> bool {
        let (_, list) = text.split_once('\n').unwrap_or_default();
        let belongs = |line: &&str| line.starts_with(['-', ' ']);
        let length = list
            .split_inclusive('\n')
            .take_while(belongs)
            .map(str::len)
            .sum();
        let (mut depth, mut key, mut entries) = (0_usize, None, 0);
        for event in Parser::new_from_str(&list[..length]) {
            // What is no YAML ends the list: what stands before counts.
            let Ok((event, _)) = event else {
                break;
            };
            let is_value = match event {
                Event::Scalar(text, ..) if depth == ENTRY => match key.take() {
                    None => {
                        key = Some(text.into_owned());
                        false
                    }
                    Some(key) => {
                        self.entry(&key, &text);
                        false
                    }
                },
                Event::Alias(_) => depth == ENTRY,
                Event::SequenceStart(..) | Event::MappingStart(..) => {
                    depth += 1;
                    entries += usize::from(depth == ENTRY);
                    false
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    depth = depth.saturating_sub(1);
                    depth == ENTRY
                }
                _ => false,
            };
            if is_value {
                key = None;
            }
        }
        entries > 0
    }

    fn entry(&mut self, key: &str, value: &str) {
        let into = match key {
            "names" => &mut self.entities,
            "areas" => &mut self.areas,
            _ => return,
        };
        value.split(", ").for_each(|name| add(into, name));
    }

    fn read_here(&mut self, text: &str) {
        let line = text.lines().next().unwrap_or_default();
        let Some((here, _)) = line.split_once(HERE_ENDS) else {
            return;
        };
        let floor = here
            .strip_suffix(')')
            .and_then(|here| here.rsplit_once(FLOOR));
        let (area, floor) = floor.map_or((here, None), |(area, floor)| (area, Some(floor)));
        add(&mut self.areas, area);
        if let Some(floor) = floor {
            add(&mut self.floors, floor);
        }
    }

    /// Lets the tools of Home Assistant name what is in the house and nothing else. A list of more than `most` names is left open, and
    /// that is logged: its grammar would take longer than it saves.
    pub fn close(&self, tools: &mut [Tool], most: usize) {
        let longest = self.entities.len().max(self.areas.len());
        if longest > most {
            log::warn!(
                "a client lists {longest} names of its house; limits.grammar.max_choices allows {most}: calls may name what is not there"
            );
            return;
        }
        for tool in tools {
            let Some(kind) = slots_of(&tool.name) else {
                continue;
            };
            close_keys(&mut tool.parameters, |key| match key {
                "name" if kind == Slots::Entities => Some(&self.entities),
                "area" | "preferred_area_id" => Some(&self.areas),
                "floor" | "preferred_floor_id" => Some(&self.floors),
                _ => None,
            });
        }
    }
}

/// What `name` names among a tool's arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slots {
    Entities,
    /// Something that is not in the house: a timer.
    Others,
}

/// Whether a tool is one of Home Assistant's that name what is in the house.
fn slots_of(name: &str) -> Option<Slots> {
    let name = name.rsplit("__").next().unwrap_or(name);
    match name {
        _ if name.starts_with("Hass") && name.contains("Timer") => Some(Slots::Others),
        _ if name.starts_with("Hass") => Some(Slots::Entities),
        "GetLiveContext" => Some(Slots::Entities),
        _ => None,
    }
}

/// Gives each text among an object's keys the values that `names` has for it; one that could name nothing is left out, unless it has
/// to be there.
fn close_keys<'n>(schema: &mut Value, names: impl Fn(&str) -> Option<&'n Vec<String>>) {
    let required = schema.get("required").cloned().unwrap_or_default();
    let required: Vec<&str> = required
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    let keys: Vec<String> = properties.keys().cloned().collect();
    for key in keys {
        let (Some(names), Some(Value::Object(property))) = (names(&key), properties.get_mut(&key))
        else {
            continue;
        };
        let is_free =
            property.get("type") == Some(&json!("string")) && !property.contains_key("enum");
        if !is_free {
            continue;
        }
        match names.is_empty() {
            false => *property = closed(names),
            true if required.contains(&key.as_str()) => {}
            true => {
                properties.shift_remove(&key);
            }
        }
    }
}

fn closed(names: &[String]) -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), json!("string")),
        ("enum".to_owned(), json!(names)),
    ])
}

fn add(names: &mut Vec<String>, name: &str) {
    let name = name.trim();
    if !name.is_empty() && !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Home Assistant 2026.11 writes it, with names that YAML has to quote or to fold.
    const PROMPT: &str = r#"You are a voice assistant for Home Assistant.
Static Context: An overview of the areas and the devices in this smart home:
- names: 'Küche Licht, L"amp: x'
  domain: light
  areas: Küche, Kitchen
- names: 🛋 sofa
  domain: light
- names: مطبخ
  domain: cover
- names: very long very long very long very long very long very long very long very
    long, b
  domain: switch
- names: "a	b"
  attributes:
    names: not one
  domain: switch
- names: 'on'
  areas: 'Tom''s room'

When controlling Home Assistant always call the intent tools.
You are in area Hall (floor Ground) and all generic commands like 'turn on the lights' should target this area.
- names: not in the list"#;

    fn names() -> HouseNames {
        HouseNames::find([PROMPT].into_iter()).unwrap()
    }

    #[test]
    fn names_are_those_of_the_list_and_of_the_room_sentence() {
        let names = names();
        let long = format!("{}very long", "very long ".repeat(7));
        assert_eq!(
            names.entities,
            [
                "Küche Licht",
                "L\"amp: x",
                "🛋 sofa",
                "مطبخ",
                &long,
                "b",
                "a\tb",
                "on"
            ]
        );
        assert_eq!(names.areas, ["Küche", "Kitchen", "Tom's room", "Hall"]);
        assert_eq!(names.floors, ["Ground"]);
        for nothing in [
            "",
            "Static Context:",
            "Static Context: nothing\n",
            "said: Static Context: x\n- names: a",
            "You are in area Hall and all generic commands",
        ] {
            assert_eq!(HouseNames::find([nothing].into_iter()), None, "{nothing}");
        }
        // What is no YAML is no reason to give up, and no work without end.
        let odd = "Static Context:\n- names: a\n- names: &x [*x, *x]\n- names: 'b\n";
        assert_eq!(HouseNames::find([odd].into_iter()).unwrap().entities, ["a"]);
    }

    #[test]
    fn tools_of_the_house_name_nothing_else_and_other_tools_stay() {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            description: String::new(),
            parameters: json!({
                "type": "object", "required": ["area"],
                "properties": {
                    "name": { "type": "string" }, "area": { "type": "string" }, "floor": { "type": "string" },
                    "domain": { "type": "array", "items": { "type": "string" } },
                },
            }),
        };
        let before = [
            "intent__HassTurnOn",
            "HassStartTimer",
            "script__water",
            "homeassistant__GetLiveContext",
        ]
        .map(tool);
        let mut tools = before.clone();
        names().close(&mut tools, 8);
        let enumerated = |tool: &Tool, key: &str| {
            tool.parameters["properties"][key]["enum"]
                .as_array()
                .map(Vec::len)
        };
        let closed = tools
            .iter()
            .map(|tool| ["name", "area", "floor"].map(|key| enumerated(tool, key)));
        let all = [Some(8), Some(4), Some(1)];
        assert_eq!(
            closed.collect::<Vec<_>>(),
            [all, [None, Some(4), Some(1)], [None; 3], all]
        );
        assert_eq!(tools[2], before[2]);
        // What could name nothing is left out, unless it has to be there.
        let mut tools = before.clone();
        HouseNames::default().close(&mut tools, 8);
        let keys: Vec<&String> = tools[0].parameters["properties"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        assert_eq!(keys, ["area", "domain"]);
        // Too many are left open.
        let mut tools = before.clone();
        names().close(&mut tools, 7);
        assert_eq!(tools, before);
    }
}
