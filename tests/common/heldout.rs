//! What the demo models were never trained on.

#![allow(
    dead_code,
    reason = "every test binary that has this module uses a part of it"
)]

use std::path::{Path, PathBuf};

use gemmad::features::audio_file::{AudioLimits, read_audio_file};

/// A demo model, and how many of 24 the reference implementation gets right with it (its README.md), with each of its slices.
pub(crate) struct Demo {
    directory: &'static str,
    pub(crate) slices: &'static [&'static str],
    pub(crate) transcripts: usize,
    pub(crate) heard_commands: usize,
    pub(crate) read_commands: usize,
    pub(crate) captions: usize,
    /// Transcripts that become wrong where faint noise is laid under the clips: none of them was trained with such noise.
    pub(crate) lost_in_noise: usize,
}

pub(crate) const GEMMA3N: Demo = Demo {
    directory: "models/demo",
    slices: &["full", "half"],
    transcripts: 23,
    heard_commands: 24,
    read_commands: 23,
    captions: 23,
    lost_in_noise: 0,
};

pub(crate) const GEMMA4: Demo = Demo {
    directory: "models/demo-gemma4",
    slices: &["full"],
    transcripts: 22,
    heard_commands: 23,
    read_commands: 23,
    captions: 24,
    lost_in_noise: 1,
};

/// Trained in 2, 4 and 8 bits; it runs from a pack only.
pub(crate) const GEMMA4_MOBILE: Demo = Demo {
    directory: "models/demo-gemma4/mobile",
    ..GEMMA4
};

/// Rounding may tip a close call: one file more or less than the reference.
pub(crate) const TOLERANCE: usize = 1;

impl Demo {
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(self.directory)
    }
}

/// The directory that has the held-out files, too.
pub(crate) fn demo() -> PathBuf {
    GEMMA3N.path()
}

/// Rows of an `expected.tsv`, without its heading.
pub(crate) fn expected(kind: &str) -> Vec<Vec<String>> {
    let table =
        std::fs::read_to_string(demo().join("heldout").join(kind).join("expected.tsv")).unwrap();
    let rows: Vec<Vec<String>> = table
        .lines()
        .skip(1)
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect();
    assert_eq!(rows.len(), 24);
    rows
}

/// A spoken command.
pub(crate) struct Clip {
    pub(crate) file: String,
    pub(crate) path: PathBuf,
    /// At 16 kHz.
    pub(crate) samples: Vec<f32>,
    pub(crate) transcript: String,
    /// As JSON.
    pub(crate) command: String,
}

pub(crate) fn clips() -> Vec<Clip> {
    let read = |row: Vec<String>| {
        let path = demo().join("heldout/audio").join(&row[0]);
        let samples = read_audio_file(&path, &AudioLimits::default())
            .unwrap()
            .samples;
        Clip {
            file: row[0].clone(),
            path,
            samples,
            transcript: row[2].clone(),
            command: row[3].clone(),
        }
    };
    expected("audio").into_iter().map(read).collect()
}
