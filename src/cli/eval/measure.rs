//! Every candidate on every file of a table: what audio and pictures have in common.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::candidates::{Asked, Encoding};
use super::report::{Medium, Report, Row, Said};
use super::score::Normalisation;
use super::truths::{self, Truth};
use crate::cli::failure::{Failure, exit, note};
use crate::cli::model_args::{self, EngineArgs};
use crate::cli::{output, progress};
use crate::config::Config;
use crate::guard::harmless;
use crate::model::weights::Group;
use crate::pipeline::{Engine, Generation};

/// What is measured, on what, and how it is told.
#[derive(Debug, clap::Args)]
pub(super) struct Measure {
    /// Directory of a checkpoint or pack; may be given several times, to set them beside one another
    #[arg(long = "model", value_name = "DIR", required = true)]
    models: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) engine: EngineArgs,
    /// MatFormer slice (`gemmad inspect` lists them); may be given several times [default: the whole model]
    #[arg(long = "matformer", value_name = "NAME")]
    slices: Vec<String>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_tokens: usize,
    /// The table: UTF-8, a line `file<TAB>text` for each file, seen from DIR [default: the only .tsv in DIR]
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// The column that holds the true text, of a table whose first line names its columns, `file` among them [default: text]
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Let case and punctuation count
    #[arg(long)]
    exact: bool,
    /// Print what is true and what was said for each file, and how many words of it are wrong
    #[arg(long, conflicts_with = "json")]
    verbose: bool,
    /// Print JSON, with what was said of each file
    #[arg(long)]
    json: bool,
    /// Where the files lie
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Asks a candidate's engine about a file.
pub(super) type Ask<'a> =
    &'a mut dyn FnMut(&mut Engine, &str, &Generation, &Path) -> Result<Said, Failure>;

impl Measure {
    /// Measures each model with each slice and each of `encodings`, the last as the configuration says where there are none. A file
    /// that cannot be judged is told and counted, and the others are judged all the same.
    ///
    /// # Errors
    /// The table or a model cannot be used, or none of the files can.
    pub(super) fn measure(
        &self,
        config: &Config,
        medium: Medium,
        encodings: Vec<Encoding>,
        ask: Ask<'_>,
    ) -> Result<Report, Failure> {
        let truths = self.truths()?;
        let options = self.engine.options(config);
        let asked = Asked {
            models: &self.models,
            slices: &self.slices,
            group: match medium {
                Medium::Audio => Group::Audio,
                Medium::Pictures => Group::Vision,
            },
            encodings,
            configured: options.encoders.clone(),
        };
        let candidates = asked.candidates()?;
        let normalisation = match self.exact {
            true => Normalisation::Exact,
            false => Normalisation::Words,
        };
        let mut report = Report::new(&self.directory, medium, normalisation);
        let progress = progress::of_files(candidates.len() * truths.len());
        let mut told = HashSet::new();
        let mut out = output::out();
        for candidate in candidates {
            let mut engine = progress.suspend(|| {
                model_args::open(candidate.dir(), candidate.options(options.clone()))
            })?;
            let generation = engine.most_likely(self.max_tokens);
            let mut row = Row::new(candidate);
            if self.verbose {
                progress.suspend(|| row.print_candidate(&mut out))?;
            }
            for truth in &truths {
                let shown = truth.path.display().to_string();
                progress.set_message(harmless::line(&shown).into_owned());
                let slice = row.candidate.matformer.clone();
                match ask(&mut engine, &slice, &generation, &truth.path) {
                    Ok(said) => {
                        row.add(truth, said, normalisation);
                        if self.verbose {
                            progress.suspend(|| row.print_last(&mut out))?;
                        }
                    }
                    Err(failure) => {
                        let words = failure.in_words();
                        let shown = harmless::line(&shown);
                        let why = match words.contains(&*shown) {
                            true => words,
                            false => format!("{shown}: {words}"),
                        };
                        if told.insert(why.clone()) {
                            progress.suspend(|| note(&why));
                        }
                        row.fail(truth, why);
                    }
                }
                progress.inc(1);
            }
            report.rows.push(row);
        }
        progress.finish_and_clear();
        drop(out);
        if report.rows.iter().all(|row| row.files == 0) {
            return Err(Failure::new(
                exit::DATA,
                format_args!(
                    "{}: none of the {} files of the table could be judged",
                    self.directory.display(),
                    truths.len()
                ),
            ));
        }
        Ok(report)
    }

    /// The files, and what is true of them.
    ///
    /// # Errors
    /// The table is missing or malformed, or names what is not there.
    pub(super) fn truths(&self) -> Result<Vec<Truth>, Failure> {
        let table = self.table.as_deref();
        truths::read(&self.directory, table, self.column.as_deref())
    }

    pub(super) fn publish(&self, report: &Report) -> Result<(), Failure> {
        output::publish(report, self.json, |report, out| report.print(out))
    }
}
