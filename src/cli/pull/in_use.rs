//! The pack that a configuration names, written into it; everything else in there stays as people wrote it.

use std::path::Path;

use toml_edit::DocumentMut;

use super::super::config_file;
use super::super::failure::{Failure, exit};
use crate::config::Config;

/// Sets `[model] path` in the configuration, which is taken whole or not at all.
pub(super) fn write(config: &Path, pack: &Path) -> Result<(), Failure> {
    let shown = config.display();
    let failed = |error: std::io::Error| {
        Failure::new(
            exit::IO,
            format_args!(
                "cannot write {shown}: {error}; the pack is made: name it there as [model] path"
            ),
        )
    };
    let text = std::fs::read_to_string(config).map_err(failed)?;
    let pack = pack.canonicalize().map_err(failed)?;
    let text = with_model(&text, &pack)
        .map_err(|error| Failure::new(exit::CONFIG, format_args!("{shown}: {error}")))?;
    Config::parse(&text, config).map_err(|error| Failure::new(exit::CONFIG, error))?;
    config_file::replace(config, &text).map_err(failed)
}

fn with_model(text: &str, pack: &Path) -> Result<String, String> {
    let pack = pack.to_str().ok_or("the pack's path is not UTF-8")?;
    let mut document: DocumentMut = text.parse().map_err(|error| format!("{error}"))?;
    config_file::set(config_file::section(&mut document, "model")?, "path", pack);
    Ok(document.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_changes_and_the_rest_stays_as_it_was_written() {
        let pack = Path::new("/m/a.pack");
        for (before, after) in [
            ("", "[model]\npath = \"/m/a.pack\"\n"),
            (
                "# mine\n[model]\npath = \"/old\" # why\ncontext = 8\n\n[mqtt]\n",
                "# mine\n[model]\npath = \"/m/a.pack\" # why\ncontext = 8\n\n[mqtt]\n",
            ),
            (
                "[model]\n# short\ncontext = 8\n",
                "[model]\n# short\ncontext = 8\npath = \"/m/a.pack\"\n",
            ),
        ] {
            assert_eq!(with_model(before, pack).unwrap(), after);
        }
        assert!(with_model("model = 1", pack).is_err());
        assert!(with_model("[model", pack).is_err());
    }
}
