//! Which parameter group a tensor belongs to.

use std::fmt;

/// The five parameter groups: each is placed, loaded, dropped and measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Decoder, token embeddings and LM head: resident while the model runs.
    Text,
    /// The per-layer-embedding table: read by row from flash, never resident as a whole.
    Ple,
    /// Audio tower and `embed_audio`: loaded when speech starts.
    Audio,
    /// Vision tower and `embed_vision`: loaded when a picture is to be described.
    Vision,
    /// What guesses the text model's next tokens: read when that is worth it, most of its head never.
    Drafter,
}

impl Group {
    /// All groups, in the order in which they are reported.
    pub const ALL: [Group; 5] = [
        Group::Text,
        Group::Ple,
        Group::Audio,
        Group::Vision,
        Group::Drafter,
    ];

    /// The group of the tensor with this canonical name (prefix `model.`), or `None` for a name that no Gemma has.
    pub fn of(name: &str) -> Option<Group> {
        let rest = name.strip_prefix("model.")?;
        if rest.starts_with("language_model.embed_tokens_per_layer.") {
            Some(Group::Ple)
        } else if rest.starts_with("language_model.") {
            Some(Group::Text)
        } else if rest.starts_with("audio_tower.") || rest.starts_with("embed_audio.") {
            Some(Group::Audio)
        } else if rest.starts_with("vision_tower.") || rest.starts_with("embed_vision.") {
            Some(Group::Vision)
        } else if rest.starts_with("drafter.") {
            Some(Group::Drafter)
        } else {
            None
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Group::Text => "text",
            Group::Ple => "ple",
            Group::Audio => "audio",
            Group::Vision => "vision",
            Group::Drafter => "drafter",
        })
    }
}
