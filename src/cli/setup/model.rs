//! Which model: one that is installed, or one to pull.

use std::path::{Path, PathBuf};

use super::prompts::Asker;
use crate::cli::failure::{Failure, exit};
use crate::cli::models::{Installed, Models};
use crate::cli::pull::Pull;
use crate::hub::{ModelName, NAMES};

/// Comes with the package.
const DEMO: &str = "/usr/share/gemmad/models/demo-gemma4";

/// What was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// It is here.
    Here(PathBuf),
    /// It is to be pulled; `None`: what `gemmad pull` takes by default.
    Pull(Option<String>),
}

impl Choice {
    /// Where the model is, once it is there.
    pub(super) fn fetched(&self, models: &Path) -> Result<PathBuf, Failure> {
        match self {
            Choice::Here(path) => Ok(path.clone()),
            Choice::Pull(name) => Pull::into_directory(name.as_deref(), models),
        }
    }
}

/// The model that an option names: a directory, an installed pack, or what can be pulled.
pub(super) fn named(name: &str, models: &Path) -> Result<Choice, Failure> {
    let is_model = |path: &Path| path.join("config.json").is_file();
    let given = Path::new(name);
    for path in [
        given.to_owned(),
        models.join(name),
        models.join(format!("{name}.pack")),
    ] {
        if is_model(&path) {
            let path = path.canonicalize().unwrap_or(path);
            return Ok(Choice::Here(path));
        }
    }
    if given.is_absolute() || given.exists() {
        let mend = "name a pack, or a directory with config.json, tokenizer.json and weights";
        return Err(Failure::new(
            exit::NO_INPUT,
            format_args!("{name} is no model: {mend}"),
        ));
    }
    ModelName::parse(name).map_err(|error| Failure::new(exit::USAGE, error))?;
    Ok(Choice::Pull(Some(name.to_owned())))
}

/// Asks; the default is the model in use, unless it is the demo's, then one that is installed, then what fits this board.
pub(super) fn choose(
    asker: Asker,
    models: &Path,
    in_use: Option<&Path>,
) -> Result<Choice, Failure> {
    let in_use = in_use.filter(|path| path.is_dir());
    let is_demo = |path: &Path| path.starts_with("/usr/share/gemmad");
    let installed = Models::installed_in(models)?;
    let mut choices = Vec::new();
    if let Some(path) = in_use.filter(|path| !is_demo(path)) {
        choices.push((
            format!("{}, as now", path.display()),
            Some(Choice::Here(path.to_owned())),
        ));
    }
    for pack in &installed {
        if in_use != Some(&pack.path) {
            choices.push((described(pack), Some(Choice::Here(pack.path.clone()))));
        }
    }
    choices.push((
        "pull the one that fits this board best, some gigabytes from Hugging Face".to_owned(),
        Some(Choice::Pull(None)),
    ));
    choices.push(("pull another one".to_owned(), None));
    if Path::new(DEMO).is_dir() {
        let about = "the demo model, which knows a few made-up sentences";
        choices.push((about.to_owned(), Some(Choice::Here(PathBuf::from(DEMO)))));
    }
    let shown: Vec<String> = choices.iter().map(|(text, _)| text.clone()).collect();
    let at = asker.one_of("Which model?", &shown, 0)?;
    match choices.swap_remove(at).1 {
        Some(choice) => Ok(choice),
        None => {
            let check = |name: &str| match name {
                "" => Err(format!("give {NAMES}")),
                name => ModelName::parse(name).map(drop),
            };
            Ok(Choice::Pull(Some(asker.text("Its name", "", &check)?)))
        }
    }
}

fn described(pack: &Installed) -> String {
    format!(
        "{}: {}, recipe {}, {:.1} GB",
        pack.name,
        pack.family.unwrap_or("of no family that is known"),
        pack.recipe,
        pack.bytes as f64 / 1e9
    )
}
