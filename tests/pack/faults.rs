//! Making a pack while the disk is full or the process is killed, and packs that lack a tower.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn gemmad(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gemmad"));
    command.args(arguments);
    command
}

/// Of a source, and perhaps a file of its towers.
fn pack(from: &[PathBuf], to: &Path) -> Command {
    let mut command = gemmad(&["pack", "--to"]);
    command.arg(to).arg("--from").arg(&from[0]);
    if let Some(towers) = from.get(1) {
        command.arg("--mmproj").arg(towers);
    }
    command
}

fn demo() -> [PathBuf; 1] {
    [fixture("models/demo")]
}

fn gguf() -> [PathBuf; 1] {
    [fixture("tests/fixtures/tiny-g4a-gguf/text-qat-layout.gguf")]
}

fn gguf_and_towers() -> [PathBuf; 2] {
    let [text] = gguf();
    [
        text,
        fixture("tests/fixtures/tiny-g4a-gguf/mmproj-bf16.gguf"),
    ]
}

fn trained() -> [PathBuf; 1] {
    [fixture("tests/fixtures/tiny-g4a-qat-mobile")]
}

fn verify(pack: &Path) -> Output {
    let mut command = gemmad(&["inspect", "--verify", "--model"]);
    command.arg(pack).output().unwrap()
}

#[test]
fn whenever_it_is_killed_nothing_half_written_loads() {
    killed(&demo());
}

#[test]
fn whenever_it_is_killed_nothing_half_written_of_a_gguf_and_its_towers_loads() {
    killed(&gguf_and_towers());
}

#[test]
fn whenever_it_is_killed_nothing_half_written_of_trained_integers_loads() {
    killed(&trained());
}

/// The files of a pack, without what says that they were verified.
fn files_in(dir: &Path) -> Option<usize> {
    let names = std::fs::read_dir(dir).ok()?.flatten();
    let names = names.map(|entry| entry.file_name());
    Some(names.filter(|name| name != "verified.json").count())
}

fn killed(from: &[PathBuf]) {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("a.pack");
    let partial = home.path().join("a.pack.partial");
    let mut kinds = std::collections::BTreeSet::new();
    let mut whole_files = std::collections::BTreeSet::new();
    let mut interrupted = 0;
    // From before the first file to after the last, however fast this machine is: each run is killed a little later.
    let mut delay = Duration::ZERO;
    while !to.exists() {
        let mut child = pack(from, &to).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        // SIGKILL; it may be done already.
        child.kill().unwrap();
        child.wait().unwrap();
        delay += Duration::from_millis(3) + delay / 16;
        if to.exists() {
            break;
        }
        if let Some(files) = files_in(&partial) {
            interrupted += 1;
            kinds.insert(files);
            // Killed behind the last file and before the name, it is whole.
            let whole = verify(&partial).status.success();
            if whole {
                whole_files.insert(files);
            }
            let opened = gemmad(&["inspect", "--model"])
                .arg(&partial)
                .output()
                .unwrap();
            assert_eq!(
                opened.status.success(),
                whole,
                "what is half written is no pack"
            );
        }
    }
    assert!(interrupted > 2, "{interrupted} runs were met at work");
    assert!(kinds.len() > 1, "all at the same place: {kinds:?}");
    // The run that was not killed in time made a pack from what the others left.
    let output = verify(&to);
    assert!(output.status.success(), "{output:?}");
    let all_files = files_in(&to).unwrap();
    assert!(
        whole_files.iter().all(|&files| files == all_files),
        "{whole_files:?} files are called a pack of {all_files}"
    );
    std::fs::remove_dir_all(&to).unwrap();
    let output = pack(from, &to).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(verify(&to).status.success());
    assert!(!partial.exists());
}

/// A file system with room for `inodes` files and directories, its own root included, in a name space of its own.
fn pack_on_full_disk(from: &[PathBuf], inodes: u32, size: &str) -> Option<Output> {
    let script = r#"mount -t tmpfs -o "size=$1,nr_inodes=$2" none "$3" || exit 99
        "$0" pack --from "$4" ${5:+--mmproj "$5"} --to "$3/a.pack"; code=$?
        [ -z "$(ls -A "$3")" ] || [ -d "$3/a.pack" ] || exit 98
        exit $code"#;
    let mount = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.args([env!("CARGO_BIN_EXE_gemmad"), size, &inodes.to_string()]);
    command.arg(mount.path()).args(from);
    let output = command.output().ok()?;
    let refused = matches!(output.status.code(), Some(99)) || {
        String::from_utf8_lossy(&output.stderr).starts_with("unshare:")
    };
    (!refused).then_some(output)
}

#[test]
fn a_file_system_without_room_is_told_at_every_file() {
    // The root, the directory and 12 files are 14.
    told_at_every_file(&[fixture("tests/fixtures/tiny-a")], 14, "4m");
}

/// The root, the directory and 6 files: config, tokenizer and template, text and tables, pack.json.
#[test]
fn a_file_system_without_room_for_a_gguf_is_told_at_every_file() {
    told_at_every_file(&gguf(), 8, "1m");
}

/// Three files more: both towers, and how pictures and sound are prepared.
#[test]
fn a_file_system_without_room_for_a_gguf_and_its_towers_is_told_at_every_file() {
    told_at_every_file(&gguf_and_towers(), 11, "2m");
}

/// The root, the directory and 11 files.
#[test]
fn a_file_system_without_room_for_trained_integers_is_told_at_every_file() {
    told_at_every_file(&trained(), 13, "1m");
}

fn told_at_every_file(from: &[PathBuf], all: u32, too_small: &str) {
    // Where nobody may mount, tests/pack/files.rs has the same by a limit on the size of files.
    let Some(sound) = pack_on_full_disk(from, 100, "64m") else {
        return;
    };
    assert!(sound.status.success(), "{sound:?}");
    let mut met = std::collections::BTreeSet::new();
    for inodes in 1..all {
        let output = pack_on_full_disk(from, inodes, "64m").unwrap();
        let text = complaint(&output);
        assert_eq!(output.status.code(), Some(74), "{inodes}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.contains("No space left") && text.contains("free some space"),
            "{text}"
        );
        let file = text
            .split(": No space")
            .next()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        met.insert(file.to_owned());
    }
    assert_eq!(met.len(), all as usize - 1, "{met:?}");
    let output = pack_on_full_disk(from, 100, too_small).unwrap();
    let text = complaint(&output);
    assert_eq!(output.status.code(), Some(74), "{text}");
    assert!(text.contains("bytes free"), "{text}");
}

/// What is said beside which recipe the source gets.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines = text.lines().filter(|line| !line.contains(": recipe "));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_pack_of_text_alone_says_that_it_cannot_hear_or_see() {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("text.pack");
    let output = pack(&[fixture("tests/fixtures/gguf/tiny-a.gguf")], &to)
        .arg("--tokenizer")
        .arg(fixture("tests/fixtures/tiny-a"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let wav = fixture("models/demo/heldout/audio/002_combo.wav");
    let picture = std::fs::read_dir(fixture("models/demo/heldout")).unwrap();
    let picture = picture
        .flat_map(|entry| {
            std::fs::read_dir(entry.unwrap().path())
                .into_iter()
                .flatten()
        })
        .map(|entry| entry.unwrap().path())
        .find(|path| {
            path.extension()
                .is_some_and(|kind| kind == "png" || kind == "jpg")
        })
        .unwrap();
    for (command, medium, what) in [
        ("transcribe", wav, "audio tower"),
        ("describe", picture, "vision tower"),
    ] {
        let mut asked = gemmad(&[command, "--model"]);
        let output = asked.arg(&to).arg(medium).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(65), "{text}");
        assert!(
            text.contains("text.pack") && text.contains(what) && text.contains("gemmad pack"),
            "{text}"
        );
    }
    let mut ask = gemmad(&["ask", "--max-tokens", "4", "--seed", "1", "--model"]);
    let output = ask.arg(&to).arg("Hello.").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
