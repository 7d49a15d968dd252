//! What the configuration of Gemma 3n says of each layer.

use crate::model::config::LayerType;
use crate::model::decoder::{LayerShape, Rope};
use crate::model::gemma3n::config::TextConfig;

impl TextConfig {
    /// The shape of each layer.
    pub fn layers(&self) -> Vec<LayerShape> {
        (0..self.num_hidden_layers)
            .map(|layer| {
                let is_sliding = self.layer_types[layer] == LayerType::Sliding;
                LayerShape {
                    heads: self.num_attention_heads,
                    kv_heads: self.num_key_value_heads,
                    head_dim: self.head_dim,
                    window: is_sliding.then_some(self.sliding_window),
                    rope: Rope {
                        base: if is_sliding {
                            self.rope_local_base_freq
                        } else {
                            self.rope_theta
                        },
                        factor: 1.0,
                        rotated_pairs: self.head_dim / 2,
                    },
                    kv_of: Some(self.kv_source(layer)).filter(|&source| source != layer),
                    ffn_width: self.intermediate_size[layer],
                }
            })
            .collect()
    }
}
