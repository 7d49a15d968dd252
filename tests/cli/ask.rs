//! `gemmad ask` as a person or a script runs it, on the demo model.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use crate::common::fixtures;
use assert_cmd::Command;
use gemmad::features::audio_file::{AudioLimits, read_audio_file};
use gemmad::features::image::{ImageLimits, RgbImage};
use gemmad::guard::harmless;
use gemmad::model::sampler::Sampling;
use gemmad::pipeline::{
    Engine, EngineOptions, Generation, Media, Message, Part, PictureOptions, Request,
};
use serde_json::Value;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn ask(arguments: &[&str]) -> Output {
    Command::cargo_bin("gemmad")
        .unwrap()
        .args(["ask", "--model"])
        .arg(demo())
        .args(arguments)
        .output()
        .unwrap()
}

/// The answer of a question that must be answered, without the newline behind it.
#[track_caller]
fn answer(arguments: &[&str]) -> String {
    let output = ask(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{message}");
    assert!(message.is_empty(), "no progress in a pipe: {message}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.strip_suffix('\n').unwrap().to_owned()
}

/// Fails as it should: this code, one line on standard error that says `words`.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

/// (prompt, right answer) of the held-out commands.
fn commands() -> Vec<(String, String)> {
    let table = std::fs::read_to_string(demo().join("heldout/audio/expected.tsv")).unwrap();
    let rows = table.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        (
            format!("{}\nReturn the command as JSON:", cells[2]),
            cells[3].to_owned(),
        )
    });
    rows.collect()
}

const COMMAND: &str = "Turn off the kitchen light.\nReturn the command as JSON:";
const ANSWER: &str = r#"{"action":"turn_off","device":"light","area":"kitchen"}"#;

/// models/demo/README.md measured 23 of 24 with the reference implementation, for the whole model and for `half`; every
/// third command is asked here, one of them may be the wrong one.
#[test]
fn commands_become_json() {
    for slice in [None, Some("half")] {
        let asked: Vec<_> = commands().into_iter().step_by(3).collect();
        assert_eq!(asked.len(), 8);
        let right = asked
            .iter()
            .filter(|(prompt, expected)| {
                let mut arguments = vec![prompt.as_str()];
                if let Some(slice) = slice {
                    arguments.extend(["--matformer", slice]);
                }
                let text = answer(&arguments);
                if text != *expected {
                    eprintln!("{slice:?}: {prompt:?} gave {text}, expected {expected}");
                }
                text == *expected
            })
            .count();
        assert!(right >= 7, "{slice:?}: {right} of 8 are right");
    }
}

/// models/demo-gemma4/README.md measured 23 of 24.
#[test]
fn gemma_4_makes_json_of_commands() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo-gemma4");
    let asked: Vec<_> = commands().into_iter().step_by(3).collect();
    let right = asked.iter().filter(|(prompt, expected)| {
        let mut command = Command::cargo_bin("gemmad").unwrap();
        let output = command.args(["ask", "--model"]).arg(&model).arg(prompt);
        let text = output.output().unwrap().stdout;
        String::from_utf8(text).unwrap().trim_end() == expected
    });
    assert!(right.count() + 1 >= asked.len());
}

/// `--matformer` of a model without MatFormer: what helps instead.
#[test]
fn a_slice_of_a_model_that_has_none_is_refused() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo-gemma4");
    let mut command = Command::cargo_bin("gemmad").unwrap();
    let command = command
        .args(["ask", "--matformer", "half", "--model"])
        .arg(model);
    let output = command.arg(COMMAND).output().unwrap();
    let words = [
        "\"half\"",
        "this model has none",
        "recipe small",
        "gemmad plan",
    ];
    refused(&output, 78, &words);
}

#[test]
fn standard_input_is_a_prompt() {
    let output = Command::cargo_bin("gemmad")
        .unwrap()
        .args(["ask", "--model"])
        .arg(demo())
        .arg("-")
        .write_stdin(COMMAND)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{ANSWER}\n")
    );
}

#[test]
fn json_has_text_timings_and_memory() {
    let json: Value =
        serde_json::from_str(&answer(&["--json", "--matformer", "half", COMMAND])).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    let documented = [
        "text",
        "finish",
        "matformer",
        "timing",
        "memory",
        "memory_before",
        "memory_after",
    ];
    assert_eq!(keys, documented);
    assert_eq!(json["text"], ANSWER);
    assert_eq!(json["finish"], "stop");
    assert_eq!(json["matformer"], "half");
    for key in ["load_ms", "encode_ms", "prefill_ms", "decode_ms"] {
        assert!(json["timing"][key].as_f64().unwrap() >= 0.0, "{key}");
    }
    assert!(json["timing"]["prefill_ms"].as_f64().unwrap() > 0.0);
    assert!(json["timing"]["prompt_tokens"].as_u64().unwrap() > 10);
    assert!(json["timing"]["tokens"].as_u64().unwrap() > 3);
    let memory = json["memory"].as_array().unwrap();
    let groups: Vec<&Value> = memory.iter().map(|group| &group["group"]).collect();
    assert_eq!(groups, ["text", "ple", "audio", "vision"]);
    let mapped: Vec<bool> = memory
        .iter()
        .map(|group| group["mapped_bytes"].as_u64().unwrap() > 0)
        .collect();
    // Text alone needs no towers.
    assert_eq!(
        mapped,
        [true, false, false, false],
        "the PLE table is read by row"
    );
}

#[test]
fn a_seed_repeats_an_answer() {
    let sampled = |seed: &str| {
        answer(&[
            "--temperature=3",
            "--top-k=0",
            "--top-p=1",
            "--max-tokens=24",
            "--seed",
            seed,
            "Play something",
        ])
    };
    let first = sampled("1");
    assert_eq!(first, sampled("1"));
    assert!(
        ["2", "3"].into_iter().any(|seed| sampled(seed) != first),
        "every seed gives {first:?}"
    );
}

#[test]
fn answers_end_where_they_are_told_to() {
    let (before, _) = ANSWER.split_once(",\"area\"").unwrap();
    assert_eq!(answer(&["--stop", ",\"area\"", COMMAND]), before);
    assert_eq!(
        answer(&["--stop", "never", "--stop", ",\"area\"", COMMAND]),
        before
    );
    let json: Value =
        serde_json::from_str(&answer(&["--json", "--stop", "area", COMMAND])).unwrap();
    assert_eq!(json["finish"], "stop_string");
    let json: Value =
        serde_json::from_str(&answer(&["--json", "--max-tokens=3", COMMAND])).unwrap();
    assert_eq!(json["finish"], "max_tokens");
    assert_eq!(json["timing"]["tokens"], 3);
    let text = json["text"].as_str().unwrap();
    assert!(
        ANSWER.starts_with(text) && text.len() < ANSWER.len(),
        "{text}"
    );
    assert_eq!(answer(&["--max-tokens=3", COMMAND]), text);
    assert_eq!(answer(&["--max-tokens=0", COMMAND]), "");
}

#[test]
fn what_is_wrong_is_told_in_one_line() {
    refused(
        &ask(&["--matformer", "e9b", COMMAND]),
        78,
        &["e9b", "full", "half"],
    );
    refused(&ask(&["--temperature=-1", COMMAND]), 78, &["temperature"]);
    refused(
        &ask(&["--thinking", COMMAND]),
        78,
        &["Gemma 3n", "`thinking`", "Gemma 4"],
    );
    let missing = Command::cargo_bin("gemmad")
        .unwrap()
        .args(["ask", "--model", "/no/such/model", "Hi"])
        .output()
        .unwrap();
    refused(&missing, 66, &["/no/such/model"]);
    refused(
        &ask(&["--image", "/no/such.png", "Hi"]),
        66,
        &["/no/such.png"],
    );
    let audio = demo().join("heldout/audio/expected.tsv");
    let audio = audio.to_str().unwrap();
    refused(&ask(&["--audio", audio, "Hi"]), 65, &["expected.tsv"]);
}

#[test]
fn usage_errors_have_their_code() {
    for arguments in [
        &["ask"][..],
        &["ask", "Hi"],
        &["ask", "--model", "x", "--max-tokens", "many", "Hi"],
        &["ask", "--model", "x", "--threads", "0", "Hi"],
        &["ask", "--model", "x", "--no-such-option", "Hi"],
        &["sing"],
        &[],
    ] {
        let output = Command::cargo_bin("gemmad")
            .unwrap()
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
    for arguments in [&["--version"][..], &["--help"], &["ask", "--help"]] {
        let output = Command::cargo_bin("gemmad")
            .unwrap()
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{arguments:?}"
        );
    }
}

/// `gemmad … | head -c 0`: the reader is gone before the first word.
/// The demo model would answer with JSON; it is held to something else.
#[test]
fn answers_keep_to_a_grammar() {
    let prompt = "Turn off the kitchen light.\nReturn the command as JSON:";
    let choices = ["turn_off", "turn_on", "nothing"].join(",");
    let text = answer(&["--choices", &choices, prompt]);
    assert!(choices.split(',').any(|choice| choice == text), "{text}");
    assert_eq!(
        answer(&["--regex", r"\{.action.:.turn_(on|off)", prompt]),
        r#"{"action":"turn_off"#
    );

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("schema.json");
    let path = file.to_str().unwrap();
    let schema = r#"{"type":"object","properties":{"action":{"enum":["turn_on","turn_off"]},
        "device":{"enum":["light","fan"]}},"required":["action","device"],"additionalProperties":false}"#;
    std::fs::write(&file, schema).unwrap();
    assert_eq!(
        answer(&["--schema", path, prompt]),
        r#"{"action":"turn_off","device":"light"}"#
    );
    let report: Value =
        serde_json::from_str(&answer(&["--schema", path, "--json", prompt])).unwrap();
    // It wanted to go on with the area, which the schema forbids.
    assert!(
        report["grammar_confidence"].as_f64().unwrap() < 0.1,
        "{report}"
    );
    assert_eq!(report["finish"], "stop");

    refused(
        &ask(&["--regex", "(a", prompt]),
        64,
        &["regular expression", "unclosed"],
    );
    refused(
        &ask(&["--choices", "a,,b", prompt]),
        64,
        &["choices", "number 2"],
    );
    std::fs::write(&file, r#"{"type":"object","minContains":1}"#).unwrap();
    refused(
        &ask(&["--schema", path, prompt]),
        65,
        &["schema.json", "minContains"],
    );
    std::fs::write(&file, "{").unwrap();
    refused(
        &ask(&["--schema", path, prompt]),
        65,
        &["schema.json", "JSON"],
    );
    refused(
        &ask(&["--schema", "/no/such/file", prompt]),
        66,
        &["/no/such/file"],
    );
    let both = ask(&["--regex", "a", "--choices", "a", prompt]);
    assert_eq!(both.status.code(), Some(64));
}

#[test]
fn a_closed_pipe_is_no_error() {
    for json in [false, true] {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("gemmad"));
        command.args(["ask", "--model"]).arg(demo());
        if json {
            command.arg("--json");
        }
        let mut child = command
            .arg(COMMAND)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{:?}", output.status);
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Pictures and clips stand in the prompt in the order of the command line, whichever option comes first.
#[test]
fn pictures_and_clips_keep_their_order() {
    let dir = fixtures();
    let (picture, clip) = (dir.join("golden/icon.png"), dir.join("golden/a0_5.wav"));
    let mut engine = Engine::open(
        &dir,
        EngineOptions {
            threads: 1,
            ..EngineOptions::default()
        },
    )
    .unwrap();
    let image = Media::Image(
        RgbImage::open(&picture, &ImageLimits::default()).unwrap(),
        PictureOptions::default(),
    );
    let sound = Media::Clip(read_audio_file(&clip, &AudioLimits::default()).unwrap());
    let mut answers = Vec::new();
    for (media, options) in [
        (
            [&image, &sound],
            [("--image", &picture), ("--audio", &clip)],
        ),
        (
            [&sound, &image],
            [("--audio", &clip), ("--image", &picture)],
        ),
    ] {
        let mut user: Vec<Part> = media.into_iter().cloned().map(Part::Media).collect();
        user.push(Part::Text("What?".into()));
        let request = Request {
            conversation: None,
            messages: Message::user(user),
            matformer: None,
            thinking: None,
            generation: Generation {
                sampling: Sampling::GREEDY,
                seed: 0,
                max_tokens: 12,
                stop: Vec::new(),
                grammar: None,
                tools: None,
            },
        };
        let expected = engine
            .answer(&request, &mut |_| ControlFlow::Continue(()))
            .unwrap()
            .text;
        let mut command = Command::cargo_bin("gemmad").unwrap();
        command.args(["ask", "--temperature=0", "--max-tokens=12", "--model"]);
        command.arg(&dir);
        for (option, path) in options {
            command.arg(option).arg(path);
        }
        let output = command.arg("What?").output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("{expected}\n")
        );
        answers.push(expected);
    }
    assert_ne!(answers[0], answers[1], "the order makes a difference");
}

/// Nothing assumes English: any text goes in, and what comes out is UTF-8 and JSON.
#[test]
fn every_language_goes_through() {
    for prompt in [
        "Apaga la luz de la cocina, ¿vale? ¡Mañana también!",
        "台所の電気を消してください。",
        "أطفئ ضوء المطبخ من فضلك",
        "🔦➡️🍳 👩‍👩‍👧‍👦 e\u{301}",
        "\"quotes\", back\\slashes and\ttabs\u{1b}[31m",
    ] {
        let options = ["--max-tokens=40", "--temperature=0"];
        let plain = answer(&[options[0], options[1], prompt]);
        let json = answer(&[options[0], options[1], "--json", prompt]);
        assert_eq!(json.lines().count(), 1, "{json}");
        let json: Value = serde_json::from_str(&json).unwrap();
        let text = harmless::text(json["text"].as_str().unwrap());
        assert_eq!(text, plain, "{prompt}");
    }
    // Sampled wildly the model says pieces of every language that it has bytes for; they come out as whole characters.
    for seed in ["1", "2", "3"] {
        let options = [
            "--temperature=50",
            "--top-k=0",
            "--top-p=1",
            "--max-tokens=60",
            "--seed",
            seed,
        ];
        let mut arguments = options.to_vec();
        arguments.push("日本語");
        let plain = answer(&arguments);
        assert!(!plain.is_ascii(), "nothing but ASCII: {plain:?}");
        arguments.push("--json");
        let json: Value = serde_json::from_str(&answer(&arguments)).unwrap();
        assert_eq!(harmless::text(json["text"].as_str().unwrap()), plain);
    }
}

/// Whatever a model, a file or a configuration is called or says: a terminal obeys none of it, and JSON still says it.
#[test]
fn nothing_that_is_printed_moves_the_cursor() {
    let all: String = (1..=0x1_0000)
        .filter_map(char::from_u32)
        .filter(|&c| harmless::is_harmful(c))
        .collect();
    // No argument and no name of a file has a zero; a slash is no harm.
    let hostile = format!("a{all}b");
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join(&hostile);
    std::os::unix::fs::symlink(demo(), &model).unwrap();
    let config = dir.path().join("gemmad.toml");
    let quoted = serde_json::to_string(&hostile).unwrap();
    let quoted = harmless::json(&quoted);
    let text = format!(
        "[model]\npath = {quoted}\n[dbus]\nenabled = false\n[[camera]]\nid = \"door\"\nname = {quoted}\ntype = \"replay\"\ndirectory = {quoted}\n"
    );
    std::fs::write(&config, text).unwrap();
    let (model, config) = (model.to_str().unwrap(), config.to_str().unwrap());
    let missing = format!("--no{hostile}");
    // The grammar has a meaning of its own for DEL.
    let answer = format!("yes{hostile}").replace('\u{7f}', "");
    let choice = format!("--choices={answer}");
    for (arguments, is_json) in [
        (vec!["inspect", "--model", model], false),
        (vec!["inspect", "--model", model, "--json"], true),
        (vec!["ask", "--model", &hostile, "x"], false),
        (
            vec!["ask", "--model", model, "--max-tokens=400", &choice, "x"],
            false,
        ),
        (
            vec![
                "ask",
                "--model",
                model,
                "--json",
                "--max-tokens=400",
                &choice,
                "x",
            ],
            true,
        ),
        (vec!["transcribe", "--model", model, &hostile], false),
        (vec!["describe", "--model", model, &hostile], false),
        (vec!["plan", "--model", &hostile], false),
        (vec!["doctor", "--config", config], false),
        (vec!["doctor", "--config", config, "--json"], true),
        (vec!["check-config", &hostile], false),
        (
            vec![
                "run",
                "--config",
                config,
                "--state-dir",
                dir.path().to_str().unwrap(),
            ],
            false,
        ),
        (vec!["devices"], false),
        (vec!["devices", &missing], false),
        (vec![&missing], false),
    ] {
        let output = Command::cargo_bin("gemmad")
            .unwrap()
            .args(&arguments)
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        for text in [&out, &err] {
            let harmful = text
                .chars()
                .find(|&c| harmless::is_harmful(c) && !matches!(c, '\n' | '\t'));
            assert_eq!(harmful, None, "{}: {text:?}", arguments[0]);
        }
        if is_json {
            let value: Value = serde_json::from_str(&out).unwrap();
            match arguments[0] {
                "inspect" => assert_eq!(value["model"], model),
                "ask" => assert_eq!(value["text"], answer),
                _ => assert!(value["checks"].is_array()),
            }
        } else if arguments[0] != "devices" || arguments.len() > 1 {
            assert!((out + &err).contains("\u{fffd}"), "{}", arguments[0]);
        }
    }
}
