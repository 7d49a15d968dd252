//! What may be typed besides what is asked: lines that begin with a slash.

use std::fmt::Write;
use std::path::PathBuf;

use crate::cli::failure::{Failure, exit};
use crate::guard::harmless;
use crate::values::nearest;

/// What a line with a slash means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Image,
    Audio,
    Listen,
    Slice,
    Thinking,
    Thoughts,
    System,
    New,
    Stats,
    Help,
    Quit,
}

/// All of them: name, what may follow it, what it does.
const COMMANDS: [(Command, &str, &str, &str); 11] = [
    (
        Command::Image,
        "image",
        "FILE [QUESTION]",
        "show a JPEG or PNG picture, with the next question or at once",
    ),
    (
        Command::Audio,
        "audio",
        "FILE [QUESTION]",
        "play a WAV, FLAC, OGG or MP3 of up to 30 s",
    ),
    (
        Command::Listen,
        "listen",
        "[MICROPHONE]",
        "ask what is said next",
    ),
    (
        Command::Slice,
        "slice",
        "[NAME]",
        "MatFormer slices, or the one that answers from now on",
    ),
    (
        Command::Thinking,
        "thinking",
        "[on|off]",
        "think before each answer, or not (Gemma 4)",
    ),
    (
        Command::Thoughts,
        "thoughts",
        "",
        "what was thought before the last answer",
    ),
    (
        Command::System,
        "system",
        "[TEXT]",
        "instructions for the conversation, or none",
    ),
    (Command::New, "new", "", "begin a new conversation"),
    (
        Command::Stats,
        "stats",
        "",
        "how fast the last answer was; context and memory",
    ),
    (Command::Help, "help", "", "these lines"),
    (Command::Quit, "quit", "", "leave, as Ctrl-D does"),
];

/// How alike a mistyped name is to one that is known, 0 to 1 (Jaro-Winkler).
const ALIKE: f64 = 0.75;

/// A line's command, with what follows it; `None` for what is to be asked.
///
/// # Errors
/// There is no such command.
pub(super) fn read(line: &str) -> Result<Option<(Command, &str)>, Failure> {
    let Some(words) = line.strip_prefix('/') else {
        return Ok(None);
    };
    let (name, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
    let found = COMMANDS.iter().find(|(_, known, ..)| *known == name);
    if let Some((command, ..)) = found {
        return Ok(Some((*command, rest.trim())));
    }
    let name = harmless::short(name);
    let meant = nearest(&name, &names(), ALIKE);
    let meant = meant.map_or_else(String::new, |name| format!(", but /{name}"));
    Err(Failure::new(
        exit::USAGE,
        format_args!(
            "there is no /{name}{meant}: /help lists the commands; behind a space a line is asked as it is"
        ),
    ))
}

pub(super) fn names() -> Vec<&'static str> {
    COMMANDS.iter().map(|(_, name, ..)| *name).collect()
}

/// A line for each command.
pub(super) fn table() -> String {
    let mut table = String::new();
    for (_, name, argument, does) in COMMANDS {
        let usage = format!("/{name} {argument}");
        // Writing into a string does not fail.
        writeln!(table, "  {usage:<24} {does}").ok();
    }
    table
}

/// The file that begins a line, and what stands behind it. A name is taken as it stands where such a file is there, spaces and all, as
/// terminals paste it; else it ends at a space that is neither quoted nor behind a backslash.
pub(super) fn file(rest: &str) -> (PathBuf, &str) {
    let whole = in_home(rest.to_owned());
    if whole.exists() {
        return (whole, "");
    }
    let mut name = String::new();
    let mut quote = None;
    let mut characters = rest.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' if quote != Some('\'') => name.extend(characters.next().map(|(_, c)| c)),
            '"' | '\'' if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if c.is_whitespace() && quote.is_none() => {
                return (in_home(name), rest[at..].trim());
            }
            _ => name.push(c),
        }
    }
    (in_home(name), "")
}

/// `~/` is where the user is at home.
fn in_home(name: String) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match (name.strip_prefix("~/"), home) {
        (Some(below), Some(home)) => home.join(below),
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_slash_are_commands_and_mistyped_ones_are_told() {
        let read = |line| read(line).map_err(Failure::in_words);
        assert_eq!(read("What is /new?"), Ok(None));
        assert_eq!(read(" /etc/passwd is a file"), Ok(None));
        assert_eq!(read("/new"), Ok(Some((Command::New, ""))));
        assert_eq!(
            read("/system  Be brief. "),
            Ok(Some((Command::System, "Be brief.")))
        );
        for (line, meant) in [
            ("/imgae x", "/image"),
            ("/Stats", "/stats"),
            ("/qiut", "/quit"),
        ] {
            let told = read(line).unwrap_err();
            assert!(told.contains(&format!(", but {meant}: /help")), "{told}");
        }
        let told = read("/\u{1b}[31mzz").unwrap_err();
        assert!(
            told.starts_with("there is no /\u{fffd}[31mzz: /help"),
            "{told}"
        );
        assert!(table().lines().count() == COMMANDS.len() && table().contains("/image FILE"));
    }

    #[test]
    fn a_file_may_be_quoted_escaped_or_pasted_and_a_question_may_follow() {
        let dir = tempfile::tempdir().unwrap();
        let pasted = dir.path().join("my cat.png");
        std::fs::write(&pasted, b"").unwrap();
        assert_eq!(file(pasted.to_str().unwrap()), (pasted.clone(), ""));
        for (rest, wanted) in [
            ("a.png", ("a.png", "")),
            ("a.png What's that?", ("a.png", "What's that?")),
            (r"my\ cat.png Who is it?", ("my cat.png", "Who is it?")),
            ("'my cat.png'  Who?", ("my cat.png", "Who?")),
            (r#""my \"cat\".png" Who?"#, (r#"my "cat".png"#, "Who?")),
            (r"'back\slash'", (r"back\slash", "")),
            ("", ("", "")),
        ] {
            assert_eq!(file(rest), (PathBuf::from(wanted.0), wanted.1), "{rest}");
        }
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap();
        assert_eq!(file("~/no/such.png Who?").0, home.join("no/such.png"));
    }
}
