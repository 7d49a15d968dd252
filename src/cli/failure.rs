//! Why a command ended: one line for the user, and an exit code for scripts.

use std::process::ExitCode;

use crate::guard::harmless;
use crate::hub::HubError;
use crate::model::config::ConfigError;
use crate::model::decoder::SliceError;
use crate::model::encoder::VisionError;
use crate::model::prompt::PromptError;
use crate::model::weights::WeightsError;
use crate::pack::PackError;
use crate::pipeline::EngineError;

/// Exit codes of sysexits.h.
pub(super) mod exit {
    /// The command was used incorrectly.
    pub(in crate::cli) const USAGE: u8 = 64;
    /// The input data was incorrect in some way.
    pub(in crate::cli) const DATA: u8 = 65;
    /// An input file did not exist or was not readable.
    pub(in crate::cli) const NO_INPUT: u8 = 66;
    /// A service that is needed, such as the broker, does not do what is asked.
    pub(in crate::cli) const UNAVAILABLE: u8 = 69;
    /// The program itself failed; a restart may mend it.
    pub(in crate::cli) const SOFTWARE: u8 = 70;
    /// Writing the output failed.
    pub(in crate::cli) const IO: u8 = 74;
    /// Ctrl-C, as shells have it.
    pub(in crate::cli) const INTERRUPTED: u8 = 130;
    /// Something was found in an unconfigured or misconfigured state.
    pub(in crate::cli) const CONFIG: u8 = 78;
}

/// Why a command ended, in one line, with the process's exit code.
#[derive(Debug)]
pub(super) struct Failure {
    /// Empty where nobody is left to read it.
    message: String,
    exit_code: u8,
}

/// Tells the user something beside the output; nothing has failed for that.
#[expect(
    clippy::print_stderr,
    reason = "the one place that tells the user what went wrong, or what is worth knowing"
)]
pub(super) fn note(message: &str) {
    eprintln!("gemmad: {message}");
}

impl Failure {
    pub(super) fn new(exit_code: u8, error: impl std::fmt::Display) -> Failure {
        // Library messages may have several lines, and repeat what stood in a file or came from a broker.
        let message = error
            .to_string()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let message = harmless::line(&message).into_owned();
        Failure { message, exit_code }
    }

    /// Standard output failed. A reader that has seen enough (`gemmad … | head`) is no failure.
    pub(super) fn output(error: &std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure {
                message: String::new(),
                exit_code: 0,
            };
        }
        Failure::new(
            exit::IO,
            format_args!("cannot write to standard output: {error}"),
        )
    }

    /// The line alone, for a command that tells more than one.
    pub(super) fn in_words(self) -> String {
        self.message
    }

    /// Tells the user and gives the process's exit code.
    pub(super) fn report(self) -> ExitCode {
        ExitCode::from(self.told().exit_code)
    }

    /// Tells the user now, where other work goes on; what remains is the exit code.
    pub(super) fn told(self) -> Failure {
        if !self.message.is_empty() {
            note(&self.message);
        }
        Failure {
            message: String::new(),
            exit_code: self.exit_code,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::output(&error)
    }
}

impl From<WeightsError> for Failure {
    fn from(error: WeightsError) -> Failure {
        Failure::from(EngineError::from(error))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::from(EngineError::from(error))
    }
}

impl From<SliceError> for Failure {
    fn from(error: SliceError) -> Failure {
        Failure::from(EngineError::from(error))
    }
}

impl From<PackError> for Failure {
    fn from(error: PackError) -> Failure {
        let code = match error {
            PackError::Config(error) => return Failure::from(error),
            PackError::Weights(error) => return Failure::from(error),
            PackError::Slice(error) => return Failure::from(error),
            PackError::Hub(error) => return Failure::from(error),
            PackError::Tokenizer(error) => return Failure::from(EngineError::from(error)),
            PackError::Read { .. } => exit::NO_INPUT,
            PackError::Write { .. } | PackError::Space { .. } | PackError::NoHoles { .. } => {
                exit::IO
            }
            PackError::Exists { .. }
            | PackError::NotReplaceable { .. }
            | PackError::Name { .. }
            | PackError::Busy { .. }
            | PackError::AlreadyPacked { .. }
            | PackError::Trained { .. }
            | PackError::TrainedTowers { .. }
            | PackError::NotTrained { .. }
            | PackError::NoDrafter { .. }
            | PackError::NotAPack { .. } => exit::USAGE,
            _ => exit::DATA,
        };
        Failure::new(code, error)
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Failure {
        let code = match error {
            HubError::Setting { .. } => exit::CONFIG,
            HubError::NoRevision { .. } | HubError::NoFile { .. } => exit::USAGE,
            HubError::Hash { .. } | HubError::TooLarge { .. } => exit::DATA,
            HubError::Io { .. } => exit::IO,
            _ => exit::UNAVAILABLE,
        };
        Failure::new(code, error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        use crate::model::generation_config::GenerationConfigError;
        use crate::model::tokenizer::TokenizerError;
        let code = match &error {
            EngineError::Config(ConfigError::Io { source, .. })
            | EngineError::Weights(WeightsError::Io { source, .. })
            | EngineError::Tokenizer(TokenizerError::Read { source, .. })
            | EngineError::GenerationConfig(GenerationConfigError::Read { source, .. })
            | EngineError::Slice(SliceError::Io { source, .. }) => {
                // The file is there, but it is not UTF-8.
                if source.kind() == std::io::ErrorKind::InvalidData {
                    exit::DATA
                } else {
                    exit::NO_INPUT
                }
            }
            EngineError::Weights(WeightsError::NoWeights { .. }) => exit::NO_INPUT,
            EngineError::Slice(SliceError::Unknown { .. } | SliceError::None { .. })
            | EngineError::Prompt(PromptError::NoThinking { .. })
            | EngineError::Sampling(_)
            | EngineError::Isa(_)
            | EngineError::Vision(
                VisionError::SoftTokens { .. } | VisionError::ForeignOption { .. },
            )
            | EngineError::Context { .. }
            | EngineError::CacheSize { .. } => exit::CONFIG,
            _ => exit::DATA,
        };
        Failure::new(code, error)
    }
}
