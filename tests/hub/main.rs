//! `gemmad pull` and `gemmad models` against a server that plays the hub.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what was said"
)]

mod client;
mod disks;
mod drafter;
mod faults;
mod installed;
mod interrupted;
mod large;
mod network;
mod pull;
mod quantised;
mod server;
mod setup;
mod token;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use server::{Hub, Repo};

/// The demo models, by their directories.
pub(crate) const GEMMA_4: &str = "models/demo-gemma4";
pub(crate) const GEMMA_3N: &str = "models/demo";

pub(crate) fn of_this_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A hub with one repository, and a home for whoever asks.
pub(crate) struct Bench {
    pub(crate) hub: Hub,
    pub(crate) dir: tempfile::TempDir,
}

impl Bench {
    /// With the demo model of Gemma 4 as `google/demo`.
    pub(crate) fn new() -> Bench {
        Bench::with(Repo::of(&of_this_repository(GEMMA_4), "a1"))
    }

    pub(crate) fn with(repo: Repo) -> Bench {
        let hub = Hub::start();
        hub.put("google/demo", repo);
        Bench {
            hub,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The pack of `google/demo`.
    pub(crate) fn pack(&self) -> PathBuf {
        self.path("models/demo.pack")
    }

    /// `gemmad` with nothing of this machine's own settings.
    pub(crate) fn gemmad(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("HF_ENDPOINT", &self.hub.endpoint);
        command
    }

    /// `gemmad pull google/demo`, into `models`.
    pub(crate) fn pull(&self, arguments: &[&str]) -> Command {
        let to = self.path("models");
        let mut all = vec!["pull", "google/demo", "--to", to.to_str().unwrap()];
        all.extend(["--recipe", "balanced"]);
        all.extend(arguments);
        self.gemmad(&all)
    }

    /// What is packed from the same files on the disk.
    pub(crate) fn packed_here(&self, model: &str) -> PathBuf {
        self.packed_of(&of_this_repository(model), &["--recipe", "balanced"])
    }

    /// The same of any files.
    pub(crate) fn packed_of(&self, from: &Path, arguments: &[&str]) -> PathBuf {
        let pack = self.path("here.pack");
        let mut command = self.gemmad(&["pack", "--force", "--from"]);
        command.arg(from).arg("--to").arg(&pack).args(arguments);
        succeeded(&command.output().unwrap());
        pack
    }
}

/// Standard error of a command that did what it should.
pub(crate) fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// The one line of a command that failed.
pub(crate) fn failed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

/// Every file of a pack but those that say where it is from.
pub(crate) fn weights(pack: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(pack).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| !["pack.json", "LICENSE", "verified.json"].contains(&name.as_str()))
        .collect();
    names.sort();
    let read = |name: String| {
        let bytes = std::fs::read(pack.join(&name)).unwrap();
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

/// Two packs hold the same.
pub(crate) fn assert_same(one: &Path, other: &Path) {
    let (one, other) = (weights(one), weights(other));
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&one), names(&other));
    for ((name, a), (_, b)) in one.iter().zip(&other) {
        assert!(a == b, "{name} differs");
    }
}
