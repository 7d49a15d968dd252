//! Questions to whoever sets a board up: with line editing on a terminal, in plain lines elsewhere, or answered by their defaults.

use std::borrow::Cow;
use std::io::{BufRead, IsTerminal, Write};

use rustyline::completion::Completer;
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, Config, Editor, Helper};

use crate::cli::failure::{Failure, exit};
use crate::cli::output;
use crate::guard::harmless;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A person at a terminal.
    Terminal,
    /// Lines of standard input.
    Lines,
    /// Nobody: the default is the answer.
    Nobody,
}

/// What is shown, and where; it may come from a device or a broker.
pub(super) fn tell(text: &str) -> Result<(), Failure> {
    let mut out = output::out();
    writeln!(out, "{}", harmless::text(text))?;
    Ok(out.flush()?)
}

impl Asker {
    /// Takes the defaults where `yes` says so.
    pub(super) fn new(yes: bool) -> Asker {
        match (yes, std::io::stdin().is_terminal()) {
            (true, _) => Asker::Nobody,
            (false, true) => Asker::Terminal,
            (false, false) => Asker::Lines,
        }
    }

    /// Whether somebody is there, who can speak and look.
    pub(super) fn is_person(self) -> bool {
        self == Asker::Terminal
    }

    /// A line of text; an empty one is the default. Asked again until `check` takes it.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub(super) fn text(
        self,
        question: &str,
        default: &str,
        check: &dyn Fn(&str) -> Result<(), String>,
    ) -> Result<String, Failure> {
        let shown = match default {
            "" => question.to_owned(),
            default => format!("{question} [{default}]"),
        };
        loop {
            let answer = match self.line(&format!("{shown}: "), default, false)?.trim() {
                "" => default.to_owned(),
                answer => answer.to_owned(),
            };
            match check(&answer) {
                Ok(()) => return Ok(answer),
                Err(reason) if self == Asker::Nobody => {
                    return Err(Failure::new(exit::USAGE, reason));
                }
                Err(reason) => tell(&reason)?,
            }
        }
    }

    /// A line that is not shown.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub(super) fn secret(self, question: &str) -> Result<String, Failure> {
        self.line(&format!("{question}: "), "", true)
    }

    /// Yes or no.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub(super) fn yes(self, question: &str, default: bool) -> Result<bool, Failure> {
        let word = if default { "yes" } else { "no" };
        let known = |answer: &str| match answer.to_ascii_lowercase().as_str() {
            "y" | "yes" => Some(true),
            "n" | "no" => Some(false),
            _ => None,
        };
        let check = |answer: &str| match known(answer) {
            Some(_) => Ok(()),
            None => Err("answer yes or no".to_owned()),
        };
        let answer = self.text(question, word, &check)?;
        Ok(known(&answer).unwrap_or(default))
    }

    /// One of several, by its number.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub(super) fn one_of(
        self,
        question: &str,
        choices: &[String],
        default: usize,
    ) -> Result<usize, Failure> {
        self.list(question, choices)?;
        let check = |answer: &str| numbers(answer, choices.len()).and_then(only).map(drop);
        let answer = self.text("Number", &(default + 1).to_string(), &check)?;
        Ok(numbers(&answer, choices.len())
            .and_then(only)
            .unwrap_or(default))
    }

    /// Some of several, by their numbers; 0 for none.
    ///
    /// # Errors
    /// Nobody answers any more.
    pub(super) fn some_of(
        self,
        question: &str,
        choices: &[String],
        default: &[usize],
    ) -> Result<Vec<usize>, Failure> {
        self.list(question, choices)?;
        let shown: Vec<String> = default.iter().map(|at| (at + 1).to_string()).collect();
        let shown = match shown.as_slice() {
            [] => "0".to_owned(),
            shown => shown.join(","),
        };
        let check = |answer: &str| numbers(answer, choices.len()).map(drop);
        let question = "Numbers, separated by commas; 0 for none";
        let answer = self.text(question, &shown, &check)?;
        Ok(numbers(&answer, choices.len()).unwrap_or_default())
    }

    fn list(self, question: &str, choices: &[String]) -> Result<(), Failure> {
        if self == Asker::Nobody {
            return Ok(());
        }
        tell(&format!("\n{question}"))?;
        for (at, choice) in choices.iter().enumerate() {
            tell(&format!("  {}  {}", at + 1, harmless::line(choice)))?;
        }
        Ok(())
    }

    fn line(self, prompt: &str, default: &str, hidden: bool) -> Result<String, Failure> {
        match self {
            Asker::Nobody => Ok(default.to_owned()),
            Asker::Lines => {
                let mut out = output::out();
                write!(out, "{prompt}").and_then(|()| out.flush())?;
                let mut answer = String::new();
                let read = std::io::stdin().lock().read_line(&mut answer);
                // Nobody typed the end of the line where it could be seen.
                writeln!(out)?;
                match read {
                    Ok(0) | Err(_) => Err(unanswered(prompt)),
                    Ok(_) => Ok(answer.trim_end_matches(['\r', '\n']).to_owned()),
                }
            }
            Asker::Terminal => on_terminal(prompt, hidden),
        }
    }
}

/// Numbers from 1 to `most`, as places in a list.
fn numbers(answer: &str, most: usize) -> Result<Vec<usize>, String> {
    let mut found = Vec::new();
    for word in answer.split([',', ' ']).filter(|word| !word.is_empty()) {
        match word.parse::<usize>() {
            Ok(0) => {}
            Ok(number) if number <= most => found.push(number - 1),
            _ => return Err(format!("{word:?} is no number from 1 to {most}")),
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn only(found: Vec<usize>) -> Result<usize, String> {
    match found.as_slice() {
        [only] => Ok(*only),
        _ => Err("give one number".to_owned()),
    }
}

fn unanswered(prompt: &str) -> Failure {
    let question = prompt.trim_end_matches(": ");
    Failure::new(
        exit::USAGE,
        format_args!(
            "nobody answers {question:?}, and nothing was written: answer by options (gemmad setup --help), or give --yes"
        ),
    )
}

fn on_terminal(prompt: &str, hidden: bool) -> Result<String, Failure> {
    let failed = |error: ReadlineError| match error {
        ReadlineError::Interrupted => Failure::new(
            exit::INTERRUPTED,
            "interrupted: nothing was written; the same command begins anew",
        ),
        ReadlineError::Eof => unanswered(prompt),
        error => Failure::new(
            exit::IO,
            format_args!("cannot read from the terminal: {error}"),
        ),
    };
    let config = Config::builder().auto_add_history(false).build();
    let mut editor = Editor::<Mask, _>::with_history(config, MemHistory::new()).map_err(failed)?;
    if hidden {
        editor.set_helper(Some(Mask));
        // Without colours nothing would be masked either.
        editor.set_color_mode(ColorMode::Forced);
    }
    editor.readline(prompt).map_err(failed)
}

/// Shows nothing of what is typed.
struct Mask;

impl Highlighter for Mask {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned("*".repeat(line.chars().count()))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Completer for Mask {
    type Candidate = String;
}

impl Hinter for Mask {
    type Hint = String;
}

impl Validator for Mask {}
impl Helper for Mask {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_places_in_a_list() {
        assert_eq!(numbers("3, 1 3", 3).unwrap(), [0, 2]);
        assert_eq!(numbers("0", 3).unwrap(), [0usize; 0]);
        assert_eq!(numbers("", 3).unwrap(), [0usize; 0]);
        for wrong in ["4", "-1", "one", "1;2"] {
            assert!(numbers(wrong, 3).is_err(), "{wrong}");
        }
        assert_eq!(only(vec![2]).unwrap(), 2);
        assert!(only(vec![]).is_err() && only(vec![0, 1]).is_err());
    }

    #[test]
    fn nobody_takes_the_default_and_what_does_not_fit_is_an_error() {
        let fits = |answer: &str| match answer {
            "pi" => Ok(()),
            _ => Err("no".to_owned()),
        };
        assert_eq!(Asker::Nobody.text("Name", "pi", &fits).unwrap(), "pi");
        assert!(Asker::Nobody.text("Name", "", &fits).is_err());
        assert!(Asker::Nobody.yes("Write it?", true).unwrap());
        let choices = ["a".to_owned(), "b".to_owned()];
        assert_eq!(Asker::Nobody.one_of("Which?", &choices, 1).unwrap(), 1);
        assert_eq!(
            Asker::Nobody.some_of("Which?", &choices, &[]).unwrap(),
            [0usize; 0]
        );
    }
}
