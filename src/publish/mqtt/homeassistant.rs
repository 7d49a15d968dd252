//! Home Assistant's device discovery: one retained message for the node, each microphone and each camera.
//!
//! Names of keys and classes are Home Assistant's (its documentation of MQTT discovery).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::component::{Component, Components, entity};
use super::health_sensors::FIGURES;
use super::topics::{Source, Topics};
use super::voice_entities;
use crate::report::Info;

/// A device with its entities.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Discovery {
    device: Device,
    origin: Origin,
    /// All of these have to be available.
    availability: Vec<Availability>,
    availability_mode: &'static str,
    qos: u8,
    components: Components,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Device {
    identifiers: Vec<String>,
    name: String,
    manufacturer: &'static str,
    model: String,
    sw_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    via_device: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Origin {
    name: &'static str,
    sw_version: &'static str,
    support_url: &'static str,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Availability {
    topic: String,
    payload_available: &'static str,
    payload_not_available: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_template: Option<&'static str>,
}

/// The node and its sources as Home Assistant is told of them: device name to message.
pub(super) fn devices(topics: &Topics, info: &Info) -> BTreeMap<String, Discovery> {
    let mut devices = BTreeMap::from([(topics.device(), node(topics, info))]);
    for found in &info.microphones {
        let device = topics.device_of(Source::Microphone, &found.id);
        let entities = microphone(topics, info, &device, &found.id);
        let named = (found.id.as_str(), found.name.as_str());
        let message = source(topics, info, Source::Microphone, named, entities);
        devices.insert(device, message);
    }
    for found in &info.cameras {
        let device = topics.device_of(Source::Camera, &found.id);
        let entities = camera(topics, &device, &found.id);
        let named = (found.id.as_str(), found.name.as_str());
        let message = source(topics, info, Source::Camera, named, entities);
        devices.insert(device, message);
    }
    devices
}

const ORIGIN: Origin = Origin {
    name: env!("CARGO_PKG_NAME"),
    sw_version: env!("CARGO_PKG_VERSION"),
    support_url: env!("CARGO_PKG_REPOSITORY"),
};

fn node(topics: &Topics, info: &Info) -> Discovery {
    let device = topics.device();
    let entity = entity(&device);
    let (health, about) = (topics.of("health"), topics.of("info"));
    let mut components = BTreeMap::new();
    let mut add = |(key, component): (&'static str, Component)| {
        components.insert(key, component);
    };
    let (key, connectivity) = entity("connectivity", "binary_sensor", "Connectivity");
    add((
        key,
        connectivity
            .diagnostic()
            .with("device_class", "connectivity")
            .with("state_topic", topics.availability())
            .with("payload_on", "online")
            .with("payload_off", "offline")
            // It says itself whether the node is there, so it is always available.
            .with("availability", serde_json::json!([])),
    ));
    let (key, problem) = entity("problem", "binary_sensor", "Problem");
    add((
        key,
        problem
            .diagnostic()
            .with("device_class", "problem")
            .with("state_topic", health.clone())
            .with(
                "value_template",
                "{{ 'ON' if value_json.state == 'degraded' or value_json.mqtt.namesake is defined else 'OFF' }}",
            )
            .with("json_attributes_topic", health.clone())
            .with(
                "json_attributes_template",
                "{{ {'degraded': value_json.degraded, 'last_error': value_json.last_error} | tojson }}",
            ),
    ));
    let (key, model) = entity("model", "sensor", "Model");
    add((
        key,
        model
            .diagnostic()
            .with("device_class", "enum")
            .with("options", vec![info.model.clone()])
            .with("state_topic", about)
            .with("value_template", "{{ value_json.model }}"),
    ));
    for [key, name, template, unit, device_class, state_class] in FIGURES {
        let (key, figure) = entity(key, "sensor", name);
        let mut figure = figure
            .diagnostic()
            .with("state_topic", health.clone())
            .with("value_template", *template)
            .with("state_class", *state_class);
        for (option, value) in [
            ("unit_of_measurement", unit),
            ("device_class", device_class),
        ] {
            if !value.is_empty() {
                figure = figure.with(option, *value);
            }
        }
        add((key, figure));
    }
    if !info.matformer_options.is_empty() {
        let (key, matformer) = entity("matformer", "select", "MatFormer size");
        add((
            key,
            matformer
                .config()
                .with("state_topic", topics.of("matformer"))
                .with("command_topic", topics.of("matformer/set"))
                .with("options", info.matformer_options.clone()),
        ));
    }
    let (key, max_tokens) = entity("max_tokens", "number", "Longest answer");
    add((
        key,
        max_tokens
            .config()
            .with("state_topic", topics.of("max_tokens"))
            .with("command_topic", topics.of("max_tokens/set"))
            .with("min", 1)
            .with("max", info.context.max(2))
            .with("mode", "box")
            .with("unit_of_measurement", "tokens"),
    ));
    let (key, ask) = entity("ask", "notify", "Ask");
    add((key, ask.with("command_topic", topics.of("ask"))));
    let (key, answer) = entity("answer", "sensor", "Answer");
    let answer_topic = topics.of("answer");
    add((key, short_text(answer, answer_topic)));
    components.extend(voice_entities::speaker(topics, info, &device));
    let mut add = |(key, component): (&'static str, Component)| {
        components.insert(key, component);
    };
    let (key, reload) = entity("reload", "button", "Reload");
    add((
        key,
        reload
            .config()
            .with("command_topic", topics.of("request/reload"))
            .with("payload_press", "{}"),
    ));
    let (key, forget) = entity("forget", "button", "Forget answers");
    add((
        key,
        forget
            .config()
            .with("command_topic", topics.of("request/forget"))
            .with("payload_press", "{}"),
    ));
    let (key, job) = entity("job", "event", "Job");
    add((
        key,
        job.with("state_topic", topics.of("job"))
            .with("event_types", vec!["finished", "failed"]),
    ));
    Discovery {
        device: Device {
            identifiers: vec![device.clone()],
            name: format!("gemmad {}", topics.node),
            manufacturer: "gemmad",
            model: info.model.clone(),
            sw_version: info.version.clone(),
            via_device: None,
        },
        origin: ORIGIN,
        availability: vec![of_node(topics)],
        availability_mode: "all",
        qos: 1,
        components,
    }
}

fn microphone(
    topics: &Topics,
    info: &Info,
    device: &str,
    id: &str,
) -> BTreeMap<&'static str, Component> {
    let entity = entity(device);
    let of = |rest| topics.of_source(Source::Microphone, id, rest);
    let (mute_key, mute) = entity("mute", "switch", "Mute");
    let (speech_key, speech) = entity("speech", "binary_sensor", "Speech");
    let (voice_key, voice) = entity("voice", "event", "Voice");
    let (last_key, last) = entity("last_transcript", "sensor", "Last transcript");
    let mut components = BTreeMap::from([
        (
            mute_key,
            mute.config()
                .with("state_topic", of("mute"))
                .with("command_topic", of("mute/set")),
        ),
        (
            speech_key,
            speech
                .with("device_class", "sound")
                .with("state_topic", of("speech")),
        ),
        (
            voice_key,
            voice.with("state_topic", of("event")).with(
                "event_types",
                vec!["transcript", "command", "not_understood", "rejected"],
            ),
        ),
        (last_key, short_text(last, of("transcript"))),
    ]);
    components.extend(voice_entities::microphone(topics, info, device, id));
    components
}

fn camera(topics: &Topics, device: &str, id: &str) -> BTreeMap<&'static str, Component> {
    let entity = entity(device);
    let of = |rest| topics.of_source(Source::Camera, id, rest);
    let (captions_key, captions) = entity("captions", "switch", "Captions");
    let (enabled_key, enabled) = entity("enabled", "switch", "Enabled");
    let (motion_key, motion) = entity("motion", "binary_sensor", "Motion");
    let (caption_key, caption) = entity("caption", "event", "Caption");
    let (last_key, last) = entity("last_caption", "sensor", "Last caption");
    let (frame_key, frame) = entity("last_frame", "image", "Last frame");
    let (describe_key, describe) = entity("describe", "button", "Describe");
    BTreeMap::from([
        (
            captions_key,
            captions
                .config()
                .with("state_topic", of("captions"))
                .with("command_topic", of("captions/set")),
        ),
        (
            enabled_key,
            enabled
                .config()
                .with("state_topic", of("enabled"))
                .with("command_topic", of("enabled/set")),
        ),
        (
            motion_key,
            motion
                .with("device_class", "motion")
                .with("state_topic", of("motion")),
        ),
        (
            caption_key,
            caption
                .with("state_topic", of("event"))
                .with("event_types", vec!["caption", "failed"]),
        ),
        (last_key, short_text(last, of("caption"))),
        (
            frame_key,
            frame
                .with("image_topic", of("image"))
                .with("content_type", "image/jpeg"),
        ),
        (
            describe_key,
            describe
                .with("command_topic", of("describe"))
                .with("payload_press", "{}"),
        ),
    ])
}

/// A sensor whose state is the short text, and whose attributes are everything: a state may have 255 characters. It is unknown
/// once the text is taken back with an empty message, as muting does.
fn short_text(sensor: Component, topic: String) -> Component {
    sensor
        .with("state_topic", topic.clone())
        .with(
            "value_template",
            "{{ value_json.short if value_json is defined else 'None' }}",
        )
        .with("json_attributes_topic", topic)
        .with("json_attributes_template", "{{ value or '{}' }}")
}

fn of_node(topics: &Topics) -> Availability {
    available(topics.availability(), None)
}

/// Both payloads are Home Assistant's defaults. Said all the same: its 2025.4 was seen to miss them where it sets up many
/// entities at once, and then the entity is missing.
fn available(topic: String, value_template: Option<&'static str>) -> Availability {
    Availability {
        topic,
        payload_available: "online",
        payload_not_available: "offline",
        value_template,
    }
}

fn source(
    topics: &Topics,
    info: &Info,
    kind: Source,
    (id, name): (&str, &str),
    components: BTreeMap<&'static str, Component>,
) -> Discovery {
    Discovery {
        device: Device {
            identifiers: vec![topics.device_of(kind, id)],
            name: name.to_owned(),
            manufacturer: "gemmad",
            model: match kind {
                Source::Microphone => "Microphone",
                Source::Camera => "Camera",
            }
            .to_owned(),
            sw_version: info.version.clone(),
            via_device: Some(topics.device()),
        },
        origin: ORIGIN,
        availability: vec![
            of_node(topics),
            // Muted and disabled sources are there: their switches have to work.
            available(
                topics.of_source(kind, id, "state"),
                Some("{{ 'offline' if value == 'offline' else 'online' }}"),
            ),
        ],
        availability_mode: "all",
        qos: 1,
        components,
    }
}
