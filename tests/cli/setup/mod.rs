//! `gemmad setup`: a whole session in a real terminal, and each option without one; what it writes is examined by `gemmad doctor`.

mod refused;
mod session;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::broker::{Broker, free_port, set_password};
use crate::file_pcm::{raw_file, write_config, write_speech};
use crate::private_bus::PrivateBus;

/// The demo model, and what there is on a board that is set up.
pub(crate) struct Board {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) bus: PrivateBus,
}

impl Board {
    /// A board with a microphone, `hall`, into which somebody speaks.
    pub(crate) fn new() -> Board {
        let dir = tempfile::tempdir().unwrap();
        write_config(dir.path(), &["hall"]);
        write_speech(&raw_file(dir.path(), "hall"), "003_both.wav");
        for name in ["state", "models"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Board {
            dir,
            bus: PrivateBus::open(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("gemmad.toml")
    }

    /// What is in the file before.
    pub(crate) fn before(&self) -> String {
        format!(
            "# My board.\n[model]\npath = {:?} # for now\n\n[dbus]\nbus = {:?}\n",
            demo(),
            self.bus.address()
        )
    }

    pub(crate) fn write_before(&self) {
        std::fs::write(self.config(), self.before()).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The names of what there is beside what there always is.
    pub(crate) fn written(&self) -> Vec<String> {
        let all = std::fs::read_dir(self.dir.path()).unwrap();
        let names = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let known = ["asound.conf", "hall.raw", "state", "models", "gemmad.toml"];
        let mut names: Vec<String> = names
            .filter(|name| !known.contains(&name.as_str()))
            .collect();
        names.sort();
        names
    }

    fn gemmad(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
        command
            .args(arguments)
            .env("ALSA_CONFIG_PATH", self.path("asound.conf"))
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", self.path("state"))
            .env_remove("CREDENTIALS_DIRECTORY")
            .env_remove("GEMMAD_ISA");
        command
    }

    /// `gemmad setup` of this board's file.
    pub(crate) fn setup(&self, arguments: &[&str]) -> Command {
        let mut command = self.gemmad(&["setup"]);
        command
            .arg("--output")
            .arg(self.config())
            .arg("--models-dir")
            .arg(self.path("models"))
            .args(arguments);
        command
    }

    /// What the doctor finds, `ok`, `warning` or `failing` by the check.
    #[track_caller]
    pub(crate) fn examined(&self) -> Vec<(String, String)> {
        let mut command = self.gemmad(&["doctor", "--json"]);
        command
            .arg("--config")
            .arg(self.config())
            .arg("--state-dir")
            .arg(self.path("state"));
        let output = command.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let checks = report["checks"].as_array().unwrap().iter();
        checks
            .map(|check| (text(&check["check"]), text(&check["state"])))
            .collect()
    }
}

pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

pub(crate) fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

pub(crate) const PASSWORD: &str = "open-sesame";

/// A broker that lets in one user, `gemmad`.
pub(crate) fn locked_broker(dir: &Path) -> Broker {
    let users = dir.join("users");
    set_password(&users, PASSWORD);
    let settings = format!("allow_anonymous false\npassword_file {}\n", users.display());
    Broker::start_with(dir, free_port(), &settings)
}

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn every_option_answers_a_question_and_the_doctor_likes_what_comes_of_it() {
    let board = Board::new();
    let place = tempfile::tempdir().unwrap();
    let broker = locked_broker(place.path());
    board.write_before();
    std::fs::write(board.path("given"), format!("{PASSWORD}\n")).unwrap();
    let url = format!("127.0.0.1:{}", broker.port);
    let output = board
        .setup(&["--yes", "--microphone", "kitchen=hall", "--no-camera"])
        .args(["--language", "German", "--name", "pi", "--broker", &url])
        .args(["--broker-user", "gemmad", "--broker-password-file"])
        .arg(board.path("given"))
        .arg("--model")
        .arg(demo())
        .output()
        .unwrap();
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    let written = board.read("gemmad.toml");
    assert_eq!(
        written,
        format!(
            "{}\n[mqtt]\nenabled = true\nurl = \"mqtt://{url}\"\nusername = \"gemmad\"\npassword_file = {:?}\nnode = \"pi\"\n\n\
             [[microphone]]\nid = \"kitchen\"\ndevice = \"hall\"\nlanguage = \"German\"\n",
            board.before(),
            board.path("mqtt-password")
        )
    );
    assert_eq!(board.read("gemmad.toml.bak"), board.before());
    assert_eq!(board.read("mqtt-password"), format!("{PASSWORD}\n"));
    assert_eq!(mode(&board.path("mqtt-password")) & 0o037, 0);
    assert_eq!(
        board.written(),
        ["gemmad.toml.bak", "given", "mqtt-password"]
    );
    for words in [
        "ok       broker: ",
        "ok       model: ",
        "+enabled = true",
        "gemmad.toml.bak",
        "All that is left: gemmad run --config",
    ] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    assert!(!told.contains(PASSWORD), "{told}");
    let found = board.examined();
    for check in ["model", "broker", "bus"] {
        assert!(
            found.contains(&(check.to_owned(), "ok".to_owned())),
            "{found:?}"
        );
    }

    // Once more, with nothing to say: all stays as it is.
    let output = board.setup(&["--yes", "--no-camera"]).output().unwrap();
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("is as it should be"), "{told}");
    assert_eq!(board.read("gemmad.toml"), written);
    assert_eq!(board.read("gemmad.toml.bak"), board.before());

    // Nothing is wanted any more.
    let output = board
        .setup(&["--yes", "--no-camera", "--no-microphone", "--no-broker"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = board.read("gemmad.toml");
    assert!(
        !text.contains("[[microphone]]") && text.contains("enabled = false"),
        "{text}"
    );
    assert!(
        text.starts_with("# My board.\n") && text.contains("# for now\n"),
        "{text}"
    );
    assert_eq!(board.read("gemmad.toml.bak"), written);
    board.examined();
}

/// What cannot be tried here is written without.
#[test]
fn a_new_file_is_the_packages_own_with_the_answers_in_it() {
    let board = Board::new();
    let output = board
        .setup(&[
            "--yes",
            "--no-test",
            "--camera",
            "door=http://cam.local/x.jpg?token=s3cret",
        ])
        .args([
            "--camera",
            "/dev/video7",
            "--microphone",
            "plughw:CARD=Mic,DEV=0",
        ])
        .args([
            "--broker",
            "mqtts://broker.local",
            "--broker-ca-file",
            "/etc/ca.pem",
        ])
        .arg("--model")
        .arg(demo())
        .output()
        .unwrap();
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    let text = board.read("gemmad.toml");
    for line in [
        "dir = \"/var/cache/gemmad\"",
        "url = \"mqtts://broker.local\"",
        "ca_file = \"/etc/ca.pem\"",
        "id = \"microphone\"\ndevice = \"plughw:CARD=Mic,DEV=0\"",
        "id = \"door\"\ntype = \"http\"\nurl = \"http://cam.local/x.jpg?token=s3cret\"",
        "id = \"camera\"\ndevice = \"/dev/video7\"",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    assert!(!text.contains("language"), "{text}");
    assert_eq!(mode(&board.config()), 0o600);
    assert!(
        board.written().is_empty(),
        "no file is kept where there was none"
    );
}
