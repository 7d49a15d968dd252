//! What Frigate saw, as it is passed on and published.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::Name;
use crate::media::VideoFrame;

/// An event of Frigate, as far as it is told on.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct FrigateEvent {
    /// Frigate's own id of it.
    pub id: String,
    /// Frigate's name of the camera.
    pub camera: String,
    /// What was seen: `person`, `car` and so on.
    pub label: String,
    /// Who or which of them, where Frigate knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_label: Option<String>,
    /// The zones that it was in.
    pub zones: Vec<String>,
    /// How sure Frigate was at best, 0 to 1.
    pub score: f32,
}

/// What is in a picture, for automations (`[frigate] structured`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Scene {
    /// How many people there are.
    pub people: u32,
    /// Whether a package is there.
    pub package: bool,
    /// What is done, in a few words.
    pub action: String,
}

/// A picture of a camera that Frigate watches, to be described.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The camera, as it is called here.
    pub camera: Name,
    /// Its picture.
    pub frame: VideoFrame,
    /// What is asked about it.
    pub prompt: String,
    /// The event that it is of.
    pub event: FrigateEvent,
}
