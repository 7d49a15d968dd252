//! `gemmad report`: what docs/ projects, measured on somebody's machine, as a page that tells nobody whose it is.

mod machine;
mod measure;
mod microphone;
mod page;
mod projection;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use kernels::{Isa, Pool};
use rustix::fs::{Access, access};

use super::bench::memory_read_gb_s;
use super::eval::{self, Row};
use super::failure::{Failure, exit, note};
use super::model_args::command_of;
use super::pull::MODELS;
use super::{models, output, procfs};
use crate::config::Config;
use machine::{Machine, Watch};
use measure::{Measured, Model};
use microphone::Heard;

/// Measure on this machine what is projected for boards, and write a page of it that tells nobody whose it is
///
/// Measured are decoding, reading prompts, hearing, seeing, memory and flash, with each model; with a microphone, how long an answer takes
/// after the last word; and of your own recordings, how many words are wrong. Beside it stands what was projected for this CPU. The page is
/// Markdown. It has no name of a host or a user, no path, no serial number, no address and nothing of what was said. Nothing is sent
/// anywhere. It appears when all is measured.
#[derive(Debug, clap::Args)]
pub(super) struct Report {
    /// Directory of a checkpoint or pack; may be given several times [default: all packs in --dir]
    #[arg(long = "model", value_name = "DIR")]
    models: Vec<PathBuf>,
    /// The directory that packs are installed in
    #[arg(long, value_name = "DIR", default_value = MODELS)]
    dir: PathBuf,
    /// The page to write
    #[arg(long, value_name = "FILE", default_value = "gemmad-report.md")]
    to: PathBuf,
    /// Replace the page that is there
    #[arg(long)]
    force: bool,
    /// Measure less: one repetition, short prompts, the smallest picture
    #[arg(long)]
    quick: bool,
    /// Recordings and what is truly said in them, as `gemmad eval audio` takes them
    #[arg(long, value_name = "DIR")]
    recordings: Option<PathBuf>,
    /// The configuration: its first microphone is listened to, and its commands are what is said
    /// [default: /etc/gemmad/gemmad.toml, where it can be read; else the first microphone that there is]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen to no microphone
    #[arg(long)]
    no_microphone: bool,
    /// Measure although a daemon runs, which takes its share of the machine; the page says so
    #[arg(long)]
    beside_daemon: bool,
    /// Print what is projected for boards, and measure nothing
    #[arg(long, exclusive = true)]
    projections: bool,
}

/// Repetitions, of which the median counts.
const RUNS: u32 = 3;

/// The daemon's configuration.
const CONFIG: &str = "/etc/gemmad/gemmad.toml";

/// All that a page is made of.
struct Found {
    machine: Machine,
    watch: Watch,
    memory_bytes: u64,
    memory_read_gb_s: f64,
    isa: &'static str,
    threads: usize,
    runs: u32,
    beside_daemon: bool,
    models: Vec<(Model, Measured)>,
    heard: Heard,
    /// Error rates of recordings, each with its model's place among `models`.
    recordings: Vec<(usize, Row)>,
}

impl Report {
    pub(super) fn run(self) -> Result<(), Failure> {
        if self.projections {
            return Ok(projection::print(&mut output::out())?);
        }
        self.check_page()?;
        let runs = procfs::runs();
        if runs && !self.beside_daemon {
            return Err(Failure::new(
                exit::UNAVAILABLE,
                "a gemmad daemon runs and uses this machine: stop it (systemctl stop gemmad), or measure beside it with --beside-daemon",
            ));
        }
        let config = self.config()?;
        let models = self.models()?;
        let found = self.measure(models, &config, runs)?;
        self.write(&page::page(&found))?;
        let shown = self.to.display();
        writeln!(
            output::out(),
            "{shown} is written; read it, and add its last table's lines to docs/boards.md if you want to share them"
        )?;
        Ok(())
    }

    /// Whether the page can be written, before minutes are spent on it.
    fn check_page(&self) -> Result<(), Failure> {
        let shown = self.to.display();
        if self.to.exists() && !self.force {
            return Err(Failure::new(
                exit::USAGE,
                format_args!(
                    "{shown} is there already: name another with --to, or replace it with --force"
                ),
            ));
        }
        access(self.directory(), Access::WRITE_OK).map_err(|error| {
            Failure::new(
                exit::IO,
                format_args!("cannot write {shown}: {error}; name another with --to"),
            )
        })
    }

    /// Where the page will be.
    fn directory(&self) -> &Path {
        match self.to.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// One that was named has to be good; the daemon's is used where it is.
    fn config(&self) -> Result<Config, Failure> {
        match &self.config {
            Some(path) => Config::load(path).map_err(|error| Failure::new(exit::CONFIG, error)),
            None => Ok(Config::load(Path::new(CONFIG)).unwrap_or_default()),
        }
    }

    fn models(&self) -> Result<Vec<Model>, Failure> {
        let dirs = match self.models.as_slice() {
            [] => models::packs_in(&self.dir)?,
            given => given.to_vec(),
        };
        if dirs.is_empty() {
            return Err(Failure::new(
                exit::NO_INPUT,
                format_args!(
                    "{} holds no pack to measure: gemmad pull makes one, or name a model with --model",
                    self.dir.display()
                ),
            ));
        }
        dirs.into_iter().map(Model::open).collect()
    }

    fn measure(&self, models: Vec<Model>, config: &Config, daemon: bool) -> Result<Found, Failure> {
        let recordings = match &self.recordings {
            Some(directory) => recordings(directory, &models)?,
            None => None,
        };
        let root = Path::new("/");
        let machine = Machine::read(root);
        let isa = Isa::from_environment().map_err(|error| Failure::new(exit::CONFIG, error))?;
        let threads = kernels::recommended_threads();
        let memory_read_gb_s = memory_read_gb_s(&Pool::new(isa, threads));
        let runs = if self.quick { 1 } else { RUNS };
        let seconds: f64 = models
            .iter()
            .map(|model| model.seconds(runs, self.quick, memory_read_gb_s))
            .sum();
        let beside = match &recordings {
            Some(_) => ", and what the recordings take",
            None => "",
        };
        note(&format!(
            "this takes about {:.0} minutes{beside}; let nothing else run meanwhile",
            (seconds / 60.0).ceil()
        ));
        let mut watch = Watch::default();
        let mut measured = Vec::new();
        let count = models.len();
        for (at, model) in models.into_iter().enumerate() {
            let mut step = |what: &str| {
                watch.look(root);
                note(&format!("{} ({} of {count}): {what}", model.name(), at + 1));
            };
            let found = measure::measure(&model, runs, self.quick, &mut step)?;
            watch.look(root);
            measured.push((model, found));
        }
        let hears = measured.iter().find(|(model, _)| model.hears);
        let heard = match hears {
            Some((model, _)) if !self.no_microphone => {
                microphone::last_word(&model.dir, config, &model.name())?
            }
            _ => Heard::Nothing("none was listened to"),
        };
        let recordings = match recordings {
            Some(recordings) => {
                note("recordings");
                recordings.rates()?.rows
            }
            None => Vec::new(),
        };
        let place = |row: &Row| {
            let mut places = measured.iter();
            places.position(|(model, _)| model.dir == row.candidate.dir())
        };
        let recordings = recordings.into_iter();
        let recordings = recordings.filter_map(|row| Some((place(&row)?, row)));
        let recordings = recordings.collect();
        watch.look(root);
        Ok(Found {
            machine,
            watch,
            memory_bytes: procfs::bytes("/proc/meminfo", "MemTotal:").unwrap_or(0),
            memory_read_gb_s,
            isa: isa.name(),
            threads,
            runs,
            beside_daemon: daemon,
            models: measured,
            heard,
            recordings,
        })
    }

    /// Whole, or not at all.
    fn write(&self, page: &str) -> Result<(), Failure> {
        let written = tempfile::NamedTempFile::new_in(self.directory()).and_then(|mut file| {
            file.write_all(page.as_bytes())?;
            // It is meant for others.
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(permissions)?;
            file.persist(&self.to).map_err(|error| error.error)
        });
        written.map(drop).map_err(|error| {
            let shown = self.to.display();
            Failure::new(exit::IO, format_args!("cannot write {shown}: {error}"))
        })
    }
}

/// What measures word and character error rates of recordings, with all models that hear, of those that fill clips up with and without
/// that.
fn recordings(directory: &Path, models: &[Model]) -> Result<Option<eval::Audio>, Failure> {
    let hearing = || models.iter().filter(|model| model.hears);
    if hearing().next().is_none() {
        return Ok(None);
    }
    let mut line: Vec<OsString> = vec![directory.into()];
    for model in hearing() {
        line.extend(["--model".into(), model.dir.clone().into()]);
    }
    if hearing().any(|model| model.pads) {
        line.extend(["reference", "none"].map(|how| format!("--soft-token-padding={how}").into()));
    }
    let audio: eval::Audio = command_of(line)?;
    audio.check()?;
    Ok(Some(audio))
}
