//! What `config.json` of a drafter says, beside the model that it drafts for.
//!
//! Source: `src/model/gemma4/drafter.md` section 1.

use std::path::Path;

use serde_json::Value;

use super::TextConfig;
use super::text::{HeadShapes, rope};
use crate::model::config::{ConfigError, LayerType, MAX_LAYERS, MAX_WIDTH, Section, brief};
use crate::model::decoder::{LayerShape, Rope};

/// `model_type` of a drafter.
const MODEL_TYPE: &str = "gemma4_assistant";

/// The drafter's hyper-parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct DrafterConfig {
    /// Width of the model that it drafts for, D.
    pub backbone_hidden_size: usize,
    /// Its own width, d.
    pub hidden_size: usize,
    /// The shape of each layer; `kv_of` is the layer of the model that it drafts for whose keys and values it reads.
    pub layers: Vec<LayerShape>,
    /// Ids that it can draft, V.
    pub vocab_size: usize,
    /// Epsilon of every norm.
    pub rms_norm_eps: f32,
    /// How the ids are clustered, if they are: the tensors tell.
    pub clusters: Option<Clusters>,
}

/// Clusters of ids, of which the likeliest are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clusters {
    /// How many there are, of as many ids each.
    pub count: usize,
    /// How many of them are looked into.
    pub looked_into: usize,
}

impl DrafterConfig {
    /// Checks what `config.json` says of a drafter for the model `target`; `path` is named in errors.
    ///
    /// # Errors
    /// A key is missing or out of range, or it is no drafter, or one for another model.
    pub fn of(
        value: &Value,
        path: &Path,
        target: &TextConfig,
    ) -> Result<DrafterConfig, ConfigError> {
        let name = "";
        let top = Section { value, name, path };
        match top.get("model_type").and_then(Value::as_str) {
            Some(MODEL_TYPE) => {}
            other => {
                let found = other.unwrap_or("missing");
                return Err(top.error(
                    "model_type",
                    format!("is {found}, and a drafter of Gemma 4 says {MODEL_TYPE:?}: give the directory of one, such as gemma-4-E2B-it-assistant"),
                ));
            }
        }
        let text = top
            .section("text_config")
            .ok_or_else(|| top.error("text_config", "is missing"))?;
        let fits = Fits { target };
        fits.check(&top, "backbone_hidden_size", target.hidden_size)?;
        fits.check(&text, "vocab_size", target.vocab_size)?;
        fits.check(&text, "sliding_window", target.sliding_window)?;
        text.only("hidden_activation", &Value::from("gelu_pytorch_tanh"))?;
        for key in [
            "use_double_wide_mlp",
            "enable_moe_block",
            "attention_k_eq_v",
            "attention_bias",
        ] {
            text.only(key, &Value::from(false))?;
        }
        text.only("hidden_size_per_layer_input", &Value::from(0))?;
        if let Some(cap) = text.get("final_logit_softcapping") {
            let reason = format!("is {}, and a drafter's logits have no cap", brief(cap));
            return Err(text.error("final_logit_softcapping", reason));
        }
        let config = DrafterConfig {
            backbone_hidden_size: target.hidden_size,
            hidden_size: text.size("hidden_size")?,
            layers: fits.layers(&text)?,
            vocab_size: target.vocab_size,
            rms_norm_eps: text.positive_or("rms_norm_eps", 1e-6)? as f32,
            clusters: clusters(&top, target.vocab_size)?,
        };
        text.at_most(MAX_WIDTH, "hidden_size", config.hidden_size)?;
        Ok(config)
    }
}

/// The model that a drafter must fit.
struct Fits<'a> {
    target: &'a TextConfig,
}

impl Fits<'_> {
    fn check(&self, section: &Section<'_>, key: &str, wanted: usize) -> Result<(), ConfigError> {
        let found = section.size(key)?;
        match found == wanted {
            true => Ok(()),
            false => Err(section.error(
                key,
                format!("is {found}, and {wanted} in the model that it is to draft for: take that model's own drafter"),
            )),
        }
    }

    fn layers(&self, text: &Section<'_>) -> Result<Vec<LayerShape>, ConfigError> {
        let layers = text.size("num_hidden_layers")?;
        text.at_most(MAX_LAYERS, "num_hidden_layers", layers)?;
        if let Some(shared) = text.get("num_kv_shared_layers")
            && ![Value::from(0), Value::from(layers)].contains(shared)
        {
            let reason = format!(
                "is {}, and a drafter has no keys of its own in any of its {layers} layers",
                brief(shared)
            );
            return Err(text.error("num_kv_shared_layers", reason));
        }
        let types = text
            .layer_types(layers)?
            .ok_or_else(|| text.error("layer_types", "is missing"))?;
        let heads = text.size("num_attention_heads")?;
        let shapes = HeadShapes::read(text, &types)?;
        let ffn_width = text.size("intermediate_size")?;
        text.at_most(MAX_WIDTH, "intermediate_size", ffn_width)?;
        let ropes = [
            rope(text, "full_attention", 1e6, 0.25)?,
            rope(text, "sliding_attention", 1e4, 1.0)?,
        ];
        let of_target = self.target.layers();
        let own = self.target.first_kv_shared_layer();
        types
            .iter()
            .enumerate()
            .map(|(layer, kind)| {
                let is_sliding = *kind == LayerType::Sliding;
                let source = (0..own).rfind(|&at| self.target.layer_types[at] == *kind);
                let source = source.ok_or_else(|| {
                    let reason = "asks for keys that the model has of no layer of that type";
                    text.error("layer_types", reason)
                })?;
                let of = &of_target[source];
                let (head_dim, kv_heads) = (shapes.head_dim[layer], shapes.kv_heads[layer]);
                let rope = ropes[usize::from(is_sliding)];
                let rope = Rope {
                    base: rope.rope_theta,
                    factor: rope.factor,
                    rotated_pairs: (rope.partial_rotary_factor * head_dim as f64 / 2.0).floor()
                        as usize,
                };
                let differs = |what: &str, found: String, wanted: String| {
                    let reason = format!("layer {layer} has {what} {found}, and the keys that it reads are of {wanted}: take that model's own drafter");
                    Err(text.error("layer_types", reason))
                };
                if (head_dim, kv_heads) != (of.head_dim, of.kv_heads) {
                    let shape = |heads, width| format!("{heads} × {width}");
                    let found = shape(kv_heads, head_dim);
                    return differs("key/value heads", found, shape(of.kv_heads, of.head_dim));
                }
                if rope != of.rope {
                    return differs("positions", format!("{rope:?}"), format!("{:?}", of.rope));
                }
                if !heads.is_multiple_of(kv_heads) {
                    let reason = format!("{heads} is no multiple of num_key_value_heads {kv_heads}");
                    return Err(text.error("num_attention_heads", reason));
                }
                let width = heads.saturating_mul(head_dim);
                text.at_most(MAX_WIDTH, "num_attention_heads × head_dim", width)?;
                Ok(LayerShape {
                    heads,
                    kv_heads,
                    head_dim,
                    window: of.window,
                    rope,
                    kv_of: Some(source),
                    ffn_width,
                })
            })
            .collect()
    }
}

fn clusters(top: &Section<'_>, vocab_size: usize) -> Result<Option<Clusters>, ConfigError> {
    if top.get("num_centroids").is_none() {
        return Ok(None);
    }
    let clusters = Clusters {
        count: top.size("num_centroids")?,
        looked_into: top.size("centroid_intermediate_top_k")?,
    };
    if !vocab_size.is_multiple_of(clusters.count) {
        let reason = format!(
            "{} clusters of one size cannot hold {vocab_size} ids",
            clusters.count
        );
        return Err(top.error("num_centroids", reason));
    }
    top.at_most(
        clusters.count,
        "centroid_intermediate_top_k",
        clusters.looked_into,
    )?;
    Ok(Some(clusters))
}
