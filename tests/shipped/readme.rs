//! Every command that README.md shows is run: here, as it stands there, or by another test, which is named.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use How::{Elsewhere, Foreign, Mention, Runs};

/// What becomes of a command.
enum How {
    /// It runs here, in a shell, with the second of each pair in the place of the first, and prints these words.
    Runs(&'static [(&'static str, &'static str)], &'static str),
    /// A file of the repository runs it, by the words that stand in it; why it is not run here.
    Elsewhere(&'static str, &'static str, &'static str),
    /// A part of a command that runs here.
    Mention,
    /// It is another program's, and only reported; why it is not run.
    Foreign(&'static str),
}

/// In the order in which they run: some need what others made. `TOP` is the repository, `DIR` the demo model.
const COMMANDS: &[(&str, How)] = &[
    (
        "make demo",
        Elsewhere(
            "tests/shipped/demo.rs",
            "top.join(\"demo\")",
            "it builds a release first",
        ),
    ),
    (
        "make test",
        Elsewhere(".ci/run", "make test", "it is what runs this test"),
    ),
    (
        "make test-boards",
        Elsewhere(
            ".ci/run",
            "make test-boards",
            "it emulates three CPUs and a board",
        ),
    ),
    (
        "make fuzz MINUTES=30",
        Elsewhere(
            "Makefile",
            "tools/fuzz.py --minutes $(or $(MINUTES),1)",
            "it takes half an hour for each target",
        ),
    ),
    (
        "make soak HOURS=3",
        Elsewhere(
            "Makefile",
            "python3 tests/soak $(release) --hours $(or $(HOURS),1)",
            "it takes hours",
        ),
    ),
    (
        "make ha-test",
        Elsewhere(
            "tools/ha-test.sh",
            "tests/homeassistant",
            "it installs Home Assistant from the network",
        ),
    ),
    (
        "make board-test",
        Elsewhere(
            "tests/board/acceptance.py",
            "--image-only",
            "it emulates a board for the better part of an hour, as root",
        ),
    ),
    (
        "make deb",
        Elsewhere(
            "Makefile",
            "tools/deb.sh arm64",
            "it builds releases for two machines; make board-test runs it, and the package",
        ),
    ),
    ("make", Runs(&[("make", "make -C TOP")], "make demo")),
    (
        "sudo apt install ./target/debian/gemmad_*_arm64.deb",
        Elsewhere(
            "tests/board/acceptance.py",
            "apt-get install -y ./gemmad_*.deb",
            "it needs a board, a virtual one at least",
        ),
    ),
    (
        "sudo systemctl enable --now gemmad",
        Elsewhere(
            "tests/board/node.py",
            "systemctl {command} gemmad",
            "it needs a board with systemd and the package",
        ),
    ),
    (
        "gemmad pack --from DIR --to gemma.pack --recipe balanced",
        Runs(&[], ""),
    ),
    (
        "sudo cp -r gemma.pack /var/lib/gemmad/models/",
        Runs(&[("/var/lib/gemmad", ".")], ""),
    ),
    (
        "gemmad pack --from MODEL.gguf --to gemma.pack",
        Runs(
            &[
                ("MODEL.gguf", "TOP/tests/fixtures/gguf/tiny-a.gguf"),
                ("gemma.pack", "gguf.pack"),
            ],
            "",
        ),
    ),
    (
        "gemmad devices",
        Elsewhere(
            "tests/microphone.rs",
            ".arg(\"devices\")",
            "it needs a sound card, or ALSA's file plugin",
        ),
    ),
    (
        "gemmad check-config /etc/gemmad/gemmad.toml",
        Runs(&[("/etc/gemmad/", "")], ""),
    ),
    (
        "sudo -u gemmad gemmad doctor",
        Elsewhere(
            "tests/cli/doctor/mod.rs",
            "[\"doctor\", \"--config\"]",
            "it needs a broker, a bus and a microphone",
        ),
    ),
    (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=BROKER -addext subjectAltName=DNS:BROKER -keyout broker.key -out broker.pem",
        Runs(&[], ""),
    ),
    (
        "gemmad watch",
        Elsewhere(
            "tests/daemon/watch.rs",
            "[\"watch\", \"--config\"]",
            "it needs the daemon and a broker",
        ),
    ),
    (
        "gemmad listen --microphone kitchen",
        Elsewhere(
            "tests/daemon/listen.rs",
            "[\"--microphone\", \"hall\"]",
            "it needs the daemon, a broker and somebody who speaks",
        ),
    ),
    (
        "gemmad mqtt-clear --config gemmad.toml",
        Elsewhere(
            "tests/publish/mqtt/discovery.rs",
            ".arg(\"mqtt-clear\")",
            "it needs a broker",
        ),
    ),
    (
        "gemmad run --config gemmad.toml --state-dir DIR",
        Elsewhere(
            "tests/common/process.rs",
            "[\"run\", \"--config\"]",
            "it runs until it is stopped",
        ),
    ),
    ("gemmad plan", Runs(&[], "measured here")),
    (
        "gemmad plan --memory-gib 4 --read-gb-s 5.6",
        Runs(&[], "E4B    balanced  e2b"),
    ),
    (
        "gemmad plan --model DIR",
        Runs(&[], "demo   balanced  half"),
    ),
    (
        "gemmad ask --model DIR \"Why is the sky blue?\"",
        Runs(&[], ""),
    ),
    (
        "gemmad ask --model DIR --image door.jpg \"Describe what the camera sees.\"",
        Runs(&[], "A person is standing at the front door."),
    ),
    (
        "gemmad ask --model DIR --audio command.wav \"Transcribe the following speech segment in English:\"",
        Runs(&[], "Set the office lamp to twenty percent."),
    ),
    (
        "gemmad transcribe --model DIR speech.mp3 call.wav",
        Runs(
            &[],
            "Set the office lamp to twenty percent.\nSet the office lamp to twenty percent.",
        ),
    ),
    (
        "arecord -f S16_LE -r 16000 | gemmad transcribe --model DIR -",
        Runs(&[], "Set the office lamp to twenty percent."),
    ),
    ("gemmad inspect --model DIR", Runs(&[], "MatFormer slices")),
    (
        "gemmad inspect --verify --model gemma.pack",
        Runs(&[], "every file has its hash"),
    ),
    (
        "gemmad ask --model gemma.pack --matformer e2b \"…\"",
        Runs(&[("e2b", "half")], ""),
    ),
    (
        "gemmad bench --model gemma.pack",
        Runs(&[], "peak resident"),
    ),
    (
        "gemmad bench --threads 2 --prefill 128 --decode 32 --runs 1",
        Runs(
            &[("--runs 1", "--runs 1 --model gemma.pack")],
            "peak resident",
        ),
    ),
    (
        "gemmad bench --model gemma.pack --context 32768",
        Runs(&[("32768", "512")], "512 tokens of context"),
    ),
    ("gemmad bench", Mention),
    (
        "gemmad bench image",
        Elsewhere(
            "tests/cli/bench.rs",
            "events(\"image\")",
            "it takes its time, and is judged there",
        ),
    ),
    ("gemmad bench voice", Mention),
    (
        "gemmad bench voice --model gemma.pack",
        Runs(&[], "of real time"),
    ),
    (
        "tail -n +2 models/demo/heldout/audio/expected.tsv | cut -f3,4 | tr '\\t' '\\n'",
        Runs(
            &[("models", "TOP/models"), ("'\\n'", "'\\n' | tee sentences")],
            "Set the office lamp to twenty percent.",
        ),
    ),
    (
        "gemmad eval --model gemma.pack --reference DIR --text FILE",
        Runs(&[("FILE", "sentences")], "373"),
    ),
    ("gemmad eval", Mention),
    (
        "llama-bench -p 128 -n 32 -t 2 -r 1",
        Foreign("llama.cpp is compared with by hand, on a machine that does nothing else"),
    ),
];

/// Words that begin a command in a sentence.
const PROGRAMS: [&str; 8] = [
    "gemmad",
    "make",
    "sudo",
    "arecord",
    "tail",
    "cargo",
    "apt",
    "llama-bench",
];

/// How a block begins that shows what a command prints.
const PRINTED: [&str; 1] = ["0.2 s  demo    somebody says"];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The commands of a text in Markdown: every line of a block of code, and what in sentences begins like one.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut sentences = String::new();
    let (mut fenced, mut block, mut printed, mut after_blank) = (false, false, false, true);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            (fenced, block) = (!fenced, false);
            continue;
        }
        let blank = line.trim().is_empty();
        // Four columns begin a block, in a list more; a sentence of a list goes on without a blank line.
        let code = fenced || line.starts_with("    ") && (block || after_blank);
        if code && !blank {
            if !block {
                printed = PRINTED.iter().any(|begin| line.trim().starts_with(begin));
            }
            // What follows the command is said to people.
            let command = line.split(" #").next().unwrap_or_default().trim();
            if !printed && !command.is_empty() {
                found.insert(command.to_owned());
            }
        } else if !blank {
            sentences += line;
            sentences.push('\n');
        }
        block = code || blank && block;
        after_blank = blank;
    }
    for span in sentences.split('`').skip(1).step_by(2) {
        let words: Vec<&str> = span.split_whitespace().collect();
        let begins = words.first().is_some_and(|word| PROGRAMS.contains(word));
        if begins && (words.len() > 1 || words[0] == "make") {
            found.insert(words.join(" "));
        }
    }
    found
}

#[test]
fn commands_are_found_wherever_they_stand() {
    let text = "Say `gemmad sing\n--loud` or `gemmad`, `src/`:\n\n    gemmad hum   # softly\n\n    mpv song.mp3\n\n\
         1. One\n   goes on\n    here `make`:\n\n        sudo whistle\n\n```sh\ncurl --fail\n```\n\n    0.2 s  demo    somebody says\n    more\n";
    let found: Vec<String> = commands(text).into_iter().collect();
    let wanted = [
        "curl --fail",
        "gemmad hum",
        "gemmad sing --loud",
        "make",
        "mpv song.mp3",
        "sudo whistle",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn every_command_of_the_readme_is_accounted_for() {
    let shown = commands(&read_to_string(top().join("README.md")).unwrap());
    let listed: BTreeSet<String> = COMMANDS
        .iter()
        .map(|(command, _)| (*command).to_owned())
        .collect();
    assert_eq!(COMMANDS.len(), listed.len(), "one is listed twice");
    let missing: Vec<&String> = shown.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "README.md shows what COMMANDS in tests/shipped/readme.rs does not list: {missing:#?}"
    );
    let gone: Vec<&String> = listed.difference(&shown).collect();
    assert!(
        gone.is_empty(),
        "COMMANDS lists what README.md does not show any more: {gone:#?}"
    );

    let makefile = read_to_string(top().join("Makefile")).unwrap();
    for (command, how) in COMMANDS {
        if let Some(line) = command.strip_prefix("make ") {
            let target = line.split(' ').next().unwrap_or_default();
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "Makefile has no {target}");
        }
        match how {
            Runs(..) => {}
            Elsewhere(file, words, why) => {
                assert!(!why.is_empty());
                let text = read_to_string(top().join(file)).unwrap_or_default();
                assert!(
                    text.contains(words),
                    "{command}: {words:?} is not in {file}"
                );
            }
            Mention => {
                let whole = |(other, how): &(&str, How)| {
                    matches!(how, Runs(..)) && other.starts_with(&format!("{command} "))
                };
                assert!(COMMANDS.iter().any(whole), "{command}");
            }
            Foreign(why) => assert!(!command.starts_with("gemmad") && !why.is_empty()),
        }
    }
}

/// What the commands expect to find: programs, files of those names, a configuration.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            dir: tempfile::tempdir().unwrap(),
        };
        let heldout = top().join("models/demo/heldout");
        std::fs::create_dir_all(place.path("bin")).unwrap();
        std::fs::create_dir_all(place.path("models")).unwrap();
        symlink(env!("CARGO_BIN_EXE_gemmad"), place.path("bin/gemmad")).unwrap();
        // Somebody who says a command into the microphone, and whoever may do everything already.
        place.program("arecord", "exec cat command.wav");
        place.program("sudo", "exec \"$@\"");
        std::fs::copy(
            heldout.join("audio/009_both.wav"),
            place.path("command.wav"),
        )
        .unwrap();
        std::fs::copy(heldout.join("audio/009_both.wav"), place.path("call.wav")).unwrap();
        place.sh("sox -D command.wav speech.mp3");
        // What a picture is shows in its bytes, whatever its name says.
        std::fs::copy(
            heldout.join("images/002_picture.png"),
            place.path("door.jpg"),
        )
        .unwrap();
        let model = top().join("models/demo");
        std::fs::write(
            place.path("gemmad.toml"),
            format!("[model]\npath = {model:?}\n"),
        )
        .unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, line: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// What a line for the shell prints; it must end well.
    fn sh(&self, line: &str) -> String {
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", self.path("bin").display());
        let output = Command::new("bash")
            .args(["-o", "pipefail", "-c", line])
            .current_dir(self.dir.path())
            .env("PATH", path)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn what_the_readme_shows_does_what_it_says() {
    let place = Place::new();
    let model = top().join("models/demo");
    for (command, how) in COMMANDS {
        let Runs(instead, words) = how else {
            continue;
        };
        let mut line = (*command).to_owned();
        for (shown, used) in *instead {
            assert!(line.contains(shown), "{command}: {shown}");
            line = line.replace(shown, used);
        }
        let line = line
            .replace("DIR", model.to_str().unwrap())
            .replace("TOP", top().to_str().unwrap());
        let printed = place.sh(&line);
        assert!(
            printed.contains(words),
            "{line}: {words:?} is not in {printed:?}"
        );
    }
    for made in [
        "gemma.pack/pack.json",
        "models/gemma.pack/pack.json",
        "gguf.pack/pack.json",
    ] {
        assert!(place.path(made).is_file(), "{made}");
    }
}
