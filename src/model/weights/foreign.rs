//! Tensors as other programs name, quantise or change them: each is told by its name, with what to do.

use std::collections::BTreeMap;
use std::path::Path;

use super::WeightsError;
use super::tensor_info::TensorInfo;

/// What other programs keep beside a quantised matrix, by the end or the middle of its name.
const QUANTIZED: [(&str, &[&str]); 6] = [
    (
        "bitsandbytes",
        &[".absmax", ".quant_map", ".quant_state.", ".SCB"],
    ),
    ("GPTQ or AWQ", &[".qweight", ".qzeros", ".g_idx"]),
    ("compressed-tensors", &[".weight_packed", ".weight_scale"]),
    ("MLX", &[".scales", ".biases"]),
    ("torchao", &["_weight_qdata", "_qdata"]),
    ("quanto", &[".weight._data", ".weight._scale"]),
];

/// Refuses a checkpoint whose tensors are somebody else's.
pub(super) fn refuse(
    dir: &Path,
    tensors: &BTreeMap<String, TensorInfo>,
) -> Result<(), WeightsError> {
    let bad = |tensor: &str, reason: String| {
        Err(WeightsError::Foreign {
            dir: dir.to_owned(),
            tensor: tensor.to_owned(),
            reason,
        })
    };
    for info in tensors.values() {
        if let Some(program) = quantized_by(&info.name) {
            return bad(
                &info.name,
                format!(
                    "the weights are quantised by {program}: take the model as it was before that (bfloat16), of which `gemmad pack` makes a small one"
                ),
            );
        }
        if info.name.contains(".lora_A.") || info.name.contains(".lora_B.") {
            let what = "a LoRA adapter stands beside the weights that it changes: merge it (`merge_and_unload()` of peft), and save the whole model";
            return bad(&info.name, what.to_owned());
        }
    }
    // What is missing of it is told where it is missed.
    if tensors.values().any(|info| info.group.is_some()) {
        return Ok(());
    }
    let text = |name: &str| name.contains("embed_tokens") || name.contains("layers.");
    let Some(info) = tensors
        .values()
        .find(|info| text(&info.name))
        .or_else(|| tensors.values().next())
    else {
        return bad(
            "",
            "the files hold no tensor at all: download them again".to_owned(),
        );
    };
    if info.name.starts_with("language_model.") {
        return bad(
            &info.name,
            "the tensors are named as by MLX or transformers before 4.52: take the checkpoint as Google publishes it, or save it again with transformers 4.53 or newer".to_owned(),
        );
    }
    bad(
        &info.name,
        "no tensor is named as in Gemma 3n and Gemma 4 (model.language_model…): take the checkpoint as Google publishes it, or save the model again with save_pretrained() of transformers".to_owned(),
    )
}

fn quantized_by(name: &str) -> Option<&'static str> {
    let (program, _) = QUANTIZED.iter().find(|(_, marks)| {
        marks.iter().any(|mark| match mark.ends_with('.') {
            true => name.contains(mark),
            false => name.ends_with(mark) || name.ends_with(&format!("{mark}_inv")),
        })
    })?;
    Some(program)
}

/// A warning where a LoRA adapter lies beside whole weights: it is not applied.
pub(super) fn unmerged_adapter(dir: &Path) -> Option<String> {
    let path = dir.join("adapter_config.json");
    path.exists().then(|| {
        format!(
            "the LoRA adapter that {} describes is not applied: merge it into the model where it should be (`merge_and_unload()` of peft)",
            path.display()
        )
    })
}
