//! `gemmad eval` as a user runs it: error rates are those that jiwer computes, and what stands in somebody's folder ends no run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use assert_cmd::Command;
use serde_json::Value;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn heldout(kind: &str) -> PathBuf {
    top().join("models/demo/heldout").join(kind)
}

fn eval(arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("gemmad").unwrap();
    let command = command.current_dir(top()).arg("eval").args(arguments);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = eval(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], code: i32, told: &[&str]) {
    let output = eval(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    for told in told {
        assert!(message.contains(told), "{told:?} is not in {message:?}");
    }
}

const GEMMA3N: [&str; 4] = ["--model", "models/demo", "--context", "512"];
const GEMMA4: [&str; 4] = ["--model", "models/demo-gemma4", "--context", "512"];
const AUDIO: &str = "models/demo/heldout/audio";
const IMAGES: &str = "models/demo/heldout/images";

/// Python with jiwer, installed once; `None` where it cannot be had.
#[allow(
    clippy::print_stderr,
    reason = "a test that is skipped says so where its reader looks"
)]
fn python_with_jiwer() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jiwer-4.0.0");
    let python = venv.join("bin/python");
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        let output = command.args(arguments).arg(&venv).output();
        output.is_ok_and(|output| output.status.success())
    };
    let there = || run(&python, &["-c", "import jiwer"]);
    if there() {
        return Some(python);
    }
    let pip = [
        "-c",
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-m', 'pip', 'install', '--quiet', 'jiwer==4.0.0']))",
    ];
    if run(Path::new("python3"), &["-m", "venv"]) && run(&python, &pip) && there() {
        return Some(python);
    }
    eprintln!(
        "skipped: jiwer cannot be installed (apt-get install python3-venv; it comes from PyPI)"
    );
    None
}

/// What jiwer computes for each row of a report: word and character error rate of all pairs, and the edits of each pair.
const JIWER: &str = "
import json, sys
import jiwer
def edits(found):
    return found.substitutions + found.deletions + found.insertions
for row in json.load(sys.stdin)['rows']:
    true, said = zip(*(pair['compared'] for pair in row['pairs']))
    true, said = list(true), list(said)
    print(json.dumps([
        jiwer.wer(true, said),
        jiwer.cer(true, said),
        [edits(jiwer.process_words(*pair)) for pair in zip(true, said)],
        [edits(jiwer.process_characters(*pair)) for pair in zip(true, said)],
    ]))
";

fn edits(pair: &Value, kind: &str) -> u64 {
    let kinds = ["substitutions", "deletions", "insertions"];
    let counts = kinds.map(|edit| pair[kind][edit].as_u64().unwrap());
    counts.iter().sum()
}

/// Both families, right and wrong answers: of the held-out recordings few words are wrong, of answers that are cut off many, and of
/// answers to another question most.
#[test]
fn error_rates_are_those_of_jiwer() {
    let Some(python) = python_with_jiwer() else {
        return;
    };
    let column = ["--column", "transcript", AUDIO];
    let both = [&["audio"], &GEMMA3N[..], &GEMMA4[..2], &column].concat();
    let slices = ["--matformer", "half", "--soft-token-padding", "none"];
    let captions = ["captions", "--column", "caption", IMAGES];
    let command = ["--prompt", "Return the command as JSON:"];
    let mut worst: f64 = 0.0;
    for arguments in [
        both.clone(),
        [&both[..], &["--exact"], &slices].concat(),
        [&both[..], &["--max-tokens", "4"]].concat(),
        [&both[..], &command].concat(),
        [&captions, &GEMMA3N[..], &GEMMA4[..2]].concat(),
    ] {
        let report = json(&arguments);
        let mut jiwer = std::process::Command::new(&python);
        let mut jiwer = jiwer
            .args(["-c", JIWER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = jiwer.stdin.take().unwrap();
        stdin.write_all(report.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = jiwer.wait_with_output().unwrap();
        assert!(output.status.success());
        let rows = report["rows"].as_array().unwrap();
        assert_eq!((rows.len(), text(&output.stdout).lines().count()), (2, 2));
        for (row, wanted) in rows.iter().zip(text(&output.stdout).lines()) {
            let wanted: Value = serde_json::from_str(wanted).unwrap();
            assert_eq!((&row["files"], &row["failed"]), (&24.into(), &0.into()));
            for (i, rate) in ["word_error_rate", "character_error_rate"]
                .into_iter()
                .enumerate()
            {
                let (got, wanted) = (row[rate].as_f64().unwrap(), wanted[i].as_f64().unwrap());
                assert!(
                    (got - wanted).abs() < 1e-12,
                    "{rate}: {got}, jiwer {wanted}"
                );
                worst = worst.max(got);
            }
            for (i, kind) in [(2, "words"), (3, "characters")] {
                for (pair, wanted) in row["pairs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .zip(wanted[i].as_array().unwrap())
                {
                    assert_eq!(edits(pair, kind), wanted.as_u64().unwrap(), "{pair}");
                }
            }
        }
    }
    assert!(worst > 0.5, "nothing was far from the truth: {worst}");
}

/// As many right as by the reference implementation, which their README.md tell, in lower case and without punctuation, too.
#[test]
fn what_is_asked_for_is_set_beside_one_another() {
    let report = json(
        &[
            &["audio", "--matformer", "full", "--matformer", "half"][..],
            &[
                "--soft-token-padding",
                "reference",
                "--soft-token-padding",
                "none",
            ],
            &GEMMA3N[..],
            &GEMMA4[..2],
            &["--column", "transcript", AUDIO],
        ]
        .concat(),
    );
    let rows = report["rows"].as_array().unwrap();
    let told = |key: &str| -> Vec<&str> {
        rows.iter()
            .map(|row| row[key].as_str().unwrap_or("-"))
            .collect()
    };
    let (a, b) = ("models/demo", "models/demo-gemma4");
    assert_eq!(told("model"), [a, a, a, a, b]);
    assert_eq!(told("recipe"), ["bf16"; 5]);
    assert_eq!(told("matformer"), ["full", "full", "half", "half", "full"]);
    let padding = told("soft_token_padding");
    assert_eq!(padding, ["reference", "none", "reference", "none", "-"]);
    for row in rows {
        let right = row["exact_matches"].as_u64().unwrap();
        assert!((21..=24).contains(&right), "{row}");
        assert!(row["real_time_factor"].as_f64().unwrap() > 0.0);
        let wrong = row["word_error_rate"].as_f64().unwrap();
        assert_eq!(wrong > 0.0, right < 24, "{row}");
    }
}

#[test]
fn pictures_in_each_size() {
    let sizes = [
        "--soft-tokens",
        "70",
        "--soft-tokens",
        "280",
        "--resolution",
        "256",
    ];
    let report = json(
        &[
            &["captions", "--column", "caption"][..],
            &sizes,
            &GEMMA3N[..],
            &GEMMA4[..2],
            &["--table", "models/demo/heldout/images/expected.tsv", IMAGES],
        ]
        .concat(),
    );
    let rows = report["rows"].as_array().unwrap();
    let sizes: Vec<_> = rows
        .iter()
        .map(|row| (&row["resolution_px"], &row["soft_tokens"]))
        .collect();
    let none = Value::Null;
    let (side, few, many) = (256.into(), 70.into(), 280.into());
    assert_eq!(sizes, [(&side, &none), (&none, &few), (&none, &many)]);
    for row in rows {
        assert!(row["seconds_per_file"].as_f64().unwrap() > 0.0);
        assert_eq!(row["pairs"].as_array().unwrap().len(), 24);
    }
    // What it was trained with.
    let right = rows[1]["exact_matches"].as_u64().unwrap();
    assert!((22..=24).contains(&right), "{right}");
}

/// A folder as somebody keeps it: what is missing or no sound is told by name and counted, and the rest is judged.
#[test]
fn what_cannot_be_judged_is_told_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let clip = heldout("audio").join("002_combo.wav");
    std::fs::copy(&clip, dir.path().join("fan – küche.wav")).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "no sound").unwrap();
    // Half a second in which nobody speaks.
    let mut silence = std::fs::read(&clip).unwrap();
    silence.truncate(44 + 16_000);
    silence[44..].fill(0);
    std::fs::write(dir.path().join("silence.wav"), silence).unwrap();
    let table = "# spoken by me\n\
        fan – küche.wav\tturn the hallway “fan” off\n\
        gone.wav\tanything\n\
        silence.wav\t\n\
        fan – küche.wav\tturn the hallway “fan” off\n\
        notes.txt\tno sound\n";
    std::fs::write(dir.path().join("mine.tsv"), table).unwrap();
    let directory = dir.path().to_str().unwrap();
    let arguments = [&["audio"], &GEMMA4[..], &[directory]].concat();
    let output = eval(&[&arguments[..], &["--verbose"]].concat());
    let (table, told) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}");
    for line in ["gone.wav", "notes.txt", "count no more: 1"] {
        let lines = told.lines().filter(|told| told.contains(line));
        assert_eq!(lines.count(), 1, "{line}: {told}");
    }
    assert!(
        table.contains("  fan – küche.wav: 0 of 5 words wrong"),
        "{table}"
    );
    assert!(
        table.contains("    said  Turn the hallway fan off.\n"),
        "{table}"
    );
    let last = table.lines().last().unwrap();
    let cells: Vec<&str> = last.split_whitespace().collect();
    assert_eq!(
        cells[..9],
        [
            "models/demo-gemma4",
            "bf16",
            "full",
            "-",
            "2",
            "2",
            "0.00",
            "0.00",
            "2"
        ]
    );
    let report = json(&arguments);
    let row = &report["rows"][0];
    let failures: Vec<&str> = row["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| failure["file"].as_str().unwrap())
        .collect();
    assert_eq!(failures, ["gone.wav", "notes.txt"]);
    assert_eq!(row["pairs"][1]["hypothesis"], "");
    // As it stands, two words have another case or quotes, and one ends with a full stop.
    let report = json(&[&arguments[..], &["--exact"]].concat());
    assert_eq!(edits(&report["rows"][0], "words"), 3);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_measured() {
    let audio = |arguments: &[&'static str]| [&["audio", AUDIO][..], arguments].concat();
    let transcript = ["--column", "transcript"];
    let with = |arguments: &[&'static str]| audio(&[&transcript, arguments].concat());
    refused(
        &audio(&GEMMA4),
        65,
        &["expected.tsv", "line 1", "kind, transcript", "--column"],
    );
    let padding = with(&[&GEMMA4[..], &["--soft-token-padding", "none"]].concat());
    refused(&padding, 64, &["Gemma 3n", "leave it out"]);
    let half = ["--matformer", "half"];
    refused(
        &with(&[&GEMMA4[..], &half].concat()),
        78,
        &["MatFormer slice"],
    );
    let both = with(&[&GEMMA4[..], &GEMMA3N[..2], &["--matformer", "quarter"]].concat());
    refused(&both, 78, &["quarter", "full, half"]);
    let sizes = |arguments: &[&'static str]| {
        [&["captions", IMAGES, "--column", "caption"], arguments].concat()
    };
    let foreign = sizes(&[&GEMMA4[..], &["--resolution", "256"]].concat());
    refused(&foreign, 78, &["resolution_px", "soft_tokens"]);
    let none = sizes(&[&GEMMA4[..], &["--soft-tokens", "100"]].concat());
    refused(&none, 78, &["100", "70"]);
    let nowhere = ["audio", "models/demo/heldout", "--model", "models/demo"];
    refused(&nowhere, 66, &["0 files end in .tsv", "--table"]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.tsv"), "gone.wav\tanything\n").unwrap();
    let output = eval(&[&["audio", dir.path().to_str().unwrap()], &GEMMA4[..]].concat());
    assert_eq!(output.status.code(), Some(65));
    assert!(text(&output.stderr).contains("none of the 1 files"));
    assert_eq!(eval(&[]).status.code(), Some(64));
}

/// A pack beside its checkpoint: on a text, and in what its towers make of sound and pictures.
#[test]
fn what_a_pack_costs() {
    let dir = tempfile::tempdir().unwrap();
    let pack = dir.path().join("demo.pack");
    let pack = pack.to_str().unwrap();
    let model = "models/demo-gemma4";
    let made = Command::cargo_bin("gemmad")
        .unwrap()
        .current_dir(top())
        .args(["pack", "--from", model, "--to", pack, "--recipe", "q8"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let sentences = dir.path().join("sentences");
    std::fs::write(
        &sentences,
        "Turn the hallway fan off. Open the bathroom gate.",
    )
    .unwrap();
    let read = ["--text", sentences.to_str().unwrap(), "--reference", model];
    let seen = [
        "--audio",
        "models/demo/heldout/audio/002_combo.wav",
        "--image",
        "models/demo/heldout/images/002_picture.png",
        "--reference",
        model,
    ];
    for (path, least, most) in [(pack, 1e-4, 0.05), (model, 0.0, 0.0)] {
        let of = ["--model", path];
        let text = json(&[&of[..], &read].concat());
        let heard = json(&[&["soft-tokens"], &of[..], &seen].concat());
        for difference in [
            &text["logits_difference"],
            &heard["audio_difference"],
            &heard["image_difference"],
            &heard["files"][0]["difference"],
        ] {
            let difference = difference.as_f64().unwrap();
            assert!((least..=most).contains(&difference), "{path}: {difference}");
        }
        let tokens = heard["files"][0]["soft_tokens"].as_u64().unwrap();
        assert!(tokens > 10 && text["top1_agreement"].as_f64().unwrap() > 0.9);
    }
}
