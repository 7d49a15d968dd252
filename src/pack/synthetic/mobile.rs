//! The "mobile" checkpoints of Gemma 4: which of their tensors has how many bits.
//!
//! Source: `src/model/gemma4/mobile.md` section 1.1 and 1.2.

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::SyntheticSize;
use crate::model::architecture::Architecture;
use crate::model::tensor_table::Access;
use crate::model::weights::Group;
use crate::model::weights::mobile::{ACTIVATION_SCALES, HEAD, layer_of, scale_of};
use crate::pack::error::PackError;
use crate::pack::mobile;
use crate::pack::plan::{Described, FilePlan, matrix_shape};
use crate::pack::widths::Widths;

/// Layers, by patterns of which the first that fits counts, and their bits.
type Bits = [(&'static str, u64)];

const E2B: &Bits = &[
    (r"^lm_head$", 2),
    (r"language_model\.embed_tokens$", 2),
    (r"language_model\.embed_tokens_per_layer$", 4),
    (r"language_model\.layers\.(\d|1[0-4])\.mlp\.", 4),
    (r"language_model\.layers\.\d+\.mlp\.", 2),
];
const E4B: &Bits = &[
    (r"^lm_head$", 2),
    (r"language_model\.embed_tokens$", 2),
    (r"language_model\.embed_tokens_per_layer$", 2),
    (r"language_model\.layers\.\d+\.mlp\.", 4),
];
const BOTH: &Bits = &[
    (r"language_model\.layers\.\d+\.per_layer_input_gate$", 8),
    (r"language_model\.layers\.\d+\.per_layer_projection$", 8),
    (r"language_model\.layers\.\d+\.self_attn\.", 4),
    (r"vision_tower", 8),
    (r"audio_tower(?!.*lconv1d\.linear_start)", 2),
    (r"audio_tower\.layers\.\d+\.lconv1d\.linear_start\.", 4),
];
const PLAIN: [&str; 7] = [
    "model.vision_tower.patch_embedder",
    "model.audio_tower.subsample_conv_projection",
    "model.audio_tower.output_proj",
    "relative_k_proj",
    "model.embed_audio",
    "model.embed_vision",
    "per_layer_model_projection",
];

/// `quantization_config` as published; `None` where no such checkpoint is.
pub(super) fn quantization_config(size: SyntheticSize) -> Option<Value> {
    let own = match size {
        SyntheticSize::Gemma4E2b => E2B,
        SyntheticSize::Gemma4E4b => E4B,
        SyntheticSize::E2b | SyntheticSize::E4b => return None,
    };
    let rules = own.iter().chain(BOTH);
    let rules = rules.map(|(pattern, bits)| ((*pattern).to_owned(), json!({"num_bits": bits})));
    Some(json!({
        "quant_method": "gemma",
        "num_bits": 4,
        "quantize_embeddings": true,
        "module_quant_configs": rules.collect::<Map<_, _>>(),
        "modules_to_not_convert": PLAIN,
    }))
}

/// Lays out such a checkpoint.
pub(super) fn plan(
    architecture: &dyn Architecture,
    config: &Value,
) -> Result<Vec<FilePlan>, PackError> {
    let path = Path::new("config.json");
    let mut checkpoint = Tensors {
        widths: Widths::of(config, path)?,
        all: HashMap::new(),
    };
    let layers = architecture.spec().layers.len();
    for tensor in architecture.text_tensors() {
        let scales = match tensor.matrix {
            None => None,
            Some((_, Access::Rows)) => Some(layers),
            Some(_) => Some(1),
        };
        let rounds = scales == Some(1) && !tensor.is_head();
        checkpoint.add(tensor.name, tensor.shape, Dtype::BF16, scales, rounds)?;
    }
    checkpoint.round(HEAD);
    for group in [Group::Audio, Group::Vision] {
        for (name, shape) in architecture.encoder_tensors(group)? {
            // What cuts off is the rounding: there are no bounds.
            if shape.is_empty() {
                continue;
            }
            let dtype = match name.starts_with("model.vision_tower.") {
                true => Dtype::BF16,
                false => Dtype::F32,
            };
            let is_linear = name.ends_with(".linear.weight");
            checkpoint.add(name, shape, dtype, is_linear.then_some(1), is_linear)?;
        }
    }
    let find = |name: &str| checkpoint.all.get(name).cloned();
    let files = mobile::files(architecture, path, &find, false)?;
    checkpoint.widths.check(&files)?;
    Ok(files)
}

/// The tensors of a checkpoint, by name.
struct Tensors {
    widths: Widths,
    all: HashMap<String, Described>,
}

impl Tensors {
    /// Adds a tensor; a matrix may have so many `scales` a row, where its layer has a width.
    fn add(
        &mut self,
        name: String,
        shape: Vec<usize>,
        dtype: Dtype,
        scales: Option<usize>,
        rounds: bool,
    ) -> Result<(), PackError> {
        let bits = match scales {
            Some(_) => self.widths.bits(layer_of(&name))?,
            None => None,
        };
        let Some((bits, scales)) = bits.zip(scales) else {
            let plain = Described {
                shape,
                dtype,
                block_bits: None,
            };
            self.all.insert(name, plain);
            return Ok(());
        };
        let (rows, cols) = matrix_shape(&shape);
        let float = |shape| Described {
            shape,
            dtype: Dtype::F32,
            block_bits: None,
        };
        self.all.insert(scale_of(&name), float(vec![rows, scales]));
        if rounds {
            self.round(layer_of(&name));
        }
        let packed = Described {
            shape: vec![rows, cols.div_ceil(8 / bits as usize)],
            dtype: if bits == 8 { Dtype::I8 } else { Dtype::U8 },
            block_bits: None,
        };
        self.all.insert(name, packed);
        Ok(())
    }

    fn round(&mut self, layer: &str) {
        for end in ACTIVATION_SCALES {
            let step = Described {
                shape: Vec::new(),
                dtype: Dtype::F32,
                block_bits: None,
            };
            self.all.insert(format!("{layer}{end}"), step);
        }
    }
}
