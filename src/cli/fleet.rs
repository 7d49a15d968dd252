//! `gemmad fleet`: who is in the fleet, and how it is.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::broker::block_on;
use super::failure::{Failure, exit};
use super::output;
use crate::config::Config;
use crate::fleet::{FleetError, Link, Member, roster};
use crate::guard::harmless;

/// How long boards may take to answer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Ask the boards that share the work
#[derive(Debug, clap::Args)]
pub(super) struct Fleet {
    #[command(subcommand)]
    command: FleetCommand,
}

#[derive(Debug, clap::Subcommand)]
enum FleetCommand {
    Status(Status),
}

/// Tell which boards are there, what they do and did, and what waits at the server
#[derive(Debug, clap::Args)]
struct Status {
    /// The configuration with the section [fleet]
    #[arg(long, value_name = "FILE", default_value = "/etc/gemmad/gemmad.toml")]
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Fleet {
    pub(super) fn run(self) -> Result<(), Failure> {
        let FleetCommand::Status(status) = self.command;
        status.run()
    }
}

impl Status {
    fn run(self) -> Result<(), Failure> {
        let config =
            Config::load(&self.config).map_err(|error| Failure::new(exit::CONFIG, error))?;
        if !config.fleet.enabled {
            let path = self.config.display();
            return Err(Failure::new(
                exit::CONFIG,
                format_args!("{path}: fleet.enabled is false: this board is in no fleet"),
            ));
        }
        let asked = block_on(async {
            let link = Link::open(&config.fleet, &config.mqtt.node_name()).await?;
            let waiting = link.waiting().await?;
            let members = roster(&link, PATIENCE).await?;
            Ok((waiting, members))
        });
        let asked = asked.map_err(|error| Failure::new(exit::UNAVAILABLE, error))?;
        let (waiting, members) = asked.map_err(|error| match error {
            FleetError::File { .. } | FleetError::Tls(_) => Failure::new(exit::CONFIG, error),
            _ => Failure::new(exit::UNAVAILABLE, error),
        })?;
        let mut out = output::out();
        if self.json {
            let waiting: serde_json::Map<String, serde_json::Value> = waiting
                .iter()
                .map(|(kind, jobs)| (kind.name().to_owned(), (*jobs).into()))
                .collect();
            let report = serde_json::json!({ "waiting": waiting, "boards": members });
            writeln!(out, "{}", output::pretty_json(&report)?)?;
            return Ok(());
        }
        let waiting: Vec<String> = waiting
            .iter()
            .map(|(kind, jobs)| format!("{jobs} {}", kind.name()))
            .collect();
        writeln!(out, "at the server: {}", waiting.join(", "))?;
        let all: u64 = members.iter().map(|member| member.done).sum();
        for member in &members {
            writeln!(out, "{}", harmless::line(&line(member, all)))?;
        }
        if members.is_empty() {
            writeln!(out, "no board is there")?;
        }
        Ok(())
    }
}

/// A board in a line; `all` is what all boards have done.
fn line(member: &Member, all: u64) -> String {
    let mut line = format!(
        "{} ({}, gemmad {})",
        member.node, member.role, member.version
    );
    if member.role != "source" {
        let can = member.abilities();
        let share = 100.0 * member.done as f64 / all.max(1) as f64;
        line += &format!(
            ": {}, {}{can}; {} jobs done ({share:.0} % of all), {} of them with an error, {:.0} ms each",
            if member.busy { "busy" } else { "idle" },
            member.model,
            member.done,
            member.failed,
            member.job_ms,
        );
    }
    if member.role != "worker" {
        line += &format!(
            "; {} of its own away, {} came back, {} poison",
            member.away, member.came_back, member.poison
        );
    }
    match member.misfit() {
        Some(misfit) => format!("{line}; {misfit}"),
        None => line,
    }
}
