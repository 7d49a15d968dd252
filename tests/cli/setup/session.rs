//! A person at a terminal.

use std::io::Write;
use std::process::{Command, Stdio};

use super::{Board, PASSWORD, locked_broker, mode, said};
use crate::process::{expected, heldout};
use crate::terminal::{CTRL_C, ENTER, Terminal};

/// Questions on a terminal, one after another.
struct Dialogue {
    terminal: Terminal,
    /// What was waited for so far ends here.
    seen: usize,
}

impl Dialogue {
    fn start(command: &Command) -> Dialogue {
        Dialogue {
            terminal: Terminal::start(command),
            seen: 0,
        }
    }

    /// Waits until a text is shown behind what was waited for before; gives what stands between.
    fn wait(&mut self, text: &str) -> String {
        let seen = self.seen;
        let new = |terminal: &Terminal| terminal.shows().get(seen..).unwrap_or_default().to_owned();
        self.terminal
            .wait_until(text, |terminal| new(terminal).contains(text));
        let new = new(&self.terminal);
        let at = new.find(text).unwrap();
        self.seen += at + text.len();
        new[..at].to_owned()
    }

    /// Waits for a question and answers it.
    fn answer(&mut self, question: &str, answer: &str) {
        self.wait(question);
        self.terminal.press(answer);
        self.terminal.press(ENTER);
    }

    /// Waits for a list and takes the line of it that has these words.
    fn take(&mut self, question: &str, words: &str) {
        self.wait(question);
        let list = self.wait("Number");
        let line = list.lines().find(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("no {words:?} in {list}"));
        let number = line.split_whitespace().next().unwrap().to_owned();
        self.answer("]:", &number);
    }
}

const CAMERA: &str = "\n[[camera]]\nid = \"porch\"\ntype = \"replay\"\ndirectory = ";

/// The session that docs/install.md shows.
#[test]
fn a_whole_session_asks_tries_shows_and_writes() {
    let board = Board::new();
    let place = tempfile::tempdir().unwrap();
    let broker = locked_broker(place.path());
    let pictures = place.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    std::fs::copy(heldout("images/002_picture.png"), pictures.join("a.png")).unwrap();
    let before = format!("{}{CAMERA}{pictures:?}\n", board.before());
    std::fs::write(board.config(), &before).unwrap();
    let address = format!("127.0.0.1:{}", broker.port);

    let mut dialogue = Dialogue::start(&board.setup(&[]));
    dialogue.take("Which model?", "as now");
    dialogue.wait("Which microphones?");
    dialogue.answer("0 for none [1]:", "");
    dialogue.answer("Name of hall, such as its room [microphone]:", "Kitchen");
    dialogue.wait("a-z");
    dialogue.answer("Name of hall, such as its room [microphone]:", "kitchen");
    dialogue.answer("Language that is spoken [English]:", "");
    dialogue.wait("Which cameras?");
    dialogue.wait("porch");
    dialogue.answer("0 for none [1]:", "");
    dialogue.take("Which MQTT broker?", "another address");
    dialogue.answer("mqtts://HOST:", &address);
    dialogue.answer("User at the broker, if it wants one:", "gemmad");
    dialogue.answer("Password:", "guesswork");
    dialogue.wait("failing  broker: ");
    dialogue.answer("Use this broker all the same? [no]:", "");
    dialogue.take("Which MQTT broker?", "another address");
    dialogue.answer("mqtts://HOST:", &address);
    dialogue.answer("User at the broker, if it wants one:", "gemmad");
    dialogue.answer("Password:", PASSWORD);
    dialogue.wait("ok       broker: ");
    dialogue.answer("Name of this board in topics [", "pi");
    dialogue.wait("ok       model: ");
    dialogue.answer("then say something into kitchen (or answer no) [yes]:", "");
    let heard = expected("audio", "003_both.wav", "transcript");
    dialogue.wait(&format!("kitchen heard: {heard:?}"));
    dialogue.answer("Is that what was said? [yes]:", "");
    let seen = expected("images", "002_picture.png", "caption");
    dialogue.wait(&format!("porch sees: {seen:?}"));
    dialogue.wait("becomes:");
    dialogue.answer("Write it? [yes]:", "");
    let (status, screen) = dialogue.terminal.ended();
    assert!(status.success(), "{screen}");
    assert!(
        screen.contains("\nAll that is left: gemmad run --config "),
        "{screen}"
    );
    assert!(
        !screen.contains(PASSWORD) && !screen.contains("guess"),
        "a password is shown:\n{screen}"
    );
    shown_in_the_documents(&screen);

    let text = board.read("gemmad.toml");
    assert!(
        text.starts_with(&board.before()) && text.contains(CAMERA),
        "{text}"
    );
    assert!(
        text.contains("id = \"kitchen\"\ndevice = \"hall\"\n"),
        "{text}"
    );
    assert_eq!(board.read("gemmad.toml.bak"), before);
    assert_eq!(board.read("mqtt-password"), format!("{PASSWORD}\n"));
    assert_eq!(mode(&board.path("mqtt-password")) & 0o037, 0);
    let found = board.examined();
    for check in ["model", "broker", "bus", "camera"] {
        assert!(
            found.contains(&(check.to_owned(), "ok".to_owned())),
            "{found:?}"
        );
    }
}

/// Every question of the session in docs/install.md is one that is asked.
fn shown_in_the_documents(screen: &str) {
    let document = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/install.md"),
    )
    .unwrap();
    let cast = document.split("$ sudo gemmad setup\n").nth(1).unwrap();
    let cast = cast.split("```").next().unwrap();
    let mut questions = 0;
    for line in cast.lines() {
        let question = match line.split_once(" [") {
            Some((question, rest)) if rest.contains("]:") => question,
            _ if line.ends_with('?') => line,
            _ => continue,
        };
        // A device has the name that it has there.
        let words = match question.split_once(", such as") {
            Some(_) => "Name of hall, such as its room",
            None => question.trim(),
        };
        assert!(screen.contains(words), "{words:?} is not asked:\n{screen}");
        questions += 1;
    }
    assert!(questions >= 8, "{cast}");
}

#[test]
fn ctrl_c_ends_it_at_any_question_and_nothing_is_written() {
    for question in ["Which model?", "Which microphones?"] {
        let board = Board::new();
        board.write_before();
        let mut dialogue = Dialogue::start(&board.setup(&["--no-broker", "--no-camera"]));
        dialogue.wait(question.split(' ').next().unwrap());
        if question != "Which model?" {
            dialogue.take(" model?", "as now");
            dialogue.wait(question);
        }
        dialogue.wait("]:");
        dialogue.terminal.press(CTRL_C);
        let (status, screen) = dialogue.terminal.ended();
        assert_eq!(status.code(), Some(130), "{screen}");
        assert!(
            screen.contains("interrupted: nothing was written"),
            "{screen}"
        );
        assert_eq!(board.read("gemmad.toml"), board.before());
        assert!(board.written().is_empty(), "{:?}", board.written());
    }
}

#[test]
fn without_a_terminal_questions_are_plain_lines() {
    let board = Board::new();
    board.write_before();
    let answer = |lines: &str| {
        let mut child = board
            .setup(&["--no-broker", "--no-camera"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    };
    let output = answer("1\n1\n");
    let told = said(&output);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(
        told.contains("nobody answers") && told.contains("--yes"),
        "{told}"
    );
    assert_eq!(board.read("gemmad.toml"), board.before());
    // No, it is not to be written.
    let output = answer("1\n1\nkitchen\n\nno\n");
    let told = said(&output);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(
        told.contains("becomes:") && told.contains("nothing was written"),
        "{told}"
    );
    assert_eq!(board.read("gemmad.toml"), board.before());
    let output = answer("7\n1\n\nkitchen\nFrench\nyes\n");
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("\"7\" is no number from 1 to"), "{told}");
    assert!(!told.contains('\u{1b}'), "{told}");
    let text = board.read("gemmad.toml");
    assert!(
        text.ends_with("id = \"kitchen\"\ndevice = \"hall\"\nlanguage = \"French\"\n"),
        "{text}"
    );
}
