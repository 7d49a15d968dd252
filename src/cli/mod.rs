//! The command line: one file a subcommand.

mod ask;
mod bench;
mod broker;
mod chat;
mod check_config;
mod config_file;
mod describe;
mod devices;
mod doctor;
mod eval;
mod failure;
mod flash;
mod fleet;
mod inspect;
mod interrupt;
mod listen;
mod model_args;
mod models;
mod mqtt_clear;
mod output;
mod pack;
mod page;
mod pages;
mod plan;
mod procfs;
mod progress;
mod pull;
mod report;
mod run;
mod service;
mod setup;
mod transcribe;
mod wake;
mod watch;

use std::borrow::Cow;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::guard::harmless;

/// Run Gemma 4 or Gemma 3n (text, audio, vision) on the CPU of a small board.
#[derive(Debug, Parser)]
#[command(name = "gemmad", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ask(ask::Ask),
    Describe(describe::Describe),
    Devices(devices::Devices),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    Chat(chat::Chat),
    CheckConfig(check_config::CheckConfig),
    Eval(eval::Eval),
    Fleet(fleet::Fleet),
    Inspect(inspect::Inspect),
    Listen(listen::Listen),
    Models(models::Models),
    MqttClear(mqtt_clear::MqttClear),
    Pack(pack::Pack),
    Page(page::Page),
    Plan(plan::Plan),
    Pull(pull::Pull),
    #[command(hide = true)]
    Pages(pages::Pages),
    Report(report::Report),
    Run(run::Run),
    Setup(setup::Setup),
    Transcribe(transcribe::Transcribe),
    Wake(wake::Wake),
    Watch(watch::Watch),
}

/// The command line as a value, from which the manual pages and completions are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// What `--version` tells: the commit, where the build knew it, and the instruction set that this CPU's kernels use. Manual pages
/// have the bare number instead, so that they are the same wherever they are made.
fn version() -> String {
    let commit = match env!("GEMMAD_COMMIT") {
        "" => String::new(),
        commit => format!("commit {commit}, "),
    };
    format!(
        "{} ({commit}{}, kernels for {})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        kernels::Isa::best()
    )
}

/// Runs the command of this process's arguments; what goes wrong is told in one line on standard error.
pub fn main() -> ExitCode {
    let matches = match command().version(version()).try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are no errors and go to standard output; nothing can be done if that fails.
            match harmless::text(&error.render().to_string()) {
                Cow::Borrowed(_) => error.print().ok(),
                // A name like an option, such as a file's behind `*`.
                Cow::Owned(clean) => writeln!(std::io::stderr(), "{clean}").ok(),
            };
            return if error.use_stderr() {
                ExitCode::from(failure::exit::USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let of_command = matches.subcommand().map(|(_, matches)| matches);
    let result = match cli.command {
        Command::Ask(command) => command.run(of_command),
        Command::Describe(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Chat(command) => command.run(of_command),
        Command::CheckConfig(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Fleet(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Listen(command) => command.run(),
        Command::Models(command) => command.run(),
        Command::MqttClear(command) => command.run(),
        Command::Pack(command) => command.run(),
        Command::Page(command) => command.run(),
        Command::Plan(command) => command.run(),
        Command::Pull(command) => command.run(),
        Command::Pages(command) => command.run(),
        Command::Report(command) => command.run(),
        Command::Run(command) => command.run(),
        Command::Setup(command) => command.run(),
        Command::Transcribe(command) => command.run(),
        Command::Wake(command) => command.run(),
        Command::Watch(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
