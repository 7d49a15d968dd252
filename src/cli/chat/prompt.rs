//! What is typed, line by line: edited on a terminal, with the lines of earlier days behind the arrow keys; or read from a pipe.

use std::io::{self, BufRead, Read, StdinLock};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::commands;
use crate::cli::failure::{Failure, exit, note};
use crate::guard::private;
use crate::model::prompt::MAX_TEXT_BYTES;

const PROMPT: &str = "> ";
/// Lines that are remembered.
const LONGEST_HISTORY: usize = 1000;
const HISTORY: &str = "chat-history";

/// What came of waiting for a line.
pub(super) enum Input {
    Line(String),
    /// Ctrl-C: the line is cleared.
    Cleared,
    /// A line that cannot be used; why.
    Unusable(Failure),
    /// Ctrl-D, or the end of the pipe.
    End,
}

/// Where lines come from.
pub(super) enum Prompt {
    Terminal {
        editor: Box<Editor<Completion, DefaultHistory>>,
        history: Option<PathBuf>,
    },
    Pipe(StdinLock<'static>),
}

impl Prompt {
    /// On a terminal; `keeps`: lines are remembered from one conversation to the next.
    ///
    /// # Errors
    /// The terminal cannot be used.
    pub(super) fn terminal(keeps: bool) -> Result<Prompt, Failure> {
        let failed =
            |error| Failure::new(exit::IO, format_args!("cannot use the terminal: {error}"));
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .history_ignore_space(true)
            .max_history_size(LONGEST_HISTORY)
            .map_err(failed)?
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Completion(FilenameCompleter::new())));
        let mut history = history_file().filter(|_| keeps);
        if let Some(path) = &history {
            let opened = open(path).map_err(|error| error.to_string());
            let loaded = opened.and_then(|()| {
                let loaded = editor.load_history(path);
                loaded.map_err(|error| error.to_string())
            });
            if let Err(reason) = loaded {
                forgetting(path, &reason);
                history = None;
            }
        }
        Ok(Prompt::Terminal {
            editor: Box::new(editor),
            history,
        })
    }

    /// In a pipe.
    pub(super) fn pipe() -> Prompt {
        Prompt::Pipe(io::stdin().lock())
    }

    /// Waits for the next line.
    ///
    /// # Errors
    /// Neither the terminal nor the pipe gives another.
    pub(super) fn next_line(&mut self) -> Result<Input, Failure> {
        match self {
            Prompt::Pipe(stdin) => read_line(stdin).map_err(|error| {
                let message = format_args!("cannot read standard input: {error}");
                Failure::new(exit::NO_INPUT, message)
            }),
            Prompt::Terminal { editor, history } => match editor.readline(PROMPT) {
                Ok(line) => {
                    remember(editor, history, &line);
                    Ok(Input::Line(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Input::Cleared),
                Err(ReadlineError::Eof) => Ok(Input::End),
                // The window has another size: nothing was typed.
                Err(ReadlineError::Signal(_)) => Ok(Input::Cleared),
                Err(error) => {
                    let message = format_args!("cannot read from the terminal: {error}");
                    Err(Failure::new(exit::NO_INPUT, message))
                }
            },
        }
    }
}

/// Keeps a line, at once: who closes the window loses none.
fn remember(
    editor: &mut Editor<Completion, DefaultHistory>,
    history: &mut Option<PathBuf>,
    line: &str,
) {
    if line.trim().is_empty() {
        return;
    }
    let kept = editor.add_history_entry(line).and_then(|_| match history {
        Some(path) => editor.append_history(path),
        None => Ok(()),
    });
    if let Err(error) = kept
        && let Some(path) = history.take()
    {
        forgetting(&path, &error.to_string());
    }
}

/// A file that nobody else can read, in a directory of that kind.
fn open(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        private::directory(parent, |name| name == HISTORY)?;
    }
    private::open(path, OFlags::empty()).map(drop)
}

fn forgetting(path: &Path, reason: &str) {
    let path = path.display();
    let message =
        format_args!("lines are not remembered: {path}: {reason} (--no-history does without)");
    note(&Failure::new(0, message).in_words());
}

/// Where programs keep what they remember, by XDG's rules; nowhere for a user without a home.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("gemmad").join(HISTORY))
}

/// A line of a pipe, of bounded length.
fn read_line(from: &mut impl BufRead) -> io::Result<Input> {
    let mut line = Vec::new();
    let most = MAX_TEXT_BYTES as u64 + 1;
    if from.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
        return Ok(Input::End);
    }
    if line.len() > MAX_TEXT_BYTES && line.last() != Some(&b'\n') {
        skip_line(from)?;
        let message = format_args!("a line has more than {MAX_TEXT_BYTES} bytes: ask for less");
        return Ok(Input::Unusable(Failure::new(exit::DATA, message)));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(match String::from_utf8(line) {
        Ok(line) => Input::Line(line),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let message =
                format_args!("a line is not UTF-8 text (byte {at} is the first that is not)");
            Input::Unusable(Failure::new(exit::DATA, message))
        }
    })
}

fn skip_line(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let there = from.fill_buf()?;
        let end = there.iter().position(|&byte| byte == b'\n');
        let (count, over) = match end {
            Some(at) => (at + 1, true),
            None => (there.len(), there.is_empty()),
        };
        from.consume(count);
        if over {
            return Ok(());
        }
    }
}

/// What the tabulator key completes: names of commands, and of files behind those that take one.
pub(super) struct Completion(FilenameCompleter);

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        at: usize,
        context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        if line.starts_with("/image ") || line.starts_with("/audio ") {
            return self.0.complete(line, at, context);
        }
        let Some(begun) = line[..at].strip_prefix('/') else {
            return Ok((at, Vec::new()));
        };
        let fits = |name: &&str| name.starts_with(begun);
        let pair = |name: &str| Pair {
            display: format!("/{name}"),
            replacement: format!("/{name} "),
        };
        Ok((
            0,
            commands::names()
                .into_iter()
                .filter(fits)
                .map(pair)
                .collect(),
        ))
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}

impl Validator for Completion {}

impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_pipe_are_bounded_and_text() {
        let long = vec![b'x'; 2 * MAX_TEXT_BYTES];
        let mut pipe = b"first\n\xff\xfe\n".to_vec();
        pipe.extend(&long);
        pipe.extend(b"\nlast, without an end");
        let mut from = io::BufReader::with_capacity(16, pipe.as_slice());
        let mut seen = Vec::new();
        loop {
            seen.push(match read_line(&mut from).unwrap() {
                Input::Line(line) => line,
                Input::Unusable(failure) => failure.in_words(),
                Input::Cleared => unreachable!("nobody presses a key"),
                Input::End => break,
            });
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert_eq!((&*seen[0], &*seen[3]), ("first", "last, without an end"));
        assert!(seen[1].contains("not UTF-8 text (byte 0"), "{}", seen[1]);
        assert!(seen[2].contains(&MAX_TEXT_BYTES.to_string()), "{}", seen[2]);
        // One of just the longest length is taken.
        let mut just = vec![b'x'; MAX_TEXT_BYTES];
        just.push(b'\n');
        let read = read_line(&mut just.as_slice()).unwrap();
        assert!(matches!(read, Input::Line(line) if line.len() == MAX_TEXT_BYTES));
    }

    #[test]
    fn the_tabulator_completes_commands_and_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("door.png"), b"").unwrap();
        let completion = Completion(FilenameCompleter::new());
        let history = DefaultHistory::new();
        let complete = |line: &str| {
            let context = Context::new(&history);
            let (from, found) = completion.complete(line, line.len(), &context).unwrap();
            let whole = |pair: Pair| line[..from].to_owned() + &pair.replacement;
            found.into_iter().map(whole).collect::<Vec<_>>()
        };
        assert_eq!(complete("/im"), ["/image "]);
        assert_eq!(complete("/th"), ["/thinking ", "/thoughts "]);
        assert!(complete("im").is_empty() && complete("/zz").is_empty());
        let begun = format!("/image {}/do", dir.path().display());
        assert_eq!(complete(&begun), [begun.clone() + "or.png"]);
    }
}
