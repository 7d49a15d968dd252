//! What Home Assistant is told of wake words and of the speaker.

use super::component::{Component, Components, entity};
use super::topics::{Source, Topics};
use crate::report::Info;

/// Whether wake words are listened for, how sure the last one was, and what is to be said; of a microphone that has them. What it may
/// have had before and has no more is named as gone.
pub(super) fn microphone(topics: &Topics, info: &Info, device: &str, id: &str) -> Components {
    let entity = entity(device);
    let of = |rest| topics.of_source(Source::Microphone, id, rest);
    let (wake_key, wake) = entity("wake", "switch", "Wake word");
    let (score_key, score) = entity("wake_score", "sensor", "Last score");
    let (say_key, say) = entity("say", "notify", "Say");
    let wake = wake
        .config()
        .with("state_topic", of("wake"))
        .with("command_topic", of("wake/set"));
    let score = score
        .diagnostic()
        .with("state_class", "measurement")
        .with("state_topic", of("wake_score"));
    let say = say.with("command_topic", of("say"));
    let wakes = info.microphones.iter().any(|it| it.id == id && it.wakes);
    let speaks = info.speaker.is_some();
    [
        (wake_key, wake, wakes),
        (score_key, score, wakes),
        (say_key, say, speaks),
    ]
    .map(|(key, component, is_there)| (key, if_there(component, is_there)))
    .into()
}

/// How loud the speaker is, whether it is there, and that it be silent; as gone where there is none.
pub(super) fn speaker(
    topics: &Topics,
    info: &Info,
    device: &str,
) -> [(&'static str, Component); 3] {
    let entity = entity(device);
    let (state_key, state) = entity("speaker", "binary_sensor", "Speaker");
    let (volume_key, volume) = entity("volume", "number", "Volume");
    let (stop_key, stop) = entity("silence", "button", "Silence");
    [
        (
            state_key,
            state
                .diagnostic()
                .with("device_class", "connectivity")
                .with("state_topic", topics.of("speaker/state"))
                .with("payload_on", "online")
                .with("payload_off", "offline"),
        ),
        (
            volume_key,
            volume
                .config()
                .with("state_topic", topics.of("speaker/volume"))
                .with("command_topic", topics.of("speaker/volume/set"))
                .with("min", 0)
                .with("max", 100)
                .with("unit_of_measurement", "%"),
        ),
        (
            stop_key,
            stop.with("command_topic", topics.of("speaker/stop"))
                .with("payload_press", "{}"),
        ),
    ]
    .map(|(key, component)| (key, if_there(component, info.speaker.is_some())))
}

fn if_there(component: Component, is_there: bool) -> Component {
    match is_there {
        true => component,
        false => component.gone(),
    }
}
