//! Tells Home Assistant of the devices, and takes back those that are gone.
//!
//! What was announced is remembered on the broker itself, as a retained list under the node's own topics: it lives and dies
//! with the retained announcements that it lists, on whichever broker that is, and reading it back needs no wildcard.
//! (`homeassistant/device/+/config` would bring every other program's devices, of any size.)

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::homeassistant;
use super::outbox::{Delivery, Outgoing};
use super::payload::json;
use super::topics::{Source, Topics, sources};
use crate::report::{Info, SCHEMA};

/// Devices that a list may name.
const MAX_DEVICES: usize = 1024;

/// `announced`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Announced {
    /// Version of this layout.
    schema: u32,
    /// Names of devices at Home Assistant.
    pub(super) devices: BTreeSet<String>,
}

/// The devices that there are, for as long as Home Assistant wants to know.
pub(super) fn announcements(topics: &Topics, info: &Info, wanted: bool) -> Vec<Outgoing> {
    if !wanted {
        return Vec::new();
    }
    homeassistant::devices(topics, info)
        .iter()
        .map(|(device, message)| json(Delivery::Control, topics.discovery(device), message))
        .collect()
}

/// The list of what is announced; empty, so that nothing is retained, where nothing is.
pub(super) fn list(topics: &Topics, info: &Info, wanted: bool) -> Outgoing {
    let devices = if wanted {
        names(topics, info)
    } else {
        BTreeSet::new()
    };
    if devices.is_empty() {
        return nothing(topics.announced());
    }
    let announced = Announced {
        schema: SCHEMA,
        devices,
    };
    json(Delivery::Control, topics.announced(), &announced)
}

fn names(topics: &Topics, info: &Info) -> BTreeSet<String> {
    sources(info)
        .map(|(source, id)| topics.device_of(source, id))
        .chain([topics.device()])
        .collect()
}

/// A list as the broker gave it back. Anybody may have written it: only names of this node count.
pub(super) fn read_list(topics: &Topics, payload: &[u8]) -> BTreeSet<String> {
    let Ok(announced) = serde_json::from_slice::<Announced>(payload) else {
        return BTreeSet::new();
    };
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    let ours = |device: &String| {
        device.chars().all(part)
            && (*device == topics.device() || topics.source_of(device).is_some())
    };
    let devices = announced.devices.into_iter();
    devices.filter(ours).take(MAX_DEVICES).collect()
}

/// Takes back the devices of a list that are there no more: the announcement, and what is retained below a source's topics.
pub(super) fn removals(
    topics: &Topics,
    listed: &BTreeSet<String>,
    info: &Info,
    wanted: bool,
) -> Vec<Outgoing> {
    let present = names(topics, info);
    let mut messages = Vec::new();
    for device in listed {
        let here = present.contains(device);
        if !here || !wanted {
            messages.push(nothing(topics.discovery(device)));
        }
        if let (false, Some((source, id))) = (here, topics.source_of(device)) {
            let retained = source.retained().iter();
            messages.extend(retained.map(|rest| nothing(topics.of_source(source, id, rest))));
        }
    }
    messages
}

/// Takes back what was heard and seen.
pub(super) fn no_results(topics: &Topics, info: &Info) -> Vec<Outgoing> {
    let of_source = |(source, id)| {
        let results: &[&str] = match source {
            Source::Microphone => &["transcript"],
            Source::Camera => &["caption", "image"],
        };
        let topic = move |rest: &&str| nothing(topics.of_source(source, id, rest));
        results.iter().map(topic)
    };
    sources(info).flat_map(of_source).collect()
}

/// An empty retained message: the broker keeps nothing there any more.
pub(super) fn nothing(topic: String) -> Outgoing {
    Outgoing {
        delivery: Delivery::Control,
        topic,
        payload: Vec::new(),
    }
}
