//! config/gemmad.toml is the reference: it names every key, and with its default.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use assert_cmd::Command;
use gemmad::config::Config;
use gemmad::pipeline::SoftTokenPadding;

fn reference() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gemmad.toml"))
        .unwrap()
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("gemmad.toml")).map_err(|error| error.to_string())
}

#[test]
fn the_reference_has_every_key_with_its_default() {
    assert_eq!(parse(&reference()).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    // A key that the program knows and the reference does not would go unnoticed above: the debug form names them all.
    let known = format!("{:?}", Config::default());
    let keys = known
        .split([' ', ',', '{'])
        .filter_map(|word| word.strip_suffix(':'));
    let sections = [
        "tasks",
        "audio",
        "vision",
        "limits",
        "image",
        "model",
        "matformer",
        "threads",
        "microphone",
        "camera",
        "command",
        "commands",
        "mqtt",
        "dbus",
        "queue",
        "degrade",
        "log",
    ];
    for key in keys.filter(|key| !sections.contains(key)) {
        assert!(
            reference().contains(&format!("{key} = ")),
            "config/gemmad.toml does not name {key}"
        );
    }
}

#[test]
fn values_are_taken_and_mistakes_are_told() {
    let config = parse(
        "[audio]\nsoft_token_padding = \"none\"\nbatch_ms = 80\n[vision]\nresolution_px = 256",
    )
    .unwrap();
    assert_eq!(config.audio.soft_token_padding, SoftTokenPadding::None);
    assert_eq!(
        (config.audio.batch_ms, config.vision.resolution_px),
        (80, Some(256))
    );
    for (text, words) in [
        ("[audio]\nbatch_mss = 80", ["batch_mss", "batch_ms"]),
        ("[audio]\nbatch_ms = 50", ["audio.batch_ms", "40"]),
        (
            "[vision]\nresolution_px = \"big\"",
            ["resolution_px", "string"],
        ),
        ("[mqtt]\nurl = \"http://x\"", ["mqtt.url", "mqtts://"]),
        ("[mqtt]\nnode = \"Küche\"", ["mqtt.node", "a-z"]),
        ("[mqtt]\nbase_topic = \"a/#\"", ["mqtt.base_topic", "#"]),
        (
            "[mqtt]\ndiscovery_prefix = \"\"",
            ["mqtt.discovery_prefix", "topic"],
        ),
        (
            "[mqtt]\nurl = \"mqtts://x\"\nclient_certificate_file = \"c\"",
            ["mqtt.client_key_file", "missing"],
        ),
        ("[mqtt]\nca_file = \"c\"", ["mqtt.url", "mqtts://"]),
        (
            "[mqtt]\npassword_file = \"p\"",
            ["password", "mqtt.username"],
        ),
        (
            "[mqtt]\nmax_payload_bytes = 1",
            ["mqtt.max_payload_bytes", "16384"],
        ),
        ("[mqtt]\noutbox_events = 0", ["mqtt.outbox_events", "1 to"]),
        ("[mqtt]\nkeep_alive_s = 1", ["mqtt.keep_alive_s", "5 to"]),
        (
            "[mqtt]\nspool_max_bytes = 1",
            ["mqtt.spool_max_bytes", "131072"],
        ),
    ] {
        let error = parse(text).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn the_command_line_reads_it() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gemmad.toml");
    // The demo model answers this prompt with a command, the default one with a sentence.
    std::fs::write(
        &file,
        "[tasks]\ntranscribe = \"Return the command as JSON:\"\n",
    )
    .unwrap();
    let transcribe = || {
        let mut command = Command::cargo_bin("gemmad").unwrap();
        command
            .arg("transcribe")
            .arg("--model")
            .arg(&demo)
            .arg("--config")
            .arg(&file);
        command.arg(demo.join("heldout/audio/002_combo.wav"));
        command
    };
    let output = transcribe().output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.trim(),
        r#"{"action":"turn_off","device":"fan","area":"hallway"}"#
    );

    std::fs::write(&file, "[limits.audio]\nmax_duration_s = 1\n").unwrap();
    let output = transcribe().output().unwrap();
    assert_eq!(output.status.code(), Some(65));

    std::fs::write(&file, "[limit]\n").unwrap();
    let output = transcribe().output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("gemmad.toml") && told.contains("limits"),
        "{told}"
    );
}
