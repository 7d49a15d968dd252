//! `gemmad models`.

use crate::server::Repo;
use crate::{Bench, GEMMA_4, failed, of_this_repository, succeeded};

fn models(bench: &Bench, arguments: &[&str]) -> std::process::Output {
    let (dir, config) = (bench.path("models"), bench.path("gemmad.toml"));
    let mut all = vec!["models", "--dir", dir.to_str().unwrap()];
    all.extend(["--config", config.to_str().unwrap()]);
    all.extend(arguments);
    bench.gemmad(&all).output().unwrap()
}

#[test]
fn packs_are_listed_looked_after_and_removed() {
    let bench = Bench::new();
    let listed = |arguments: &[&str]| {
        let output = models(&bench, arguments);
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(listed(&[]).contains("holds no pack"));
    std::fs::write(bench.path("gemmad.toml"), "").unwrap();
    let config = bench.path("gemmad.toml");
    succeeded(
        &bench
            .pull(&["--use", "--config", config.to_str().unwrap()])
            .output()
            .unwrap(),
    );
    std::fs::create_dir(bench.path("models/other.pack.pull")).unwrap();

    let source = format!("google/demo@{}", "a1".repeat(20));
    let said = listed(&[]);
    for told in [
        "demo.pack (in use)",
        "Gemma 4, text, audio, vision",
        &source,
        "Apache-2.0",
        "other.pack.pull: a pull",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let json: serde_json::Value = serde_json::from_str(&listed(&["--json"])).unwrap();
    assert_eq!(json[0]["name"], "demo.pack");
    assert_eq!(json[0]["source"], source.as_str());
    assert_eq!(json[0]["in_use"], true);
    assert!(json[0]["newer"].is_null());

    assert!(listed(&["--check"]).contains("it is the newest"));
    bench
        .hub
        .put("google/demo", Repo::of(&of_this_repository(GEMMA_4), "e9"));
    let newer = format!("newer: google/demo@{}", "e9".repeat(20));
    assert!(listed(&["--check"]).contains(&newer));

    let said = failed(&models(&bench, &["--remove", "demo.pack", "--yes"]));
    assert!(said.contains("is in use"), "{said}");
    std::fs::write(bench.path("gemmad.toml"), "").unwrap();
    for name in ["..", "gemmad.toml", "../models/demo.pack", "none.pack"] {
        let said = failed(&models(&bench, &["--remove", name, "--yes"]));
        assert!(said.contains("`gemmad models` lists them"), "{said}");
    }
    // Nobody is there to agree.
    let said = failed(&models(&bench, &["--remove", "demo.pack"]));
    assert!(said.contains("nothing was removed"), "{said}");
    for name in ["demo.pack", "other.pack.pull"] {
        succeeded(&models(&bench, &["--remove", name, "--yes"]));
        assert!(!bench.path("models").join(name).exists());
    }
}
