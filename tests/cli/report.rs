//! `gemmad report` on packs of both demo models: a page with every figure that it promises, and nothing that tells whose machine it is.

use std::fs::read_to_string;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::process::Gemmad;

/// What stands in no page: it is in names of files and directories, and in what is said.
const SECRET: &str = "xylophone";

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn gemmad(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(arguments)
        .output()
        .unwrap()
}

/// Other tests have their daemons beside this one.
fn report(arguments: &[&str]) -> Output {
    gemmad(&[&["report", "--beside-daemon", "--quick"], arguments].concat())
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with packs of both families, recordings, and a configuration whose microphone plays one of them.
struct Home {
    dir: tempfile::TempDir,
}

/// The recordings: held-out ones under other names.
const RECORDINGS: [&str; 3] = ["001_voice.wav", "004_voice.wav", "007_voice.wav"];

impl Home {
    fn new() -> Home {
        let dir = tempfile::Builder::new().prefix(SECRET).tempdir().unwrap();
        let home = Home { dir };
        for (model, recipe) in [("demo-gemma4", "small"), ("demo", "balanced")] {
            let from = top().join("models").join(model);
            let to = home.path(&format!("packs/{SECRET}-{model}.pack"));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            let [from, to] = [&from, &to].map(|path| path.to_str().unwrap());
            let packed = gemmad(&["pack", "--from", from, "--to", to, "--recipe", recipe]);
            assert!(packed.status.success(), "{}", told(&packed));
        }
        std::fs::create_dir(home.path("recordings")).unwrap();
        let mut table = String::new();
        for (number, file) in RECORDINGS.iter().enumerate() {
            let name = format!("{SECRET} {number}.wav");
            let from = top().join("models/demo/heldout/audio").join(file);
            std::fs::copy(from, home.path("recordings").join(&name)).unwrap();
            let truth = crate::process::expected("audio", file, "transcript");
            table += &format!("{name}\t{truth}\n");
        }
        std::fs::write(home.path("recordings/truths.tsv"), table).unwrap();
        let sound = home.path(&format!("{SECRET}.raw"));
        crate::file_pcm::write_speech(&sound, RECORDINGS[0]);
        let config = format!(
            "[[microphone]]\nid = \"{SECRET}\"\ntype = \"replay\"\ndevice = {sound:?}\n[threads]\ncount = 1\n"
        );
        std::fs::write(home.path("gemmad.toml"), config).unwrap();
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The cells of the lines that begin so.
fn rows(page: &str, begin: &str) -> Vec<Vec<String>> {
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&format!("| {begin}")));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(cells).collect()
}

/// What tells of this machine whose it is.
fn identities() -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |path: &str| {
        let text = read_to_string(path).unwrap_or_default();
        found.push(text.trim_end_matches('\0').trim().to_owned());
    };
    for path in [
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/random/boot_id",
        "/etc/machine-id",
        "/sys/firmware/devicetree/base/serial-number",
        "/sys/class/dmi/id/product_serial",
        "/sys/class/dmi/id/product_uuid",
        "/sys/class/dmi/id/board_serial",
    ] {
        add(path);
    }
    for interface in std::fs::read_dir("/sys/class/net").unwrap().flatten() {
        add(interface.path().join("address").to_str().unwrap());
    }
    let cpuinfo = read_to_string("/proc/cpuinfo").unwrap();
    let serials = cpuinfo.lines().filter(|line| line.starts_with("Serial"));
    found.extend(serials.filter_map(|line| Some(line.split_once(':')?.1.trim().to_owned())));
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    found.push(String::from_utf8(user).unwrap().trim().to_owned());
    found.extend(std::env::var("HOME"));
    found.retain(|identity| !identity.is_empty() && identity != "00:00:00:00:00:00");
    found
}

#[test]
fn a_page_has_every_figure_and_tells_nobody_whose_it_is() {
    let home = Home::new();
    let page = home.path("page.md");
    let of = |name: &str| home.path(name).display().to_string();
    let (packs, recordings, config) = (of("packs"), of("recordings"), of("gemmad.toml"));
    let to = of("page.md");
    let done = report(&[
        "--dir",
        &packs,
        "--recordings",
        &recordings,
        "--config",
        &config,
        "--to",
        &to,
    ]);
    assert!(done.status.success(), "{}", told(&done));
    assert!(told(&done).contains("this takes about"), "{}", told(&done));
    let page = read_to_string(page).unwrap();

    // Figures of both, and beside a CPU that is not projected nothing.
    for (what, models) in [
        ("decode, tokens/s", 2),
        ("prefill of 128, tokens/s", 2),
        ("encoding speech, share of real time", 2),
        ("from the end of speech to the last of 12 tokens, s", 2),
        (
            "from the end of speech to the last of 12 tokens, padded as the reference does, s",
            1,
        ),
        ("picture, 70 soft tokens, s", 1),
        ("picture, 256 px, s", 1),
    ] {
        let found = rows(&page, &format!("{what} |"));
        assert_eq!(found.len(), models, "{what}: {page}");
        for row in found {
            assert!(row[1].parse::<f64>().unwrap() > 0.0, "{row:?}");
        }
    }
    for name in [
        "Gemma 4 of another size, small",
        "Gemma 3n of another size, balanced",
    ] {
        assert!(page.contains(&format!("## {name}\n")), "{page}");
        let board = rows(&page, "")
            .into_iter()
            .filter(|row| row.len() == 12 && row[1] == name);
        assert_eq!(board.count(), 1, "a line for docs/boards.md: {page}");
    }
    for words in [
        "s of sound became a transcript of",
        "after the last word: 700 ms of silence",
        "plain reading",
        "MB/s in one go",
        "**beside a daemon**",
        "resident while somebody speaks",
    ] {
        // Whether a daemon runs beside this test is chance.
        assert!(
            page.contains(words) || words.starts_with("**"),
            "{words:?}: {page}"
        );
    }

    // The error rates are those of `gemmad eval audio`.
    let pack = |model: &str| format!("{packs}/{SECRET}-{model}.pack");
    for (model, name, paddings) in [
        ("demo-gemma4", "Gemma 4 of another size, small", &["-"][..]),
        (
            "demo",
            "Gemma 3n of another size, balanced",
            &["reference", "none"],
        ),
    ] {
        for padding in paddings {
            let mut line = vec!["eval", "audio", "--json", "--model"];
            let pack = pack(model);
            let option = format!("--soft-token-padding={padding}");
            line.extend([&*pack, &*recordings]);
            line.extend((*padding != "-").then_some(&*option));
            let eval: Value = serde_json::from_slice(&gemmad(&line).stdout).unwrap();
            let rate = 100.0 * eval["rows"][0]["word_error_rate"].as_f64().unwrap();
            let row = rows(&page, &format!("{name} | {padding} |")).remove(0);
            assert_eq!(row[2..5], ["3", "0", &*format!("{rate:.2}")], "{row:?}");
        }
    }

    let lower = page.to_lowercase();
    let word = |c: char| c.is_alphanumeric();
    for identity in identities() {
        let identity = identity.to_lowercase();
        let at = lower.match_indices(&identity).find(|(at, _)| {
            let before = lower[..*at].chars().next_back().is_some_and(word);
            let after = lower[at + identity.len()..]
                .chars()
                .next()
                .is_some_and(word);
            !before && !after
        });
        assert_eq!(at, None, "{identity} is in {page}");
    }
    let said = RECORDINGS.map(|file| crate::process::expected("audio", file, "transcript"));
    let paths =
        [top(), home.dir.path(), &std::env::temp_dir()].map(|path| path.display().to_string());
    for secret in said
        .iter()
        .chain(&paths)
        .map(String::as_str)
        .chain([SECRET])
    {
        assert!(
            !lower.contains(&secret.to_lowercase()),
            "{secret} is in {page}"
        );
    }
    // Nor any path at all, but the command's own and the documents'.
    let known = ["docs/boards.md", "tokens/s", "gb/s", "mb/s", " / "];
    let plain = known
        .iter()
        .fold(lower, |page, known| page.replace(known, ""));
    assert!(!plain.contains('/'), "{plain}");
}

#[test]
fn what_was_projected_stands_in_the_documents() {
    let printed = gemmad(&["report", "--projections"]);
    assert!(printed.status.success(), "{}", told(&printed));
    let printed = String::from_utf8(printed.stdout).unwrap();
    let boards = read_to_string(top().join("docs/boards.md")).unwrap();
    assert!(printed.lines().count() > 20, "{printed}");
    for table in printed.trim().split("\n\n") {
        assert!(boards.contains(table), "docs/boards.md lacks {table}");
    }
}

#[test]
fn what_cannot_be_reported_is_told_before_anything_is_measured() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    std::fs::write(path("there.md"), "mine").unwrap();
    std::fs::write(path("bad.toml"), "[mqtt]\nport = 1\n").unwrap();
    let model = top().join("models/demo-gemma4").display().to_string();
    let (there, new, bad) = (path("there.md"), path("new.md"), path("bad.toml"));
    let (nowhere, empty) = (path("missing/page.md"), home.path().display().to_string());
    for (arguments, code, words) in [
        (&["--model", &*model, "--to", &there][..], 64, "--force"),
        (
            &["--model", &model, "--to", &nowhere],
            74,
            "missing/page.md",
        ),
        (&["--dir", &empty, "--to", &new], 66, "gemmad pull"),
        (&["--model", "/no/model", "--to", &new], 66, "/no/model"),
        (
            &["--model", &model, "--to", &new, "--config", &bad],
            78,
            "bad.toml",
        ),
        (
            &["--model", &model, "--to", &new, "--recordings", &empty],
            66,
            "table",
        ),
    ] {
        let output = report(&[arguments, &["--no-microphone"]].concat());
        let message = told(&output);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(words), "{words:?} is not in {message:?}");
        assert!(!Path::new(&new).exists());
    }
    assert_eq!(read_to_string(&there).unwrap(), "mine");
}

#[test]
fn beside_a_daemon_nothing_is_measured() {
    let home = tempfile::tempdir().unwrap();
    let model = top().join("models/demo-gemma4");
    let config = format!(
        "[mqtt]\nenabled = false\n[dbus]\nenabled = false\n[wyoming]\nenabled = true\nlisten = \"127.0.0.1:{}\"\n[model]\npath = {model:?}\n[threads]\ncount = 1\n",
        crate::broker::free_port()
    );
    std::fs::write(home.path().join("gemmad.toml"), config).unwrap();
    let daemon = Gemmad::spawn(home.path(), &[]);
    let page = home.path().join("page.md").display().to_string();
    let refused = gemmad(&["report", "--model", model.to_str().unwrap(), "--to", &page]);
    let message = told(&refused);
    assert_eq!(refused.status.code(), Some(69), "{message}");
    assert!(message.contains("systemctl stop gemmad"), "{message}");
    assert!(!Path::new(&page).exists());
    // Signals are taken only once it runs.
    daemon.wait_log("no microphones configured");
    daemon.stop();
}

#[test]
fn nothing_is_left_of_a_report_that_is_broken_off() {
    let home = tempfile::tempdir().unwrap();
    let model = top().join("models/demo-gemma4");
    let page = home.path().join("page.md");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["report", "--beside-daemon", "--no-microphone", "--model"])
        .arg(model)
        .arg("--to")
        .arg(&page)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(lines);
    // It is in the midst of measuring.
    lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("prompts")))
        .unwrap()
        .unwrap();
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
