//! A terminal of the test's own: `script` gives one to a program, and what it would show is looked at as a person sees it.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many that nothing scrolls away.
const ROWS: NonZero<u16> = NonZero::new(400).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(100).unwrap();

pub(crate) const CTRL_A: &str = "\x01";
pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";
pub(crate) const CTRL_K: &str = "\x0b";
pub(crate) const ENTER: &str = "\r";
pub(crate) const TAB: &str = "\t";
pub(crate) const BACKSPACE: &str = "\x7f";
pub(crate) const UP: &str = "\x1b[A";
pub(crate) const DOWN: &str = "\x1b[B";
pub(crate) const LEFT: &str = "\x1b[D";

pub(crate) struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    /// Prompts that were waited for.
    prompts: usize,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the terminal shows:\n{}", self.shows());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Terminal {
    /// Starts a program with its arguments, environment and directory.
    pub(crate) fn start(program: &Command) -> Terminal {
        let quoted = |word: &std::ffi::OsStr| {
            let word = word.to_str().unwrap().replace('\'', r"'\''");
            format!("'{word}'")
        };
        let words = std::iter::once(program.get_program()).chain(program.get_args());
        let words: Vec<String> = words.map(quoted).collect();
        let line = format!("stty rows {ROWS} cols {COLUMNS}; exec {}", words.join(" "));
        let mut script = Command::new("script");
        script.args([
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &line,
            "/dev/null",
        ]);
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        if let Some(dir) = program.get_current_dir() {
            script.current_dir(dir);
        }
        let mut child = script
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let (mut output, into) = (child.stdout.take().unwrap(), Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                into.lock().unwrap().process(&piece[..length]);
            }
        });
        Terminal {
            keys: child.stdin.take(),
            child,
            screen,
            reader: Some(reader),
            prompts: 0,
        }
    }

    /// What stands on the screen, without the empty lines below it.
    pub(crate) fn shows(&self) -> String {
        let screen = self.screen.lock().unwrap();
        screen.screen().contents().trim_end().to_owned()
    }

    /// The line of the cursor, up to the cursor.
    fn line(&self) -> String {
        let screen = self.screen.lock().unwrap();
        let (row, column) = screen.screen().cursor_position();
        screen.screen().contents_between(row, 0, row, column)
    }

    pub(crate) fn wait_until(&mut self, what: &str, holds: impl Fn(&Terminal) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                Instant::now() < deadline && ended.is_none(),
                "waited in vain for {what} ({ended:?})"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_for(&mut self, words: &str) {
        self.wait_until(words, |terminal| terminal.shows().contains(words));
    }

    /// Waits until it asks for another line, and nothing is typed yet.
    pub(crate) fn wait_prompt(&mut self) {
        let prompts = |shown: &str| shown.lines().filter(|line| line.starts_with('>')).count();
        let before = self.prompts;
        self.wait_until("a prompt", |terminal| {
            prompts(&terminal.shows()) > before && terminal.line() == "> "
        });
        self.prompts = prompts(&self.shows());
    }

    /// Waits until nothing stands at the prompt.
    pub(crate) fn wait_empty(&mut self) {
        self.wait_until("an empty line", |terminal| terminal.line() == "> ");
    }

    /// Presses keys, one after another.
    pub(crate) fn press(&mut self, keys: &str) {
        let stdin = self.keys.as_mut().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for a prompt, and types a line there.
    pub(crate) fn types(&mut self, line: &str) {
        self.wait_prompt();
        self.press(line);
        self.press(ENTER);
    }

    /// Waits until the program ends, and gives how, and all that was shown.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().unwrap().join().unwrap();
        (status, self.shows())
    }
}
