//! `gemmad bench` on the demo model: that it measures everything it says, by the keys that it documents. No figure is judged.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .arg("bench")
        .args(arguments)
        .arg("--json")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn model(directory: &str) -> String {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    models.join(directory).display().to_string()
}

fn demo() -> String {
    model("demo")
}

fn events(what: &str) -> Vec<Value> {
    events_of(&demo(), what)
}

fn events_of(model: &str, what: &str) -> Vec<Value> {
    let report = bench(&[what, "--model", model, "--runs", "1", "--threads", "1"]);
    assert_eq!(report["quantisation"], "bf16");
    let events = report["events"].as_array().unwrap().clone();
    for event in &events {
        for key in [
            "encode_ms",
            "first_encode_ms",
            "prefill_ms",
            "decode_ms",
            "latency_ms",
            "resident_before_bytes",
            "resident_loaded_bytes",
            "resident_after_bytes",
        ] {
            assert!(event[key].as_f64().unwrap() > 0.0, "{key} of {event}");
        }
        assert!(event["tokens"].as_u64().unwrap() <= 12, "{event}");
    }
    events
}

#[test]
fn each_kernel_is_measured_on_each_instruction_set_and_the_chosen_one_is_named() {
    let report = bench(&["kernels", "--threads", "1"]);
    let available: Vec<&str> = kernels::Isa::available()
        .iter()
        .map(|isa| isa.name())
        .collect();
    let expected = std::env::var("GEMMAD_EXPECT_ISA");
    let expected = expected.unwrap_or_else(|_| kernels::Isa::best().name().to_owned());
    assert_eq!(report["chosen"], expected);
    let figures = report["kernels"].as_array().unwrap();
    assert_eq!(figures.len(), 14 * available.len());
    for (figure, isa) in figures.iter().zip(available.iter().cycle()) {
        assert_eq!(figure["isa"], *isa, "{figure}");
        assert!(figure["gb_s"].as_f64().unwrap() > 0.0, "{figure}");
        assert!(figure["gmac_s"].as_f64().unwrap() > 0.0, "{figure}");
    }
}

#[test]
fn text_has_the_documented_keys() {
    let report = bench(&[
        "--model",
        &demo(),
        "--prefill",
        "8",
        "--decode",
        "4",
        "--runs",
        "1",
    ]);
    for key in [
        "decode_tok_s",
        "prefill_tok_s",
        "weight_bytes_per_token",
        "grammar_decode_tok_s",
        "grammar_weight_bytes_per_token",
        "weight_read_gb_s",
        "memory_read_gb_s",
        "resident_bytes",
        "peak_rss_bytes",
    ] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} of {report}");
    }
    assert_eq!(report["groups"].as_array().unwrap().len(), 4);
}

#[test]
fn decoding_is_measured_at_each_length_of_the_context_up_to_the_one_asked_for() {
    let model = demo();
    let mut arguments = vec!["--model", &model, "--prefill", "1", "--decode", "2"];
    arguments.extend(["--runs", "1", "--context", "1024"]);
    let contexts = bench(&arguments)["contexts"].as_array().unwrap().clone();
    let lengths: Vec<u64> = contexts
        .iter()
        .map(|context| context["context_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(lengths, [512, 1024]);
    for context in &contexts {
        for key in ["prefill_tok_s", "decode_tok_s", "resident_bytes"] {
            assert!(context[key].as_f64().unwrap() > 0.0, "{key} of {context}");
        }
    }
}

#[test]
fn a_picture_of_each_resolution_costs_its_tokens() {
    let events = events("image");
    let tokens: Vec<u64> = events
        .iter()
        .map(|e| e["prompt_tokens"].as_u64().unwrap())
        .collect();
    // The tower gives as many soft tokens whatever it looks at: its last stage is pooled.
    assert_eq!(tokens.len(), 3);
    assert!(tokens.iter().all(|&count| count == tokens[0]));
}

#[test]
fn clips_cost_the_same_prompt_and_their_share_of_real_time_is_told() {
    let events = events("audio");
    assert_eq!(events.len(), 3);
    for event in &events {
        assert!(event["real_time_factor"].as_f64().unwrap() > 0.0, "{event}");
        assert!(event["prompt_tokens"].as_u64().unwrap() > 188, "{event}");
    }
}

#[test]
fn speech_streamed_and_whole_is_the_same_prompt() {
    let events = events("voice");
    let tokens: Vec<u64> = events
        .iter()
        .map(|e| e["prompt_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(tokens.len(), 4);
    assert_eq!(tokens[0], tokens[1], "padded");
    assert_eq!(tokens[2], tokens[3], "not padded");
    assert!(tokens[2] < tokens[0]);
}

/// 25 soft tokens a second and no padding; pictures of as many soft tokens as the model has by itself.
#[test]
fn gemma_4_is_measured_by_the_soft_tokens_that_it_makes() {
    let gemma4 = model("demo-gemma4");
    let tokens = |what: &str| -> Vec<u64> {
        let events = events_of(&gemma4, what);
        let prompt = events.iter().map(|event| event["prompt_tokens"].as_u64());
        prompt.map(Option::unwrap).collect()
    };
    let clips = tokens("audio");
    assert_eq!(clips.len(), 3);
    assert_eq!(clips[1] - clips[0], 7 * 25);
    assert_eq!(clips[2] - clips[1], 20 * 25);
    let voice = tokens("voice");
    assert_eq!(voice, [clips[0]; 2], "whole and streamed");
    let pictures = events_of(&gemma4, "image");
    assert_eq!(pictures.len(), 1);
    assert_eq!(pictures[0]["event"], "picture, 70 soft tokens");
}

#[test]
fn gemma_4_is_measured_in_text_and_refuses_a_context_that_it_has_not() {
    let gemma4 = model("demo-gemma4");
    let arguments = [
        "--model",
        &gemma4,
        "--prefill",
        "8",
        "--decode",
        "4",
        "--runs",
        "1",
    ];
    let report = bench(&arguments);
    assert_eq!(report["groups"].as_array().unwrap().len(), 4);
    assert!(report["decode_tok_s"].as_f64().unwrap() > 0.0, "{report}");
    let demo = demo();
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["bench", "--model", &demo, "--context", "131072"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--context: 131072") && told.contains("32768"),
        "{told}"
    );
}

#[test]
fn a_model_is_needed() {
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["bench", "voice"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("--model DIR") && told.lines().count() == 1,
        "{told}"
    );
}

#[test]
fn what_guesses_can_give_and_what_they_can_cost_is_measured() {
    let arguments = ["decode", "--model", &demo(), "--prefill", "8"];
    let report = bench(
        &[
            &arguments[..],
            &["--decode", "4", "--runs", "1", "--guess", "2,4"],
        ]
        .concat(),
    );
    let tokens: Vec<u64> = report["passes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pass| pass["tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(tokens, [1, 2, 4]);
    for key in ["plain_tok_s", "guessing_tok_s"] {
        assert!(report["by_chance"][key].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn answers_that_are_decoded_together_are_measured_beside_one() {
    let arguments = ["decode", "--model", &demo(), "--prefill", "8"];
    let report = bench(
        &[
            &arguments[..],
            &["--decode", "8", "--runs", "1", "--answers", "2,4"],
        ]
        .concat(),
    );
    let shares = report["shares"].as_array().unwrap();
    let answers: Vec<u64> = shares
        .iter()
        .map(|share| share["answers"].as_u64().unwrap())
        .collect();
    assert_eq!(answers, [1, 2, 4]);
    for share in shares {
        for key in ["decode_tok_s", "pass_ms", "speed"] {
            assert!(share[key].as_f64().unwrap() > 0.0, "{report}");
        }
    }
}
