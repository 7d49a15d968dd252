//! `gemmad pack` and `gemmad inspect --verify` as a user runs them, and what stands in the files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use half::bf16;
use kernels::quant::{Format, Quantized, dequantize_row};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

fn gemmad(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gemmad").unwrap();
    command.args(arguments);
    command
}

/// What is compared here are the dimensions of this set, whichever one the goldens are taken from.
fn tiny_a() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a")
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn pack(from: &Path, to: &Path, more: &[&str]) -> Command {
    let mut command = gemmad(&["pack", "--from"]);
    command.arg(from).arg("--to").arg(to).args(more);
    command
}

fn packed(from: &Path, recipe: &str) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("model.pack");
    pack(from, &to, &["--recipe", recipe]).assert().success();
    (home, to)
}

/// Runs a command that must fail with `code` and gives its one line of explanation.
fn complaint(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// A copy of a checkpoint that a test may spoil.
fn copy_of(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut json);
    std::fs::write(path, json.to_string()).unwrap();
}

struct Plain {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Every tensor of the source, by the library that writes the published files.
fn source_tensors(dir: &Path) -> BTreeMap<String, Plain> {
    let mut tensors = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let plain = Plain {
                    shape: view.shape().to_vec(),
                    bytes: view.data().to_vec(),
                };
                tensors.insert(name, plain);
            }
        }
    }
    tensors
}

fn widened(bytes: &[u8]) -> Vec<f32> {
    let pairs = bytes.as_chunks::<2>().0;
    pairs
        .iter()
        .map(|&b| bf16::from_le_bytes(b).to_f32())
        .collect()
}

/// A pack's file: tensors by name, and what its header says of the quantised ones.
struct PackFile {
    tensors: BTreeMap<String, Plain>,
    formats: BTreeMap<String, String>,
}

fn read_pack_file(path: &Path) -> PackFile {
    let bytes = std::fs::read(path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let start = header + 8 + metadata.info(&name).unwrap().data_offsets.0;
        if !name.starts_with("padding.") {
            assert_eq!(start % 64, 0, "{name}: kernels read it in place");
            let plain = Plain {
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            tensors.insert(name, plain);
        }
    }
    PackFile {
        tensors,
        formats: metadata
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect(),
    }
}

/// The matrix `[rows, cols]` that a quantised tensor stands for, and whether it has 4 bit.
fn dequantized(tensor: &Plain, format: &str) -> (Vec<f32>, usize, usize, bool) {
    let words: Vec<&str> = format.split(' ').collect();
    let (rows, cols): (usize, usize) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let (format, by_column) = match words[0] {
        "q4_tiled" => (Format::Q4Tiled, false),
        "q8_tiled" => (Format::Q8Tiled, false),
        "q4_rows" => (Format::Q4Rows, false),
        "q8_rows" => (Format::Q8Rows, false),
        "q4_columns" => (Format::Q4Rows, true),
        "q8_columns" => (Format::Q8Rows, true),
        other => panic!("{other}"),
    };
    let (stored_rows, stored_cols) = if by_column {
        (cols, rows)
    } else {
        (rows, cols)
    };
    let blocks = Quantized::new(format, &tensor.bytes, stored_rows, stored_cols).unwrap();
    let mut stored = vec![0.0; stored_rows * stored_cols];
    for (row, out) in stored.chunks_exact_mut(stored_cols).enumerate() {
        dequantize_row(blocks, row, out);
    }
    let mut matrix = vec![0.0; rows * cols];
    for row in 0..rows {
        for col in 0..cols {
            matrix[row * cols + col] = if by_column {
                stored[col * stored_cols + row]
            } else {
                stored[row * stored_cols + col]
            };
        }
    }
    (matrix, rows, cols, format.bits() == 4)
}

fn relative_rms_error(got: &[f32], want: &[f32]) -> f32 {
    let sum = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x * x)).sum::<f64>();
    let error = sum(&mut got.iter().zip(want).map(|(a, b)| a - b));
    (error / sum(&mut want.iter().copied())).sqrt() as f32
}

/// Compares every tensor of the pack with the source and returns the formats of those that are quantised.
fn compare(from: &Path, to: &Path) -> BTreeMap<String, String> {
    let source = source_tensors(from);
    let mut all_formats = BTreeMap::new();
    let mut compared = 0;
    for group in ["text", "ple", "audio", "vision"] {
        let file = read_pack_file(&to.join(format!("{group}.safetensors")));
        for (name, tensor) in &file.tensors {
            if name.contains(".residual") {
                continue;
            }
            let Some(format) = file.formats.get(name) else {
                assert_eq!(tensor.shape, source[name].shape, "{name}");
                assert_eq!(tensor.bytes, source[name].bytes, "{name}: number by number");
                compared += 1;
                continue;
            };
            // A segment of columns has its number behind the name; those before it come first.
            let (base, segment) = match name.rsplit_once('.') {
                Some((base, number)) if number.parse::<usize>().is_ok() => {
                    (base, number.parse::<usize>().unwrap())
                }
                _ => (name.as_str(), 0),
            };
            let whole = &source[base];
            let cols_of = |i| {
                let format: &String = &file.formats[&format!("{base}.{i}")];
                format.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
            };
            let first_col: usize = (0..segment).map(cols_of).sum();
            let (got, rows, cols, is_q4) = dequantized(tensor, format);
            let whole_cols = whole.shape[1..].iter().product::<usize>();
            let weights = widened(&whole.bytes);
            let want: Vec<f32> = (0..rows)
                .flat_map(|row| &weights[row * whole_cols + first_col..][..cols])
                .copied()
                .collect();
            // Of normal weights in groups of 32: 8 bit leave 0.4 % of the root mean square, 4 bit 9 %.
            let limit = if is_q4 { 0.12 } else { 0.008 };
            let error = relative_rms_error(&got, &want);
            assert!(error < limit, "{name}: {error}");
            compared += 1;
            let second = format!("{TEXT}embed_tokens.residual");
            if let (true, Some(residual)) =
                (name.contains("embed_tokens."), file.tensors.get(&second))
            {
                let (lifts, ..) = dequantized(residual, &file.formats[&second]);
                let both: Vec<f32> = got.iter().zip(&lifts).map(|(a, b)| a + b).collect();
                let error = relative_rms_error(&both, &want);
                assert!(error < 0.01, "both planes: {error}");
                let peaks = widened(&file.tensors[&format!("{second}_peaks")].bytes);
                for (lifts, peak) in lifts.chunks_exact(cols).zip(peaks) {
                    let mean_square = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>() / 32.0;
                    let most = lifts.chunks(32).map(mean_square).fold(0.0, f32::max).sqrt();
                    assert!(most <= 1.02 * peak && peak < 1.1 * most, "{most} {peak}");
                }
            }
        }
        all_formats.extend(file.formats);
    }
    assert!(compared > 300, "{compared} tensors");
    all_formats
}

const TEXT: &str = "model.language_model.";

/// Tensors of the towers and how every recipe stores them.
const TOWERS: &[(&str, Option<&str>)] = &[
    (
        "audio_tower.conformer.0.ffw_layer_end.ffw_layer_2",
        Some("q8_tiled 64 256"),
    ),
    (
        "audio_tower.conformer.0.attention.post",
        Some("q8_tiled 64 64"),
    ),
    (
        "audio_tower.conformer.0.lconv1d.depthwise_conv1d",
        Some("q8_columns 64 5"),
    ),
    (
        "vision_tower.timm_model.blocks.0.0.conv_exp",
        Some("q8_tiled 64 144"),
    ),
    (
        "vision_tower.timm_model.msfa.ffn.pw_exp.conv",
        Some("q8_tiled 160 80"),
    ),
    (
        "vision_tower.timm_model.blocks.1.0.dw_mid.conv",
        Some("q8_columns 96 25"),
    ),
    (
        "embed_vision.embedding_projection",
        Some("q8_tiled 64 2048"),
    ),
    ("embed_vision.embedding", None),
];

#[test]
fn every_tensor_is_that_of_the_source() {
    for (recipe, ffn, attention, head, table) in [
        ("q8", 8, 8, 8, 8),
        ("balanced", 4, 8, 4, 8),
        ("small", 4, 4, 4, 4),
    ] {
        let (_home, to) = packed(&tiny_a(), recipe);
        let formats = compare(&tiny_a(), &to);
        let format = |leaf: &str| formats.get(&format!("{TEXT}{leaf}")).map(String::as_str);
        let expect = |leaf: &str, bits: usize, rest: &str| {
            assert_eq!(
                format(leaf),
                Some(format!("q{bits}_{rest}").as_str()),
                "{recipe} {leaf}"
            );
        };
        // tiny-a: layers 0 to 3 are sparse, layers 5 to 14 share K and V; 2048 of 2080 rows are text.
        expect("embed_tokens.weight", head, "tiled 2048 64");
        assert_eq!(
            format("embed_tokens.residual"),
            (recipe == "balanced").then_some("q4_rows 2048 64")
        );
        expect("embed_tokens_per_layer.weight", table, "rows 2048 240");
        expect("layers.0.mlp.gate_proj.weight", ffn, "tiled 256 64");
        expect("layers.0.mlp.up_proj.weight", ffn, "rows 256 64");
        expect("layers.0.mlp.down_proj.weight", ffn, "columns 64 256");
        expect("layers.4.mlp.up_proj.weight", ffn, "tiled 256 64");
        expect("layers.4.mlp.down_proj.weight", ffn, "tiled 64 256");
        expect("layers.4.self_attn.k_proj.weight", attention, "tiled 64 64");
        expect(
            "layers.5.self_attn.q_proj.weight",
            attention,
            "tiled 128 64",
        );
        expect("layers.5.laurel.linear_right.weight", 8, "tiled 64 8");
        expect("altup_projections.2.weight", 8, "tiled 64 64");
        for (leaf, stored) in TOWERS {
            let format = formats.get(&format!("model.{leaf}.weight"));
            assert_eq!(format.map(String::as_str), *stored, "{recipe} {leaf}");
        }
        assert_eq!(
            format("layers.5.self_attn.k_proj.weight"),
            None,
            "nothing reads it"
        );
        assert_eq!(
            format("layers.0.altup.modality_router.weight"),
            None,
            "as in the source"
        );
    }
}

#[test]
fn dense_layers_are_cut_where_slices_end() {
    let (_home, to) = packed(&demo(), "q8");
    let formats = compare(&demo(), &to);
    let config: Value =
        serde_json::from_slice(&std::fs::read(demo().join("config.json")).unwrap()).unwrap();
    let full = config["text_config"]["intermediate_size"][0]
        .as_u64()
        .unwrap();
    let cols = |name: String| {
        formats[&name]
            .rsplit(' ')
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let dense = config["text_config"]["activation_sparsity_pattern"]
        .as_array()
        .unwrap()
        .iter()
        .position(|share| share.as_f64() == Some(0.0))
        .unwrap();
    let name = format!("{TEXT}layers.{dense}.mlp.down_proj.weight");
    assert_eq!(
        cols(format!("{name}.0")),
        full / 2,
        "slices.toml names a half"
    );
    assert_eq!(cols(format!("{name}.1")), full / 2);
    assert!(!formats.contains_key(&name));
}

#[test]
fn a_slice_that_cuts_a_group_is_refused() {
    let from = copy_of(&tiny_a());
    std::fs::write(
        from.path().join("slices.toml"),
        "[odd]\nintermediate_size = 40\n",
    )
    .unwrap();
    let home = tempfile::tempdir().unwrap();
    let text = complaint(pack(from.path(), &home.path().join("a.pack"), &[]), 65);
    assert!(
        text.contains("\"odd\"") && text.contains("multiples of 32"),
        "{text}"
    );
}

#[test]
fn the_manifest_has_every_file_and_the_companions_are_copied() {
    let (_home, to) = packed(&tiny_a(), "balanced");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(to.join("pack.json")).unwrap()).unwrap();
    assert_eq!(manifest["format"], "gemmad-pack");
    assert_eq!(manifest["version"], 3);
    assert_eq!(manifest["recipe"], "balanced");
    let files = manifest["files"].as_object().unwrap();
    for entry in std::fs::read_dir(&to).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "pack.json" {
            continue;
        }
        // A second opinion on the hash.
        let sum = std::process::Command::new("sha256sum")
            .arg(&path)
            .output()
            .unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        assert_eq!(
            files[name]["sha256"],
            sum.split(' ').next().unwrap(),
            "{name}"
        );
        assert_eq!(
            files[name]["bytes"],
            path.metadata().unwrap().len(),
            "{name}"
        );
        if !name.ends_with(".safetensors") {
            let original = std::fs::read(tiny_a().join(name)).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), original, "{name}");
        }
    }
    assert_eq!(files.len(), 11);
    gemmad(&["inspect", "--verify", "--model"])
        .arg(&to)
        .assert()
        .success();
}

#[test]
fn verification_names_the_file_that_differs() {
    let (_home, to) = packed(&tiny_a(), "small");
    let inspect = || {
        let mut command = gemmad(&["inspect", "--verify", "--model"]);
        command.arg(&to);
        command
    };
    let path = to.join("audio.safetensors");
    let sound = std::fs::read(&path).unwrap();
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&path, flipped).unwrap();
    let text = complaint(inspect(), 65);
    assert!(
        text.contains("audio.safetensors has other contents"),
        "{text}"
    );
    assert!(
        text.contains("gemmad pack") && !text.contains("text.safetensors"),
        "{text}"
    );

    std::fs::write(&path, &sound[..sound.len() - 1]).unwrap();
    let text = complaint(inspect(), 65);
    assert!(
        text.contains("audio.safetensors has") && text.contains("instead of"),
        "{text}"
    );
    // Also without --verify: sizes cost nothing to check.
    let mut plain = gemmad(&["inspect", "--model"]);
    plain.arg(&to);
    let text = complaint(plain, 65);
    assert!(text.contains("audio.safetensors"), "{text}");

    std::fs::remove_file(&path).unwrap();
    let text = complaint(inspect(), 65);
    assert!(text.contains("audio.safetensors is missing"), "{text}");

    let mut checkpoint = gemmad(&["inspect", "--verify", "--model"]);
    checkpoint.arg(tiny_a());
    assert!(complaint(checkpoint, 64).contains("no pack"));
}

#[test]
fn a_newer_pack_is_refused() {
    let (_home, to) = packed(&tiny_a(), "small");
    edit_json(&to.join("pack.json"), |json| json["version"] = 4.into());
    let mut inspect = gemmad(&["inspect", "--model"]);
    inspect.arg(&to);
    let text = complaint(inspect, 65);
    assert!(
        text.contains("version 4 is newer") && text.contains("update gemmad"),
        "{text}"
    );
}

#[test]
fn an_older_pack_is_refused() {
    let (_home, to) = packed(&tiny_a(), "q8");
    edit_json(&to.join("pack.json"), |json| json["version"] = 2.into());
    let mut ask = gemmad(&["ask", "--max-tokens", "2", "--model"]);
    ask.arg(&to).arg("Hello.");
    let text = complaint(ask, 65);
    assert!(
        text.contains("version 2 is laid out otherwise") && text.contains("make the pack again"),
        "{text}"
    );
}

#[test]
fn a_second_plane_that_does_not_fit_is_refused() {
    let (_home, to) = packed(&tiny_a(), "balanced");
    let file = to.join("text.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    // Of the same length: a header says how long it is.
    for (says, lies, complaint_about) in [
        ("q4_rows 2048 64", "q4_rows 2048 63", "has shape [2048, 63]"),
        (
            "residual_peaks",
            "residual_peakz",
            "residual_peaks is in none of the files",
        ),
    ] {
        let mut lying = bytes.clone();
        let places = (0..header).filter(|&at| bytes[at..].starts_with(says.as_bytes()));
        for at in places {
            lying[at..at + lies.len()].copy_from_slice(lies.as_bytes());
        }
        std::fs::write(&file, &lying).unwrap();
        let mut ask = gemmad(&["ask", "--model"]);
        ask.arg(&to).arg("Hello.");
        let text = complaint(ask, 65);
        assert!(text.contains(complaint_about), "{text}");
    }
}

#[test]
fn a_source_that_is_not_whole_is_refused_before_anything_is_written() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    for (key, value, complaint_about) in [
        (
            "altup_num_inputs",
            5,
            "altup_projections.3.weight is missing",
        ),
        (
            "laurel_rank",
            9,
            "laurel.linear_left.weight has shape [8, 64]",
        ),
    ] {
        let from = copy_of(&tiny_a());
        edit_json(&from.path().join("config.json"), |json| {
            json["text_config"][key] = value.into();
        });
        let text = complaint(pack(from.path(), &to, &[]), 65);
        assert!(text.contains(complaint_about), "{text}");
    }
    let (_packed_home, packed) = packed(&tiny_a(), "small");
    let text = complaint(pack(&packed, &to, &[]), 64);
    assert!(text.contains("is a pack already"), "{text}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_weight_that_is_no_number_is_found() {
    let from = copy_of(&tiny_a());
    let name = "model.language_model.layers.1.mlp.down_proj.weight";
    let shard = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    .map(|file| from.path().join(file))
    .into_iter()
    .find(|path| {
        let bytes = std::fs::read(path).unwrap();
        SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensor(name)
            .is_ok()
    })
    .unwrap();
    let mut bytes = std::fs::read(&shard).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let start = header + 8 + metadata.info(name).unwrap().data_offsets.0;
    // Row 3, column 200 of 256: stored by column, so the quantiser meets it turned.
    let at = start + (3 * 256 + 200) * 2;
    bytes[at..at + 2].copy_from_slice(&bf16::INFINITY.to_le_bytes());
    std::fs::write(&shard, bytes).unwrap();
    let home = tempfile::tempdir().unwrap();
    let text = complaint(pack(from.path(), &home.path().join("a.pack"), &[]), 65);
    assert!(
        text.contains(name) && text.contains("row 3, column 200"),
        "{text}"
    );
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        0,
        "nothing is left"
    );
}

#[test]
fn only_a_pack_is_replaced_and_only_by_force() {
    let (home, to) = packed(&tiny_a(), "small");
    let text = complaint(pack(&tiny_a(), &to, &[]), 64);
    assert!(
        text.contains("exists") && text.contains("--force"),
        "{text}"
    );
    pack(&tiny_a(), &to, &["--recipe", "q8", "--force"])
        .assert()
        .success();
    let manifest = std::fs::read_to_string(to.join("pack.json")).unwrap();
    assert!(manifest.contains("\"q8\""), "{manifest}");
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        1,
        "the old one is gone"
    );

    let other = home.path().join("precious");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("letters"), "dear").unwrap();
    let text = complaint(pack(&tiny_a(), &other, &["--force"]), 64);
    assert!(text.contains("is no pack"), "{text}");
    assert!(other.join("letters").exists());
}

#[test]
fn two_runs_do_not_write_the_same_pack() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let partial = home.path().join("a.pack.partial");
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("text.safetensors"), "of the other run").unwrap();
    let lock = std::fs::File::open(&partial).unwrap();
    lock.lock().unwrap();
    let text = complaint(pack(&tiny_a(), &to, &[]), 64);
    assert!(text.contains("another gemmad writes"), "{text}");
    assert!(partial.join("text.safetensors").exists());
    drop(lock);
    pack(&tiny_a(), &to, &[]).assert().success();
    assert!(!partial.exists());
}

/// Runs `gemmad pack` with a limit on the size of files, in blocks of 512 bytes: writing beyond it fails, or (where the
/// signal is not ignored) kills the process on the spot.
fn pack_with_limit(to: &Path, blocks: u32, ignore: &str) -> std::process::Output {
    let script = format!("{ignore} ulimit -f {blocks}; exec \"$0\" pack --from \"$1\" --to \"$2\"");
    std::process::Command::new("sh")
        .args(["-c", &script, env!("CARGO_BIN_EXE_gemmad")])
        .arg(tiny_a())
        .arg(to)
        .output()
        .unwrap()
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let mut files = std::collections::BTreeSet::new();
    for blocks in [1, 20, 100, 300, 600] {
        let output = pack_with_limit(&to, blocks, "trap '' XFSZ;");
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(74), "{text}");
        assert!(
            text.contains("cannot write") && text.contains("free some space"),
            "{text}"
        );
        let file = text
            .split("a.pack.partial/")
            .nth(1)
            .unwrap()
            .split(':')
            .next()
            .unwrap();
        files.insert(file.to_owned());
        assert_eq!(
            std::fs::read_dir(home.path()).unwrap().count(),
            0,
            "nothing is left"
        );
    }
    assert!(files.len() > 2, "different files met the limit: {files:?}");
}

#[test]
fn a_killed_run_is_simply_repeated() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let output = pack_with_limit(&to, 300, "");
    assert_eq!(
        output.status.code(),
        None,
        "killed by a signal, without a chance to clean up"
    );
    assert!(home.path().join("a.pack.partial").exists());
    assert!(!to.exists(), "nothing half-written can be loaded");
    pack(&tiny_a(), &to, &[]).assert().success();
    gemmad(&["inspect", "--verify", "--model"])
        .arg(&to)
        .assert()
        .success();
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        1,
        "what it left is gone"
    );
}

fn gguf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/gguf")
        .join(name)
}

/// tiny-a's text model through llama.cpp's format: its BF16 matrices give the very bytes that the checkpoint gives.
#[test]
fn a_gguf_gives_the_pack_of_its_checkpoint() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a");
    let (_from_dir, ours) = packed(&tiny, "q8");
    let (_from_gguf, theirs) = packed(&gguf("tiny-a.gguf"), "q8");
    gemmad(&["inspect", "--verify", "--model"])
        .arg(&theirs)
        .assert()
        .success();
    for group in ["text", "ple"] {
        let file = format!("{group}.safetensors");
        let (ours, theirs) = (
            read_pack_file(&ours.join(&file)),
            read_pack_file(&theirs.join(&file)),
        );
        assert_eq!(ours.formats, theirs.formats);
        for (name, tensor) in &ours.tensors {
            let other = &theirs.tensors[name];
            let Some(format) = ours.formats.get(name) else {
                let single = |tensor: &Plain| match tensor.bytes.len()
                    / tensor.shape.iter().product::<usize>()
                {
                    2 => widened(&tensor.bytes),
                    _ => bytemuck::pod_collect_to_vec::<u8, f32>(&tensor.bytes),
                };
                assert_eq!(single(tensor), single(other), "{name}");
                continue;
            };
            let layer = name.split('.').nth(3).and_then(|n| n.parse::<usize>().ok());
            let ggml_blocks = name.contains(".mlp.") || name.contains(".self_attn.");
            let limit = match layer {
                Some(5..) if ggml_blocks => 0.15, // Q4_0 of the gguf package, by the maximum
                Some(3..) if ggml_blocks => 0.012, // 8 bit twice
                _ => {
                    assert_eq!(tensor.bytes, other.bytes, "{name}");
                    continue;
                }
            };
            let error = relative_rms_error(
                &dequantized(other, format).0,
                &dequantized(tensor, format).0,
            );
            assert!(error < limit, "{name}: {error}");
        }
    }
    use gemmad::model::gemma3n::config::Config;
    let (mut ours, theirs) = (Config::load(&ours).unwrap(), Config::load(&theirs).unwrap());
    // The file has no key for a second RoPE base and none for media ids.
    ours.text.vocab_size = theirs.text.vocab_size;
    assert_eq!(ours.text, theirs.text);
    assert_eq!(ours.ids.eos, theirs.ids.eos);
    assert!(theirs.audio.is_none() && theirs.vision.is_none());
}

#[test]
fn a_gguf_brings_its_tokenizer() {
    use gemmad::model::tokenizer::Tokenizer;
    let (_home, to) = packed(&gguf("tiny-a.gguf"), "small");
    let tokenizer = Tokenizer::load(&to).unwrap();
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-a");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(tiny.join("golden/manifest.json")).unwrap()).unwrap();
    let cases = manifest["tokenizer_cases"].as_array().unwrap();
    assert!(cases.len() > 5);
    for case in cases {
        let ids: Vec<u64> = tokenizer
            .encode(case["text"].as_str().unwrap())
            .into_iter()
            .map(u64::from)
            .collect();
        let want: Vec<u64> = case["ids_no_bos"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_u64().unwrap())
            .collect();
        assert_eq!(ids, want, "{}", case["text"]);
    }
    // Or a tokenizer of its own.
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    pack(&gguf("tiny-a.gguf"), &to, &["--tokenizer"])
        .arg(&tiny)
        .assert()
        .success();
    let (own, given) = (to.join("tokenizer.json"), tiny.join("tokenizer.json"));
    assert_eq!(std::fs::read(own).unwrap(), std::fs::read(given).unwrap());
}

#[test]
fn a_gguf_of_another_kind_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (home.path().join("other.gguf"), home.path().join("a.pack"));
    let refuse = |bytes: &[u8]| {
        std::fs::write(&from, bytes).unwrap();
        complaint(pack(&from, &to, &[]), 65)
    };
    let mut bytes = std::fs::read(gguf("tiny-a.gguf")).unwrap();
    let text = refuse(&bytes[..bytes.len() - 1]);
    assert!(text.contains("truncated"), "{text}");
    let key = b"general.architecture";
    let at = bytes
        .windows(key.len())
        .position(|window| window == key)
        .unwrap()
        + key.len()
        + 12;
    assert_eq!(&bytes[at..at + 7], b"gemma3n");
    bytes[at..at + 7].copy_from_slice(b"llama4x");
    let text = refuse(&bytes);
    assert!(
        text.contains("\"llama4x\"") && text.contains("Gemma 3n"),
        "{text}"
    );
    assert!(refuse(b"not a model at all, but long enough for a header").contains("no GGUF file"));
    // blocks.gguf has the architecture and nothing else.
    let text = refuse(&std::fs::read(gguf("blocks.gguf")).unwrap());
    assert!(text.contains("block_count is missing"), "{text}");
    assert!(!to.exists());
}
