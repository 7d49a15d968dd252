//! Which things at home a built-in command means.

use serde_json::{Map, Value, json};

use super::home::{Entity, Home};
use super::intents::KINDS;
use crate::report::CommandCall;

impl Home {
    /// What a command of the model means; `here` is the speaker's area.
    ///
    /// # Errors
    /// Nothing, or more than can have been meant; in words.
    pub(super) fn call(
        &self,
        name: String,
        mut slots: Map<String, Value>,
        here: Option<&str>,
    ) -> Result<CommandCall, String> {
        let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
            return Ok(CommandCall {
                name,
                slots,
                entities: Vec::new(),
            });
        };
        let text = |slots: &Map<String, Value>, key: &str| {
            slots.get(key).and_then(Value::as_str).map(str::to_owned)
        };
        let area = text(&slots, "area").and_then(|area| self.area(&area).map(str::to_owned));
        let area = area.as_deref();
        let called = text(&slots, "name");
        let mut found: Vec<&Entity>;
        if let Some(called) = &called {
            found = self
                .named(called)
                .filter(|entity| kind.takes(entity))
                .collect();
            if let Some(place) = area.or(here.filter(|_| found.len() > 1)) {
                found.retain(|entity| entity.area.as_deref() == Some(place));
            }
            match found.as_slice() {
                [] => return Err(format!("there is no {called:?} there")),
                [only] => slots.insert("name".to_owned(), json!(only.called.name)),
                [..] => {
                    return Err(format!(
                        "{} things are called {called:?}: say in which area",
                        found.len()
                    ));
                }
            };
        } else {
            let domain = text(&slots, "domain").unwrap_or_default();
            let floor =
                text(&slots, "floor").and_then(|floor| self.floor(&floor).map(str::to_owned));
            let all = slots.shift_remove("all").is_some();
            let area = match (area, &floor, all) {
                (None, None, false) => Some(here.ok_or_else(|| {
                    format!(
                        "say which {domain}, or in which area: where the speaker is, is not known"
                    )
                })?),
                (area, ..) => area,
            };
            let there = |entity: &&Entity| {
                let of = entity.area.as_deref();
                let is_there = area.is_none_or(|area| of == Some(area));
                let on_floor = |floor: &String| of.and_then(|of| self.floor_of(of)) == Some(floor);
                entity.domain() == domain && is_there && floor.as_ref().is_none_or(on_floor)
            };
            found = self.entities.iter().filter(there).collect();
            if found.is_empty() {
                let place = area.or(floor.as_deref()).unwrap_or("the home");
                return Err(format!("there is no {domain} in {place:?}"));
            }
            if let Some(floor) = floor {
                slots.insert("floor".to_owned(), json!(floor));
            }
            if let Some(area) = area {
                slots.insert("area".to_owned(), json!(area));
            }
        }
        let entities = found.iter().map(|entity| entity.id.clone()).collect();
        Ok(CommandCall {
            name,
            slots,
            entities,
        })
    }
}
