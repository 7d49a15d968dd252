//! Parameter groups come into memory and leave it: what this process maps (/proc/self/smaps) and what the page cache holds
//! (fincore of util-linux).

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gemmad::features::image::RgbImage;
use gemmad::model::decoder::TextError;
use gemmad::model::gemma3n::config::Config;
use gemmad::model::gemma3n::matformer::slices;
use gemmad::model::gemma3n::text::TextModel;
use gemmad::model::sampler::Sampling;
use gemmad::model::weights::{Checkpoint, Stretch, WeightsError};
use gemmad::pipeline::{
    Engine, EngineError, EngineOptions, Generation, Group, GroupState, Media, Message, Part,
    PictureOptions, Request, Residency,
};

use crate::common::pages::{cached_bytes, home, pack_tiny_a, packed};

/// Bytes of the file that this process has mapped and that are in memory; `None` where it maps none of it.
fn mapped_rss(path: &Path) -> Option<u64> {
    let path = path.canonicalize().unwrap();
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut rss = None;
    let mut ours = false;
    for line in smaps.lines() {
        if line
            .split(' ')
            .next()
            .is_some_and(|range| range.contains('-'))
        {
            ours = line.ends_with(path.to_str().unwrap());
            if ours {
                rss.get_or_insert(0);
            }
        } else if let (true, Some(kib)) = (ours, line.strip_prefix("Rss:")) {
            let kib: u64 = kib.trim().trim_end_matches(" kB").parse().unwrap();
            rss = rss.map(|sum| sum + kib * 1024);
        }
    }
    rss
}

/// Waits for what another thread does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(60) {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not happen within 60 s");
}

fn options() -> EngineOptions {
    EngineOptions {
        threads: 2,
        context: 512,
        ..EngineOptions::default()
    }
}

fn request(user: Vec<Part>) -> Request {
    Request {
        messages: Message::user(user),
        matformer: None,
        thinking: None,
        conversation: None,
        generation: Generation {
            sampling: Sampling::GREEDY,
            seed: 1,
            max_tokens: 8,
            stop: Vec::new(),
            grammar: None,
            tools: None,
        },
    }
}

fn text() -> Request {
    request(vec![Part::Text("Turn on the light.".into())])
}

fn picture() -> Request {
    let image = RgbImage {
        width_px: 8,
        height_px: 8,
        pixels: (0..192).collect(),
    };
    request(vec![
        Part::Media(Media::Image(image, PictureOptions::default())),
        Part::Text("What is this?".into()),
    ])
}

fn said(engine: &mut Engine, request: &Request) -> String {
    engine
        .answer(request, &mut |_| ControlFlow::Continue(()))
        .unwrap()
        .text
}

/// Bytes of the weights in a file: the header is not part of the group; pages at its end may be.
fn weights_bytes(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    bytes.len() as u64 - header - 2 * 4096
}

#[test]
fn a_group_comes_and_goes() {
    let home = home();
    let pack = packed(home.path(), "balanced");
    let mut engine = Engine::open(&pack, options()).unwrap();
    for group in Group::ALL {
        assert_eq!(engine.group_state(group), GroupState::Unloaded, "{group}");
    }
    let file = |group: Group| pack.join(format!("{group}.safetensors"));

    // Text and PLE: used, given back, used again with the same result.
    let want = said(&mut engine, &text());
    for group in [Group::Text, Group::Ple] {
        assert_eq!(engine.group_state(group), GroupState::Resident);
    }
    assert!(mapped_rss(&file(Group::Text)).unwrap() > 100_000);
    engine.unload(Group::Text);
    engine.unload(Group::Ple);
    for group in [Group::Text, Group::Ple] {
        assert_eq!(engine.group_state(group), GroupState::Unloaded);
        assert_eq!(cached_bytes(&file(group)), 0, "{group}");
    }
    assert_eq!(mapped_rss(&file(Group::Text)), Some(0));
    assert!(
        engine
            .memory()
            .iter()
            .all(|group| group.resident_bytes == 0)
    );
    assert_eq!(said(&mut engine, &text()), want);

    // A tower: read in the background, used, given back.
    let vision = file(Group::Vision);
    assert_eq!(mapped_rss(&vision), None);
    std::fs::File::open(&vision).unwrap().sync_all().unwrap();
    engine.prefetch(Group::Vision);
    until("the prefetch", || {
        engine.group_state(Group::Vision) == GroupState::Resident
    });
    let weights = weights_bytes(&vision);
    assert!(weights > 100_000, "{weights}");
    assert!(
        mapped_rss(&vision).unwrap() >= weights,
        "all of it is mapped already"
    );
    let want = said(&mut engine, &picture());
    engine.unload(Group::Vision);
    assert_eq!(engine.group_state(Group::Vision), GroupState::Unloaded);
    assert_eq!(mapped_rss(&vision), None);
    assert_eq!(cached_bytes(&vision), 0);
    let json = serde_json::to_value(engine.memory()).unwrap();
    assert_eq!(json[3]["group"], "vision");
    assert_eq!(json[3]["state"], "unloaded");
    assert_eq!(json[0]["state"], "resident");
    // And without a prefetch.
    assert_eq!(said(&mut engine, &picture()), want);
    assert_eq!(engine.group_state(Group::Vision), GroupState::Resident);
}

/// What is not mapped, the second plane of a head, waits in the page cache where there is room; here it is larger than anything that the
/// kernel reads ahead by itself.
#[test]
fn the_second_plane_is_read_ahead_too() {
    const BYTES: usize = 48 << 20;
    let home = home();
    let path = home.path().join("model.safetensors");
    let header = serde_json::json!({
        "model.language_model.norm.weight": { "dtype": "F32", "shape": [4], "data_offsets": [0, 16] },
        "model.language_model.embed_tokens.residual": { "dtype": "U8", "shape": [BYTES], "data_offsets": [16, 16 + BYTES] },
    });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(64), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + 16 + BYTES, 1);
    std::fs::write(&path, &file).unwrap();
    // Out of the page cache.
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    let forgotten = Command::new("dd")
        .args(["oflag=nocache", "conv=notrunc", "count=0", "status=none"])
        .arg(format!("of={}", path.display()))
        .status()
        .unwrap();
    assert!(forgotten.success());
    assert!(cached_bytes(&path) < 1 << 20);

    let residency = Residency::new(Arc::new(Checkpoint::open(home.path()).unwrap()));
    residency.prefetch(Group::Text);
    until("the second plane", || cached_bytes(&path) >= BYTES as u64);
    assert!(mapped_rss(&path).unwrap() < 1 << 20, "it is not mapped");
}

#[test]
fn the_next_process_finds_the_text_model_in_the_page_cache() {
    let home = home();
    let pack = packed(home.path(), "balanced");
    let mut engine = Engine::open(&pack, options()).unwrap();
    said(&mut engine, &text());
    drop(engine);
    let file = pack.join("text.safetensors");
    let all = file.metadata().unwrap().len();
    assert!(cached_bytes(&file) * 10 > all * 9, "{all}");
}

/// What util-linux says of the same files.
#[test]
fn inspect_tells_what_the_page_cache_has_and_changes_nothing() {
    let home = home();
    let pack = packed(home.path(), "q8");
    let file = |group: &str| pack.join(format!("{group}.safetensors"));
    let told = |group: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
            .args(["inspect", "--json", "--model"])
            .arg(&pack)
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let groups = report["groups"].as_array().unwrap();
        let of = groups.iter().find(|of| of["group"] == group).unwrap();
        of["resident_bytes"].as_u64().unwrap()
    };
    for group in ["text", "ple", "audio", "vision"] {
        let bytes = std::fs::read(file(group)).unwrap().len() as u64;
        for _ in 0..2 {
            let (told, cached) = (told(group), cached_bytes(&file(group)));
            // Without the page or two of the header, perhaps.
            assert!(
                told <= cached && cached - told <= 1 << 17,
                "{group}: {told} of {cached}"
            );
            assert!(cached >= bytes, "{group}: {cached} of {bytes}");
        }
    }
    // To read the header brings in what stands behind it, too.
    let checkpoint = Checkpoint::open(&pack).unwrap();
    checkpoint.load(Group::Text).unwrap().evict();
    let (told, cached) = (told("text"), cached_bytes(&file("text")));
    assert!(
        told <= cached && cached - told <= 1 << 17,
        "{told} of {cached}"
    );
    assert!(told < file("text").metadata().unwrap().len() / 2, "{told}");
}

#[test]
fn a_slice_brings_in_its_own_weights_alone() {
    let home = home();
    let pack = home.path().join("demo.pack");
    let output = Command::new(env!("CARGO_BIN_EXE_gemmad"))
        .args(["pack", "--recipe", "q8", "--from"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo"))
        .arg("--to")
        .arg(&pack)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(pack.join("config.json")).unwrap()).unwrap();
    let text = &config["text_config"];
    let width = text["hidden_size"].as_u64().unwrap();
    let neurons: u64 = match &text["intermediate_size"] {
        serde_json::Value::Array(layers) => layers.iter().map(|n| n.as_u64().unwrap()).sum(),
        one => one.as_u64().unwrap() * text["num_hidden_layers"].as_u64().unwrap(),
    };
    let layers = text["num_hidden_layers"].as_u64().unwrap();
    let pattern = text["activation_sparsity_pattern"].as_array().unwrap();
    let sparse = pattern
        .iter()
        .filter(|share| share.as_f64() != Some(0.0))
        .count() as u64;
    // Gate, up and down of half of the neurons: 32 weights and a scale have 34 bytes. In sparse layers every row of `up` and
    // every column of `down` begins on a cache line.
    let row = width * 34 / 32;
    let in_layer = neurons / layers / 2;
    let unused =
        in_layer * ((layers - sparse) * 3 * row + sparse * (row + 2 * row.next_multiple_of(64)));
    let config = Config::load(&pack).unwrap().text;
    let model = TextModel::load(&Checkpoint::open(&pack).unwrap(), &config).unwrap();
    let slices = slices(&config, Some(&pack)).unwrap();
    let left = |slice| -> u64 { model.unused_by(slice).iter().map(Stretch::bytes).sum() };
    assert_eq!(left(slices.get("half").unwrap()), unused);
    assert_eq!(left(slices.full()), 0);
    drop(model);

    // So small a file comes into memory whole, whatever is asked for; of a large one the rest stays where it is.
    let file = sparse_checkpoint(home.path(), 1 << 30);
    let checkpoint = Arc::new(Checkpoint::open(home.path()).unwrap());
    let residency = Residency::new(Arc::clone(&checkpoint));
    let mapped = checkpoint.load(Group::Audio).unwrap();
    let matrix = mapped
        .matrix("model.audio_tower.weight", 1 << 29, 1)
        .unwrap();
    let behind = mapped.behind(matrix, 1 << 24).unwrap();
    assert_eq!(behind.bytes(), (1 << 30) - (1 << 25));
    residency.prefetch_without(Group::Audio, vec![behind]);
    until("the prefetch", || {
        residency.state(Group::Audio) == GroupState::Resident
    });
    let rss = mapped_rss(&file).unwrap();
    assert!((1 << 25..1 << 26).contains(&rss), "{rss} bytes");
    residency.cancel(Group::Audio);
    assert_eq!(
        residency.state(Group::Audio),
        GroupState::Resident,
        "it is there already"
    );

    let engine = Engine::open(&pack, options()).unwrap();
    assert!(engine.prefetch_text(Some("no such slice")).is_err());
}

/// A checkpoint of one hole, as large as no test could read it in time.
fn sparse_checkpoint(dir: &Path, bytes: u64) -> PathBuf {
    let path = dir.join("model.safetensors");
    let mut header = serde_json::json!({
        "model.audio_tower.weight": {"dtype": "BF16", "shape": [bytes / 2], "data_offsets": [0, bytes]}
    })
    .to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + bytes).unwrap();
    path
}

#[test]
fn a_prefetch_that_is_cancelled_gives_its_memory_back() {
    let home = home();
    let bytes = 8u64 << 30;
    let file = sparse_checkpoint(home.path(), bytes);
    let residency = Residency::new(Arc::new(Checkpoint::open(home.path()).unwrap()));
    for _ in 0..3 {
        residency.prefetch(Group::Audio);
        assert_eq!(residency.state(Group::Audio), GroupState::Loading);
        // Asked again while it loads: nothing more happens.
        residency.prefetch(Group::Audio);
        until("reading", || {
            mapped_rss(&file).is_some_and(|rss| rss >= 8 << 20)
        });
        residency.cancel(Group::Audio);
        assert_eq!(residency.state(Group::Audio), GroupState::Unloaded);
        until("the end of the mapping", || mapped_rss(&file).is_none());
        // The header was read, and what the kernel reads ahead with it.
        until("the end of its pages", || cached_bytes(&file) < 1 << 20);
    }
    // What the checkpoint does not have is not loaded, and PLE is read by row.
    for group in [Group::Vision, Group::Ple] {
        residency.prefetch(group);
        assert_eq!(residency.state(group), GroupState::Unloaded, "{group}");
    }
}

#[test]
fn weights_cut_off_while_they_are_in_use_are_told_before_they_are_read() {
    let home = home();
    let pack = packed(home.path(), "balanced");
    let mut engine = Engine::open(&pack, options()).unwrap();
    said(&mut engine, &picture());
    let truncated = |engine: &mut Engine, request: &Request| {
        let answer = engine.answer(request, &mut |_| ControlFlow::Continue(()));
        match answer {
            Err(EngineError::Weights(error @ WeightsError::Truncated { .. })) => error.to_string(),
            Err(EngineError::Text(error @ TextError::Rows(_))) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    for (name, request) in [
        ("vision.safetensors", picture()),
        ("ple.safetensors", text()),
        ("text.safetensors", text()),
    ] {
        let file = std::fs::File::options()
            .write(true)
            .open(pack.join(name))
            .unwrap();
        file.set_len(4096).unwrap();
        engine.unload(Group::Ple);
        let told = truncated(&mut engine, &request);
        assert!(told.contains(name) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn a_pack_that_is_replaced_while_it_runs_goes_on_answering() {
    let home = home();
    let pack = packed(home.path(), "balanced");
    let mut engine = Engine::open(&pack, options()).unwrap();
    let mut reference = Engine::open(&pack, options()).unwrap();
    let want = [text(), picture()].map(|request| said(&mut reference, &request));
    said(&mut engine, &text());
    // As `gemmad pack --force` replaces it, by another recipe.
    pack_tiny_a(&pack, "small");
    engine.unload(Group::Text);
    engine.unload(Group::Ple);
    assert_eq!(said(&mut engine, &text()), want[0]);
    // The tower is loaded only now.
    assert_eq!(said(&mut engine, &picture()), want[1]);
    drop(reference);
    let mut new = Engine::open(&pack, options()).unwrap();
    assert_ne!(said(&mut new, &text()), want[0], "the packs do differ");
}

#[test]
fn locking_that_is_not_allowed_is_a_warning() {
    let home = home();
    let pack = packed(home.path(), "balanced");
    let config = home.path().join("g.toml");
    std::fs::write(&config, "[model]\nmlock = true\n").unwrap();
    let ask = |limit: &str, more: &[&str]| {
        let script = format!("ulimit -l {limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("setpriv");
        // Root may lock whatever it likes.
        command.args(["--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]);
        command.args(["sh", "-c", &script, env!("CARGO_BIN_EXE_gemmad"), "ask"]);
        command.args(["--seed", "1", "--temperature", "0", "--max-tokens", "8"]);
        command.arg("--model").arg(&pack).args(more).arg("Hello.");
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(output.status.success(), "{}", text(output.stderr));
        (text(output.stdout), text(output.stderr))
    };
    let config = ["--config", config.to_str().unwrap()];
    let (want, silent) = ask("64", &[]);
    assert_eq!(silent, "");
    let (said, warned) = ask("64", &config);
    assert_eq!(said, want);
    assert_eq!(warned.lines().count(), 1, "{warned}");
    assert!(
        warned.contains("LimitMEMLOCK") && warned.contains("text.safetensors"),
        "{warned}"
    );
}

#[test]
fn locked_weights_are_locked_and_can_be_given_back() {
    let home = home();
    let pack = packed(home.path(), "balanced");
    let options = EngineOptions {
        mlock: true,
        ..options()
    };
    let mut engine = Engine::open(&pack, options).unwrap();
    let locked_kib = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .unwrap()
    };
    if !engine.warnings().is_empty() {
        // Here this user may not lock that much, which the test above is about.
        assert!(engine.warnings()[0].contains("LimitMEMLOCK"));
        return;
    }
    let want = said(&mut engine, &text());
    assert!(locked_kib() > 500, "{} KiB", locked_kib());
    engine.unload(Group::Text);
    assert_eq!(locked_kib(), 0);
    assert_eq!(mapped_rss(&pack.join("text.safetensors")), Some(0));
    assert_eq!(said(&mut engine, &text()), want);
    assert!(locked_kib() > 500, "locked again");
}
