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
    let verified_at = json[0]["verified_at"].as_u64().unwrap();
    assert!(verified_at >= json[0]["made_at"].as_u64().unwrap());

    // Nobody is there who could agree that the hub is asked.
    bench.hub.asked();
    let said = failed(&models(&bench, &["--check"]));
    assert!(said.contains("nobody was asked"), "{said}");
    assert_eq!(bench.hub.asked().len(), 0);
    assert!(listed(&["--check", "--yes"]).contains("it is the newest"));
    bench
        .hub
        .put("google/demo", Repo::of(&of_this_repository(GEMMA_4), "e9"));
    let newer = format!("newer: google/demo@{}", "e9".repeat(20));
    let said = listed(&["--check", "--yes"]);
    assert!(said.contains(&newer), "{said}");
    // The command that is named there is taken, and is right.
    let pull = said.split('`').nth(1).unwrap();
    let words: Vec<&str> = pull.split(' ').skip(1).collect();
    succeeded(&bench.gemmad(&words).output().unwrap());
    assert!(listed(&["--check", "--yes"]).contains("it is the newest"));

    let said = failed(&models(&bench, &["--remove", "demo.pack", "--yes"]));
    assert!(
        said.contains("is in use") && said.contains("--force"),
        "{said}"
    );
    for name in ["..", "gemmad.toml", "../models/demo.pack", "none.pack"] {
        let said = failed(&models(&bench, &["--remove", name, "--yes"]));
        assert!(said.contains("`gemmad models` lists them"), "{said}");
    }
    // Nobody is there to agree.
    let said = failed(&models(&bench, &["--remove", "demo.pack", "--force"]));
    assert!(said.contains("nothing was removed"), "{said}");
    for name in ["demo.pack", "other.pack.pull"] {
        succeeded(&models(&bench, &["--remove", name, "--yes", "--force"]));
        assert!(!bench.path("models").join(name).exists());
    }
}

#[test]
fn packs_are_verified_and_it_is_told_when() {
    let bench = Bench::new();
    succeeded(&bench.pull(&[]).output().unwrap());
    let listed = |arguments: &[&str]| {
        let output = models(&bench, arguments);
        succeeded(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(listed(&[]).contains("verified: 20"));
    // A copy was not looked at.
    let (pack, copy) = (bench.pack(), bench.path("models/copy.pack"));
    let mut cp = std::process::Command::new("cp");
    let copied = cp.arg("-a").arg(&pack).arg(&copy).status();
    assert!(copied.unwrap().success());
    assert!(listed(&[]).contains("verified: never here"));
    assert!(!listed(&["--verify"]).contains("never"));
    assert_eq!(
        bench
            .hub
            .asked()
            .iter()
            .filter(|asked| asked.target.contains("/revision/"))
            .count(),
        1
    );
    // One that is damaged is told, and was verified never again.
    let weights = copy.join("text.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let said = failed(&models(&bench, &["--verify"]));
    assert!(
        said.contains("copy.pack") && said.contains("other contents"),
        "{said}"
    );
    let json: serde_json::Value = serde_json::from_str(&listed(&["--json"])).unwrap();
    assert!(json[0]["verified_at"].is_null() && json[0]["name"] == "copy.pack");
    assert!(json[1]["verified_at"].is_u64());
}
