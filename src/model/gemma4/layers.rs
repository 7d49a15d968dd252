//! What the configuration of Gemma 4 says of each layer.

use crate::model::config::LayerType;
use crate::model::decoder::{LayerShape, Rope};
use crate::model::gemma4::config::TextConfig;

impl TextConfig {
    /// The shape of each layer.
    ///
    /// Source: reference section 2.4.
    pub fn layers(&self) -> Vec<LayerShape> {
        let first_shared = self.first_kv_shared_layer();
        (0..self.num_hidden_layers)
            .map(|layer| {
                let is_sliding = self.layer_types[layer] == LayerType::Sliding;
                let rope = if is_sliding {
                    self.sliding_rope
                } else {
                    self.full_rope
                };
                let head_dim = self.head_dim[layer];
                let source = LayerType::kv_source(&self.layer_types, first_shared, layer);
                LayerShape {
                    heads: self.num_attention_heads,
                    kv_heads: self.num_key_value_heads[layer],
                    head_dim,
                    window: is_sliding.then_some(self.sliding_window),
                    rope: Rope {
                        base: rope.rope_theta,
                        factor: rope.factor,
                        rotated_pairs: (rope.partial_rotary_factor * head_dim as f64 / 2.0).floor()
                            as usize,
                    },
                    kv_of: Some(source).filter(|&source| source != layer),
                    ffn_width: self.intermediate_size[layer],
                }
            })
            .collect()
    }
}
