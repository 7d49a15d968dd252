//! The rules, each a function from a file to what it does wrong there; the tables are the rules' only knowledge of this project.

use crate::source::{Token, module, paths, tokens, without_tests};
use std::path::Path;

/// What each room of `src/` may name of the others (ARCHITECTURE.md draws it); `model::weights` allows that part only.
pub(crate) const MAY_NAME: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "daemon",
            "fleet",
            "config",
            "capture",
            "pipeline",
            "publish",
            "pack",
            "features",
            "model",
            "media",
            "report",
            "utterance",
            "values",
            "guard",
            "hub",
        ],
    ),
    (
        "daemon",
        &[
            "fleet",
            "config",
            "capture",
            "pipeline",
            "publish",
            "media",
            "report",
            "guard",
            "utterance",
            // What comes from elsewhere than the microphones is asked for speech by the same detector.
            "features::speech_check",
        ],
    ),
    (
        "pipeline",
        &["features", "model", "media", "report", "guard"],
    ),
    // Samples of any rate become the model's, and motion is looked for in decoded pictures: both are done once, in `features`.
    (
        "capture",
        &[
            "features",
            "frigate",
            "media",
            "tls",
            "guard",
            "utterance",
            "values",
        ],
    ),
    // Sound of the network is made the model's where all sound is, and pictures are looked at where all are.
    (
        "publish",
        &[
            "report",
            "frigate",
            "media",
            "utterance",
            "tls",
            "guard",
            "values",
            "features::image",
            "features::resample",
            "features::speech_turn",
            "features::wav",
        ],
    ),
    (
        "pack",
        &[
            "model::weights",
            "model::config",
            "model::family",
            "model::architecture",
            "model::tensor_table",
            "model::decoder",
            "model::encoder",
            "model::spec",
            "model::tokenizer",
            // A checkpoint is packed while it comes from the hub.
            "hub",
        ],
    ),
    ("hub", &["tls", "guard"]),
    ("fleet", &["report", "utterance", "tls", "guard", "values"]),
    // Its cameras are captured, its events come in by a door.
    ("frigate", &["tls", "guard", "values"]),
    ("features", &["media"]),
    // How frames are made of sound is leaf data: the model says it, `features` does it.
    ("model", &["media"]),
    // The sections of gemmad.toml are the rooms' own option types; no room below knows the file.
    (
        "config",
        &[
            "capture", "publish", "fleet", "pipeline", "features", "frigate", "model", "guard",
            "values",
        ],
    ),
    ("media", &["utterance"]),
    ("report", &["media", "utterance"]),
    ("utterance", &[]),
    ("values", &[]),
    // Brokers and cameras are trusted for the same reasons.
    ("tls", &[]),
    ("guard", &[]),
];

/// Names from outside and the only places that may use them: a change of that dependency then ends where it begins.
const AT_HOME: &[(&str, &[&str])] = &[
    (
        "alsa",
        &[
            "src/capture/card",
            "src/capture/microphone",
            "src/capture/speaker/playback",
        ],
    ),
    ("v4l", &["src/capture/camera"]),
    ("rumqttc", &["src/publish/mqtt/client"]),
    ("async_nats", &["src/fleet/"]),
    ("zbus", &["src/publish/dbus"]),
    ("mdns_sd", &["src/publish/wyoming/zeroconf"]),
    ("axum", &["src/publish/http/"]),
    ("hyper", &["src/publish/http/server"]),
    ("hyper_util", &["src/publish/http/server"]),
    ("x509_cert", &["src/tls/certificate"]),
    ("memmap2", &["src/model/weights"]),
    ("llguidance", &["src/model/grammar/"]),
    (
        "tokio",
        &[
            "src/daemon/",
            "src/publish/",
            "src/fleet/",
            "src/cli/run",
            "src/cli/broker",
            "src/cli/chat/interrupt",
            "src/cli/listen",
            "src/cli/interrupt",
        ],
    ),
    (
        "kernels",
        &["src/model/", "src/pack/", "src/cli/", "src/pipeline"],
    ),
    ("wake", &["src/capture/", "src/cli/"]),
    // What is printed is made harmless there.
    ("std::io::stdout", &["src/cli/output"]),
    ("core::arch", &["kernels/src/"]),
    ("std::arch", &["kernels/src/"]),
];

/// The rooms that compute: the same input gives the same output, so they know no clock and no socket.
const PURE: &[&str] = &["src/model/", "src/features/"];
const IMPURE: &[&str] = &["std::time", "std::net", "std::process"];

/// The families of models, and the only places that may name one: its own folder, and the list of all.
const FAMILIES: &[(&str, &str)] = &[
    ("crate::model::gemma3n", "src/model/gemma3n/"),
    ("crate::model::gemma4", "src/model/gemma4/"),
];
const LIST_OF_FAMILIES: &str = "src/model/family.rs";

/// What the arithmetic crate may depend on: nothing that does I/O, nothing that knows the model.
pub(crate) const KERNEL_DEPENDENCIES: &[&str] =
    &["bytemuck", "half", "gemm", "libc", "libm", "thiserror"];

/// What the crate of wake words may depend on: nothing that does I/O, and nothing in C.
const WAKE_DEPENDENCIES: &[&str] = &["libm", "serde", "serde_json", "thiserror"];

/// Files longer than `LONGEST_LINES`, and why cutting them would scatter one thought.
const LONG_FILES: &[(&str, &str)] = &[];
const LONGEST_LINES: usize = 450;

/// A source file under `src/`, `kernels/src/` or `wake/src/`, ready to be judged.
pub(crate) struct File {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: Vec<Token>,
    paths: Vec<(Vec<String>, usize)>,
}

impl File {
    /// Reads the names of a file, its test code left out.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let test_file = path.ends_with("/tests.rs") || path.contains("/tests/");
        let tokens = if test_file {
            Vec::new()
        } else {
            without_tests(&tokens(text))
        };
        let paths = paths(&tokens, &module(path));
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens,
            paths,
        }
    }

    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside
            .split('/')
            .next()
            .map_or(inside, |first| first.trim_end_matches(".rs"))
    }

    fn wrong(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// The lines where `words` follow one another.
    pub(crate) fn lines_with(&self, words: &[&str]) -> Vec<usize> {
        let same = |w: &&[Token]| w.iter().map(|t| t.text.as_str()).eq(words.iter().copied());
        self.tokens
            .windows(words.len())
            .filter(same)
            .map(|w| w[0].line)
            .collect()
    }
}

/// Rooms name only the rooms below them.
pub(crate) fn direction(file: &File) -> Vec<String> {
    let room = file.room();
    if !file.path.starts_with("src/") || room == "lib" {
        return Vec::new();
    }
    let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == room) else {
        return vec![file.wrong(
            1,
            &format!(
                "the room `{room}` has no place yet: give it one in ARCHITECTURE.md and in MAY_NAME"
            ),
        )];
    };
    let mut found = Vec::new();
    for (path, line) in file
        .paths
        .iter()
        .filter(|(path, _)| path[0] == "crate" && path.len() > 1)
    {
        let named = path[1..].join("::");
        let known = MAY_NAME.iter().any(|(name, _)| *name == path[1]);
        if known && path[1] != room && !allowed.iter().any(|prefix| below(&named, prefix)) {
            found.push(file.wrong(
                *line,
                &format!("`{room}` names `{named}`; it may name only {allowed:?}"),
            ));
        }
    }
    found
}

/// Devices, brokers, buses, maps and machine instructions are named in one place each; what computes names no clock and no socket.
pub(crate) fn at_home(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (path, line) in &file.paths {
        let named = path.join("::");
        for (name, homes) in AT_HOME {
            if below(&named, name) && !homes.iter().any(|home| file.path.starts_with(home)) {
                found.push(file.wrong(*line, &format!("`{name}` is named in {homes:?} only")));
            }
        }
        let impure = IMPURE.iter().find(|name| below(&named, name));
        if let (Some(name), true) = (impure, PURE.iter().any(|room| file.path.starts_with(room))) {
            found.push(file.wrong(*line, &format!("`{name}` has no place in {PURE:?}")));
        }
    }
    for mark in ["asm", "naked_asm", "global_asm"] {
        for line in file.lines_with(&[mark, "!"]) {
            if !file.path.starts_with("kernels/src/simd/") {
                found.push(file.wrong(line, "assembly is written in kernels/src/simd/ only"));
            }
        }
    }
    found
}

/// Whatever is not a family's own knows none: what differs is told to it as data, or done behind the traits of `model`.
pub(crate) fn families_at_home(file: &File) -> Vec<String> {
    if file.path == LIST_OF_FAMILIES {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (path, line) in &file.paths {
        let named = path.join("::");
        for (family, home) in FAMILIES {
            if below(&named, family) && !file.path.starts_with(home) {
                let what = format!("`{family}` is named in {home} and {LIST_OF_FAMILIES} only");
                found.push(file.wrong(*line, &what));
            }
        }
    }
    found
}

/// `unsafe` stands where vectors are loaded and stored, in the row pool, and where weights are mapped.
pub(crate) fn unsafe_places(file: &File) -> Vec<String> {
    let places = [
        "kernels/src/simd/",
        "kernels/src/pool/",
        "src/model/weights/",
    ];
    if places.iter().any(|place| file.path.starts_with(place)) {
        return Vec::new();
    }
    let wrong = |line: &usize| file.wrong(*line, "`unsafe` may not stand here");
    file.lines_with(&["unsafe"]).iter().map(wrong).collect()
}

/// Shipped code returns errors: it neither unwraps nor leaves things to do.
pub(crate) fn no_panics(file: &File) -> Vec<String> {
    let forbidden: &[(&[&str], &str)] = &[
        (
            &[".", "unwrap", "("],
            "`unwrap` outside tests: return an error",
        ),
        (
            &[".", "expect", "("],
            "`expect` outside tests: return an error",
        ),
        (&["todo", "!"], "`todo!` in shipped code"),
        (&["unimplemented", "!"], "`unimplemented!` in shipped code"),
        (&["dbg", "!"], "`dbg!` in shipped code"),
    ];
    let judge = |(words, what): &(&[&str], &str)| -> Vec<String> {
        file.lines_with(words)
            .iter()
            .map(|line| file.wrong(*line, what))
            .collect()
    };
    forbidden.iter().flat_map(judge).collect()
}

/// A file is one thought.
pub(crate) fn length(file: &File) -> Vec<String> {
    let lines = file.text.lines().count();
    let listed = LONG_FILES.iter().any(|(path, _)| *path == file.path);
    match (lines > LONGEST_LINES, listed) {
        (true, false) => vec![file.wrong(lines, &format!("longer than {LONGEST_LINES} lines: split it, or list it in LONG_FILES with the reason"))],
        (false, true) => vec![file.wrong(lines, "listed in LONG_FILES, but short enough: take it off the list")],
        _ => Vec::new(),
    }
}

/// Modules with children that are not `x/mod.rs`, or `x/main.rs` where they are a program: `x.rs` beside `x/` is a second way.
pub(crate) fn beside_their_folder(paths: &[String]) -> Vec<String> {
    let has_folder = |path: &&String| {
        let folder = path.strip_suffix(".rs").map(|stem| format!("{stem}/"));
        folder.is_some_and(|folder| paths.iter().any(|other| other.starts_with(&folder)))
    };
    let beside = paths.iter().filter(has_folder);
    beside
        .map(|path| format!("{path}: stands beside its folder: it is mod.rs in there, or main.rs"))
        .collect()
}

/// Files beside a mod.rs, lib.rs or main.rs that nothing declares: nobody compiles them, and no test in them runs.
///
/// `files` are path and text.
pub(crate) fn undeclared(files: &[(String, String)]) -> Vec<String> {
    let declares = |text: &str, name: &str| {
        let tokens = tokens(text);
        let mut three = tokens.windows(3);
        three.any(|w| w[0].text == "mod" && w[1].text == name && w[2].text == ";")
    };
    let mut found = Vec::new();
    for (path, _) in files {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let Some((folder, name)) = module.rsplit_once('/') else {
            continue;
        };
        let roots = ["mod", "lib", "main"].map(|root| format!("{folder}/{root}.rs"));
        let mut parents = files.iter().filter(|(path, _)| roots.contains(path));
        let by_path = format!("/{name}.rs\"]");
        let declared = parents.clone().any(|(_, text)| declares(text, name))
            || files.iter().any(|(_, text)| text.contains(&by_path));
        if !roots.contains(path) && parents.next().is_some() && !declared {
            found.push(format!("{path}: no module declares it"));
        }
    }
    found
}

/// No file speaks of a place that only its author's machine has.
pub(crate) fn stray_places(path: &str, text: &str) -> Vec<String> {
    // Each in two pieces, so that this file does not name them.
    let places = [
        ["../sha", "red"],
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/tmp", "/wt"],
        ["/ho", "me/"],
    ];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for place in places.map(|pieces| pieces.concat()) {
            let alone = |at: usize| {
                !line[..at].ends_with(|c: char| {
                    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '~')
                })
            };
            if line.match_indices(&place).any(|(at, _)| alone(at)) {
                found.push(format!("{path}:{}: names {place}", number + 1));
            }
        }
    }
    found
}

/// The crates that compute depend on what is listed for them only, and each crate takes the workspace's lints.
pub(crate) fn manifest(path: &str, text: &str) -> Vec<String> {
    let Ok(manifest) = text.parse::<toml::Table>() else {
        return vec![format!("{path}: is not TOML")];
    };
    let mut found = Vec::new();
    if manifest
        .get("lints")
        .and_then(|lints| lints.get("workspace"))
        != Some(&toml::Value::Boolean(true))
    {
        found.push(format!("{path}: needs `[lints] workspace = true`"));
    }
    let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
    for name in dependencies.into_iter().flat_map(|table| table.keys()) {
        let listed = match path {
            "kernels/Cargo.toml" => KERNEL_DEPENDENCIES,
            "wake/Cargo.toml" => WAKE_DEPENDENCIES,
            _ => continue,
        };
        if !listed.contains(&name.as_str()) {
            found.push(format!("{path}: `{name}` is none of {listed:?}"));
        }
    }
    found
}

/// Packages of Cargo.lock that come from elsewhere than crates.io.
pub(crate) fn foreign_sources(lock: &str) -> Vec<String> {
    let sources = lock.lines().filter(|line| line.starts_with("source = "));
    sources
        .filter(|line| !line.contains("\"registry+https://github.com/rust-lang/crates.io-index\""))
        .map(|line| format!("Cargo.lock: {line}"))
        .collect()
}

/// Every file of the repository but what is built and what git keeps, from the top, with `/`.
pub(crate) fn files(top: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(top.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{folder}{name}");
            // What a build, git, Python and a run of `make fuzz` leave behind.
            let left = ["target", ".git", "__pycache__", "artifacts", "corpus-grown"];
            if left.contains(&name.as_str()) || name.ends_with(".pack") {
                continue;
            }
            if entry.file_type().unwrap().is_dir() {
                folders.push(path + "/");
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Whether the path `named` is `prefix` or lies inside it.
fn below(named: &str, prefix: &str) -> bool {
    named
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
