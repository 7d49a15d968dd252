//! `gemmad models`: the packs that are installed.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::failure::{Failure, exit, note};
use super::pull::MODELS;
use super::{output, progress};
use crate::config::Config;
use crate::hub::{Client, ModelName, Settings};
use crate::model::family;
use crate::model::weights::{PackManifest, instead_of_file};
use crate::pack::{self, verified_at};

/// List the packs that are installed; look whether they are whole, look for newer ones, or remove one
#[derive(Debug, clap::Args)]
pub(super) struct Models {
    /// The directory that they are in
    #[arg(long, value_name = "DIR", default_value = MODELS)]
    dir: PathBuf,
    /// The configuration that says which one is in use
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
    /// Read every pack and compare it with the hashes that were taken when it was made
    #[arg(long, conflicts_with_all = ["check", "remove"])]
    verify: bool,
    /// Ask the hub whether there is a newer revision of each; nothing is fetched
    #[arg(long)]
    check: bool,
    /// Remove the pack of that name, or what is left of a pull that was interrupted
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    remove: Option<String>,
    /// Remove a pack that is in use, too
    #[arg(long, requires = "remove")]
    force: bool,
    /// Ask the hub, or remove, without asking you
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "remove")]
    json: bool,
}

/// The documented keys of `--json`.
#[derive(Serialize)]
pub(super) struct Installed {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// `Gemma 4`; null where its config.json is not understood.
    pub(super) family: Option<&'static str>,
    pub(super) recipe: String,
    pub(super) bytes: u64,
    /// `OWNER/REPOSITORY@COMMIT`, or what it was made from.
    source: String,
    /// What its text says; null where none is kept with it.
    licence: Option<&'static str>,
    hears: bool,
    sees: bool,
    in_use: bool,
    /// Seconds since 1970.
    made_at: Option<u64>,
    /// When all of it was last read and found whole, seconds since 1970; null where nobody looked.
    verified_at: Option<u64>,
    /// With `--check`: the newest commit, where it is another one.
    newer: Option<String>,
}

/// What stands beside a pack while it is made.
const UNFINISHED: [&str; 2] = [".pull", ".partial"];

impl Models {
    pub(super) fn run(self) -> Result<(), Failure> {
        if let Some(name) = &self.remove {
            return self.remove(name);
        }
        let mut found = self.installed()?;
        if self.verify {
            verify(&mut found)?;
        }
        if self.check {
            self.look_for_newer(&mut found)?;
        }
        output::publish(&found, self.json, |found, out| self.print(found, out))
    }

    fn look_for_newer(&self, found: &mut [Installed]) -> Result<(), Failure> {
        let settings = Settings::from_environment(2)?;
        let client = Client::new(settings, Box::new(note))?;
        let of_hub = |pack: &&mut Installed| of_the_hub(&pack.source).is_some();
        let n = found.iter_mut().filter(of_hub).count();
        let question = format!("Ask {} about {n} packs?", client.hub());
        if n > 0 && !self.yes && !agreed(&question)? {
            return Err(Failure::new(
                exit::USAGE,
                "nobody was asked: give --yes where there is no terminal",
            ));
        }
        for pack in found {
            if let Some((id, commit)) = of_the_hub(&pack.source) {
                let newest = client.repository(id, "main")?.commit;
                pack.newer = (newest != commit).then_some(newest);
            }
        }
        Ok(())
    }

    /// The packs of a directory.
    pub(super) fn installed_in(dir: &Path) -> Result<Vec<Installed>, Failure> {
        let all = Models {
            dir: dir.to_owned(),
            config: PathBuf::new(),
            verify: false,
            check: false,
            remove: None,
            force: false,
            yes: false,
            json: false,
        };
        all.installed()
    }

    fn installed(&self) -> Result<Vec<Installed>, Failure> {
        let in_use = Config::load(&self.config).ok();
        let in_use = in_use.and_then(|config| config.model.path.canonicalize().ok());
        let mut found = Vec::new();
        for path in entries(&self.dir)? {
            let manifest = match PackManifest::read(&path) {
                Ok(Some(manifest)) => manifest,
                Ok(None) => continue,
                Err(error) => {
                    note(&error.to_string());
                    continue;
                }
            };
            let has = |group: &str| manifest.files.contains_key(&format!("{group}.safetensors"));
            let (hears, sees) = (has("audio"), has("vision"));
            let family = family::load(&path).ok();
            let made = path.join("pack.json").metadata();
            let made = made.and_then(|found| found.modified()).ok();
            found.push(Installed {
                name: name_of(&path),
                family: family.map(|family| family.spec().family),
                recipe: manifest.recipe,
                bytes: manifest.files.values().map(|file| file.bytes).sum(),
                source: manifest.source,
                licence: licence(&path),
                hears,
                sees,
                in_use: in_use.is_some() && in_use == path.canonicalize().ok(),
                made_at: made.and_then(|at| {
                    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
                    Some(since.as_secs())
                }),
                verified_at: verified_at(&path),
                newer: None,
                path,
            });
        }
        Ok(found)
    }

    fn print(&self, found: &[Installed], out: &mut dyn Write) -> io::Result<()> {
        if found.is_empty() {
            writeln!(
                out,
                "{} holds no pack: gemmad pull makes one",
                self.dir.display()
            )?;
        }
        for pack in found {
            let parts = match (pack.hears, pack.sees) {
                (true, true) => "text, audio, vision",
                (true, false) => "text, audio",
                (false, true) => "text, vision",
                (false, false) => "text",
            };
            writeln!(
                out,
                "{}{}\n  {}, {parts}, recipe {}, {:.1} GB, of {}\n  licence: {}",
                pack.name,
                if pack.in_use { " (in use)" } else { "" },
                pack.family.unwrap_or("of no family that is known"),
                pack.recipe,
                pack.bytes as f64 / 1e9,
                pack.source,
                pack.licence.unwrap_or("not kept with it"),
            )?;
            match pack.verified_at.and_then(day) {
                Some(day) => writeln!(out, "  verified: {day}")?,
                None => writeln!(
                    out,
                    "  verified: never here; gemmad models --verify does it"
                )?,
            }
            match (&pack.newer, of_the_hub(&pack.source)) {
                (Some(newer), Some((id, _))) => {
                    let pull = self.pull_again(pack);
                    writeln!(out, "  newer: {id}@{newer}; `{pull}` fetches it")?;
                }
                (None, Some(_)) if self.check => writeln!(out, "  it is the newest")?,
                _ => {}
            }
        }
        for path in entries(&self.dir).unwrap_or_default() {
            if is_unfinished(&path) {
                let name = name_of(&path);
                writeln!(
                    out,
                    "{name}: a pull that is not finished; gemmad pull goes on with it, gemmad models --remove {name} removes it"
                )?;
            }
        }
        Ok(())
    }

    /// The command that makes a pack anew of what the hub has now.
    fn pull_again(&self, pack: &Installed) -> String {
        let stem = pack.name.strip_suffix(".pack").unwrap_or(&pack.name);
        let (model, drafter) = of_two(&pack.source);
        let model = ModelName::of_pack(model, stem);
        let drafter = drafter.and_then(|source| source.split('@').next());
        let drafter = drafter.map_or_else(String::new, |name| format!(" --drafter={name}"));
        let towers = match (pack.hears, pack.sees) {
            (true, true) => "",
            (true, false) => " --no-vision",
            (false, true) => " --no-audio",
            (false, false) => " --text-only",
        };
        let to = match self.dir == Path::new(MODELS) {
            true => String::new(),
            false => format!(" --to {}", self.dir.display()),
        };
        format!(
            "gemmad pull {model} --recipe {}{towers}{drafter}{to} --force",
            pack.recipe
        )
    }

    fn remove(&self, name: &str) -> Result<(), Failure> {
        let refuse = |what: String| Err(Failure::new(exit::USAGE, what));
        let path = self.dir.join(name);
        if name.contains('/') || name.starts_with('.') {
            return refuse(format!(
                "{name:?} is no name of a pack: `gemmad models` lists them"
            ));
        }
        // Only what gemmad made is removed.
        let is_pack = matches!(PackManifest::read(&path), Ok(Some(_)));
        if !is_pack && !is_unfinished(&path) {
            return refuse(format!(
                "{} is no pack: `gemmad models` lists them",
                path.display()
            ));
        }
        let packs = self.installed()?;
        let is_in_use = packs.iter().any(|pack| pack.name == name && pack.in_use);
        if is_in_use && !self.force {
            return refuse(format!(
                "{name} is in use: name another one as [model] path in {} first, or give --force",
                self.config.display()
            ));
        }
        if !self.yes && !agreed(&format!("Remove {}?", path.display()))? {
            return refuse("nothing was removed".to_owned());
        }
        std::fs::remove_dir_all(&path).map_err(|error| {
            Failure::new(
                exit::IO,
                format_args!("cannot remove {}: {error}", path.display()),
            )
        })?;
        writeln!(output::out(), "{name} is removed")?;
        Ok(())
    }
}

/// What lies in a directory of packs, in alphabetical order.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let dir = dir.display();
            return Err(Failure::new(
                exit::NO_INPUT,
                format_args!("cannot read {dir}: {error}; give --dir"),
            ));
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// The packs among them.
pub(super) fn packs_in(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = entries(dir)?;
    paths.retain(|path| matches!(PackManifest::read(path), Ok(Some(_))));
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn is_unfinished(path: &Path) -> bool {
    let name = name_of(path);
    path.is_dir() && UNFINISHED.iter().any(|end| name.ends_with(end))
}

/// Reads every pack; those that are not whole are told.
fn verify(found: &mut [Installed]) -> Result<(), Failure> {
    let mut damaged = None;
    for pack in found {
        let bar = progress::of_bytes("verifying");
        let verified = pack::verify(&pack.path, &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        });
        bar.finish_and_clear();
        if let Err(error) = verified {
            note(&error.to_string());
            damaged = Some(error);
        }
        pack.verified_at = verified_at(&pack.path);
    }
    damaged.map_or(Ok(()), |error| Err(error.into()))
}

/// The day of a time, in UTC.
fn day(at: u64) -> Option<String> {
    let at = Timestamp::from_second(i64::try_from(at).ok()?).ok()?;
    Some(at.strftime("%Y-%m-%d").to_string())
}

/// Where a model is from, and its drafter, of which `OWNER/REPOSITORY@COMMIT[:FILE] + OWNER/REPOSITORY@COMMIT` tells both.
fn of_two(source: &str) -> (&str, Option<&str>) {
    let both = source.split_once(" + ");
    both.map_or((source, None), |(model, drafter)| (model, Some(drafter)))
}

/// Repository and commit of the model.
fn of_the_hub(source: &str) -> Option<(&str, &str)> {
    let (id, commit) = of_two(source).0.rsplit_once('@')?;
    let commit = commit.split(':').next().unwrap_or(commit);
    let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    (id.contains('/') && is_commit).then_some((id, commit))
}

/// What the text beside a pack is.
fn licence(pack: &Path) -> Option<&'static str> {
    let text = std::fs::read(pack.join("LICENSE")).ok()?;
    if instead_of_file(&text).is_some() {
        return None;
    }
    let text = String::from_utf8_lossy(&text[..text.len().min(4096)]).into_owned();
    Some(match &text {
        text if text.contains("Apache License") => "Apache-2.0",
        text if text.contains("Gemma Terms of Use") => "Gemma Terms of Use",
        _ => "see LICENSE in it",
    })
}

/// Asks on a terminal; elsewhere nobody agrees.
fn agreed(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut out = output::out();
    write!(out, "{question} [y/N] ").and_then(|()| out.flush())?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
