//! `gemmad transcribe` as a user runs it, on the demo model.

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value;

const SPOKEN: [(&str, &str); 2] = [
    ("001_voice.wav", "Dim the garden light to sixty percent."),
    ("002_combo.wav", "Turn the hallway fan off."),
];

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn clip(i: usize) -> PathBuf {
    demo().join("heldout/audio").join(SPOKEN[i].0)
}

fn transcribe() -> Command {
    let mut command = Command::cargo_bin("gemmad").unwrap();
    command
        .args(["transcribe", "--context", "512", "--model"])
        .arg(demo());
    command
}

fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn one_line_a_file_in_order() {
    assert_eq!(
        lines(transcribe().arg(clip(0)).arg(clip(1))),
        [SPOKEN[0].1, SPOKEN[1].1]
    );
}

#[test]
fn gemma_4_hears_the_same() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo-gemma4");
    let mut command = Command::cargo_bin("gemmad").unwrap();
    let command = command.args(["transcribe", "--context", "512", "--model"]);
    let wav = std::fs::read(clip(1)).unwrap();
    let command = command.arg(model).arg(clip(0)).arg("-").write_stdin(wav);
    assert_eq!(lines(command), [SPOKEN[0].1, SPOKEN[1].1]);
}

#[test]
fn standard_input_is_wav_or_raw_samples() {
    let wav = std::fs::read(clip(1)).unwrap();
    assert_eq!(
        lines(transcribe().arg("-").write_stdin(wav.clone())),
        [SPOKEN[1].1]
    );
    // The header of these files has 44 bytes.
    assert_eq!(
        lines(transcribe().arg("-").write_stdin(&wav[44..])),
        [SPOKEN[1].1]
    );
}

/// A header that promises no samples, from a recorder that lost its power or a pipe that cannot know, is read to the end; a file of
/// another kind is no samples.
#[test]
fn a_header_of_0_bytes_is_read_to_the_end() {
    let mut wav = std::fs::read(clip(1)).unwrap();
    wav[4..8].fill(0);
    wav[40..44].fill(0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("size0.wav");
    std::fs::write(&path, &wav).unwrap();
    assert_eq!(lines(transcribe().arg(&path)), [SPOKEN[1].1]);
    let report = |command: &mut Command| -> Value {
        serde_json::from_str(&lines(command.arg("--json"))[0]).unwrap()
    };
    for report in [
        report(transcribe().arg(&path)),
        report(transcribe().arg("-").write_stdin(wav)),
    ] {
        assert_eq!(report["text"], SPOKEN[1].1);
        assert!(report["damage"].as_str().unwrap().contains("0 bytes"));
    }
    for (start, told) in [
        (&b"\0\0\0\x20ftypM4A \0\0\0\0"[..], "M4A"),
        (b"fLaC\0\0\0\x22", "FLAC"),
    ] {
        let bytes = [start, &[0; 4000]].concat();
        let output = transcribe().arg("-").write_stdin(bytes).output().unwrap();
        assert_eq!(output.status.code(), Some(65));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            message.contains("standard input") && message.contains(told),
            "{message}"
        );
    }
}

/// The slice, the padding, the language and the prompt reach the model.
#[test]
fn options() {
    assert_eq!(
        lines(
            transcribe()
                .args(["--matformer", "half", "--soft-token-padding", "none"])
                .arg(clip(0))
        ),
        [SPOKEN[0].1]
    );
    assert_eq!(
        lines(
            transcribe()
                .args(["--prompt", "Return the command as JSON:"])
                .arg(clip(1))
        ),
        [r#"{"action":"turn_off","device":"fan","area":"hallway"}"#]
    );
    // The demo model knows no other language; that it answers at all shows that the names went through unharmed.
    for language in ["español", "日本語", "العربية", "🦜"] {
        assert_eq!(
            lines(
                transcribe()
                    .args([
                        "--max-tokens",
                        "4",
                        "--language",
                        language,
                        "--translate-to",
                        "中文"
                    ])
                    .arg(clip(0))
            )
            .len(),
            1
        );
    }
}

fn group(memory: &Value, name: &str) -> (u64, u64) {
    let group = memory
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["group"] == name)
        .unwrap();
    (
        group["mapped_bytes"].as_u64().unwrap(),
        group["resident_bytes"].as_u64().unwrap(),
    )
}

/// The audio weights are there while they are needed, and not before or after.
#[test]
fn json_tells_timings_and_memory() {
    let line = &lines(transcribe().arg("--json").arg(clip(0)))[0];
    let report: Value = serde_json::from_str(line).unwrap();
    assert_eq!(report["text"], SPOKEN[0].1);
    assert!((report["duration_s"].as_f64().unwrap() - 49_939.0 / 16_000.0).abs() < 1e-6);
    assert!(report["real_time_factor"].as_f64().unwrap() > 0.0);
    assert!(report["pieces"][0]["timing"]["encode_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(group(&report["memory_before"], "audio"), (0, 0));
    let (mapped, resident) = group(&report["memory_during"], "audio");
    assert!(
        mapped > 1_000_000 && resident > mapped / 2,
        "{resident} of {mapped} bytes resident"
    );
    assert_eq!(group(&report["memory_after"], "audio"), (0, 0));
    assert!(group(&report["memory_after"], "text").0 > 0);
}

/// What is longer than the model hears at once is cut, from a file and from a pipe at the same place, and nothing is lost.
#[test]
fn long_audio_is_cut_at_a_pause() {
    let mut wav = std::fs::read(clip(0)).unwrap();
    let speech = wav.split_off(44);
    let mut samples = Vec::new();
    // 11 times 3.1 s of speech and half a second of silence: 40 s.
    for _ in 0..11 {
        samples.extend_from_slice(&speech);
        samples.resize(samples.len() + 16_000, 0);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.wav");
    wav[40..44].copy_from_slice(&(samples.len() as u32).to_le_bytes());
    wav.extend_from_slice(&samples);
    std::fs::write(&path, &wav).unwrap();
    let report = |command: &mut Command| -> Value {
        serde_json::from_str(&lines(command.args(["--json", "--max-tokens", "16"]))[0]).unwrap()
    };
    let file = report(transcribe().arg(&path));
    let pipe = report(transcribe().arg("-").write_stdin(wav));
    for report in [&file, &pipe] {
        assert_eq!(report["pieces"].as_array().unwrap().len(), 2);
        assert!(
            (report["duration_s"].as_f64().unwrap() - samples.len() as f64 / 32_000.0).abs() < 1e-6
        );
    }
    assert_eq!(file["text"], pipe["text"]);
}

/// One bad file does not cost the others their answers, but the exit code.
#[test]
fn bad_files_are_named_and_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("empty.wav");
    std::fs::write(&bad, "").unwrap();
    let output = transcribe()
        .arg(&bad)
        .arg("/nowhere.wav")
        .arg(clip(1))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim_end(),
        SPOKEN[1].1
    );
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("empty.wav") && errors.contains("/nowhere.wav"),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 2, "{errors}");
}

/// A WAV file of 16 kHz.
fn wav(samples: &[i16]) -> Vec<u8> {
    let mut wav = std::fs::read(clip(0)).unwrap();
    wav.truncate(44);
    let bytes = samples.len() as u32 * 2;
    wav[4..8].copy_from_slice(&(bytes + 36).to_le_bytes());
    wav[40..44].copy_from_slice(&bytes.to_le_bytes());
    wav.extend(samples.iter().flat_map(|x| x.to_le_bytes()));
    wav
}

/// A model makes words of them, too; so it is not asked.
#[test]
fn silence_and_noise_have_no_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = 1u32;
    let mut noise = |loud: i32| -> Vec<i16> {
        let mut sample = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (((state >> 16) as i32 - 32_768) * loud / 32_768) as i16
        };
        (0..48_000).map(&mut sample).collect()
    };
    let sounds = [
        ("zeros", vec![0; 32_000]),
        ("faint", noise(50)),
        ("loud", noise(6000)),
        ("short", vec![500; 320]),
    ];
    let mut command = transcribe();
    for (name, samples) in &sounds {
        let path = dir.path().join(name);
        std::fs::write(&path, wav(samples)).unwrap();
        command.arg(path);
    }
    let output = command.arg(clip(1)).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("\n\n\n\n{}\n", SPOKEN[1].1));
    let notes = String::from_utf8(output.stderr).unwrap();
    for (line, (name, _)) in notes.lines().zip(&sounds) {
        assert!(
            line.ends_with(&format!("{name}: no speech was heard")),
            "{line}"
        );
    }
    assert_eq!(notes.lines().count(), sounds.len());

    // From a pipe likewise; nothing, and less than the model hears anything of, are silence, too.
    for samples in [&sounds[0].1[..], &sounds[2].1[..], &[0; 160][..], &[][..]] {
        for input in [wav(samples), wav(samples)[44..].to_vec()] {
            let output = lines(transcribe().arg("-").write_stdin(input));
            assert_eq!(output, [""], "{} samples", samples.len());
        }
    }
    let report = &lines(
        transcribe()
            .args(["--json", "-"])
            .write_stdin(wav(&sounds[0].1)),
    )[0];
    let report: Value = serde_json::from_str(report).unwrap();
    assert_eq!(
        (&report["speech"], &report["text"]),
        (&false.into(), &"".into())
    );
    assert_eq!(report["duration_s"], 2.0);

    // Whoever wants the model to be asked all the same can have that.
    let asked = transcribe()
        .args(["--any-sound", "--json", "-"])
        .write_stdin(wav(&sounds[0].1))
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(report["pieces"].as_array().unwrap().len(), 1);
}
