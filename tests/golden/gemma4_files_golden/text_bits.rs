//! What a pack holds of a file, to the bit: integers and scales of blocks, and what the reference made of them.

use std::path::Path;

use super::{FILES, pack_of};
use crate::common::gguf::{self, Gguf, Q4_0, Q8_0, Tensor};
use crate::common::{Golden, fixtures_gemma4_gguf};
use gemmad::model::decoder::LayerShape;
use gemmad::model::family;
use gemmad::pack::Recipe;
use half::f16;
use safetensors::SafeTensors;

const TEXT: &str = "model.language_model.";

/// Names in a layer, of the matrices.
const MATRICES: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// What a canonical matrix is called in a file of llama.cpp.
fn in_gguf(name: &str) -> Option<String> {
    let name = name.strip_prefix(TEXT)?.strip_suffix(".weight")?;
    match name {
        "embed_tokens" => return Some("token_embd.weight".to_owned()),
        "embed_tokens_per_layer" => return Some("per_layer_token_embd.weight".to_owned()),
        _ => {}
    }
    let (layer, leaf) = name.strip_prefix("layers.")?.split_once('.')?;
    let (_, gguf) = MATRICES.iter().find(|(ours, _)| *ours == leaf)?;
    Some(format!("blk.{layer}.{gguf}.weight"))
}

/// The integers `[rows, cols]` and scales `[rows, cols / 32]` of a pack's tensor, from its bytes as docs of `kernels::quant` lay them out.
fn stored(format: &str, bytes: &[u8]) -> (Vec<i8>, Vec<f16>) {
    let mut words = format.split(' ');
    let kind = words.next().unwrap();
    let mut size = || words.next().unwrap().parse::<usize>().unwrap();
    let (rows, cols) = (size(), size());
    let (bits, unit_rows) = match kind {
        "q4_tiled" => (4, 16),
        "q8_tiled" => (8, 16),
        "q4_rows" => (4, 1),
        "q8_rows" => (8, 1),
        other => panic!("{other}"),
    };
    let groups = cols / 32;
    let group_bytes = unit_rows * 4 * bits;
    // A tile has the scales of two groups, and then these groups; a row all groups, and then their scales.
    let is_tiled = unit_rows > 1;
    let pair_bytes = 64 + 2 * group_bytes;
    let unit_bytes = match is_tiled {
        true => groups.div_ceil(2) * pair_bytes,
        false => (groups * (group_bytes + 2)).next_multiple_of(64),
    };
    let (mut integers, mut scales) = (Vec::new(), Vec::new());
    for row in 0..rows {
        let (unit, row) = (&bytes[row / unit_rows * unit_bytes..], row % unit_rows);
        for group in 0..groups {
            let (pair, second) = (group / 2 * pair_bytes, group % 2);
            let (scale, first) = match is_tiled {
                true => (
                    pair + 32 * second + 2 * row,
                    pair + 64 + second * group_bytes,
                ),
                false => (groups * group_bytes + 2 * group, group * group_bytes),
            };
            scales.push(f16::from_le_bytes([unit[scale], unit[scale + 1]]));
            let unit = &unit[first..];
            integers.extend((0..32).map(|k| match (bits, unit_rows) {
                (4, 16) => {
                    let byte = unit[k / 8 * 64 + 4 * row + k % 4];
                    (byte >> (k / 4 % 2 * 4) & 15) as i8 - 8
                }
                (8, 16) => unit[k / 4 * 64 + 4 * row + k % 4] as i8,
                (4, _) => (unit[k % 16] >> (k / 16 * 4) & 15) as i8 - 8,
                _ => unit[k] as i8,
            }));
        }
    }
    (integers, scales)
}

/// Every tensor of a pack that has the bits which the file has for it; gives how many of each type.
fn compare(file: &Gguf, pack: &Path) -> [usize; 2] {
    let mut compared = [0, 0];
    for group in ["text", "ple"] {
        let bytes = std::fs::read(pack.join(format!("{group}.safetensors"))).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, format) in header.metadata().as_ref().unwrap() {
            let theirs = in_gguf(name);
            let theirs = theirs.and_then(|name| file.tensors.iter().find(|t| t.name == name));
            let Some(theirs) = theirs else { continue };
            let kind = [(Q4_0, "q4_"), (Q8_0, "q8_")];
            let kind = kind
                .iter()
                .position(|(kind, bits)| theirs.kind == *kind && format.starts_with(bits));
            // Two planes are another sum of the same weights.
            let is_split = name.ends_with("embed_tokens.weight") && format.starts_with("q4_");
            let Some(kind) = kind.filter(|_| !is_split || theirs.kind == Q4_0) else {
                continue;
            };
            let ours = stored(format, tensors.tensor(name).unwrap().data());
            assert!(ours == gguf::blocks(theirs), "{name} in {format}");
            compared[kind] += 1;
        }
    }
    compared
}

/// How many blocks of 4 and of 8 bits a recipe stores in as many bits, of the tensors that the model reads.
fn expected(file: &Gguf, recipe: Recipe, layers: &[LayerShape]) -> [usize; 2] {
    let mut counts = [0, 0];
    for tensor in &file.tensors {
        let name = tensor.name.strip_suffix(".weight").unwrap();
        let (layer, leaf) = match name.strip_prefix("blk.") {
            Some(rest) => rest.split_once('.').unwrap(),
            None => ("", name),
        };
        let is_shared = layer
            .parse()
            .is_ok_and(|layer: usize| layers[layer].kv_of.is_some());
        let is_ffn = leaf.starts_with("ffn_");
        let is_attention = MATRICES.iter().any(|(_, name)| *name == leaf) && !is_ffn;
        let is_table = leaf == "per_layer_token_embd";
        if is_shared && ["attn_k", "attn_v"].contains(&leaf) {
            continue;
        }
        let (four, eight) = match recipe {
            Recipe::Q4_0 => (is_ffn || is_attention, is_table),
            Recipe::Balanced => (is_ffn, is_attention || is_table),
            Recipe::Small => (is_ffn || is_attention, false),
            _ => (
                false,
                is_ffn || is_attention || is_table || leaf == "token_embd",
            ),
        };
        counts[0] += usize::from(tensor.kind == Q4_0 && four);
        counts[1] += usize::from(tensor.kind == Q8_0 && eight);
    }
    counts
}

#[test]
fn blocks_of_the_file_are_those_of_the_pack() {
    let mut all = 0;
    for file in FILES {
        let gguf = Gguf::read(&fixtures_gemma4_gguf().join(file));
        for recipe in [Recipe::Q4_0, Recipe::Balanced, Recipe::Q8, Recipe::Small] {
            let dir = tempfile::tempdir().unwrap();
            let pack = pack_of(file, recipe, dir.path());
            let layers = family::load(&pack).unwrap().spec().layers.clone();
            let compared = compare(&gguf, &pack);
            println!("{file} {recipe:?}: {compared:?}");
            let expected = expected(&gguf, recipe, &layers);
            assert_eq!(compared, expected, "{file} {recipe:?}");
            all += compared[0] + compared[1];
        }
    }
    assert!(all > 0);
}

/// The first rows of four tensors, as the reference had them.
#[test]
fn weights_are_those_of_the_reference() {
    let golden = Golden::of(&fixtures_gemma4_gguf(), "text");
    let names = [
        "layers.5.mlp.down_proj.weight",
        "layers.0.self_attn.q_proj.weight",
        "embed_tokens.weight",
        "embed_tokens_per_layer.weight",
    ];
    let mut compared = 0;
    for file in FILES {
        let dir = tempfile::tempdir().unwrap();
        let pack = pack_of(file, Recipe::Float, dir.path());
        let mut gguf = Gguf::read(&fixtures_gemma4_gguf().join(file));
        for group in ["text", "ple"] {
            let bytes = std::fs::read(pack.join(format!("{group}.safetensors"))).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            for name in names {
                let Ok(tensor) = tensors.tensor(&format!("{TEXT}{name}")) else {
                    continue;
                };
                let (want, _) = golden.f32(&format!("dequantised.{name}"));
                let ours = Tensor {
                    name: name.to_owned(),
                    shape: tensor.shape().to_vec(),
                    kind: match tensor.dtype() {
                        safetensors::Dtype::F32 => gguf::F32,
                        _ => gguf::BF16,
                    },
                    data: tensor.data().to_vec(),
                };
                let ours = gguf::values(&ours);
                assert!(ours[..want.len()] == want, "{file} {name}");
                let theirs = in_gguf(&format!("{TEXT}{name}")).unwrap();
                assert!(gguf::values(gguf.tensor(&theirs)) == ours, "{file} {name}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 2 * names.len());
}
