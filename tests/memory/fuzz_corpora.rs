//! The corpora of the fuzz targets, on the compiler that builds gemmad and without libFuzzer: the same functions over the same files.
//!
//! What a run of `make fuzz` finds is put into its target's corpus, and stays found.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, dead_code, reason = "a crate of its own in fuzz/")]
mod fuzz;

use std::collections::BTreeSet;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use crate::{ALONE, HEAP};

/// No input of a corpus has more than some tens of kilobytes, and none may make gemmad hold more than this: less than the `-rss_limit_mb`
/// of a run by what the sanitizer takes.
const MAX_BYTES: usize = 256 << 20;

/// A corpus is in every clone.
const MAX_CORPUS_BYTES: u64 = 1 << 20;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// One test, so that what one target holds is not another's.
#[test]
fn every_input_of_every_corpus_is_borne() {
    let _alone = ALONE.lock();
    for (name, target) in fuzz::TARGETS {
        let corpus = files(&top().join("fuzz/corpus").join(name));
        assert!(corpus.len() >= 8, "{name} has {} inputs", corpus.len());
        let sizes = corpus.iter().map(|path| path.metadata().unwrap().len());
        assert!(sizes.sum::<u64>() < MAX_CORPUS_BYTES, "{name}");
        // What is made once and kept is not the first input's.
        target(&[]);
        for path in corpus {
            let bytes = std::fs::read(&path).unwrap();
            let ((), peak) = HEAP.peak_of(|| target(&bytes));
            assert!(peak < MAX_BYTES, "{}: {peak} bytes", path.display());
        }
    }
}

#[test]
fn every_target_has_its_program_its_corpus_and_its_way_into_make_fuzz() {
    let manifest: toml::Table = read_to_string(top().join("fuzz/Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let programs = manifest["bin"].as_array().unwrap().iter();
    let programs: BTreeSet<String> = programs
        .map(|bin| bin["name"].as_str().unwrap().to_owned())
        .collect();
    let names = |dir: &str| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        files(&top().join(dir)).into_iter().map(stem).collect()
    };
    let targets: BTreeSet<String> = fuzz::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(targets, programs);
    assert_eq!(targets, names("fuzz/fuzz_targets"));
    assert_eq!(targets, names("fuzz/corpus"));
    for name in &targets {
        let text = read_to_string(top().join(format!("fuzz/fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("run(\"{name}\", bytes)")), "{name}");
    }
}
