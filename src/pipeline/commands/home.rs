//! The home as commands see it: what it is called, cleaned and bounded, and what a name means.

use std::collections::{BTreeMap, HashSet};

use crate::guard::harmless::is_harmful;
use crate::report::{EntityName, Names};

/// Longer is no name that anybody says, characters.
const MAX_NAME_CHARS: usize = 100;
/// What else something is called.
const MAX_ALIASES: usize = 8;
/// Longest id, bytes; that of Home Assistant.
const MAX_ID_BYTES: usize = 255;

/// Something with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
}

impl Called {
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.name).chain(&self.aliases)
    }

    fn is(&self, name: &str) -> bool {
        self.all().any(|called| called == name)
    }
}

/// What can be commanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entity {
    pub(super) id: String,
    pub(super) called: Called,
    pub(super) area: Option<String>,
}

impl Entity {
    /// `light` of `light.kitchen`.
    pub(super) fn domain(&self) -> &str {
        self.id.split('.').next().unwrap_or_default()
    }
}

/// Names that are in force; a name that means nothing, or twice the same, is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    pub(super) entities: Vec<Entity>,
    pub(super) areas: Vec<(Called, Option<String>)>,
    pub(super) floors: Vec<Called>,
    speakers: BTreeMap<String, String>,
    /// Entities of which nothing could be made.
    unusable: usize,
    /// Entities beyond what is allowed.
    beyond: usize,
}

impl Home {
    /// Of what Home Assistant says: at most `max_entities`, and at most so many as `tokens` of a prompt have room for.
    pub fn new(names: &Names, max_entities: usize, tokens: usize) -> Home {
        let mut home = Home::default();
        for area in names.areas.iter().take(max_entities) {
            let floor = area.floor.as_deref().and_then(clean);
            if let Some(called) = called(&area.name, &area.aliases) {
                home.areas.push((called, floor));
            }
        }
        let floors = names.floors.iter().take(max_entities);
        home.floors = floors
            .filter_map(|floor| called(&floor.name, &floor.aliases))
            .collect();
        home.speakers = names
            .speakers
            .iter()
            .take(max_entities)
            .filter_map(|(id, area)| Some((id.clone(), clean(area)?)))
            .collect();
        let mut left = tokens.saturating_sub(home.places().map(|name| cost(name)).sum());
        let mut ids = HashSet::new();
        for entity in &names.entities {
            let Some(entity) = usable(entity).filter(|found| ids.insert(found.id.clone())) else {
                home.unusable += 1;
                continue;
            };
            let costs = entity.called.all().map(|name| cost(name)).sum::<usize>();
            if home.entities.len() >= max_entities || costs > left {
                home.beyond += 1;
                continue;
            }
            left -= costs;
            home.entities.push(entity);
        }
        home
    }

    fn places(&self) -> impl Iterator<Item = &String> {
        let areas = self.areas.iter().flat_map(|(called, _)| called.all());
        areas.chain(self.floors.iter().flat_map(Called::all))
    }

    /// Entities that can be commanded, those of which nothing can be made, and those beyond what is allowed.
    pub fn counts(&self) -> [usize; 3] {
        [self.entities.len(), self.unusable, self.beyond]
    }

    /// What entities, areas and floors are called.
    pub(super) fn all_names(&self) -> impl Iterator<Item = &String> {
        let entities = self.entities.iter().flat_map(|entity| entity.called.all());
        entities.chain(self.places())
    }

    /// The area of whoever speaks, by the first of these ids that has one.
    pub fn area_of(&self, speaker: &[String]) -> Option<&str> {
        let mut areas = speaker.iter().filter_map(|id| self.speakers.get(id));
        areas.next().map(String::as_str)
    }

    /// Entities of this name or alias.
    pub(super) fn named<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h Entity> {
        // What something is called goes before what else something is.
        let by_name = self
            .entities
            .iter()
            .any(|entity| entity.called.name == name);
        self.entities.iter().filter(move |entity| match by_name {
            true => entity.called.name == name,
            false => entity.called.is(name),
        })
    }

    /// The name of the area that is called so.
    pub(super) fn area(&self, called: &str) -> Option<&str> {
        let found = self.areas.iter().find(|(area, _)| area.is(called));
        found.map(|(area, _)| area.name.as_str())
    }

    /// The name of the floor that is called so.
    pub(super) fn floor(&self, called: &str) -> Option<&str> {
        let found = self.floors.iter().find(|floor| floor.is(called));
        found.map(|floor| floor.name.as_str())
    }

    /// The floor on which an area is.
    pub(super) fn floor_of(&self, area: &str) -> Option<&str> {
        let found = self.areas.iter().find(|(called, _)| called.name == area);
        found.and_then(|(_, floor)| floor.as_deref())
    }
}

/// A name as it may stand in a prompt and in an answer, on one line and without what only a terminal or a renderer obeys; nothing
/// where nothing is left, or too much.
fn clean(name: &str) -> Option<String> {
    let plain: String = name
        .chars()
        .map(|c| if is_harmful(c) { ' ' } else { c })
        .take(MAX_NAME_CHARS * 4)
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let name = words.join(" ");
    (!name.is_empty() && name.chars().count() <= MAX_NAME_CHARS).then_some(name)
}

fn called(name: &str, aliases: &[String]) -> Option<Called> {
    let name = clean(name)?;
    let mut known = HashSet::from([name.clone()]);
    let aliases = aliases
        .iter()
        .take(MAX_ALIASES)
        .filter_map(|alias| clean(alias));
    let aliases = aliases
        .filter(|alias| known.insert(alias.clone()))
        .collect();
    Some(Called { name, aliases })
}

fn usable(entity: &EntityName) -> Option<Entity> {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !part.is_empty() && part.chars().all(allowed)
    };
    let (domain, object) = entity.id.split_once('.')?;
    if entity.id.len() > MAX_ID_BYTES || !part(domain) || !part(object) {
        return None;
    }
    Some(Entity {
        id: entity.id.clone(),
        called: called(&entity.name, &entity.aliases)?,
        area: entity.area.as_deref().and_then(clean),
    })
}

/// Tokens that a name takes in a list at most, as good as always: words of Latin script have fewer.
fn cost(name: &str) -> usize {
    const AROUND_IT: usize = 5;
    let ascii = name.bytes().filter(u8::is_ascii).count();
    AROUND_IT + ascii / 2 + (name.len() - ascii) / 2
}
