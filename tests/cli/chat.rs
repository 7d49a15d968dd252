//! `gemmad chat` with a model of its own, in a terminal and in a pipe, on the demo models.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use gemmad::guard::harmless;

use crate::common::{fixtures, text_alone};
use crate::file_pcm::write_speech;
use crate::process::{expected, heldout};
use crate::terminal::{
    BACKSPACE, CTRL_A, CTRL_C, CTRL_D, CTRL_K, DOWN, ENTER, LEFT, TAB, Terminal, UP,
};

const COMMAND: &str = "Turn off the kitchen light. Return the command as JSON:";
const ANSWER: &str = r#"{"action":"turn_off","device":"light","area":"kitchen"}"#;
const CLIP: &str = "009_both.wav";
const PICTURE: &str = "004_picture.png";

fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("models")
        .join(name)
}

/// A folder with a picture, a clip and the models, in which somebody chats who has no past.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    std::fs::copy(heldout("images").join(PICTURE), at("door.png")).unwrap();
    std::fs::copy(heldout("audio").join(CLIP), at("command.wav")).unwrap();
    for name in ["demo", "demo-gemma4"] {
        symlink(demo(name), at(name)).unwrap();
    }
    place
}

fn chat(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
    command
        .arg("chat")
        .args(arguments)
        .current_dir(place)
        .env("HOME", place)
        .env_remove("XDG_STATE_HOME");
    command
}

/// What comes of lines in a pipe: exit code, standard output, standard error.
fn piped(command: Command, lines: &[u8]) -> (i32, String, String) {
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

/// The session that docs/chat.md shows.
fn documented() -> Vec<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/chat.md");
    let text = std::fs::read_to_string(document).unwrap();
    let begin = text.find("```text\n$ gemmad chat").unwrap();
    let session = text[begin..].lines().skip(1);
    let session = session.take_while(|line| *line != "```");
    session.map(str::to_owned).collect()
}

/// Figures of `/stats` are another machine's, and so is what takes no time there.
fn without_figures(line: &str) -> String {
    let speed = line.split_inclusive(')').next().unwrap_or_default();
    let line = match ["last answer: ", "memory: "].map(|begin| line.starts_with(begin)) {
        [true, _] => speed,
        [_, true] => line,
        _ => return line.to_owned(),
    };
    let words = line.split(' ').map(|word| {
        let is_figure = word.contains(|c: char| c.is_ascii_digit());
        if is_figure { "…" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_terminal_shows_what_the_document_shows() {
    let place = place();
    let session = documented();
    let arguments = session[0].strip_prefix("$ gemmad chat ").unwrap();
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut terminal = Terminal::start(&chat(place.path(), &arguments));
    for line in &session {
        if let Some(typed) = line.strip_prefix("> ") {
            terminal.types(typed);
        }
    }
    let (status, shown) = terminal.ended();
    assert!(status.success(), "{shown}");
    let shown: Vec<String> = shown.lines().map(without_figures).collect();
    let wanted: Vec<String> = session[1..]
        .iter()
        .map(|line| without_figures(line))
        .collect();
    assert_eq!(shown, wanted);
}

#[test]
fn lines_are_edited_and_remembered_for_nobody_else() {
    let place = place();
    let history = place.path().join(".local/state/gemmad/chat-history");
    let arguments = ["--model", "demo", "--temperature=0"];
    let mut terminal = Terminal::start(&chat(place.path(), &arguments));
    terminal.wait_prompt();
    // A word too much at the end, one that lacks a letter, and a beginning that was forgotten.
    terminal.press("off the kitchen ligt. Return the command as JSON: please");
    terminal.press(&BACKSPACE.repeat(" please".len()));
    terminal.press(&LEFT.repeat("t. Return the command as JSON:".len()));
    terminal.press("h");
    terminal.press(CTRL_A);
    terminal.press("Turn ");
    terminal.press(ENTER);
    terminal.wait_for(ANSWER);
    // Cleared, and gone.
    terminal.wait_prompt();
    terminal.press("nonsense");
    terminal.wait_for("> nonsense");
    terminal.press(CTRL_C);
    terminal.wait_prompt();
    // The arrow goes back to what was asked, and away from it again.
    terminal.press(UP);
    terminal.wait_for(&format!("{ANSWER}\n> nonsense\n> {COMMAND}"));
    terminal.press(DOWN);
    terminal.wait_empty();
    // What is behind the cursor is cut off.
    terminal.press("/new and more");
    terminal.press(&LEFT.repeat(" and more".len()));
    terminal.press(CTRL_K);
    terminal.press(ENTER);
    terminal.wait_for("> /new\ngemmad: a new conversation");
    terminal.wait_prompt();
    terminal.press(&format!("/im{TAB}doo{TAB}"));
    terminal.wait_for("> /image door.png");
    terminal.press(CTRL_C);
    terminal.wait_prompt();
    terminal.press(CTRL_D);
    let (status, shown) = terminal.ended();
    assert!(status.success(), "{shown}");

    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode(&history), mode(history.parent().unwrap())),
        (0o600, 0o700)
    );
    let kept = std::fs::read_to_string(&history).unwrap();
    assert!(kept.contains(COMMAND) && kept.contains("/new"), "{kept}");
    assert!(!kept.contains("nonsense"), "{kept}");

    // Days later.
    let mut terminal = Terminal::start(&chat(place.path(), &arguments));
    terminal.wait_prompt();
    terminal.press(UP);
    terminal.wait_for("> /new");
    terminal.press(UP);
    terminal.wait_for(&format!("> {COMMAND}"));
    terminal.press(ENTER);
    terminal.wait_for(ANSWER);
    terminal.types("/quit");
    assert!(terminal.ended().0.success());

    std::fs::remove_file(&history).unwrap();
    let forgetful = ["--model", "demo", "--no-history"];
    let mut terminal = Terminal::start(&chat(place.path(), &forgetful));
    terminal.types("/stats");
    terminal.types("/quit");
    assert!(terminal.ended().0.success());
    assert!(!history.exists());
    // In its place something that is no file: told, and done without.
    std::fs::create_dir(&history).unwrap();
    let mut terminal = Terminal::start(&chat(place.path(), &arguments));
    terminal.wait_for("lines are not remembered");
    terminal.types("/quit");
    assert!(terminal.ended().0.success());
}

/// Wild sampling babbles for as long as it may.
const BABBLE: [&str; 5] = [
    "--temperature=50",
    "--top-k=0",
    "--top-p=1",
    "--seed=7",
    "--max-tokens=3900",
];

#[test]
fn ctrl_c_ends_an_answer_and_the_conversation_goes_on() {
    let place = place();
    let mut arguments = vec!["--model", "demo"];
    arguments.extend(BABBLE);
    let mut terminal = Terminal::start(&chat(place.path(), &arguments));
    for stopped in 1..=2 {
        terminal.types("Hello.");
        let before = terminal.shows().len();
        terminal.wait_until("some words", |terminal| {
            terminal.shows().len() > before + 200
        });
        terminal.press(CTRL_C);
        let told = "gemmad: stopped: what was asked last is no part of the conversation";
        terminal.wait_until(told, |terminal| {
            terminal.shows().matches(told).count() == stopped
        });
    }
    terminal.types("/quit");
    let (status, shown) = terminal.ended();
    assert!(status.success(), "{shown}");
    let stopped = shown.matches("gemmad: stopped").count();
    assert_eq!(stopped, 2, "{shown}");
}

#[test]
fn in_a_pipe_each_line_is_a_turn_and_what_goes_wrong_ends_nothing() {
    let place = place();
    let at = |name: &str| place.path().join(name);
    std::fs::write(at("notes.txt"), "no picture, no sound").unwrap();
    std::fs::write(at("huge.png"), vec![0; (16 << 20) + 1]).unwrap();
    let made = Command::new("mkfifo").arg(at("pipe.png")).status();
    assert!(made.unwrap().success());
    let long = write_long(&at("long.wav"));
    assert!(long);
    let caption = expected("images", PICTURE, "caption");
    let transcript = expected("audio", CLIP, "transcript");
    let describe = "Describe what the camera sees.";
    let transcribe = "Transcribe the following speech segment in English:";
    for model in ["demo", "demo-gemma4"] {
        let lines = format!(
            "{COMMAND}\n\n/new\n/image door.png {describe}\n/new\n/audio command.wav\n{transcribe}\n/quit\nnever asked\n"
        );
        let command = chat(place.path(), &["--model", model, "--temperature=0"]);
        let (code, out, err) = piped(command, lines.as_bytes());
        assert_eq!(code, 0, "{err}");
        assert_eq!(out, format!("{ANSWER}\n{caption}\n{transcript}\n"));
        assert!(!err.contains("knows nothing"), "{err}");
    }

    let wrong: [(&[u8], i32, &[&str]); 12] = [
        (b"/image", 64, &["which file?"]),
        (b"/image gone.png", 66, &["gone.png", "No such file"]),
        (
            b"/image notes.txt What is it?",
            65,
            &["notes.txt", "neither JPEG nor PNG"],
        ),
        (b"/image huge.png", 65, &["huge.png", "16777216"]),
        (b"/image pipe.png", 66, &["pipe.png", "it is no file"]),
        (b"/audio notes.txt", 65, &["notes.txt", "not audio"]),
        (
            b"/audio long.wav",
            65,
            &["long.wav", "31 s", "30 s", "gemmad transcribe"],
        ),
        (b"/imgae door.png", 64, &["no /imgae, but /image:", "/help"]),
        (b"/thinking", 78, &["Gemma 3n", "Gemma 4"]),
        (b"/thinking maybe", 64, &["maybe", "on or off"]),
        (
            b"/slice hlaf",
            64,
            &["no slice hlaf, but half", "full, half"],
        ),
        (b"\xff\xfe", 65, &["not UTF-8"]),
    ];
    for (line, wanted, words) in wrong {
        let lines = [line, b"\n", COMMAND.as_bytes(), b"\n"].concat();
        let command = chat(place.path(), &["--model", "demo", "--temperature=0"]);
        let (code, out, err) = piped(command, &lines);
        let shown = String::from_utf8_lossy(line);
        assert_eq!(
            (code, out.as_str()),
            (wanted, &*format!("{ANSWER}\n")),
            "{shown}: {err}"
        );
        assert_eq!(err.lines().count(), 1, "{shown}: {err}");
        for word in words {
            assert!(err.contains(word), "{word:?} is not in: {err}");
        }
    }

    // A model that does not see.
    let blind = text_alone(&fixtures());
    let command = chat(place.path(), &["--model", blind.path().to_str().unwrap()]);
    let (code, _, err) = piped(command, b"/image door.png\n/stats\n");
    assert_eq!(code, 65, "{err}");
    assert!(err.contains("has no vision tower"), "{err}");
    // None at all.
    let command = chat(place.path(), &["--config", "gone.toml"]);
    let (code, _, err) = piped(command, b"Hello.\n");
    assert_eq!((code, err.lines().count()), (78, 1), "{err}");
}

/// 31 s of a quiet tone.
fn write_long(path: &Path) -> bool {
    let tone = ["synth", "31", "sine", "440", "vol", "0.1"];
    let format = ["-D", "-n", "-r", "16000", "-c", "1", "-b", "16"];
    let made = Command::new("sox")
        .args(format)
        .arg(path)
        .args(tone)
        .status();
    made.unwrap().success()
}

#[test]
fn slices_instructions_and_thoughts_begin_a_new_conversation() {
    let place = place();
    let lines = format!(
        "/slice\n/slice half\n/slice\n{COMMAND}\n/system Be brief.\n{COMMAND}\n/system\n/stats\n"
    );
    let command = chat(place.path(), &["--model", "demo", "--temperature=0"]);
    let (code, out, err) = piped(command, lines.as_bytes());
    assert_eq!(code, 0, "{err}");
    let shown: Vec<&str> = out.lines().collect();
    assert_eq!(
        shown[..3],
        ["full (answers), half", "half (answers), full", ANSWER]
    );
    assert!(shown.last().unwrap().starts_with("memory: text "), "{out}");
    for how in [
        "another slice",
        "these instructions",
        "without instructions",
    ] {
        assert!(
            err.contains("a new conversation, with") && err.contains(how),
            "{err}"
        );
    }

    let lines = format!("/thinking\n{COMMAND}\n/thoughts\n/thinking off\n{COMMAND}\n/thoughts\n");
    let command = chat(place.path(), &["--model", "demo-gemma4", "--temperature=0"]);
    let (code, out, err) = piped(command, lines.as_bytes());
    assert_eq!(code, 0, "{err}");
    assert!(out.ends_with(&format!("{ANSWER}\n")), "{out}");
    assert!(
        err.contains("with thoughts before each answer") && err.contains("/thinking on"),
        "{err}"
    );
}

#[test]
fn a_full_context_is_told_with_what_to_do() {
    let place = place();
    let mut arguments = vec!["--model", "demo", "--context=200"];
    arguments.extend(BABBLE);
    let command = chat(place.path(), &arguments);
    let (code, out, err) = piped(command, b"Hello.\nHello again.\n/stats\n");
    assert_eq!(code, 0, "{err}");
    let told: Vec<&str> = err.lines().collect();
    assert!(
        told[0].contains("the context is full") && told[0].contains("/new"),
        "{err}"
    );
    assert!(
        told[1].contains("knows nothing of what was said before"),
        "{err}"
    );
    assert!(out.contains("of 200 tokens"), "{out}");
}

/// What a model says may be anything, also what a terminal obeys.
#[test]
fn nothing_that_is_answered_moves_the_cursor() {
    let place = place();
    let options = [
        "--model",
        "demo",
        "--temperature=50",
        "--top-k=0",
        "--top-p=1",
        "--max-tokens=200",
    ];
    let mut was_harmful = false;
    for seed in ["--seed=5", "--seed=6", "--seed=7"] {
        let mut ask = Command::new(env!("CARGO_BIN_EXE_gemmad"));
        ask.current_dir(place.path())
            .arg("ask")
            .args(options)
            .args([seed, "--json", "Hello."]);
        let said: serde_json::Value =
            serde_json::from_slice(&ask.output().unwrap().stdout).unwrap();
        let said = said["text"].as_str().unwrap();
        was_harmful |= said.contains(|c| harmless::is_harmful(c) && !matches!(c, '\n' | '\t'));
        let mut arguments = options.to_vec();
        arguments.push(seed);
        let (_, out, _) = piped(chat(place.path(), &arguments), b"Hello.\n");
        let shown = harmless::text(said);
        assert_eq!(
            out.trim_end_matches('\n'),
            shown.trim_end_matches('\n'),
            "{seed}"
        );
    }
    assert!(
        was_harmful,
        "no seed says anything that a terminal would obey"
    );
}

#[test]
fn what_is_said_at_a_microphone_is_asked() {
    let place = place();
    write_speech(&place.path().join("hall.raw"), CLIP);
    let microphone = |id: &str| {
        format!("[[microphone]]\nid = \"{id}\"\ntype = \"replay\"\ndevice = \"{id}.raw\"\n")
    };
    let config = place.path().join("gemmad.toml");
    std::fs::write(&config, microphone("hall")).unwrap();
    let arguments = [
        "--model",
        "demo",
        "--temperature=0",
        "--config",
        "gemmad.toml",
    ];
    let (code, out, err) = piped(chat(place.path(), &arguments), b"/listen\n");
    assert_eq!(code, 0, "{err}");
    let transcript = expected("audio", CLIP, "transcript");
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some(&*format!("({transcript})")), "{err}");
    assert!(
        lines.next().is_some_and(|answer| !answer.is_empty()),
        "{out}"
    );
    assert!(
        err.starts_with("hall: listening\n") && err.contains("hall: speech ends"),
        "{err}"
    );

    std::fs::write(&config, microphone("hall") + &microphone("gone")).unwrap();
    for (line, wanted, words) in [
        (
            &b"/listen\n"[..],
            64,
            &["which microphone?", "hall, gone"][..],
        ),
        (
            b"/listen attic\n",
            64,
            &["no microphone attic, but hall, gone"],
        ),
        (b"/listen gone\n", 69, &["gone.raw"]),
    ] {
        let (code, _, err) = piped(chat(place.path(), &arguments), line);
        assert_eq!(code, wanted, "{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{err}");
    }
}
