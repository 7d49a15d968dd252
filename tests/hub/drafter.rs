//! A model with its drafter: of two repositories, one pack.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::interrupted::killed_of;
use crate::server::Repo;
use crate::{Bench, assert_same, failed, of_this_repository, succeeded};

const MODEL: &str = "tests/fixtures/tiny-g4a";
const DRAFTER: &str = "tests/fixtures/tiny-g4a-drafter";
const ID: &str = "google/gemma-4-E2B-it";

fn repo(path: &str, commit: &str) -> Repo {
    Repo::of(&of_this_repository(path), commit)
}

fn bench() -> Bench {
    let bench = Bench::with(repo(MODEL, "a2"));
    bench.hub.put(ID, repo(MODEL, "a3"));
    let drafter = repo(DRAFTER, "a4");
    bench.hub.put("google/gemma-4-E2B-it-assistant", drafter);
    bench
}

fn pull(bench: &Bench, arguments: &[&str]) -> Command {
    let to = bench.path("models");
    let mut all = vec!["pull", "--to", to.to_str().unwrap(), "--recipe", "small"];
    all.extend(arguments);
    bench.gemmad(&all)
}

fn packed_here(bench: &Bench) -> PathBuf {
    let drafter = of_this_repository(DRAFTER);
    let arguments = ["--recipe", "small", "--drafter", drafter.to_str().unwrap()];
    bench.packed_of(&of_this_repository(MODEL), &arguments)
}

fn source(pack: &Path) -> String {
    let manifest = std::fs::read(pack.join("pack.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["source"].as_str().unwrap().to_owned()
}

#[test]
fn a_model_and_its_drafter_become_the_pack_of_the_same_files() {
    let bench = bench();
    let pack = bench.path("models/gemma-4-e2b.pack");
    let arguments = ["gemma-4-e2b", "--drafter"];
    succeeded(&pull(&bench, &arguments).output().unwrap());
    assert_same(&pack, &packed_here(&bench));
    assert!(pack.join("drafter.safetensors").is_file());
    let (model, drafter) = ("a3".repeat(20), "a4".repeat(20));
    let both = format!("{ID}@{model} + {ID}-assistant@{drafter}");
    assert_eq!(source(&pack), both);
    let left: Vec<_> = std::fs::read_dir(bench.path("models")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    // What is there is not fetched again, and a newer model is told with the whole command.
    bench.hub.asked();
    succeeded(&pull(&bench, &arguments).output().unwrap());
    assert!(bench.hub.asked().iter().all(|asked| asked.range.is_none()));
    bench.hub.put(ID, repo(MODEL, "a5"));
    let models = bench.path("models");
    let check = [
        "models",
        "--check",
        "--yes",
        "--dir",
        models.to_str().unwrap(),
    ];
    let output = bench.gemmad(&check).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let again = format!("gemmad pull gemma-4-e2b --recipe small --drafter={ID}-assistant");
    assert!(
        said.contains(&again),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_pull_that_is_killed_within_the_drafter_goes_on() {
    let bench = bench();
    let named = format!("--drafter={ID}-assistant");
    killed_of(&bench, 12, 120_000, &|| {
        pull(&bench, &["google/demo", &named])
    });
    assert_same(&bench.pack(), &packed_here(&bench));
}

#[test]
fn a_drafter_that_is_not_known_is_asked_for() {
    let bench = bench();
    let output = pull(&bench, &["google/demo", "--drafter"])
        .output()
        .unwrap();
    let said = failed(&output);
    assert!(
        said.contains("google/demo") && said.contains("--drafter="),
        "{said}"
    );
    // One of another kind is refused before the model is fetched.
    let named = "--drafter=google/gemma-4-E2B-it";
    let said = failed(&pull(&bench, &["google/demo", named]).output().unwrap());
    assert!(said.contains("-assistant"), "{said}");
}
