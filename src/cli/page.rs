//! `gemmad page`: where the page is that shows what is heard and seen.

use std::io::Write;
use std::path::PathBuf;

use super::failure::{Failure, exit};
use super::output;
use crate::config::Config;

/// Print the address of the page that shows what the daemon hears and sees
///
/// The page is a part of the HTTP door, [http] in the configuration, and asks for the key of that door.
#[derive(Debug, clap::Args)]
pub(super) struct Page {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
}

impl Page {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config =
            Config::load(&self.config).map_err(|error| Failure::new(exit::CONFIG, error))?;
        if !config.http.enabled {
            let message = format!(
                "{}: http.enabled is false, so there is no page; set it to true",
                self.config.display()
            );
            return Err(Failure::new(exit::CONFIG, message));
        }
        writeln!(output::out(), "{}/", config.http.url_for_others())?;
        Ok(())
    }
}
