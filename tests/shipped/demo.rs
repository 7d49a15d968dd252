//! `make demo` and `make soak` from inside: demo/ and tests/soak/ with this build of the daemon. They end well, they fail where
//! something is wrong, and they leave nothing behind.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// The demo, with a directory for what it makes.
fn demo(gemmad: &Path, temporary: &Path) -> Command {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command
        .arg(top.join("demo"))
        .arg(gemmad)
        .env("TMPDIR", temporary)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

fn gemmad() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gemmad"))
}

/// Names in the demo's directory, and processes that have it in their command line.
fn left(temporary: &Path) -> Vec<String> {
    let files = std::fs::read_dir(temporary).unwrap();
    let mut left: Vec<String> = files
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for process in std::fs::read_dir("/proc").unwrap() {
        let line = std::fs::read(process.unwrap().path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(temporary.to_str().unwrap()) {
            left.push(line);
        }
    }
    left
}

/// Plays all scenes; `model` is one of those that it knows, or none for the one that it takes by itself.
fn everything_is_published_rightly(model: Option<&str>, directory: &str) {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = demo(gemmad(), temporary.path());
    let output = command.args(model).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(told.contains("10 of 10 right"), "{told}");
    let model = format!("with models/{directory}: ");
    for words in [
        model.as_str(),
        "MQTT    gemmad/demo/mic/kitchen/event",
        "D-Bus   org.gemmad1.Events.Command",
        "D-Bus   org.gemmad1.Events.Caption",
        "memory of the weights, MiB",
        "heard ms",
    ] {
        assert!(told.contains(words), "{words}\n{told}");
    }
    assert_eq!(left(temporary.path()), Vec::<String>::new());
}

#[test]
fn everything_that_is_said_and_shown_is_published_rightly() {
    everything_is_published_rightly(None, "demo-gemma4");
}

#[test]
fn gemma_3n_publishes_the_same() {
    everything_is_published_rightly(Some("gemma3n"), "demo");
}

#[test]
fn a_model_that_is_none_is_told() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = demo(gemmad(), temporary.path());
    let output = command.arg("gemma5").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert_eq!(errors, "usage: python3 demo GEMMAD [gemma4 | gemma3n]\n");
}

#[test]
fn a_daemon_that_does_not_run_is_told_in_the_exit_code() {
    let temporary = tempfile::tempdir().unwrap();
    let output = demo(Path::new("/bin/false"), temporary.path())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("demo: the daemon ended with exit code 1"),
        "{errors}"
    );
    assert_eq!(left(temporary.path()), Vec::<String>::new());
}

#[test]
fn ctrl_c_ends_it_and_cleans_up() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = demo(gemmad(), temporary.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("somebody says"))
        .unwrap();
    let pid = child.id().to_string();
    let killed = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(killed.unwrap().success());
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(left(temporary.path()), Vec::<String>::new());
}

fn soak(script: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    command
}

#[test]
fn the_soak_judges_rightly_what_is_known() {
    let output = soak("tests/soak/check.py").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{told}");
}

#[test]
fn the_soak_finds_the_one_event_that_is_lost_on_the_way_to_the_broker_and_nothing_else() {
    let temporary = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let output = soak("tests/soak")
        .arg(gemmad())
        .args(["--events", "90", "--calm", "--sabotage", "lose", "--out"])
        .arg(out.path())
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}\n{errors}");
    let report = std::fs::read(out.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["verdict"], "bad");
    let wrong = report["wrong"].as_array().unwrap();
    let lost = |line: &serde_json::Value| {
        let line = line.as_str().unwrap();
        line.starts_with("lost: event ") && line.ends_with("never came to the broker")
    };
    assert!(!wrong.is_empty() && wrong.iter().all(lost), "{told}");
    assert_eq!(report["lost"], wrong.len());
    for door in ["microphones", "mqtt", "dbus", "wyoming"] {
        let row = &report["doors"][door];
        assert!(
            row["answered"].as_u64() > Some(0) && row["lost"] == 0,
            "{told}"
        );
    }
    assert!(left(temporary.path()).is_empty());
}
