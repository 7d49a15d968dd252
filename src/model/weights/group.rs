//! Which parameter group a tensor belongs to.

use std::fmt;

/// The four parameter groups: each is placed, loaded, dropped and measured by itself.
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
}

impl Group {
    /// All groups, in the order in which they are reported.
    pub const ALL: [Group; 4] = [Group::Text, Group::Ple, Group::Audio, Group::Vision];

    /// The group of the tensor with this canonical name (prefix `model.`), or `None` for a name that Gemma 3n does not have.
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
        })
    }
}

/// The rows in which `gemmad inspect` counts parameters.
///
/// Source: reference section 8 (they add up to Google's published totals).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Category {
    /// Gate, up and down projections.
    Mlp,
    /// Attention projections and their norms, without the unused ones.
    Attention,
    /// AltUp routers, coefficients and the stream projections.
    AltUp,
    /// LAuReL's two low-rank matrices and norm.
    Laurel,
    /// Everything that feeds the per-layer inputs except the table.
    PleSide,
    /// The decoder's layer norms.
    Norms,
    /// K/V tensors of layers that share another layer's K/V: in the files, never used.
    KvSharedUnused,
    /// Token embeddings, also the LM head.
    EmbedTokens,
    /// The per-layer-embedding table.
    PleTable,
    /// MobileNetV5.
    VisionTower,
    /// The projection from vision to text width.
    EmbedVision,
    /// The conformer.
    AudioTower,
    /// The projection from audio to text width.
    EmbedAudio,
}

impl Category {
    /// The category of a canonical tensor name; `first_shared_layer` is the first layer without K/V of its own.
    pub fn of(name: &str, first_shared_layer: usize) -> Option<Category> {
        let rest = name.strip_prefix("model.")?;
        let Some(text) = rest.strip_prefix("language_model.") else {
            return match rest.split('.').next()? {
                "vision_tower" => Some(Category::VisionTower),
                "embed_vision" => Some(Category::EmbedVision),
                "audio_tower" => Some(Category::AudioTower),
                "embed_audio" => Some(Category::EmbedAudio),
                _ => None,
            };
        };
        let Some(layer) = text.strip_prefix("layers.") else {
            return match text.split('.').next()? {
                "embed_tokens" => Some(Category::EmbedTokens),
                "embed_tokens_per_layer" => Some(Category::PleTable),
                "altup_projections" | "altup_unembed_projections" => Some(Category::AltUp),
                "per_layer_model_projection" | "per_layer_projection_norm" => {
                    Some(Category::PleSide)
                }
                "norm" => Some(Category::Norms),
                _ => None,
            };
        };
        let (index, leaf) = layer.split_once('.')?;
        let shared = index.parse::<usize>().ok()? >= first_shared_layer;
        match leaf.split('.').next()? {
            "mlp" => Some(Category::Mlp),
            "altup" => Some(Category::AltUp),
            "laurel" => Some(Category::Laurel),
            "per_layer_input_gate" | "per_layer_projection" | "post_per_layer_input_norm" => {
                Some(Category::PleSide)
            }
            "input_layernorm"
            | "post_attention_layernorm"
            | "pre_feedforward_layernorm"
            | "post_feedforward_layernorm" => Some(Category::Norms),
            "self_attn" => {
                let kv =
                    leaf.contains("k_proj") || leaf.contains("v_proj") || leaf.contains("k_norm");
                Some(if shared && kv {
                    Category::KvSharedUnused
                } else {
                    Category::Attention
                })
            }
            _ => None,
        }
    }

    /// The name under which the category is printed.
    pub fn name(self) -> &'static str {
        match self {
            Category::Mlp => "text.mlp",
            Category::Attention => "text.attn",
            Category::AltUp => "text.altup",
            Category::Laurel => "text.laurel",
            Category::PleSide => "text.ple_side",
            Category::Norms => "text.norms",
            Category::KvSharedUnused => "kv_shared_unused",
            Category::EmbedTokens => "embed_tokens",
            Category::PleTable => "ple_table",
            Category::VisionTower => "vision_tower",
            Category::EmbedVision => "embed_vision",
            Category::AudioTower => "audio_tower",
            Category::EmbedAudio => "embed_audio",
        }
    }

    /// All categories, in the order in which they are printed.
    pub const ALL: [Category; 13] = [
        Category::Mlp,
        Category::Attention,
        Category::AltUp,
        Category::Laurel,
        Category::PleSide,
        Category::Norms,
        Category::KvSharedUnused,
        Category::EmbedTokens,
        Category::PleTable,
        Category::VisionTower,
        Category::EmbedVision,
        Category::AudioTower,
        Category::EmbedAudio,
    ];
}
