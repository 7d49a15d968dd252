//! An entity of a device, as Home Assistant is told of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

/// Entities by their keys.
pub(super) type Components = BTreeMap<&'static str, Component>;

/// An entity.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct Component {
    platform: &'static str,
    /// Absent of one that is no more: Home Assistant removes what has nothing but a platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
    #[serde(flatten)]
    options: BTreeMap<&'static str, serde_json::Value>,
}

impl Component {
    /// One that there may have been, and is no more.
    pub(super) fn gone(&self) -> Component {
        Component {
            platform: self.platform,
            ..Component::default()
        }
    }

    pub(super) fn with(
        mut self,
        key: &'static str,
        value: impl Into<serde_json::Value>,
    ) -> Component {
        self.options.insert(key, value.into());
        self
    }

    pub(super) fn diagnostic(self) -> Component {
        self.with("entity_category", "diagnostic")
    }

    pub(super) fn config(self) -> Component {
        self.with("entity_category", "config")
    }
}

/// Makes the entities of a device: its key in the message and in the unique id, platform, name.
pub(super) fn entity<'a>(
    device: &'a str,
) -> impl Fn(&'static str, &'static str, &'static str) -> (&'static str, Component) + 'a {
    move |key, platform, name| {
        let component = Component {
            platform,
            unique_id: Some(format!("{device}_{key}")),
            name: Some(name),
            ..Component::default()
        };
        (key, component)
    }
}
