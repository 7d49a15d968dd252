//! `gemmad eval tools` as a user runs it.

use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};

fn eval(arguments: &[&str]) -> std::process::Output {
    let mut command = Command::cargo_bin("gemmad").unwrap();
    let command = command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let command = command.args(["eval", "tools"]).args(arguments);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// One tool, and two sentences: one is to call it, the other is to be answered.
fn cases(directory: &Path) -> String {
    let path = directory.join("cases.json");
    let cases = json!({
        "instructions": "Static Context: the house:\n- names: Lamp, Sofa Lamp\n  areas: Hall\n",
        "same": [["Lamp", "Sofa Lamp"]], "optional": ["area"],
        "tools": [{ "type": "function", "function": { "name": "HassTurnOn", "description": "Turns on", "parameters": {
            "type": "object", "properties": { "name": { "type": "string" }, "area": { "type": "string" } }, "required": ["name"],
        }}}],
        "cases": [
            { "language": "en", "say": "Lamp on", "calls": [{ "name": "HassTurnOn", "arguments": { "name": "Lamp" } }] },
            { "language": "de", "say": "Danke" },
        ],
    });
    std::fs::write(&path, cases.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn sentences_are_counted_by_what_became_of_them() {
    let bench = tempfile::tempdir().unwrap();
    let cases = cases(bench.path());
    for model in ["models/demo", "models/demo-gemma4"] {
        let asked = [
            "--model",
            model,
            "--context",
            "4096",
            "--cases",
            &cases,
            "--max-tokens",
            "40",
        ];
        let output = eval(&[&asked[..], &["--json"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["sentences"], 2);
        let counted: u64 = report["counts"]
            .as_object()
            .unwrap()
            .values()
            .filter_map(Value::as_u64)
            .sum();
        assert_eq!(counted, 2, "{report}");
        for case in report["cases"].as_array().unwrap() {
            for call in case["called"].as_array().unwrap() {
                assert!(
                    ["Lamp", "Sofa Lamp"].contains(&call["arguments"]["name"].as_str().unwrap())
                );
            }
        }
        // The second sentence knows the instructions.
        assert!(
            report["cases"][1]["read_tokens"].as_u64() < report["cases"][0]["read_tokens"].as_u64()
        );
        let shown = eval(&[&asked[..], &["--verbose"]].concat());
        let shown = text(&shown.stdout);
        assert!(
            shown.contains("Danke") && shown.contains("wrong entity"),
            "{shown}"
        );
    }
}

#[test]
fn prompts_of_a_house_are_read_once_and_known_after() {
    let output = eval(&[
        "--model",
        "models/demo-gemma4",
        "--context",
        "16384",
        "--prompts",
        "100",
        "--json",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &rows[0];
    let read = |round: &str| row[round]["read_tokens"].as_u64().unwrap();
    let cold = row["cold"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(read("cold"), cold);
    assert!(
        row["second"]["prompt_tokens"].as_u64().unwrap() - read("second") >= cold,
        "{row}"
    );
    assert!(read("memory") < cold / 2, "{row}");
    // A checkpoint that is no pack has no files; what it would take is read.
    assert!(read("disk") <= row["disk"]["prompt_tokens"].as_u64().unwrap());
}

#[test]
fn files_that_are_no_cases_are_told() {
    let bench = tempfile::tempdir().unwrap();
    let path = bench.path().join("cases.json");
    for (content, told) in [
        ("{", "EOF"),
        (
            r#"{"instructions": "", "tools": [], "cases": []}"#,
            "it has no cases",
        ),
        (
            r#"{"instructions": "", "tools": [], "cases": [{"sya": "x"}]}"#,
            "sya",
        ),
    ] {
        std::fs::write(&path, content).unwrap();
        let output = eval(&["--model", "models/demo", "--cases", path.to_str().unwrap()]);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(
            message.contains(told) && message.contains("cases.json"),
            "{message}"
        );
    }
}
