//! `gemmad wake`, and what other commands say of wake words, with the small model that the fuzzers begin with.

use std::path::{Path, PathBuf};

use assert_cmd::Command;

use crate::file_pcm;

fn seed(name: &str) -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wake");
    corpus.join(format!("seed-{name}"))
}

/// A folder with a model of that name of the corpus.
fn place(model: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(seed("manifest"), place.path().join("hello.json")).unwrap();
    std::fs::copy(seed(model), place.path().join("hello.tflite")).unwrap();
    place
}

fn gemmad(place: &Path) -> Command {
    let mut command = Command::cargo_bin("gemmad").unwrap();
    command.current_dir(place);
    command
}

/// What it prints, and its exit code.
fn told(command: &mut Command) -> (String, String, i32) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (text(output.stdout), text(output.stderr), code)
}

#[test]
fn files_are_heard_and_each_word_is_told_with_its_highest_score() {
    let place = place("model");
    let clips = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/heldout/audio");
    let (first, second) = (clips.join("001_voice.wav"), clips.join("002_combo.wav"));
    let hear = |sensitivity: &str| {
        let mut command = gemmad(place.path());
        command.args([
            "wake",
            "--model",
            "hello.json",
            "--sensitivity",
            sensitivity,
        ]);
        told(command.arg(&first).arg(&second))
    };
    let (printed, _, code) = hear("0");
    assert_eq!(code, 0);
    let highest: Vec<&str> = printed
        .lines()
        .filter(|line| line.contains("highest"))
        .collect();
    assert_eq!(highest.len(), 2, "{printed}");
    assert!(highest[0].starts_with(first.to_str().unwrap()), "{printed}");
    assert!(highest[0].contains(": Hello: highest score "), "{printed}");
    assert!(highest[0].ends_with("cut-off 0.90"), "{printed}");
    // The odds of 0.9 are 9, and a seventh of that is 1.2.
    let (easier, _, _) = hear("1");
    assert!(easier.contains("cut-off 0.55"), "{easier}");
    let (_, error, code) = hear("2");
    assert_eq!(code, 64);
    assert!(
        error.contains("--sensitivity is 2; it must be -1 to 1"),
        "{error}"
    );
}

#[test]
fn a_microphone_is_heard_live_until_it_gives_nothing_more() {
    let place = place("model");
    let config = file_pcm::write_config(place.path(), &["hall"]);
    file_pcm::write_speech(&file_pcm::raw_file(place.path(), "hall"), "001_voice.wav");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["wake", "--model", "hello.json", "--sensitivity", "1"])
        .args(["--device", "hall"])
        .env("ALSA_CONFIG_PATH", config)
        .current_dir(place.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // ALSA's file plugin gives silence behind the file, without end.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let line = lines.next().unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains(" s: Hello ("), "{line}");
}

#[test]
fn models_that_cannot_be_used_are_told_in_a_line() {
    for (model, says) in [
        ("unknown-operator", "needs the operator WHILE"),
        ("cut-off", "is damaged or not whole"),
        ("manifest", "is no TensorFlow Lite model"),
    ] {
        let place = place(model);
        let (_, error, code) = told(gemmad(place.path()).args(["wake", "--model", "hello.json"]));
        assert_eq!(code, 65, "{error}");
        assert!(error.starts_with("gemmad: hello.tflite: "), "{error}");
        assert!(
            error.contains(says) && error.lines().count() == 1,
            "{error}"
        );
    }
}

#[test]
fn check_config_and_the_doctor_read_the_models() {
    let place = place("model");
    let config = place.path().join("gemmad.toml");
    let write = |model: &str, more: &str| {
        let text = format!(
            "[[microphone]]\nid = \"hall\"\ndevice = \"none\"\ntrigger = \"wake_word\"\n{more}\n[microphone.wake]\nmodels = [\"{model}\"]\n"
        );
        std::fs::write(&config, text).unwrap();
    };
    let check = || told(gemmad(place.path()).arg("check-config").arg("gemmad.toml"));
    write("hello.json", "");
    let (printed, _, code) = check();
    assert_eq!(
        (code, printed.contains("1 microphone")),
        (0, true),
        "{printed}"
    );
    let doctor = told(gemmad(place.path()).args(["doctor", "--config", "gemmad.toml"])).0;
    assert!(
        doctor.contains("wake words: hall is woken by Hello"),
        "{doctor}"
    );
    write("gone.json", "");
    let (_, error, code) = check();
    assert_eq!(code, 78);
    assert!(
        error.contains("microphone `hall`: wake.models: cannot read gone.json"),
        "{error}"
    );
    write("hello.json", "answer = \"command\"");
    let (_, error, _) = check();
    assert!(
        error.contains("take \"both\", or verify = false"),
        "{error}"
    );
    std::fs::write(
        &config,
        "[[microphone]]\nid = \"hall\"\ndevice = \"none\"\ntrigger = \"wake_word\"\n",
    )
    .unwrap();
    let (_, error, _) = check();
    assert!(
        error.contains("needs 1 to 4 models in wake.models"),
        "{error}"
    );
}
