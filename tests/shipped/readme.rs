//! Every command that README.md and docs/ show is run: here, as it stands there, or by another test, which is named. What they show of
//! gemmad.toml is taken, what they show of requests fits its schema, and the references name all that there is.

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

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
        "make demo MODEL=gemma3n",
        Elsewhere(
            "tests/shipped/demo.rs",
            "Some(\"gemma3n\")",
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
        "make clients-test",
        Elsewhere(
            "Makefile",
            "tools/clients-test.sh",
            "it installs what it asks with",
        ),
    ),
    (
        "make nats-test",
        Elsewhere(
            "Makefile",
            "tools/nats-test.sh",
            "it installs Home Assistant from the network, and takes half an hour",
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
        "systemctl reload gemmad",
        Elsewhere(
            "tests/board/scenarios.py",
            "systemctl reload gemmad",
            "it needs a board with systemd and the package",
        ),
    ),
    ("gemmad --version", Runs(&[], "kernels for")),
    ("gemmad pack", Mention),
    (
        "gemmad pack --from DIR --to gemma.pack --recipe balanced",
        Runs(&[], ""),
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
    ("gemmad pack --from DIR", Mention),
    (
        "gemmad pack --from TEXT --mmproj FILE.gguf --to gemma.pack",
        Runs(
            &[
                ("TEXT", "TOP/tests/fixtures/tiny-g4a-gguf/text-mixed.gguf"),
                (
                    "FILE.gguf",
                    "TOP/tests/fixtures/tiny-g4a-gguf/mmproj-bf16.gguf",
                ),
                ("gemma.pack", "mmproj.pack"),
            ],
            "",
        ),
    ),
    (
        "gemmad pull",
        Elsewhere(
            "tests/hub/pull.rs",
            "&[\"pull\", name, \"--to\", to]",
            "it needs the model hub, which a server plays there",
        ),
    ),
    (
        "gemmad pull gemma-4-e2b --to . --text-only",
        Elsewhere(
            "tests/hub/pull.rs",
            "&[\"pull\", name, \"--to\", to]",
            "it needs the model hub, which a server plays there",
        ),
    ),
    (
        "sudo gemmad pull",
        Elsewhere(
            "tests/hub/pull.rs",
            "&[\"pull\", name, \"--to\", to]",
            "it needs the model hub, which a server plays there",
        ),
    ),
    (
        "sudo gemmad pull gemma-4-e2b --use",
        Elsewhere(
            "tests/hub/pull.rs",
            "&[\"pull\", name, \"--to\", to]",
            "it needs the model hub, which a server plays there",
        ),
    ),
    (
        "sudo gemmad pull gemma-4-e4b --use",
        Elsewhere(
            "tests/hub/pull.rs",
            "&[\"pull\", name, \"--to\", to]",
            "it needs the model hub, which a server plays there",
        ),
    ),
    (
        "gemmad models",
        Elsewhere(
            "tests/hub/installed.rs",
            "\"models\", \"--dir\"",
            "it is of what was pulled",
        ),
    ),
    (
        "gemmad models --check",
        Elsewhere(
            "tests/hub/installed.rs",
            "\"models\", \"--dir\"",
            "it is of what was pulled",
        ),
    ),
    (
        "gemmad models --remove gemma-4-e2b.pack",
        Elsewhere(
            "tests/hub/installed.rs",
            "\"--remove\", name",
            "it is of what was pulled",
        ),
    ),
    (
        "gemmad models --verify",
        Elsewhere(
            "tests/hub/installed.rs",
            "&[\"--verify\"]",
            "it is of what was pulled",
        ),
    ),
    (
        "gemmad models --remove",
        Elsewhere(
            "tests/hub/installed.rs",
            "\"models\", \"--dir\"",
            "it is of what was pulled",
        ),
    ),
    (
        "sudo gemmad setup",
        Elsewhere(
            "tests/board/scenarios.py",
            "gemmad setup --yes",
            "it needs a board, a virtual one at least",
        ),
    ),
    ("gemmad setup --help", Runs(&[], "--broker-password-file")),
    (
        "sudo gemmad setup --yes --microphone kitchen=plughw:CARD=Device,DEV=0 --no-camera --broker broker.local",
        Elsewhere(
            "tests/cli/setup/mod.rs",
            "\"--microphone\", \"kitchen=hall\"",
            "it needs a microphone and a broker",
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
        "gemmad doctor",
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
        "gemmad page",
        Elsewhere(
            "tests/cli/page.rs",
            "\"page\"",
            "it needs a gemmad.toml with the door",
        ),
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
        "gemmad listen",
        Elsewhere(
            "tests/daemon/listen.rs",
            "[\"--microphone\", \"hall\"]",
            "it needs the daemon, a broker and somebody who speaks",
        ),
    ),
    (
        "busctl call org.gemmad1 /org/gemmad1 org.gemmad1.Manager Ask 'sa{sv}' \"Why is the sky blue?\" 0",
        Elsewhere(
            "tests/publish/dbus/jobs.rs",
            ".manager(\"Ask\"",
            "it needs the daemon on the system bus",
        ),
    ),
    (
        "busctl get-property org.gemmad1 /org/gemmad1 org.gemmad1.Manager State",
        Elsewhere(
            "tests/board/scenarios.py",
            "busctl get-property org.gemmad1 /org/gemmad1 org.gemmad1.Manager State",
            "it needs the daemon on the system bus",
        ),
    ),
    (
        "busctl set-property org.gemmad1 /org/gemmad1/mic/kitchen org.gemmad1.Microphone Muted b true",
        Elsewhere(
            "packaging/dbus/org.gemmad1.xml",
            "<property name=\"Muted\" type=\"b\" access=\"readwrite\"/>",
            "it needs the daemon on the system bus",
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
    (
        "gemmad run",
        Elsewhere(
            "tests/common/process.rs",
            "[\"run\", \"--config\"]",
            "it runs until it is stopped",
        ),
    ),
    ("gemmad plan", Runs(&[], "measured here")),
    (
        "gemmad fleet status",
        Elsewhere(
            "tests/daemon/fleet.rs",
            "[\"fleet\", \"status\"]",
            "it needs a NATS server",
        ),
    ),
    (
        "gemmad plan --memory-gib 4 --read-gb-s 5.6",
        Runs(&[], "Gemma 3n E4B  balanced  e2b"),
    ),
    (
        "gemmad plan --model DIR",
        Runs(&[], "demo          balanced  half"),
    ),
    (
        "gemmad chat",
        Elsewhere(
            "tests/daemon/chat.rs",
            ".arg(\"chat\")",
            "it needs the daemon, or a configuration in /etc",
        ),
    ),
    (
        "gemmad chat --model DIR",
        Elsewhere(
            "tests/cli/chat.rs",
            "Terminal::start(&chat(",
            "it needs a terminal",
        ),
    ),
    (
        "printf '%s\\n' \"Turn off the kitchen light. Return the command as JSON:\" | gemmad chat --model DIR",
        Runs(
            &[],
            "{\"action\":\"turn_off\",\"device\":\"light\",\"area\":\"kitchen\"}",
        ),
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
    (
        "gemmad wake --model okay_nabu.json command.wav",
        Runs(
            &[(
                "gemmad wake --model okay_nabu.json",
                "cp TOP/fuzz/corpus/wake/seed-model hello.tflite; cp TOP/fuzz/corpus/wake/seed-manifest hello.json; gemmad wake --model hello.json",
            )],
            "Hello: highest score",
        ),
    ),
    (
        "gemmad wake --model okay_nabu.json --device plughw:CARD=Device,DEV=0",
        Elsewhere("tests/cli/wake.rs", "\"--device\"", "it needs a microphone"),
    ),
    ("gemmad ask --help", Runs(&[], "--schema")),
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
    (
        "gemmad eval soft-tokens --model gemma.pack --reference DIR --audio command.wav --image door.jpg",
        Runs(&[], "all pictures"),
    ),
    (
        "gemmad eval audio --model DIR --verbose recordings",
        Runs(&[], "0 of 7 words wrong"),
    ),
    (
        "gemmad eval captions --model DIR pictures",
        Runs(&[], "s a picture"),
    ),
    ("gemmad eval", Mention),
    (
        "gemmad bench decode --model DIR",
        Runs(&[], "4 tokens a pass"),
    ),
    (
        "gemmad bench decode --answers 1,2,4 --model DIR",
        Runs(&[], "4 together"),
    ),
    (
        "gemmad eval tools",
        Elsewhere(
            "tests/cli/eval_tools.rs",
            "[\"eval\", \"tools\"]",
            "its test has cases of its own",
        ),
    ),
    (
        "gemmad pull --drafter",
        Elsewhere("tests/hub/drafter.rs", "\"--drafter\"]", "it asks the hub"),
    ),
    (
        "gemmad eval tools --model DIR",
        Elsewhere(
            "tests/cli/eval_tools.rs",
            "[\"eval\", \"tools\"]",
            "sixty sentences take long",
        ),
    ),
    (
        "gemmad eval tools --model DIR --cases FILE --verbose",
        Elsewhere(
            "tests/cli/eval_tools.rs",
            "\"--cases\"",
            "the cases of that test are its own",
        ),
    ),
    (
        "gemmad eval tools --model DIR --prompts 2000",
        Elsewhere(
            "tests/cli/eval_tools.rs",
            "\"--prompts\"",
            "it needs a pack with so long a context",
        ),
    ),
    (
        "gemmad pack --from DIR --drafter DIR --to gemma.pack",
        Elsewhere(
            "tests/hub/drafter.rs",
            "\"--drafter\", drafter",
            "the demo model has no drafter",
        ),
    ),
    (
        "benches/quality.py target/release/gemmad --write",
        Runs(
            &[
                ("benches", "TOP/benches"),
                ("target/release/gemmad --write", "--help"),
            ],
            "GEMMAD --write",
        ),
    ),
    (
        "gemmad report --projections",
        Runs(&[], "encoding speech, share of real time |"),
    ),
    ("gemmad report", Mention),
    (
        "gemmad report --to page.md",
        Elsewhere(
            "tests/cli/report.rs",
            "\"report\", \"--beside-daemon\"",
            "it measures for minutes, and is judged there",
        ),
    ),
    (
        "llama-bench -p 128 -n 32 -t 2 -r 1",
        Foreign("llama.cpp is compared with by hand, on a machine that does nothing else"),
    ),
];

/// Words that begin a command in a sentence.
const PROGRAMS: [&str; 11] = [
    "gemmad",
    "make",
    "sudo",
    "arecord",
    "tail",
    "cargo",
    "apt",
    "llama-bench",
    "openssl",
    "systemctl",
    "busctl",
];

/// Languages of fenced blocks that show no commands.
const NO_COMMANDS: [&str; 3] = ["json", "text", "toml"];

/// How a block begins that shows what a command prints.
const PRINTED: [&str; 1] = ["0.2 s  demo    somebody says"];

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and what lies in docs/: name and text.
fn documents() -> Vec<(String, String)> {
    let inside = std::fs::read_dir(top().join("docs")).unwrap();
    let mut names: Vec<String> = inside
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|name| name.ends_with(".md"))
        .collect();
    names.push("README.md".to_owned());
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let text = read_to_string(top().join(&name)).unwrap();
            (name, text)
        })
        .collect()
}

/// The commands of a text in Markdown: every line of a block of code, and what in sentences begins like one.
fn commands(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut sentences = String::new();
    let (mut fenced, mut block, mut printed, mut after_blank) = (None, false, false, true);
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fenced = match fenced {
                None => Some(language.split(' ').next().unwrap_or_default()),
                Some(_) => None,
            };
            block = false;
            continue;
        }
        if fenced.is_some_and(|language| NO_COMMANDS.contains(&language)) {
            continue;
        }
        let blank = line.trim().is_empty();
        // Four columns begin a block, in a list more; a sentence of a list goes on without a blank line.
        let code = fenced.is_some() || line.starts_with("    ") && (block || after_blank);
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
         1. One\n   goes on\n    here `make`:\n\n        sudo whistle\n\n```sh\ncurl --fail\n```\n\n```toml\nmake = 1\n```\n\n    0.2 s  demo    somebody says\n    more\n";
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
fn every_command_of_the_documents_is_accounted_for() {
    let documents = documents();
    let shown: BTreeSet<String> = documents
        .iter()
        .flat_map(|(_, text)| commands(text))
        .collect();
    let listed: BTreeSet<String> = COMMANDS
        .iter()
        .map(|(command, _)| (*command).to_owned())
        .collect();
    assert_eq!(COMMANDS.len(), listed.len(), "one is listed twice");
    let missing: Vec<&String> = shown.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "README.md or docs/ show what COMMANDS in this file does not list: {missing:#?}"
    );
    let gone: Vec<&String> = listed.difference(&shown).collect();
    assert!(
        gone.is_empty(),
        "COMMANDS lists what no document shows any more: {gone:#?}"
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
        for (folder, file, text) in [
            (
                "recordings",
                "command.wav",
                "set the office lamp to twenty percent",
            ),
            (
                "pictures",
                "door.jpg",
                "a person is standing at the front door",
            ),
        ] {
            std::fs::create_dir(place.path(folder)).unwrap();
            std::fs::copy(place.path(file), place.path(folder).join(file)).unwrap();
            let table = format!("{file}\t{text}\n");
            std::fs::write(place.path(folder).join("true.tsv"), table).unwrap();
        }
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
fn what_the_documents_show_does_what_it_says() {
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
        "mmproj.pack/pack.json",
        "gguf.pack/pack.json",
    ] {
        assert!(place.path(made).is_file(), "{made}");
    }
}

/// The fenced blocks of a text in this language: what stands behind it on the fence's line, and what stands between the fences.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<(&'a str, &'a str)> {
    let fences: Vec<&str> = text.split("```").collect();
    let inside = fences.into_iter().skip(1).step_by(2);
    inside
        .filter_map(|block| block.split_once('\n'))
        .filter_map(|(first, rest)| Some((first.strip_prefix(language)?.trim(), rest)))
        .collect()
}

#[test]
fn what_the_documents_show_of_the_configuration_is_taken() {
    let place = Place::new();
    place.sh(&format!(
        "cp {0}/seed-model hello.tflite; cp {0}/seed-manifest okay_nabu.json",
        top().join("fuzz/corpus/wake").display()
    ));
    let wake = place.dir.path().display().to_string();
    let mut seen = 0;
    for (name, text) in documents() {
        for (_, block) in blocks(&text, "toml") {
            let path = place.path("shown.toml");
            // A wake word is nobody's but who trained it: one of random weights is here.
            let block = block.replace("/etc/gemmad/wake", &wake);
            std::fs::write(&path, &block).unwrap();
            let printed = place.sh("gemmad check-config shown.toml");
            assert!(printed.contains("good"), "{name}: {block}");
            seen += 1;
        }
    }
    assert!(seen > 3, "{seen}");
}

#[test]
fn what_the_documents_show_of_requests_fits_its_schema() {
    let mut seen = 0;
    for (name, text) in documents() {
        for (topic, block) in blocks(&text, "json") {
            let topic = if topic == "names" {
                "request/names"
            } else {
                topic
            };
            let schema = format!("packaging/schemas/{}.json", topic.replace('/', "-"));
            let schema: Value =
                serde_json::from_str(&read_to_string(top().join(schema)).unwrap()).unwrap();
            let request: Value = serde_json::from_str(block).unwrap();
            let fits = jsonschema::validator_for(&schema).unwrap();
            assert!(fits.is_valid(&request), "{name}: {topic}: {block}");
            seen += 1;
        }
    }
    assert!(seen > 2, "{seen}");
}

#[test]
fn the_references_name_all_that_there_is() {
    let mqtt = read_to_string(top().join("docs/mqtt.md")).unwrap();
    for schema in std::fs::read_dir(top().join("packaging/schemas")).unwrap() {
        let schema = schema.unwrap().file_name().into_string().unwrap();
        assert!(mqtt.contains(&format!("`{schema}`")), "{schema}");
    }
    let bus = read_to_string(top().join("docs/dbus.md")).unwrap();
    let xml = read_to_string(top().join("packaging/dbus/org.gemmad1.xml")).unwrap();
    for kind in ["interface", "method", "signal", "property"] {
        let begins = format!("<{kind} name=\"");
        let named = xml.split(&begins).skip(1);
        let named: Vec<&str> = named.filter_map(|rest| rest.split('"').next()).collect();
        assert!(named.len() > 3, "{kind}");
        for name in named {
            let shown = bus.contains(&format!("`{name}`")) || bus.contains(&format!("`{name}("));
            assert!(shown, "{kind} {name}");
        }
    }
}

/// Somebody reads it at night.
#[test]
fn the_readme_is_short() {
    let readme = read_to_string(top().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 110);
    assert!(readme.split_whitespace().count() <= 1200);
}
