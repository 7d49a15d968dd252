//! What comes is what lies there, and no more than is needed of it.

use std::collections::BTreeMap;

use crate::server::{Fault, Repo};
use crate::{Bench, GEMMA_3N, GEMMA_4, assert_same, failed, of_this_repository, succeeded};

/// The packing of files on the disk is compared with the reference elsewhere (`tests/golden/pack.rs`): this only has to be the same.
#[test]
fn a_pack_from_the_hub_is_the_pack_of_the_same_files() {
    for model in [GEMMA_4, GEMMA_3N] {
        let bench = Bench::with(Repo::of(&of_this_repository(model), "b2"));
        let output = bench.pull(&[]).output().unwrap();
        succeeded(&output);
        let said = String::from_utf8(output.stdout).unwrap();
        let source = format!("google/demo@{}", "b2".repeat(20));
        assert!(
            said.contains(&source) && said.contains("balanced"),
            "{said}"
        );
        assert_same(&bench.pack(), &bench.packed_here(model));
        let manifest = std::fs::read_to_string(bench.pack().join("pack.json")).unwrap();
        assert!(manifest.contains(&source), "{manifest}");
        let licence = std::fs::read_to_string(bench.pack().join("LICENSE")).unwrap();
        assert!(licence.contains("Apache License"));
        // Nothing else is left.
        let names: Vec<_> = std::fs::read_dir(bench.path("models")).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        // The same again is nothing to do.
        bench.hub.asked();
        succeeded(&bench.pull(&[]).output().unwrap());
        assert_eq!(bench.hub.asked().len(), 1, "only which commit it is");
    }
}

/// Shards, as larger models have them.
#[test]
fn shards_are_pulled_like_one_file() {
    let fixture = of_this_repository("tests/fixtures/tiny-g4a");
    let bench = Bench::with(Repo::of(&fixture, "c3"));
    succeeded(&bench.pull(&[]).output().unwrap());
    assert_same(&bench.pack(), &bench.packed_here("tests/fixtures/tiny-g4a"));
}

/// Bytes of the tensors of a header whose names `wanted` takes, and of the header itself.
fn needed(file: &[u8], wanted: impl Fn(&str) -> bool) -> u64 {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap());
    let json = &file[8..8 + length as usize];
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(json).unwrap();
    let tensors = header.iter().filter(|(name, _)| wanted(name));
    let bytes = tensors.filter_map(|(_, tensor)| {
        let offsets = tensor["data_offsets"].as_array()?;
        Some(offsets[1].as_u64()? - offsets[0].as_u64()?)
    });
    8 + length + bytes.sum::<u64>()
}

/// Layers that share keys and values have matrices for them that nothing reads.
fn is_unused(name: &str, first_shared: usize) -> bool {
    let layer = name.split(".layers.").nth(1);
    let layer = layer.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let is_kv = ["k_proj", "v_proj", "k_norm"]
        .iter()
        .any(|part| name.contains(part));
    name.contains("language_model") && is_kv && layer.is_some_and(|n| n >= first_shared)
}

#[test]
fn only_what_is_needed_is_fetched() {
    let repo = Repo::of(&of_this_repository(GEMMA_4), "d4");
    let weights = repo.bytes("model.safetensors");
    let config: serde_json::Value = serde_json::from_slice(&repo.bytes("config.json")).unwrap();
    let text = &config["text_config"];
    let count = |key: &str| text[key].as_u64().unwrap() as usize;
    let first_shared = count("num_hidden_layers") - count("num_kv_shared_layers");
    let bench = Bench::with(repo);
    for (options, towers) in [
        (&[][..], &["audio", "vision"][..]),
        (&["--no-vision"], &["audio"]),
        (&["--no-audio"], &["vision"]),
        (&["--text-only"], &[]),
    ] {
        let wanted = |name: &str| {
            let of = |tower: &&str| {
                name.starts_with(&format!("model.{tower}_tower."))
                    || name.starts_with(&format!("model.embed_{tower}."))
            };
            let is_tower = ["audio", "vision"].iter().any(of);
            (!is_tower || towers.iter().any(of)) && !is_unused(name, first_shared)
        };
        let needed = needed(&weights, wanted);
        assert!(needed < weights.len() as u64, "something is left out");
        bench.hub.sent_bytes();
        bench.hub.asked();
        let mut all = options.to_vec();
        all.push("--force");
        succeeded(&bench.pull(&all).output().unwrap());
        // Everything that was asked of the file, each byte once.
        let asked = bench.hub.asked();
        let stretches = asked
            .iter()
            .filter(|asked| asked.target.starts_with("/blob/"));
        let length = |range: &str| {
            let (first, last) = range
                .strip_prefix("bytes=")
                .unwrap()
                .split_once('-')
                .unwrap();
            last.parse::<u64>().unwrap() + 1 - first.parse::<u64>().unwrap()
        };
        let small = 70_000; // tokenizer.json is there, too
        let of_weights: u64 = stretches
            .filter_map(|asked| asked.range.as_deref())
            .map(length)
            .sum();
        assert!(
            of_weights >= needed && of_weights <= needed + needed / 100 + small,
            "{options:?}: {of_weights} for {needed}"
        );
        let has = |group: &str| bench.pack().join(format!("{group}.safetensors")).exists();
        assert!(has("text") && has("ple"));
        for tower in ["audio", "vision"] {
            assert_eq!(has(tower), towers.contains(&tower), "{options:?}");
        }
        let mut ask = bench.gemmad(&["ask", "--model", bench.pack().to_str().unwrap()]);
        succeeded(&ask.args(["--max-tokens", "4", "hello"]).output().unwrap());
    }
}

#[test]
fn a_configuration_is_told_which_pack_to_use() {
    let bench = Bench::new();
    let config = bench.path("gemmad.toml");
    std::fs::write(&config, "# mine\n[model]\npath = \"/old.pack\" # why\n").unwrap();
    let shown = config.to_str().unwrap();
    succeeded(&bench.pull(&["--use", "--config", shown]).output().unwrap());
    let text = std::fs::read_to_string(&config).unwrap();
    let pack = bench.pack().canonicalize().unwrap();
    assert_eq!(text, format!("# mine\n[model]\npath = {pack:?} # why\n"));
}

#[test]
fn what_happens_is_told_as_json_too() {
    let bench = Bench::new();
    let output = bench.pull(&["--json"]).output().unwrap();
    assert_eq!(succeeded(&output), "");
    let lines = String::from_utf8(output.stdout).unwrap();
    let events: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let done = events.last().unwrap();
    assert_eq!(done["event"], "done");
    assert_eq!(done["in_use"], false);
    assert!(done["fetched_bytes"].as_u64().unwrap() > 1 << 20);
}

#[test]
fn another_file_of_a_repository_is_not_taken_for_a_model() {
    let bench = Bench::new();
    let to = bench.path("models");
    let to = to.to_str().unwrap();
    for (name, told) in [
        ("google/demo:config.json", "no file of llama.cpp"),
        ("google/demo:a.gguf", "has no file \"a.gguf\""),
        ("google/demo@v9", "has no revision \"v9\""),
        ("google/none", "is not on the hub, or is private"),
        ("gemma-5", "gemma-4-e2b"),
    ] {
        let said = failed(&bench.gemmad(&["pull", name, "--to", to]).output().unwrap());
        assert!(said.contains(told), "{said}");
    }
}

/// Without a tokenizer of its own repository: the file's own is taken.
#[test]
fn a_file_of_llama_cpp_is_pulled_and_packed() {
    let file = of_this_repository("tests/fixtures/gguf/tiny-a.gguf");
    let mut repo = Repo::new("e6");
    repo.add("mmproj-a.gguf", b"GGUF".to_vec());
    repo.add("sub/tiny-Q4.gguf", std::fs::read(&file).unwrap());
    let bench = Bench::with(repo);
    let to = bench.path("models");
    let pull = |bench: &Bench| {
        let name = "google/demo:sub/tiny-Q4.gguf";
        let to = to.to_str().unwrap();
        let options = ["--recipe", "q8", "--text-only"];
        let arguments = [&["pull", name, "--to", to][..], &options].concat();
        bench.gemmad(&arguments).output().unwrap()
    };
    bench.hub.fail("blob/", 0, 1, Fault::CutOff(10_000));
    succeeded(&pull(&bench));
    let pulled = to.join("tiny-q4.pack");
    assert_same(&pulled, &bench.packed_of(&file, &["--recipe", "q8"]));
    let manifest = std::fs::read_to_string(pulled.join("pack.json")).unwrap();
    assert!(manifest.contains(&format!("google/demo@{}:sub/tiny-Q4.gguf", "e6".repeat(20))));
    // The same again is nothing to do.
    bench.hub.asked();
    succeeded(&pull(&bench));
    assert_eq!(bench.hub.asked().len(), 1);
}

/// Where nobody names a model: one that fits, and why it is that one. The hub of this test has none of them.
#[test]
fn a_model_is_chosen_where_nobody_names_one() {
    let bench = Bench::new();
    let to = bench.path("models");
    let output = bench
        .gemmad(&["pull", "--to", to.to_str().unwrap()])
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("gemmad: gemma-4-e"), "{said}");
    for told in ["GiB of memory", "GB free", "tokens/s"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let said = failed(&output);
    assert!(said.contains("is not on the hub"), "{said}");
}

/// A daemon runs with the configuration, as far as its command line tells.
struct Running(std::process::Child);

impl Running {
    fn start(bench: &Bench, config: &str) -> Running {
        std::fs::copy("/bin/sh", bench.path("gemmad")).unwrap();
        std::fs::write(bench.path("run"), "read line\n").unwrap();
        let mut daemon = std::process::Command::new(bench.path("gemmad"));
        daemon.args(["run", "--config", config]);
        daemon.current_dir(bench.dir.path());
        daemon.stdin(std::process::Stdio::piped());
        Running(daemon.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn the_service_that_runs_with_a_configuration_is_restarted() {
    let bench = Bench::new();
    let config = bench.path("gemmad.toml");
    std::fs::write(&config, "").unwrap();
    let shown = config.to_str().unwrap();
    let bin = bench.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let asked = bench.path("asked");
    // As systemctl is called; it is active, or is not.
    let systemctl = |is_active: bool| {
        let exit = if is_active { "exit 0" } else { "exit 3" };
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\n{exit}\n", asked.display());
        std::fs::write(bin.join("systemctl"), script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join("systemctl"), mode).unwrap();
    };
    let pull = || {
        let mut pull = bench.pull(&["--use", "--config", shown]);
        let output = pull.env("PATH", &bin).output().unwrap();
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    systemctl(true);
    let said = pull();
    assert!(
        said.ends_with("names it now\n") && !asked.exists(),
        "{said}"
    );
    let daemon = Running::start(&bench, shown);
    let said = pull();
    assert!(said.contains("and gemmad runs with it"), "{said}");
    let told = std::fs::read_to_string(&asked).unwrap();
    assert!(told.contains("try-restart gemmad.service"), "{told}");
    systemctl(false);
    std::fs::remove_file(&asked).unwrap();
    let said = pull();
    assert!(said.contains("sudo systemctl restart gemmad"), "{said}");
    let told = std::fs::read_to_string(&asked).unwrap();
    assert!(!told.contains("try-restart"), "{told}");
    drop(daemon);
}
