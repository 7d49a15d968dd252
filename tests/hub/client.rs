//! The hub's own client downloads from the same server: so it is the protocol, and not our idea of it. What it leaves in its cache is
//! taken from there.

use std::path::PathBuf;
use std::process::Command;

use crate::server::Repo;
use crate::{Bench, GEMMA_4, assert_same, failed, of_this_repository, succeeded};

/// A Python that has the client (`tools/install-build-deps.sh` makes one); `None` where there is none.
fn python() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| of_this_repository("target"));
    let python = target.join("hub-venv/bin/python");
    let has = Command::new(&python)
        .args(["-c", "import huggingface_hub"])
        .output();
    if has.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    eprintln!(
        "skipped: {} has no huggingface_hub (tools/install-build-deps.sh test)",
        python.display()
    );
    None
}

/// Runs a program of the client's.
fn run(bench: &Bench, python: &PathBuf, program: &str) -> String {
    let output = Command::new(python)
        .args(["-c", program])
        .env_clear()
        .env("HOME", bench.dir.path())
        .env("HF_ENDPOINT", &bench.hub.endpoint)
        .env("HF_HUB_DISABLE_XET", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_TOKEN", "hf_s3cret")
        .output()
        .unwrap();
    succeeded(&output);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_hubs_own_client_downloads_from_this_server_and_its_cache_is_taken() {
    let Some(python) = python() else { return };
    let mut repo = Repo::of(&of_this_repository(GEMMA_4), "ab");
    repo.gated = true;
    let bench = Bench::with(repo);
    bench.hub.accept("hf_s3cret");
    let program = "import huggingface_hub as h; print(h.snapshot_download('google/demo'))";
    let snapshot = PathBuf::from(run(&bench, &python, program));
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let there = std::fs::read(of_this_repository(GEMMA_4).join(name)).unwrap();
        assert!(
            std::fs::read(snapshot.join(name)).unwrap() == there,
            "{name}"
        );
    }
    // It keeps the token to the hub, as we do.
    let asked = bench.hub.asked();
    assert!(asked.iter().any(|asked| asked.authorization.is_some()));
    let elsewhere = asked
        .iter()
        .filter(|asked| asked.host.starts_with("localhost"));
    assert!({ elsewhere }.all(|asked| asked.authorization.is_none()));

    // What it has is not fetched again, and is enough where nothing may be asked.
    succeeded(
        &bench
            .pull(&[])
            .env("HF_TOKEN", "hf_s3cret")
            .output()
            .unwrap(),
    );
    let asked = bench.hub.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_same(&bench.pack(), &bench.packed_here(GEMMA_4));
    let mut offline = bench.pull(&["--force"]);
    succeeded(&offline.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert_eq!(bench.hub.asked().len(), 0);

    // A part of it is fetched, where a part is there.
    let weights = snapshot.join("model.safetensors");
    std::fs::remove_file(&weights).unwrap();
    let mut offline = bench.pull(&["--force"]);
    let said = failed(&offline.env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(said.contains("has neither model.safetensors"), "{said}");
    let pull = bench
        .pull(&["--force"])
        .env("HF_TOKEN", "hf_s3cret")
        .output();
    succeeded(&pull.unwrap());
    let asked = bench.hub.asked();
    assert!(asked.iter().skip(1).all(|asked| {
        asked.target.contains("model.safetensors") || asked.target.starts_with("/blob/")
    }));
}

/// Every refusal of this server is the one that the client has an exception of its own for.
#[test]
fn refusals_are_those_that_the_client_knows() {
    let Some(python) = python() else { return };
    let mut repo = Repo::of(&of_this_repository(GEMMA_4), "ac");
    repo.gated = true;
    let bench = Bench::with(repo);
    bench.hub.accept("hf_another");
    let program = "
import huggingface_hub as h, huggingface_hub.errors as e
def kind(*words, **more):
    try:
        h.hf_hub_download(*words, **more)
    except Exception as error:
        return type(error).__name__
print(kind('google/demo', 'config.json'), kind('google/none', 'config.json'))
";
    let said = run(&bench, &python, program);
    assert_eq!(said, "GatedRepoError RepositoryNotFoundError");
    bench.hub.accept("hf_s3cret");
    let program = format!(
        "{}print(kind('google/demo', 'none.json'), kind('google/demo', 'config.json', revision='v9'))\n",
        program.rsplit_once("print").unwrap().0
    );
    let said = run(&bench, &python, &program);
    assert!(
        said.ends_with("EntryNotFoundError RevisionNotFoundError"),
        "{said}"
    );
}
