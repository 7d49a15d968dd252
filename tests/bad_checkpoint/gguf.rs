//! GGUF files that are a part of a model, another model, or in types that are not read.

use std::path::Path;

use assert_cmd::Command;

use super::DATA;

/// Keys with their kind and value, and tensors of one dimension with their type, as the file has them.
fn gguf(keys: &[(&str, u32, &[u8])], tensors: &[(&str, u32)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((keys.len() as u64).to_le_bytes());
    for (key, kind, value) in keys {
        file.extend(text(key));
        file.extend(kind.to_le_bytes());
        file.extend(*value);
    }
    for (name, kind) in tensors {
        file.extend(text(name));
        file.extend(1_u32.to_le_bytes());
        file.extend(256_u64.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(0_u64.to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32) + 1024, 0);
    file
}

/// The file is told by its name, and by these words.
#[track_caller]
fn refused(name: &str, file: &[u8], words: &[&str]) {
    refused_in(name, file, &[words, &[name]].concat());
}

/// Likewise, where it may be another file's name.
#[track_caller]
fn refused_in(name: &str, file: &[u8], words: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(name);
    std::fs::write(&path, file).unwrap();
    let output = Command::cargo_bin("gemmad")
        .unwrap()
        .args(["pack", "--from"])
        .arg(&path)
        .arg("--to")
        .arg(home.path().join("a.pack"))
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(DATA), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

const GEMMA: &[u8] = b"\x07\0\0\0\0\0\0\0gemma3n";

#[test]
fn parts_of_a_model_are_told_what_is_missing() {
    let architecture = ("general.architecture", 8, GEMMA);
    let (count, first, second): (_, _, (&str, u32, &[u8])) = (
        ("split.count", 2, &3_u16.to_le_bytes()[..]),
        ("split.no", 2, &0_u16.to_le_bytes()[..]),
        ("split.no", 2, &1_u16.to_le_bytes()),
    );
    let one = gguf(&[architecture, count, first], &[("token_embd.weight", 0)]);
    let two = gguf(&[second, count], &[("blk.9.attn_q.weight", 0)]);
    // The others are not beside it; whichever is given, the first that is not there is told.
    refused_in(
        "a-00001-of-00003.gguf",
        &one,
        &["a-00002-of-00003.gguf", "missing", "in 3 files", "download"],
    );
    refused_in(
        "a-00002-of-00003.gguf",
        &two,
        &["a-00001-of-00003.gguf", "missing", "in 3 files"],
    );
    let advice = "llama-gguf-split --merge";
    let together = [one, two].concat();
    refused("a.gguf", &together, &["part 1 of", "cat", advice]);
    // Of absurdly many.
    let many: (&str, u32, &[u8]) = ("split.count", 2, &u16::MAX.to_le_bytes());
    let many = gguf(&[architecture, many, first], &[]);
    refused(
        "a-00001-of-65535.gguf",
        &many,
        &["one of 65535 parts", "64 are read"],
    );
    // Merged, it says 0: then it is told by what else it lacks.
    let merged = gguf(&[architecture, ("split.count", 2, &[0, 0])], &[]);
    refused("whole.gguf", &merged, &["block_count is missing"]);
}

#[test]
fn types_and_architectures_are_told_by_name() {
    let keys = [("general.architecture", 8, GEMMA)];
    for (number, name) in [
        (3, "Q4_1"),
        (6, "Q5_0"),
        (7, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (24, "I8"),
        (39, "MXFP4"),
        (40, "NVFP4"),
        (99, "99"),
    ] {
        let file = gguf(&keys, &[("blk.0.attn_q.weight", number)]);
        let told = format!("has type {name};");
        refused(
            "a.gguf",
            &file,
            &["blk.0.attn_q.weight", &told, "Q4_K_M.gguf"],
        );
    }
    // What it is comes before the types of its tensors.
    let clip = [("general.architecture", 8, &b"\x04\0\0\0\0\0\0\0clip"[..])];
    refused(
        "mmproj.gguf",
        &gguf(&clip, &[("v.blk", 23)]),
        &["no text model", "--mmproj"],
    );
    let llama = [("general.architecture", 8, &b"\x05\0\0\0\0\0\0\0llama"[..])];
    refused(
        "a.gguf",
        &gguf(&llama, &[("v.blk", 23)]),
        &["\"llama\"", "Gemma 3n"],
    );
    let gemma3 = [("general.architecture", 8, &b"\x06\0\0\0\0\0\0\0gemma3"[..])];
    refused(
        "a.gguf",
        &gguf(&gemma3, &[("v.blk", 2)]),
        &["Gemma 3 (\"gemma3\")", "Gemma 4 E2B", "Gemma 3n"],
    );
    let gemma4 = [("general.architecture", 8, &b"\x06\0\0\0\0\0\0\0gemma4"[..])];
    // Blocks of a codebook or of three values, each in a file of its own.
    for (number, name) in [
        (16, "IQ2_XXS"),
        (17, "IQ2_XS"),
        (18, "IQ3_XXS"),
        (19, "IQ1_S"),
        (20, "IQ4_NL"),
        (21, "IQ3_S"),
        (22, "IQ2_S"),
        (23, "IQ4_XS"),
        (29, "IQ1_M"),
        (34, "TQ1_0"),
        (35, "TQ2_0"),
    ] {
        let told = format!("has type {name};");
        refused(
            "a.gguf",
            &gguf(&gemma4, &[("blk.0.ffn_up.weight", number)]),
            &["blk.0.ffn_up.weight", &told, "Q4_K_M.gguf"],
        );
    }
    refused(
        "a.gguf",
        &gguf(&gemma4, &[]),
        &["gemma4.block_count is missing"],
    );
}

#[test]
fn what_is_no_model_is_told_by_what_it_says_it_is() {
    let architecture = ("general.architecture", 8, GEMMA);
    let adapter = ("general.type", 8, &b"\x07\0\0\0\0\0\0\0adapter"[..]);
    refused(
        "lora.gguf",
        &gguf(
            &[adapter, architecture],
            &[("blk.0.attn_q.weight.lora_a", 1)],
        ),
        &[
            "a LoRA adapter",
            "llama-export-lora",
            "give the whole model",
        ],
    );
    let matrix = ("general.type", 8, &b"\x07\0\0\0\0\0\0\0imatrix"[..]);
    refused("a.gguf", &gguf(&[matrix], &[]), &["importance matrix"]);
}

/// As it is printed, by a shell.
#[test]
fn the_command_that_packs_a_file_of_llama_cpp_does_it() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("my model's file.gguf");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/tiny-a.gguf");
    std::fs::copy(tiny, &file).unwrap();
    let ask = |model: &Path| {
        let mut command = Command::cargo_bin("gemmad").unwrap();
        let command = command.args(["ask", "--max-tokens=1", "Hi", "--model"]);
        command.arg(model).output().unwrap()
    };
    let refused = String::from_utf8(ask(&file).stderr).unwrap();
    let line = refused.split('`').nth(1).unwrap();
    let gemmad = Path::new(env!("CARGO_BIN_EXE_gemmad"));
    let made = std::process::Command::new("/bin/sh")
        .args(["-c", line])
        .current_dir(home.path())
        .env("PATH", gemmad.parent().unwrap())
        .output()
        .unwrap();
    assert!(made.status.success(), "{line}: {made:?}");
    let answered = ask(&home.path().join("my model's file.pack"));
    assert!(answered.status.success(), "{answered:?}");
}

#[test]
fn what_is_no_gguf_is_told() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 33442553\n";
    refused("a.gguf", pointer, &["git lfs pull"]);
    refused(
        "b.gguf",
        b"<html>\n<head><title>Log in to go on</title>",
        &["web page"],
    );
    refused("c.safetensors", &[9; 64], &["give the directory"]);
    refused(
        "d.gguf",
        b"not a model at all, but long enough",
        &["no GGUF file"],
    );
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/tiny-a.gguf");
    let whole = std::fs::read(whole).unwrap();
    refused(
        "e.gguf",
        &whole[..whole.len() / 2],
        &["truncated", "first part of a file that was cut"],
    );
}
