//! Tensor names: the published ones in those of llama.cpp.

/// Where a checkpoint keeps text tensors.
const TEXT_PREFIX: &str = "model.language_model.";

/// Names outside the layers.
const GLOBAL: [(&str, &str); 5] = [
    ("embed_tokens.weight", "token_embd.weight"),
    (
        "embed_tokens_per_layer.weight",
        "per_layer_token_embd.weight",
    ),
    (
        "per_layer_model_projection.weight",
        "per_layer_model_proj.weight",
    ),
    (
        "per_layer_projection_norm.weight",
        "per_layer_proj_norm.weight",
    ),
    ("norm.weight", "output_norm.weight"),
];

/// AltUp's projections, which llama.cpp stacks.
const STACKED: [(&str, &str); 2] = [
    ("altup_projections", "altup_proj.weight"),
    ("altup_unembed_projections", "altup_unembd_proj.weight"),
];

/// Names inside a layer, without `.weight`, which llama.cpp gives all of them.
const LAYER: [(&str, &str); 25] = [
    ("altup.router_norm", "altup_router_norm"),
    ("altup.modality_router", "altup_router"),
    ("altup.prediction_coefs", "altup_predict_coef"),
    ("altup.correction_coefs", "altup_correct_coef"),
    ("altup.correct_output_scale", "altup_correct_scale"),
    ("input_layernorm", "attn_norm"),
    ("laurel.linear_left", "laurel_l"),
    ("laurel.linear_right", "laurel_r"),
    ("laurel.post_laurel_norm", "laurel_post_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("layer_scalar", "layer_output_scale"),
];

/// The tensor of a GGUF file that holds a canonical one, and which part of its stack; `None` for names that it cannot have.
pub(super) fn in_gguf(canonical: &str) -> Option<(String, Option<usize>)> {
    let text = canonical.strip_prefix(TEXT_PREFIX)?;
    if let Some((_, name)) = GLOBAL.iter().find(|(ours, _)| *ours == text) {
        return Some(((*name).to_owned(), None));
    }
    if let Some(rest) = text.strip_prefix("layers.") {
        let (layer, leaf) = rest.split_once('.')?;
        let leaf = leaf.strip_suffix(".weight").unwrap_or(leaf);
        let (_, name) = LAYER.iter().find(|(ours, _)| *ours == leaf)?;
        return Some((format!("blk.{layer}.{name}.weight"), None));
    }
    let (stack, rest) = text.split_once('.')?;
    let (_, name) = STACKED.iter().find(|(ours, _)| *ours == stack)?;
    let part = rest.strip_suffix(".weight")?.parse().ok()?;
    Some(((*name).to_owned(), Some(part)))
}

/// Matrices of a layer that some writers stack, in the order of their rows, and what such a stack is called.
const FUSED: [(&str, &[&str]); 2] = [
    (
        "attn_qkv",
        &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ),
    ("ffn_gate_up", &["mlp.gate_proj", "mlp.up_proj"]),
];

/// The tensor that may hold a canonical one with others, and the canonical names of those that lie before it there.
pub(super) fn fused(canonical: &str) -> Option<(String, Vec<String>)> {
    let (layer, leaf) = canonical
        .strip_prefix(TEXT_PREFIX)?
        .strip_prefix("layers.")?
        .split_once('.')?;
    let leaf = leaf.strip_suffix(".weight")?;
    let (stack, place, parts) = FUSED.iter().find_map(|(stack, parts)| {
        let place = parts.iter().position(|part| *part == leaf)?;
        Some((stack, place, parts))
    })?;
    let name = |part: &&str| format!("{TEXT_PREFIX}layers.{layer}.{part}.weight");
    Some((
        format!("blk.{layer}.{stack}.weight"),
        parts[..place].iter().map(name).collect(),
    ))
}
