//! `gemmad pages`: what a package needs beside the program and only the program knows.

use std::io;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::failure::{Failure, exit};

/// The reference of the configuration, which gemmad.toml(5) shows.
const REFERENCE: &str = include_str!("../../config/gemmad.toml");

/// Write the manual pages and the shells' completions, for packages
#[derive(Debug, clap::Args)]
pub(super) struct Pages {
    /// Where `man/` and `completions/` are made
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Pages {
    pub(super) fn run(self) -> Result<(), Failure> {
        write(&self.directory).map_err(|error| {
            Failure::new(
                exit::IO,
                format_args!(
                    "cannot write pages to {}: {error}",
                    self.directory.display()
                ),
            )
        })
    }
}

fn write(directory: &Path) -> io::Result<()> {
    let manual = directory.join("man");
    let completions = directory.join("completions");
    std::fs::create_dir_all(&manual)?;
    std::fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(super::command(), &manual)?;
    std::fs::write(manual.join("gemmad.toml.5"), configuration().render())?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut super::command(), "gemmad", &completions)?;
    }
    Ok(())
}

/// gemmad.toml(5): the reference as it stands, comments and all.
fn configuration() -> Roff {
    let source = concat!("gemmad ", env!("CARGO_PKG_VERSION"));
    let mut page = Roff::new();
    page.control("TH", ["gemmad.toml", "5", "", source, ""]);
    page.control("SH", ["NAME"]);
    page.text([roman("gemmad.toml - configuration of gemmad")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("/etc/gemmad/gemmad.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([
        roman("TOML 1.0. This is the reference, with every key, its default and its unit. "),
        bold("gemmad check-config"),
        roman(" checks a file, and "),
        bold("systemctl reload gemmad"),
        roman(" puts it into force; what only a restart can change is named in the log."),
    ]);
    page.control("SH", ["REFERENCE"]);
    page.control("nf", []);
    let lines = REFERENCE
        .lines()
        .flat_map(|line| [roman(line), Inline::LineBreak]);
    page.text(lines.collect::<Vec<_>>());
    page.control("fi", []);
    page.control("SH", ["SEE ALSO"]);
    page.text([
        bold("gemmad"),
        roman("(1), "),
        bold("gemmad-devices"),
        roman("(1)"),
    ]);
    page
}
