//! What was measured, for people and as JSON.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::candidates::Candidate;
use super::score::{Edits, Normalisation};
use super::truths::Truth;
use crate::cli::output::Out;

/// The columns before the figures.
const FIGURES: usize = 4;

/// What the files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Medium {
    Audio,
    Pictures,
}

/// The documented keys of `--json`.
#[derive(Serialize)]
pub(in crate::cli) struct Report {
    directory: String,
    medium: Medium,
    normalisation: Normalisation,
    pub(in crate::cli) rows: Vec<Row>,
}

/// One candidate on all files. Rates are over all words and characters together, so that long texts weigh more.
#[derive(Serialize)]
pub(in crate::cli) struct Row {
    #[serde(flatten)]
    pub(in crate::cli) candidate: Candidate,
    /// Files that were judged.
    pub(in crate::cli) files: usize,
    /// Files that could not be.
    pub(in crate::cli) failed: usize,
    /// Files of which all is right.
    exact_matches: usize,
    /// More than 1 where much was invented; `null` where the truth has no words.
    pub(in crate::cli) word_error_rate: Option<f64>,
    pub(in crate::cli) character_error_rate: Option<f64>,
    words: Edits,
    characters: Edits,
    /// Time spent on a file, without loading the tower.
    seconds_per_file: Option<f64>,
    /// Time spent, as a share of how long the sound is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) real_time_factor: Option<f64>,
    #[serde(skip)]
    computing_s: f64,
    #[serde(skip)]
    duration_s: f64,
    pairs: Vec<Pair>,
    failures: Vec<FileFailure>,
}

/// What a model said of a file.
pub(super) struct Said {
    pub(super) text: String,
    /// Time spent, without loading the tower.
    pub(super) computing_s: f64,
    /// How long the sound is; 0 of a picture.
    pub(super) duration_s: f64,
}

/// What is true of a file, and what was said.
#[derive(Serialize)]
pub(super) struct Pair {
    file: String,
    reference: String,
    hypothesis: String,
    /// Both as they were compared.
    compared: [String; 2],
    words: Edits,
    characters: Edits,
}

#[derive(Serialize)]
struct FileFailure {
    file: String,
    error: String,
}

impl Row {
    pub(super) fn new(candidate: Candidate) -> Row {
        Row {
            candidate,
            files: 0,
            failed: 0,
            exact_matches: 0,
            word_error_rate: None,
            character_error_rate: None,
            words: Edits::default(),
            characters: Edits::default(),
            seconds_per_file: None,
            real_time_factor: None,
            computing_s: 0.0,
            duration_s: 0.0,
            pairs: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Judges what was said of a file.
    pub(super) fn add(&mut self, truth: &Truth, said: Said, normalisation: Normalisation) {
        let compared = [&truth.text, &said.text].map(|text| normalisation.of(text));
        let [reference, hypothesis] = &compared;
        let words = Edits::of_words(reference, hypothesis);
        let characters = Edits::of_characters(reference, hypothesis);
        self.files += 1;
        self.exact_matches += usize::from(reference == hypothesis);
        self.words.add(words);
        self.characters.add(characters);
        self.word_error_rate = self.words.rate();
        self.character_error_rate = self.characters.rate();
        self.computing_s += said.computing_s;
        self.duration_s += said.duration_s;
        self.seconds_per_file = Some(self.computing_s / self.files as f64);
        self.real_time_factor = (self.duration_s > 0.0).then(|| self.computing_s / self.duration_s);
        self.pairs.push(Pair {
            file: truth.file.clone(),
            reference: truth.text.clone(),
            hypothesis: said.text,
            compared,
            words,
            characters,
        });
    }

    /// Counts a file that cannot be judged.
    pub(super) fn fail(&mut self, truth: &Truth, error: String) {
        self.failed += 1;
        self.failures.push(FileFailure {
            file: truth.file.clone(),
            error,
        });
    }

    /// The heading of what is told of each file.
    pub(super) fn print_candidate(&self, out: &mut Out) -> io::Result<()> {
        let Candidate {
            model,
            recipe,
            matformer,
            encoding,
            ..
        } = &self.candidate;
        writeln!(out, "{model}, {recipe}, {matformer}, {}", encoding.told())
    }

    /// The newest file's truth and what was said of it.
    pub(super) fn print_last(&self, out: &mut Out) -> io::Result<()> {
        let Some(pair) = self.pairs.last() else {
            return Ok(());
        };
        let words = pair.words;
        writeln!(
            out,
            "  {}: {} of {} words wrong ({} replaced, {} missing, {} too many)\n    true  {}\n    said  {}",
            pair.file,
            words.total(),
            words.reference,
            words.substitutions,
            words.deletions,
            words.insertions,
            pair.reference,
            pair.hypothesis
        )?;
        out.flush()
    }
}

impl Report {
    pub(super) fn new(directory: &Path, medium: Medium, normalisation: Normalisation) -> Report {
        Report {
            directory: directory.display().to_string(),
            medium,
            normalisation,
            rows: Vec::new(),
        }
    }

    /// A line a candidate, as wide as what stands in it.
    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let (encoding, speed) = match self.medium {
            Medium::Audio => ("padding", "of real time"),
            Medium::Pictures => ("soft tokens", "s a picture"),
        };
        let head = [
            "model", "recipe", "slice", encoding, "files", "failed", "WER %", "CER %", "right",
            "replaced", "missing", "too many", speed,
        ];
        let mut table = vec![head.map(str::to_owned)];
        table.extend(self.rows.iter().map(|row| self.cells(row)));
        let widths: Vec<usize> = (0..head.len())
            .map(|column| {
                let cells = table.iter().map(|line| line[column].chars().count());
                cells.max().unwrap_or(0)
            })
            .collect();
        writeln!(
            out,
            "{}; texts are compared {}\n",
            self.directory,
            self.normalisation.told()
        )?;
        for line in &table {
            let cells = line.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, &width))| match column {
                0..FIGURES => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }

    fn cells(&self, row: &Row) -> [String; 13] {
        let percent = |rate: Option<f64>| {
            rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.2}", 100.0 * rate))
        };
        let speed = match self.medium {
            Medium::Audio => row.real_time_factor,
            Medium::Pictures => row.seconds_per_file,
        };
        let Candidate {
            model,
            recipe,
            matformer,
            encoding,
            ..
        } = &row.candidate;
        [
            model.clone(),
            recipe.clone(),
            matformer.clone(),
            encoding.told(),
            row.files.to_string(),
            row.failed.to_string(),
            percent(row.word_error_rate),
            percent(row.character_error_rate),
            row.exact_matches.to_string(),
            row.words.substitutions.to_string(),
            row.words.deletions.to_string(),
            row.words.insertions.to_string(),
            speed.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.3}")),
        ]
    }
}
