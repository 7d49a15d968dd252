//! Whatever goes wrong is one line that says what to do; nothing half-made is ever at the place of the pack.

use std::io::Write;

use crate::server::{Fault, Repo};
use crate::{Bench, GEMMA_4, assert_same, failed, of_this_repository, succeeded};

fn status(status: u16, headers: &[(&'static str, &str)]) -> Fault {
    let own = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let mut headers: Vec<_> = own.collect();
    headers.push(("X-Request-Id", "1".to_owned()));
    Fault::Status(status, headers)
}

/// Every answer of the interface that refuses, at the list of files.
#[test]
fn every_refusal_says_what_to_do() {
    let code = |status_code, code| status(status_code, &[("X-Error-Code", code)]);
    let message = |code, message| status(code, &[("X-Error-Message", message)]);
    for (fault, told) in [
        (
            code(404, "RepoNotFound"),
            "is not on the hub, or is private",
        ),
        (
            code(401, "RepoNotFound"),
            "is not on the hub, or is private",
        ),
        (code(404, "RevisionNotFound"), "has no revision \"main\""),
        (code(401, "GatedRepo"), "log in at"),
        (status(401, &[]), "is not on the hub, or is private"),
        (
            message(403, "Access to this resource is disabled."),
            "was taken down",
        ),
        (status(429, &[("Retry-After", "900")]), "try again in 900 s"),
        (status(418, &[]), "answers with HTTP status 418"),
        (Fault::Page, "asks to log in to this network"),
        (
            Fault::Body(b"{\"sha\": \"x\", \"siblings\": []}".to_vec()),
            "names no commit",
        ),
        (
            Fault::Body(b"[".repeat(100_000)),
            "does not answer as the model hub",
        ),
        (
            Fault::Body(vec![b' '; 9 << 20]),
            "has more than 8388608 bytes",
        ),
        (Fault::To("ftp://a/".to_owned()), "of another scheme"),
        (
            Fault::To("/api/models/google/demo".to_owned()),
            "redirects in a circle",
        ),
    ] {
        let bench = Bench::new();
        bench.hub.fail("api/models", 0, 99, fault);
        let said = failed(&bench.pull(&["--retries", "0"]).output().unwrap());
        assert!(said.contains(told), "{said}");
        assert!(!bench.pack().exists());
    }
    let bench = Bench::new();
    bench.hub.fail("api/models", 0, 99, code(403, "GatedRepo"));
    let pull = |bench: &Bench| {
        bench
            .pull(&["--retries", "0"])
            .env("HF_TOKEN", "hf_x")
            .output()
    };
    let said = failed(&pull(&bench).unwrap());
    assert!(said.contains("has not accepted the terms"), "{said}");
    for (fault, told) in [
        (status(403, &[]), "a fine-grained token needs the right"),
        (
            message(401, "Invalid credentials in Authorization header"),
            "make a new one",
        ),
    ] {
        let bench = Bench::new();
        bench.hub.fail("api/models", 0, 99, fault);
        let said = failed(&pull(&bench).unwrap());
        assert!(said.contains(told), "{said}");
    }
}

/// What may pass is asked for again.
#[test]
fn what_passes_is_waited_for() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    bench.hub.fail("api/models", 0, 1, status(503, &[]));
    bench.hub.fail("api/resolve-cache", 1, 1, status(500, &[]));
    bench
        .hub
        .fail("blob/", 1, 1, status(429, &[("Retry-After", "0")]));
    bench.hub.fail("blob/", 2, 1, Fault::CutOff(1000));
    bench.hub.fail("blob/", 4, 1, Fault::CutOff(0));
    let said = succeeded(&bench.pull(&[]).output().unwrap());
    assert!(said.contains("asking again in"), "{said}");
    assert_same(&bench.pack(), &here);
}

/// A line that breaks for good; the next run goes on.
#[test]
fn a_lost_network_costs_nothing_that_was_fetched() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    bench.hub.fail("blob/", 5, 1, Fault::CutOff(500_000));
    bench.hub.fail("blob/", 5, 2, status(502, &[]));
    let said = failed(&bench.pull(&["--retries", "1"]).output().unwrap());
    assert!(said.contains("what is downloaded stays"), "{said}");
    assert!(!bench.pack().exists());
    let first = bench.hub.sent_bytes();
    let said = succeeded(&bench.pull(&[]).output().unwrap());
    assert!(
        said.contains("going on where an earlier run ended"),
        "{said}"
    );
    assert_same(&bench.pack(), &here);
    let all: u64 = first + bench.hub.sent_bytes();
    let whole = of_this_repository(GEMMA_4).join("model.safetensors");
    let whole = whole.metadata().unwrap().len() + 200_000;
    // What was fetched for the last, unmarked MiB of the pack comes once more: in 16 bits it is up to four times that.
    assert!(all < whole + (4 << 20), "{all} of {whole}");
}

#[test]
fn a_file_that_is_another_than_it_should_be_is_refused() {
    for (path, fault, told) in [
        ("resolve/", Fault::Changed, "changed on the hub meanwhile"),
        ("resolve", Fault::NoCommit, "names no commit"),
        // A network that wants a login, before the first file and in the middle.
        ("resolve", Fault::Page, "asks to log in to this network"),
        ("blob/", Fault::Page, "ends tokenizer.json before its end"),
        (
            "resolve/",
            status(404, &[("X-Error-Code", "EntryNotFound")]),
            "has no file",
        ),
        (
            "resolve/",
            Fault::To("/google/demo/resolve/main/config.json?again".to_owned()),
            "redirects in a circle",
        ),
        ("blob/", Fault::Whole, "only as a whole"),
        ("blob/", status(416, &[]), "it is shorter"),
        (
            "blob/",
            status(403, &[]),
            "refuses the address that the hub gave",
        ),
        (
            "resolve/",
            Fault::To("http://127.0.0.1:9/".to_owned()),
            "cannot be reached",
        ),
        ("resolve/", Fault::To("//".to_owned()), "has a bad host"),
    ] {
        let bench = Bench::new();
        bench.hub.fail(path, 0, 99, fault);
        let said = failed(&bench.pull(&["--retries", "0"]).output().unwrap());
        assert!(said.contains(told), "{told}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
        assert!(!bench.pack().exists());
    }
    for name in ["config.json", "tokenizer.json"] {
        let mut repo = Repo::of(&of_this_repository(GEMMA_4), "e5");
        repo.lie(name);
        let said = failed(&Bench::with(repo).pull(&[]).output().unwrap());
        assert!(
            said.contains("came with the hash") && said.contains(name),
            "{said}"
        );
    }
}

/// What was fetched before stays, and is gone on with where the file is the same after all.
#[test]
fn a_file_that_changes_between_two_parts_of_it_is_refused() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    bench.hub.fail("model.safetensors", 3, 1, Fault::Changed);
    let said = failed(&bench.pull(&[]).output().unwrap());
    assert!(
        said.contains("model.safetensors changed on the hub meanwhile (another hash)"),
        "{said}"
    );
    assert!(!bench.pack().exists());
    let said = succeeded(&bench.pull(&[]).output().unwrap());
    assert!(
        said.contains("going on where an earlier run ended"),
        "{said}"
    );
    assert_same(&bench.pack(), &here);
}

/// Names that lead out of the directory are of no file.
#[test]
fn a_repository_writes_nowhere_but_where_its_files_belong() {
    let mut repo = Repo::of(&of_this_repository(GEMMA_4), "e7");
    for name in [
        "../../evil",
        "../evil.safetensors",
        "/evil",
        "a/../../../evil",
    ] {
        repo.add(name, b"evil".to_vec());
    }
    let bench = Bench::with(repo);
    let before: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().collect();
    succeeded(&bench.pull(&[]).output().unwrap());
    let after: Vec<_> = std::fs::read_dir(bench.dir.path()).unwrap().collect();
    assert_eq!(before.len() + 1, after.len(), "{after:?}");
    assert!(
        bench
            .hub
            .asked()
            .iter()
            .all(|asked| !asked.target.contains("evil"))
    );
    let named = ["pull", "google/demo:../../evil", "--to", "."];
    let said = failed(&bench.gemmad(&named).output().unwrap());
    assert!(said.contains("is no file of a repository"), "{said}");
}

#[test]
fn a_repository_that_is_no_model_is_told_so() {
    let demo = || Repo::of(&of_this_repository(GEMMA_4), "f6");
    let header = |length: u64, json: &str| [&length.to_le_bytes()[..], json.as_bytes()].concat();
    let mut without_config = demo();
    without_config.remove("config.json");
    let mut without_weights = demo();
    without_weights.remove("model.safetensors");
    let with = |bytes: Vec<u8>| {
        let mut repo = demo();
        repo.add("model.safetensors", bytes);
        repo
    };
    let huge =
        r#"{"a": {"dtype": "BF16", "shape": [9223372036854775807, 9], "data_offsets": [0, 2]}}"#;
    let mut elsewhere = without_weights.clone();
    let index = r#"{"weight_map": {"a": "../../etc/passwd"}}"#;
    elsewhere.add("model.safetensors.index.json", index.into());
    let mut other_family = demo();
    other_family.add("config.json", b"{\"model_type\": \"llama\"}".to_vec());
    for (repo, told) in [
        (without_config, "has no config.json"),
        (without_weights, "has neither model.safetensors nor"),
        (elsewhere, "has no such file"),
        (other_family, "supported are Gemma 3n"),
        (with(vec![0; 4]), "too short for weights"),
        (
            with(header(u64::MAX, "{}")),
            "whose header claims 18446744073709551615 bytes",
        ),
        (
            with(header(huge.len() as u64, huge)),
            "download the file again",
        ),
        (with(header(2, "{}")), "hold no tensor at all"),
        (with(header(5, "<html")), "download the file again"),
    ] {
        let bench = Bench::with(repo);
        let said = failed(&bench.pull(&[]).output().unwrap());
        assert!(said.contains(told), "{told}: {said}");
        assert!(!bench.pack().exists());
    }
}

#[test]
fn a_place_that_cannot_be_written_to_is_told() {
    let bench = Bench::new();
    std::fs::File::create(bench.path("models"))
        .and_then(|mut file| file.write_all(b"no directory"))
        .unwrap();
    let said = failed(&bench.pull(&[]).output().unwrap());
    assert!(
        said.contains("cannot create") && said.contains("--to"),
        "{said}"
    );
    assert_eq!(bench.hub.sent_bytes() / (1 << 20), 0);
}
