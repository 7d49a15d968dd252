//! The rules of the house, checked on every file: who may name whom, where `unsafe` may stand, and that the documents are true.
//!
//! Each rule is first shown a sample that breaks it, so that a checker gone blind fails here.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the repository has to stop"
)]

mod circles;
mod documents;
mod rules;
mod source;

use rules::File;
use std::fs::read_to_string;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<File> {
    let rust = |path: &String| {
        let crates = ["src/", "kernels/src/", "wake/src/"];
        crates.iter().any(|krate| path.starts_with(krate)) && path.ends_with(".rs")
    };
    let found: Vec<File> = rules::files(top())
        .iter()
        .filter(|p| rust(p))
        .map(|p| File::new(p, &read_to_string(top().join(p)).unwrap()))
        .collect();
    assert!(
        found.iter().any(|f| f.path == "src/main.rs")
            && found.iter().any(|f| f.path == "kernels/src/lib.rs")
            && found.iter().any(|f| f.path == "wake/src/lib.rs"),
        "looked in the wrong place"
    );
    found
}

/// Fails with every breach, not only the first.
fn assert_none(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

fn on_every_source(rule: fn(&File) -> Vec<String>) {
    assert_none(sources().iter().flat_map(rule).collect());
}

/// How often `rule` finds fault with a file of that name and text.
fn faults(rule: fn(&File) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&File::new(path, text)).len()
}

#[test]
fn rooms_name_only_the_rooms_below_them() {
    let faults = |path, text| faults(rules::direction, path, text);
    assert_eq!(
        faults(
            "src/model/text/mod.rs",
            "use crate::{daemon::queue, model::state};"
        ),
        1
    );
    assert_eq!(
        faults(
            "src/model/text/mod.rs",
            "use super::super::features::log_mel;"
        ),
        1
    );
    assert_eq!(
        faults(
            "src/model/text/mod.rs",
            "fn f() { super::state::new(); crate::publish::send(); }"
        ),
        1
    );
    assert_eq!(faults("src/media.rs", "use crate::report::Report;"), 1);
    assert_eq!(
        faults("src/main.rs", "fn main() { gemmad::daemon::run() }"),
        1
    );
    assert_eq!(
        faults(
            "src/pack/writer.rs",
            "use crate::model::{weights::Table, sampler};"
        ),
        1
    );
    // A room has its own section of the configuration, and does not know the whole.
    assert_eq!(
        faults("src/publish/mqtt.rs", "use crate::config::Config;"),
        1
    );
    assert_eq!(
        faults("src/capture/still.rs", "use crate::config::Limits;"),
        1
    );
    assert_eq!(
        faults("src/publish/mqtt.rs", "use crate::report::Report;"),
        0
    );
    assert_eq!(faults("src/shed/mod.rs", ""), 1);
    assert_eq!(faults("src/cli/ask.rs", "use crate::model::sampler;"), 0);
    assert_eq!(
        faults(
            "src/media.rs",
            "// use crate::report::Report;\nconst A: &str = \"crate::report::B\";"
        ),
        0
    );
    assert_eq!(
        faults(
            "src/media.rs",
            "#[cfg(test)]\nmod tests { use crate::report::Report; }"
        ),
        0
    );
    on_every_source(rules::direction);
}

#[test]
fn no_modules_of_a_folder_name_each_other_in_a_circle() {
    let circles = |texts: &[(&str, &str)]| {
        let files: Vec<File> = texts
            .iter()
            .map(|(path, text)| File::new(path, text))
            .collect();
        circles::circles(&files.iter().collect::<Vec<_>>()).len()
    };
    let named = "pub mod a;\npub mod b;\npub mod c;\npub use b::{B, other};";
    // Directly, by what the folder passes on, around a corner, and from deeper inside.
    for (a, b, c) in [
        ("use super::b::B;", "use crate::room::a::A;", ""),
        ("use super::B;", "fn f() { super::super::a::f() }", ""),
        (
            "use super::{B, c::C};",
            "use crate::room::c::C;",
            "use super::a::A;",
        ),
    ] {
        let texts = [
            ("src/room/mod.rs", named),
            ("src/room/a.rs", a),
            ("src/room/b/deep.rs", b),
            ("src/room/b/mod.rs", "mod deep;\npub struct B;"),
            ("src/room/c.rs", c),
        ];
        assert_eq!(circles(&texts), 1, "{texts:?}");
        assert_eq!(circles(&texts[..3]), 0, "{texts:?}");
    }
    // A folder's own file gathers the others, and they may name what it holds.
    for (a, b) in [
        ("use super::Error;", "use super::{Error, a::A};"),
        ("use super::b::B;", "#[cfg(test)]\nuse super::a::A;"),
        ("use super::b::B;", "//! [`super::a::A`]"),
    ] {
        let whole = format!("{named}\nuse a::A;\npub struct Error;");
        let texts = [
            ("src/room/mod.rs", whole.as_str()),
            ("src/room/a.rs", a),
            ("src/room/b.rs", b),
        ];
        assert_eq!(circles(&texts), 0, "{texts:?}");
    }
    let sources = sources();
    for krate in ["src/", "kernels/src/", "wake/src/"] {
        let files: Vec<&File> = sources
            .iter()
            .filter(|file| file.path.starts_with(krate))
            .collect();
        assert_none(circles::circles(&files));
    }
}

#[test]
fn foreign_names_stay_at_home() {
    let faults = |path, text| faults(rules::at_home, path, text);
    assert_eq!(faults("src/capture/speech.rs", "use alsa::pcm::PCM;"), 1);
    assert_eq!(
        faults("src/capture/microphone.rs", "use alsa::pcm::PCM;"),
        0
    );
    assert_eq!(
        faults(
            "src/pipeline.rs",
            "fn f() -> v4l::Device { v4l::Device::new(0) }"
        ),
        2
    );
    assert_eq!(faults("src/publish/dbus.rs", "use rumqttc::Client;"), 1);
    assert_eq!(
        faults("src/daemon/mod.rs", "#[zbus::interface]\nimpl A {}"),
        1
    );
    assert_eq!(faults("src/pack/writer.rs", "use memmap2::Mmap;"), 1);
    assert_eq!(faults("src/model/state.rs", "use tokio::sync::mpsc;"), 1);
    assert_eq!(
        faults("src/model/state.rs", "use std::{fmt, time::Instant};"),
        1
    );
    assert_eq!(
        faults("src/model/state.rs", "use core::arch::aarch64::*;"),
        1
    );
    assert_eq!(
        faults("kernels/src/rope/neon.rs", "use core::arch::aarch64::*;"),
        0
    );
    assert_eq!(
        faults("kernels/src/rope/neon.rs", "fn f() { asm!(\"nop\") }"),
        1
    );
    assert_eq!(faults("src/features/log_mel.rs", "use kernels::matvec;"), 1);
    on_every_source(rules::at_home);
}

#[test]
fn families_are_named_at_home_only() {
    let faults = |path, text| faults(rules::families_at_home, path, text);
    let sample = "use super::super::gemma3n::text::TextModel;";
    assert_eq!(faults("src/model/decoder/attention.rs", sample), 1);
    let sample = "use crate::model::gemma3n;";
    assert_eq!(faults("src/pipeline/engine.rs", sample), 1);
    assert_eq!(faults("src/model/gemma3n/text/layer.rs", sample), 0);
    assert_eq!(faults("src/model/gemma4/text/layer.rs", sample), 1);
    assert_eq!(faults("src/model/family.rs", sample), 0);
    on_every_source(rules::families_at_home);
}

#[test]
fn unsafe_stands_where_it_is_expected() {
    let sample = "fn f() { unsafe { g() } }";
    for bad in [
        "src/model/state.rs",
        "kernels/src/rope/neon.rs",
        "kernels/src/quant/q4/mod.rs",
        "kernels/src/lib.rs",
    ] {
        assert_eq!(faults(rules::unsafe_places, bad, sample), 1, "{bad}");
    }
    for good in [
        "src/model/weights/map.rs",
        "kernels/src/simd/neon.rs",
        "kernels/src/pool/pieces.rs",
    ] {
        assert_eq!(faults(rules::unsafe_places, good, sample), 0, "{good}");
    }
    assert_eq!(
        faults(
            rules::unsafe_places,
            "src/model/state.rs",
            "// unsafe\n#![deny(unsafe_code)]"
        ),
        0
    );
    on_every_source(rules::unsafe_places);
    assert!(
        read_to_string(top().join("src/lib.rs"))
            .unwrap()
            .contains("#![deny(unsafe_code)]"),
        "src/lib.rs must deny unsafe_code"
    );
}

#[test]
fn shipped_code_returns_errors() {
    let faults = |text| faults(rules::no_panics, "src/model/state.rs", text);
    assert_eq!(faults("fn f(a: Option<u8>) -> u8 { a.unwrap() }"), 1);
    assert_eq!(
        faults("fn f(a: Option<u8>) -> u8 {\n a\n  .expect(\"it is there\") }"),
        1
    );
    assert_eq!(faults("fn f() { todo!() }"), 1);
    assert_eq!(faults("fn f() { unimplemented!(); dbg!(1); }"), 2);
    assert_eq!(
        faults("fn f(a: Option<u8>) -> u8 { a.unwrap_or(1) } // .unwrap()"),
        0
    );
    assert_eq!(
        faults(
            "#[cfg(test)]\n#[allow(dead_code)]\nmod tests { fn f() { g().unwrap(); } }\nfn h() { k().unwrap() }"
        ),
        1
    );
    on_every_source(rules::no_panics);
}

#[test]
fn files_are_short() {
    assert_eq!(
        faults(rules::length, "src/model/state.rs", &"\n".repeat(451)),
        1
    );
    assert_eq!(
        faults(rules::length, "src/model/state.rs", &"\n".repeat(450)),
        0
    );
    on_every_source(rules::length);
}

#[test]
fn a_module_with_children_is_in_their_folder() {
    let beside = |paths: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        rules::beside_their_folder(&paths).len()
    };
    assert_eq!(
        beside(&["src/daemon/queue.rs", "src/daemon/queue/rank.rs"]),
        1
    );
    assert_eq!(beside(&["tests/model.rs", "tests/model/head.rs"]), 1);
    assert_eq!(
        beside(&["src/daemon/queue/mod.rs", "src/daemon/queue/rank.rs"]),
        0
    );
    assert_eq!(beside(&["src/model/text.rs", "src/model/text_more.rs"]), 0);
    assert_none(rules::beside_their_folder(&rules::files(top())));
}

#[test]
fn every_file_is_compiled() {
    let undeclared = |declaration: &str| {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let files = [
            file("src/lib.rs", "pub mod model;"),
            file("src/main.rs", ""),
            file("src/model/mod.rs", declaration),
            file("src/model/head.rs", ""),
            file("benches/head.rs", ""),
        ];
        rules::undeclared(&files).len()
    };
    assert_eq!(undeclared("// mod head;\nmod tail;"), 1);
    assert_eq!(undeclared("#[cfg(test)]\nmod head;"), 0);
    assert_eq!(undeclared("#[path = \"../model/head.rs\"]\nmod a;"), 0);
    let all: Vec<(String, String)> = rules::files(top())
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| (path.clone(), read_to_string(top().join(&path)).unwrap()))
        .collect();
    assert_none(rules::undeclared(&all));
}

#[test]
fn the_architecture_names_every_module() {
    assert_eq!(
        documents::on_the_map("src/model/text/altup.rs", "the model's texts").len(),
        1
    );
    assert_eq!(
        documents::on_the_map("src/model/text/altup.rs", "a `model` of text").len(),
        0
    );
    let architecture = read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    let in_src = sources().into_iter().filter(|f| f.path.starts_with("src/"));
    assert_none(
        in_src
            .flat_map(|f| documents::on_the_map(&f.path, &architecture))
            .collect(),
    );
}

#[test]
fn the_map_names_what_exists() {
    let there = |path: &str| matches!(path, "src/hall" | "src/hall/lamp.rs" | "src/main.rs");
    let map = |lines: &str| format!("```text\nkernels/src/  k\nsrc/\n{lines}\n```");
    let gone = |lines| documents::off_the_map(&map(lines), there).len();
    assert_eq!(
        gone("  main.rs    begins\n  hall/      a room\n    lamp     of it\n             more"),
        0
    );
    assert_eq!(gone("  hall/      a room\n    lamp sofa  of it"), 1);
    assert_eq!(gone("  cellar     a room"), 1);
    assert_eq!(documents::off_the_map("no map", there).len(), 1);
    let architecture = read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    assert_none(documents::off_the_map(&architecture, |path| {
        top().join(path).exists()
    }));
}

#[test]
fn the_architecture_draws_who_names_whom() {
    let drawn = documents::who_names_whom;
    assert_eq!(
        drawn(&[
            ("low", &[]),
            ("top", &["low::part", "mid"]),
            ("mid", &["low"])
        ])
        .unwrap(),
        "     mid low\ntop   ●   ○\nmid       ●\nlow\n"
    );
    let circle = drawn(&[("a", &["b"]), ("b", &["a::part"])]);
    assert!(circle.unwrap_err().contains("a circle"));
    let drawing = drawn(rules::MAY_NAME).unwrap();
    let architecture = read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    assert!(
        architecture.contains(&format!("```text\n{drawing}```")),
        "ARCHITECTURE.md needs this drawing:\n{drawing}"
    );
}

#[test]
fn the_architecture_says_how_to_add_one_more() {
    let files = [
        File::new("src/list.rs", "use new::New;"),
        File::new("src/new/a.rs", "struct New;"),
        File::new("src/other.rs", "// New"),
    ];
    let breaches = |text: &str| documents::how_to_add(text, ("A thing", &["New"]), &files).len();
    let good =
        "### A thing\n\n`src/new/`, `src/list.rs`, `docs/new.md`.\n\n### Another\n\n`src/other.rs`";
    assert_eq!(breaches(good), 0);
    assert_eq!(breaches("### A thing\n\n`src/new/`"), 1);
    assert_eq!(breaches(&good.replace("`docs", "`src/other.rs`, `docs")), 1);
    assert_eq!(breaches("### Another\n\n`src/new/`"), 1);
    let architecture = read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    let sources = sources();
    assert_none(
        documents::NEWEST
            .iter()
            .flat_map(|newest| documents::how_to_add(&architecture, *newest, &sources))
            .collect(),
    );
}

#[test]
fn documents_name_only_what_exists() {
    assert_eq!(
        documents::dead_paths("A.md", "see `src/gone.rs`", |_| false).len(),
        1
    );
    assert_eq!(
        documents::dead_paths("A.md", "see `src/here.rs` and `some words`", |path| path
            == "src/here.rs")
        .len(),
        0
    );
    let mut documents = guides();
    documents.extend(
        [
            "ARCHITECTURE.md",
            "tests/fixtures/README.md",
            "fuzz/README.md",
        ]
        .map(str::to_owned),
    );
    for document in documents {
        let text = read_to_string(top().join(&document)).unwrap();
        assert_none(documents::dead_paths(&document, &text, |path| {
            top().join(path).exists()
        }));
    }
}

/// What people read who use gemmad.
fn guides() -> Vec<String> {
    let guide =
        |path: &String| path == "README.md" || path.starts_with("docs/") && path.ends_with(".md");
    let found: Vec<String> = rules::files(top()).into_iter().filter(guide).collect();
    assert!(found.len() > 10, "{found:?}");
    found
}

#[test]
fn links_lead_somewhere() {
    let there = |path: &str| path == "docs/here.md" || path == "src";
    let links = |text| documents::dead_links("docs/a.md", text, there).len();
    assert_eq!(links("[a](gone.md), [b](../gone)"), 2);
    assert_eq!(
        links("[a](here.md#part) ![b](../src) [c](https://example.org/x) [d](#e)"),
        0
    );
    for document in rules::files(top()) {
        if document.ends_with(".md") {
            let text = read_to_string(top().join(&document)).unwrap();
            assert_none(documents::dead_links(&document, &text, |path| {
                top().join(path).exists()
            }));
        }
    }
}

#[test]
fn the_index_names_every_document() {
    let documents = ["README.md", "docs/README.md", "docs/a.md", "docs/b.md"].map(str::to_owned);
    let missing = |index| documents::unlisted(index, &documents).len();
    assert_eq!(missing("[home](../README.md), [a](a.md), b.md"), 1);
    assert_eq!(missing("[home](../README.md), [a](a.md), [b](b.md)"), 0);
    let index = read_to_string(top().join("docs/README.md")).unwrap();
    assert_none(documents::unlisted(&index, &guides()));
}

#[test]
fn guides_have_short_sentences_of_one_line_each() {
    let breaches = |text: &str| documents::sentences("a.md", text).len();
    assert_eq!(breaches("One idea. Another idea."), 1);
    assert_eq!(breaches(&format!("* {}end.", "word ".repeat(30))), 1);
    assert_eq!(
        breaches(
            "One `thing. And` it.\n1. Two\n   go on: e.g. this.\n\n    make it. Make it.\n\n| A. B. |\n\n```\nA. B.\n```\nEnd."
        ),
        0
    );
    for document in guides().iter().chain([&"ARCHITECTURE.md".to_owned()]) {
        let text = read_to_string(top().join(document)).unwrap();
        assert_none(documents::sentences(document, &text));
    }
}

#[test]
fn no_file_names_a_place_on_its_authors_machine() {
    let place = ["/wo", "rk/notes.md"].concat();
    assert_eq!(
        rules::stray_places("a.md", &format!("fine\nsee {place}")).len(),
        1
    );
    assert_eq!(
        rules::stray_places("a.md", &format!("see target{place}, /workshop/")).len(),
        0
    );
    let mut breaches = Vec::new();
    for path in rules::files(top()) {
        // What is no UTF-8 is weights, sound or pictures.
        if let Ok(text) = read_to_string(top().join(&path)) {
            breaches.extend(rules::stray_places(&path, &text));
        }
    }
    assert_none(breaches);
}

#[test]
fn manifests_keep_the_arithmetic_alone() {
    assert_eq!(
        rules::manifest(
            "kernels/Cargo.toml",
            "[lints]\nworkspace = true\n[dependencies]\ntokio = \"1\"\nhalf = \"2\""
        )
        .len(),
        1
    );
    assert_eq!(
        rules::manifest("Cargo.toml", "[dependencies]\nclap = \"4\"").len(),
        1
    );
    for path in ["Cargo.toml", "kernels/Cargo.toml", "wake/Cargo.toml"] {
        assert_none(rules::manifest(
            path,
            &read_to_string(top().join(path)).unwrap(),
        ));
    }
}

#[test]
fn everything_linked_comes_from_the_registry() {
    let git = "[[package]]\nname = \"a\"\nsource = \"git+https://example.org/a#1\"";
    assert_eq!(rules::foreign_sources(git).len(), 1);
    assert_none(rules::foreign_sources(
        &read_to_string(top().join("Cargo.lock")).unwrap(),
    ));
}

/// The last line of `.ci/run`'s log is `tools/count-tests.py`'s.
#[test]
fn the_tests_of_a_log_are_counted_by_what_their_runners_say() {
    let count = |log: &str| {
        let mut child = Command::new("python3")
            .arg(top().join("tools/count-tests.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(log.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap().to_owned();
        (last, output.status.success())
    };
    let good = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 0.1s\n\
        \x1b[32;1m     Summary\x1b[0m [   9.1s] \x1b[1m700\x1b[0m tests run: \x1b[1m700\x1b[0m passed (1 slow), 2 skipped\n\
        instruction-counts: 40 kernels on 3 CPUs, none over 3 % more than on record\n\
        3 of 3 passed in 7 min\n";
    assert_eq!(count(good), ("745 passed, 0 failed".to_owned(), true));
    for (log, said) in [
        (
            "     Summary [   9.1s] 5/9 tests run: 4 passed, 1 failed, 0 skipped\n",
            "4 passed, 1 failed",
        ),
        (
            "test result: FAILED. 2 passed; 3 failed; 0 ignored\n",
            "2 passed, 3 failed",
        ),
        ("2 of 3 passed in 7 min\n", "2 passed, 1 failed"),
        (
            "instruction-counts: kernels take more instructions than kernels/benches/record says:\n",
            "0 passed, 1 failed",
        ),
        // A log in which nothing ran is no good one.
        ("error: no such command\n", "0 passed, 0 failed"),
    ] {
        assert_eq!(count(log), (said.to_owned(), false));
    }
}

/// `cross` itself needs Docker, which a test may not have; what its file says can be read.
#[test]
fn cross_builds_for_the_boards_in_a_pinned_image() {
    let text = read_to_string(top().join("cross.toml")).unwrap();
    let file: toml::Table = text.parse().unwrap();
    let targets = file["target"].as_table().unwrap();
    let image = targets["aarch64-unknown-linux-gnu"]["image"]
        .as_str()
        .unwrap();
    let (_, tag) = image.rsplit_once(':').unwrap();
    assert!(
        tag.starts_with(|c: char| c.is_ascii_digit()),
        "{image} moves: pin a version"
    );

    // What a build without Docker gets from tools/install-build-deps.sh for the board and for the compiler.
    let strings = |value: &toml::Value| -> Vec<String> {
        let items = value.as_array().unwrap().iter();
        items
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    let prepared = strings(&targets["aarch64-unknown-linux-gnu"]["pre-build"]).join("\n");
    let words: Vec<&str> = prepared.split_whitespace().collect();
    assert!(prepared.starts_with("dpkg --add-architecture $CROSS_DEB_ARCH"));
    let script = read_to_string(top().join("tools/install-build-deps.sh")).unwrap();
    for (there, here) in [
        ("libasound2-dev:arm64", "libasound2-dev:$CROSS_DEB_ARCH"),
        ("libclang-dev", "libclang-dev"),
        ("pkg-config", "pkg-config"),
    ] {
        assert!(script.contains(there) && words.contains(&here), "{here}");
    }
    let passed = strings(&file["build"]["env"]["passthrough"]);
    let config: toml::Table = read_to_string(top().join(".cargo/config.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let allow = config["env"]["PKG_CONFIG_ALLOW_CROSS"].as_str().unwrap();
    for variable in [
        "BINDGEN_EXTRA_CLANG_ARGS",
        "GEMMAD_ISA",
        "QEMU_CPU",
        &format!("PKG_CONFIG_ALLOW_CROSS={allow}"),
    ] {
        assert!(
            passed.iter().any(|p| p == variable),
            "{variable} does not reach the build"
        );
    }
}
