//! `config.json` of a text model with the towers of an mmproj file.
//!
//! What the file says, the text model's own sections must say, too. What it does not say is theirs; where they are silent, it is as in the
//! released models (reference section 1).

use serde_json::{Map, Value, json};

use super::super::header::TensorInfo;
use super::keys::{Family, Keys};
use crate::model::spec::Spec;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::Group;
use crate::pack::error::PackError;

/// What one tower's section says.
struct Section {
    name: &'static str,
    /// Of the file.
    known: Value,
    /// Of the released models.
    released: Value,
}

/// The text model's `config`, whose facts are `text`, with sections for the towers of `groups`.
pub(super) fn with_towers(
    keys: Keys<'_>,
    family: Family,
    groups: &[Group],
    config: &Value,
    text: &Spec,
    tokenizer: &Tokenizer,
) -> Result<Value, PackError> {
    let model_type = family.model_type();
    let mut top = match config.get("model_type") {
        Some(Value::String(own)) if own == model_type => config.clone(),
        _ => json!({"model_type": model_type, "text_config": config}),
    };
    for &group in groups {
        let section = match (family, group) {
            (Family::Gemma4, Group::Audio) => gemma4_audio(keys)?,
            (Family::Gemma4, _) => gemma4_vision(keys)?,
            (Family::Gemma3n, _) => gemma3n_vision(keys, text)?,
        };
        let name = section.name;
        top[name] = merged(keys, section, top.get(name))?;
    }
    let last = add_ids(keys, &mut top, tokenizer)?;
    // The rows of ids beyond the text come with Gemma 3n's towers; a text model alone may not count them.
    if family == Family::Gemma3n && text.vocab_size <= last as usize {
        top["text_config"]["vocab_size"] = (u64::from(last) + 1).into();
    }
    Ok(top)
}

fn merged(keys: Keys<'_>, section: Section, own: Option<&Value>) -> Result<Value, PackError> {
    let nothing = Map::new();
    let own = own.and_then(Value::as_object).unwrap_or(&nothing);
    let mut all = section.released;
    for (key, value) in own.iter().filter(|(_, value)| !value.is_null()) {
        all[key] = value.clone();
    }
    for (key, value) in section.known.as_object().unwrap_or(&nothing) {
        let said = own.get(key).filter(|said| said.is_u64());
        if let Some(said) = said.filter(|said| *said != value) {
            return Err(keys.bad(format!(
                "its {key} is {value}, but {}.{key} of the text model's config.json is {said}: take the mmproj of the same model",
                section.name
            )));
        }
        all[key] = value.clone();
    }
    Ok(all)
}

/// Whether any of a tower's linear layers has bounds.
fn is_clipped(keys: Keys<'_>, tower: &str) -> bool {
    let mut names = keys.header.tensors.keys();
    names.any(|name| {
        name.starts_with(tower) && (name.ends_with("put_min") || name.ends_with("put_max"))
    })
}

fn gemma4_vision(keys: Keys<'_>) -> Result<Section, PackError> {
    let size = |key| keys.size(Group::Vision, key);
    let [_, positions, _] = keys.shape("v.position_embd.weight")?;
    let [_, _, patch, _] = keys.shape("v.patch_embd.weight")?;
    let [head_dim] = keys.shape("v.blk.0.attn_q_norm.weight")?;
    let heads = size("attention.head_count")?;
    let said = size("patch_size")?;
    if said != patch {
        return Err(keys.bad(format!(
            "clip.vision.patch_size is {said}, but v.patch_embd.weight is of patches of {patch}: the file is damaged"
        )));
    }
    Ok(Section {
        name: "vision_config",
        known: json!({
            "hidden_size": size("embedding_length")?,
            "num_hidden_layers": size("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": head_dim,
            "intermediate_size": size("feed_forward_length")?,
            "patch_size": patch,
            "pooling_kernel_size": keys.size_or(Group::Vision, "projector.scale_factor", 3)?,
            "position_embedding_size": positions,
            "use_clipped_linears": is_clipped(keys, "v."),
        }),
        released: json!({
            "model_type": "gemma4_vision",
            "hidden_activation": "gelu_pytorch_tanh",
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
            "default_output_length": 280,
            "standardize": false,
        }),
    })
}

fn gemma4_audio(keys: Keys<'_>) -> Result<Section, PackError> {
    let size = |key| keys.size(Group::Audio, key);
    let [first, _, _, _] = keys.shape("a.conv1d.0.weight")?;
    let [second, _, _, _] = keys.shape("a.conv1d.1.weight")?;
    let [out, _] = keys.shape("a.pre_encode.out.weight")?;
    let bands = keys.size_or(Group::Audio, "num_mel_bins", 128)?;
    // The middle one of three dimensions is 1, and may be left out.
    let taps = keys.header.tensors.get("a.blk.0.conv_dw.weight");
    let taps = taps.and_then(|TensorInfo { shape, .. }| shape.last().copied());
    let taps = taps.ok_or_else(|| keys.missing("a.blk.0.conv_dw.weight"))?;
    if bands != 128 {
        return Err(keys.bad(format!(
            "clip.audio.num_mel_bins is {bands}; Gemma 4 hears in 128 bands"
        )));
    }
    Ok(Section {
        name: "audio_config",
        known: json!({
            "hidden_size": size("embedding_length")?,
            "num_hidden_layers": size("block_count")?,
            "num_attention_heads": size("attention.head_count")?,
            "subsampling_conv_channels": [first, second],
            "conv_kernel_size": taps,
            "output_proj_dims": out,
            "use_clipped_linears": is_clipped(keys, "a."),
        }),
        released: json!({
            "model_type": "gemma4_audio",
            "hidden_act": "silu",
            "attention_chunk_size": 12,
            "attention_context_left": 13,
            "attention_context_right": 0,
            "attention_logit_cap": 50.0,
            "residual_weight": 0.5,
            "gradient_clipping": 1e10,
            "rms_norm_eps": 1e-6,
        }),
    })
}

/// Of the network itself the file says nothing that is true: it is the released one, or what the text model's config.json says.
fn gemma3n_vision(keys: Keys<'_>, text: &Spec) -> Result<Section, PackError> {
    let [ids, _] = keys.shape("mm.embedding.weight")?;
    Ok(Section {
        name: "vision_config",
        known: json!({
            "hidden_size": keys.size(Group::Vision, "embedding_length")?,
            "vocab_size": ids,
        }),
        released: json!({
            "model_type": "gemma3n_vision",
            "vocab_offset": text.text_vocab_size,
            "rms_norm_eps": 1e-6,
        }),
    })
}

/// The ids around and inside media, as far as they are not there: those of the tokenizer. Gives the last of all.
fn add_ids(keys: Keys<'_>, top: &mut Value, tokenizer: &Tokenizer) -> Result<u32, PackError> {
    let control = tokenizer.control();
    let (Some(image), Some(audio)) = (control.image, control.audio) else {
        return Err(keys.bad(
            "the text model's tokenizer has no tokens for pictures and sound: give --tokenizer DIR, the directory of the model's tokenizer.json".to_owned(),
        ));
    };
    let ids = [
        ("boi_token_id", image.start),
        ("image_token_id", image.soft),
        ("eoi_token_id", image.end),
        ("boa_token_id", audio.start),
        ("audio_token_id", audio.soft),
        ("eoa_token_id", audio.end),
    ];
    let film = control.video.map(|id| ("video_token_id", id));
    let mut last = 0;
    for (key, id) in ids.into_iter().chain(film) {
        last = last.max(id);
        if top.get(key).is_none_or(Value::is_null) {
            top[key] = id.into();
        }
    }
    Ok(last)
}

/// `processor_config.json` for a model that has none: as everything is done here, and as the released models ask.
pub(super) fn processor(keys: Keys<'_>, family: Family, spec: &Spec) -> Result<Value, PackError> {
    let mut processor = json!({});
    if let Some(pictures) = &spec.pictures {
        let mut image = pictures.processor.clone();
        if family == Family::Gemma3n {
            let side = keys.size(Group::Vision, "image_size")?;
            image["size"] = json!({"height": side, "width": side});
        }
        processor["image_processor"] = image;
    }
    if let Some(audio) = &spec.audio {
        processor["feature_extractor"] = audio.processor.clone();
    }
    Ok(processor)
}
