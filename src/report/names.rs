//! What may be commanded at home: names of devices, areas and floors, as Home Assistant has them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// `names`: retained, published by the blueprint `gemmad_names.yaml`, whole each time. An empty message takes the names back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Names {
    /// What is exposed to the voice assistant.
    #[serde(default)]
    pub entities: Vec<EntityName>,
    /// Rooms and the like.
    #[serde(default)]
    pub areas: Vec<AreaName>,
    /// Storeys.
    #[serde(default)]
    pub floors: Vec<FloorName>,
    /// What hears people: ids of devices and satellites, and identifiers of gemmad's own microphones, each with its area's name.
    #[serde(default)]
    pub speakers: BTreeMap<String, String>,
}

/// A device, a scene, a sensor.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct EntityName {
    /// Such as `light.kitchen`.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What else it is called.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Its area's name.
    #[serde(default)]
    pub area: Option<String>,
}

/// A room.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct AreaName {
    /// What it is called.
    pub name: String,
    /// What else it is called.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Its floor's name.
    #[serde(default)]
    pub floor: Option<String>,
}

/// A storey.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct FloorName {
    /// What it is called.
    pub name: String,
    /// What else it is called.
    #[serde(default)]
    pub aliases: Vec<String>,
}
