//! Why work has no answer, in the words that whoever asked is told.

use crate::daemon::job::STOPPING;
use crate::pipeline::{Answer, EngineError, FinishReason, PromptError, VisionError};
use crate::report::{ErrorBody, ErrorCode};

/// An answer that was not broken off.
pub(super) fn whole(result: Result<Answer, EngineError>) -> Result<Option<Answer>, EngineError> {
    match result {
        Ok(answer) if answer.finish == FinishReason::Cancelled => Ok(None),
        Ok(answer) => Ok(Some(answer)),
        Err(EngineError::Cancelled) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error of work that was not done because the daemon ends.
pub(in crate::daemon) fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::Busy, STOPPING)
}

/// What went wrong in the engine, for whoever asked.
pub(super) fn engine_error(error: &EngineError) -> ErrorBody {
    let code = match error {
        EngineError::Slice(_) => ErrorCode::NotFound,
        EngineError::Prompt(PromptError::TooLong { .. }) | EngineError::Text(_) => {
            ErrorCode::TooLarge
        }
        EngineError::Clip(_) => ErrorCode::InvalidAudio,
        EngineError::Grammar(_)
        | EngineError::Tools(_)
        | EngineError::Prompt(_)
        | EngineError::NoTower { .. }
        | EngineError::Sampling(_)
        | EngineError::Vision(VisionError::SoftTokens { .. } | VisionError::ForeignOption { .. }) => {
            ErrorCode::Invalid
        }
        EngineError::Vision(VisionError::Picture { .. }) => ErrorCode::InvalidImage,
        _ => ErrorCode::Failed,
    };
    ErrorBody {
        code,
        message: error.to_string(),
    }
}

pub(super) fn invalid_image(error: impl std::fmt::Display) -> ErrorBody {
    ErrorBody {
        code: ErrorCode::InvalidImage,
        message: error.to_string(),
    }
}

pub(super) fn invalid_audio(error: impl std::fmt::Display) -> ErrorBody {
    ErrorBody {
        code: ErrorCode::InvalidAudio,
        message: error.to_string(),
    }
}
