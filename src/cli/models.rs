//! `gemmad models`: the packs that are installed.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::{Failure, exit, note};
use super::output;
use super::pull::MODELS;
use crate::config::Config;
use crate::hub::{Client, Settings};
use crate::model::family;
use crate::model::weights::{PackManifest, instead_of_file};

/// List the packs that are installed; look for newer ones, or remove one
#[derive(Debug, clap::Args)]
pub(super) struct Models {
    /// The directory that they are in
    #[arg(long, value_name = "DIR", default_value = MODELS)]
    dir: PathBuf,
    /// The configuration that says which one is in use
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
    /// Ask the hub whether there is a newer revision of each; nothing is fetched
    #[arg(long)]
    check: bool,
    /// Remove the pack of that name, or what is left of a pull that was interrupted
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    remove: Option<String>,
    /// Remove without asking
    #[arg(long, requires = "remove")]
    yes: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "remove")]
    json: bool,
}

/// The documented keys of `--json`.
#[derive(Serialize)]
struct Installed {
    name: String,
    path: PathBuf,
    /// `Gemma 4`; null where its config.json is not understood.
    family: Option<&'static str>,
    recipe: String,
    bytes: u64,
    /// `OWNER/REPOSITORY@COMMIT`, or what it was made from.
    source: String,
    /// What its text says; null where none is kept with it.
    licence: Option<&'static str>,
    hears: bool,
    sees: bool,
    in_use: bool,
    /// Seconds since 1970.
    made_at: Option<u64>,
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
        if self.check {
            let settings = Settings::from_environment(2)?;
            let client = Client::new(settings, Box::new(note))?;
            for pack in &mut found {
                if let Some((id, commit)) = of_the_hub(&pack.source) {
                    let newest = client.repository(id, "main")?.commit;
                    pack.newer = (newest != commit).then_some(newest);
                }
            }
        }
        output::publish(&found, self.json, |found, out| self.print(found, out))
    }

    fn installed(&self) -> Result<Vec<Installed>, Failure> {
        let in_use = Config::load(&self.config).ok();
        let in_use = in_use.and_then(|config| config.model.path.canonicalize().ok());
        let mut found = Vec::new();
        for path in self.entries()? {
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
                newer: None,
                path,
            });
        }
        Ok(found)
    }

    /// What lies in the directory, in alphabetical order.
    fn entries(&self) -> Result<Vec<PathBuf>, Failure> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                let dir = self.dir.display();
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
            match (&pack.newer, of_the_hub(&pack.source)) {
                (Some(newer), Some((id, _))) => writeln!(
                    out,
                    "  newer: {id}@{newer}; `gemmad pull --force {id}` fetches it"
                )?,
                (None, Some(_)) if self.check => writeln!(out, "  it is the newest")?,
                _ => {}
            }
        }
        for path in self.entries().unwrap_or_default() {
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
        if packs.iter().any(|pack| pack.name == name && pack.in_use) {
            return refuse(format!(
                "{name} is in use: name another one as [model] path in {} first",
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

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn is_unfinished(path: &Path) -> bool {
    let name = name_of(path);
    path.is_dir() && UNFINISHED.iter().any(|end| name.ends_with(end))
}

/// Repository and commit of `OWNER/REPOSITORY@COMMIT`.
fn of_the_hub(source: &str) -> Option<(&str, &str)> {
    let (id, commit) = source.rsplit_once('@')?;
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
