//! A text-to-speech server made of the package `wyoming`, which is installed from PyPI.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::broker::{free_port, wait_until};

const PACKAGE: &str = "wyoming==1.10.2";

/// A Python that has the package; `None`, and a line, where there is none.
fn python() -> Option<PathBuf> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Tests that begin together would install it into the same directory together.
    let alone = File::create(place.join("wyoming-venv.lock")).unwrap();
    alone.lock().unwrap();
    let venv = place.join("wyoming-venv");
    let python = venv.join("bin/python");
    let runs = |program: &Path, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).status();
        status.is_ok_and(|status| status.success())
    };
    let has_it = "from importlib.metadata import version; assert version('wyoming') == '1.10.2'";
    if runs(&python, &["-c", has_it]) {
        return Some(python);
    }
    let made = runs(
        Path::new("python3"),
        &["-m", "venv", venv.to_str().unwrap()],
    ) && runs(&python, &["-m", "pip", "install", "--quiet", PACKAGE]);
    if !made {
        eprintln!("skipped: {PACKAGE} cannot be installed from PyPI with python3 -m venv");
    }
    made.then_some(python)
}

/// A text-to-speech server; what a sentence begins with tells it how to say that (tests/common/tts_server.py).
pub(crate) struct Tts {
    child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

impl Tts {
    pub(crate) fn start(place: &Path) -> Option<Tts> {
        let (port, log) = (free_port(), place.join("tts.log"));
        let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/common/tts_server.py");
        let child = Command::new(python()?)
            .arg(server)
            .arg(port.to_string())
            .arg(&log)
            .spawn()
            .unwrap();
        wait_until("the text-to-speech server listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Some(Tts { child, port, log })
    }

    /// The sentences so far, each behind the voice that was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// A `[speaker]` that plays to the PCM of `add_speaker`, and has this server make sound of texts.
    pub(crate) fn section(&self, more: &str) -> String {
        let port = self.port;
        format!(
            "[speaker]\ndevice = \"speaker\"\nvolume = 100\ntail_ms = 0\ntts = \"tcp://127.0.0.1:{port}\"\n{more}\n"
        )
    }
}

impl Drop for Tts {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
