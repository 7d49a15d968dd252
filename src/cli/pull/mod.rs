//! `gemmad pull`: from the name of a model to a pack.

mod bar;
mod in_use;
mod restart;

use std::ffi::OsStr;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::{Args, FromArgMatches, ValueEnum};
use kernels::{Isa, Pool};
use serde::Serialize;

use super::failure::{Failure, exit, note};
use super::pack::RecipeArg;
use super::{interrupt, output, plan, procfs};
use crate::hub::{Client, HubError, ModelName, NAMES, RemoteFile, Repository, Settings};
use crate::model::weights::{Group, PackManifest};
use crate::pack::{self, HubSource, PackOptions, Recipe, SyntheticSize, Told, gguf_parts};
use bar::Bar;
use restart::Daemon;

/// Where models are kept.
pub(super) const MODELS: &str = "/var/lib/gemmad/models";

/// Fetch a model from Hugging Face and make a pack of it
///
/// The weights go from the network into the pack, tensor by tensor: nothing else needs room on the disk. A run that was interrupted
/// goes on where it was when the same command is given again. What the Hugging Face client has in its cache is not fetched again. The
/// token of gated models is read from HF_TOKEN or from the file that `hf auth login` writes; HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and
/// https_proxy mean what they mean there. Nothing is ever fetched without this command.
#[derive(Debug, clap::Args)]
pub(super) struct Pull {
    #[arg(value_name = "NAME", help = format!("The model: {NAMES} [default: what fits this board best]"))]
    name: Option<String>,
    /// The directory that the pack is made in
    #[arg(long, value_name = "DIR", default_value = MODELS)]
    to: PathBuf,
    /// How many bits the weights get [default: the best that fits this board]
    #[arg(long, value_enum)]
    recipe: Option<RecipeArg>,
    /// Neither audio nor vision
    #[arg(long)]
    text_only: bool,
    /// No audio: nothing is heard
    #[arg(long)]
    no_audio: bool,
    /// No vision: nothing is seen
    #[arg(long)]
    no_vision: bool,
    /// With the model's drafter, which guesses tokens of Gemma 4's answers; of a repository that does not lead to it, its name
    #[arg(long, value_name = "OWNER/REPOSITORY", num_args = 0..=1, require_equals = true)]
    drafter: Option<Option<String>>,
    /// Name the pack in the configuration, and restart the service if it runs with that
    #[arg(long = "use")]
    in_use: bool,
    /// The configuration that --use writes to
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/gemmad/gemmad.toml",
        requires = "in_use"
    )]
    config: PathBuf,
    /// Replace the pack that is there
    #[arg(long)]
    force: bool,
    /// How often a request is repeated that fails for a reason that may pass
    #[arg(long, value_name = "N", default_value_t = 8)]
    retries: u32,
    /// Print JSON, a line for each thing that happens
    #[arg(long)]
    json: bool,
}

/// The documented keys of the last line of `--json`.
#[derive(Serialize)]
struct Done<'a> {
    event: &'static str,
    pack: &'a Path,
    /// `OWNER/REPOSITORY@COMMIT`.
    source: &'a str,
    recipe: &'a str,
    pack_bytes: u64,
    /// What came over the network in this run.
    fetched_bytes: u64,
    in_use: bool,
}

/// What a pull made, or found made.
struct Pulled {
    pack: PathBuf,
    manifest: PackManifest,
    /// What came over the network in this run.
    fetched_bytes: u64,
}

impl Pull {
    pub(super) fn run(self) -> Result<(), Failure> {
        // What was done is in the journals at any time.
        interrupt::ends_with(|| note("interrupted: the same command goes on from here"));
        let pulled = self.pull()?;
        self.finish(&pulled)
    }

    /// Pulls a model into a directory as `gemmad pull` does unless it is told otherwise; `None` is its default choice. Gives the pack.
    pub(super) fn into_directory(name: Option<&str>, to: &Path) -> Result<PathBuf, Failure> {
        let arguments = [Some(OsStr::new("pull")), name.map(OsStr::new)];
        let arguments = arguments.into_iter().flatten();
        let arguments = arguments.chain([OsStr::new("--to"), to.as_os_str()]);
        let command = Pull::augment_args(clap::Command::new("pull"));
        let matches = command.try_get_matches_from(arguments);
        let pull = matches.and_then(|matches| Pull::from_arg_matches(&matches));
        let pull = pull.map_err(|error| Failure::new(exit::USAGE, error))?;
        Ok(pull.pull()?.pack)
    }

    fn pull(&self) -> Result<Pulled, Failure> {
        let usage = |error: String| Failure::new(exit::USAGE, error);
        let named = match &self.name {
            Some(name) => name.clone(),
            None => {
                let plan::Best { name, why } = plan::best_model(&self.to)?;
                note(&format!("{name}: {why}"));
                name.to_owned()
            }
        };
        let name = ModelName::parse(&named).map_err(usage)?;
        let (recipe, why) = self.recipe(&name)?;
        let target = self.to.join(format!("{}.pack", name.short));
        let bar = Rc::new(Bar::new(self.json));
        let told = Rc::clone(&bar);
        let settings = Settings::from_environment(self.retries)?;
        let client = Client::new(settings, Box::new(move |line| told.note(line)))?;
        if let Some(terms) = name.terms {
            let page = client.page(&name.repository);
            bar.note(&format!(
                "whoever uses this model has accepted {terms}; they are accepted at {page}"
            ));
        }
        let repository = client.repository(&name.repository, &name.revision)?;
        let gguf = gguf(&name, &repository)?;
        let drafter = match &self.drafter {
            Some(named) => Some(client.repository(&drafter_of(&name, named.as_deref())?, "main")?),
            None => None,
        };
        let groups = self.groups();
        let mut hub = HubSource {
            client: &client,
            repository: &repository,
            gguf,
            tokenizer: None,
            drafter: drafter.as_ref(),
            groups: &groups,
            keeps_trained: self.recipe.is_none(),
        };
        let source = hub.origin();
        if let Some(manifest) = self.is_there(&target, &source, recipe, gguf.is_some()) {
            return Ok(Pulled {
                pack: target,
                manifest,
                fetched_bytes: 0,
            });
        }
        let tokenizer = match &name.tokenizer_repository {
            Some(id) => Some(client.repository(id, "main")?),
            None => None,
        };
        hub.tokenizer = tokenizer.as_ref();
        bar.note(&format!("{source}, recipe {}{why}", recipe.name()));
        let isa = Isa::from_environment().map_err(|error| Failure::new(exit::CONFIG, error))?;
        let pool = Pool::new(isa, kernels::recommended_threads());
        std::fs::create_dir_all(&self.to).map_err(|error| {
            let what = "give --to, or run this as root";
            Failure::new(
                exit::IO,
                format_args!("cannot create {}: {error}; {what}", self.to.display()),
            )
        })?;
        let options = PackOptions {
            recipe,
            force: self.force,
            drafter: None,
        };
        let mut told = Told {
            fetched: &mut |bytes| bar.fetched(bytes),
            note: &|line| bar.note(line),
        };
        let mut advance = |done, total| bar.packed(done, total);
        let packed = pack::pack_from_hub(&hub, &target, options, &pool, &mut advance, &mut told);
        bar.clear();
        if let Some(warning) = packed?.warning() {
            bar.note(&format!("warning: {warning}"));
        }
        let mut advance = |done, total| bar.verified(done, total);
        let manifest = pack::verify(&target, &mut advance);
        bar.clear();
        if procfs::is_root() {
            for_all_to_read(&target)?;
        }
        Ok(Pulled {
            manifest: manifest?,
            pack: target,
            fetched_bytes: bar.fetched_bytes(),
        })
    }

    /// The parameter groups that are wanted.
    fn groups(&self) -> Vec<Group> {
        let wanted = |group: &Group| match group {
            Group::Text | Group::Ple => true,
            Group::Audio => !self.text_only && !self.no_audio,
            Group::Vision => !self.text_only && !self.no_vision,
            Group::Drafter => self.drafter.is_some(),
        };
        Group::ALL.into_iter().filter(wanted).collect()
    }

    /// The recipe, and why it is that one.
    fn recipe(&self, name: &ModelName) -> Result<(Recipe, String), Failure> {
        let because = |why: &str| format!(" ({why})");
        if let Some(recipe) = self.recipe {
            return Ok((recipe.recipe(), because("as asked")));
        }
        if let Some(named) = name.recipe {
            let recipe = RecipeArg::from_str(named, false).map(RecipeArg::recipe);
            return Ok((recipe.unwrap_or_default(), because("as its name says")));
        }
        let size = SyntheticSize::ALL.into_iter().find(|size| {
            let short = name.short.replacen("gemma-4", "gemma4", 1);
            let short = short.trim_start_matches("gemma-3n-");
            short == size.name() || short.starts_with(&format!("{}-", size.name()))
        });
        match size {
            Some(size) => {
                let (recipe, why) = plan::best_recipe(size)?;
                Ok((recipe, because(&why)))
            }
            None => Ok((Recipe::default(), String::new())),
        }
    }

    /// The pack at the target, if it is the very one that is asked for.
    fn is_there(
        &self,
        target: &Path,
        source: &str,
        recipe: Recipe,
        gguf: bool,
    ) -> Option<PackManifest> {
        let manifest = PackManifest::read(target).ok().flatten()?;
        // One that nobody asked for may have given way to what keeps trained weights.
        let is_other = self.recipe.is_some() && manifest.recipe != recipe.name();
        let same = manifest.source == source && !is_other;
        let groups = self.groups();
        let has = |group: &Group| manifest.files.contains_key(&format!("{group}.safetensors"));
        // A file of llama.cpp has no towers.
        let whole = groups
            .iter()
            .all(|group| has(group) || gguf && *group != Group::Drafter);
        (same && whole && !self.force).then_some(manifest)
    }

    fn finish(&self, pulled: &Pulled) -> Result<(), Failure> {
        let Pulled {
            pack: target,
            manifest,
            fetched_bytes,
        } = pulled;
        let mut daemon = Daemon::None;
        if self.in_use {
            in_use::write(&self.config, target)?;
            daemon = restart::restart(&self.config);
        }
        let mut out = output::out();
        let pack_bytes = manifest.files.values().map(|file| file.bytes).sum();
        if self.json {
            let done = Done {
                event: "done",
                pack: target,
                source: &manifest.source,
                recipe: &manifest.recipe,
                pack_bytes,
                fetched_bytes: *fetched_bytes,
                in_use: self.in_use,
            };
            writeln!(out, "{}", output::json(&done)?)?;
            return Ok(());
        }
        writeln!(
            out,
            "{}: {:.1} MiB, recipe {}, of {}",
            target.display(),
            pack_bytes as f64 / f64::from(1 << 20),
            manifest.recipe,
            manifest.source
        )?;
        let config = self.config.display();
        match (self.in_use, daemon) {
            (true, Daemon::None) => writeln!(out, "{config} names it now")?,
            (true, Daemon::Restarted) => {
                writeln!(out, "{config} names it now, and gemmad runs with it")?
            }
            (true, Daemon::AsBefore) => writeln!(
                out,
                "{config} names it now; gemmad still runs with the one before: sudo systemctl restart gemmad"
            )?,
            (false, _) => writeln!(out, "try it: gemmad chat --model {}", target.display())?,
        }
        Ok(())
    }
}

/// Root pulls for the daemon, who is somebody else: what root's umask keeps from others is no secret.
fn for_all_to_read(pack: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let shown = pack.display();
        Failure::new(
            exit::IO,
            format_args!("cannot let others read {shown}: {error}"),
        )
    };
    for entry in std::fs::read_dir(pack).map_err(failed)?.flatten() {
        std::fs::set_permissions(entry.path(), Permissions::from_mode(0o644)).map_err(failed)?;
    }
    std::fs::set_permissions(pack, Permissions::from_mode(0o755)).map_err(failed)
}

/// The repository of a model's drafter: the one that is named, else the one that is published beside the model.
fn drafter_of(name: &ModelName, named: Option<&str>) -> Result<String, Failure> {
    let usage = |error: String| Failure::new(exit::USAGE, error);
    if let Some(named) = named {
        return Ok(ModelName::parse(named).map_err(usage)?.repository);
    }
    name.drafter_repository().ok_or_else(|| {
        usage(format!(
            "it is not known which drafter belongs to {}: name it, as --drafter=google/gemma-4-E2B-it-assistant",
            name.repository
        ))
    })
}

/// The file of llama.cpp that is meant, where one is.
fn gguf<'a>(
    name: &ModelName,
    repository: &'a Repository,
) -> Result<Option<&'a RemoteFile>, Failure> {
    let missing = |file: &str| HubError::NoFile {
        repository: repository.id.clone(),
        revision: name.revision.clone(),
        file: file.to_owned(),
        others: repository.some_files(),
    };
    if let Some(file) = &name.file {
        let found = repository.file(file).ok_or_else(|| missing(file))?;
        if !name.gguf {
            return Err(Failure::new(
                exit::USAGE,
                format_args!(
                    "{file} is no file of llama.cpp (.gguf): leave it out for the whole checkpoint of {}",
                    repository.id
                ),
            ));
        }
        return Ok(Some(found));
    }
    if !name.gguf {
        return Ok(None);
    }
    // What hears and sees, and what drafts, is in files of its own.
    let is_model = |file: &&RemoteFile| {
        let name = file.name.to_ascii_lowercase();
        let is_first = gguf_parts(repository, file).first() == Some(file);
        name.ends_with(".gguf") && is_first && !name.contains("mmproj") && !name.contains("mtp")
    };
    let mut models = repository.files.iter().filter(is_model);
    match (models.next(), models.next()) {
        (Some(model), None) => Ok(Some(model)),
        (None, _) => Err(missing("*.gguf").into()),
        (Some(_), Some(_)) => Err(Failure::new(
            exit::USAGE,
            format_args!(
                "{} has several models: name one, as {}:FILE; it has {}",
                repository.id,
                repository.id,
                repository.some_files()
            ),
        )),
    }
}
