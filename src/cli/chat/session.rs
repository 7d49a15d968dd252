//! A conversation: what was typed is asked or done, and what goes wrong is told in a line.

use std::io::Write;
use std::path::Path;

use serde_json::Value;

use super::commands::{self, Command};
use super::partner::{Attached, Partner, Said, Settings};
use crate::cli::ask::clip;
use crate::cli::describe::picture;
use crate::cli::failure::{Failure, exit, note};
use crate::cli::{output, progress};
use crate::config::Limits;
use crate::guard::regular;
use crate::media::LONGEST_CLIP_S;
use crate::pipeline::{FinishReason, Group, Media, PictureOptions};
use crate::values::nearest;

/// The share of the context from which its end is announced.
const NEARLY_FULL: f64 = 0.9;

/// What is to be done about a context that is full.
const BEGIN_ANEW: &str = "/new begins a new conversation";

/// Why a line was not done.
enum Trouble {
    /// The conversation goes on.
    Told(Failure),
    /// Standard output takes nothing more.
    Output(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Told(failure)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Output(error.into())
    }
}

pub(super) struct Session {
    partner: Box<dyn Partner>,
    settings: Settings,
    limits: Limits,
    /// For the next question.
    attached: Vec<Attached>,
    /// The last answer.
    last: Option<Said>,
    /// Something was said in this conversation.
    is_begun: bool,
    failure: Option<Failure>,
}

impl Session {
    pub(super) fn new(partner: Box<dyn Partner>, settings: Settings, limits: Limits) -> Session {
        Session {
            partner,
            settings,
            limits,
            attached: Vec::new(),
            last: None,
            is_begun: false,
            failure: None,
        }
    }

    /// Does what a line says; false where it says to leave.
    ///
    /// # Errors
    /// Standard output takes nothing more.
    pub(super) fn takes(&mut self, line: &str) -> Result<bool, Failure> {
        match self.does(line) {
            Ok(goes_on) => Ok(goes_on),
            Err(Trouble::Told(failure)) => {
                self.failed(failure);
                Ok(true)
            }
            Err(Trouble::Output(failure)) => Err(failure),
        }
    }

    fn does(&mut self, line: &str) -> Result<bool, Trouble> {
        let (command, rest) = match commands::read(line)? {
            Some(found) => found,
            None if line.trim().is_empty() => return Ok(true),
            None => return self.ask(line.trim()).map(|()| true),
        };
        match command {
            Command::Image => self.attach(Group::Vision, rest)?,
            Command::Audio => self.attach(Group::Audio, rest)?,
            Command::Listen => self.listen(rest)?,
            Command::Slice => self.slice(rest)?,
            Command::Thinking => self.thinking(rest)?,
            Command::Thoughts => self.thoughts()?,
            Command::System => {
                self.settings.system = (!rest.is_empty()).then(|| rest.to_owned());
                self.begin_anew(match rest {
                    "" => "without instructions",
                    _ => "with these instructions",
                });
            }
            Command::New => self.begin_anew("nothing of what was said is known"),
            Command::Stats => self.stats()?,
            Command::Help => write!(output::out(), "{}", commands::table())?,
            Command::Quit => return Ok(false),
        }
        Ok(true)
    }

    /// Tells what went wrong; the conversation goes on.
    pub(super) fn failed(&mut self, failure: Failure) {
        let failure = failure.told();
        self.failure.get_or_insert(failure);
    }

    /// What went wrong first, told already.
    pub(super) fn first_failure(self) -> Option<Failure> {
        self.failure
    }

    /// Asks, and prints the answer as it comes.
    fn ask(&mut self, text: &str) -> Result<(), Trouble> {
        let step = match self.settings.thinking {
            true => "reading and thinking",
            false => "reading",
        };
        let spinner = progress::of_steps(step);
        let attached = std::mem::take(&mut self.attached);
        let mut out = output::out();
        let mut written = Ok(());
        let mut is_mid_line = false;
        let answered = self
            .partner
            .answer(text, attached, &self.settings, &mut |piece| {
                spinner.finish_and_clear();
                is_mid_line = !piece.ends_with('\n');
                written = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
                written.is_ok()
            });
        spinner.finish_and_clear();
        if is_mid_line {
            written = written.and_then(|()| writeln!(out));
        }
        written?;
        drop(out);
        match answered? {
            None => note("stopped: what was asked last is no part of the conversation"),
            Some(said) => {
                self.judge(&said);
                self.last = Some(said);
                self.is_begun = true;
            }
        }
        Ok(())
    }

    /// Tells what is odd about an answer.
    fn judge(&self, said: &Said) {
        if self.is_begun && !said.resumed {
            note(&format!(
                "this answer knows nothing of what was said before: there was no room for more, or it was forgotten; {BEGIN_ANEW}"
            ));
        }
        let full = said.finish == FinishReason::ContextFull.name();
        if full {
            note(&format!(
                "the context is full, and the answer ends there: {BEGIN_ANEW}"
            ));
        } else if said.finish == FinishReason::MaxTokens.name() {
            note("the answer has as many tokens as it may: --max-tokens allows more");
        }
        if let (false, Some((used, most))) = (full, said.context)
            && used as f64 > NEARLY_FULL * most as f64
        {
            note(&format!(
                "the context is nearly full, with {used} of {most} tokens: {BEGIN_ANEW}"
            ));
        }
    }

    /// Takes a file for the next question, which may stand behind it.
    fn attach(&mut self, group: Group, rest: &str) -> Result<(), Trouble> {
        self.partner.check(group)?;
        let (path, question) = commands::file(rest);
        let media = self.media(group, &path)?;
        self.attached.push(Attached { path, media });
        match question {
            "" => note("it goes with the next question"),
            question => self.ask(question)?,
        }
        Ok(())
    }

    fn media(&self, group: Group, path: &Path) -> Result<Media, Failure> {
        if path.as_os_str().is_empty() {
            return Err(Failure::new(
                exit::USAGE,
                "which file? give its name behind the command",
            ));
        }
        // Before it is read: a pipe would be waited for.
        regular::open(path).map_err(|error| {
            Failure::new(
                exit::NO_INPUT,
                format_args!("cannot read {}: {error}", path.display()),
            )
        })?;
        if group == Group::Vision {
            let picture = picture(path, &self.limits.image)?;
            return Ok(Media::Image(picture, PictureOptions::default()));
        }
        let clip = clip(path, &self.limits.audio)?;
        if clip.duration_s() > f64::from(LONGEST_CLIP_S) {
            return Err(Failure::new(
                exit::DATA,
                format_args!(
                    "{} is {:.0} s long, and {LONGEST_CLIP_S} s are heard at once: cut it, or write it down with `gemmad transcribe`",
                    path.display(),
                    clip.duration_s()
                ),
            ));
        }
        Ok(Media::Clip(clip))
    }

    /// Asks what is said.
    fn listen(&mut self, rest: &str) -> Result<(), Trouble> {
        let microphone = (!rest.is_empty()).then_some(rest);
        match self.partner.listen(microphone)? {
            None => note("stopped: nothing is asked"),
            Some(text) if text.trim().is_empty() => note("nothing was understood"),
            Some(text) => {
                writeln!(output::out(), "({})", text.trim())?;
                self.ask(text.trim())?;
            }
        }
        Ok(())
    }

    /// Tells which slices there are, or takes another.
    fn slice(&mut self, name: &str) -> Result<(), Trouble> {
        let slices = self.partner.slices()?;
        let current = self.settings.slice.as_ref().unwrap_or(&slices.usual);
        if name.is_empty() {
            let others = slices.all.unwrap_or_default();
            let others = others.iter().filter(|name| *name != current);
            let line: Vec<String> = std::iter::once(format!("{current} (answers)"))
                .chain(others.cloned())
                .collect();
            writeln!(output::out(), "{}", line.join(", "))?;
            return Ok(());
        }
        // The daemon says so itself when it is asked.
        if let Some(all) = slices
            .all
            .filter(|all| all.iter().all(|known| known != name))
        {
            let known: Vec<&str> = all.iter().map(String::as_str).collect();
            let meant = nearest(name, &known, 0.75);
            let meant = meant.map_or_else(String::new, |name| format!(", but {name}"));
            let message = format!(
                "there is no slice {name}{meant}: this model has {}",
                known.join(", ")
            );
            return Err(Failure::new(exit::USAGE, message).into());
        }
        self.settings.slice = Some(name.to_owned());
        self.begin_anew("with another slice");
        Ok(())
    }

    fn thinking(&mut self, rest: &str) -> Result<(), Failure> {
        let thinking = match rest {
            "" => !self.settings.thinking,
            "on" => true,
            "off" => false,
            other => {
                let message = format_args!("/thinking {other}: it is on or off");
                return Err(Failure::new(exit::USAGE, message));
            }
        };
        if thinking {
            self.partner.check_thinking()?;
        }
        self.settings.thinking = thinking;
        self.begin_anew(match thinking {
            true => "with thoughts before each answer",
            false => "without thoughts",
        });
        Ok(())
    }

    fn thoughts(&self) -> Result<(), Trouble> {
        let thoughts = self.last.as_ref().and_then(|said| said.thoughts.as_ref());
        match thoughts {
            Some(thoughts) => writeln!(output::out(), "{}", thoughts.trim())?,
            None if self.settings.thinking => note("nothing was thought before the last answer"),
            None => note("nothing was thought before the last answer: /thinking on"),
        }
        Ok(())
    }

    fn begin_anew(&mut self, how: &str) {
        self.partner.forget();
        self.attached.clear();
        self.last = None;
        self.is_begun = false;
        note(&format!("a new conversation, {how}"));
    }

    fn stats(&self) -> Result<(), Trouble> {
        let memory = self.partner.memory()?;
        let mut out = output::out();
        if let Some(said) = &self.last {
            writeln!(out, "last answer: {}", speed(&said.timing))?;
            if let Some((used, most)) = said.context {
                writeln!(out, "context: {used} of {most} tokens")?;
            }
        }
        let groups: Vec<String> = memory
            .iter()
            .map(|(group, bytes)| format!("{group} {:.1} MiB", *bytes as f64 / f64::from(1 << 20)))
            .collect();
        writeln!(out, "memory: {}", groups.join(", "))?;
        Ok(())
    }
}

/// How long an answer took.
fn speed(timing: &Value) -> String {
    let count = |key: &str| timing[key].as_u64().unwrap_or_default();
    let seconds = |key: &str| timing[key].as_f64().unwrap_or_default() / 1e3;
    let (written, decode_s) = (count("tokens"), seconds("decode_ms"));
    let mut line = format!(
        "{} tokens read in {:.2} s, {written} written in {decode_s:.2} s",
        count("prompt_tokens"),
        seconds("prefill_ms")
    );
    if decode_s > 0.0 {
        line += &format!(" ({:.1} tokens/s)", written as f64 / decode_s);
    }
    for (key, what) in [
        ("encode_ms", "for pictures and sound"),
        ("load_ms", "to load what sees and hears"),
        ("queue_ms", "of waiting"),
    ] {
        if seconds(key) >= 0.005 {
            line += &format!(", {:.2} s {what}", seconds(key));
        }
    }
    line
}
