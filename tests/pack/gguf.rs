//! Files of llama.cpp of a Gemma 4: which recipe they get, what of them stays as it is, files in parts, and stacked matrices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use half::bf16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::common::gguf::{BF16, Gguf, Q4_0, Q8_0, Tensor, text_value, u16_value};
use crate::common::gguf::{blocks, q4_0, u32_value, values};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// The layout of the files of trained 4 bits.
fn file() -> Gguf {
    Gguf::read(&fixture("tiny-g4a-gguf/text-qat-layout.gguf"))
}

/// Every matrix of the layers in blocks of Q4_0, as in those files, and the tables in this type.
fn trained(table: u32) -> Gguf {
    let mut file = file();
    for tensor in &mut file.tensors {
        let is_table =
            ["token_embd.weight", "per_layer_token_embd.weight"].contains(&tensor.name.as_str());
        let cols = *tensor.shape.last().unwrap();
        if tensor.shape.len() == 1 || !(tensor.name.starts_with("blk.") || is_table) {
            continue;
        }
        let floats = values(tensor);
        let kind = if is_table { table } else { Q4_0 };
        (tensor.kind, tensor.data) = match kind {
            Q4_0 if cols.is_multiple_of(32) => (Q4_0, q4_0(&floats)),
            _ => (BF16, in_bf16(&floats)),
        };
    }
    file
}

fn in_bf16(values: &[f32]) -> Vec<u8> {
    let bytes = values.iter().map(|&x| bf16::from_f32(x).to_le_bytes());
    bytes.flatten().collect()
}

fn pack(from: &Path, to: &Path, more: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gemmad").unwrap();
    command.args(["pack", "--from"]).arg(from);
    command.arg("--to").arg(to).args(more);
    command
}

/// The pack of a source, and what was said of it.
fn packed(from: &Path, more: &[&str]) -> (tempfile::TempDir, PathBuf, String) {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let output = pack(from, &to, more).output().unwrap();
    let [said, warnings] = [output.stdout, output.stderr].map(|x| String::from_utf8(x).unwrap());
    assert!(output.status.success(), "{warnings}");
    (home, to, said + &warnings)
}

fn packed_file(file: &Gguf, more: &[&str]) -> (tempfile::TempDir, PathBuf, String) {
    let home = tempfile::tempdir().unwrap();
    let from = home.path().join("model.gguf");
    file.write(&from);
    packed(&from, more)
}

/// What is wrong with a source, in one line.
fn refused(from: &Path) -> String {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let output = pack(from, &to, &[]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!to.exists());
    text
}

fn refused_file(file: &Gguf) -> String {
    let home = tempfile::tempdir().unwrap();
    let from = home.path().join("model.gguf");
    file.write(&from);
    refused(&from)
}

/// Formats and bytes of the quantised tensors of a pack's text and tables.
fn quantised(pack: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for group in ["text", "ple"] {
        let bytes = std::fs::read(pack.join(format!("{group}.safetensors"))).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, format) in header.metadata().iter().flatten() {
            let data = tensors.tensor(name).unwrap().data().to_vec();
            all.insert(name.clone(), (format.clone(), data));
        }
    }
    all
}

const TEXT: &str = "model.language_model.";

fn format_of(pack: &Path, name: &str) -> Option<String> {
    let mut all = quantised(pack);
    all.remove(&format!("{TEXT}{name}"))
        .map(|(format, _)| format)
}

#[test]
fn trained_blocks_choose_the_recipe_that_keeps_them() {
    let (_home, to, said) = packed_file(&trained(BF16), &[]);
    assert!(
        said.contains("recipe q4_0: the weights were trained"),
        "{said}"
    );
    let format = |name: &str| format_of(&to, name);
    let starts = |name: &str, with: &str| {
        let found = format(name).unwrap();
        assert!(found.starts_with(with), "{name}: {found}");
    };
    starts("layers.0.self_attn.q_proj.weight", "q4_tiled");
    starts("layers.9.mlp.down_proj.weight", "q4_tiled");
    // In blocks as the rest of the layer, or else in 8 bits.
    starts("layers.3.per_layer_input_gate.weight", "q4_tiled");
    starts("per_layer_model_projection.weight", "q8_tiled");
    starts("embed_tokens.weight", "q4_tiled");
    starts("embed_tokens.residual", "q4_rows");
    starts("embed_tokens_per_layer.weight", "q8_rows");
    // Another recipe does as it is told, and says what it spoils.
    for (recipe, warns) in [
        ("balanced", true),
        ("small", true),
        ("q4_0", false),
        ("float", false),
    ] {
        let (_home, to, said) = packed_file(&trained(BF16), &["--recipe", recipe]);
        assert_eq!(
            said.contains("warning: the weights were trained"),
            warns,
            "{said}"
        );
        assert!(said.contains(&format!("recipe {recipe}")), "{said}");
        assert_eq!(quantised(&to).is_empty(), recipe == "float");
    }
    // Some of these blocks are of 8 bits: nothing was trained for 4.
    let (_home, _to, said) = packed_file(&file(), &[]);
    assert!(
        said.contains("recipe balanced") && !said.contains("trained"),
        "{said}"
    );
}

#[test]
fn tables_in_blocks_of_4_bits_stay_as_they_are_in_one_plane() {
    for recipe in ["q4_0", "balanced"] {
        let (_home, to, _) = packed_file(&trained(Q4_0), &["--recipe", recipe]);
        let head = format_of(&to, "embed_tokens.weight").unwrap();
        assert!(head.starts_with("q4_tiled"), "{head}");
        assert_eq!(format_of(&to, "embed_tokens.residual"), None, "{recipe}");
    }
    let (_home, to, _) = packed_file(&trained(Q4_0), &[]);
    let table = format_of(&to, "embed_tokens_per_layer.weight").unwrap();
    assert!(table.starts_with("q4_rows"), "{table}");
}

/// A checkpoint in 16 bits of weights that lie on the grid of Q4_0, and the file that llama.cpp makes of it.
#[test]
fn weights_trained_for_4_bits_give_the_same_pack_in_16() {
    let home = tempfile::tempdir().unwrap();
    let source = fixture("tiny-g4a");
    let mut file = trained(BF16);
    let names = [
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("per_layer_input_gate", "inp_gate"),
        ("per_layer_projection", "proj"),
    ];
    for entry in std::fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        let target = home.path().join(path.file_name().unwrap());
        if path.extension().is_none_or(|kind| kind != "safetensors") {
            if path.is_file() {
                std::fs::copy(&path, target).unwrap();
            }
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let mut data = view.data().to_vec();
            let leaf = name.strip_prefix(&format!("{TEXT}layers."));
            let leaf = leaf.and_then(|rest| rest.strip_suffix(".weight")?.split_once('.'));
            let gguf = leaf.and_then(|(layer, leaf)| {
                let (_, gguf) = names.iter().find(|(ours, _)| *ours == leaf)?;
                let name = format!("blk.{layer}.{gguf}.weight");
                file.tensors.iter_mut().find(|tensor| tensor.name == name)
            });
            // What training leaves: numbers of the grid in BF16; of those llama.cpp makes its blocks.
            if let Some(theirs) = gguf.filter(|theirs| theirs.kind == Q4_0) {
                data = in_bf16(&values(theirs));
                let floats: Vec<f32> = data
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&b| bf16::from_le_bytes(b).to_f32())
                    .collect();
                theirs.data = q4_0(&floats);
            }
            tensors.insert(name, (view.dtype(), view.shape().to_vec(), data));
        }
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        std::fs::write(target, safetensors::serialize(views, None).unwrap()).unwrap();
    }
    // The tables of the file are those of the checkpoint.
    let tables = checkpoint_tables(&source);
    for (name, data) in tables {
        let tensor = file.tensor(&name);
        (tensor.kind, tensor.data) = (BF16, data);
    }
    let (_home, ours, said) = packed(home.path(), &[]);
    assert!(
        said.contains("recipe q4_0: the weights were trained"),
        "{said}"
    );
    assert!(!said.contains("anew"), "{said}");
    let (_home, theirs, _) = packed_file(&file, &[]);
    let (ours, theirs) = (quantised(&ours), quantised(&theirs));
    let mut fours = 0;
    for (name, (format, bytes)) in &ours {
        assert_eq!(theirs[name].0, *format, "{name}");
        assert!(theirs[name].1 == *bytes, "{name}");
        fours += usize::from(name.contains(".layers.") && format.starts_with("q4_tiled"));
    }
    assert_eq!(ours.len(), theirs.len());
    assert!(fours > 50, "{fours} matrices in 4 bits");
    // The checkpoint as it was, of which nothing is on a grid.
    let (_home, _to, said) = packed(&source, &[]);
    assert!(
        said.contains("recipe balanced") && !said.contains("trained"),
        "{said}"
    );
}

/// Tensors outside the layers, by their names in a file of llama.cpp.
fn checkpoint_tables(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = BTreeMap::from([
        ("embed_tokens.weight", "token_embd.weight"),
        (
            "embed_tokens_per_layer.weight",
            "per_layer_token_embd.weight",
        ),
        (
            "per_layer_model_projection.weight",
            "per_layer_model_proj.weight",
        ),
    ]);
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let name = name.strip_prefix(TEXT).and_then(|name| names.get(name));
                if let Some(name) = name {
                    found.insert((*name).to_owned(), view.data().to_vec());
                }
            }
        }
    }
    assert_eq!(found.len(), names.len());
    found
}

#[test]
fn an_integer_that_the_kernels_do_not_take_is_quantised_anew_and_told() {
    let mut file = file();
    let tensor = file.tensor("blk.2.attn_q.weight");
    assert_eq!(tensor.kind, Q8_0);
    tensor.data[2] = i8::MIN as u8;
    let (_home, to, said) = packed_file(&file, &["--recipe", "q8"]);
    let told = "some rows of model.language_model.layers.2.self_attn.q_proj.weight could not be taken over";
    assert!(said.contains(told), "{said}");
    assert!(
        format_of(&to, "layers.2.self_attn.q_proj.weight")
            .unwrap()
            .starts_with("q8_tiled")
    );
    // A scale that is no number.
    let (_, scales) = blocks(file.tensor("blk.3.attn_q.weight"));
    assert!(scales[1].is_finite());
    file.tensor("blk.3.attn_q.weight").data[34..36].copy_from_slice(&[0, 0x7c]);
    let home = tempfile::tempdir().unwrap();
    let from = home.path().join("model.gguf");
    file.write(&from);
    let output = pack(&from, &home.path().join("a.pack"), &["--recipe", "q8"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(65), "{text}");
    assert!(
        text.contains("layers.3.self_attn.q_proj.weight") && text.contains("row 0, column 32"),
        "{text}"
    );
}

/// The file in so many parts, as `llama-gguf-split` makes them, and their names.
fn in_parts(file: &Gguf, count: usize, dir: &Path) -> Vec<PathBuf> {
    let size = file.tensors.len().div_ceil(count);
    let mut paths = Vec::new();
    for (no, tensors) in file.tensors.chunks(size).enumerate() {
        let mut part = Gguf {
            keys: if no == 0 {
                file.keys.clone()
            } else {
                Vec::new()
            },
            tensors: tensors.to_vec(),
        };
        part.set("split.no", &u16_value(no as u16));
        part.set("split.count", &u16_value(count as u16));
        // A number of its own kind, with a sign.
        let total = [
            5_u32.to_le_bytes(),
            (file.tensors.len() as u32).to_le_bytes(),
        ]
        .concat();
        part.set("split.tensors.count", &total);
        let path = dir.join(format!("model-{:05}-of-{count:05}.gguf", no + 1));
        part.write(&path);
        paths.push(path);
    }
    assert_eq!(paths.len(), count);
    paths
}

#[test]
fn a_model_in_parts_is_packed_by_the_name_of_any() {
    let file = file();
    let (_home, whole, _) = packed_file(&file, &["--recipe", "q4_0"]);
    let whole = quantised(&whole);
    let home = tempfile::tempdir().unwrap();
    let parts = in_parts(&file, 3, home.path());
    for part in &parts {
        let (_home, to, _) = packed(part, &["--recipe", "q4_0"]);
        assert!(quantised(&to) == whole, "{}", part.display());
    }
    let names = |text: &str, words: &[&str]| {
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    };
    // One that is missing, whichever was given.
    let third = std::fs::read(&parts[2]).unwrap();
    std::fs::remove_file(&parts[2]).unwrap();
    for part in &parts[..2] {
        names(
            &refused(part),
            &["model-00003-of-00003.gguf", "missing", "download"],
        );
    }
    // One under the name of another.
    std::fs::copy(&parts[1], &parts[2]).unwrap();
    names(
        &refused(&parts[0]),
        &[
            "model-00003-of-00003.gguf",
            "part 3 of 3",
            "says that it is part 2",
        ],
    );
    // Of another model: it has other tensors, or others in number.
    let mut other = Gguf::read(&parts[1]);
    other.set("split.no", &u16_value(2));
    other.write(&parts[2]);
    names(
        &refused(&parts[0]),
        &["model-00003", "in a part before it", "two models"],
    );
    other.tensors.truncate(1);
    other.tensors[0].name = "other.weight".to_owned();
    other.write(&parts[2]);
    names(&refused(&parts[0]), &["tensors", "two models"]);
    std::fs::write(&parts[2], third).unwrap();
    // Under a name that does not say which part it is.
    let renamed = home.path().join("whole.gguf");
    std::fs::copy(&parts[0], &renamed).unwrap();
    names(
        &refused(&renamed),
        &["part 1 of a model in 3 files", "--merge"],
    );
    let (_home, to, _) = packed(&parts[1], &["--recipe", "q4_0"]);
    assert!(quantised(&to) == whole, "whole again");
}

/// One tensor of the rows of several.
fn stacked(file: &mut Gguf, layer: usize, parts: &[&str], name: &str) {
    let mut parts = parts
        .iter()
        .map(|part| format!("blk.{layer}.{part}.weight"));
    let first = file.take(&parts.next().unwrap());
    let mut stack = Tensor {
        name: format!("blk.{layer}.{name}.weight"),
        ..first
    };
    for part in parts {
        let part = file.take(&part);
        assert_eq!((part.kind, part.shape[1]), (stack.kind, stack.shape[1]));
        stack.shape[0] += part.shape[0];
        stack.data.extend(part.data);
    }
    file.tensors.push(stack);
}

#[test]
fn stacked_matrices_are_taken_apart() {
    let file = file();
    let (_home, plain, _) = packed_file(&file, &["--recipe", "q8"]);
    let mut fused = file.clone();
    for layer in 0..10 {
        let own: &[&str] = match layer {
            ..5 => &["attn_q", "attn_k", "attn_v"],
            _ => &["attn_q"],
        };
        stacked(&mut fused, layer, own, "attn_qkv");
        stacked(&mut fused, layer, &["ffn_gate", "ffn_up"], "ffn_gate_up");
    }
    let (_home, to, _) = packed_file(&fused, &["--recipe", "q8"]);
    assert!(quantised(&to) == quantised(&plain));
    let stack = fused.tensor("blk.1.ffn_gate_up.weight");
    stack.shape[0] -= 16;
    stack
        .data
        .truncate(stack.shape[0] * stack.shape[1] / 32 * 18);
    let text = refused_file(&fused);
    assert!(
        text.contains("blk.1.ffn_gate_up.weight") && text.contains("mlp.up_proj"),
        "{text}"
    );
}

#[test]
fn a_head_of_its_own_is_taken_where_it_is_the_embedding_once_more() {
    let mut file = file();
    let head = Tensor {
        name: "output.weight".to_owned(),
        ..file.tensor("token_embd.weight").clone()
    };
    file.tensors.push(head);
    packed_file(&file, &[]);
    file.tensor("output.weight").data[70] ^= 1;
    let text = refused_file(&file);
    assert!(
        text.contains("output.weight") && text.contains("tied"),
        "{text}"
    );
}

#[test]
fn what_a_file_says_of_itself_has_to_fit() {
    let spoiled = |spoil: &dyn Fn(&mut Gguf), words: &[&str]| {
        let mut file = file();
        spoil(&mut file);
        let text = refused_file(&file);
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    };
    let factors =
        |factors: &[f32]| -> Vec<u8> { factors.iter().flat_map(|x| x.to_le_bytes()).collect() };
    spoiled(
        &|file| {
            file.tensor("rope_freqs.weight").data[12..16].copy_from_slice(&2.0_f32.to_le_bytes())
        },
        &["rope_freqs.weight", "stretches"],
    );
    spoiled(
        &|file| {
            let rope = file.tensor("rope_freqs.weight");
            (rope.shape, rope.data) = (vec![8], factors(&[1.0; 8]));
        },
        &["rope_freqs.weight", "[8]", "32 pairs"],
    );
    spoiled(
        &|file| file.set("gemma4.attention.value_length", &u32_value(48)),
        &["gemma4.attention.value_length is 48", "64"],
    );
    spoiled(
        &|file| drop(file.remove("gemma4.attention.sliding_window_pattern")),
        &["gemma4.attention.sliding_window_pattern is missing"],
    );
    spoiled(
        &|file| {
            // A list (9) of numbers with a sign (5): the width of the last layer is another one.
            let mut widths = file.remove("gemma4.feed_forward_length");
            let at = widths.len() - 4;
            widths[at..].copy_from_slice(&96_i32.to_le_bytes());
            file.set("gemma4.feed_forward_length", &widths);
        },
        &["gemma4.feed_forward_length", "twice it"],
    );
    spoiled(
        &|file| file.set("gemma4.embedding_length_per_layer_input", &u32_value(0)),
        &["larger Gemma 4", "E2B and E4B"],
    );
    spoiled(
        &|file| drop(file.take("blk.4.attn_k.weight")),
        &["layers.4.self_attn.k_proj.weight", "missing"],
    );
    spoiled(
        &|file| file.set("general.architecture", &text_value("gemma3")),
        &["Gemma 3 (\"gemma3\")", "Gemma 4 E2B"],
    );
    spoiled(
        &|file| file.tensor("blk.0.attn_norm.weight").shape = vec![48],
        &["layers.0.input_layernorm.weight", "[48]"],
    );
}

/// Widths in a list of equal numbers, and heads of keys in a list.
#[test]
fn keys_that_are_lists_or_numbers_say_the_same() {
    let plain = file();
    let (_home, to, _) = packed_file(&plain, &[]);
    let config = std::fs::read_to_string(to.join("config.json")).unwrap();
    let mut listed = plain.clone();
    let mut heads = [
        &9_u32.to_le_bytes()[..],
        &4_u32.to_le_bytes(),
        &10_u64.to_le_bytes(),
    ]
    .concat();
    heads.extend(1_u32.to_le_bytes().repeat(10));
    listed.set("gemma4.attention.head_count_kv", &heads);
    // Two files' layouts differ in what is not there.
    listed.take("rope_freqs.weight");
    let (_home, to, _) = packed_file(&listed, &[]);
    assert_eq!(
        std::fs::read_to_string(to.join("config.json")).unwrap(),
        config
    );
}

/// Of what lies beside a file a tokenizer of its own tokens is taken, and no other.
#[test]
fn a_tokenizer_beside_the_file_is_taken_if_it_is_of_its_tokens() {
    let home = tempfile::tempdir().unwrap();
    let from = home.path().join("model.gguf");
    std::fs::copy(fixture("tiny-g4a-gguf/text-mixed.gguf"), &from).unwrap();
    let beside = home.path().join("tokenizer.json");
    for (source, is_taken) in [("tiny-g4a", true), ("tiny-a", false)] {
        let source = fixture(source).join("tokenizer.json");
        std::fs::copy(&source, &beside).unwrap();
        let (_home, to, _) = packed(&from, &[]);
        let tokenizer = std::fs::read(to.join("tokenizer.json")).unwrap();
        assert_eq!(tokenizer == std::fs::read(&source).unwrap(), is_taken);
    }
}
