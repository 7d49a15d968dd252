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
    unique_id: String,
    name: &'static str,
    #[serde(flatten)]
    options: BTreeMap<&'static str, serde_json::Value>,
}

impl Component {
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
            unique_id: format!("{device}_{key}"),
            name,
            ..Component::default()
        };
        (key, component)
    }
}
