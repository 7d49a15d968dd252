//! The token is for the hub alone.

use crate::server::{Fault, Repo};
use crate::{Bench, GEMMA_4, failed, of_this_repository, succeeded};

const TOKEN: &str = "hf_s3cretToken";

fn gated() -> Bench {
    let mut repo = Repo::of(&of_this_repository(GEMMA_4), "a7");
    repo.gated = true;
    repo.licence = "gemma";
    let bench = Bench::with(repo);
    bench.hub.accept(TOKEN);
    bench
}

#[test]
fn a_gated_model_is_given_to_a_token_that_nobody_else_sees() {
    let bench = gated();
    let said = failed(&bench.pull(&[]).output().unwrap());
    assert!(
        said.contains("log in at") && said.contains("/google/demo"),
        "{said}"
    );
    let said = failed(
        &bench
            .pull(&[])
            .env("HF_TOKEN", "hf_other")
            .output()
            .unwrap(),
    );
    assert!(said.contains("has not accepted the terms"), "{said}");
    assert!(!said.contains("hf_other"), "{said}");
    bench.hub.asked();

    std::fs::create_dir_all(bench.path(".cache/huggingface")).unwrap();
    std::fs::write(bench.path(".cache/huggingface/token"), format!("{TOKEN}\n")).unwrap();
    let output = bench.pull(&[]).env("RUST_LOG", "trace").output().unwrap();
    let said = succeeded(&output) + &String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains(TOKEN), "{said}");
    let asked = bench.hub.asked();
    let (hub, store): (Vec<_>, Vec<_>) = asked
        .iter()
        .partition(|asked| asked.host.starts_with("127.0.0.1"));
    assert!(!hub.is_empty() && !store.is_empty());
    let bearer = format!("Bearer {TOKEN}");
    assert!(
        hub.iter()
            .all(|asked| asked.authorization.as_ref() == Some(&bearer))
    );
    assert!(store.iter().all(|asked| asked.authorization.is_none()));
    // Nor does it stay anywhere.
    for file in std::fs::read_dir(bench.pack()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(
            !bytes
                .windows(TOKEN.len())
                .any(|found| found == TOKEN.as_bytes())
        );
    }
    let licence = std::fs::read_to_string(bench.pack().join("LICENSE")).unwrap();
    assert!(licence.contains("Gemma Terms of Use"), "{licence}");
}

/// The same machine by another port is another server.
#[test]
fn another_port_is_another_host() {
    let bench = gated();
    let other = crate::server::Hub::start();
    let address = format!("{}/api/models/google/demo", other.endpoint);
    bench.hub.fail("api/models", 0, 9, Fault::To(address));
    let pull = bench
        .pull(&["--retries", "0"])
        .env("HF_TOKEN", TOKEN)
        .output();
    failed(&pull.unwrap());
    let asked = other.asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.authorization.is_none()));
}

#[test]
fn a_token_is_not_sent_where_that_is_forbidden() {
    let bench = gated();
    let mut pull = bench.pull(&[]);
    pull.env("HF_TOKEN", TOKEN)
        .env("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    failed(&pull.output().unwrap());
    assert!(
        bench
            .hub
            .asked()
            .iter()
            .all(|asked| asked.authorization.is_none())
    );
}

/// Gemma 3n: its terms, where they are accepted, and how the token is given.
#[test]
fn the_terms_of_a_model_are_named_before_anything_is_fetched() {
    let bench = gated();
    let mut repo = Repo::of(&of_this_repository(crate::GEMMA_3N), "a8");
    (repo.gated, repo.licence) = (true, "gemma");
    let id = "google/gemma-3n-E2B-it";
    bench.hub.put(id, repo);
    let to = bench.path("models");
    let pull = || {
        let arguments = ["pull", "gemma-3n-e2b", "--to", to.to_str().unwrap()];
        bench.gemmad(&arguments)
    };
    let output = pull().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let page = format!("{}/{id}", bench.hub.endpoint);
    assert!(said.contains("https://ai.google.dev/gemma/terms"), "{said}");
    assert!(
        said.contains(&format!("they are accepted at {page}")),
        "{said}"
    );
    let said = failed(&output);
    for told in [&format!("log in at {page}"), "HF_TOKEN", "hf auth login"] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let output = pull().env("HF_TOKEN", TOKEN).output().unwrap();
    assert!(succeeded(&output).contains("accepted"));
    let licence = std::fs::read_to_string(to.join("gemma-3n-e2b.pack/LICENSE")).unwrap();
    assert!(licence.contains("Gemma Terms of Use"), "{licence}");
}
