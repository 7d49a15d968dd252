//! What cannot be: one line that says why, and nothing is written.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Board, demo, locked_broker, said};
use crate::broker::free_port;
use crate::private_bus::OUTSIDER;

const QUIET: [&str; 3] = ["--yes", "--no-camera", "--no-microphone"];

#[track_caller]
fn refused(board: &Board, command: &mut Command, code: i32, words: &[&str]) {
    let before = std::fs::read_to_string(board.config()).ok();
    let output = command.output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for word in words {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
    assert!(!told.contains("panicked"), "{told}");
    assert_eq!(std::fs::read_to_string(board.config()).ok(), before);
    assert!(board.written().is_empty(), "{:?}", board.written());
}

#[test]
fn what_cannot_be_used_is_told_in_a_line_and_nothing_is_written() {
    let board = Board::new();
    board.write_before();
    let run = |arguments: &[&str], code, words: &[&str]| {
        let mut command = board.setup(&QUIET);
        if !arguments.contains(&"--broker") {
            command.arg("--no-broker");
        }
        refused(&board, command.args(arguments), code, words);
    };
    run(&["--model", "/nowhere"], 66, &["/nowhere is no model"]);
    run(&["--model", "gemma-5"], 64, &["gemma-5", "gemma-4-e2b"]);
    run(&["--model", "google/demo"], 69, &["HF_HUB_OFFLINE"]);
    run(
        &["--broker", "http://h"],
        64,
        &["mqtt.url", "unknown scheme"],
    );
    run(
        &["--name", "My Pi", "--broker", "h", "--no-test"],
        64,
        &["mqtt.node"],
    );
    let nobody = format!("127.0.0.1:{}", free_port());
    run(
        &["--broker", &nobody],
        69,
        &["failing  broker", "refused", "--no-test"],
    );
    let place = tempfile::tempdir().unwrap();
    let broker = locked_broker(place.path());
    let locked = format!("127.0.0.1:{}", broker.port);
    run(
        &["--broker", &locked],
        69,
        &["failing  broker", "mqtt.username"],
    );
    let user = [
        "--broker",
        &locked,
        "--broker-user",
        "gemmad",
        "--broker-password-file",
    ];
    run(
        &[&user[..], &["/nowhere"]].concat(),
        66,
        &["password", "/nowhere"],
    );
    std::fs::write(place.path().join("empty"), "\n").unwrap();
    let empty = place.path().join("empty");
    run(
        &[&user[..], &[empty.to_str().unwrap()]].concat(),
        66,
        &["empty"],
    );

    let devices = |arguments: &[&str], code, words: &[&str]| {
        let mut command = board.setup(&["--yes", "--no-broker"]);
        refused(&board, command.args(arguments), code, words);
    };
    let none = ["--no-camera", "--microphone", "no-such-card"];
    devices(
        &none,
        69,
        &["failing  microphone", "no-such-card", "--no-test"],
    );
    let none = ["--no-microphone", "--camera", "/dev/nowhere"];
    devices(&none, 69, &["failing  camera", "/dev/nowhere"]);
    let twice = ["--no-camera", "--microphone", "a=x", "--microphone", "a=y"];
    devices(&twice, 64, &["given twice"]);
    let wrong = ["--no-camera", "--no-microphone", "--microphone", "x"];
    let output = board.setup(&wrong).output().unwrap();
    assert!(
        said(&output).contains("cannot be used with"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_file_with_a_mistake_is_left_to_people() {
    let board = Board::new();
    for (text, words) in [
        ("[modle]\n", "modle"),
        ("[model\n", "line 1"),
        (
            "microphone = [{ id = \"a\", device = \"b\" }]\n",
            "[[microphone]]",
        ),
    ] {
        std::fs::write(board.config(), text).unwrap();
        let mut command = board.setup(&["--yes", "--no-camera", "--no-broker", "--no-test"]);
        command
            .args(["--microphone", "hall", "--model"])
            .arg(demo());
        let output = command.output().unwrap();
        let told = said(&output);
        assert!([64, 78].contains(&output.status.code().unwrap()), "{told}");
        assert!(told.contains(words), "{told}");
        assert_eq!(board.read("gemmad.toml"), text);
    }
}

/// Where only root may write, that is said before anything is asked.
#[test]
fn whoever_may_not_write_is_told_so_first() {
    let board = Board::new();
    board.write_before();
    let open = |name: &str, mode| {
        let path = board.path(name);
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    open(".", 0o755);
    open("gemmad.toml", 0o644);
    let setup = board.setup(&QUIET);
    let is_root = std::fs::metadata("/proc/self")
        .is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0);
    if !is_root {
        open(".", 0o555);
        refused(&board, &mut board.setup(&QUIET), 74, &["sudo gemmad setup"]);
        open(".", 0o755);
        return;
    }
    // The program is where others may not look.
    let program = board.path("models/gemmad");
    std::fs::copy(env!("CARGO_BIN_EXE_gemmad"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(OUTSIDER).arg(&program).args(setup.get_args());
    refused(
        &board,
        &mut command,
        74,
        &["sudo gemmad setup", "--output", "--models-dir"],
    );
    open("gemmad.toml", 0o600);
    refused(
        &board,
        &mut command,
        66,
        &["cannot read", "sudo gemmad setup"],
    );
}
