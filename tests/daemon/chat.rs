//! `gemmad chat` beside a running daemon, which has the model.

use std::process::Command;

use crate::private_bus::{PrivateBus, is_root};
use crate::process::{Bench, expected, heldout};
use crate::terminal::{CTRL_C, Terminal};

const COMMAND: &str = "Turn off the kitchen light. Return the command as JSON:";
const ANSWER: &str = r#"{"action":"turn_off","device":"light","area":"kitchen"}"#;
const PICTURE: &str = "004_picture.png";
const CLIP: &str = "003_both.wav";

fn chat(bench: &Bench, arguments: &[&str]) -> Command {
    let place = bench.dir.path();
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
    command.arg("chat").args(arguments).arg("--config");
    command.arg(place.join("gemmad.toml"));
    command.env("HOME", place).env_remove("XDG_STATE_HOME");
    command
}

/// What comes of lines in a pipe: exit code, standard output, standard error.
fn piped(command: Command, lines: &str) -> (i32, String, String) {
    let output = assert_cmd::Command::from_std(command)
        .write_stdin(lines)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// One answer at a time, so that a question behind a long one waits.
fn bench(bus: &PrivateBus) -> Bench {
    let bench = Bench::new();
    let queue = "[queue]\nmax_tokens = 3000\nanswers = 1";
    bench.write_config(Some(&bus.address()), "", queue);
    bench
}

#[test]
fn the_running_daemon_answers() {
    let bus = PrivateBus::open();
    let bench = bench(&bus);
    let gemmad = bench.start();
    let (picture, clip) = (heldout("images").join(PICTURE), heldout("audio").join(CLIP));
    let (picture, clip) = (picture.display(), clip.display());
    let lines = format!(
        "{COMMAND}\n/new\n/image {picture} Describe what the camera sees.\n/new\n/audio {clip}\n\
         Transcribe the following speech segment in English:\n/stats\n/slice\n/slice half\n{COMMAND}\n"
    );
    let (code, out, err) = piped(chat(&bench, &["--temperature=0"]), &lines);
    assert_eq!(code, 0, "{err}");
    let (caption, transcript) = (
        expected("images", PICTURE, "caption"),
        expected("audio", CLIP, "transcript"),
    );
    let shown: Vec<&str> = out.lines().collect();
    assert_eq!(shown[..3], [ANSWER, &caption, &transcript], "{err}");
    assert!(shown[3].starts_with("last answer: "), "{out}");
    assert!(
        shown[4].contains("text ") && shown[4].contains("audio "),
        "{out}"
    );
    assert_eq!(shown[5..], ["full (answers)", ANSWER], "{err}");
    // A second turn goes on with what the daemon keeps of the first.
    let twice = format!("{COMMAND}\n{COMMAND}\n");
    let (code, _, err) = piped(chat(&bench, &["--temperature=0"]), &twice);
    assert!(code == 0 && !err.contains("knows nothing"), "{err}");

    // In the daemon's words, and then it goes on.
    let two = format!("/image {picture}\n/image {picture}\nWhat are they?\n{COMMAND}\n");
    for (lines, wanted, words) in [
        (
            format!("/slice nine\n{COMMAND}\n"),
            69,
            &["nine", "full, half"][..],
        ),
        (
            format!("/thinking on\n{COMMAND}\n"),
            69,
            &["Gemma 3n", "thinking"],
        ),
        (two, 64, &["one picture and one clip"]),
        ("/listen\n".to_owned(), 64, &["no microphone is configured"]),
    ] {
        let (code, _, err) = piped(chat(&bench, &["--temperature=0"]), &lines);
        assert_eq!(code, wanted, "{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{err}");
    }
    let (code, _, err) = piped(chat(&bench, &["--top-k=3"]), "Hello.\n");
    assert_eq!(code, 64, "{err}");
    assert!(
        err.contains("--top-k") && err.contains("--model DIR"),
        "{err}"
    );
    gemmad.stop();
}

#[test]
fn ctrl_c_ends_the_daemons_work_and_a_daemon_that_goes_is_told() {
    let bus = PrivateBus::open();
    let bench = bench(&bus);
    let gemmad = bench.start();
    let mut terminal = Terminal::start(&chat(&bench, &["--temperature=0"]));
    terminal.wait_for("demo: the model of the running gemmad");
    terminal.types(COMMAND);
    terminal.wait_for(ANSWER);
    // Somebody else has asked for a lot, so that this question waits for as long as it takes.
    bench.long_question("tedious", 2000);
    bench.wait_for("response/ask/partial", 1);
    terminal.types("Hello?");
    terminal.wait_for("reading");
    terminal.press(CTRL_C);
    terminal.wait_for("gemmad: stopped: what was asked last is no part of the conversation");
    terminal.types("Is anybody there?");
    terminal.wait_for("> Is anybody there?");
    gemmad.kill();
    terminal.wait_for("gemmad: the running gemmad went away");
    terminal.types("And now?");
    terminal.wait_for("gemmad: no gemmad is on the bus");
    let gemmad = bench.start();
    terminal.types(COMMAND);
    terminal.wait_for("gemmad: this answer knows nothing of what was said before");
    terminal.types("/quit");
    let (status, shown) = terminal.ended();
    assert!(status.success(), "{shown}");
    assert_eq!(shown.matches(ANSWER).count(), 2, "{shown}");
    gemmad.stop();
}

#[test]
fn a_daemon_that_may_not_be_called_is_no_reason_to_load_its_model_twice() {
    if !is_root() {
        return;
    }
    // It may have its name, and nobody may call it.
    let bus = PrivateBus::like_the_system_bus(
        r#"<policy user="root"><allow own="org.gemmad1"/></policy>"#,
    );
    let bench = bench(&bus);
    let gemmad = bench.start();
    let (code, out, err) = piped(chat(&bench, &[]), "Hello.\n");
    assert_eq!(
        (code, out.as_str(), err.lines().count()),
        (69, "", 1),
        "{err}"
    );
    assert!(
        err.contains("may not call") && err.contains("usermod"),
        "{err}"
    );
    gemmad.stop();

    // On no bus at all.
    let text = std::fs::read_to_string(bench.dir.path().join("gemmad.toml")).unwrap();
    let text = text.replace("[dbus]\n", "[dbus]\nenabled = false\n");
    std::fs::write(bench.dir.path().join("gemmad.toml"), text).unwrap();
    let gemmad = bench.start();
    let (code, _, err) = piped(chat(&bench, &[]), "Hello.\n");
    assert_eq!((code, err.lines().count()), (69, 1), "{err}");
    assert!(
        err.contains("is not on its bus") && err.contains("--model DIR"),
        "{err}"
    );
    gemmad.stop();
    // None runs: the model that it would have is opened here.
    let (code, out, err) = piped(chat(&bench, &["--temperature=0"]), &format!("{COMMAND}\n"));
    assert_eq!((code, out), (0, format!("{ANSWER}\n")), "{err}");
}
