//! Runs that are killed at any moment, and go on.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::server::{Fault, Repo};
use crate::{Bench, GEMMA_4, assert_same, failed, of_this_repository, succeeded};

/// Numbers that look random and are the same in every run.
fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    }
}

/// Kills `times` runs, each after it has fetched some more; gives back how many bytes were sent until the last was done.
pub(crate) fn killed(bench: &Bench, times: usize, step_bytes: u64) -> u64 {
    killed_of(bench, times, step_bytes, &|| bench.pull(&[]))
}

/// The same of any pull.
pub(crate) fn killed_of(
    bench: &Bench,
    times: usize,
    step_bytes: u64,
    pull: &dyn Fn() -> Command,
) -> u64 {
    let mut next = numbers(7);
    let mut sent = 0;
    for _ in 0..times {
        let mut run = pull();
        let mut run = run
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let goal = next() % (2 * step_bytes);
        let mut of_this_run = 0;
        while of_this_run <= goal && run.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
            of_this_run += bench.hub.sent_bytes();
        }
        run.kill().unwrap();
        run.wait().unwrap();
        sent += of_this_run + bench.hub.sent_bytes();
    }
    succeeded(&pull().output().unwrap());
    sent + bench.hub.sent_bytes()
}

#[test]
fn a_pull_that_is_killed_again_and_again_makes_the_same_pack() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    killed(&bench, 25, 600_000);
    assert_same(&bench.pack(), &here);
}

/// What lies on the disk after a power cut may be older than the journal, or anything.
#[test]
fn what_was_damaged_meanwhile_is_made_again() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    let mut next = numbers(11);
    for round in 0..6 {
        let mut run = bench.pull(&[]);
        let mut run = run
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut sent = 0;
        while sent < 3_000_000 * (round % 3 + 1) && run.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
            sent += bench.hub.sent_bytes();
        }
        run.kill().unwrap();
        run.wait().unwrap();
        for dir in [
            "models/demo.pack.partial",
            "models/demo.pack.pull",
            "models/demo.pack.pull/source",
        ] {
            for entry in std::fs::read_dir(bench.path(dir)).into_iter().flatten() {
                let path = entry.unwrap().path();
                let Ok(mut bytes) = std::fs::read(&path) else {
                    continue;
                };
                if bytes.is_empty() || next().is_multiple_of(3) {
                    continue;
                }
                let at = next() as usize % bytes.len();
                match next() % 2 {
                    0 => bytes.truncate(at),
                    _ => bytes[at..].fill(0),
                }
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
    succeeded(&bench.pull(&[]).output().unwrap());
    assert_same(&bench.pack(), &here);
}

/// A new revision, of which only the small files are new.
#[test]
fn a_revision_with_the_same_weights_is_gone_on_with() {
    let bench = Bench::new();
    stopped(&bench);
    let mut newer = Repo::of(&of_this_repository(GEMMA_4), "b9");
    let config = b"{\"temperature\": 0.5, \"do_sample\": true}".to_vec();
    newer.add("generation_config.json", config.clone());
    bench.hub.put("google/demo", newer);
    bench.hub.sent_bytes();
    let said = succeeded(&bench.pull(&[]).output().unwrap());
    assert!(
        said.contains("changed on the hub since") && said.contains("going on"),
        "{said}"
    );
    assert!(bench.hub.sent_bytes() < 9_000_000);
    let here = bench.packed_here(GEMMA_4);
    std::fs::write(here.join("generation_config.json"), config).unwrap();
    assert_same(&bench.pack(), &here);
}

/// A new revision with other weights.
#[test]
fn a_revision_with_other_weights_is_begun_anew() {
    let bench = Bench::new();
    stopped(&bench);
    let mut newer = Repo::of(&of_this_repository(GEMMA_4), "c9");
    let mut weights = newer.bytes("model.safetensors");
    let last = weights.len() - 1;
    weights[last] ^= 1;
    newer.add("model.safetensors", weights);
    bench.hub.put("google/demo", newer);
    let said = succeeded(&bench.pull(&[]).output().unwrap());
    assert!(said.contains("changed on the hub since"), "{said}");
    assert!(!said.contains("going on"), "{said}");
}

/// A run that ends when a part is fetched.
fn stopped(bench: &Bench) {
    bench.hub.fail("blob/", 5, 1, Fault::CutOff(500_000));
    failed(&bench.pull(&["--retries", "0"]).output().unwrap());
    assert!(!bench.pack().exists());
}

#[test]
fn two_pulls_at_once_do_not_hurt_each_other() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    let start = || {
        let mut run = bench.pull(&[]);
        run.stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let outputs = [start(), start()].map(|run| run.wait_with_output().unwrap());
    // Either the second came while the first worked, or when it was done.
    let done = outputs
        .iter()
        .filter(|output| output.status.success())
        .count();
    assert!(done >= 1);
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let said = failed(output);
        assert!(said.contains("another gemmad writes"), "{said}");
    }
    assert_same(&bench.pack(), &here);
}

/// What a person sees who ends it, while something is on its way.
#[test]
fn ctrl_c_says_that_it_goes_on() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    let never = bench.path("never");
    bench.hub.fail("blob/", 3, 1, Fault::Until(never));
    let mut run = bench.pull(&[]);
    let run = run
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut blobs = 0;
    while blobs < 4 {
        std::thread::sleep(Duration::from_millis(1));
        let asked = bench.hub.asked();
        blobs += asked
            .iter()
            .filter(|asked| asked.target.starts_with("/blob/"))
            .count();
    }
    let id = run.id().to_string();
    let killed = Command::new("kill").args(["-INT", &id]).status();
    assert!(killed.unwrap().success());
    let output = run.wait_with_output().unwrap();
    let said = failed(&output);
    assert!(
        said.contains("the same command goes on from here"),
        "{said}"
    );
    assert_eq!(output.status.code(), Some(130));
    assert!(!bench.pack().exists());
    succeeded(&bench.pull(&[]).output().unwrap());
    assert_same(&bench.pack(), &here);
}

/// The second is told so while the first works, and hurts nothing.
#[test]
fn a_second_pull_is_told_that_one_works() {
    let bench = Bench::new();
    let here = bench.packed_here(GEMMA_4);
    let go_on = bench.path("go-on");
    bench.hub.fail("blob/", 3, 1, Fault::Until(go_on.clone()));
    let mut run = bench.pull(&[]);
    let run = run
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !bench.path("models/demo.pack.pull/fetched.journal").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    for arguments in [&[][..], &["--force"]] {
        let said = failed(&bench.pull(arguments).output().unwrap());
        assert!(said.contains("another gemmad writes"), "{said}");
    }
    std::fs::write(go_on, "").unwrap();
    succeeded(&run.wait_with_output().unwrap());
    assert_same(&bench.pack(), &here);
}
