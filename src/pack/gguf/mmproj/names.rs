//! Where an mmproj file has a tensor of a tower, and what was done to it there.
//!
//! Source: the converter of llama.cpp; reference section 6 of Gemma 4.

/// What is to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing but the place.
    None,
    /// Columns of `[row][column][channel]` were put as `[channel][row][column]`.
    Patches,
    /// `ln(1 + e^x)` stands for `x`.
    Softplus,
}

/// A tensor in the file: its name, and what was done.
pub(super) type Found = (String, Change);

const GEMMA_4: [(&str, &str); 11] = [
    (
        "vision_tower.patch_embedder.position_embedding_table",
        "v.position_embd.weight",
    ),
    (
        "embed_vision.embedding_projection.weight",
        "mm.input_projection.weight",
    ),
    (
        "embed_audio.embedding_projection.weight",
        "mm.a.input_projection.weight",
    ),
    ("audio_tower.output_proj.weight", "a.pre_encode.out.weight"),
    ("audio_tower.output_proj.bias", "a.pre_encode.out.bias"),
    (
        "audio_tower.subsample_conv_projection.layer0.conv.weight",
        "a.conv1d.0.weight",
    ),
    (
        "audio_tower.subsample_conv_projection.layer0.norm.weight",
        "a.conv1d.0.norm.weight",
    ),
    (
        "audio_tower.subsample_conv_projection.layer1.conv.weight",
        "a.conv1d.1.weight",
    ),
    (
        "audio_tower.subsample_conv_projection.layer1.norm.weight",
        "a.conv1d.1.norm.weight",
    ),
    (
        "audio_tower.subsample_conv_projection.input_proj_linear.weight",
        "a.input_projection.weight",
    ),
    (PATCHES, "v.patch_embd.weight"),
];
const PATCHES: &str = "vision_tower.patch_embedder.input_proj.weight";

/// Stems inside a layer of Gemma 4's vision transformer.
const VISION_LAYER: [(&str, &str); 13] = [
    ("input_layernorm", "ln1"),
    ("pre_feedforward_layernorm", "ln2"),
    ("post_attention_layernorm", "attn_post_norm"),
    ("post_feedforward_layernorm", "ffn_post_norm"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_out"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Stems inside a conformer block of Gemma 4. The two norms of the light convolution have each other's names.
const AUDIO_LAYER: [(&str, &str); 22] = [
    ("feed_forward1.pre_layer_norm", "ffn_norm"),
    ("feed_forward1.ffw_layer_1", "ffn_up"),
    ("feed_forward1.ffw_layer_2", "ffn_down"),
    ("feed_forward1.post_layer_norm", "ffn_post_norm"),
    ("feed_forward2.pre_layer_norm", "ffn_norm_1"),
    ("feed_forward2.ffw_layer_1", "ffn_up_1"),
    ("feed_forward2.ffw_layer_2", "ffn_down_1"),
    ("feed_forward2.post_layer_norm", "ffn_post_norm_1"),
    ("norm_pre_attn", "attn_pre_norm"),
    ("norm_post_attn", "attn_post_norm"),
    ("norm_out", "ln2"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.post", "attn_out"),
    ("self_attn.relative_k_proj", "attn_k_rel"),
    (PER_DIM_SCALE, "per_dim_scale"),
    ("lconv1d.pre_layer_norm", "conv_norm"),
    ("lconv1d.conv_norm", "norm_conv"),
    ("lconv1d.linear_start", "conv_pw1"),
    ("lconv1d.linear_end", "conv_pw2"),
    ("lconv1d.depthwise_conv1d", "conv_dw"),
];
const PER_DIM_SCALE: &str = "self_attn.per_dim_scale";

/// How the name of a tensor ends behind its stem, here and there.
const ENDS: [(&str, &str); 6] = [
    (".linear.weight", ".weight"),
    (".weight", ".weight"),
    (".input_min", ".input_min"),
    (".input_max", ".input_max"),
    (".output_min", ".output_min"),
    (".output_max", ".output_max"),
];

/// A tensor of Gemma 4, by its canonical name; `None` for names that no such file has.
pub(super) fn gemma4(canonical: &str) -> Option<Found> {
    let name = canonical.strip_prefix("model.")?;
    if let Some((_, theirs)) = GEMMA_4.iter().find(|(ours, _)| *ours == name) {
        let change = match name {
            PATCHES => Change::Patches,
            _ => Change::None,
        };
        return Some(((*theirs).to_owned(), change));
    }
    let (tower, stems, rest) = match name.strip_prefix("vision_tower.encoder.layers.") {
        Some(rest) => ("v", &VISION_LAYER[..], rest),
        None => {
            let rest = name.strip_prefix("audio_tower.layers.")?;
            ("a", &AUDIO_LAYER[..], rest)
        }
    };
    let (layer, leaf) = rest.split_once('.')?;
    let ends = ENDS.iter();
    let cut = ends.filter_map(|(ours, theirs)| Some((leaf.strip_suffix(ours)?, *theirs)));
    // A name without any end has `.weight` there.
    let mut cut = cut.chain([(leaf, ".weight")]);
    let (stem, end) = cut.find_map(|(stem, end)| {
        let (_, theirs) = stems.iter().find(|(ours, _)| *ours == stem)?;
        Some((*theirs, end))
    })?;
    let change = match leaf {
        PER_DIM_SCALE => Change::Softplus,
        _ => Change::None,
    };
    Some((format!("{tower}.blk.{layer}.{stem}{end}"), change))
}

/// The vision embedder of Gemma 3n.
const GEMMA_3N: [(&str, &str); 4] = [
    ("embedding", "embedding"),
    ("hard_embedding_norm", "hard_emb_norm"),
    ("soft_embedding_norm", "soft_emb_norm"),
    ("embedding_projection", "input_projection"),
];

/// A tensor of Gemma 3n's vision encoder; nothing was done to its values.
pub(super) fn gemma3n(canonical: &str) -> Option<Found> {
    let name = canonical.strip_prefix("model.")?;
    let theirs = match name.strip_prefix("vision_tower.timm_model.") {
        Some(inner) => match inner.strip_prefix("blocks.") {
            Some(block) => format!("v.blk.{block}"),
            None => format!("v.{inner}"),
        },
        None => {
            let leaf = name.strip_prefix("embed_vision.")?;
            let leaf = leaf.strip_suffix(".weight")?;
            let (_, theirs) = GEMMA_3N.iter().find(|(ours, _)| *ours == leaf)?;
            format!("mm.{theirs}.weight")
        }
    };
    Some((theirs, Change::None))
}
